"""Agreement of predicted with measured protein, one number a protein or a cell.

All functions take matrices of shape (n cells, P proteins). A NaN on either side means *not
measured* (or not predicted): that pair is left out and the other pairs count as usual. Where a
figure is undefined (fewer than three pairs, or a constant column) the answer is NaN, without a
warning. Standard deviations are population ones (``ddof=0``) throughout, so that a z-score has a
mean square of exactly 1.

Which figure to read: the mean of :func:`pearson` against the CLR-transformed measurement. The
others are there so that published figures can be compared, and each docstring says what inflates
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sclinguist_core.data.correlation import MINIMUM_PAIRS, RELATIVE_ZERO, column_correlation

FloatArray = npt.NDArray[np.float64]

_NORMAL_95 = 1.959963984540054

_RESAMPLES_AT_ONCE = 250


def _paired(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both sides as float64 (n, P) with NaN wherever either is not finite."""
    x = np.array(predicted, dtype=np.float64, ndmin=2)
    y = np.array(measured, dtype=np.float64, ndmin=2)
    if x.shape != y.shape:
        raise ValueError(f"predicted has shape {x.shape}, measured {y.shape}; they must be equal")
    missing = ~(np.isfinite(x) & np.isfinite(y))
    x[missing] = np.nan
    y[missing] = np.nan
    return x, y


def column_mean(values: FloatArray) -> FloatArray:
    """Mean of each column over its finite entries; NaN (no warning) where there are none."""
    present = np.isfinite(values)
    n_present = present.sum(axis=0)
    total = np.where(present, values, 0.0).sum(axis=0)
    return np.where(n_present > 0, total / np.maximum(n_present, 1), np.nan)


def standardise(values: npt.ArrayLike) -> FloatArray:
    """z-score each column over its finite entries.

    Parameters
    ----------
    values
        (n, P); NaN where not measured.

    Returns
    -------
    (n, P) float64 with mean 0 and mean square 1 in every column. Constant columns, and columns
    with fewer than :data:`MINIMUM_PAIRS` entries, are all NaN.
    """
    x = np.array(values, dtype=np.float64, ndmin=2)
    x[~np.isfinite(x)] = np.nan
    n_present = np.isfinite(x).sum(axis=0)
    mean = column_mean(x)
    centred = x - mean
    variance = column_mean(centred**2)
    known = np.nan_to_num(mean) ** 2
    usable = (n_present >= MINIMUM_PAIRS) & (
        np.nan_to_num(variance) > RELATIVE_ZERO * (known + np.nan_to_num(variance))
    )
    return centred / np.where(usable, np.sqrt(np.where(usable, variance, 1.0)), np.nan)


