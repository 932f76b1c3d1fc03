"""Metrics against scipy, and against what each must be by definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from sclinguist_core.evaluation import metrics


def pair(n=80, p=5, *, seed=0, missing=0.2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    y = 0.6 * x + rng.normal(size=(n, p)) * np.linspace(0.1, 2, p)
    y[rng.random((n, p)) < missing] = np.nan
    x[rng.random((n, p)) < missing / 2] = np.nan
    return x, y


@pytest.mark.parametrize("seed", range(3))
def test_correlations_agree_with_scipy_on_the_known_pairs(seed):
    x, y = pair(seed=seed)
    y[:, 1] = np.round(y[:, 1])  # ties
    r, rho = metrics.pearson(x, y), metrics.spearman(x, y)
    for p in range(x.shape[1]):
        known = np.isfinite(x[:, p]) & np.isfinite(y[:, p])
        assert known.sum() < len(x)
        assert r[p] == pytest.approx(stats.pearsonr(x[known, p], y[known, p])[0], abs=1e-12)
        assert rho[p] == pytest.approx(stats.spearmanr(x[known, p], y[known, p])[0], abs=1e-12)


def test_constant_empty_and_tiny_columns_are_nan_without_warnings():
    x = np.array([[1, 5, 1, 0.1], [2, 5, 2, 0.1], [3, 5, np.nan, 0.1], [4, 5, np.nan, 0.1]])
    y = np.array([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3], [4, 4, 4, 4.0]])
    for metric in (metrics.pearson, metrics.spearman, metrics.rmse_z):
        assert np.isnan(metric(x, y)).tolist() == [False, True, True, True]
    assert np.isnan(metrics.pearson(np.full((4, 2), np.nan), y[:, :2])).all()
    assert np.isnan(metrics.pearson(np.empty((0, 3)), np.empty((0, 3)))).all()
    assert np.isnan(metrics.spearman(np.empty((0, 3)), np.empty((0, 3)))).all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(3, 2\), measured \(3, 1\)"):
        metrics.pearson(np.zeros((3, 2)), np.zeros((3, 1)))


def test_inputs_are_not_changed():
    x, y = pair()
    before = x.copy(), y.copy()
    metrics.pearson(x, y), metrics.spearman(x, y), metrics.rmse(x, y), metrics.mmd_rbf(x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


finite = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=60, deadline=None)
@given(
    x=hnp.arrays(np.float64, (12, 3), elements=finite),
    y=hnp.arrays(np.float64, (12, 3), elements=finite),
    slope=st.floats(0.1, 10),
    shift=st.floats(-10, 10),
)
def test_correlations_are_bounded_symmetric_and_free_of_scale(x, y, slope, shift):
    r = metrics.pearson(x, y)
    assert ((np.abs(r) <= 1) | np.isnan(r)).all()
    np.testing.assert_allclose(metrics.pearson(y, x), r, atol=1e-9)
    scaled = metrics.pearson(slope * x + shift, y)
    both = np.isfinite(r) & np.isfinite(scaled) & (x.std(axis=0) > 1e-2)
    np.testing.assert_allclose(scaled[both], r[both], atol=1e-6)


def test_standardise_has_mean_0_and_mean_square_1_over_known_cells():
    x, _ = pair(missing=0.3)
    z = metrics.standardise(x)
    np.testing.assert_allclose(metrics.column_mean(z), 0, atol=1e-12)
    np.testing.assert_allclose(metrics.column_mean(z**2), 1, atol=1e-12)
    assert np.array_equal(np.isnan(z), np.isnan(x))


def test_rmse_of_the_protein_mean_is_exactly_1():
    _, y = pair()
    np.testing.assert_allclose(metrics.rmse(np.zeros_like(y), y), 1, rtol=1e-12)
    np.testing.assert_allclose(metrics.rmse(np.full_like(y, 7.5), y), 1, rtol=1e-12)
    # In its own unit a bold prediction pays: twice the truth is as wrong as the mean.
    z = metrics.standardise(y)
    np.testing.assert_allclose(metrics.rmse(z, y), 0, atol=1e-12)
    np.testing.assert_allclose(metrics.rmse(2 * z + 3, y), 1, rtol=1e-12)


def test_rmse_z_is_the_correlation_in_another_dress():
    x, y = pair()
    expected = np.sqrt(2 * (1 - metrics.pearson(x, y)))
    np.testing.assert_allclose(metrics.rmse_z(x, y), expected, rtol=1e-9)


def test_per_cell_correlation_is_blind_to_protein_means():
    x, y = pair(n=60, p=8, missing=0)
    r = metrics.pearson_per_cell(x, y)
    means = np.array([0, 10, 100, 3, 5, 50, 7, 1000.0])
    np.testing.assert_allclose(metrics.pearson_per_cell(x + means, y + means), r, atol=1e-6)
    zx, zy = stats.zscore(x), stats.zscore(y)
    assert r[7] == pytest.approx(stats.pearsonr(zx[7], zy[7])[0], abs=1e-9)


def test_flattened_is_inflated_by_protein_means_and_the_others_are_not():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(500, 10)) + 5 * np.arange(10)
    constant = metrics.on_scale_of(np.zeros_like(y), y)
    np.testing.assert_allclose(constant, np.tile(y.mean(axis=0), (500, 1)))
    assert metrics.flattened_pearson(constant, y) > 0.99
    assert np.isnan(metrics.pearson(constant, y)).all()
    noise = metrics.on_scale_of(rng.normal(size=y.shape), y)
    assert metrics.flattened_pearson(noise, y) > 0.98
    assert abs(metrics.pearson(noise, y).mean()) < 0.05


def test_mmd_is_0_for_the_same_cloud_and_grows_with_the_distance():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(400, 4))
    assert metrics.mmd_rbf(y, y) == pytest.approx(0, abs=1e-12)
    shuffled = metrics.mmd_rbf(rng.permutation(y), y)
    assert shuffled == pytest.approx(0, abs=1e-9)
    near, far = (metrics.mmd_rbf(f(y), y) for f in (np.tanh, np.sign))
    assert 1e-4 < near < far
    # Subsampled: the same seed, the same cells, the same number.
    many = rng.normal(size=(3000, 4))
    first = metrics.mmd_rbf(many**3, many, max_cells=500)
    assert first == metrics.mmd_rbf(many**3, many, max_cells=500)
    assert first > 0.005
    assert np.isnan(metrics.mmd_rbf(np.zeros((10, 3)), many[:10, :3]))


def test_mmd_matches_its_formula():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(30, 2)) ** 2, rng.normal(size=(30, 2))
    zx, zy = stats.zscore(x), stats.zscore(y)
    both = np.vstack([zx, zy])
    distance = np.linalg.norm(both[:, None] - both[None], axis=-1)
    median = np.median(distance[np.triu_indices(60, 1)])
    kernel = np.exp(-(distance**2) / (2 * median**2))
    sign = np.repeat([1, -1], 30)
    expected = (sign @ kernel @ sign) / 30**2
    assert metrics.mmd_rbf(x, y, bandwidth_factors=(1.0,)) == pytest.approx(expected, rel=1e-9)


def test_interval_agrees_with_a_bootstrap_over_cells():
    rng = np.random.default_rng(5)
    n, p = 400, 6
    common = rng.normal(size=(n, 1))
    x = rng.normal(size=(n, p)) + common
    y = 0.7 * x + rng.normal(size=(n, p)) + 0.5 * common
    mean, low, high = metrics.mean_pearson_interval(x, y)
    assert mean == pytest.approx(metrics.pearson(x, y).mean(), abs=1e-12)
    resampled = []
    for _ in range(400):
        rows = rng.integers(0, n, n)
        resampled.append(metrics.pearson(x[rows], y[rows]).mean())
    assert high - low == pytest.approx(2 * 1.96 * np.std(resampled), rel=0.15)
    assert low < mean < high
    assert np.isnan(metrics.mean_pearson_interval(np.zeros((5, 2)), np.ones((5, 2)))).all()


def test_interval_allows_for_missing_cells():
    x, y = pair(n=400, missing=0)
    full = metrics.mean_pearson_interval(x, y)
    y[::2] = np.nan
    half = metrics.mean_pearson_interval(x, y)
    assert (half[2] - half[1]) / (full[2] - full[1]) == pytest.approx(np.sqrt(2), rel=0.15)
