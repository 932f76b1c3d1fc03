"""Fine-tune a published scLinguist on a user's own cells, the published way.

All weights go on learning from the mean squared error of the measured proteins' min-max, on the
positions that they have; nothing is decayed, so that what is said of other proteins changes no more
than the shared parts do. A fifth of the cells says when to stop, another fifth is only looked at
before and after, so that the figure is one of cells that decided nothing.

Shapes: n cells, P proteins that were measured and that the model knows.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.device import choose_device
from sclinguist_core.train.finetune import FineTuned
from sclinguist_core.train.fit import FitConfig, Step
from sclinguist_core.train.hyena_stage import (
    HeldOutMinMax,
    HyenaChunks,
    HyenaObjective,
    PublishedCells,
    predict_cells,
)
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.provenance import created_with
from sclinguist_core.train.trainer import run_objective

if TYPE_CHECKING:
    import torch

    from sclinguist_core.model.hyena import HyenaTranslator

logger = logging.getLogger(__name__)

MIN_CELLS = 50
BATCH_SIZE = 16
LEARNING_RATE = 1e-4
"""Of the published training."""
EPOCHS = 10
MAX_STEPS = 500
PATIENCE = 3
_CHECKS = 10
_AVERAGE_DECAY = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Cells that are learned from, that say when to stop, and that are reported; by file."""

    train: list[PublishedCells]
    stop: list[PublishedCells]
    report: list[PublishedCells]


