"""Calibration as a file beside the weights."""

import json

import numpy as np
import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.model.calibration import (
    ContextCalibration,
    extended,
    implied_r,
    interval_features,
    read_calibration,
    relative_spread,
    write_calibration,
)


def context(n=3):
    flat = np.zeros(len(interval_features(np.zeros(1), np.zeros(1), np.ones(1))))
    return ContextCalibration(
        slope=np.full(n, 0.5),
        offset=np.zeros(n),
        center=np.zeros(n),
        spread=np.ones(n),
        observed=np.append(np.full(n - 1, 0.8), np.nan),
        evidence=np.append(np.ones(n - 1), np.nan),
        agreement=np.ones(n),
        implied=np.ones(n),
        reliability=np.ones(n),
        tested=np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        untested=np.array([0.2, 0.0, 0.0, 0.0, 0.0]),
        lower=np.r_[-1.0, flat[1:]],
        upper=np.r_[2.0, flat[1:]],
        width_per_std=3.0,
        well=0.7,
        fairly=0.4,
    )


def test_it_comes_back_from_its_file(tmp_path):
    write_calibration({"cells": context(), "spots": context()}, tmp_path)
    again = read_calibration(tmp_path, 3)
    assert set(again) == {"cells", "spots"}
    np.testing.assert_array_equal(again["spots"].evidence, [1, 1, np.nan])
    np.testing.assert_array_equal(again["cells"].upper, context().upper)
    assert again["cells"].well == 0.7


@pytest.mark.parametrize(("key", "value"), [("slope", 1.0), ("well", [1.0]), ("upper", [1.0])])
def test_values_of_another_shape(tmp_path, key, value):
    write_calibration({"cells": context()}, tmp_path)
    content = json.loads((tmp_path / "calibration.json").read_text())
    content["contexts"]["cells"][key] = value
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"expected a calibration.*{key}"):
        read_calibration(tmp_path, 3)


def test_a_folder_without_one(tmp_path):
    assert read_calibration(tmp_path, 3) is None


@pytest.mark.parametrize(
    "text",
    ["[]", '{"format_version": 9}', '{"format_version": 1, "contexts": {"a": {}}}'],
)
def test_damaged_files(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InputError, match="expected a calibration of format version 1"):
        read_calibration(tmp_path, 3)


def test_of_other_proteins(tmp_path):
    write_calibration({"cells": context()}, tmp_path)
    with pytest.raises(InputError, match="expected 4 proteins"):
        read_calibration(tmp_path, 4)
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert content["coverage"] == 0.9


def test_apply_is_slope_and_asymmetric_interval():
    mean = np.array([[1.0, -2.0, np.nan]], np.float32)
    value, std, low, high = context().apply(mean, np.ones_like(mean), np.array([0.5, 0.5, 0.5]))
    np.testing.assert_allclose(value, [[0.5, -1.0, np.nan]])
    np.testing.assert_allclose(low - value, [[-1, -1, np.nan]])
    np.testing.assert_allclose(high - value, [[2, 2, np.nan]])
    np.testing.assert_allclose(std, [[1, 1, np.nan]])


def test_expected_r_with_and_without_evidence():
    np.testing.assert_allclose(context().expected_r(), np.tanh([1.0, 1.0, 0.2]))


def test_added_proteins_are_untested():
    grown = extended({"cells": context()}, 5)["cells"]
    assert grown.labels(grown.expected_r()) == ["well", "well", *["untested"] * 3]
    np.testing.assert_allclose(grown.slope, 0.5)
    assert extended(None, 5) is None


def test_what_a_section_tells():
    np.testing.assert_allclose(implied_r(np.array([3.0]), np.array([4.0])), [0.6])
    np.testing.assert_allclose(
        relative_spread(np.array([1.0, np.nan, 1e3]), np.ones(3)), [0, 0, 1.5]
    )
