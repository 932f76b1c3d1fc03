"""kNN and ridge on an embedding that was computed elsewhere and stands in ``obsm``.

So any model that embeds cells (scGPT, Geneformer, CellPLM and others) can be compared: run it on
training and test files, store the result under one key, and name the key.

Shapes: n cells, E dimensions, P proteins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sclinguist_core.evaluation import metrics
from sclinguist_core.evaluation.learners import Predictions
from sclinguist_core.evaluation.solvers import Neighbours, availability, fit_ridge, gram_of
from sclinguist_core.evaluation.tasks import MeasuredCells, Task

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
USUAL_PENALTY = 0.1


class EmbeddingMethods:
    """kNN and ridge on one embedding.

    Dimensions are standardised by the training cells. The ridge penalty is the best of
    :data:`PENALTIES` in leaving one training set out (with a single one: 0.1).

    Parameters
    ----------
    task
        Its training sets are learnt from.
    proteins
        The P proteins.
    key
        Key of ``obsm``.
    """

    def __init__(self, task: Task, proteins: Sequence[str], key: str) -> None:
        self.key = key
        self.notes: list[str] = []
        raw = [data.embeddings[key] for data in task.train]
        pooled = np.concatenate(raw)
        self.mean = pooled.mean(axis=0)
        spread = pooled.std(axis=0)
        self.sd = np.where(spread > 0, spread, 1.0)
        parts = [self._standardise(x) for x in raw]
        targets = [
            data.paired.targets().reindex(columns=list(proteins)).to_numpy(np.float32)
            for data in task.train
        ]
        groups = availability(targets, range(len(targets)))
        self.neighbours = Neighbours(parts, targets, groups)
        self.penalty = self._choose_penalty(parts, targets)
        gram = [gram_of([x], y) for x, y in zip(parts, targets, strict=True)]
        self.ridge = fit_ridge(gram, self.penalty, groups, len(proteins))

    def _standardise(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.mean) / self.sd).astype(np.float32)

    @staticmethod
    def _choose_penalty(parts: list[np.ndarray], targets: list[np.ndarray]) -> float:
        if len(parts) < 2:
            return USUAL_PENALTY
        gram = [gram_of([x], y) for x, y in zip(parts, targets, strict=True)]
        score = dict.fromkeys(PENALTIES, 0.0)
        for left_out in range(len(parts)):
            rest = [d for d in range(len(parts)) if d != left_out]
            groups = availability([targets[d] for d in rest], range(len(rest)))
            for penalty in PENALTIES:
                fitted = fit_ridge([gram[d] for d in rest], penalty, groups, targets[0].shape[1])
                r = metrics.nan_mean(metrics.pearson(fitted([parts[left_out]]), targets[left_out]))
                score[penalty] += np.nan_to_num(r)
        return max(score, key=lambda penalty: score[penalty])

    def predict(self, query: MeasuredCells) -> Predictions:
        """Predict cells; nothing where their RNA is not the one that was embedded."""
        if self.key not in query.embeddings:
            return Predictions({}, {})
        x = self._standardise(query.embeddings[self.key])
        found = {
            f"kNN on {self.key}": self.neighbours(x),
            f"ridge on {self.key}": self.ridge([x]),
        }
        return Predictions(found, {})