def finetune_hyena(
    sections: Sequence[Section],
    checkpoint: Checkpoint,
    *,
    name: str | None = None,
    max_cells: int,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    learning_rate: float = LEARNING_RATE,
    progress: Callable[[Step], None] | None = None,
) -> FineTuned:
    """Fine-tune; parameters and errors as of `sclinguist_core.train.finetune.finetune`.

    Parameters
    ----------
    sections
        With RNA, and raw antibody counts of the same cells.
    checkpoint
        Of the published architecture, with all its parts. It is not changed.
    name, max_cells, device, seed, progress
        See there.
    steps
        Optimiser steps of 16 cells; by default ten passes over the cells, at most 500.
    learning_rate
        Peak of the one-cycle schedule.
    """
    rng = np.random.default_rng(seed)
    symbols = checkpoint.symbols
    positions, warnings = _positions(sections, checkpoint)
    names = checkpoint.proteins["name"].iloc[positions].tolist()
    cells = [PublishedCells.of(s, symbols, names) for s in sections if s.has_protein]
    split = _split(cells, max_cells, rng)
    n_train = sum(part.n_obs for part in split.train)
    fit = FitConfig(
        steps=steps or int(np.clip(EPOCHS * n_train // BATCH_SIZE, 50, MAX_STEPS)),
        batch_size=BATCH_SIZE,
        sets_per_step=1,
        learning_rate=learning_rate,
        weight_decay=0.0,
        ema=_AVERAGE_DECAY,
        seed=seed,
    )
    target = choose_device(device)
    model = copy.deepcopy(cast("HyenaTranslator", checkpoint.model))
    objective = HyenaObjective(model, positions)
    validation = HeldOutMinMax(split.stop, BATCH_SIZE)
    objective.eval().to(target)
    before = [predict_cells(objective, part, BATCH_SIZE) for part in split.report]
    unchanged = float(np.mean(list(validation(objective).values())))
    result = run_objective(
        objective.cpu(),
        HyenaChunks(split.train, model.config.n_genes, fit),
        fit,
        _options(target, fit.steps),
        validation=validation,
        progress=progress,
    )
    if result.score is None or result.score <= unchanged:
        warnings.append(
            f"{fit.steps} steps did not make the held-out cells better ({unchanged:.2f} before, "
            f"{result.score or 0:.2f} after): the weights stay as they were."
        )
        model.load_state_dict(checkpoint.model.state_dict())
    objective.eval().to(target)
    after = [predict_cells(objective, part, BATCH_SIZE) for part in split.report]
    model.cpu()
    comparison = _compare(sections, names, split.report, before, after)
    n_reported = sum(part.n_obs for part in split.report)
    decided = (*split.train, *split.stop)
    trained_on = (*checkpoint.info.training_datasets, *(part.name for part in decided))
    info = replace(
        checkpoint.info,
        name=name or f"{checkpoint.info.name}-tuned",
        stage="finetune",
        training_datasets=tuple(dict.fromkeys(trained_on)),
        created_with=created_with(),
    )
    tuned = FineTuned(
        checkpoint=replace(checkpoint, model=model, info=info, card="", digest="", path=None),
        comparison=comparison,
        warnings=tuple(warnings),
        judged=f"on {n_reported:,} held-out cells",
    )
    card = _card(tuned, checkpoint, n_train, result.kept_step)
    return replace(tuned, checkpoint=replace(tuned.checkpoint, card=card))


def _positions(sections: Sequence[Section], checkpoint: Checkpoint) -> tuple[np.ndarray, list[str]]:
    """Positions of the measured proteins, and sentences on what cannot be learned."""
    panels = [s.table.uns["protein_panel"] for s in sections if s.has_protein]
    if not panels:
        raise InputError(
            f"{', '.join(s.name for s in sections)}: found no measured protein, expected raw "
            "antibody counts (obsm['protein'] or Antibody Capture features) to fine-tune on."
        )
    measured = {
        name
        for panel in panels
        for name in panel.loc[~panel["isotype"].astype(bool), "canonical"]
        if name
    }
    positions = np.flatnonzero(checkpoint.proteins["name"].isin(measured))
    if not len(positions):
        raise InputError(
            f"{', '.join(s.name for s in sections)}: the model {checkpoint.info.name!r} predicts "
            f"none of the {len(measured)} measured proteins, expected at least one."
        )
    unknown = sorted(measured - set(checkpoint.protein_names))
    warnings = [sentence for section in sections for sentence in section.warnings]
    if unknown:
        shown = ", ".join(unknown[:10]) + ", ..." * (len(unknown) > 10)
        warnings.append(
            f"{len(unknown)} measured proteins have no position in this architecture and were left "
            f"out: {shown}."
        )
    return positions, warnings


def _split(cells: Sequence[PublishedCells], max_cells: int, rng: np.random.Generator) -> Split:
    """Draw three fifths to learn from, one to stop by and one to report, from all files.

    A file gives its share of each, as far as it has cells enough.
    """
    rows = [
        np.flatnonzero(np.isfinite(part.target).any(axis=1) & (np.diff(part.expression.indptr) > 0))
        for part in cells
    ]
    total = sum(map(len, rows))
    if max_cells < MIN_CELLS:
        raise InputError(
            f"max_cells {max_cells}: expected at least {MIN_CELLS} to train all weights of this "
            "architecture."
        )
    if total < MIN_CELLS:
        raise InputError(
            f"{', '.join(part.name for part in cells)}: {total} cells have RNA and measured "
            f"protein, expected at least {MIN_CELLS} to train all weights of this architecture; "
            "give more cells, or fine-tune the bundled model (20 cells)."
        )
    file = np.repeat(np.arange(len(cells)), [len(usable) for usable in rows])
    row = np.concatenate(rows)
    drawn = rng.permutation(total)[:max_cells]
    # By file, in random order within it: every fifth cell is then a fifth of every file.
    drawn = drawn[np.argsort(file[drawn], kind="stable")]
    turn = np.arange(len(drawn)) % 5
    split = Split(train=[], stop=[], report=[])
    for into, chosen in (
        (split.stop, drawn[turn == 0]),
        (split.report, drawn[turn == 1]),
        (split.train, drawn[turn > 1]),
    ):
        for i, part in enumerate(cells):
            which = row[chosen[file[chosen] == i]]
            if len(which):
                into.append(part.take(np.sort(which)))
    return split


def _options(device: torch.device, steps: int) -> TrainerConfig:
    on_cuda = device.type == "cuda"
    return TrainerConfig(
        accelerator="cuda" if on_cuda else "cpu",
        devices=(device.index or 0,) if on_cuda else 1,
        precision="bf16-mixed" if on_cuda else "32",
        log_every=max(1, steps // (4 * _CHECKS)),
        validate_every=max(1, steps // _CHECKS),
        patience=PATIENCE,
    )


def _compare(
    sections: Sequence[Section],
    names: Sequence[str],
    cells: Sequence[PublishedCells],
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
) -> pd.DataFrame:
    """Before and after on cells that decided nothing, one row a protein, best first.

    A correlation that is not defined (a constant side, fewer than three cells) is NaN and last.
    """
    panels = [s.table.uns["protein_panel"] for s in sections if s.has_protein]
    panel = pd.concat([p.rename_axis("antibody").reset_index() for p in panels])
    antibodies = panel.drop_duplicates("antibody").groupby("canonical")["antibody"].agg(", ".join)
    target = np.concatenate([part.target for part in cells])
    measured = np.isfinite(target).any(axis=0)
    target = target[:, measured]
    clr = np.concatenate([part.clr for part in cells])[:, measured]
    shown = np.asarray(names)[measured]
    table = pd.DataFrame(
        {
            "protein": shown,
            "antibodies": antibodies.reindex(shown).to_numpy(),
            "new": False,
            "n_cells": np.isfinite(target).sum(axis=0),
        }
    )
    for when, predicted in (("before", before), ("after", after)):
        values = np.concatenate(predicted)[:, measured]
        table[f"r_{when}"] = column_correlation(values, clr)
        table[f"rmse_{when}"] = np.sqrt(np.nanmean((values - target) ** 2, axis=0))
    return table.sort_values("r_after", ascending=False, kind="stable", ignore_index=True)


def _card(tuned: FineTuned, base: Checkpoint, n_train: int, kept_step: int) -> str:
    info = tuned.checkpoint.info
    rows = "\n".join(
        f"| {row.protein} | {row.n_cells} | {_shown(row.r_before)} | {_shown(row.r_after)} |"
        for row in tuned.comparison.itertuples()
    )
    return f"""# {info.name}

{base.info.name}, all weights trained on for {kept_step:,} steps on {n_train:,} cells.

Pearson across cells against CLR, {tuned.judged}, random cells of the same files (the easy case).
Proteins that are not listed were not measured; they predict nearly as before.

| protein | cells | before | after |
|---|---|---|---|
{rows}

What follows is the card of the model that was fine-tuned.

{base.card}"""


def _shown(r: float) -> str:
    return f"{r:.2f}" if np.isfinite(r) else "not defined"
