"""Small made-up cells whose proteins follow a few genes, and predictions of known quality."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from PIL import Image
from scipy import sparse

from sclinguist_core.vocabulary.genes import gene_table

CODING = {
    "CD3": ["CD3D", "CD3E", "CD3G"],
    "CD4": ["CD4"],
    "CD8a": ["CD8A", "CD8B"],
    "CD19": ["CD19"],
    "CD14": ["CD14"],
    "PD-1": ["PDCD1"],
}
CANONICAL = {"CD8a": "CD8", "PD-1": "CD279"}


def make_cells(n: int = 300, *, seed: int = 0, depth: float = 1.0) -> AnnData:
    """Cells with 400 genes and 8 antibodies: six follow RNA, CD15 is noise, IgG1 an isotype."""
    rng = np.random.default_rng(seed)
    coding = [gene for genes in CODING.values() for gene in genes]
    others = [gene for gene in gene_table().index[:2000:5] if gene not in coding]
    genes = coding + others[: 400 - len(coding)]
    hidden = rng.normal(size=(n, len(CODING)))
    loading = np.random.default_rng(99).normal(size=(len(CODING), len(genes)))
    log_rate = 0.35 * hidden @ loading + np.linspace(-0.5, 1.5, len(genes))
    for i, group in enumerate(CODING.values()):
        for gene in group:
            log_rate[:, genes.index(gene)] = 1.0 + 0.5 * hidden[:, i]
    size = depth * rng.lognormal(sigma=0.4, size=(n, 1))
    table = AnnData(
        X=sparse.csr_matrix(rng.poisson(size * np.exp(log_rate)), dtype=np.float32),
        obs=pd.DataFrame(index=[f"cell{i:04d}-1" for i in range(n)]),
        var=pd.DataFrame(index=genes),
    )
    protein = {
        name: rng.poisson(size[:, 0] * np.exp(3.5 + 0.8 * hidden[:, i]))
        for i, name in enumerate(CODING)
    }
    protein["CD15"] = rng.poisson(size[:, 0] * 20)
    protein["IgG1"] = rng.poisson(size[:, 0] * 3)
    table.obsm["protein"] = pd.DataFrame(protein, index=table.obs_names).astype(np.float32)
    table.obsm["hidden"] = hidden
    return table


def add_prediction(table: AnnData, *, noise: float = 0.3, seed: int = 1) -> AnnData:
    """Predictions under canonical names: the hidden truth plus noise; CD15 is noise alone."""
    rng = np.random.default_rng(seed)
    n = table.n_obs
    names = [CANONICAL.get(name, name) for name in CODING]
    values = table.obsm["hidden"] + noise * rng.normal(size=(n, len(names)))
    frame = pd.DataFrame(values, index=table.obs_names, columns=names)
    frame["CD15"] = rng.normal(size=n)
    frame["CD20"] = rng.normal(size=n)
    table.obsm["protein_predicted"] = frame.astype(np.float32)
    table.uns["sclinguist"] = {
        "model": "made-up",
        "unit": "standard deviations of the training reference",
        "trust": {"CD3": "well", "CD15": "poorly"},
    }
    return table


def add_positions(table: AnnData, side: int = 300) -> AnnData:
    """Put the cells on a grid over a pink picture of `side` pixels, 2 µm each."""
    columns = int(np.ceil(np.sqrt(table.n_obs)))
    pitch = side / columns
    index = np.arange(table.n_obs)
    xy = np.column_stack([index % columns, index // columns]) * pitch + pitch / 2
    table.obsm["spatial"] = xy
    pixels = np.full((side, side, 3), (230, 160, 200), np.uint8)
    table.uns["spatial"] = {
        "tissue": {
            "images": {"hires": pixels},
            "scalefactors": {
                "tissue_hires_scalef": 1.0,
                "spot_diameter_fullres": 0.6 * pitch,
                "microns_per_pixel": 2.0,
            },
        }
    }
    return table


def read_png(path) -> np.ndarray:
    """Pixels of a PNG, (H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
