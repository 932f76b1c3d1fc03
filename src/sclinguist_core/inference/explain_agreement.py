"""How far two rankings of genes agree: over resampled rows, over models, over methods.

Shapes: V genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from sclinguist_core.inference.explanation import Explanation

TOP = 20
"""Genes that stability and comparisons are about."""


def ranks(shares: np.ndarray) -> np.ndarray:
    """Rank in each column, 0 for the largest, shape as given."""
    order = np.argsort(-shares, axis=0, kind="stable")
    return np.argsort(order, axis=0, kind="stable")


def rankings_agree(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Agreement of the shares of the same V genes.

    Returns
    -------
    Spearman correlation over the genes that have a share in either, and the Jaccard overlap of
    the first 20 genes. NaN with fewer than three genes, or where all shares are the same.
    """
    from scipy.stats import rankdata

    some = (one != 0) | (other != 0)
    if some.sum() < 3:
        return float("nan"), float("nan")
    placed = np.stack([rankdata(one[some]), rankdata(other[some])])
    placed -= placed.mean(axis=1, keepdims=True)
    norm = np.sqrt((placed**2).sum(axis=1).prod())
    first, second = (set(np.flatnonzero(ranks(shares) < TOP)) for shares in (one, other))
    correlation = float(placed[0] @ placed[1] / norm) if norm else float("nan")
    return correlation, len(first & second) / len(first | second)


def agreement(one: Explanation, other: Explanation) -> pd.DataFrame:
    """Compare two explanations, by other models, methods or rows, of the proteins they share.

    Returns
    -------
    DataFrame, index ``protein``: ``rank_correlation`` (Spearman's, of the shares) and ``jaccard``
    (of the first 20 genes), over the genes that both models know.
    """
    position = {symbol: i for i, symbol in enumerate(other.symbols)}
    pairs = [(i, position[symbol]) for i, symbol in enumerate(one.symbols) if symbol in position]
    ours, theirs = np.array(pairs, np.int64).reshape(-1, 2).T
    shares, others = one.shares(), other.shares()
    figures = {
        name: rankings_agree(shares[i][ours], others[other.names.index(name)][theirs])
        for i, name in enumerate(one.names)
        if name in other.names
    }
    columns = ["rank_correlation", "jaccard"]
    table = pd.DataFrame.from_dict(figures, orient="index", columns=columns)
    return table.rename_axis("protein")


def across_models(explanations: Sequence[Explanation]) -> pd.DataFrame:
    """How far genes keep their shares over models (of other seeds, say), the first one's genes.

    Returns
    -------
    DataFrame, index ``protein`` and ``gene``: ``share_sd_models``, the standard deviation of the
    share over the models that know the gene (NaN where one alone does), and ``in_top_models``,
    the share of the models in which it is among the first 20.
    """
    first = explanations[0]
    parts = {}
    for name in first.names:
        columns = []
        for one in explanations:
            share = one.shares()[one.names.index(name)]
            frame = pd.DataFrame({"share": share, "top": ranks(share) < TOP}, index=one.symbols)
            columns.append(frame.reindex(first.symbols))
        share = np.column_stack([frame["share"] for frame in columns])
        top = np.column_stack([frame["top"].fillna(False).astype(bool) for frame in columns])
        known = np.isfinite(share).sum(axis=1) > 1
        sd = np.full(len(share), np.nan)
        sd[known] = np.nanstd(share[known], axis=1, ddof=1)
        genes = pd.Index(first.symbols, name="gene")
        parts[name] = pd.DataFrame(
            {"share_sd_models": sd, "in_top_models": top.mean(axis=1)}, index=genes
        )
    return pd.concat(parts, names=["protein", "gene"])
