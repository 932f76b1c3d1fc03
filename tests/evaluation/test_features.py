"""What trained baselines see: own genes of each set, missing is not zero, sizes corrected."""

import numpy as np
import pytest

from evaluation.made_up import make_cells
from sclinguist_core.evaluation.features import TrainingSets, measured_genes
from sclinguist_core.evaluation.inputs import paired_cells


@pytest.fixture(scope="module")
def whole_and_part():
    """One set with all genes and one with half of them."""
    part = make_cells(200, seed=2)
    return [paired_cells(make_cells(300, seed=1)), paired_cells(part[:, :220].copy())]


@pytest.fixture(scope="module")
def training(whole_and_part):
    return TrainingSets.prepare(whole_and_part)


def test_every_set_keeps_its_own_genes(training):
    assert training.aligned[0].n_measured > training.aligned[1].n_measured > 200
    space = training.space(np.ones(len(training.symbols), bool))
    assert len(space.columns) == training.aligned[0].n_measured
    assert space.parts[1].measured.sum() == training.aligned[1].n_measured


def test_a_gene_that_a_set_did_not_measure_is_the_mean(training):
    space = training.space(np.ones(len(training.symbols), bool))
    absent = ~space.parts[1].measured[0]
    z = space.parts[1].rows(slice(None))
    assert (z[:, absent] == 0).all()
    assert z[:, ~absent].std() > 0.5


def test_moments_come_from_the_sets_that_measured_the_gene(training):
    space = training.space(np.ones(len(training.symbols), bool))
    absent = ~space.parts[1].measured[0]
    z = space.parts[0].rows(slice(None))[:, absent]
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.05)


def test_a_panel_shows_the_same_values_as_the_whole(training):
    """Size factors are corrected by the share of expression that the panel carries."""
    query = training.aligned[0]
    space = training.space(measured_genes(training.aligned[1]))
    whole = training.space(np.ones(len(training.symbols), bool))
    ratio = (
        space.of(query).expression.mean()
        / whole.of(query)
        .expression[:, np.isin(whole.genes[whole.columns], space.genes[space.columns])]
        .mean()
    )
    assert ratio == pytest.approx(1, abs=0.05)


def test_shared_genes_and_the_number_of_genes_can_be_asked_for(training):
    everything = np.ones(len(training.symbols), bool)
    assert len(training.space(everything, shared=True).columns) == training.aligned[1].n_measured
    assert len(training.space(everything, max_genes=50).columns) == 50


def test_a_set_can_be_left_out_or_sampled(training, whole_and_part):
    assert training.without(0).names == (whole_and_part[1].name,)
    small = training.sampled(40, seed=0)
    assert [rna.n_obs for rna in small.aligned] == [40, 40]
    assert [len(data.protein) for data in small.cells] == [40, 40]
    rows = small.cells[1].rna.counts.toarray()
    aligned = small.aligned[1].counts.toarray()[:, small.aligned[1].measured[0]]
    assert set(aligned.sum(axis=1)) <= set(rows.sum(axis=1))


def test_log1p_targets_are_standardised_too(whole_and_part):
    table = whole_and_part[0].targets("log1p")
    np.testing.assert_allclose(table.mean(), 0, atol=1e-5)
    raw = np.log1p(whole_and_part[0].protein["CD4"])
    assert np.corrcoef(table["CD4"], raw)[0, 1] == pytest.approx(1)
