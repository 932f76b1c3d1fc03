from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.train.augment import Augmentation, draw_batch, pseudo_spots, single_cells, thin
from sclinguist_core.train.corpus import PairedDataset, Standard

N, V = 60, 40
PLAIN = Augmentation(spots=0, gene_dropout=0, thinning=0)


@pytest.fixture
def dataset():
    rng = np.random.default_rng(1)
    counts = sparse.csr_matrix(rng.poisson(1.0, (N, V)).astype(np.float32))
    measured = np.ones((1, V), bool)
    measured[0, 35:] = False
    counts = sparse.csr_matrix(counts.multiply(measured))
    counts.eliminate_zeros()
    return PairedDataset(
        name="set",
        rna=AlignedRna(counts=counts, measured=measured, pattern=np.zeros(N, np.int64)),
        antibodies=rng.poisson(20.0, (N, 4)).astype(np.float32),
        protein=np.array([0, 2, 2, 5]),
        clr=Standard(np.zeros(4), np.ones(4)),
        log1p=Standard(np.full(4, 3.0), np.ones(4)),
        spot_clr=Standard(np.full(4, 0.25), np.full(4, 0.5)),
        spot_log1p=Standard(np.full(4, 5.0), np.full(4, 0.5)),
        groups=np.arange(N) % 3,
    )


SHARE = np.full(V, 1 / V)


def test_without_augmentation_a_batch_is_cells_of_the_set(dataset):
    batch = draw_batch(dataset, SHARE, 8, PLAIN, np.random.default_rng(0))
    clr = dataset.targets(dataset.antibodies)
    for target in batch.target:
        assert np.abs(clr - target).sum(axis=1).min() == pytest.approx(0, abs=1e-5)
    assert batch.protein.tolist() == [0, 2, 2, 5]
    assert (batch.measured == dataset.rna.measured).all()


def test_spots_have_as_many_cells_as_asked_for(dataset):
    mix = pseudo_spots(np.arange(N), dataset.groups, 50, (4, 9), np.random.default_rng(0))
    per_spot = np.asarray(mix.sum(axis=1)).ravel()
    assert mix.shape == (50, N)
    assert per_spot.min() >= 4
    assert per_spot.max() <= 9


def test_a_spot_is_counted_as_the_sum_of_its_cells(dataset):
    same = replace(dataset, antibodies=np.tile(dataset.antibodies[:1], (N, 1)))
    only_spots = Augmentation(spots=1, gene_dropout=0, thinning=0, spot_cells=(9, 9))
    batch = draw_batch(same, SHARE, 8, only_spots, np.random.default_rng(0))
    expected = same.targets(9 * same.antibodies[:1], spots=True)
    np.testing.assert_allclose(batch.target, np.repeat(expected, 8, axis=0), atol=1e-5)
    cells = draw_batch(same, SHARE, 8, PLAIN, np.random.default_rng(0))
    logs = same.targets(9 * same.antibodies[:1], spots=True, log1p=True)
    np.testing.assert_allclose(logs, (np.log1p(9 * same.antibodies[:1]) - 5.0) / 0.5, atol=1e-5)
    np.testing.assert_allclose(batch.log_target, np.repeat(logs, 8, axis=0), atol=1e-4)
    tokens, single = ((b.genes >= 0).sum(axis=1).mean() for b in (batch, cells))
    assert tokens > single  # nine cells express more genes than one


def test_spots_are_dominated_by_few_groups(dataset):
    groups = np.repeat(np.arange(12), 5)
    mix = pseudo_spots(np.arange(60), groups, 400, (10, 10), np.random.default_rng(0))
    by_group = np.stack([np.asarray(mix[:, groups == g].sum(axis=1)).ravel() for g in range(12)], 1)
    assert (by_group.max(axis=1) / 10).mean() > 0.35


def test_spots_draw_from_the_pool_alone(dataset):
    pool = np.flatnonzero(dataset.groups == 1)
    mix = pseudo_spots(pool, dataset.groups, 30, (2, 5), np.random.default_rng(0))
    assert set(mix.indices) <= set(pool)


def test_single_cells_take_one_each():
    mix = single_cells(np.array([3, 4]), 5, 10, np.random.default_rng(0))
    assert np.asarray(mix.sum(axis=1)).ravel().tolist() == [1] * 5
    assert set(mix.indices) <= {3, 4}


def test_thinning_keeps_the_stated_share():
    counts = sparse.csr_matrix(np.full((2, 500), 20.0, np.float32))
    thinned = thin(counts, np.array([0.25, 1.0]), np.random.default_rng(0))
    assert thinned[0].sum() == pytest.approx(2500, rel=0.05)
    assert thinned[1].sum() == 10_000
    assert counts.sum() == 20_000


def test_dropped_genes_count_as_not_measured(dataset):
    only_drop = Augmentation(spots=0, gene_dropout=1, thinning=0, min_genes=0.3)
    batch = draw_batch(dataset, SHARE, 8, only_drop, np.random.default_rng(0))
    assert batch.measured.sum() < dataset.rna.measured.sum()
    tokens = batch.genes[batch.genes >= 0]
    assert batch.measured[tokens].all()


def test_attended_tokens_are_a_subset_of_the_cells_own(dataset):
    few = Augmentation(spots=0, gene_dropout=0, thinning=0, max_tokens=5)
    batch = draw_batch(dataset, SHARE, 8, few, np.random.default_rng(0))
    genes, values = batch.attended
    assert genes.shape == (8, 5)
    for row in range(8):
        own = dict(zip(batch.genes[row], batch.values[row], strict=True))
        for gene, value in zip(genes[row], values[row], strict=True):
            assert own[gene] == value


def test_same_seed_same_batch(dataset):
    one, two = (
        draw_batch(dataset, SHARE, 8, Augmentation(), np.random.default_rng(7)) for _ in range(2)
    )
    np.testing.assert_array_equal(one.genes, two.genes)
    np.testing.assert_array_equal(one.target, two.target)


@pytest.mark.parametrize(
    "values", [{"spots": 2}, {"min_depth": 0}, {"spot_cells": (5, 2)}, {"max_tokens": 0}]
)
def test_refused_values(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Augmentation(**values)
