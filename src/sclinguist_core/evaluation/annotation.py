"""How right annotated cell types are, with and without those that were rejected.

Shapes: n cells, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError

_BINS = 10


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnnotationScores:
    """Annotated against true cell types.

    Attributes
    ----------
    summary
        ``cells`` (with a true label that the reference has), ``accuracy`` and ``macro_f1`` of the
        likeliest label whatever its confidence; ``coverage`` (share assigned),
        ``accuracy_assigned``; ``calibration_error`` (expected, 10 bins; Guo et al. 2017), NaN
        without confidences; ``new_cells``, of labels that the reference lacks, and
        ``new_rejected``, the share of them that is unassigned, NaN without any.
    per_class
        One row a true label that the reference has: ``cells``, ``coverage`` (share assigned),
        ``precision`` (of the assigned to it), ``recall`` (of all its cells; rejected ones count
        as missed), ``recall_assigned``. Precision counts cells of labels that the reference
        lacks as wrong.
    """

    summary: pd.Series
    per_class: pd.DataFrame


def score_annotation(
    truth: np.ndarray,
    best: np.ndarray,
    assigned: np.ndarray,
    labels: Sequence[str],
    confidence: np.ndarray | None = None,
) -> AnnotationScores:
    """Compare annotated with true cell types.

    Parameters
    ----------
    truth
        True labels, object, shape (n,); None where unknown, which is left out.
    best
        Annotated labels, whatever their confidence, object, shape (n,).
    assigned
        Which of them are not rejected, bool, shape (n,).
    labels
        Labels of the reference, length C.
    confidence
        Of `best`, shape (n,).

    Raises
    ------
    InputError
        If no cell has a true label that the reference has.
    """
    labelled = np.array([name is not None for name in truth], dtype=bool)
    known = labelled & np.isin(truth.astype(str), list(labels))
    if not known.any():
        found = ", ".join(sorted({str(name) for name in truth[labelled]})[:6]) or "none"
        raise InputError(
            f"truth: none of its labels ({found}) is one of the reference's "
            f"({', '.join(map(str, labels[:6]))}), expected the same names; rename them."
        )
    new = labelled & ~known
    right = (best == truth) & labelled
    rows, f1 = [], []
    for name in sorted({str(name) for name in truth[known]}):
        own = truth == name
        said, taken = best == name, (best == name) & assigned
        rows.append(
            {
                "cell_type": name,
                "cells": int(own.sum()),
                "coverage": _share(assigned[own]),
                "precision": _share(own[taken & labelled]),
                "recall": _share(taken[own]),
                "recall_assigned": _share(said[own & assigned]),
            }
        )
        f1.append(2 * (own & said).sum() / max(own.sum() + (said & known).sum(), 1))
    summary = {
        "cells": int(known.sum()),
        "accuracy": _share(right[known]),
        "macro_f1": float(np.mean(f1)),
        "coverage": _share(assigned[known]),
        "accuracy_assigned": _share(right[known & assigned]),
        "calibration_error": (
            np.nan if confidence is None else _calibration_error(confidence[known], right[known])
        ),
        "new_cells": int(new.sum()),
        "new_rejected": _share(~assigned[new]),
    }
    return AnnotationScores(
        summary=pd.Series(summary), per_class=pd.DataFrame(rows).set_index("cell_type")
    )


def _share(mask: np.ndarray) -> float:
    return float(mask.mean()) if len(mask) else np.nan


def _calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean distance of confidence from accuracy, over bins of confidence, weighed by cells."""
    finite = np.isfinite(confidence)
    confidence, right = confidence[finite], right[finite]
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [
        abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps))