def pearson(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> FloatArray:
    r"""Pearson correlation of each protein over the cells.

    .. math:: r_p = \frac{1}{n_p} \sum_i z(x)_{ip}\, z(y)_{ip}

    over the :math:`n_p` cells in which both sides are known, z-scored over those same cells.

    Parameters
    ----------
    predicted, measured
        (n, P). Any scale: r does not change under a linear map of either side.

    Returns
    -------
    (P,) float64 in [-1, 1]; NaN where undefined.
    """
    return column_correlation(*_paired(predicted, measured))


def spearman(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> FloatArray:
    """Spearman correlation of each protein over the cells: Pearson of the mid-ranks.

    Ranks are taken over the cells in which both sides are known; ties share their mean rank.

    Returns
    -------
    (P,) float64 in [-1, 1]; NaN where undefined.
    """
    from scipy.stats import rankdata

    x, y = _paired(predicted, measured)
    if x.shape[0] == 0:
        return np.full(x.shape[1], np.nan)
    return pearson(rankdata(x, axis=0, nan_policy="omit"), rankdata(y, axis=0, nan_policy="omit"))


def pearson_per_cell(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> FloatArray:
    """Pearson correlation of each cell over the proteins, both sides z-scored per protein.

    Without the z-scores every cell would score high merely because some proteins are abundant in
    all cells. After them the figure asks: is this cell's *deviation* from the average cell
    predicted? Proteins that are constant on either side are left out.

    Parameters
    ----------
    predicted, measured
        (n, P); the measurement on the CLR side.

    Returns
    -------
    (n,) float64; NaN for cells with fewer than three known proteins.
    """
    x, y = _paired(predicted, measured)
    return pearson(standardise(x).T, standardise(y).T)


def rmse(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> FloatArray:
    r"""Root mean square error of each protein in standard deviations of the measurement.

    .. math:: \sqrt{\operatorname{mean}_i\,(x_{ip} - \bar x_p - z(y)_{ip})^2}

    The measurement is z-scored over the section. The prediction is centred over the section but
    **keeps its own unit** (standard deviations of the training reference), so a model that is too
    bold or too timid pays for it. Predicting the protein's mean scores exactly 1; below 1 is
    better than the mean. Only meaningful for predictions whose unit is a standard deviation.

    Returns
    -------
    (P,) float64 ≥ 0; NaN where the measurement is constant.
    """
    x, y = _paired(predicted, measured)
    return np.sqrt(column_mean((x - column_mean(x) - standardise(y)) ** 2))


def rmse_z(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> FloatArray:
    r"""Root mean square error of each protein, **both** sides z-scored over the section.

    Comparable between predictors of any unit, but no news beside the correlation: it equals
    :math:`\sqrt{2 (1 - r_p)}`. Undefined (NaN) for a constant prediction.

    Returns
    -------
    (P,) float64 in [0, 2].
    """
    x, y = _paired(predicted, measured)
    return np.sqrt(column_mean((standardise(x) - standardise(y)) ** 2))


def flattened_pearson(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> float:
    """Pearson over all entries of the cells × proteins matrix, as published work reports it.

    **Inflated**: differences *between proteins* dominate it, so predicting every protein's mean in
    every cell already scores 0.5–0.8 on real panels. Never a headline.

    Returns
    -------
    One number; NaN where undefined.
    """
    x, y = _paired(predicted, measured)
    return float(pearson(x.reshape(-1, 1), y.reshape(-1, 1))[0])


def on_scale_of(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> FloatArray:
    """Give each predicted protein the mean and standard deviation of its measurement.

    Predictions in standard deviations carry no abundance, which :func:`flattened_pearson` needs.
    This lends it to them from the measurement itself - the very information that inflates that
    figure. A constant prediction becomes the measured mean.

    Returns
    -------
    (n, P) float64 on the scale of ``measured``.
    """
    x, y = _paired(predicted, measured)
    mean = column_mean(y)
    spread = np.sqrt(column_mean((y - mean) ** 2))
    z = standardise(x)
    constant = np.isnan(z) & np.isfinite(x)
    return mean + spread * np.where(constant, 0.0, z)


def mmd_rbf(
    predicted: npt.ArrayLike,
    measured: npt.ArrayLike,
    *,
    bandwidth_factors: tuple[float, ...] = (0.5, 1.0, 2.0),
    max_cells: int = 1000,
    seed: int = 0,
) -> float:
    r"""Squared maximum mean discrepancy between the two clouds of cells (RBF kernel).

    .. math::
        \mathrm{MMD}^2 = \overline{k(x, x')} + \overline{k(y, y')} - 2\,\overline{k(x, y)},
        \qquad k(a, b) = \tfrac1S \sum_s \exp\!\left(-\frac{\lVert a-b\rVert^2}{2 (s\,m)^2}\right)

    The biased (V-statistic) estimate of Gretton et al., "A kernel two-sample test", JMLR 13:723
    (2012), with their median heuristic: :math:`m` is the median distance over the pooled cells,
    and the kernel is averaged over bandwidths :math:`s\,m`. Both sides are z-scored per protein
    over the section first. 0 means the same distribution. It compares *distributions*: a
    prediction shuffled over the cells scores just as well.

    Parameters
    ----------
    predicted, measured
        (n, P). Proteins undefined on either side, then cells with a missing value, are left out.
    bandwidth_factors
        The factors :math:`s` of the median distance.
    max_cells, seed
        More cells than this are subsampled (the same cells on both sides) with this seed.

    Returns
    -------
    MMD² in [0, 2]; NaN with fewer than three complete cells or when nothing varies.
    """
    from scipy.spatial.distance import cdist

    x, y = _paired(predicted, measured)
    x, y = standardise(x), standardise(y)
    defined = np.isfinite(x).any(axis=0) & np.isfinite(y).any(axis=0)
    complete = np.isfinite(x[:, defined]).all(axis=1)
    x, y = x[complete][:, defined], y[complete][:, defined]
    if x.shape[0] < MINIMUM_PAIRS or x.shape[1] == 0:
        return float("nan")
    if x.shape[0] > max_cells:
        chosen = np.random.default_rng(seed).choice(x.shape[0], max_cells, replace=False)
        x, y = x[chosen], y[chosen]
    pooled = np.concatenate([x, y])
    squared = cdist(pooled, pooled, "sqeuclidean")
    median = float(np.median(np.sqrt(squared[np.triu_indices_from(squared, k=1)])))
    if median <= 0:
        return float("nan")
    kernel = np.zeros_like(squared)
    for factor in bandwidth_factors:
        kernel += np.exp(-squared / (2 * (factor * median) ** 2))
    kernel /= len(bandwidth_factors)
    n = x.shape[0]
    discrepancy = kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
    return max(float(discrepancy), 0.0)


def mean_pearson_interval(
    predicted: npt.ArrayLike, measured: npt.ArrayLike
) -> tuple[float, float, float]:
    r"""Mean per-protein Pearson with its 95 % interval over the sampling of *cells*.

    The interval is the normal one, from the influence function of the correlation (the
    infinitesimal jackknife; Efron & Stein, Ann. Statist. 9:586, 1981): cell :math:`i` moves
    :math:`r_p` by :math:`\frac{1}{n_p}(z(x)_{ip} z(y)_{ip} - \tfrac{r_p}{2}(z(x)_{ip}^2 +
    z(y)_{ip}^2))`. It keeps the dependence between proteins of one cell and agrees with a
    bootstrap over cells at a thousandth of its cost. It does **not** cover other donors, tissues
    or panels, and neighbouring spots are not independent: on sections read it as a lower limit
    of the doubt.

    Returns
    -------
    mean, low, high
        NaN where no protein is defined.
    """
    x, y = _paired(predicted, measured)
    x, y = standardise(x), standardise(y)
    r = column_mean(x * y)
    defined = np.isfinite(r)
    if not defined.any():
        return float("nan"), float("nan"), float("nan")
    x, y, r = x[:, defined], y[:, defined], r[defined]
    n_cells = np.isfinite(x).sum(axis=0)
    influence = (x * y - r / 2 * (x**2 + y**2)) / n_cells
    per_cell = np.nan_to_num(influence).sum(axis=1) / len(r)
    half_width = _NORMAL_95 * float(np.sqrt((per_cell**2).sum()))
    mean = float(r.mean())
    return mean, max(mean - half_width, -1.0), min(mean + half_width, 1.0)


def bootstrap_mean_pearson(
    predictions: Mapping[str, npt.ArrayLike],
    measured: npt.ArrayLike,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Mean per-protein Pearson of each predictor in resamples of the cells.

    Cells are drawn with replacement, the same ones for all predictors, so that differences between
    two of the arrays are those of a paired bootstrap (Efron & Tibshirani, 1993). The mean is over
    the proteins on which *this* predictor has a correlation: to compare two, give both the same
    proteins. As with :func:`mean_pearson_interval`, other donors are not covered by it.

    Parameters
    ----------
    predictions
        (n, P) by name.
    measured
        (n, P).
    n_resamples, seed
        Number of resamples, and the seed that draws them.

    Returns
    -------
    dict
        (n_resamples,) float64 by name; NaN where nothing is defined.
    """
    rng = np.random.default_rng(seed)
    out = {name: np.full(n_resamples, np.nan) for name in predictions}
    paired = {name: _paired(x, measured) for name, x in predictions.items()}
    n_cells = np.shape(measured)[0]
    if n_cells < MINIMUM_PAIRS:
        return out
    for start in range(0, n_resamples, _RESAMPLES_AT_ONCE):
        n = min(_RESAMPLES_AT_ONCE, n_resamples - start)
        times = rng.multinomial(n_cells, np.full(n_cells, 1 / n_cells), size=n).astype(np.float64)
        for name, (x, y) in paired.items():
            r = _weighted_pearson(standardise(x), standardise(y), times)
            out[name][start : start + n] = column_mean(r.T)
    return out


def _weighted_pearson(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson of each column, cells weighted by each row of weights (R, n): (R, P)."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    n = weights @ known
    n = np.where(n >= MINIMUM_PAIRS, n, np.nan)
    mean_x, mean_y = weights @ x / n, weights @ y / n
    variance_x = weights @ (x * x) / n - mean_x**2
    variance_y = weights @ (y * y) / n - mean_y**2
    product = variance_x * variance_y
    usable = product > RELATIVE_ZERO
    scale = np.sqrt(np.where(usable, product, 1.0))
    return np.where(usable, (weights @ (x * y) / n - mean_x * mean_y) / scale, np.nan)


def nan_mean(values: Any) -> float:
    """Mean of the finite entries as a float; NaN (no warning) when there are none."""
    return float(column_mean(np.asarray(values, dtype=np.float64).reshape(-1, 1))[0])
