"""Proteins that training never saw: only a method that knows their genes can predict them.

With a recipe, the proteins are split into folds, those of one gene (CD45RA, CD45RO) together; the
model is trained without every antibody whose target shares a gene with one fold and asked for it by
the coding genes alone (:mod:`sclinguist_core.model.gene_queries`). With a checkpoint, the proteins
are those of the test set of which it knows neither the name nor a gene. No other trained method has
an answer; cognate mRNA is what there is to beat.

A checkpoint is not asked for proteins that it has learnt with their rows taken out: the embeddings
of their genes, and the layers that all proteins share, have learnt from them, which flatters it far
too much. ``training/benchmarks/any_protein.py`` trains without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def protein_parts(genes: Mapping[str, str], n_parts: int, seed: int = 0) -> list[list[str]]:
    """Deal proteins with coding genes into parts; those that share a gene stay together.

    Parameters
    ----------
    genes
        Symbols of the coding genes, joined by ``;``, by protein; proteins without any are left out.
    n_parts
        How many parts, of about as many proteins.
    seed
        Of the order in which they are dealt.

    Returns
    -------
    Names of each part, sorted; empty where there are fewer groups than parts.
    """
    group: dict[str, int] = {}
    members: list[set[str]] = []
    for name, coding in genes.items():
        if not coding:
            continue
        found = sorted({group[gene] for gene in coding.split(";") if gene in group})
        joined = set.union({name}, *(members[i] for i in found))
        for i in found:
            members[i] = set()
        members.append(joined)
        for member in joined:
            group |= dict.fromkeys(genes[member].split(";"), len(members) - 1)
    groups = [sorted(some) for some in members if some]
    parts: list[list[str]] = [[] for _ in range(n_parts)]
    for i in np.random.default_rng(seed).permutation(len(groups)):
        min(parts, key=len).extend(groups[i])
    return [sorted(part) for part in parts]


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
    genes = dict(zip(panel["canonical"], panel["genes"], strict=True))
    proteins = [name for name in dict.fromkeys(test.truth().proteins) if genes[name]]
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
        assert checkpoint is not None
        learnt = checkpoint.proteins
        own = [genes[name] for name in proteins]
        seen = {*learnt["name"], *_of_genes(proteins, own, learnt["genes"])}
        unseen = [name for name in proteins if name not in seen]
        if not unseen:
            raise InputError(
                f"{test.name}: the model has learnt all of its {len(proteins)} proteins with a "
                "coding gene, or others of the same genes, expected some that it has not; give "
                "--recipe to train without them"
            )
        yield Task(train=list(train), test=test, part="unseen proteins"), unseen
        return
    dealt = protein_parts(
        {name: genes[name] for name in proteins}, config.protein_folds, config.seed
    )
    folds = [part for part in dealt if part]
    for number, unseen in enumerate(folds):
        coding = [genes[name] for name in unseen]
        rest = [
            data.without(
                _of_genes(data.paired.panel["canonical"], data.paired.panel["genes"], coding)
            )
            for data in train
        ]
        rest = [data for data in rest if len(data.truth().proteins) >= MIN_LEFT]
        part = f"unseen proteins, fold {number + 1} of {len(folds)}"
        yield replace(Task(train=rest, test=test), part=part), unseen


def _of_genes(names: Iterable[str], genes: Iterable[str], of: Iterable[str]) -> list[str]:
    """Names of proteins that share a coding gene with others (genes joined by ``;``)."""
    wanted = {gene for coding in of for gene in coding.split(";") if gene}
    return [
        name
        for name, coding in zip(names, genes, strict=True)
        if wanted.intersection(coding.split(";"))
    ]
