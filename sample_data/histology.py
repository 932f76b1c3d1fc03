"""Procedural H&E of the simulated section.

Two stains are mixed by the law of Beer and Lambert: every pixel has an amount of haematoxylin and
of eosin (and of the red of erythrocytes), each with its own optical density in red, green and blue.
"""

from __future__ import annotations

import numpy as np
from cells import Cells
from fields import smooth_noise
from scipy import ndimage
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

HAEMATOXYLIN = np.array([0.92, 1.02, 0.40])  # optical density (natural log) of one unit
EOSIN = np.array([0.07, 0.72, 0.30])
BLOOD = np.array([0.10, 0.95, 0.80])
WHITE = np.array([243, 241, 245])

#: Stain of what lies between the nuclei: haematoxylin, eosin.
GROUND = {
    BACKGROUND: (0.0, 0.0),
    DARK: (0.30, 0.40),
    LIGHT: (0.22, 0.44),
    MANTLE: (0.36, 0.38),
    T_ZONE: (0.26, 0.42),
    EPITHELIUM: (0.12, 0.74),
    CONNECTIVE: (0.05, 0.74),
    VESSEL: (0.08, 0.72),
    LUMEN: (0.0, 0.03),
}

#: Nuclei: long axis and short axis (um), haematoxylin, paleness of the centre (0 to 1).
NUCLEI = {
    "lymphocyte": (6.6, 5.8, 1.05, 0.05),
    "mantle": (6.6, 6.0, 1.25, 0.0),
    "centroblast": (9.6, 8.4, 0.80, 0.40),
    "centrocyte": (8.4, 6.4, 0.72, 0.30),
    "plasma": (7.0, 6.2, 1.10, 0.25),
    "large": (11.5, 8.0, 0.55, 0.45),
    "epithelial": (10.0, 7.0, 0.80, 0.25),
    "spindle": (16.0, 4.0, 0.95, 0.0),
}
LOOK = {
    "GC B dark zone": "centroblast",
    "GC B light zone": "centrocyte",
    "B naive": "mantle",
    "plasma cell": "plasma",
    "macrophage": "large",
    "cDC": "large",
    "pDC": "plasma",
    "follicular dendritic cell": "large",
    "epithelial cell": "epithelial",
    "endothelial cell": "spindle",
    "fibroblast": "spindle",
    "smooth muscle cell": "spindle",
}


def _directions(field: np.ndarray, pixel_um: float) -> np.ndarray:
    """Angle along the level lines of a distance map."""
    gy, gx = np.gradient(ndimage.gaussian_filter(field, 12 / pixel_um))
    return np.arctan2(gx, -gy)


def stamp(
    canvas: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    long_axis: np.ndarray,
    short_axis: np.ndarray,
    angle: np.ndarray,
    amount: np.ndarray,
    pale: np.ndarray,
) -> None:
    """Draw soft ellipses on a map; where two meet, the darker one shows.

    All lengths are in pixels of ``canvas``; the stain is ``amount``, and less by the share ``pale``
    in the centre.
    """
    n = canvas.shape[0]
    flat = canvas.ravel()
    for low, high in ((0, 4), (4, 7), (7, 12), (12, 99)):
        chosen = np.flatnonzero((long_axis > low) & (long_axis <= high))
        if not chosen.size:
            continue
        reach = int(np.ceil(long_axis[chosen].max() / 2 + 1))
        column = np.floor(x[chosen]).astype(int)
        row = np.floor(y[chosen]).astype(int)
        cos, sin = np.cos(angle[chosen]), np.sin(angle[chosen])
        a, b = long_axis[chosen] / 2, short_axis[chosen] / 2
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                px, py = column + dx + 0.5 - x[chosen], row + dy + 0.5 - y[chosen]
                r = np.hypot((px * cos + py * sin) / a, (-px * sin + py * cos) / b)
                cover = np.clip((1 - r) * b + 0.5, 0, 1)
                inside = (cover > 0) & (column + dx >= 0) & (column + dx < n)
                inside &= (row + dy >= 0) & (row + dy < n)
                if not inside.any():
                    continue
                centre = pale[chosen] * np.clip(1 - (r / 0.75) ** 2, 0, 1)
                value = (amount[chosen] * cover * (1 - centre))[inside]
                index = ((row + dy) * n + column + dx)[inside]
                np.maximum.at(flat, index, value)


