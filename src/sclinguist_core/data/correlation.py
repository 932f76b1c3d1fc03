"""Correlation column by column, with missing values."""

from __future__ import annotations

import numpy as np

MINIMUM_PAIRS = 3
"""Fewer cells than this have no meaningful correlation: two points always give ±1."""

RELATIVE_ZERO = 1e-12
"""A variance below this share of the mean square is rounding noise of a constant column."""


def column_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation of columns over the rows that are finite in both.

    Parameters
    ----------
    x, y
        Shape (n, P).

    Returns
    -------
    float64 in [-1, 1], shape (P,); NaN where a side is constant or fewer than three rows are left.
    """
    both = np.isfinite(x) & np.isfinite(y)
    n = both.sum(axis=0)
    x, squares_x, varies_x = _centred(x, both, n)
    y, squares_y, varies_y = _centred(y, both, n)
    defined = (n >= MINIMUM_PAIRS) & varies_x & varies_y
    r = np.full(len(n), np.nan)
    np.divide((x * y).sum(axis=0), np.sqrt(squares_x * squares_y), out=r, where=defined)
    return np.clip(r, -1.0, 1.0)


def _centred(
    values: np.ndarray, known: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns less their mean (0 where unknown), sums of squares, and which columns vary."""
    values = np.where(known, values, 0.0).astype(np.float64)
    mean = values.sum(axis=0) / np.maximum(n, 1)
    centred = np.where(known, values - mean, 0.0)
    squares = (centred**2).sum(axis=0)
    return centred, squares, squares > RELATIVE_ZERO * (n * mean**2 + squares)
