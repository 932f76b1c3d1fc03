"""Baselines choose their training sets by leaving one training set out."""

import numpy as np
import pytest

from evaluation.made_up import make_cells
from sclinguist_core.evaluation import selection
from sclinguist_core.evaluation.features import TrainingSets
from sclinguist_core.evaluation.inputs import paired_cells
from sclinguist_core.evaluation.selection import KERNEL_RIDGE, KNN, RIDGE


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Rules on the scale of made-up sets: 400 genes, 7 proteins."""
    monkeypatch.setattr(selection, "MANY_SHARED", 350)
    monkeypatch.setattr(selection, "WIDE_PANEL", 6)
    monkeypatch.setattr(selection, "MIN_SHARED_FEATURES", 200)


def spoilt(table):
    """The same cells with proteins of other cells: nothing to learn from."""
    order = np.random.default_rng(0).permutation(table.n_obs)
    table.obsm["protein"] = table.obsm["protein"].iloc[order].set_axis(table.obs_names)
    return table


def test_candidates_follow_their_rules():
    narrow = make_cells(80, seed=2)[:, :260].copy()
    few = make_cells(80, seed=3)
    few.obsm["protein"] = few.obsm["protein"][["CD3", "CD4", "CD19"]]
    training = TrainingSets.prepare(
        [paired_cells(make_cells(80, seed=1)), paired_cells(narrow), paired_cells(few)]
    )
    found = {
        c.name: c for c in selection.candidates(training, np.ones(len(training.symbols), bool))
    }
    assert found["all sets"].sets == (0, 1, 2)
    assert found["all sets, shared genes"].shared
    assert found["sets of 10 proteins"].sets == (0, 1)
    assert found["sets sharing 2,000 genes"].sets == (0, 2)
    assert found["sets of 10 proteins sharing 2,000 genes"].sets == (0,)
    assert "sets of the same panel" not in found  # the same sets as another candidate


def test_a_harmful_set_is_left_out():
    good = [paired_cells(make_cells(250, seed=seed)) for seed in (1, 2)]
    bad = spoilt(make_cells(900, seed=3))
    bad.obsm["protein"] = bad.obsm["protein"][["CD3", "CD4", "CD19", "CD14"]]
    training = TrainingSets.prepare([*good, paired_cells(bad)])
    measured = np.ones(len(training.symbols), bool)
    scores = selection.inner_scores(training, measured)
    chosen = selection.choose(training, measured)
    for method in (KNN, RIDGE, KERNEL_RIDGE):
        assert scores[method]["sets of 10 proteins"] > scores[method]["all sets"] + 0.02
        assert chosen[method].sets == (0, 1)


def test_with_one_training_set_there_is_nothing_to_choose():
    training = TrainingSets.prepare([paired_cells(make_cells(100))])
    measured = np.ones(len(training.symbols), bool)
    assert selection.inner_scores(training, measured) == {KNN: {}, RIDGE: {}, KERNEL_RIDGE: {}}
    assert {c.name for c in selection.choose(training, measured).values()} == {"all sets"}
