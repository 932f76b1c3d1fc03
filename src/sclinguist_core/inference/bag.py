"""Bags of cells: which rows are the context of a row, and with what weight.

A cell is measured shallowly; the cells around it, on the tissue or in expression, say more about
the state that it is in. A bag is a row of a sparse matrix, so that ``weights @ values`` is the mean
over the bag of anything that cells or spots have.

Shapes: n cells or spots, E dimensions of an embedding, K neighbours.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sclinguist_core.errors import InputError

CONTEXTS = ("none", "spatial", "nearest")
N_NEIGHBOURS = 15

EXACT_ROWS = 50_000
"""Up to so many rows the neighbours in an embedding are exact: half a minute on one core, what the
approximate search takes to compile."""


def check_context(
    context: str,
    n_neighbours: int = N_NEIGHBOURS,
    *,
    name: str = "the input",
    is_spatial: bool = True,
) -> None:
    """Refuse a context that is not known, or that takes positions which the input has not.

    Parameters
    ----------
    context, n_neighbours
        See `bag_weights`.
    name
        Of the input, for the message.
    is_spatial
        Whether it has positions; True where that is not known yet.

    Raises
    ------
    InputError
        Naming what was found and what was expected.
    """
    if context not in CONTEXTS:
        raise InputError(f"context {context!r}: expected one of {', '.join(CONTEXTS)}.")
    if context == "spatial" and not is_spatial:
        raise InputError(
            f"context 'spatial': {name} has no positions on a tissue, expected a section; "
            "choose 'nearest' for dissociated cells."
        )
    if n_neighbours < 1:
        raise InputError(f"neighbours {n_neighbours}: expected at least 1.")


def bag_weights(
    section_positions: np.ndarray | None,
    embedding: np.ndarray | None,
    context: str,
    *,
    n_neighbours: int = N_NEIGHBOURS,
    include_self: bool = False,
) -> sparse.csr_matrix:
    """Weigh the rows that form the context of each row.

    The neighbours of a row weigh the same. Rows at the very same place are neighbours like any
    other; of several equally far ones some are taken when not all fit. With fewer rows than
    asked for, all others are taken. Rows that stand nowhere (NaN) have no neighbours but
    themselves, and are no other row's.

    Parameters
    ----------
    section_positions
        Places on the tissue, any unit, shape (n, 2) or (n, 3); None for dissociated cells.
    embedding
        Places in expression, shape (n, E), compared by Euclidean distance.
    context
        ``"spatial"``: the nearest on the tissue. ``"nearest"``: the nearest in the embedding,
        exact for up to `EXACT_ROWS` rows, by nearest-neighbour descent (seeded) beyond.
        ``"none"``: a row is its own context (the identity, of the rows of what is given), so that
        ``weights @ values`` are the values.
    n_neighbours
        K, other rows in a bag.
    include_self
        Count a row among its neighbours, with the same weight.

    Returns
    -------
    CSR float32, shape (n, n), indices sorted; rows sum to 1.

    Raises
    ------
    InputError
        If the context is another, or what it needs is missing.
    """
    check_context(context, n_neighbours, is_spatial=section_positions is not None)
    if context == "none":
        given = section_positions if embedding is None else embedding
        if given is None:
            raise InputError("context 'none': expected positions or an embedding, found neither.")
        return sparse.identity(len(given), dtype=np.float32, format="csr")
    places = section_positions if context == "spatial" else embedding
    if places is None:
        raise InputError("context 'nearest': expected an embedding, found none.")
    places = np.asarray(places)
    n = len(places)
    somewhere = np.flatnonzero(np.isfinite(places).all(axis=1))
    n_others = min(n_neighbours, len(somewhere) - 1)
    if n_others < 1:
        return sparse.identity(n, dtype=np.float32, format="csr")
    found = _nearest(places[somewhere], n_others + 1, spatial=context == "spatial")
    neighbours = somewhere[_without_self(found)]
    if include_self:
        neighbours = np.column_stack([somewhere, neighbours])
    per_row = np.ones(n, np.int64)
    per_row[somewhere] = neighbours.shape[1]
    indptr = np.concatenate([[0], np.cumsum(per_row)])
    indices = np.empty(indptr[-1], np.int64)
    nowhere = np.setdiff1d(np.arange(n), somewhere)
    indices[indptr[nowhere]] = nowhere
    indices[indptr[somewhere][:, None] + np.arange(neighbours.shape[1])] = neighbours
    weights = np.repeat((1.0 / per_row).astype(np.float32), per_row)
    bags = sparse.csr_matrix((weights, indices, indptr), shape=(n, n))
    bags.sort_indices()
    return bags


def _nearest(places: np.ndarray, k: int, *, spatial: bool) -> np.ndarray:
    """Row numbers of the k nearest rows of each, itself mostly among them, shape (n, k)."""
    if spatial:
        from scipy.spatial import KDTree

        return KDTree(places).query(places, k=k)[1].reshape(len(places), k)
    places = np.ascontiguousarray(places, np.float32)
    if len(places) <= EXACT_ROWS:
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(places)
        return search.kneighbors(places, return_distance=False)
    from pynndescent import NNDescent

    # A few more than asked for: nearest-neighbour descent is poor at the rim of its lists.
    return NNDescent(places, n_neighbors=max(k, 15) + 5, random_state=0).neighbor_graph[0][:, :k]


def _without_self(found: np.ndarray) -> np.ndarray:
    """Drop each row from its own list, or the last where identical rows crowd it out."""
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True
    return found[~own].reshape(len(found), -1)