def _nuclei(tissue: Tissue, cells: Cells, n: int, rng: np.random.Generator) -> np.ndarray:
    """Haematoxylin of all nuclei on a map ``(n, n)``."""
    size = len(cells.x)
    names = np.array([LOOK.get(t, "lymphocyte") for t in cells.types])[cells.kind]
    values = np.empty((size, 4))
    for name, look in NUCLEI.items():
        values[names == name] = look
    per_um = n / (tissue.region.shape[0] * tissue.pixel_um)
    angle = rng.uniform(0, np.pi, size)
    epithelial = names == "epithelial"
    depth = tissue.at(tissue.surface_depth, cells.x, cells.y)
    along = _directions(tissue.surface_depth, tissue.pixel_um)
    # squamous epithelium: flat nuclei on top, upright ones at the base
    flat = np.clip(1 - depth / 75, 0, 1)
    surface_angle = tissue.at(along, cells.x, cells.y) + np.pi / 2 * (flat < 0.35)
    angle = np.where(epithelial, surface_angle + rng.normal(0, 0.25, size), angle)
    values[epithelial, 1] *= (1 - 0.45 * flat)[epithelial]
    values[epithelial, 2] *= (1.15 - 0.30 * flat)[epithelial]
    spindle = names == "spindle"
    fibre_angle = tissue.at(_directions(tissue.fibre_phase, tissue.pixel_um), cells.x, cells.y)
    wall_angle = tissue.at(
        _directions(np.clip(tissue.wall, -9, 9), tissue.pixel_um), cells.x, cells.y
    )
    near_vessel = np.isin(cells.region, (VESSEL, LUMEN))
    angle = np.where(
        spindle, np.where(near_vessel, wall_angle, fibre_angle) + rng.normal(0, 0.2, size), angle
    )
    plump = near_vessel & cells.is_type("endothelial cell")
    values[plump, 0] *= 0.65
    values[plump, 1] *= 1.35

    vary = rng.lognormal(0, 0.11, (size, 2))
    amount = values[:, 2] * rng.lognormal(0, 0.14, size)
    canvas = np.zeros((n, n), np.float32)
    stamp(
        canvas,
        cells.x * per_um,
        cells.y * per_um,
        values[:, 0] * vary[:, 0] * per_um,
        values[:, 1] * vary[:, 1] * per_um,
        angle,
        amount,
        values[:, 3],
    )
    return canvas


def _fibres(tissue: Tissue, rng: np.random.Generator) -> np.ndarray:
    """Wavy lines along the collagen, 0 (gap) to about 1 (fibre)."""
    n = tissue.region.shape[0]
    phase = tissue.fibre_phase
    phase = phase + 13 * smooth_noise(n, 75, rng) + 5 * smooth_noise(n, 26, rng)
    lines = 0.5 + 0.5 * np.sin(2 * np.pi * phase / 19)
    fine = 0.5 + 0.5 * np.sin(2 * np.pi * phase / 9.5 + 2 * smooth_noise(n, 60, rng))
    patch = 0.5 + 0.5 * np.tanh(1.2 * smooth_noise(n, 45, rng))
    return 0.35 + 0.40 * lines * patch + 0.25 * fine


def _erythrocytes(tissue: Tissue, n: int, rng: np.random.Generator) -> np.ndarray:
    """Red cells in the lumina (some vessels are nearly empty)."""
    per_um = n / (tissue.region.shape[0] * tissue.pixel_um)
    x, y = [], []
    for cx, cy, a, b, angle, wall in tissue.vessels:
        fill = rng.choice([0.15, 0.5, 0.9], p=[0.35, 0.35, 0.3])
        inner = max(a - wall, 2), max(b - wall, 2)
        count = int(fill * np.pi * inner[0] * inner[1] / 26)
        r, phi = np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
        u, v = inner[0] * r * np.cos(phi), inner[1] * r * np.sin(phi)
        turn = np.deg2rad(angle)
        x.append(cx + u * np.cos(turn) - v * np.sin(turn))
        y.append(cy + u * np.sin(turn) + v * np.cos(turn))
    # a few lie loose in the connective tissue
    row, column = np.nonzero(tissue.region == CONNECTIVE)
    some = rng.choice(row.size, min(row.size, 900), replace=False)
    x.append((column[some] + 0.5) * tissue.pixel_um)
    y.append((row[some] + 0.5) * tissue.pixel_um)
    x, y = np.concatenate(x), np.concatenate(y)
    canvas = np.zeros((n, n), np.float32)
    size = np.full(x.size, 6.0 * per_um)
    stamp(
        canvas,
        x * per_um,
        y * per_um,
        size,
        size * rng.uniform(0.7, 1, x.size),
        rng.uniform(0, np.pi, x.size),
        rng.uniform(0.7, 1.0, x.size),
        np.full(x.size, 0.25),
    )
    return canvas


def _discs(tissue: Tissue, x: np.ndarray, y: np.ndarray, radius_um: float) -> np.ndarray:
    """Soft discs, 0 to 1, on the map of the tissue."""
    n = tissue.region.shape[0]
    canvas = np.zeros((n, n), np.float32)
    diameter = np.full(x.size, 2 * radius_um / tissue.pixel_um)
    none = np.zeros(x.size)
    stamp(
        canvas, x / tissue.pixel_um, y / tissue.pixel_um, diameter, diameter, none, none + 1, none
    )
    return canvas


