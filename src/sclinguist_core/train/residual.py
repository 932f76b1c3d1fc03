"""Kernel ridge regression on what a model's own prediction leaves over.

A protein of a user's cells is ``gain * zero-shot + sum_i weight_i * likeness(cell, cell_i)``: the
gain is drawn to the slope that held-out data sets showed, the weights to 0. Likeness mixes two
Gaussian kernels, one of the model's cell trunk and one of principal components of the cells' own
expression. Strength of the penalty and the mixture are chosen by cross-validation, for all
proteins together, since 20 cells cannot choose them for each; then every protein takes as much of
the correction as cross-validation supports, from none to one and a half.

All of it is linear algebra on cells x cells matrices: seconds for 1,000 cells.

Shapes: n cells, P proteins, G trunk, F components, f folds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

# Chosen on pbmc1k, teaseq_pbmc, eccite_pbmc, bmmc_neurips2021, pbmc5k and cbmc, each predicted by
# a model that had not seen it: penalties of 0.1 to 10 and widths of half to twice the median
# squared distance differ by less than .01 around these values.
PENALTIES = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
USUAL_PENALTY = 1.0
SHARES = (0.0, 0.5)
"""Shares of the kernel of own components that cross-validation may choose."""
GAIN_VARIANCE = 0.1
"""Prior variance of the gain around its slope, in units of the noise variance."""
PRIOR_PROTEINS = 3.0
"""Weight of all proteins together, in proteins, when one protein's share of correction is set."""
MOST_CORRECTION = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """Cells as a model sees them.

    Attributes
    ----------
    zero_shot
        The model's own prediction, float64, shape (n, P).
    trunk
        Cell trunk, float64, shape (n, G).
    own
        Components of expression, float64, shape (n, F).
    """

    zero_shot: np.ndarray
    trunk: np.ndarray
    own: np.ndarray

    def take(self, rows: np.ndarray) -> Cells:
        """Return the chosen cells."""
        return Cells(zero_shot=self.zero_shot[rows], trunk=self.trunk[rows], own=self.own[rows])

    def proteins(self, columns: np.ndarray) -> Cells:
        """Return the same cells with the chosen proteins."""
        return replace(self, zero_shot=self.zero_shot[:, columns])


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """The solution.

    Attributes
    ----------
    gain, bias
        Of the zero-shot prediction, shape (P,).
    weight
        Of the likeness to each cell, shape (n, P).
    amount
        How much of the correction each protein takes, shape (P,): 0 keeps zero-shot.
    penalty, share
        What cross-validation chose.
    out_of_fold
        Prediction of each cell by solutions that did not see its fold, shape (n, P), centred.
    """

    gain: np.ndarray
    bias: np.ndarray
    weight: np.ndarray
    amount: np.ndarray
    penalty: float
    share: float
    out_of_fold: np.ndarray


def kernel_widths(cells: Cells) -> tuple[float, float]:
    """Median squared distance between cells in the trunk and in the components (at least 1e-6)."""
    upper = np.triu_indices(len(cells.trunk), k=1)
    trunk, own = (
        float(np.median(squared_distance(x, x)[upper])) if x.shape[1] else 0.0
        for x in (cells.trunk, cells.own)
    )
    return max(trunk, 1e-6), max(own, 1e-6)


def squared_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances between rows, shape (len(a), len(b))."""
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)
    return np.maximum(squares - 2 * a @ b.T, 0.0)


def likeness(a: Cells, b: Cells, widths: tuple[float, float], share: float) -> np.ndarray:
    """Kernel between cells, shape (len(a), len(b)); 1 for the same cell."""
    kernel = (1 - share) * np.exp(-squared_distance(a.trunk, b.trunk) / widths[0])
    if share:
        kernel += share * np.exp(-squared_distance(a.own, b.own) / widths[1])
    return kernel


def folds(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fold of each cell: whole groups (files) where there are several, else random cells.

    Neighbouring spots of one section tell about each other; only a section that was left out
    whole says how the next one will fare.
    """
    n_groups = len(np.unique(group))
    if n_groups > 1:
        return np.unique(group, return_inverse=True)[1]
    n = len(group)
    n_folds = min(n, 20) if n <= 200 else 5
    return rng.permutation(np.arange(n) % n_folds)


