"""The work of a benchmark: fit all methods for a task, score them, collect the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.data.seen import seen_in_training
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import baselines, few_shot, totalvi
from sclinguist_core.evaluation.benchmark_config import FULL, BenchmarkConfig
from sclinguist_core.evaluation.degrade import Degradation
from sclinguist_core.evaluation.embeddings import EmbeddingMethods
from sclinguist_core.evaluation.methods import (
    MODEL,
    LearnerMethods,
    Method,
    ModelMethod,
    PublishedMethod,
)
from sclinguist_core.evaluation.metrics import FloatArray
from sclinguist_core.evaluation.results import Benchmark
from sclinguist_core.evaluation.scores import Truth, score
from sclinguist_core.evaluation.tasks import MeasuredCells, Task

if TYPE_CHECKING:
    from sclinguist_core.model.checkpoint import Checkpoint
    from sclinguist_core.train.recipe import Recipe


def proteins_of(task: Task, checkpoint: Checkpoint | None) -> list[str]:
    """Proteins that every trained method can learn, in the order of the test panel.

    The test cells and at least one training set measured them; the model knows them.

    Raises
    ------
    InputError
        If there are none.
    """
    learnt: set[str] = set()
    for data in task.train:
        learnt |= set(data.truth().proteins)
    wanted = [name for name in dict.fromkeys(task.test.truth().proteins) if name in learnt]
    if checkpoint is not None:
        known = set(checkpoint.protein_names)
        wanted = [name for name in wanted if name in known]
    if not wanted:
        raise InputError(
            f"{task.test.name}: none of its proteins was measured by a training set (and is known "
            "to the model), expected at least one; give other --train files"
        )
    return wanted


class Runner:
    """Collects scores while tasks are worked off."""

    def __init__(
        self,
        config: BenchmarkConfig,
        checkpoint: Checkpoint | None,
        recipe: Recipe | None,
        progress: Callable[[str], None],
    ) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.recipe = recipe
        self.progress = progress
        self.summaries: list[pd.DataFrame] = []
        self.per_protein: list[pd.DataFrame] = []
        self.notes: dict[str, None] = {}

    def result(self) -> Benchmark:
        """Return everything collected so far."""
        return Benchmark(
            summary=pd.concat(self.summaries, ignore_index=True),
            per_protein=pd.concat(self.per_protein, ignore_index=True),
            warnings=tuple(self.notes),
        )

    def note(self, sentence: str) -> None:
        """Keep a sentence, once."""
        self.notes[sentence] = None

    def task(
        self, task: Task, *, proteins: Sequence[str] | None = None, learners: bool = True
    ) -> None:
        """Fit all methods for a task and score them on the full and on poorer inputs."""
        model = self._model_for(task)
        wanted = list(proteins) if proteins is not None else proteins_of(task, model)
        methods = self._methods(task, wanted, model, learners=learners)
        truth = task.test.truth(wanted)
        for degradation in self.config.degradations():
            query = task.test.with_rna(degradation.apply(task.test.paired.rna))
            if degradation is not FULL and query is task.test:
                self.note(
                    f"{task.test.name}: has no more than {degradation.n_genes} genes to draw from."
                )
                continue
            found = trivial(query, truth)
            log1p: dict[str, FloatArray] = {}
            for method in methods:
                where = f"{task.test.name} {task.part}".strip()
                self.progress(f"{where} ({degradation.label})")
                predicted = method.predict(query)
                found |= to_antibodies(predicted.clr, wanted, truth)
                log1p |= to_antibodies(predicted.log1p, wanted, truth)
                for sentence in method.notes:
                    self.note(sentence)
            self.keep(found, truth, task, degradation, log1p=log1p)

    def keep(
        self,
        predictions: dict[str, FloatArray],
        truth: Truth,
        task: Task,
        degradation: Degradation = FULL,
        part: str | None = None,
        log1p: dict[str, FloatArray] | None = None,
    ) -> None:
        """Score predictions and keep the tables."""
        summary, per_protein = score(
            predictions,
            truth,
            reference=MODEL,
            log1p=log1p,
            n_resamples=self.config.n_resamples,
            seed=self.config.seed,
        )
        labels = {
            "dataset": task.test.name,
            "part": task.part if part is None else part,
            "input": degradation.label,
            "seed": degradation.seed,
        }
        for table, kept in ((summary, self.summaries), (per_protein, self.per_protein)):
            for position, (name, value) in enumerate(labels.items()):
                table.insert(position, name, value)
            kept.append(table)

    def few_shot(self, task: Task) -> None:
        """Give cells of the test set to every method; see few_shot."""
        from sclinguist_core.train.finetune import finetune

        config = self.config
        model = self._model_for(task)
        wanted = proteins_of(task, model)
        truth = task.test.truth(wanted)
        first = [truth.proteins.index(name) for name in wanted]
        targets = truth.clr[:, first]
        learners = self._learners(task, wanted)
        self.progress(f"{task.test.name}: zero-shot")
        zero = learners.predict(task.test).clr
        components, own = learners.components(task.test), few_shot.own_components(task.test)
        nothing = np.full(targets.shape, np.nan)
        plan = list(few_shot.draws(task.test.n_obs, config.sizes, config.draws, config.seed))
        if not plan:
            raise InputError(
                f"{task.test.name}: has {task.test.n_obs} cells, expected at least twice the "
                f"{min(config.sizes)} to be given away; choose smaller --cells"
            )
        for draw in plan:
            self.progress(f"{task.test.name}: {draw.n_cells} cells, draw {draw.number + 1}")
            scored = task.test.take(draw.scored)
            found: dict[str, FloatArray] = {}
            for name, start in {**zero, few_shot.OWN_CELLS: nothing}.items():
                found[name] = few_shot.corrected(
                    start, components, own, targets, draw, seed=config.seed
                )
            if model is not None:
                tuned = finetune(
                    task.test.take(draw.support).to_anndata(),
                    model=model,
                    device=config.device,
                    seed=config.seed,
                )
                method = ModelMethod(tuned.checkpoint, wanted, device=config.device)
                found |= method.predict(scored).clr
            self.keep(
                to_antibodies(found, wanted, scored.truth(wanted)),
                scored.truth(wanted),
                task,
                Degradation(seed=config.seed + draw.number),
                part=f"{draw.n_cells} cells",
            )

    def _model_for(self, task: Task) -> Checkpoint | None:
        """Return the model of a task: trained for it, or as given unless it may not be used."""
        name = task.test.name
        if task.test.simulated:
            self.note(f"{name}: simulated data; its figures say nothing about real tissue.")
        if self.recipe is not None:
            from sclinguist_core.evaluation.refit import refit

            self.progress(f"{name} {task.part}: training {self.recipe.name}")
            return refit(self.recipe, task.train, hold_out=[name])
        if self.checkpoint is None:
            return None
        section = replace(task.test.to_section(), name=name)
        known = seen_in_training(section, self.checkpoint.info.training_datasets)
        if known and self.config.split in {"donor", "random", "few-shot"}:
            self.note(
                f"{name}: the model was trained on this data set ({known}) and is left out; give "
                "--recipe to train it anew for the split."
            )
            return None
        if known:
            self.note(
                f"{name}: the model was trained on this data set ({known}), so its figure is not "
                "one for unseen data."
            )
        return self.checkpoint

    def _learners(self, task: Task, proteins: Sequence[str]) -> LearnerMethods:
        return LearnerMethods(
            task,
            proteins,
            methods=self.config.learners,
            select=self.config.select_training_sets,
            log1p=self.config.log1p,
            seed=self.config.seed,
        )

    def _methods(
        self, task: Task, proteins: Sequence[str], model: Checkpoint | None, *, learners: bool
    ) -> list[Method]:
        config = self.config
        methods: list[Method] = []
        if model is not None:
            train = task.train if config.log1p else ()
            methods.append(ModelMethod(model, proteins, device=config.device, log1p_from=train))
        if not learners:
            return methods
        if config.learners:
            methods.append(self._learners(task, proteins))
        methods += [EmbeddingMethods(task, proteins, key) for key in config.embeddings]
        if config.totalvi and not totalvi.is_installed():
            self.note(totalvi.NOT_INSTALLED)
        elif config.totalvi:
            methods.append(
                totalvi.TotalViMethod(
                    task, proteins, max_epochs=config.totalvi_epochs, seed=config.seed
                )
            )
        if config.published:
            methods.append(PublishedMethod(task, proteins, device=config.device, seed=config.seed))
        return methods


def trivial(query: MeasuredCells, truth: Truth) -> dict[str, FloatArray]:
    """Predictions that need no training: protein mean, total count, cognate mRNA; (n, A)."""
    panel = query.paired.panel.loc[list(truth.antibodies)]
    genes = [text.split(";") if text else [] for text in panel["genes"]]
    total = baselines.total_count(query.paired.protein)
    return {
        baselines.PROTEIN_MEAN: np.zeros(truth.clr.shape),
        baselines.TOTAL_COUNT: total[:, : truth.clr.shape[1]],
        baselines.COGNATE_MRNA: baselines.cognate_mrna(query.paired.rna, genes, truth.clr).values,
    }


def to_antibodies(
    predictions: dict[str, FloatArray], proteins: Sequence[str], truth: Truth
) -> dict[str, FloatArray]:
    """From a column a protein to a column an antibody: (n, A)."""
    position = {name: i for i, name in enumerate(proteins)}
    order = [position[name] for name in truth.proteins]
    return {name: values[:, order] for name, values in predictions.items()}