def _debris(tissue: Tissue, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shed keratin (eosin) and cells (haematoxylin) in the crypts, outside the tissue proper."""
    n = tissue.region.shape[0]
    flakes = smooth_noise(n, 55, rng) + 0.6 * smooth_noise(n, 16, rng)
    crypt = (tissue.region == BACKGROUND) & (tissue.surface_depth < 0) & (tissue.edge_depth > 40)
    eosin = np.clip(flakes - 0.75, 0, 0.8) * crypt
    row, column = np.nonzero(eosin > 0.15)
    some = rng.choice(row.size, row.size // 22, replace=False)
    x, y = (column[some] + 0.5) * tissue.pixel_um, (row[some] + 0.5) * tissue.pixel_um
    return 0.9 * _discs(tissue, x, y, 3.2), 0.7 * eosin


def draw_histology(tissue: Tissue, cells: Cells, seed: int) -> np.ndarray:
    """Paint the section.

    Returns
    -------
    np.ndarray
        ``(n, n, 3)`` uint8, n as wide as the maps of ``tissue``. The stain amounts are quantised so
        that the PNG stays small.
    """
    rng = np.random.default_rng([seed, 4])
    n = tissue.region.shape[0]
    nuclei = _nuclei(tissue, cells, 2 * n, rng)
    nuclei = nuclei.reshape(n, 2, n, 2).mean((1, 3))
    red = _erythrocytes(tissue, 2 * n, rng).reshape(n, 2, n, 2).mean((1, 3))
    red *= np.isin(tissue.region, (LUMEN, CONNECTIVE))

    haematoxylin, eosin = (np.zeros((n, n), np.float32) for _ in range(2))
    for region, (h, e) in GROUND.items():
        where = tissue.region == region
        haematoxylin[where], eosin[where] = h, e
    sigma = 5 / tissue.pixel_um
    haematoxylin = ndimage.gaussian_filter(haematoxylin, sigma)
    eosin = ndimage.gaussian_filter(eosin, sigma)

    fibre = ndimage.gaussian_filter(tissue.fibre, 3 / tissue.pixel_um)
    lines = _fibres(tissue, rng)
    eosin = eosin * (1 - fibre) + fibre * (0.22 + 1.05 * lines)
    haematoxylin *= 1 - 0.7 * fibre
    wall = (tissue.region == VESSEL) * (0.8 + 0.35 * np.sin(2 * np.pi * tissue.wall * 2.5))
    eosin = np.where(wall > 0, 0.35 + 0.6 * wall, eosin)
    # keratinising top of the epithelium is pinker; its lower third bluer
    depth = np.clip(tissue.surface_depth / 90, 0, 1.2)
    epithelium = ndimage.gaussian_filter((tissue.region == EPITHELIUM).astype(np.float32), sigma)
    eosin += epithelium * 0.25 * (1 - depth)
    haematoxylin += epithelium * 0.12 * (depth - 0.5)

    # tingible body macrophages: pale, with a few dark crumbs of eaten cells
    gap = np.isin(cells.region, (DARK, LIGHT)) & cells.is_type("macrophage")
    halo = _discs(tissue, cells.x[gap], cells.y[gap], 11.5)
    haematoxylin *= 1 - 0.7 * halo
    eosin *= 1 - 0.28 * halo

    grain = smooth_noise(n, 9, rng)
    clump = smooth_noise(n, 24, rng)
    inside = ndimage.gaussian_filter((tissue.region != BACKGROUND).astype(np.float32), 1.0)
    paper = inside * (tissue.region != LUMEN)
    haematoxylin += paper * (0.035 * grain + 0.03 * clump) * (1 - fibre)
    eosin += paper * (0.04 * clump - 0.03 * grain)

    thickness = 1 + 0.035 * smooth_noise(n, 900, rng) + 0.025 * smooth_noise(n, 160, rng)
    rim = np.exp(-np.clip(tissue.edge_depth, 0, None) / 22)  # edges roll and stain darker
    thickness *= 1 + 0.22 * rim
    tint = 1 + 0.03 * smooth_noise(n, 1300, rng)
    haematoxylin = (haematoxylin * inside + nuclei) * thickness * tint
    eosin = eosin * inside * (1 - 0.45 * np.clip(nuclei, 0, 1)) * thickness * (2 - tint)

    shed_haematoxylin, shed_eosin = _debris(tissue, rng)
    haematoxylin += shed_haematoxylin
    eosin += shed_eosin

    haematoxylin, eosin, red = (
        ndimage.gaussian_filter(stain, 0.45) for stain in (haematoxylin, eosin, red)
    )
    haematoxylin = np.round(np.clip(haematoxylin, 0, 1.6) * 22) / 22
    eosin = np.round(np.clip(eosin, 0, 1.5) * 14) / 14
    red = np.round(red * 8) / 8
    density = (
        haematoxylin[..., None] * HAEMATOXYLIN + eosin[..., None] * EOSIN + red[..., None] * BLOOD
    )
    return np.clip(np.round(WHITE * np.exp(-density)), 0, 255).astype(np.uint8)
