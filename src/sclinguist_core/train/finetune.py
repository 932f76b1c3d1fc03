"""Fine-tuning: a checkpoint learns from a user's own cells or sections with measured protein.

In closed form (`sclinguist_core.train.residual`), so that 20 cells do not spoil what thousands
taught and 1,000 take seconds. ``training/benchmarks/few_shot.py --gradient`` compares it with
training all or some of the weights by gradients.

Shapes: n cells, P proteins measured by the user.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.model.architectures import HYENA, TRANSLATOR
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint
from sclinguist_core.model.device import choose_device

if TYPE_CHECKING:
    from anndata import AnnData

    from sclinguist_core.data.section import Section
    from sclinguist_core.train.finetune_report import Solved
    from sclinguist_core.train.fit import Step
    from sclinguist_core.train.own_cells import OwnCells
    from sclinguist_core.train.residual import Cells

logger = logging.getLogger(__name__)

MAX_CELLS = 1_500
UNSEEN_SLOPE = 0.7
"""Slope of unseen measurements on zero-shot predictions, where the checkpoint tells none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FineTuned:
    """The result of `finetune`.

    Attributes
    ----------
    checkpoint
        The fine-tuned model, not saved yet.
    comparison
        One row a measured protein, best first: ``protein``, ``antibodies``, ``new`` (the model did
        not know it), ``n_cells``, ``r_before`` and ``r_after`` (Pearson across cells against
        CLR), ``rmse_before`` and ``rmse_after`` (in standard deviations of the cells),
        ``correction`` (how much of the correction it takes; 0 is zero-shot), ``trust``. Before is
        the model as it was; after is cross-validated: no cell was predicted by a solution that
        saw it, and with several files no file.
        A published scLinguist is trained by gradients: before and after are both of cells that
        were held out, errors are in its own unit, and there is neither correction nor trust.
    warnings
        One sentence for everything that the user should know.
    judged
        How the figures were got, in words.
    """

    checkpoint: Checkpoint
    comparison: pd.DataFrame
    warnings: tuple[str, ...]
    judged: str = "after: cross-validated"

    @property
    def headline(self) -> str:
        """Before and after in one sentence, both over the proteins where both are defined."""
        table = self.comparison
        known = table[~table["new"]]
        scored = known.dropna(subset=["r_before", "r_after"])
        parts = []
        if len(known):
            of = "" if len(scored) == len(known) else f"{len(scored)} of "
            means = (
                f"{scored['r_before'].mean():.2f} before, {scored['r_after'].mean():.2f} after"
                if len(scored)
                else "not defined"
            )
            parts.append(f"{means} over {of}{len(known)} proteins that the model knew")
        if len(known) < len(table):
            new = table[table["new"]]
            parts.append(f"{new['r_after'].mean():.2f} over {len(new)} new ones")
        return f"Mean per-protein Pearson against CLR ({self.judged}): " + "; ".join(parts)


