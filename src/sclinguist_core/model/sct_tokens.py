"""From expression to the tokens of the sCT architecture.

Shapes: n cells, V genes of a checkpoint, G positions of the network (V or more).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.levels import expression_levels
from sclinguist_core.model.sct_config import MASK, PAD, SctConfig


def sct_tokens(
    rna: AlignedRna, config: SctConfig, gene_share: np.ndarray, hidden: np.ndarray | None = None
) -> np.ndarray:
    """Levels of cells, as the network reads them.

    What is hidden takes no part: neither in the size of a cell nor in the bounds of its levels.

    Parameters
    ----------
    rna
        Counts over the checkpoint's genes.
    config
        Sizes of the network and name of the normalisation.
    gene_share
        Reference expression of the genes, shape (V,).
    hidden
        Which genes of which cell are hidden, bool, shape (n, V); those that were not measured may
        be among them.

    Returns
    -------
    0 to 4, ``MASK`` where hidden, ``PAD`` where not measured, int8, shape (n, G).
    """
    n_cells, n_genes = rna.counts.shape
    if n_genes > config.n_genes:
        raise ValueError(f"rna: {n_genes} genes, expected at most {config.n_genes} (n_genes)")
    tokens = np.full((n_cells, config.n_genes), PAD, np.int8)
    known = tokens[:, :n_genes]
    known[rna.measured[rna.pattern]] = 0
    if hidden is not None:
        rna = rna.without(sparse.csr_matrix(hidden))
    expression = rna.expression(gene_share, config.rna_normalization)
    row = np.repeat(np.arange(n_cells), np.diff(expression.indptr))
    known[row, expression.indices] = expression_levels(expression)
    if hidden is not None:
        known[hidden] = MASK
    return tokens
