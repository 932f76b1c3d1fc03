"""An untrained translator over the genes of made-up cells, and these cells."""

from __future__ import annotations

import anndata as ad
import torch
from scipy import sparse

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train.corpus import gene_statistics, gene_universe, protein_universe
from synthetic import paired_cells

CONFIG = TranslatorConfig(gene_dim=16, width=16, n_latents=4, n_heads=2, n_layers=1)
SLOPES = [0.5, 1.0, 2.0, 1.0, 0.1]
EMPTY = 4
"""The cell without reads."""


def untrained_cells(n_obs: int = 70) -> ad.AnnData:
    """Cells of five kinds, one of them without reads."""
    adata = paired_cells(n_obs)
    counts = adata.X.toarray()
    counts[EMPTY] = 0
    adata.X = sparse.csr_matrix(counts)
    return adata


def untrained_checkpoint(cells: ad.AnnData, config: TranslatorConfig = CONFIG) -> Checkpoint:
    """Translator with random weights, the state's among them, for the proteins of the cells."""
    section = as_section(cells)
    genes = gene_universe([section])
    statistics = gene_statistics(genes, [align_genes(section.rna(), genes["symbol"].tolist())])
    proteins = protein_universe([section])
    torch.manual_seed(0)
    model = build_translator(config, statistics.table, proteins).eval()
    if model.state is not None:
        model.state.loadings.normal_(std=0.2)
    return Checkpoint(
        model=model,
        info=CheckpointInfo(name="untrained", model=config),
        genes=statistics.table,
        proteins=proteins.assign(trust="untested", slope=SLOPES),
        card="",
        digest="0123456789ab",
    )
