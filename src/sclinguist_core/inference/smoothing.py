"""Context of a row: predictions drawn half-way to those of the rows around it.

RNA of one cell or spot is shallow; its neighbours on the tissue, or in predicted protein, are
mostly of the same kind. Half of a value stays the row's own, which its neighbours may not share.

Shapes: n cells or spots, P proteins.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from sclinguist_core.inference.trust import Judged

CONTEXT_SHARE = 0.5
"""Share of its context in the value of a row; the rest is its own."""


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
    known = np.isfinite(judged.mean).all(axis=1)
    weights = sparse.csr_matrix(bags.multiply(known[None]))
    total = np.asarray(weights.sum(axis=1)).ravel()
    context = weights @ np.where(known[:, None], judged.mean, np.float32(0.0))
    # A row without known neighbours keeps its own value.
    moved = np.divide(context, total[:, None], out=judged.mean.copy(), where=(total > 0)[:, None])
    shift = (share * (moved - judged.mean)).astype(np.float32)
    return replace(
        judged, mean=judged.mean + shift, low=judged.low + shift, high=judged.high + shift
    )