def finetune(
    data: AnnData | Section | str | Path | Sequence[AnnData | Section | str | Path],
    *,
    model: str | Path | Checkpoint = "bundled",
    name: str | None = None,
    layer: str | None = None,
    max_cells: int = MAX_CELLS,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[Step], None] | None = None,
) -> FineTuned:
    """Fine-tune a model on cells or spots with RNA and measured protein.

    From 20 cells on. Antibodies that the model does not know become new proteins of its panel.
    Proteins that the cells did not measure stay as they were. A published scLinguist is another
    matter: all its weights go on training, from 50 cells on
    (`sclinguist_core.train.hyena_finetune`).

    Parameters
    ----------
    data
        One file or section, or several: paths, AnnData or `Section`. With several, each is
        standardised by itself and cross-validation leaves whole ones out. Cells without protein
        may be among them.
    model
        ``"bundled"``, a checkpoint folder, or a loaded checkpoint. It is not changed.
    name
        Name of the new model; by default that of the old one with ``-tuned``.
    layer
        Layer that holds the raw RNA counts; found by itself when None.
    max_cells
        More cells with protein than this are thinned out at random.
    device
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
    seed
        Of the folds of cross-validation, and of thinning.
    steps, progress
        Of a published scLinguist alone: optimiser steps, and what is called with every report.

    Raises
    ------
    InputError
        If fewer than 20 cells have protein, no protein is known, or the model is fine-tuned
        already.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> tuned = scl.finetune("my_citeseq.h5ad")  # doctest: +SKIP
    >>> tuned.comparison  # doctest: +SKIP
    >>> adata = scl.predict("unpaired.h5ad", model=tuned.checkpoint)  # doctest: +SKIP
    """
    from sclinguist_core.train.finetune_report import calibrate, compare, describe
    from sclinguist_core.train.own_cells import MIN_CELLS, own_cells
    from sclinguist_core.train.panel import add_proteins

    started = time.perf_counter()
    if max_cells < MIN_CELLS:
        raise InputError(f"max_cells {max_cells}: expected at least {MIN_CELLS}.")
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    _check(checkpoint)
    given = [data] if isinstance(data, str | Path) or not isinstance(data, Sequence) else data
    if not given:
        raise InputError("data: found an empty list, expected at least one file to fine-tune on.")
    sections = _distinct([as_section(source, layer=layer) for source in given])
    if checkpoint.info.architecture == HYENA:
        from sclinguist_core.train.hyena_finetune import finetune_hyena

        result = finetune_hyena(
            sections, checkpoint, name=name, max_cells=max_cells, device=device, seed=seed,
            steps=steps, progress=progress,
        )  # fmt: skip
        known = _seen_before(checkpoint, [section.name for section in sections])
        return replace(result, warnings=(*result.warnings, *known))
    if steps is not None:
        raise InputError(
            f"steps {steps}: the model {checkpoint.info.name!r} is fine-tuned in closed form, "
            "expected none; leave it out."
        )
    rng = np.random.default_rng(seed)
    cells = own_cells(sections, checkpoint, max_cells=max_cells, rng=rng)
    new = ~cells.proteins["name"].isin(checkpoint.protein_names).to_numpy()
    wider = add_proteins(checkpoint, cells.proteins[new])
    seen, std, center, basis = _look(wider, cells, device, rng)
    column = pd.Index(wider.protein_names).get_indexer(cells.proteins["name"])
    slope = np.where(new, 0.0, _expected_slope(checkpoint, wider, cells.context)[column])
    corrections = _correct(seen, cells, slope, seed)
    calibration = calibrate(cells, corrections, std[:, column])
    tuned = _assemble(wider, seen, corrections, column, center, basis)
    comparison = compare(cells, seen, slope, new, calibration, corrections)
    tuned = describe(tuned, cells, column, calibration, comparison, name)
    warnings = (*cells.warnings, *_seen_before(checkpoint, cells.names))
    result = FineTuned(checkpoint=tuned, comparison=comparison, warnings=warnings)
    logger.info("%s; %.1f s", result.headline, time.perf_counter() - started)
    return result


def _check(checkpoint: Checkpoint) -> None:
    info = checkpoint.info
    if info.architecture not in (TRANSLATOR, HYENA):
        raise InputError(
            f"model {info.name!r}: its architecture is {info.architecture!r}, expected "
            f"{TRANSLATOR!r} or {HYENA!r} to fine-tune."
        )
    if info.architecture == TRANSLATOR and checkpoint.translator.config.adapter_cells:
        raise InputError(
            f"model {info.name!r}: is fine-tuned already, expected the model that it was made "
            "from; fine-tune that one on all files together."
        )
    if info.stage.startswith("pretrain-"):
        raise InputError(
            f"model {info.name!r}: comes from {info.stage} and has not learned to predict protein "
            "from RNA, expected one from `sclinguist-train post-pretrain`."
        )


def _seen_before(checkpoint: Checkpoint, names: Sequence[str]) -> list[str]:
    """Say when the model has learnt these very cells: it was not honest on them before."""
    known = {name.casefold() for name in checkpoint.info.training_datasets}
    return [
        f"{name}: the model was trained on a data set of this name, so what it did before "
        "fine-tuning is not a figure for unseen data."
        for name in names
        if name.casefold() in known
    ]


