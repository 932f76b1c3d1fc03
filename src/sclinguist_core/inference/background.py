"""What random genes do: the yardstick that keeps noise from being sold as effect.

Shapes: P proteins, V genes of the model, K genes of a set, N random sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

LIKE_EXPRESSED = 0.05
"""Random genes come from this share of the expressed genes, those expressed most alike."""
FALSE_ALARM = 0.05
"""Accepted probability that even one protein is said to move beyond random genes when none does."""


def draw_like_expressed(
    mean: np.ndarray,
    n_rows: np.ndarray,
    genes: np.ndarray,
    n_sets: int,
    seed: int,
    *,
    excluded: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
    """Draw sets of genes that are expressed as the given ones are.

    A gene's stand-ins are drawn from those nearest to it in two ranks at once: mean count, and
    number of rows that express it. The mean alone would compare the marker of a few cells with
    genes that trickle in all of them, whose loss is a smaller one to each cell.

    Parameters
    ----------
    mean
        Mean count of each of the model's genes, shape (V,).
    n_rows
        Rows that express each of them, shape (V,).
    genes
        The given ones, shape (K,).
    excluded
        Genes not to draw either, such as those of the model's proteins, whose loss is no noise.

    Returns
    -------
    int64, shape (n_sets, K); no rows where fewer than K other genes are expressed. No gene comes
    twice in a set, nor twice for the same gene while others are left.
    """
    rng = np.random.default_rng(seed)
    expressed = np.flatnonzero(mean > 0)
    others = np.setdiff1d(expressed, [*genes, *excluded])
    if len(others) < len(genes):
        return np.zeros((0, len(genes)), np.int64)
    # Where few genes are expressed, less alike ones are better than the same one again.
    size = max(len(genes) + n_sets - 1, math.ceil(LIKE_EXPRESSED * len(others)))
    drawn = np.empty((n_sets, len(genes)), np.int64)
    for k, gene in enumerate(genes):
        apart = np.zeros(len(others))
        for values in (mean, n_rows):
            ordered = np.sort(values[expressed])
            ranks = _rank(ordered, values[others]) - _rank(ordered, values[gene])
            apart = np.maximum(apart, np.abs(ranks))
        nearest = others[np.argsort(apart, kind="stable")[:size]]
        left = np.zeros(0, np.int64)
        for i in range(n_sets):
            allowed = left[~np.isin(left, drawn[i, :k])]
            if not len(allowed):
                left = rng.permutation(nearest)
                allowed = left[~np.isin(left, drawn[i, :k])]
            drawn[i, k] = allowed[0]
            left = left[left != allowed[0]]
    return drawn


def _rank(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Middle of the places that values hold among ordered ones; like values share a place."""
    return (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right")) / 2


def distances(change: np.ndarray, background: np.ndarray) -> np.ndarray:
    """How far each protein's mean change is from that of the random sets, in their SDs, (P,).

    Parameters
    ----------
    change
        Shape (P,).
    background
        Of the random sets, shape (N, P).

    Returns
    -------
    NaN with fewer than two sets, and for proteins that no set moves.
    """
    if len(background) < 2:
        return np.full(len(change), np.nan)
    sd = background.std(axis=0, ddof=1)
    away = change - background.mean(axis=0)
    return np.divide(away, sd, out=np.full(len(change), np.nan), where=sd > 0)


def p_values(change: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Family-wise p-value of each protein: the step of Westfall & Young (1993) on the maximum.

    The perturbed set takes turns with every random one: each is measured against all others
    (`distances`), and its farthest protein kept. A protein's p-value is the share of the N + 1
    sets, the perturbed one among them, whose farthest protein is at least as far as it. If the
    perturbed genes were just another random draw, each of the sets would be equally likely to
    reach farthest, so all P proteins together are wrongly called with a probability of the
    level at most, whatever their distributions and however they hang together. The smallest
    value that can come out is 1 / (N + 1).

    Parameters
    ----------
    change, background
        As of `distances`.

    Returns
    -------
    float64, shape (P,); NaN where the distance is.
    """
    own = np.abs(distances(change, background))
    n_sets = len(background)
    if n_sets < 2 or np.isnan(own).all():
        return np.full(len(change), np.nan)
    farthest = np.empty(n_sets)
    for i in range(n_sets):
        rest = np.vstack([np.delete(background, i, axis=0), change])
        farthest[i] = np.fmax.reduce(np.abs(distances(background[i], rest)), initial=0.0)
    reached = np.sort(farthest)
    at_least = n_sets - np.searchsorted(reached, own, side="left")
    return np.where(np.isnan(own), np.nan, (1 + at_least) / (n_sets + 1))


def verdicts(p_value: np.ndarray, away: np.ndarray, n_sets: int) -> list[str]:
    """Say in words what the p-values allow to be said.

    Parameters
    ----------
    p_value, away
        `p_values` and `distances`, shape (P,).
    n_sets
        N.

    Returns
    -------
    ``"lowered"`` or ``"raised"``: beyond the background, further than random genes move any
    protein. ``"within background"``: not so. ``"not testable"``: with so few sets the smallest
    possible p-value is too large.
    """
    if 1 / (n_sets + 1) > FALSE_ALARM:
        return ["not testable"] * len(p_value)
    return [
        "not testable" if np.isnan(p)
        else "within background" if p > FALSE_ALARM
        else "lowered" if z < 0 else "raised"
        for p, z in zip(p_value, away, strict=True)
    ]  # fmt: skip
