"""RNA and antibody counts of the simulated section.

A spot holds the cells whose nucleus lies under it. Each cell has an amount of RNA, an expression
profile of its type, and a level of each antibody that varies from cell to cell; the gene of an
antibody varies a little with it. The sums of the cells then bleed to neighbouring spots, gain an
ambient part, take the capture efficiency of the spot and are drawn as Poisson counts.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from cells import Cells
from fields import smooth_noise
from lattice import SPOT_UM, Lattice
from scipy import sparse
from scipy.spatial import cKDTree
from tissue import Tissue

HERE = Path(__file__).parent

MEDIAN_RNA = 6000.0  # expected UMI of the median spot
MEDIAN_PROTEIN = 3600.0
BLEED_NEAR, BLEED_FAR = 0.055, 0.015  # share that goes to the 6 nearest and the 12 next spots
AMBIENT = 0.02

#: Genes that follow the cell-to-cell variation of an antibody.
COGNATE = {
    "CD3": ("CD3E", "CD3D", "CD3G"),
    "CD4": ("CD4",),
    "CD8a": ("CD8A", "CD8B"),
    "CD11b": ("ITGAM",),
    "CD14": ("CD14",),
    "CD16": ("FCGR3A",),
    "CD19": ("CD19",),
    "CD20": ("MS4A1",),
    "CD21": ("CR2",),
    "CD25": ("IL2RA",),
    "CD27": ("CD27",),
    "CD28": ("CD28",),
    "CD31": ("PECAM1",),
    "CD38": ("CD38",),
    "CD56": ("NCAM1",),
    "CD62L": ("SELL",),
    "CD69": ("CD69",),
    "CD86": ("CD86",),
    "CD127": ("IL7R",),
    "CD138": ("SDC1",),
    "CD197": ("CCR7",),
    "PD-1": ("PDCD1",),
    "HLA-DR": ("HLA-DRA", "HLA-DRB1"),
    "TIGIT": ("TIGIT",),
    "EpCAM": ("EPCAM",),
}

#: Invented backgrounds of the two antibodies that no set measured on cells that carry them.
UNMEASURED_BACKGROUND = 4.0

#: Antibody that sticks without binding, relative to a T cell.
STICKINESS = {"macrophage": 1.8, "plasma cell": 1.6, "epithelial cell": 1.6, "monocyte CD14": 1.4}


@dataclass(frozen=True)
class Profiles:
    """Profiles of all cell types.

    Attributes
    ----------
    genes
        DataFrame ``symbol``, ``gene_id`` in genome order.
    rna
        ``(types, genes)`` fractions, each row sums to 1.
    antibodies
        Names of the panel.
    protein
        ``(types, antibodies)`` mean counts per cell.
    shape
        ``(antibodies,)`` gamma shape of the variation between cells of a type.
    size
        ``(types,)`` RNA content relative to a naive T cell.
    types
        Names of the cell types.
    """

    genes: pd.DataFrame
    rna: np.ndarray
    antibodies: tuple[str, ...]
    protein: np.ndarray
    shape: np.ndarray
    size: np.ndarray
    types: tuple[str, ...]


def read_profiles(n_genes: int | None = None) -> Profiles:
    """Read the estimated and the invented cell types.

    Parameters
    ----------
    n_genes
        Keep only the genes with the highest mean (a small simulation); None keeps all.
    """
    table = pd.read_csv(HERE / "profiles.tsv.gz", sep="\t")
    levels = pd.read_csv(HERE / "protein_profiles.tsv", sep="\t", index_col="antibody")
    shape = levels.pop("shape").to_numpy(float)
    levels = levels.drop(columns="measured_in").fillna(UNMEASURED_BACKGROUND)
    with (HERE / "invented_types.toml").open("rb") as file:
        invented = tomllib.load(file)

    rna = table.set_index("symbol").drop(columns="gene_id")
    sizes = dict.fromkeys(rna.columns, 1.0)
    sizes |= {"B naive": 0.9, "monocyte CD14": 1.5, "monocyte CD16": 1.4, "cDC": 2.0, "pDC": 1.6}
    sizes |= {"CD4 memory": 1.15, "Treg": 1.15, "CD8 memory": 1.1}
    shared = rna.min(axis=1)
    shared = shared / shared.sum() * 1e6
    bases = {name: rna[name] for name in rna} | {"shared": shared}
    protein = {name: levels[name] for name in levels} | {"shared": levels.min(axis=1)}
    for name, entry in invented.items():
        bases[name] = bases[entry["base"]].copy()
        protein[name] = protein[entry["base"]].copy()
        for gene, value in entry.get("rna", {}).items():
            bases[name][gene] = value
        for antibody, value in entry.get("protein", {}).items():
            protein[name][antibody] = value
        sizes[name] = entry["size"]
    del bases["shared"], protein["shared"]

    types = tuple(bases)
    fractions = np.stack([bases[t].to_numpy(float) for t in types])
    fractions /= fractions.sum(1, keepdims=True)
    genes = table[["symbol", "gene_id"]]
    if n_genes is not None:
        top = np.sort(np.argsort(-fractions.mean(0), kind="stable")[:n_genes])
        genes, fractions = genes.iloc[top].reset_index(drop=True), fractions[:, top]
    return Profiles(
        genes=genes,
        rna=fractions,
        antibodies=tuple(levels.index),
        protein=np.stack([protein[t].to_numpy(float) for t in types]),
        shape=shape,
        size=np.array([sizes[t] for t in types]),
        types=types,
    )


def cells_under_spots(cells: Cells, lattice: Lattice) -> sparse.csr_matrix:
    """Membership ``(spots, cells)``: 1 where a nucleus lies within the 55 um of a spot."""
    spots = cKDTree(np.c_[lattice.x, lattice.y])
    distance, spot = spots.query(np.c_[cells.x, cells.y])
    inside = distance <= SPOT_UM / 2
    shape = (len(lattice.x), len(cells.x))
    return sparse.csr_matrix(
        (np.ones(inside.sum()), (spot[inside], np.flatnonzero(inside))), shape=shape
    )


def bleeding(lattice: Lattice) -> sparse.csr_matrix:
    """Matrix ``(spots, spots)`` that moves a share of each spot's molecules to its neighbours.

    It covers the whole lattice; what goes to spots outside the tissue is lost to the table.
    """
    tree = cKDTree(np.c_[lattice.x, lattice.y])
    pairs = tree.query_pairs(210, output_type="ndarray")
    one, other = pairs.T
    gap = np.hypot(lattice.x[one] - lattice.x[other], lattice.y[one] - lattice.y[other])
    share = np.where(gap < 110, BLEED_NEAR / 6, BLEED_FAR / 12)
    n = len(lattice.x)
    moved = sparse.coo_matrix((share, (one, other)), shape=(n, n)).tocsr()
    kept = sparse.identity(n, format="csr") * (1 - BLEED_NEAR - BLEED_FAR)
    return (moved + moved.T + kept).tocsr()


def _efficiency(
    lattice: Lattice, tissue: Tissue, spread: float, shared: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Capture efficiency of every spot: smooth, log-normal, a little lower at torn edges."""
    smooth = tissue.at(smooth_noise(tissue.region.shape[0], 1100, rng), lattice.x, lattice.y)
    log = spread * (0.75 * shared + 0.45 * smooth + 0.35 * rng.standard_normal(len(lattice.x)))
    edge = tissue.at(tissue.edge_depth, lattice.x, lattice.y)
    return np.exp(log - 0.25 * np.exp(-np.clip(edge, 0, None) / 60))


