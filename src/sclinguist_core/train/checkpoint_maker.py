"""From a network in training to a checkpoint that says how it came about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    save_checkpoint,
)
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train.provenance import created_with

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from sclinguist_core.train.callbacks import Best
    from sclinguist_core.train.fit import FitConfig
    from sclinguist_core.train.recipe import Recipe
    from sclinguist_core.train.run_folder import RunFolder
    from sclinguist_core.train.trainer import TrainingResult


class CheckpointMaker:
    """Make checkpoints of a network in training: the best so far, and the final one.

    Parameters
    ----------
    recipe
        Gives the name and the schedule.
    config
        Sizes of the network, which may have parts that the recipe does not name.
    genes, proteins
        Tables of the network.
    trained_on
        Names of the data sets that are trained on.
    stage
        What ``config.json`` says of how the model was made.
    run
        Folder for the best model so far; None to keep none.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: TranslatorConfig,
        genes: pd.DataFrame,
        proteins: pd.DataFrame,
        trained_on: tuple[str, ...],
        stage: str,
        run: RunFolder | None,
    ) -> None:
        self.genes, self.proteins, self.run = genes, proteins, run
        self.config = config
        self.fit = recipe.fit
        self.info = CheckpointInfo(
            name=recipe.name,
            model=config,
            stage=stage,
            training_datasets=trained_on,
            created_with=created_with(),
        )

    def best(self, best: Best) -> None:
        """Write the best weights so far to the run folder."""
        if self.run is None:
            return
        note = f"Best held-out score so far: {best.score:.4f} at step {best.step}.\n"
        save_checkpoint(self._checkpoint(best.weights, note), self.run.best_path)

    def __call__(self, result: TrainingResult, n_cells: int) -> Checkpoint:
        """Make the final checkpoint."""
        note = f"Trained on {n_cells:,} cells of {', '.join(self.info.training_datasets)}"
        note += f", {result.kept_step:,} steps of {batch_note(self.fit)}.\n"
        if result.score is not None:
            note += f"\nHeld-out score: {result.score:.4f} ({', '.join(result.scores)}).\n"
        return self._checkpoint(result.weights, note)

    def _checkpoint(self, weights: dict[str, Tensor], note: str) -> Checkpoint:
        # A network of its own: the one in training may be compiled, or spread over devices.
        model = build_translator(self.config, self.genes, self.proteins).eval()
        model.load_state_dict(weights, strict=True)
        return Checkpoint(
            model=model,
            info=self.info,
            genes=self.genes,
            proteins=self.proteins,
            card=_card(self.info, len(self.genes), len(self.proteins), note),
        )


def batch_note(fit: FitConfig) -> str:
    """Global batch in words."""
    return f"{fit.sets_per_step} x {fit.batch_size} rows"


def _card(info: CheckpointInfo, n_genes: int, n_proteins: int, note: str) -> str:
    what = {
        "pretrain-rna": "Pretrained on RNA alone: a start for stage 2, not a predictor of protein",
        "pretrain-protein": "Pretrained on protein alone: a start for stage 2, not a predictor",
    }.get(info.stage, "A translator from RNA to surface protein")
    return (
        f"# {info.name}\n\n{what}: {n_genes:,} genes in, {n_proteins} proteins out.\n\n{note}\n"
        f"Unit of the predictions: {info.unit}.\n"
    )