def _expected_slope(checkpoint: Checkpoint, wider: Checkpoint, context: str) -> np.ndarray:
    """Slope of unseen measurements on predictions, for every protein of the wider model."""
    calibration = (wider.calibration or {}).get(context)
    if calibration is not None:
        return calibration.slope
    if "slope" in checkpoint.proteins:
        return wider.proteins["slope"].to_numpy(np.float64)
    return np.full(len(wider.proteins), UNSEEN_SLOPE)


def _distinct(sections: list[Section]) -> list[Section]:
    """Give sections of the same name a number; names tell files apart in tables and cards."""
    seen: dict[str, int] = {}
    out = []
    for section in sections:
        number = seen[section.name] = seen.get(section.name, 0) + 1
        out.append(replace(section, name=f"{section.name}-{number}") if number > 1 else section)
    return out


def _look(
    wider: Checkpoint, cells: OwnCells, device: str, rng: np.random.Generator
) -> tuple[Cells, np.ndarray, np.ndarray, np.ndarray]:
    """See the cells through the model; returns them, std (n, all P), and center, basis of PCA."""
    from sclinguist_core.train.own_cells import components, project, translate
    from sclinguist_core.train.residual import Cells

    mean, std, trunk = translate(wider, cells.rna, choose_device(device))
    center, basis = components(wider, cells, rng)
    own = project(wider, cells.rna, center, basis)
    column = pd.Index(wider.protein_names).get_indexer(cells.proteins["name"])
    seen = Cells(
        zero_shot=mean[:, column].astype(np.float64), trunk=trunk.astype(np.float64), own=own
    )
    return seen, std, center, basis


def _correct(seen: Cells, cells: OwnCells, slope: np.ndarray, seed: int) -> Solved:
    """Solve for each set of proteins that the same cells measured: rows, columns, solution."""
    from sclinguist_core.train.residual import correct, kernel_widths

    widths = kernel_widths(seen)
    patterns, which = np.unique(np.isfinite(cells.target), axis=1, return_inverse=True)
    solved = []
    for i, pattern in enumerate(patterns.T):
        rows, columns = np.flatnonzero(pattern), np.flatnonzero(which.ravel() == i)
        solution = correct(
            seen.take(rows).proteins(columns),
            cells.target[np.ix_(rows, columns)],
            cells.group[rows],
            slope[columns],
            widths=widths,
            seed=seed,
        )
        logger.info(
            "%d proteins of %d cells: penalty %g, share of own components %g",
            len(columns), len(rows), solution.penalty, solution.share,
        )  # fmt: skip
        solved.append((rows, columns, solution))
    return solved


def _assemble(
    wider: Checkpoint,
    seen: Cells,
    corrections: Solved,
    column: np.ndarray,
    center: np.ndarray,
    basis: np.ndarray,
) -> Checkpoint:
    """Put the solutions into the adapter of a model."""
    import torch

    from sclinguist_core.train.panel import add_proteins
    from sclinguist_core.train.residual import kernel_widths

    n_cells = len(seen.trunk)
    config = replace(
        wider.translator.config, adapter_cells=n_cells, adapter_components=basis.shape[1]
    )
    tuned = add_proteins(wider, wider.proteins.iloc[:0], config)
    adapter = tuned.translator.adapter
    assert adapter is not None
    values = {
        name: np.array(tensor.numpy(), np.float64) for name, tensor in adapter.state_dict().items()
    }
    values |= {"trunk": seen.trunk, "own": seen.own, "basis": basis, "center": center}
    values["width"] = np.array(kernel_widths(seen))
    for rows, columns, solution in corrections:
        values["gain"][column[columns]] = solution.gain
        values["bias"][column[columns]] = solution.bias
        values["share"][column[columns]] = solution.share
        values["weight"][np.ix_(rows, column[columns])] = solution.weight
    adapter.load_state_dict(
        {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in values.items()}
    )
    return tuned
