"""log1p counts from a predicted CLR and the size of a cell."""

import numpy as np
import pytest
from scipy import sparse

from evaluation.made_up import make_cells
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.evaluation.count_reading import Reading, cell_size, fit_count_reading
from sclinguist_core.evaluation.metrics import pearson, standardise


def made_up(seed, n=400, spread=1.0):
    """CLR of three proteins, cells whose size also follows the third, and log1p counts."""
    rng = np.random.default_rng(seed)
    clr = standardise(rng.normal(size=(n, 3)))
    size = standardise(rng.normal(size=(n, 1)) + clr[:, 2:])[:, 0]
    logged = standardise(clr + spread * size[:, None] + 0.5 * clr[:, 2:])
    return Reading(clr=clr, size=size), logged


def test_size_and_other_proteins_are_read():
    train = [made_up(seed) for seed in (1, 2)]
    own = np.array([0, 1])
    fitted = fit_count_reading(
        [reading for reading, _ in train], [logged[:, own] for _, logged in train], own, penalty=0.1
    )
    reading, logged = made_up(3)
    plain = pearson(reading.clr[:, own], logged[:, own]).mean()
    found = pearson(fitted(reading), logged[:, own]).mean()
    assert plain < 0.75
    assert found > 0.98
    assert fitted.common[1] > 0.3
    assert fitted(reading).shape == (400, 2)


def test_a_heavy_penalty_leaves_what_all_proteins_have_in_common():
    reading, logged = made_up(1)
    own = np.arange(3)
    fitted = fit_count_reading([reading], [logged], own, penalty=1e9)
    common = fitted.common[0] * reading.clr + fitted.common[1] * reading.size[:, None]
    np.testing.assert_allclose(fitted(reading), common, atol=1e-6)


def test_missing_targets_are_not_learnt_from():
    reading, logged = made_up(1)
    other, _ = made_up(2)
    gaps = logged.copy()
    gaps[::2, 0] = np.nan
    own = np.arange(3)
    nothing = np.full((400, 3), np.nan)
    alone = fit_count_reading([reading], [gaps], own)
    beside = fit_count_reading([reading, other], [gaps, nothing], own)
    assert np.isfinite(alone.weights).all()
    np.testing.assert_allclose(beside.common, alone.common)
    # Only the unit of the features differs: it is that of all training cells.
    np.testing.assert_allclose(beside(reading), alone(reading), atol=0.02)
    nobody = fit_count_reading([reading], [np.full((400, 3), np.nan)], own)
    assert (nobody.weights == 0).all()


def test_cell_size_is_that_of_the_molecules_and_does_not_follow_the_panel():
    table = make_cells(60)
    symbols = list(table.var_names)
    share = np.full(len(symbols), 1 / len(symbols))
    rna = RnaCounts(counts=table.X.tocsr(), names=np.array(symbols), ids=None, measured=None)
    size = cell_size(rna, symbols, share)
    total = np.log(np.asarray(table.X.sum(axis=1)).ravel())
    assert np.corrcoef(size, total)[0, 1] == pytest.approx(1)
    assert size.mean() == pytest.approx(0, abs=1e-9)
    # In half of the cells every second gene was not measured: their molecules count twice.
    measured = np.ones((60, len(symbols)), bool)
    measured[:30, ::2] = False
    cut = RnaCounts(
        counts=sparse.csr_matrix(table.X.multiply(measured)),
        names=rna.names,
        ids=None,
        measured=sparse.csr_matrix(measured),
    )
    assert np.corrcoef(cell_size(cut, symbols, share), total)[0, 1] > 0.8
    alike = RnaCounts(
        counts=sparse.csr_matrix(np.ones((5, len(symbols)), np.float32)),
        names=rna.names,
        ids=None,
        measured=None,
    )
    np.testing.assert_array_equal(cell_size(alike, symbols, share), np.zeros(5))
