"""Cells of the simulated section: where each nucleus lies and which type the cell is.

The picture draws these very nuclei and the counts of a spot come from the cells under it, so that
image and counts belong together cell by cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fields import CANVAS_UM, smooth_noise
from scipy.spatial import cKDTree
from tissue import (
    BACKGROUND,
    CONNECTIVE,
    DARK,
    EPITHELIUM,
    LIGHT,
    LUMEN,
    MANTLE,
    T_ZONE,
    VESSEL,
    Tissue,
)

#: Cells per square millimetre of the section.
DENSITY = {
    DARK: 6300,
    LIGHT: 5300,
    MANTLE: 9300,
    T_ZONE: 7300,
    EPITHELIUM: 5000,
    CONNECTIVE: 1700,
    VESSEL: 3800,
    LUMEN: 700,
}

#: Cell types of each compartment, as relative frequencies.
COMPOSITION: dict[int, dict[str, float]] = {
    DARK: {
        "GC B dark zone": 80,
        "GC B light zone": 8,
        "Tfh": 4,
        "macrophage": 2,
        "follicular dendritic cell": 2,
        "CD4 memory": 2,
        "plasma cell": 1,
    },
    LIGHT: {
        "GC B light zone": 56,
        "GC B dark zone": 8,
        "Tfh": 19,
        "follicular dendritic cell": 8,
        "B memory": 3,
        "macrophage": 1.2,
        "Treg": 1,
        "CD4 memory": 3,
    },
    MANTLE: {
        "B naive": 80,
        "B memory": 8,
        "CD4 naive": 3,
        "CD4 memory": 3,
        "Tfh": 2,
        "follicular dendritic cell": 2,
        "CD8 naive": 1,
        "macrophage": 1,
    },
    T_ZONE: {
        "CD4 naive": 27,
        "CD4 memory": 24,
        "Treg": 6,
        "Tfh": 2,
        "CD8 naive": 9,
        "CD8 memory": 8,
        "NK": 1,
        "B naive": 5,
        "B memory": 5,
        "cDC": 3.5,
        "pDC": 1.5,
        "macrophage": 2.5,
        "plasma cell": 1.0,
        "monocyte CD14": 0.7,
        "fibroblast": 2.5,
        "endothelial cell": 1.5,
    },
    EPITHELIUM: {
        "epithelial cell": 70,
        "B memory": 9,
        "CD8 memory": 6,
        "CD4 memory": 5,
        "cDC": 2.5,
        "plasma cell": 2.5,
        "macrophage": 2,
        "monocyte CD14": 1.5,
        "NK": 1,
        "CD4 naive": 1,
    },
    CONNECTIVE: {
        "fibroblast": 56,
        "smooth muscle cell": 9,
        "endothelial cell": 6,
        "macrophage": 8,
        "plasma cell": 9,
        "CD4 memory": 4,
        "CD8 memory": 3,
        "monocyte CD14": 2.5,
        "B memory": 2,
        "NK": 0.5,
    },
    VESSEL: {"endothelial cell": 52, "smooth muscle cell": 30, "fibroblast": 10, "CD4 naive": 8},
    LUMEN: {
        "monocyte CD14": 30,
        "monocyte CD16": 8,
        "NK": 12,
        "CD4 naive": 16,
        "CD4 memory": 12,
        "CD8 memory": 12,
        "B naive": 10,
    },
}

#: Types that gather below the epithelium, and their extra frequency there.
BELOW_EPITHELIUM = {"B memory": 26, "plasma cell": 9, "cDC": 3, "CD8 memory": 4}

#: Types whose frequency drifts across the section (clusters), with the spread in logs.
DRIFT = {
    "CD8 naive": 0.5,
    "CD8 memory": 0.6,
    "Treg": 0.4,
    "plasma cell": 0.7,
    "macrophage": 0.4,
    "NK": 0.6,
    "Tfh": 0.35,
    "CD4 memory": 0.25,
    "monocyte CD14": 0.8,
    "pDC": 1.0,
    "cDC": 0.4,
}


@dataclass(frozen=True)
class Cells:
    """Positions in micrometres, type number and compartment of every cell."""

    x: np.ndarray
    y: np.ndarray
    kind: np.ndarray
    region: np.ndarray
    types: tuple[str, ...]

    def is_type(self, *names: str) -> np.ndarray:
        """Mask of the cells of some types."""
        return np.isin(self.kind, [self.types.index(name) for name in names])


def _positions(tissue: Tissue, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Jittered lattice thinned to the density of each compartment."""
    densest = max(DENSITY.values()) * 1.06
    step = 1e3 / np.sqrt(densest)
    axis = np.arange(step / 2, CANVAS_UM, step)
    x, y = (a.ravel() for a in np.meshgrid(axis, axis))
    x = x + rng.uniform(-0.5, 0.5, x.size) * step
    y = y + rng.uniform(-0.5, 0.5, y.size) * step
    density = np.zeros(9)
    for region, value in DENSITY.items():
        density[region] = value / densest
    chance = density[tissue.at(tissue.region, x, y)]
    chance *= 1 - 0.6 * tissue.at(tissue.fibre, x, y) * (chance > density[CONNECTIVE])
    keep = rng.random(x.size) < chance
    return x[keep], y[keep]


def place_cells(tissue: Tissue, types: tuple[str, ...], seed: int) -> Cells:
    """Scatter cells over the tissue.

    Parameters
    ----------
    tissue
        The layout.
    types
        All cell types, in the order of the profiles.
    seed
        Seed of positions and types.
    """
    rng = np.random.default_rng([seed, 3])
    x, y = _positions(tissue, rng)
    region = tissue.at(tissue.region, x, y)

    frequency = np.zeros((9, len(types)))
    for compartment, shares in COMPOSITION.items():
        for name, share in shares.items():
            frequency[compartment, types.index(name)] = share
    weight = frequency[region]
    below = np.exp(-(((tissue.at(tissue.surface_depth, x, y) - 130) / 70).clip(0, 9) ** 2))
    below *= region == T_ZONE
    for name, extra in BELOW_EPITHELIUM.items():
        weight[:, types.index(name)] += extra * below
    # inside a germinal centre these types change gradually from the dark to the light pole
    polarity = tissue.at(tissue.polarity, x, y)
    for name, slope in (("Tfh", 0.8), ("follicular dendritic cell", 0.7), ("macrophage", -0.5)):
        weight[:, types.index(name)] *= np.exp(slope * polarity)
    for name, spread in DRIFT.items():
        field = smooth_noise(200, 450, rng)
        column, row = (np.clip((p / CANVAS_UM * 200).astype(int), 0, 199) for p in (x, y))
        weight[:, types.index(name)] *= np.exp(spread * field[row, column])

    cumulative = np.cumsum(weight, axis=1)
    draw = rng.random(len(x)) * cumulative[:, -1]
    kind = (cumulative < draw[:, None]).sum(1)

    # tingible body macrophages clear a gap around them: the "starry sky" of the germinal centre
    gap = np.isin(region, (DARK, LIGHT)) & (kind == types.index("macrophage"))
    if gap.any():
        distance, _ = cKDTree(np.c_[x, y][gap]).query(np.c_[x, y], distance_upper_bound=13.0)
        keep = gap | ~np.isfinite(distance)
        x, y, kind, region = x[keep], y[keep], kind[keep], region[keep]
    inside = region != BACKGROUND
    return Cells(x[inside], y[inside], kind[inside], region[inside], types)
