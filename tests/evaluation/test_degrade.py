"""Poorer queries: genes outside a panel are gone, thinned counts stay whole."""

import numpy as np
import pytest

from evaluation.made_up import make_cells
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.degrade import Degradation


@pytest.fixture(scope="module")
def rna():
    table = make_cells(200)
    return RnaCounts(table.X, table.var_names.to_numpy(str))


def test_a_panel_is_a_random_part_of_the_genes(rna):
    small = Degradation(n_genes=150, seed=1).apply(rna)
    assert small.counts.shape == (200, 150)
    assert set(small.names) < set(rna.names)
    column = list(rna.names).index(small.names[7])
    np.testing.assert_array_equal(small.counts[:, [7]].toarray(), rna.counts[:, [column]].toarray())
    again = Degradation(n_genes=150, seed=1).apply(rna)
    other = Degradation(n_genes=150, seed=2).apply(rna)
    assert list(again.names) == list(small.names) != list(other.names)


def test_unknown_and_silent_genes_are_not_on_a_panel(rna):
    counts = rna.counts.tolil()
    counts[:, 0] = 0
    names = rna.names.copy()
    names[1] = "no such gene"
    small = Degradation(n_genes=398).apply(RnaCounts(counts.tocsr(), names))
    assert small.counts.shape[1] == 398 or small.names is names
    assert {names[0], names[1]} & set(small.names[:398]) == set() or small.names is names


def test_thinning_keeps_its_share_of_molecules(rna):
    thin = Degradation(depth=0.25, seed=3).apply(rna)
    assert thin.counts.sum() / rna.counts.sum() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(thin.counts.data, np.rint(thin.counts.data))
    assert thin.counts.data.min() >= 1
    assert (thin.counts > rna.counts).nnz == 0


def test_measured_masks_follow_the_panel(rna):
    measured = np.ones(rna.counts.shape, bool)
    measured[:100, ::2] = False
    masked = RnaCounts(rna.counts, rna.names, None, measured)
    small = Degradation(n_genes=100).apply(masked)
    assert small.measured.shape == (200, 100)
    column = list(rna.names).index(small.names[3])
    np.testing.assert_array_equal(small.measured[:, 3], measured[:, column])


def test_nothing_to_take_returns_the_input(rna):
    assert Degradation().apply(rna) is rna
    assert Degradation(n_genes=4_000).apply(rna) is rna


def test_labels_and_refusals():
    assert Degradation().label == "full"
    assert Degradation(n_genes=500, depth=0.25).label == "500 genes, 25% depth"
    with pytest.raises(InputError, match=r"depth: found 1\.5, expected above 0 and at most 1"):
        Degradation(depth=1.5)
    with pytest.raises(InputError, match="genes: found 0"):
        Degradation(n_genes=0)
