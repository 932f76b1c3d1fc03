"""Few cells of the test set, with measured protein, given to every method.

The model is fine-tuned on them (:func:`sclinguist_core.train.finetune.finetune`). A baseline gets
the same help by the same means: its zero-shot prediction is corrected by kernel ridge regression
on what it leaves over, in its own principal components and in those of the test set's RNA
(:mod:`sclinguist_core.train.residual`). "own cells alone" is that regression without any training
set, from the few cells and the principal components of the test set's RNA.

Shapes: n cells, P proteins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sclinguist_core.evaluation.features import TrainingSets, measured_genes
from sclinguist_core.evaluation.metrics import FloatArray, standardise
from sclinguist_core.evaluation.solvers import gram_of, principal_axes
from sclinguist_core.evaluation.tasks import MeasuredCells

SIZES = (20, 50, 100, 500)
OWN_CELLS = "own cells alone"
N_OWN = 30
SLOPE = 0.7
MOST = 0.5
"""At most this share of the test set is given away."""


@dataclass(frozen=True)
class Draw:
    """Cells that are given to the methods and cells that are scored.

    Attributes
    ----------
    n_cells, number
        Size, and which of the draws of that size.
    support, scored
        Rows of the test set, int64.
    """

    n_cells: int
    number: int
    support: np.ndarray
    scored: np.ndarray


def draws(n_obs: int, sizes: Sequence[int], n_draws: int, seed: int) -> Iterator[Draw]:
    """Draw support cells; within one draw smaller ones are part of larger, scored cells the same.

    Sizes of more than half the cells are left out.
    """
    fitting = [n for n in sizes if n <= MOST * n_obs]
    if not fitting:
        return
    rng = np.random.default_rng(seed)
    for number in range(n_draws):
        order = rng.permutation(n_obs)
        scored = np.sort(order[max(fitting) :])
        for n in fitting:
            yield Draw(n, number, np.sort(order[:n]), scored)


def own_components(cells: MeasuredCells) -> FloatArray:
    """Principal components of a data set's RNA, in itself: float64 (n, 30)."""
    training = TrainingSets.prepare([cells.paired])
    space = training.space(measured_genes(training.aligned[0]))
    part = space.parts[0]
    nothing = np.zeros((part.n, 1), np.float32)
    axes = principal_axes([gram_of(part.chunks(), nothing)], N_OWN)
    return axes.components(part.chunks()).astype(np.float64)


def corrected(
    zero_shot: FloatArray,
    components: FloatArray,
    own: FloatArray,
    targets: FloatArray,
    draw: Draw,
    *,
    slope: float = SLOPE,
    seed: int = 0,
) -> FloatArray:
    """Correct a zero-shot prediction by the support cells.

    Parameters
    ----------
    zero_shot
        (n, P) for all cells of the test set; a protein with NaN starts from nothing.
    components, own
        Of all cells: in the space of the training sets, and in their own.
    targets
        CLR of all cells, (n, P); only the support rows are read.
    draw
        Which cells are which.
    slope
        Expected slope of measurements on the prediction.
    seed
        Of cross-validation.

    Returns
    -------
    (n scored, P) float64.
    """
    from sclinguist_core.train.residual import Cells, correct, kernel_widths, likeness

    start = np.nan_to_num(zero_shot)
    cells = Cells(zero_shot=start, trunk=components, own=own)
    support, scored = cells.take(draw.support), cells.take(draw.scored)
    z = np.nan_to_num(standardise(targets[draw.support]))
    widths = kernel_widths(support)
    slopes = np.where(np.isfinite(zero_shot).all(axis=0), slope, 0.0)
    group = np.zeros(len(draw.support), np.int64)
    found = correct(support, z, group, slopes, widths=widths, seed=seed)
    return (
        found.gain * scored.zero_shot
        + likeness(scored, support, widths, found.share) @ found.weight
        + found.bias
    )
