"""Ragged batches: cells as lists of (gene, value) tokens.

A section of 4,000 spots has 18,000 genes and 2,000 expressed ones a spot; only the expressed ones
become tokens, and no dense cells x genes array exists at any time. Cells of like length share a
batch, so that padding (needed by dense attention kernels) is small.

Shapes: n cells, B cells in a batch, T tokens of the longest cell in it, V genes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

PADDING = -1


def pad_rows(expression: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Pad CSR rows: gene indices (B, T) int64 with -1, and values (B, T) float32 with 0."""
    lengths = np.diff(expression.indptr)
    n_tokens = max(int(lengths.max(initial=0)), 1)
    inside = np.arange(n_tokens) < lengths[:, None]
    genes = np.full(inside.shape, PADDING, np.int64)
    values = np.zeros(inside.shape, np.float32)
    genes[inside] = expression.indices
    values[inside] = expression.data
    return genes, values


def bucketed_rows(
    lengths: np.ndarray, batch_size: int, max_tokens: int | None = None
) -> Iterator[np.ndarray]:
    """Yield batches of row numbers, longest cells first.

    Longest first, so that a batch that does not fit in memory fails at the start of a run and
    not at its end.

    Parameters
    ----------
    lengths
        Tokens of each cell, shape (n,).
    batch_size
        Most cells in a batch.
    max_tokens
        Most tokens in a padded batch; a longer cell is a batch of its own. On a processor a
        batch that stays in the cache is faster than one that fills the memory.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, found {batch_size}")
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        n_rows = batch_size
        if max_tokens is not None:
            n_rows = min(n_rows, max(1, max_tokens // max(int(lengths[order[start]]), 1)))
        yield order[start : start + n_rows]
        start += n_rows
