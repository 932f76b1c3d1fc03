"""One training stage from recipe to run folder: what `sclinguist-train` and scripts call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import Checkpoint, save_checkpoint
from sclinguist_core.train import stages
from sclinguist_core.train.fit import Step
from sclinguist_core.train.provenance import record
from sclinguist_core.train.recipe import Recipe
from sclinguist_core.train.run_folder import RunFolder, is_first_process, plain

logger = logging.getLogger(__name__)

STAGES: dict[str, Callable[..., Checkpoint]] = {
    "pretrain-rna": stages.pretrain_rna,
    "pretrain-protein": stages.pretrain_protein,
    "post-pretrain": stages.post_pretrain,
}


def train_stage(
    stage: str,
    recipe: Recipe,
    output: Path | str,
    *,
    hold_out: Sequence[str] = (),
    resume: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> Path:
    """Train one stage in a run folder.

    Parameters
    ----------
    stage
        ``pretrain-rna``, ``pretrain-protein`` or ``post-pretrain``.
    recipe
        What to train on and how.
    output
        Run folder; see `sclinguist_core.train.run_folder` for what it holds.
    hold_out
        Names of data sets to leave out, beside those of the recipe.
    resume
        Continue the run that is there; begin where there is none. A job that may be interrupted
        can always be started with it.
    progress
        Called with every report.

    Returns
    -------
    Path
        Folder of the final model.

    Raises
    ------
    InputError
        If recipe, data or folder cannot be used.
    TrainingInterrupted
        If a signal ended the run early; its state is saved.
    """
    run = RunFolder(output)
    recipe = replace(recipe, hold_out=tuple(dict.fromkeys((*recipe.hold_out, *hold_out))))
    if is_first_process():
        paths = [*(entry.path for entry in recipe.entries()), *recipe.init.values()]
        run.create(
            recipe.to_yaml(),
            record(
                paths,
                stage=stage,
                devices=plain(recipe.trainer.devices),
                nodes=recipe.trainer.nodes,
                global_batch=recipe.fit.sets_per_step * recipe.fit.batch_size,
            ),
            resume=resume,
        )
        run.cut_metrics(run.last_step())
        if run.last_step():
            logger.warning("%s: going on after step %d", run.path, run.last_step())
    try:
        checkpoint = STAGES[stage](recipe, run=run, resume=resume, progress=progress)
    except InputError:
        if is_first_process():
            run.remove_if_untouched()
        raise
    if is_first_process():
        # What later stages start from keeps its precision; a finished model is half the size.
        half = stage == "post-pretrain" and recipe.architecture == "translator"
        save_checkpoint(checkpoint, run.checkpoint_path, half=half)
    return run.checkpoint_path
