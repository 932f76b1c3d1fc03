"""A small untrained model with all its parts, and explanations made by hand."""

import numpy as np
import torch
from scipy import sparse

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.inference.explanation import Explanation, expressing
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train.corpus import gene_statistics, gene_universe, protein_universe

CONFIG = TranslatorConfig(
    gene_dim=16, width=16, n_latents=4, n_heads=2, n_layers=1, n_components=6, n_perceptrons=1
)
SLOPES = [0.5, 1.0, 2.0, 1.0, 0.1]


def small_checkpoint(cells, *, seed: int = 0) -> Checkpoint:
    """Untrained, but for a state and a regression on it that are drawn at random."""
    section = as_section(cells)
    genes = gene_universe([section])
    aligned = align_genes(section.rna(), genes["symbol"].tolist())
    statistics = gene_statistics(genes, [aligned])
    proteins = protein_universe([section])
    torch.manual_seed(seed)
    model = build_translator(CONFIG, statistics.table, proteins).eval()
    assert model.state is not None
    model.state.loadings.copy_(0.1 * torch.randn(model.state.loadings.shape))
    model.state_heads.weight.copy_(torch.randn(model.state_heads.weight.shape))
    return Checkpoint(
        model=model,
        info=CheckpointInfo(name="untrained", model=CONFIG),
        genes=statistics.table,
        proteins=proteins.assign(trust="untested", slope=SLOPES),
        card="",
        digest="0123456789ab",
    )


def by_hand(values: np.ndarray, predicted: np.ndarray, *, method: str = "gradients") -> Explanation:
    """Explanation of proteins P0, P1, ... from dense attributions (P, m, V) of genes A, B, ..."""
    matrices = tuple(sparse.csr_matrix(one.astype(np.float32)) for one in values)
    n_rows, n_genes = values.shape[1:]
    return Explanation(
        names=[f"P{i}" for i in range(len(values))],
        symbols=[chr(ord("A") + i) for i in range(n_genes)],
        rows=np.arange(n_rows),
        n_obs=n_rows,
        values=matrices,
        predicted=predicted.astype(np.float32),
        start=np.zeros_like(predicted, dtype=np.float32),
        expressing=expressing(matrices[0]),
        info={"method": method, "steps": 8},
    )
