"""Files of how errors go together."""

from __future__ import annotations

import numpy as np
import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.model.conditioning import (
    FILE,
    ErrorFactors,
    digest,
    extended,
    read_conditioning,
    write_conditioning,
)


@pytest.fixture
def factors():
    loadings = np.array([[0.5, 0.25], [0.75, 0.0], [0.0, 0.0]], np.float32)
    return ErrorFactors(loadings=loadings, noise=1.0 - (loadings**2).sum(axis=1))


def test_what_was_written_is_read(factors, tmp_path):
    write_conditioning({"cells": factors}, tmp_path)
    found = read_conditioning(tmp_path, 3)
    np.testing.assert_allclose(found["cells"].loadings, factors.loadings, atol=1e-3)
    np.testing.assert_allclose(found["cells"].noise, factors.noise, atol=1e-3)
    assert digest(found) == digest({"cells": factors})
    assert read_conditioning(tmp_path / "elsewhere", 3) is None


def test_correlations_have_a_diagonal_of_one(factors):
    among = factors.among(np.arange(3))
    np.testing.assert_allclose(np.diag(among), 1.0)
    assert among[0, 1] == pytest.approx(0.375)
    assert factors.known.tolist() == [True, True, False]


def test_added_proteins_share_nothing(factors):
    wider = extended({"cells": factors}, 5)["cells"]
    assert wider.known.tolist() == [True, True, False, False, False]
    np.testing.assert_allclose(np.diag(wider.among(np.arange(5))), 1.0)
    assert extended(None, 5) is None


def test_a_file_that_does_not_fit_is_refused(factors, tmp_path):
    write_conditioning({"cells": factors}, tmp_path)
    with pytest.raises(InputError, match="noise of 4 proteins"):
        read_conditioning(tmp_path, 4)
    for bad in (np.nan, np.inf):
        loadings = factors.loadings.copy()
        loadings[0, 0] = bad
        broken = ErrorFactors(loadings=loadings, noise=factors.noise)
        write_conditioning({"cells": broken}, tmp_path)
        with pytest.raises(InputError, match="finite loadings and positive noise"):
            read_conditioning(tmp_path, 3)
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        read_conditioning(tmp_path, 3)
