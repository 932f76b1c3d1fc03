"""kNN and ridge on an embedding that stands in obsm."""

import numpy as np
import pytest

from evaluation.made_up import make_cells
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.embeddings import PENALTIES, EmbeddingMethods
from sclinguist_core.evaluation.metrics import pearson
from sclinguist_core.evaluation.tasks import Task, open_cells


def embedded(seed, *, scale=1.0):
    """Cells whose embedding is the hidden truth, noise and a few dimensions of nothing."""
    table = make_cells(200, seed=seed)
    rng = np.random.default_rng(seed)
    hidden = table.obsm["hidden"] + 0.3 * rng.normal(size=table.obsm["hidden"].shape)
    table.obsm["X_other"] = np.hstack([scale * hidden, rng.normal(size=(200, 4))])
    return table


def cells(table):
    return open_cells(table, embeddings=["X_other"])


def test_they_find_what_the_embedding_holds():
    task = Task(train=[cells(embedded(1)), cells(embedded(2))], test=cells(embedded(3)))
    method = EmbeddingMethods(task, ["CD3", "CD19", "CD20"], "X_other")
    found = method.predict(task.test).clr
    assert set(found) == {"kNN on X_other", "ridge on X_other"}
    truth = embedded(3).obsm["hidden"][:, [0, 3]]
    for values in found.values():
        assert pearson(values[:, :2], truth).min() > 0.8
        assert np.isnan(values[:, 2]).all()
    assert method.penalty in PENALTIES


def test_dimensions_are_standardised():
    plain = Task(train=[cells(embedded(1))], test=cells(embedded(3)))
    large = Task(train=[cells(embedded(1, scale=1e3))], test=cells(embedded(3, scale=1e3)))
    a, b = (EmbeddingMethods(t, ["CD3"], "X_other").predict(t.test).clr for t in (plain, large))
    np.testing.assert_allclose(a["ridge on X_other"], b["ridge on X_other"], atol=1e-3)


def test_changed_rna_has_no_embedding():
    task = Task(train=[cells(embedded(1))], test=cells(embedded(3)))
    other = task.test.with_rna(cells(embedded(4)).paired.rna)
    found = EmbeddingMethods(task, ["CD3"], "X_other").predict(other)
    assert found.clr == {}


def test_an_absent_or_broken_embedding_is_said():
    with pytest.raises(InputError, match=r"no obsm\['X_scGPT'\] \(found: .*X_other"):
        open_cells(embedded(1), embeddings=["X_scGPT"])
    table = embedded(1)
    table.obsm["X_other"][3, 1] = np.nan
    with pytest.raises(InputError, match="holds NaN"):
        cells(table)
