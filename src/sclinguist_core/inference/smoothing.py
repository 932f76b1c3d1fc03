"""Context of a row: values drawn half-way to those of the rows around it.

RNA of one cell or spot is shallow; its neighbours on the tissue, or in predicted protein, are
mostly of the same kind. Half of a value stays the row's own, which its neighbours may not share.

Shapes: n cells or spots, P proteins, E columns of anything.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from sclinguist_core.inference.trust import Judged

CONTEXT_SHARE = 0.5
"""Share of its context in the value of a row; the rest is its own."""


def shift_to_context(
    values: np.ndarray, bags: sparse.csr_matrix, share: float = CONTEXT_SHARE
) -> np.ndarray:
    """How far to move each row to the mean over its bag.

    Parameters
    ----------
    values
        Shape (n, E). A row that is not finite throughout is in nobody's bag.
    bags
        `bag_weights`, shape (n, n).
    share
        Of the bag's mean in ``values + shift``, 0 to 1.

    Returns
    -------
    float32, shape (n, E); 0 in rows without a finite one in their bag, NaN where values are.
    """
    known = np.isfinite(values).all(axis=1)
    weights = sparse.csr_matrix(bags.multiply(known[None]))
    total = np.asarray(weights.sum(axis=1)).ravel()
    context = weights @ np.where(known[:, None], values, np.float32(0.0))
    moved = np.divide(context, total[:, None], out=values.copy(), where=(total > 0)[:, None])
    return (share * (moved - values)).astype(np.float32)


def smoothed(judged: Judged, bags: sparse.csr_matrix, share: float = CONTEXT_SHARE) -> Judged:
    """Draw values to the mean over each row's bag; intervals move along and keep their width.

    Parameters
    ----------
    judged
        Predictions, NaN in rows that have none. Such rows stay NaN and are in nobody's bag.
    bags
        `bag_weights`, shape (n, n).
    share
        Of the bag's mean in the result.
    """
    shift = shift_to_context(judged.mean, bags, share)
    return replace(
        judged, mean=judged.mean + shift, low=judged.low + shift, high=judged.high + shift
    )
