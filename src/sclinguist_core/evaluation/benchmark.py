"""A model against baselines, on the same cells and the same list of proteins.

Every method learns from the same training sets and predicts the same test cells; each protein
that a training set measured is scored for all of them. A checkpoint comes as it is; what it *was*
trained on is read from its configuration, and a test set among it is said aloud, since such a
figure is not one for unseen data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.benchmark_config import BenchmarkConfig
from sclinguist_core.evaluation.results import Benchmark
from sclinguist_core.evaluation.runner import Runner
from sclinguist_core.evaluation.tasks import MeasuredCells, Task, make_tasks, open_cells

if TYPE_CHECKING:
    from anndata import AnnData

    from sclinguist_core.data.section import Section
    from sclinguist_core.model.checkpoint import Checkpoint
    from sclinguist_core.train.recipe import Recipe


def benchmark(
    train: Sequence[AnnData | Section | str | Path],
    test: Sequence[AnnData | Section | str | Path],
    *,
    model: str | Path | Checkpoint | None = "bundled",
    recipe: Recipe | None = None,
    config: BenchmarkConfig | None = None,
    progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Score a model beside simple and trained baselines.

    Parameters
    ----------
    train
        Paired data sets that every method learns from. May be empty for splits within a set.
    test
        Paired data sets, or sections with measured protein, to predict.
    model
        ``"bundled"``, a checkpoint folder, a loaded checkpoint, or None for baselines alone.
    recipe
        Train the model anew from this recipe on the training sets of each task, instead.
    config
        Split, methods, poorer inputs.
    progress
        Called with a few words before each step.

    Raises
    ------
    InputError
        If a list is empty, a file stands in both, or a file cannot be used.
    """
    config = config or BenchmarkConfig()
    within = config.split in {"donor", "random"}
    if not test or not (train or within):
        raise InputError(
            f"{'train' if test else 'test'}: found no file, expected at least one; give "
            "--train FILE and --test FILE"
        )
    _refuse_shared_files(train, test)
    taught = [open_cells(data, embeddings=config.embeddings) for data in train]
    asked = _distinct([open_cells(data, embeddings=config.embeddings) for data in test])
    run = Runner(config, _checkpoint(model, recipe), recipe, progress or (lambda words: None))
    if config.split == "few-shot":
        for data in asked:
            run.few_shot(Task(train=taught, test=data))
    elif config.split == "protein":
        from sclinguist_core.evaluation.unseen_protein import protein_tasks

        for data in asked:
            for task, proteins in protein_tasks(taught, data, config, run.checkpoint, recipe):
                run.task(task, proteins=proteins, learners=False)
    else:
        for task in make_tasks(
            config.split, taught, asked, donor_key=config.donor_key, seed=config.seed
        ):
            run.task(task)
    return run.result()


def _checkpoint(model: str | Path | Checkpoint | None, recipe: Recipe | None) -> Checkpoint | None:
    if model is None or recipe is not None:
        return None
    from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint

    return model if isinstance(model, Checkpoint) else load_checkpoint(model)


def _refuse_shared_files(train: Sequence[object], test: Sequence[object]) -> None:
    def paths(data: Sequence[object]) -> set[Path]:
        return {Path(item).resolve() for item in data if isinstance(item, str | Path)}

    shared = paths(train) & paths(test)
    if shared:
        raise InputError(
            f"{sorted(shared)[0]} is given to both --train and --test, expected different data "
            "sets: baselines that have seen the answers prove nothing; leave it out of one"
        )


def _distinct(cells: list[MeasuredCells]) -> list[MeasuredCells]:
    """Give data sets of the same name a number."""
    taken: set[str] = set()
    out = []
    for data in cells:
        name, number = data.name, 2
        while name in taken:
            name, number = f"{data.name}-{number}", number + 1
        taken.add(name)
        out.append(replace(data, paired=replace(data.paired, name=name)))
    return out
