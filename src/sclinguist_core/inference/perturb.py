"""Pseudo-knockout: how the model's prediction changes when a gene is taken away.

The normalised expression of the chosen genes is set to zero, or scaled, and everything else stays
in place: the library size is not computed anew, and a measured gene stays a measured one. The
change is what the *model* makes of it, learned from cells in which genes vary together; it is no
experiment, and says nothing about cause. (Theodoris et al., Nature 618:616, 2023, ask a model the
same way.)

Shapes: n cells or spots, P proteins, V genes of the model, K perturbed genes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference.gene_names import find_genes
from sclinguist_core.inference.perturbation import Perturbation, row_numbers
from sclinguist_core.inference.perturber import Counter, Perturber
from sclinguist_core.inference.prepare import prepare
from sclinguist_core.inference.progress import Progress
from sclinguist_core.model.checkpoint import Checkpoint


def perturb_iter(
    section: Section,
    genes: Sequence[str],
    *,
    scale: float = 0.0,
    rows: np.ndarray | None = None,
    proteins: Sequence[str] | None = None,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    background: int = 0,
    seed: int = 0,
) -> Generator[Progress, None, Perturbation]:
    """Perturb genes of a section; yields progress, returns the change of every protein.

    Calibrated values are linear in what the network says (value = slope x (mean - offset), with a
    slope for each protein and context), so the change is the slope times the difference of the
    network's means: the same unit as `predict.predict_iter`, without judging the section anew.

    Parameters
    ----------
    section
        With RNA.
    genes
        Names in any spelling, perturbed together.
    scale
        Factor of the expression in linear space: 0 knocks out, 0.5 halves, 2 doubles.
    rows
        Mask or indices of the rows to look at; all by default. Only those of them that express a
        gene are run through the model.
    proteins, model, device, batch_size
        See `predict.predict_iter`.
    background
        Number of random genes (of sets of them, where several are perturbed) to compare with:
        expressed in about as many rows and about as much as the perturbed ones, perturbed alike
        in a sample of the rows that express them.
    seed
        Draws the random genes.

    Yields
    ------
    Progress
        After every batch; a caller that stops iterating cancels within one batch. Rows are
        counted each time that they are run: as they are, perturbed, and for random genes.

    Raises
    ------
    InputError
        Besides what `predict.predict_iter` raises: if a gene is not known, not read by the model
        or not measured in the section, or if scale, rows or background make no sense.
    """
    check_options(scale, batch_size, background)
    chosen = row_numbers(rows, section.n_obs)
    yield Progress(0, len(chosen), "loading model")
    prepared = prepare(section, model=model, proteins=proteins, device=device)
    targets = find_genes(prepared, genes)
    perturber = Perturber(prepared, chosen, batch_size=batch_size)
    plan = perturber.plan(targets, scale=scale, background=background, seed=seed)
    return (yield from perturber.run(plan, Counter(total=plan.n_runs)))


def check_options(scale: float, batch_size: int | None, background: int) -> None:
    """Refuse options that make no sense."""
    if not (np.isfinite(scale) and scale >= 0):
        raise InputError(f"scale {scale}: expected 0 (knocked out) or a positive factor.")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected at least 1.")
    if background < 0:
        raise InputError(f"background {background}: expected 0 or a number of random genes.")
