"""Which cells make up the rows of a batch: single cells, or pseudo-spots of several.

Shapes: n cells of a set, B rows of a batch.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


def single_cells(
    pool: np.ndarray, n_rows: int, n_obs: int, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Pick one cell a row, CSR of ones, shape (n_rows, n_obs)."""
    cells = rng.choice(pool, n_rows, replace=n_rows > len(pool))
    return _picks(np.arange(n_rows), cells, n_rows, n_obs)


def pseudo_spots(
    pool: np.ndarray,
    groups: np.ndarray,
    n_rows: int,
    spot_cells: tuple[int, int],
    rng: np.random.Generator,
) -> sparse.csr_matrix:
    """Pick several cells a row, CSR of how often each, shape (n_rows, n_obs).

    Spots are no uniform samples of a tissue: a follicle is mostly B cells. The mixture of cell
    groups is drawn for each spot from a sparse Dirichlet distribution.

    Parameters
    ----------
    pool
        Cells to draw from.
    groups
        Coarse group of every cell, shape (n_obs,).
    n_rows, spot_cells, rng
        Number of spots; fewest and most cells in one; randomness.
    """
    by_group = pool[np.argsort(groups[pool], kind="stable")]
    sizes = np.bincount(groups[pool], minlength=int(groups.max()) + 1)
    starts = np.cumsum(sizes) - sizes
    share = rng.dirichlet(np.full(len(sizes), 0.4), n_rows) * (sizes > 0)
    share[share.sum(axis=1) <= 0] = sizes
    cumulative = np.cumsum(share, axis=1)
    rows = np.repeat(np.arange(n_rows), rng.integers(spot_cells[0], spot_cells[1] + 1, n_rows))
    level = rng.random(len(rows)) * cumulative[rows, -1]
    group = (level[:, None] >= cumulative[rows]).sum(axis=1)
    inside = (rng.random(len(rows)) * sizes[group]).astype(np.int64)
    return _picks(rows, by_group[starts[group] + inside], n_rows, len(groups))


def _picks(rows: np.ndarray, cells: np.ndarray, n_rows: int, n_obs: int) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, cells)), shape=(n_rows, n_obs))
