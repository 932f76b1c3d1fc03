"""Levels of expression: what masked genes are predicted as, as sCellTransformer defines them.

A gene that a cell does not express has level 0. The values that it does express are cut into four
bins of equal width between the least and the greatest of them: levels 1 to 4. A level says where a
gene stands among the genes of its cell, so it needs no scale that cells share.

Shapes: n cells, V genes, nnz expressed genes of all cells, m entries (a gene in a cell), N levels.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

N_LEVELS = 5
"""Not expressed, and four equal bins of the cell's expressed genes."""


def extremes(expression: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest expressed value of each cell, shapes (n,); 0 where it expresses none."""
    lengths = np.diff(expression.indptr)
    filled = lengths > 0
    starts = expression.indptr[:-1][filled]
    low, high = np.zeros(len(lengths)), np.zeros(len(lengths))
    if len(starts):
        low[filled] = np.minimum.reduceat(expression.data, starts)
        high[filled] = np.maximum.reduceat(expression.data, starts)
    return low, high


def expression_levels(expression: sparse.csr_matrix) -> np.ndarray:
    """Level, 1 to 4, of every expressed gene: equal bins between the cell's extremes, (nnz,).

    Parameters
    ----------
    expression
        Normalised expression without stored zeros, CSR, shape (n, V).

    Returns
    -------
    int64, in the order of ``expression.data``.
    """
    low, high = extremes(expression)
    row = np.repeat(np.arange(len(low)), np.diff(expression.indptr))
    n_bins = N_LEVELS - 1
    part = (expression.data - low[row]) / np.maximum(high - low, 1e-6)[row]
    return 1 + np.minimum((part * n_bins).astype(np.int64), n_bins - 1)


def level_mcc(
    level: np.ndarray, called: np.ndarray, group: np.ndarray | None = None, n_groups: int = 1
) -> np.ndarray:
    """Matthews correlation of levels, of several classes (Gorodkin 2004), for each group.

    Parameters
    ----------
    level, called
        Measured and called level, integers from 0 to N - 1, shape (m,).
    group
        Number of each entry's group (a gene, a cell), shape (m,); all one group by default.
    n_groups
        Their number.

    Returns
    -------
    float64, shape (n_groups,); NaN where all entries have, or are called, the same level.
    """
    group = np.zeros(len(level), np.int64) if group is None else group
    n = np.bincount(group, minlength=n_groups).astype(np.float64)
    right = np.bincount(group, weights=level == called, minlength=n_groups)

    def counts(levels: np.ndarray) -> np.ndarray:
        flat = np.bincount(group * N_LEVELS + levels, minlength=n_groups * N_LEVELS)
        return flat.reshape(n_groups, N_LEVELS).astype(np.float64)

    true, said = counts(level), counts(called)
    norm = np.sqrt((n**2 - (true**2).sum(axis=1)) * (n**2 - (said**2).sum(axis=1)))
    over = right * n - (true * said).sum(axis=1)
    return np.divide(over, norm, out=np.full(n_groups, np.nan), where=norm > 0)
