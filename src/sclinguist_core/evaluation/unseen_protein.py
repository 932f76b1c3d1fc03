"""Proteins that training never saw: only a method that knows their genes can predict them.

With a recipe, the proteins are split into folds; the model is trained without the antibodies of one
fold and asked for it by the coding genes alone (:mod:`sclinguist_core.model.gene_queries`). With a
checkpoint, the proteins are those of the test set that it does not know. No other trained method
has an answer; cognate mRNA is what there is to beat.

A checkpoint is not asked for proteins that it has learnt with their rows taken out: the embeddings
of their genes, and the layers that all proteins share, have learnt from them, which flatters it far
too much. ``training/benchmarks/any_protein.py`` trains without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.tasks import MeasuredCells, Task

if TYPE_CHECKING:
    from sclinguist_core.evaluation.benchmark import BenchmarkConfig
    from sclinguist_core.model.checkpoint import Checkpoint
    from sclinguist_core.train.recipe import Recipe

MIN_LEFT = 2
"""Proteins that a training set must keep to be learnt from."""


def protein_tasks(
    train: Sequence[MeasuredCells],
    test: MeasuredCells,
    config: BenchmarkConfig,
    checkpoint: Checkpoint | None,
    recipe: Recipe | None,
) -> Iterator[tuple[Task, list[str]]]:
    """Give out tasks with the proteins that their training has not seen.

    Parameters
    ----------
    train
        Training sets.
    test
        Test set.
    config
        Number of folds and seed.
    checkpoint
        The model, unless it is trained anew.
    recipe
        How it is trained anew.

    Raises
    ------
    InputError
        If nothing can be asked.
    """
    panel = test.paired.panel
    coded = {name for name, genes in zip(panel["canonical"], panel["genes"], strict=True) if genes}
    proteins = [name for name in dict.fromkeys(test.truth().proteins) if name in coded]
    if not proteins:
        raise InputError(
            f"{test.name}: none of its proteins has a coding gene, expected at least one to ask "
            "for by its gene; give another --test file"
        )
    if recipe is None and checkpoint is None:
        raise InputError(
            "model 'none': the protein split needs a model that is asked for proteins by their "
            "genes, expected --model or --recipe"
        )
    if recipe is None:
        known = set() if checkpoint is None else set(checkpoint.protein_names)
        unseen = [name for name in proteins if name not in known]
        if not unseen:
            raise InputError(
                f"{test.name}: the model has learnt all of its {len(proteins)} proteins with a "
                "coding gene, expected some that it has not; give --recipe to train without them"
            )
        yield Task(train=list(train), test=test, part="unseen proteins"), unseen
        return
    order = np.random.default_rng(config.seed).permutation(len(proteins))
    folds = [fold for fold in np.array_split(order, config.protein_folds) if len(fold)]
    for number, fold in enumerate(folds):
        unseen = [proteins[i] for i in sorted(fold)]
        rest = [data.without(unseen) for data in train]
        rest = [data for data in rest if len(data.truth().proteins) >= MIN_LEFT]
        part = f"unseen proteins, fold {number + 1} of {len(folds)}"
        yield replace(Task(train=rest, test=test), part=part), unseen
