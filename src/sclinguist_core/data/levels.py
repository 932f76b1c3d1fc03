"""Levels of expression: what masked genes are predicted as, as sCellTransformer defines them.

A gene that a cell does not express has level 0. The values that it does express are cut into four
bins of equal width between the least and the greatest of them: levels 1 to 4. A level says where a
gene stands among the genes of its cell, so it needs no scale that cells share.

Shapes: n cells, V genes, nnz expressed genes of all cells.
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
