"""Labels by the votes of the nearest labelled cells, with a calibrated confidence and a limit.

Votes weigh by nearness, and less the more cells of the reference have the label. How sure a share
of votes is, is learned by leaving out each cell of the reference (one temperature; Guo et al., ICML
2017). A cell that is farther from the reference than cells of the reference are from each other is
of none of its types.

Shapes: n cells, m labelled cells, E dimensions, R principal components, C labels,
K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sclinguist_core.errors import InputError

N_NEIGHBOURS = 30
NOVELTY_NEIGHBOURS = 15
NOVELTY_COMPONENTS = 20
WHITENING_FLOOR = 0.02
"""Added to the variance of each component, as a share of that of the first."""
NOVELTY_QUANTILE = 0.99
"""Share of the reference's own cells that are within the limit."""
NOVELTY_SLACK = 0.5
"""How far the limit follows a data set that is farther from the reference as a whole: 0 not at all
(another assay looks novel), 1 in full (a data set of novel cells looks known)."""
MAX_CALIBRATION = 5_000
"""Cells of the reference that are left out, each once, to learn the temperature."""
_BALANCE = 0.5
_UNSEEN = 0.01
"""Votes of a label that no neighbour has, as a share of one neighbour."""
_TEMPERATURES = np.geomspace(0.25, 8.0, 61)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Votes:
    """What the reference says of n cells.

    Attributes
    ----------
    probability
        Of each label, float32, rows sum to 1, shape (n, C); NaN for cells without a place.
    distance
        From the reference, in units of what is usual among its own cells: above 1 is farther
        than 99 % of them are from each other; float32, shape (n,), NaN for cells without a place.
    """

    probability: np.ndarray
    distance: np.ndarray


class LabelledCells:
    """A labelled reference that votes.

    Parameters
    ----------
    values
        Embedding of the labelled cells, float32, shape (m, E), finite.
    labels
        Their labels, str, shape (m,).
    n_neighbours
        K, that vote; all but one where there are fewer cells.
    seed
        Draws the cells that calibrate, where there are more than `MAX_CALIBRATION`.

    Attributes
    ----------
    names
        The labels, sorted, length C.
    temperature
        Above 1 where votes are surer than they are right.
    """

    def __init__(
        self,
        values: np.ndarray,
        labels: Sequence[str] | np.ndarray,
        *,
        n_neighbours: int = N_NEIGHBOURS,
        seed: int = 0,
    ) -> None:
        from sklearn.decomposition import PCA
        from sklearn.neighbors import NearestNeighbors

        if len(values) < 2:
            raise InputError(
                f"reference: found {len(values)} labelled cells, expected at least two; give more."
            )
        found, self._code = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
        self.names: list[str] = found.tolist()
        self._weight = np.bincount(self._code).astype(np.float64) ** -_BALANCE
        self._n_neighbours = min(n_neighbours, len(values) - 1)
        self._near = NearestNeighbors(algorithm="brute").fit(values)
        n_components = min(NOVELTY_COMPONENTS, len(values) - 1, values.shape[1])
        self._pca = PCA(n_components, random_state=seed).fit(values)
        spread = self._pca.explained_variance_
        # Directions that hardly vary (CLR values sum to zero) are noise, not to be blown up.
        self._scale = np.sqrt(spread + WHITENING_FLOOR * max(float(spread[0]), 1e-12))
        whitened = self._whiten(values)
        self._white = NearestNeighbors(algorithm="brute").fit(whitened)
        rows = np.arange(len(values))
        if len(rows) > MAX_CALIBRATION:
            chosen = np.random.default_rng(seed).choice(rows, MAX_CALIBRATION, replace=False)
            rows = np.sort(chosen)
        self._own_distance = self._distance(whitened[rows], own=rows)
        self.temperature = self._best_temperature(self._shares(values[rows], own=rows), rows)

    def __call__(self, values: np.ndarray) -> Votes:
        """Let the reference vote on cells, shape (n, E); those with NaN get NaN.

        The cells should be all of a data set: how far it is from the reference as a whole is
        taken into account.
        """
        known = np.isfinite(values).all(axis=1)
        probability = np.full((len(values), len(self.names)), np.nan, np.float32)
        distance = np.full(len(values), np.nan, np.float32)
        if known.any():
            part = values[known]
            probability[known] = _softened(self._shares(part), self.temperature)
            far = self._distance(self._whiten(part))
            distance[known] = far / self._limit(far)
        return Votes(probability=probability, distance=distance)

    def _whiten(self, values: np.ndarray) -> np.ndarray:
        """Principal components at equal spread, float32, shape (n, R)."""
        return (self._pca.transform(values) / self._scale).astype(np.float32)

    def _limit(self, far: np.ndarray) -> float:
        """Beyond this distance a cell is novel.

        Another data set is farther away altogether. By how much is judged by its nearest quarter,
        as not all of it may be novel; the limit follows half-way (on a log scale).
        """
        own = self._own_distance
        usual = max(float(np.quantile(own, 0.25)), 1e-12)
        ratio = max(1.0, float(np.quantile(far, 0.25)) / usual)
        return max(float(np.quantile(own, NOVELTY_QUANTILE)), 1e-12) * ratio**NOVELTY_SLACK

    def _distance(self, whitened: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Mean distance to the nearest reference cells, shape (n,)."""
        n_cells = self._white.n_samples_fit_
        return self._nearest(self._white, whitened, min(NOVELTY_NEIGHBOURS, n_cells - 1), own)[
            0
        ].mean(axis=1)

    def _shares(self, values: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Share of each label in the votes, float64, shape (n, C)."""
        distance, index = self._nearest(self._near, values, self._n_neighbours, own)
        code = self._code[index]
        # Nearness counts relative to the other neighbours: identical cells do not vote alone.
        scale = np.maximum(distance.mean(axis=1, keepdims=True), 1e-12)
        weight = self._weight[code] / np.maximum(distance / scale, 0.1)
        votes = np.zeros((len(values), len(self.names)))
        rows = np.broadcast_to(np.arange(len(values))[:, None], code.shape)
        np.add.at(votes, (rows, code), weight)
        votes += _UNSEEN * self._weight
        return votes / votes.sum(axis=1, keepdims=True)

    @staticmethod
    def _nearest(
        search: object, values: np.ndarray, k: int, own: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances to and row numbers of the k nearest reference cells, but for the cell itself.

        `own` are the rows of the reference that the cells are.
        """
        distance, index = search.kneighbors(values, k + (own is not None))  # type: ignore[attr-defined]
        if own is None:
            return distance, index
        is_own = index == own[:, None]
        is_own[~is_own.any(axis=1), -1] = True
        return distance[~is_own].reshape(-1, k), index[~is_own].reshape(-1, k)

    def _best_temperature(self, shares: np.ndarray, rows: np.ndarray) -> float:
        """Temperature at which the left-out cells' own labels are the likeliest."""
        truth = (np.arange(len(rows)), self._code[rows])
        losses = [-np.log(_softened(shares, t)[truth]).mean() for t in _TEMPERATURES]
        return float(_TEMPERATURES[int(np.argmin(losses))])


def _softened(shares: np.ndarray, temperature: float) -> np.ndarray:
    logits = np.log(shares) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
