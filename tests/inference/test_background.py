"""Random genes: which are drawn, and what may be said beside them."""

import numpy as np
import pytest

from sclinguist_core.inference.background import (
    distances,
    draw_like_expressed,
    p_values,
    verdicts,
)


def test_random_genes_are_as_frequent_and_as_strong():
    rng = np.random.default_rng(0)
    n_rows = rng.integers(1, 1000, 2000)
    mean = n_rows * rng.lognormal(0, 1, 2000)
    genes = np.array([7, 11])
    drawn = draw_like_expressed(mean, n_rows, genes, 60, seed=3)
    assert drawn.shape == (60, 2)
    again = draw_like_expressed(mean, n_rows, genes, 60, seed=3)
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != draw_like_expressed(mean, n_rows, genes, 60, seed=4)).any()
    ranks = [np.argsort(np.argsort(values)) / 2000 for values in (mean, n_rows)]
    for k, gene in enumerate(genes):
        assert len(set(drawn[:, k])) == 60
        for rank in ranks:
            assert np.abs(rank[drawn[:, k]] - rank[gene]).max() < 0.2
    assert not np.isin(drawn, genes).any()
    assert (drawn[:, 0] != drawn[:, 1]).all()


def test_genes_repeat_only_when_none_are_left():
    mean = np.ones(6)
    drawn = draw_like_expressed(mean, mean, np.array([0, 1]), 5, seed=0, excluded=[2])
    assert set(drawn.ravel()) == {3, 4, 5}
    assert (drawn[:, 0] != drawn[:, 1]).all()
    few = draw_like_expressed(mean[:3], mean[:3], np.array([0, 1]), 5, seed=0)
    assert few.shape == (0, 2)


def test_distances_are_in_standard_deviations_of_the_sets():
    background = np.array([[0.0, 1, 2], [2.0, 1, 4]])
    z = distances(np.array([3.0, 5, 3]), background)
    np.testing.assert_allclose(z, [2 / np.sqrt(2), np.nan, 0])
    assert np.isnan(distances(np.ones(3), background[:1])).all()


def test_a_protein_beyond_all_sets_has_the_smallest_possible_p():
    rng = np.random.default_rng(1)
    background = rng.normal(0, 1, (20, 50))
    change = rng.normal(0, 0.5, 50)
    change[[3, 4]] = -30, 30
    p_value, z = p_values(change, background), distances(change, background)
    assert p_value[3] == p_value[4] == 1 / 21
    assert np.delete(p_value, [3, 4]).min() > 0.05
    said = verdicts(p_value, z, 20)
    assert (said[3], said[4]) == ("lowered", "raised")
    assert said.count("within background") == 48
    assert set(verdicts(p_value, z, 18)) == {"not testable"}


def test_one_random_set_that_moves_something_as_far_makes_the_verdict_careful():
    rng = np.random.default_rng(2)
    background = rng.normal(0, 1, (20, 50))
    background[5, 40] = 500
    change = np.zeros(50)
    change[3] = -30
    assert p_values(change, background)[3] == 2 / 21


@pytest.mark.parametrize("heavy", [False, True])
def test_noise_is_called_an_effect_as_rarely_as_promised(heavy):
    """Also where proteins hang together and tails are heavy."""
    rng = np.random.default_rng(3)
    n_draws, wrong = 400, 0
    loadings = rng.normal(size=(4, 30))
    for _ in range(n_draws):
        shape = (21, 4), (21, 30)
        drawn = [rng.standard_t(3, s) if heavy else rng.normal(size=s) for s in shape]
        values = drawn[0] @ loadings + drawn[1]
        wrong += (p_values(values[0], values[1:]) <= 0.05).any()
    # Binomial with probability 1 / 21; 400 draws give 19 on average, with an SD of 4.3.
    assert 5 < wrong < 33
