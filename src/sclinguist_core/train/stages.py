"""Training stages: from files to a checkpoint."""

from __future__ import annotations

import logging
import platform
from collections.abc import Generator, Sequence

import torch

import sclinguist_core
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo, build_translator
from sclinguist_core.train.corpus import (
    gene_statistics,
    gene_universe,
    paired_dataset,
    protein_universe,
)
from sclinguist_core.train.fit import Step, fit
from sclinguist_core.train.recipe import Recipe

logger = logging.getLogger(__name__)


def open_training_sections(
    recipe: Recipe, hold_out: Sequence[str] = ()
) -> tuple[list[Section], list[Section]]:
    """Open the recipe's paired and RNA-only sections, less those held out by name.

    Raises
    ------
    InputError
        If a held-out name is not in the recipe, or nothing is left to train on.
    """
    paired = [open_section(path) for path in recipe.paired]
    names = [section.name for section in paired]
    for name in hold_out:
        if name not in names:
            raise InputError(
                f"hold-out {name!r}: not in the recipe, expected one of {', '.join(names)}."
            )
    paired = [section for section in paired if section.name not in hold_out]
    if not paired:
        raise InputError("hold-out: every paired data set is held out; leave one to train on.")
    return paired, [open_section(path) for path in recipe.rna]


def post_pretrain(
    recipe: Recipe, *, hold_out: Sequence[str] = (), device: str = "cpu"
) -> Generator[Step, None, Checkpoint]:
    """Stage 2: learn proteins from paired cells; yields steps, returns the checkpoint.

    Genes, their statistics and the protein panel come from the training sets alone: a set that
    is held out leaves no trace.

    Parameters
    ----------
    recipe
        What to train on and how.
    hold_out
        Names of paired sets that are left out.
    device
        Torch device.
    """
    paired, rna_only = open_training_sections(recipe, hold_out)
    genes = gene_universe([*paired, *rna_only])
    symbols = genes["symbol"].tolist()
    proteins = protein_universe(paired)
    datasets = [paired_dataset(section, symbols, proteins["name"].tolist()) for section in paired]
    others = [align_genes(section.rna(), symbols, source=section.name) for section in rna_only]
    statistics = gene_statistics(genes, [*(d.rna for d in datasets), *others])
    torch.manual_seed(recipe.fit.seed)
    model = build_translator(recipe.model, statistics.table, proteins).to(device)
    n_parameters = sum(p.numel() for p in model.parameters())
    logger.info(
        "%d cells of %d sets, %d genes, %d proteins, %d parameters",
        sum(d.n_obs for d in datasets), len(datasets), len(genes), len(proteins), n_parameters,
    )  # fmt: skip
    yield from fit(model, datasets, statistics.share, recipe.fit, recipe.augmentation)
    names = tuple(dataset.name for dataset in datasets)
    info = CheckpointInfo(
        name=recipe.name,
        model=recipe.model,
        training_datasets=names,
        created_with={
            "napari-sclinguist": sclinguist_core.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )
    return Checkpoint(
        model=model.cpu(),
        info=info,
        genes=statistics.table,
        proteins=proteins,
        card=_card(info, sum(d.n_obs for d in datasets), len(genes), len(proteins)),
    )


def _card(info: CheckpointInfo, n_cells: int, n_genes: int, n_proteins: int) -> str:
    return (
        f"# {info.name}\n\n"
        f"A translator from RNA to surface protein: {n_genes:,} genes in, {n_proteins} proteins "
        f"out.\n\nTrained on {n_cells:,} paired cells of {', '.join(info.training_datasets)}.\n\n"
        f"Unit of the predictions: {info.unit}.\n"
    )
