"""``log1p`` counts from a model that predicts the CLR, for the column of log1p figures.

The CLR says how a cell's proteins compare with each other; ``log1p`` counts also rise with the size
of the cell. What is missing is read from two things that RNA tells: the cell's own size (its number
of molecules), and the other proteins that the model predicts, since cells of one type are of like
size. A ridge regression from both to the ``log1p`` counts of the *training* cells, shrunk towards
"the CLR plus a common multiple of the cell's size". The test data have no part in it but for their
RNA. It was chosen by leaving one training set out, on each of the four folds of the bundled
checkpoint, over the CLR as it is, the common multiple alone, and one multiple a protein.

Shapes: n cells, P proteins of the model, Q proteins wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.preprocess import size_factors
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.evaluation.metrics import FloatArray, standardise

PENALTY = 3.0
"""Per data set; 1 to 30 are level."""
MAX_CELLS = 1_000
"""Training cells of a set to learn from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What RNA tells of the cells of one data set.

    Attributes
    ----------
    clr
        Predicted CLR in standard deviations, float64 (n, P).
    size
        Logarithm of each cell's molecules, z-scored over the set, float64 (n,).
    """

    clr: FloatArray
    size: FloatArray


def cell_size(rna: RnaCounts, symbols: Sequence[str], share: np.ndarray) -> FloatArray:
    """Logarithm of the molecules of each cell, z-scored, (n,); 0 where all are alike.

    Parameters
    ----------
    rna
        Raw counts.
    symbols, share
        Genes and reference expression of the model: cells of which fewer genes were measured are
        not taken for smaller ones.
    """
    aligned = align_genes(rna, symbols, strict=False)
    size = np.log(size_factors(aligned.counts, aligned.shares(share)))
    return np.nan_to_num(standardise(size[:, None])[:, 0])


@dataclass(frozen=True, kw_only=True, eq=False)
class CountReading:
    """Weights of the reading; see :func:`fit_count_reading`.

    Attributes
    ----------
    own
        Column of the model's predictions for each wanted protein, int64 (Q,).
    common
        Weight of a protein's own CLR, and of the size of the cell.
    spread
        Standard deviation of each prediction over the training cells, (P,).
    weights
        Of all predictions in that unit, and of the size, (P + 1, Q).
    """

    own: np.ndarray
    common: FloatArray
    spread: FloatArray
    weights: FloatArray

    def __call__(self, reading: Reading) -> FloatArray:
        """Predict ``log1p`` counts in standard deviations, float64 (n, Q)."""
        return (
            self.common[0] * reading.clr[:, self.own]
            + self.common[1] * reading.size[:, None]
            + _features(reading, self.spread) @ self.weights
        )


def fit_count_reading(
    readings: Sequence[Reading],
    targets: Sequence[np.ndarray],
    own: np.ndarray,
    *,
    penalty: float = PENALTY,
) -> CountReading:
    """Learn from training sets; each counts the same.

    Parameters
    ----------
    readings
        Of each training set.
    targets
        ``log1p`` counts of the wanted proteins, z-scored, (n, Q) each; NaN = not measured.
    own
        Column of the predictions for each wanted protein, int64 (Q,).
    penalty
        Of the ridge.
    """
    spread = np.concatenate([reading.clr for reading in readings]).std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    common = _common(readings, targets, own)
    n_features = len(spread) + 1
    weights = np.zeros((n_features, len(own)))
    features = [_features(reading, spread) for reading in readings]
    squares = [x.T @ x / len(x) for x in features]
    for q, column in enumerate(own):
        square, cross, n_sets = np.zeros((n_features, n_features)), np.zeros(n_features), 0
        for reading, y, x, xx in zip(readings, targets, features, squares, strict=True):
            known = np.isfinite(y[:, q])
            if not known.any():
                continue
            left = y[:, q] - common[0] * reading.clr[:, column] - common[1] * reading.size
            n_sets += 1
            if known.all():
                square, cross = square + xx, cross + x.T @ left / len(x)
            else:
                square = square + x[known].T @ x[known] / known.sum()
                cross = cross + x[known].T @ left[known] / known.sum()
        if n_sets:
            square = square / n_sets + penalty * np.eye(n_features)
            weights[:, q] = np.linalg.solve(square, cross / n_sets)
    return CountReading(own=own, common=common, spread=spread, weights=weights)


def _features(reading: Reading, spread: FloatArray) -> FloatArray:
    """All predictions, centred over the cells, and the size: (n, P + 1)."""
    centred = (reading.clr - reading.clr.mean(axis=0)) / spread
    return np.column_stack([centred, reading.size])


def _common(
    readings: Sequence[Reading], targets: Sequence[np.ndarray], own: np.ndarray
) -> FloatArray:
    """Least squares on a protein's own CLR and the size, the same for all proteins: (2,)."""
    square, cross = np.zeros((2, 2)), np.zeros(2)
    for reading, y in zip(readings, targets, strict=True):
        known = np.isfinite(y)
        if known.any():
            size = np.broadcast_to(reading.size[:, None], y.shape)
            x = np.column_stack([reading.clr[:, own][known], size[known]])
            square += x.T @ x / known.sum()
            cross += x.T @ y[known] / known.sum()
    return np.asarray(np.linalg.lstsq(square, cross, rcond=None)[0], np.float64)
