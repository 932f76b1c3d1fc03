"""A small model with components of expression, for tests of imputation."""

from __future__ import annotations

import torch

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train.components import fit_components
from sclinguist_core.train.corpus import gene_statistics, gene_universe, protein_universe
from synthetic import paired_cells


def checkpoint_with_components(n_components: int = 8) -> Checkpoint:
    """Components of 300 cells of `paired_cells` with a seed of their own."""
    config = TranslatorConfig(
        gene_dim=8, width=8, n_latents=2, n_heads=2, n_layers=0, n_components=n_components
    )
    section = as_section(paired_cells(300, seed=11))
    genes = gene_universe([section])
    aligned = align_genes(section.rna(), genes["symbol"].tolist())
    statistics = gene_statistics(genes, [aligned])
    proteins = protein_universe([section])
    torch.manual_seed(0)
    model = build_translator(config, statistics.table, proteins)
    fit_components(model, [aligned], statistics.share)
    return Checkpoint(
        model=model.eval(),
        info=CheckpointInfo(name="small", model=config),
        genes=statistics.table,
        proteins=proteins,
        card="",
        digest="0123456789ab",
    )
