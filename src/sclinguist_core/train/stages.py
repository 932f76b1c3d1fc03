"""Training stages: from files to a checkpoint.

1. ``pretrain_rna`` and ``pretrain_protein`` learn from one modality alone, by hiding parts of it.
2. ``post_pretrain`` learns proteins from paired cells, from scratch or from stage 1.

Each takes a recipe, trains with `sclinguist_core.train.trainer`, and returns a checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import torch

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.section import Section
from sclinguist_core.data.store.reader import StoredCells
from sclinguist_core.errors import InputError
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train.checkpoint_maker import CheckpointMaker
from sclinguist_core.train.components import fit_components
from sclinguist_core.train.corpus import (
    GeneStatistics,
    gene_statistics,
    gene_universe,
    protein_universe,
)
from sclinguist_core.train.fit import Step
from sclinguist_core.train.handover import initialise
from sclinguist_core.train.recipe import Recipe
from sclinguist_core.train.stream import StreamedRna
from sclinguist_core.train.streamed_pairs import aligned_rna, in_memory, paired_cells
from sclinguist_core.train.trainer import run_objective, run_training
from sclinguist_core.train.training_sections import open_training_sections
from sclinguist_core.vocabulary.genes import gene_table

if TYPE_CHECKING:
    from sclinguist_core.model.translator import Translator
    from sclinguist_core.train.chunks import ChunkSource
    from sclinguist_core.train.run_folder import RunFolder

logger = logging.getLogger(__name__)

Progress = Callable[[Step], None]


def pretrain_rna(
    recipe: Recipe,
    *,
    hold_out: Sequence[str] = (),
    run: RunFolder | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Checkpoint:
    """Stage 1, RNA: learn to predict hidden genes; parameters as of `post_pretrain`.

    The RNA of paired data sets is learned from as well. The network has the proteins of these sets
    already, untrained.
    """
    from sclinguist_core.train.heldout import N_CHUNKS, HeldOutLoss
    from sclinguist_core.train.masked_rna import RnaChunks, RnaObjective

    sections = open_training_sections(recipe, hold_out)
    if not (sections.rna or sections.paired):
        raise InputError("pretrain-rna: no data set with RNA, expected some in rna or paired.")
    if recipe.architecture == "sct":
        from sclinguist_core.train.sct_stage import pretrain_sct

        whole = sections.loaded()
        return pretrain_sct(recipe, whole, run=run, resume=resume, progress=progress)
    config = replace(recipe.translator, gene_output=True)
    statistics, aligned = _genes([*sections.paired, *sections.rna])
    proteins = protein_universe([s for s in sections.paired if s.has_protein])
    model = _network(recipe, config, statistics.table, proteins)
    share = statistics.share
    fit_components(model, aligned, share)
    fixed = replace(recipe.fit, sets_per_step=N_CHUNKS)
    held_out: dict[str, ChunkSource] = {
        section.name: RnaChunks(
            [aligned_rna(section, statistics.symbols)],
            share, fixed, replace(recipe.augmentation, gene_dropout=0, thinning=0), recipe.masking,
        )
        for section in sections.validate
    }  # fmt: skip
    finish = CheckpointMaker(
        recipe, config, statistics.table, proteins, sections.names, "pretrain-rna", run
    )
    result = run_objective(
        RnaObjective(model, recipe.masking),
        RnaChunks(aligned, share, recipe.fit, recipe.augmentation, recipe.masking),
        recipe.fit,
        recipe.trainer,
        validation=HeldOutLoss(held_out) if held_out else None,
        run=run, resume=resume, progress=progress, on_best=finish.best,
    )  # fmt: skip
    return finish(result, sum(rna.n_obs for rna in aligned))


def pretrain_protein(
    recipe: Recipe,
    *,
    hold_out: Sequence[str] = (),
    run: RunFolder | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Checkpoint:
    """Stage 1, protein: learn to predict hidden proteins; parameters as of `post_pretrain`.

    The proteins of paired data sets are learned from as well. Genes of the network are those that
    code for its proteins.
    """
    from sclinguist_core.train.heldout import N_CHUNKS, HeldOutLoss
    from sclinguist_core.train.masked_protein import (
        ProteinChunks,
        ProteinObjective,
        protein_dataset,
    )

    opened = open_training_sections(recipe, hold_out, unpaired=("protein",))
    sections = opened.loaded(with_rna=False)
    measured = [*sections.protein, *sections.paired]
    if not measured:
        raise InputError(
            "pretrain-protein: no data set with proteins, expected some in protein or paired."
        )
    proteins = protein_universe(measured)
    genes = _coding_genes(proteins)
    names = proteins["name"].tolist()
    datasets = [protein_dataset(section, names) for section in measured]
    config = replace(recipe.translator, protein_input=True, n_components=0, log_output=False)
    model = _network(recipe, config, genes, proteins)
    fixed = replace(recipe.fit, sets_per_step=N_CHUNKS)
    held_out: dict[str, ChunkSource] = {
        section.name: ProteinChunks([protein_dataset(section, names)], fixed, recipe.masking)
        for section in sections.validate
    }
    finish = CheckpointMaker(
        recipe, config, genes, proteins, sections.names, "pretrain-protein", run
    )
    result = run_objective(
        ProteinObjective(model, recipe.fit.scale_weight),
        ProteinChunks(datasets, recipe.fit, recipe.masking),
        recipe.fit,
        recipe.trainer,
        validation=HeldOutLoss(held_out) if held_out else None,
        run=run, resume=resume, progress=progress, on_best=finish.best,
    )  # fmt: skip
    return finish(result, sum(dataset.n_obs for dataset in datasets))


def post_pretrain(
    recipe: Recipe,
    *,
    hold_out: Sequence[str] = (),
    run: RunFolder | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Checkpoint:
    """Stage 2: learn proteins from paired cells.

    Genes, their statistics and the protein panel come from the training sets alone: a set that
    is held out leaves no trace.

    Parameters
    ----------
    recipe
        What to train on and how.
    hold_out
        Names of data sets that are left out, beside those of the recipe.
    run
        Folder that keeps state, metrics and the best model, so that the run can be continued.
    resume
        Continue the run of the folder, if it was begun.
    progress
        Called with every report.

    Raises
    ------
    InputError
        If data or recipe cannot be used.
    TrainingInterrupted
        If a signal ended the run early.
    """
    sections = open_training_sections(recipe, hold_out)
    if not sections.paired:
        raise InputError(
            "paired: no data set is left to train on, expected at least one; give one in the "
            "recipe, or hold out fewer."
        )
    if recipe.architecture == "hyena":
        from sclinguist_core.train.hyena_stage import post_pretrain_hyena

        whole = sections.loaded()
        return post_pretrain_hyena(recipe, whole, run=run, resume=resume, progress=progress)
    config = recipe.translator
    statistics, aligned = _genes([*sections.paired, *sections.rna])
    proteins = protein_universe(sections.paired)
    names = proteins["name"].tolist()
    datasets = [paired_cells(s, statistics.symbols, names) for s in sections.paired]
    held_out = [in_memory(paired_cells(s, statistics.symbols, names)) for s in sections.validate]
    model = _network(recipe, config, statistics.table, proteins)
    fit_components(model, aligned, statistics.share, [in_memory(data) for data in datasets])
    trained_on = sections.names_of(*sections.paired)
    finish = CheckpointMaker(
        recipe, config, statistics.table, proteins, trained_on, "post-pretrain", run
    )
    result = run_training(
        model,
        datasets,
        statistics.share,
        recipe.fit,
        recipe.augmentation,
        recipe.trainer,
        held_out=held_out,
        run=run, resume=resume, progress=progress, on_best=finish.best,
    )  # fmt: skip
    return finish(result, sum(d.n_obs for d in datasets))


def _genes(
    sections: Sequence[Section | StoredCells],
) -> tuple[GeneStatistics, list[AlignedRna | StreamedRna]]:
    """Genes of some sections, their statistics, and the sections' counts on them."""
    genes = gene_universe(sections)
    symbols = genes["symbol"].tolist()
    aligned = [aligned_rna(section, symbols) for section in sections]
    return gene_statistics(genes, aligned), aligned


def _coding_genes(proteins: pd.DataFrame) -> pd.DataFrame:
    """Genes that code for the proteins, without statistics: there is no RNA to take them from."""
    symbols = sorted({gene for coding in proteins["genes"] for gene in coding.split(";") if gene})
    known = gene_table()
    ids = known["ensembl_id"].reindex(symbols).fillna("")
    return pd.DataFrame(
        {
            "symbol": symbols,
            "ensembl_id": ids.to_numpy(),
            "reference_share": 1.0 / max(len(symbols), 1),
            "mean": 0.0,
            "std": 1.0,
        }
    )


def _network(
    recipe: Recipe, config: TranslatorConfig, genes: pd.DataFrame, proteins: pd.DataFrame
) -> Translator:
    torch.manual_seed(recipe.fit.seed)
    model = build_translator(config, genes, proteins)
    if recipe.init:
        initialise(model, genes["symbol"].tolist(), proteins["name"].tolist(), recipe.init)
    logger.info(
        "%d genes, %d proteins, %d parameters",
        len(genes), len(proteins), sum(p.numel() for p in model.parameters()),
    )  # fmt: skip
    return model
