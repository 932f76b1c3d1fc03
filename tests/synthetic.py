"""Small synthetic paired cells whose proteins follow their RNA, for tests of the whole path."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.vocabulary.genes import gene_table

MARKERS = {"CD3": "CD3E", "CD19": "CD19", "CD14": "CD14", "CD56": "NCAM1", "CD4": "CD4"}


def paired_cells(
    n_obs: int = 200, n_genes: int = 400, *, seed: int = 0, name: str = "cells"
) -> ad.AnnData:
    """Cells of five kinds; each kind expresses its marker gene, and its marker protein."""
    rng = np.random.default_rng(seed)
    background = [g for g in gene_table().index[::37] if g not in MARKERS.values()]
    genes = [*MARKERS.values(), *background[: n_genes - len(MARKERS)]]
    kind = rng.integers(0, len(MARKERS), n_obs)
    rate = np.full((n_obs, n_genes), 0.3)
    rate[:, len(MARKERS) :] *= rng.gamma(1.0, 1.0, n_genes - len(MARKERS))
    rate[np.arange(n_obs), kind] = 6.0
    # Kinds also differ in genes that are no markers, as cells do.
    for k in range(len(MARKERS)):
        rate[np.ix_(kind == k, np.arange(len(MARKERS) + k, n_genes, 17))] *= 5
    depth = rng.lognormal(0, 0.3, (n_obs, 1))
    counts = rng.poisson(rate * depth).astype(np.float32)
    protein = rng.poisson(np.where(np.eye(len(MARKERS))[kind] > 0, 300.0, 12.0) * depth)
    isotype = rng.poisson(5.0 * depth[:, 0])
    adata = ad.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(index=[f"{name}-{i}" for i in range(n_obs)]),
        var=pd.DataFrame(index=genes),
    )
    adata.obsm["protein"] = pd.DataFrame(
        np.column_stack([protein, isotype]).astype(np.float32),
        index=adata.obs_names,
        columns=[*MARKERS, "IgG1"],
    )
    return adata
