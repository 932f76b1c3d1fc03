"""Splits, and cells with what was measured of them."""

import numpy as np
import pandas as pd
import pytest

from evaluation.made_up import make_cells
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.tasks import make_tasks, open_cells


@pytest.fixture
def cells():
    table = make_cells(100, seed=1)
    table.obs["donor"] = pd.Categorical(np.repeat(["a", "b", "c"], [50, 40, 10]))
    table.obsm["X_emb"] = np.arange(200.0).reshape(100, 2)
    return open_cells(table, embeddings=["X_emb"])


def test_truth_leaves_isotypes_out_and_keeps_the_centre_of_the_whole_panel(cells):
    truth = cells.truth()
    assert list(truth.antibodies) == ["CD3", "CD4", "CD8a", "CD19", "CD14", "PD-1", "CD15"]
    assert list(truth.proteins) == ["CD3", "CD4", "CD8", "CD19", "CD14", "CD279", "CD15"]
    logged = np.log1p(truth.raw)
    np.testing.assert_allclose(
        truth.clr, logged - logged.mean(axis=1, keepdims=True), rtol=1e-5, atol=1e-5
    )
    part = cells.truth(["CD8", "CD3", "CD20"])
    assert list(part.proteins) == ["CD3", "CD8"]
    np.testing.assert_array_equal(part.clr, truth.clr[:, [0, 2]])
    # For a model that is to be trained without an antibody, the antibody was never measured.
    fewer = cells.without(["CD3"]).truth()
    assert "CD3" not in fewer.proteins
    assert np.abs(fewer.clr[:, 0] - truth.clr[:, 1]).max() > 0.01


def test_chosen_cells_keep_everything_that_is_theirs(cells):
    rows = np.array([5, 2, 99])
    part = cells.take(rows)
    assert part.n_obs == 3
    np.testing.assert_array_equal(part.embeddings["X_emb"], cells.embeddings["X_emb"][rows])
    np.testing.assert_array_equal(
        part.paired.rna.counts.toarray(), cells.paired.rna.counts.toarray()[rows]
    )
    np.testing.assert_array_equal(part.truth().raw, cells.truth().raw[rows])
    assert list(part.obs["donor"]) == ["a", "a", "c"]
    section = part.to_section()
    assert section.name == cells.name
    assert section.has_protein
    np.testing.assert_array_equal(section.rna().counts.toarray(), part.paired.rna.counts.toarray())


def test_an_embedding_does_not_outlive_its_rna(cells):
    rna = cells.paired.rna
    assert cells.with_rna(rna) is cells
    other = cells.take(np.arange(100)).paired.rna
    assert cells.with_rna(other).embeddings == {}


def test_the_random_split_covers_every_cell_once(cells):
    (task,) = make_tasks("random", [], [cells], seed=3)
    (again,) = make_tasks("random", [], [cells], seed=3)
    (other,) = make_tasks("random", [], [cells], seed=4)
    taught, asked = (set(part.obs.index) for part in (task.train[0], task.test))
    assert len(taught) == 70
    assert len(asked) == 30
    assert not taught & asked
    assert set(again.test.obs.index) == asked != set(other.test.obs.index)
    assert "easy" in task.part


def test_every_donor_with_enough_cells_is_left_out_in_turn(cells):
    further = open_cells(make_cells(30, seed=9))
    tasks = list(make_tasks("donor", [further], [cells], donor_key="donor"))
    assert [task.part for task in tasks] == ["donor a", "donor b"]  # c has 10 cells
    for task, donor in zip(tasks, "ab", strict=True):
        assert task.train[0] is further
        assert set(task.test.obs["donor"]) == {donor}
        assert set(task.train[1].obs["donor"]) == set("abc") - {donor}


def test_one_donor_cannot_be_split(cells):
    alone = cells.take(np.arange(40))
    with pytest.raises(InputError, match=r"obs\['donor'\] has one value \(a\), expected at least"):
        list(make_tasks("donor", [], [alone], donor_key="donor"))
    with pytest.raises(InputError, match=r"None is not in obs \(columns: donor\)"):
        list(make_tasks("donor", [], [cells]))


def test_donors_that_all_have_few_cells_are_said():
    table = make_cells(30, seed=1)
    table.obs["donor"] = np.repeat(["a", "b"], 15)
    with pytest.raises(InputError, match="no donor has 20 cells"):
        list(make_tasks("donor", [], [open_cells(table)], donor_key="donor"))


def test_an_absent_or_broken_embedding_is_refused():
    table = make_cells(30)
    with pytest.raises(InputError, match=r"no obsm\['X_scGPT'\] \(found: hidden, protein\)"):
        open_cells(table, embeddings=["X_scGPT"])
    table.obsm["X_scGPT"] = np.full((30, 2), np.nan)
    with pytest.raises(InputError, match=r"obsm\['X_scGPT'\] has shape \(30, 2\) or holds NaN"):
        open_cells(table, embeddings=["X_scGPT"])
