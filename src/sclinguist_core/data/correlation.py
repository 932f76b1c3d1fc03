"""Correlation column by column, with missing values."""

from __future__ import annotations

import numpy as np


def column_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation of columns over the rows that are finite in both, shape (P,).

    NaN where a side is constant or fewer than three rows are left.
    """
    both = np.isfinite(x) & np.isfinite(y)
    n = both.sum(axis=0)
    count = np.maximum(n, 1)
    x, y = np.where(both, x, 0.0).astype(np.float64), np.where(both, y, 0.0).astype(np.float64)
    x = np.where(both, x - x.sum(axis=0) / count, 0.0)
    y = np.where(both, y - y.sum(axis=0) / count, 0.0)
    norm = np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
    defined = (norm > 1e-9) & (n > 2)
    return np.divide((x * y).sum(axis=0), norm, out=np.full(len(n), np.nan), where=defined)