class _Solver:
    """Solutions on some training cells, for every penalty, from one eigendecomposition.

    Each group (file) has an offset of its own, which is not penalised: kernel, zero-shot
    prediction and target are centred within groups.
    """

    def __init__(
        self,
        kernel: np.ndarray,
        zero_shot: np.ndarray,
        target: np.ndarray,
        group: np.ndarray,
        slope: np.ndarray,
    ) -> None:
        from scipy.linalg import eigh

        values, self.vectors = eigh(centred(centred(kernel, group).T, group))
        self.values = np.maximum(values, 0.0)
        z = centred(zero_shot, group)
        self.slope = slope
        self.z = self.vectors.T @ z
        self.residual = self.vectors.T @ (centred(target, group) - slope * z)
        # Without a kernel: the gain alone.
        squares = (self.z**2).sum(axis=0)
        product = (self.z * self.residual).sum(axis=0)
        self.base_gain = slope + GAIN_VARIANCE * product / (1 + GAIN_VARIANCE * squares)

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Gain (P,) and weights (n, P) at one penalty."""
        shrink = (1.0 / (self.values / penalty + 1.0))[:, None]
        own = (self.z * shrink * self.z).sum(axis=0)
        cross = (self.z * shrink * self.residual).sum(axis=0)
        change = GAIN_VARIANCE * cross / (1 + GAIN_VARIANCE * own)
        weight = self.vectors @ (shrink * (self.residual - self.z * change)) / penalty
        return self.slope + change, weight


def centred(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Subtract from each column its mean within each group of rows."""
    out = np.array(values, dtype=np.float64)
    for g in np.unique(group):
        rows = group == g
        out[rows] -= out[rows].mean(axis=0)
    return out


def correct(
    cells: Cells,
    target: np.ndarray,
    group: np.ndarray,
    slope: np.ndarray,
    *,
    widths: tuple[float, float],
    seed: int = 0,
) -> Correction:
    """Learn a correction of the zero-shot prediction.

    Parameters
    ----------
    cells
        The cells.
    target
        Standardised abundance, finite, shape (n, P).
    group
        File or section of each cell, shape (n,).
    slope
        Expected slope of measurements on zero-shot predictions, shape (P,).
    widths
        `kernel_widths`.
    seed
        Of the random folds.
    """
    fold = folds(group, np.random.default_rng(seed))
    target = centred(target, group)
    kernels = {share: likeness(cells, cells, widths, share) for share in SHARES}
    base, candidates = _cross_validate(cells.zero_shot, kernels, target, group, fold, slope)
    penalty, share = _choose(candidates, target)
    added = candidates[penalty, share] - base
    left = target - base
    amounts = np.stack([_amount(added[fold != f], left[fold != f]) for f in np.unique(fold)])
    amount = _amount(added, left)
    solver = _Solver(kernels[share], cells.zero_shot, target, group, slope)
    gain, weight = solver.solve(penalty)
    gain = solver.base_gain + amount * (gain - solver.base_gain)
    weight = amount * weight
    fitted = gain * cells.zero_shot + kernels[share] @ weight
    return Correction(
        gain=gain,
        bias=-fitted.mean(axis=0),
        weight=weight,
        amount=amount,
        penalty=penalty,
        share=share,
        out_of_fold=base + amounts[np.unique(fold, return_inverse=True)[1]] * added,
    )


def _cross_validate(
    zero_shot: np.ndarray,
    kernels: dict[float, np.ndarray],
    target: np.ndarray,
    group: np.ndarray,
    fold: np.ndarray,
    slope: np.ndarray,
) -> tuple[np.ndarray, dict[tuple[float, float], np.ndarray]]:
    """Out-of-fold predictions with the gain alone, and for each (penalty, share); all (n, P).

    Each fold's solution is centred within groups over *all* cells, which uses no measurement:
    offsets that differ from fold to fold would hide how well it ranks cells.
    """
    base = np.empty_like(target)
    found = {(penalty, share): np.empty_like(target) for penalty in PENALTIES for share in kernels}
    z = centred(zero_shot, group)
    for f in np.unique(fold):
        out = fold == f
        train = ~out
        for share, kernel in kernels.items():
            solver = _Solver(
                kernel[np.ix_(train, train)], zero_shot[train], target[train], group[train], slope
            )
            base[out] = solver.base_gain * z[out]
            to_train = centred(kernel[:, train], group)[out]
            for penalty in PENALTIES:
                gain, weight = solver.solve(penalty)
                found[penalty, share][out] = gain * z[out] + to_train @ weight
    return base, found


def _choose(
    candidates: dict[tuple[float, float], np.ndarray], target: np.ndarray
) -> tuple[float, float]:
    """Penalty and share: the best share, then the most usual penalty within one standard error.

    With 20 cells the smallest error is half luck; the one-standard-error rule (Breiman et al.
    1984) then keeps to what is usual.
    """
    error = {key: ((p - target) ** 2).mean(axis=1) for key, p in candidates.items()}
    best = min(error, key=lambda key: float(error[key].mean()))

    def is_good(key: tuple[float, float]) -> bool:
        excess = error[key] - error[best]
        return float(excess.mean()) <= float(excess.std()) / np.sqrt(len(target))

    good = [key for key in error if key[1] == best[1] and is_good(key)]
    return min(good, key=lambda key: abs(np.log(key[0] / USUAL_PENALTY)))


def _amount(added: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Share of the correction that out-of-fold errors support, (P,), drawn to all proteins'."""
    cross = (added * left).sum(axis=0)
    square = (added * added).sum(axis=0)
    numerator = cross + PRIOR_PROTEINS * cross.mean()
    denominator = square + PRIOR_PROTEINS * square.mean()
    amount = np.divide(
        numerator, denominator, out=np.zeros_like(numerator), where=denominator > 1e-12
    )
    return np.clip(amount, 0.0, MOST_CORRECTION)
