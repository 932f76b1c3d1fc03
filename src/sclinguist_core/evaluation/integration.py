"""How data sets mix in an embedding, and how cell types stay apart.

Both have to be looked at together: an embedding that is one blob mixes perfectly. Figures follow
scIB (Luecken et al., Nature Methods 19:41, 2022). Silhouettes and neighbours are computed here;
iLISI, cLISI and kBET by scib-metrics where it is installed (extra ``integrate``).

Shapes: n cells, E dimensions, K neighbours.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError

N_NEIGHBOURS = 15
LISI_NEIGHBOURS = 90
MAX_CELLS = 10_000
"""Larger tables are sampled: silhouettes grow with the square of the cells."""
DIRECTIONS = {
    "silhouette_label": "cell types apart, 0 to 1",
    "silhouette_batch": "data sets mixed within cell types, 0 to 1",
    "label_purity": "share of 15 neighbours of the cell's own type",
    "cross_batch_purity": "the same among the 15 nearest cells of other data sets",
    "batch_mixing": "share of 15 neighbours from other data sets, 1 = as if shuffled",
    "ilisi": "data sets mixed, 0 to 1 (scib-metrics)",
    "clisi": "cell types apart, 0 to 1 (scib-metrics)",
    "kbet": "share of cells whose 90 neighbours pass for shuffled (scib-metrics)",
}
"""What each figure says; higher is better in all."""


def scib_installed() -> bool:
    """Tell whether iLISI, cLISI and kBET can be computed."""
    from importlib.util import find_spec

    return find_spec("scib_metrics") is not None


def integration_scores(
    values: np.ndarray,
    batch: np.ndarray | pd.Series,
    labels: np.ndarray | pd.Series,
    *,
    seed: int = 0,
) -> pd.Series:
    """Score how data sets mix and cell types stay apart.

    Parameters
    ----------
    values
        Embedding, shape (n, E). Rows with NaN, and rows without a label (None or NaN), are left
        out.
    batch, labels
        Data set and cell type of each row, shape (n,).
    seed
        Draws `MAX_CELLS` of the rows where there are more.

    Returns
    -------
    The figures of `DIRECTIONS`; NaN for those of scib-metrics where it is not installed.

    Raises
    ------
    InputError
        If fewer than two data sets or two cell types are left, or too few cells.
    """
    keep = np.isfinite(values).all(axis=1) & ~pd.isna(pd.Series(np.asarray(labels, dtype=object)))
    rows = np.flatnonzero(keep)
    if len(rows) > MAX_CELLS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_CELLS, replace=False))
    x = np.ascontiguousarray(values[rows], np.float32)
    batches = pd.Categorical(np.asarray(batch).astype(str)[rows])
    types = pd.Categorical(np.asarray(labels, dtype=object)[rows].astype(str))
    for what, found in (("data sets", batches), ("cell types", types)):
        if len(found.categories) < 2:
            raise InputError(
                f"integration: found {len(found.categories)} {what} among the labelled cells, "
                "expected two or more."
            )
    if len(rows) <= LISI_NEIGHBOURS:
        raise InputError(
            f"integration: found {len(rows)} labelled cells, expected more than {LISI_NEIGHBOURS}."
        )
    scores = dict.fromkeys(DIRECTIONS, np.nan)
    scores |= _silhouettes(x, np.asarray(batches), np.asarray(types))
    distance, index = _neighbours(x, x, LISI_NEIGHBOURS)
    near = index[:, 1 : N_NEIGHBOURS + 1]
    scores["label_purity"] = float((types.codes[near] == types.codes[:, None]).mean())
    scores["cross_batch_purity"] = _cross_batch_purity(x, batches.codes, types.codes)
    scores["batch_mixing"] = _mixing(near, batches.codes)
    if scib_installed():
        # With the cell itself, as scib-metrics wants it.
        scores |= _scib(distance, index, batches.codes, types.codes)
    return pd.Series(scores)


def _neighbours(x: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(k, len(x)), algorithm="brute").fit(x)
    distance, index = search.kneighbors(queries)
    return distance, index


def _silhouettes(x: np.ndarray, batches: np.ndarray, types: np.ndarray) -> dict[str, float]:
    """Silhouette of cell types, and of data sets within each cell type, as scIB scales them."""
    from sklearn.metrics import silhouette_samples, silhouette_score

    within = []
    for name in np.unique(types):
        own = types == name
        n_batches = len(np.unique(batches[own]))
        if 1 < n_batches < own.sum():
            widths = silhouette_samples(x[own], batches[own])
            within.append(1.0 - np.abs(widths).mean())
    return {
        "silhouette_label": (float(silhouette_score(x, types)) + 1.0) / 2.0,
        "silhouette_batch": float(np.mean(within)) if within else np.nan,
    }


def _cross_batch_purity(x: np.ndarray, batches: np.ndarray, types: np.ndarray) -> float:
    """Share of a cell's nearest cells of other data sets that are of its type.

    Only cells whose type another data set has; data sets count the same.
    """
    shares = []
    for code in np.unique(batches):
        others = np.flatnonzero(batches != code)
        own = np.flatnonzero((batches == code) & np.isin(types, types[others]))
        if len(own):
            _, index = _neighbours(x[others], x[own], N_NEIGHBOURS)
            shares.append((types[others][index] == types[own, None]).mean())
    return float(np.mean(shares)) if shares else np.nan


def _mixing(near: np.ndarray, batches: np.ndarray) -> float:
    """Share of neighbours from other data sets over what shuffling would give."""
    foreign = (batches[near] != batches[:, None]).mean()
    size = np.bincount(batches) / len(batches)
    return float(foreign / (1.0 - (size**2).sum()))


def _scib(
    distance: np.ndarray, index: np.ndarray, batches: np.ndarray, types: np.ndarray
) -> dict[str, float]:
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults

    near = NeighborsResults(indices=index.astype(np.int32), distances=distance.astype(np.float32))
    accepted = scib_metrics.kbet(near, batches)
    return {
        "ilisi": float(scib_metrics.ilisi_knn(near, batches)),
        "clisi": float(scib_metrics.clisi_knn(near, types)),
        "kbet": float(accepted[0] if isinstance(accepted, tuple) else accepted),
    }