def simulate_counts(
    profiles: Profiles, cells: Cells, lattice: Lattice, tissue: Tissue, seed: int
) -> tuple[sparse.csr_matrix, np.ndarray, pd.DataFrame]:
    """Draw the counts of the spots in tissue.

    Returns
    -------
    rna
        ``(spots in tissue, genes)`` int32.
    protein
        ``(spots in tissue, antibodies)`` int32.
    cell_types
        Number of cells of each type under each spot in tissue.
    """
    rng = np.random.default_rng([seed, 5])
    n_cells, types = len(cells.x), profiles.types
    member = cells_under_spots(cells, lattice)
    one_type = sparse.csr_matrix(
        (np.ones(n_cells), (np.arange(n_cells), cells.kind)), shape=(n_cells, len(types))
    )
    numbers = (member @ one_type).toarray().astype(int)

    amount = profiles.size[cells.kind] * rng.lognormal(0, 0.35, n_cells)
    latent = rng.standard_gamma(profiles.shape, (n_cells, len(profiles.antibodies)))
    latent /= profiles.shape

    # RNA: spots x types, then the profile; antibody genes get their cell-to-cell variation
    weight = (member @ one_type.multiply(amount[:, None]).tocsr()).tocsr()
    bleed = bleeding(lattice)
    common = tissue.at(smooth_noise(tissue.region.shape[0], 900, rng), lattice.x, lattice.y)
    efficiency = _efficiency(lattice, tissue, 0.24, common, rng)
    # dense spots are captured less completely than sparse ones
    load = np.asarray(weight.sum(1)).ravel()
    in_tissue = lattice.in_tissue
    efficiency *= (np.clip(load, 1, None) / np.median(load[in_tissue])) ** -0.25
    inside = np.flatnonzero(in_tissue)
    expected = (bleed @ (load * efficiency))[inside]
    to_counts = MEDIAN_RNA / np.median(expected) / (1 + AMBIENT)
    mean_profile = np.asarray(weight[inside].sum(0)).ravel() @ profiles.rna
    mean_profile /= mean_profile.sum()

    symbols = profiles.genes["symbol"].to_numpy()
    column = {symbol: k for k, symbol in enumerate(symbols)}
    follows = {
        column[g]: k
        for k, a in enumerate(profiles.antibodies)
        for g in COGNATE.get(a, ())
        if g in column
    }
    blocks = []
    for start in range(0, len(symbols), 1000):
        stop = min(start + 1000, len(symbols))
        rate = weight @ profiles.rna[:, start:stop]
        for gene in range(start, stop):
            if gene in follows:
                vary = latent[:, follows[gene]] ** 0.7
                share = amount * profiles.rna[cells.kind, gene] * vary / vary.mean()
                rate[:, gene - start] = member @ share
        # genes of one type differ between cells too: the fewer cells, the more the spot varies
        shape = 1.0 + 0.8 * numbers.sum(1, keepdims=True)
        rate *= rng.standard_gamma(np.broadcast_to(shape, rate.shape)) / shape
        rate = (bleed @ (rate * efficiency[:, None]))[inside]
        rate += AMBIENT * np.median(expected) * mean_profile[start:stop]
        blocks.append(sparse.csr_matrix(rng.poisson(rate * to_counts).astype(np.int32)))
    rna = sparse.hstack(blocks, format="csr")

    level = profiles.protein[cells.kind] * latent * rng.lognormal(0, 0.25, n_cells)[:, None]
    sticky = np.array([STICKINESS.get(t, 1.0) for t in types])
    isotype = np.array([a.startswith("IgG") for a in profiles.antibodies])
    level[:, isotype] *= sticky[cells.kind, None]
    spot_level = member @ level
    spot_level += 6.0 * np.median(profiles.protein[:, isotype])  # sticks to the slide
    efficiency = _efficiency(lattice, tissue, 0.26, common, rng)
    efficiency *= (np.clip(numbers.sum(1), 1, None) / 14) ** -0.15
    rate = (bleed @ (spot_level * efficiency[:, None] * in_tissue[:, None]))[inside]
    rate += AMBIENT * rate.mean(0)
    rate *= MEDIAN_PROTEIN / np.median(rate.sum(1))
    rate *= rng.standard_gamma(40, rate.shape) / 40
    protein = rng.poisson(rate).astype(np.int32)
    return rna, protein, pd.DataFrame(numbers[inside], columns=list(types))
