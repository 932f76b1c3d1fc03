"""Is a feature patterned over the tissue, or scattered? Moran's I over the neighbours of each spot.

Graph and statistic are squidpy's (Palla et al., Nature Methods 19:171, 2022); this module gives it
what it needs, and nothing of it stays in the section's table.

Shapes: n spots, bins or cells, F features.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.metrics import MINIMUM_PAIRS, standardise

if TYPE_CHECKING:
    from types import ModuleType

N_NEIGHBOURS = 6
"""Neighbours of a spot: the ring around it on Visium's lattice."""

BLOCK_VALUES = 1 << 23
"""Values that are worked on at a time, so that memory does not grow with the features."""


def neighbour_graph(positions: np.ndarray, *, lattice: bool) -> sparse.csr_matrix:
    """Find the neighbours of every spot.

    Parameters
    ----------
    positions
        x, y in any unit, shape (n, 2).
    lattice
        Whether these are spots of Visium's hexagonal lattice. Neighbours are then the up to six
        of the ring around a spot, fewer at the edge of the tissue; otherwise the six nearest,
        however far. (On a square lattice of bins these are the four that share a side, and two
        of the four that share a corner.)

    Returns
    -------
    CSR float32, shape (n, n): row i has a 1 for each neighbour of spot i. Empty with fewer than
    seven spots.

    Raises
    ------
    InputError
        If the positions are not n finite pairs.
    """
    positions = np.asarray(positions, np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2 or not np.isfinite(positions).all():
        raise InputError(
            f"positions: found shape {positions.shape} or values that are not finite, expected "
            "x and y of every spot; leave out rows without a position."
        )
    n_spots = len(positions)
    if n_spots <= N_NEIGHBOURS:
        return sparse.csr_matrix((n_spots, n_spots), dtype=np.float32)
    neighbors = _squidpy().gr.neighbors
    kind = neighbors.GridBuilder if lattice else neighbors.KNNBuilder
    graph, _ = kind(n_neighs=N_NEIGHBOURS).build(positions)
    return sparse.csr_matrix(graph)


def morans_i(
    positions: np.ndarray, values: pd.DataFrame | np.ndarray, *, lattice: bool
) -> np.ndarray:
    r"""Compute Moran's I of every feature.

    .. math:: I = \frac{n}{\sum_{ij} w_{ij}} \frac{\sum_{ij} w_{ij} z_i z_j}{\sum_i z_i^2}

    with z the deviation from the mean and w the neighbours of each spot, which share a weight of
    1 (Moran, Biometrika 37:17, 1950). About 1: neighbours are alike, the feature has a pattern;
    about 0: they are as unlike as any two spots; below 0: they alternate. What is smooth is not
    thereby right: a prediction of many genes is smoother than the count of one.

    Parameters
    ----------
    positions, lattice
        See `neighbour_graph`.
    values
        Shape (n, F). Where a feature is missing (NaN) the spot is left out of it; its neighbours
        lose a neighbour and get none in its place.

    Returns
    -------
    float64, shape (F,), in the order of the features; NaN for constant features, and where fewer
    than three spots, or no two neighbours, are left.
    """
    return morans_i_over(neighbour_graph(positions, lattice=lattice), values)


def morans_i_over(graph: sparse.csr_matrix, values: pd.DataFrame | np.ndarray) -> np.ndarray:
    """Compute Moran's I of every feature over neighbours that were found before.

    For features that come in blocks: finding the neighbours takes longer than the statistic.

    Parameters
    ----------
    graph
        What `neighbour_graph` returned, shape (n, n).
    values
        See `morans_i`, shape (n, F).

    Returns
    -------
    See `morans_i`.

    Raises
    ------
    InputError
        If there is not one row of values for each spot of the graph.
    """
    array = values.to_numpy() if isinstance(values, pd.DataFrame) else np.asarray(values)
    if array.ndim != 2 or len(array) != graph.shape[0]:
        raise InputError(
            f"values: found shape {array.shape}, expected one row for each of the "
            f"{graph.shape[0]} positions."
        )
    score = np.full(array.shape[1], np.nan)
    for known, columns in columns_by_known_rows(array):
        if known.sum() < MINIMUM_PAIRS:
            continue
        part = graph if known.all() else graph[known][:, known]
        n_columns = max(1, BLOCK_VALUES // len(known))
        for start in range(0, len(columns), n_columns):
            block = columns[start : start + n_columns]
            score[block] = _morans_i(part, array[np.ix_(known, block)])
    return score


def columns_by_known_rows(values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Group columns that are known (finite) in the same rows, to be worked on together.

    Returns
    -------
    Pairs of known rows, bool, shape (n,), and column numbers, int64.
    """
    groups: dict[bytes, list[int]] = {}
    for column in range(values.shape[1]):
        known = np.isfinite(values[:, column])
        groups.setdefault(np.packbits(known).tobytes(), []).append(column)
    return [(np.isfinite(values[:, columns[0]]), np.array(columns)) for columns in groups.values()]


def _morans_i(graph: sparse.csr_matrix, values: np.ndarray) -> np.ndarray:
    """Moran's I of features without gaps, shape (F,)."""
    from anndata import AnnData

    score = np.full(values.shape[1], np.nan)
    # The statistic does not change under it, and constant features, rounding included, are NaN.
    z = standardise(values)
    varies = np.isfinite(z).all(axis=0)
    if not varies.any() or graph.nnz == 0:
        return score
    spots = AnnData(obs=pd.DataFrame(index=pd.RangeIndex(len(z)).astype(str)))
    spots.obsp["neighbours"] = graph
    spots.obsm["values"] = z[:, varies]
    table = _squidpy().gr.spatial_autocorr(
        spots,
        connectivity_key="neighbours",
        attr="obsm",
        layer="values",
        mode="moran",
        n_perms=None,
        corr_method=None,
        copy=True,
        n_jobs=1,
        show_progress_bar=False,
    )
    score[varies] = table["I"].sort_index().to_numpy()
    return score


def _squidpy() -> ModuleType:
    """Import squidpy, whose own docstrings make its import warn of invalid keys."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        import squidpy

        return squidpy
