"""Layout of the simulated tonsil section: where each tissue compartment lies.

The layout is drawn from implicit functions: a signed distance to each structure (``fields.py``),
bent by smooth noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fields import CANVAS_UM, curve, distance_to_curves, ellipse, enlarge, smooth_noise
from scipy import ndimage

COARSE = 500  # grid on which distances are computed before they are interpolated

BACKGROUND, DARK, LIGHT, MANTLE, T_ZONE, EPITHELIUM, CONNECTIVE, VESSEL, LUMEN = range(9)
REGION_NAMES = (
    "background",
    "germinal centre dark zone",
    "germinal centre light zone",
    "mantle",
    "T zone",
    "epithelium",
    "connective tissue",
    "vessel",
    "vessel",  # its lumen
)

# centre x, y, half axes, angle (degrees), germinal centre as a share of the follicle (0: primary)
FOLLICLES = np.array(
    [
        (2840, 1650, 370, 430, 15, 0.79),
        (2900, 2680, 430, 480, -10, 0.81),
        (2840, 3610, 400, 330, 20, 0.77),
        (4070, 1560, 370, 340, 0, 0.78),
        (4070, 2470, 390, 470, 8, 0.82),
        (4030, 3440, 350, 330, 0, 0.75),
        (1400, 2260, 330, 380, 20, 0.78),
        (1640, 3250, 370, 440, -15, 0.80),
        (1280, 4230, 400, 350, 0, 0.78),
        (5270, 2060, 300, 360, -20, 0.77),
        (5290, 3060, 380, 480, -8, 0.81),
        (5210, 4110, 400, 350, 25, 0.79),
        (2190, 4520, 440, 390, 20, 0.81),
        (3480, 4600, 460, 400, -8, 0.81),
        (4480, 4060, 200, 180, 0, 0.0),
        (4420, 5080, 260, 220, 0, 0.0),
        (3180, 5430, 290, 250, -25, 0.72),
    ],
    dtype=float,
)

# crypts: (x, y) from the surface inwards, then the half width of the lumen at mouth and end
CRYPTS = (
    (
        (
            (1700, 1150),
            (1930, 1560),
            (2230, 2050),
            (2160, 2600),
            (2080, 3060),
            (2330, 3560),
            (2260, 3960),
        ),
        70,
        17,
    ),
    (((2150, 2900), (1960, 2780), (1880, 2560)), 28, 14),
    (((3380, 780), (3450, 1250), (3390, 1700), (3540, 2250), (3420, 2850), (3480, 3480)), 62, 15),
    (((3440, 2760), (3560, 2950), (3600, 3120)), 26, 13),
    (((4850, 1060), (4620, 1560), (4600, 2100), (4800, 2600), (4620, 3150), (4690, 3650)), 72, 15),
    (((5870, 2160), (5760, 2600), (5860, 3000)), 50, 17),
)

# fibrous septa: (x, y) from the capsule inwards, half width at the root and at the end
SEPTA = (
    (((2650, 6150), (2690, 5400), (2800, 4850), (2860, 4250)), 95, 22),
    (((4330, 6100), (4010, 5350), (3960, 4700), (4180, 4090)), 110, 24),
    (((5750, 5000), (5400, 4720), (4820, 4590), (4480, 4420)), 80, 18),
    (((1250, 5200), (1800, 5080), (2300, 5100)), 70, 16),
)

# larger vessels: x, y, outer half axes, angle, wall
LARGE_VESSELS = np.array(
    [
        (2675, 5660, 105, 80, 70, 34),
        (4130, 5610, 130, 95, 65, 40),
        (3990, 4980, 70, 52, 80, 24),
        (5420, 4740, 85, 62, 25, 30),
        (1650, 5120, 72, 55, 10, 26),
        (3560, 5830, 95, 60, 5, 24),
        (2800, 4860, 52, 40, 70, 18),
        (4800, 5560, 120, 55, -25, 20),
    ],
    dtype=float,
)

KNIFE = ((960.0, 3400.0), (-0.985, 0.17))  # a point on the cut edge and its outward normal


@dataclass(frozen=True)
class Tissue:
    """Maps of the section, all ``(n, n)``; distances in micrometres.

    Attributes
    ----------
    pixel_um
        Side of a pixel.
    region
        uint8, one of the compartment numbers of this module.
    surface_depth
        Distance below the nearest epithelial surface (outer surface or crypt wall).
    edge_depth
        Distance below the outline of the tissue, whatever its kind.
    fibre
        Share of collagen fibres, 0 to 1 (septa and capsule 1, fine strands in the T zone).
    fibre_phase
        A distance across the fibres, from which their lines are drawn.
    polarity
        In germinal centres: -1 at the pole of the dark zone, 1 at that of the light zone.
    wall
        Share of the way through the wall of the nearest vessel (0 lumen side, 1 outside).
    vessels
        x, y, outer half axes, angle in degrees, wall.
    """

    pixel_um: float
    region: np.ndarray
    surface_depth: np.ndarray
    edge_depth: np.ndarray
    fibre: np.ndarray
    fibre_phase: np.ndarray
    polarity: np.ndarray
    wall: np.ndarray
    vessels: np.ndarray

    def at(self, field: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Value of a map at positions in micrometres (nearest pixel)."""
        last = field.shape[0] - 1
        column = np.clip((np.asarray(x) / self.pixel_um).astype(int), 0, last)
        row = np.clip((np.asarray(y) / self.pixel_um).astype(int), 0, last)
        return field[row, column]


def _box(cx: float, cy: float, reach: float, pixel_um: float) -> tuple[slice, slice]:
    """Rows and columns of the square around a point."""
    return tuple(
        slice(max(0, int((c - reach) / pixel_um)), int((c + reach) / pixel_um) + 1)
        for c in (cy, cx)
    )


def _venules(
    x: np.ndarray, y: np.ndarray, free: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """High endothelial venules at random free places, at least 170 um apart."""
    candidates = np.flatnonzero(free.ravel())
    chosen: list[tuple[float, ...]] = []
    for k in rng.permutation(candidates):
        px, py = x.ravel()[k], y.ravel()[k]
        if all((px - c[0]) ** 2 + (py - c[1]) ** 2 > 170**2 for c in chosen):
            size = rng.uniform(17, 27)
            chosen.append((px, py, size * rng.uniform(1.0, 1.9), size, rng.uniform(0, 180), 13.0))
        if len(chosen) == 70:
            break
    return np.array(chosen)


def make_tissue(pixel_um: float, seed: int) -> Tissue:
    """Draw the layout.

    Parameters
    ----------
    pixel_um
        Side of a pixel; the maps are ``round(CANVAS_UM / pixel_um)`` wide.
    seed
        Seed of the noise that bends the structures.
    """
    n = round(CANVAS_UM / pixel_um)
    rng = np.random.default_rng([seed, 1])

    def bent(amplitude: float, fine: float) -> np.ndarray:
        """Noise added to a distance: broad waves and a ragged edge."""
        return amplitude * smooth_noise(n, 330, rng) + fine * smooth_noise(n, 60, rng)

    centres = (np.arange(COARSE) + 0.5) * CANVAS_UM / COARSE
    x, y = np.meshgrid(centres, centres)
    theta = np.arctan2(y - 3480, x - 3400)
    radius = np.hypot(x - 3400, (y - 3480) * 0.98)
    rim = 2520 * (
        1
        + 0.055 * np.cos(2 * theta - 0.6)
        + 0.045 * np.cos(3 * theta + 1.2)
        + 0.022 * np.cos(5 * theta + 2.0)
        + 0.016 * np.cos(9 * theta)
    )
    for points, _, _ in CRYPTS:  # the surface dips where a crypt opens
        mouth = np.arctan2(points[0][1] - 3480, points[0][0] - 3400)
        rim = rim - 150 * np.exp(-(((theta - mouth) / 0.10) ** 2))
    outline = rim - radius
    (kx, ky), (nx, ny) = KNIFE
    knife = -((x - kx) * nx + (y - ky) * ny)
    # the upper arc is mucosal surface, the lower one capsule; the change is gradual
    mucosa = 1 / (1 + np.exp((np.sin(theta + 0.12) - 0.12) / 0.05))
    crypt = distance_to_curves(CRYPTS, x, y)
    septum = distance_to_curves(SEPTA, x, y)

    edge = enlarge(outline, n) + bent(26, 7)
    cut = enlarge(knife, n) + 16 * smooth_noise(n, 600, rng) + 5 * smooth_noise(n, 45, rng)
    mucosa = enlarge(mucosa, n)
    crypt = enlarge(crypt, n) + bent(14, 5)
    septum = enlarge(septum, n) + bent(26, 8)

    surface = np.minimum(np.where(mucosa > 0.5, edge, 1e6), crypt)
    thickness = 100 + 22 * smooth_noise(n, 260, rng) + 13 * smooth_noise(n, 55, rng)
    thickness *= np.where(surface == crypt, 0.92, 1.25)
    capsule = (120 + 30 * smooth_noise(n, 500, rng)) * np.clip(2 * (1 - mucosa), 0, 1)
    capsule_depth = edge + 8 * smooth_noise(n, 90, rng)

    region = np.full((n, n), T_ZONE, np.uint8)
    polarity = np.zeros((n, n), np.float32)
    axis = (np.arange(n) + 0.5) * pixel_um
    gx, gy = np.meshgrid(axis, axis)
    warp_x = 26 * smooth_noise(n, 280, rng) + 5 * smooth_noise(n, 40, rng)
    warp_y = 26 * smooth_noise(n, 280, rng) + 5 * smooth_noise(n, 40, rng)
    ragged = 4 * smooth_noise(n, 45, rng)
    for k, (cx, cy, a, b, angle, share) in enumerate(FOLLICLES):
        box = _box(cx, cy, 1.35 * max(a, b), pixel_um)
        wx, wy = gx[box] + warp_x[box], gy[box] + warp_y[box]
        inside = ellipse(wx, wy, cx, cy, a, b, angle) + ragged[box]
        view = region[box]
        view[inside < 0] = MANTLE
        if share == 0:
            continue
        px, py = _pole(k)
        # the mantle is a crescent: thick towards the surface, thin on the other side
        offset = (1 - share) * 0.55 * np.sqrt(a * b)
        centre = ellipse(wx, wy, cx - px * offset, cy - py * offset, a * share, b * share, angle)
        germinal = centre + ragged[box] < 0
        along = ((wx - cx + px * offset) * px + (wy - cy + py * offset) * py) / (
            share * np.sqrt(a * b)
        )
        bend = along + 0.10 * smooth_noise(n, 120, rng)[box]
        view[germinal] = np.where(bend > 0.02, LIGHT, DARK)[germinal]
        polarity[box][germinal] = np.clip(bend, -1, 1)[germinal]

    strands = np.abs(smooth_noise(n, 210, rng) + 0.25 * smooth_noise(n, 70, rng))
    loose = np.clip(smooth_noise(n, 700, rng) + 0.35, 0, 1)
    strand = np.exp(-((strands / 0.11) ** 2)) * loose * (region == T_ZONE)

    connective = (septum < 0) | (capsule_depth < capsule)
    region[connective] = CONNECTIVE
    region[surface < thickness] = EPITHELIUM

    step = max(1, n // COARSE)
    free = (region[::step, ::step] == T_ZONE) & (edge[::step, ::step] > 150)
    free &= ndimage.binary_erosion(free, iterations=max(1, round(40 / (pixel_um * step))))
    venules = _venules(
        gx[::step, ::step], gy[::step, ::step], free, np.random.default_rng([seed, 2])
    )
    vessels = np.vstack([LARGE_VESSELS, venules])
    wall_share = np.full((n, n), 9.0, np.float32)
    for cx, cy, a, b, angle, wall in vessels:
        box = _box(cx, cy, 1.5 * max(a, b) + wall, pixel_um)
        outer = ellipse(
            gx[box] + 0.4 * warp_x[box], gy[box] + 0.4 * warp_y[box], cx, cy, a, b, angle
        )
        view = region[box]
        usable = view != EPITHELIUM
        view[usable & (outer < 0)] = VESSEL
        view[usable & (outer < -wall)] = LUMEN
        share_here = np.where(usable, outer / wall + 1, 9.0)
        wall_share[box] = np.where(
            np.abs(share_here) < np.abs(wall_share[box]), share_here, wall_share[box]
        )

    region[(edge < 0) | (cut < 0) | (crypt < 0)] = BACKGROUND
    fibre = np.clip(strand + (region == CONNECTIVE), 0, 1).astype(np.float32)
    phase = np.where(septum < capsule_depth - capsule, septum, capsule_depth)
    return Tissue(
        pixel_um=pixel_um,
        region=region,
        surface_depth=surface.astype(np.float32),
        edge_depth=np.minimum(edge, cut),
        fibre=fibre,
        fibre_phase=np.where(strand > 0.05, 60 * strands, phase).astype(np.float32),
        polarity=polarity,
        wall=wall_share,
        vessels=vessels,
    )


def _pole(follicle: int) -> tuple[float, float]:
    """Point from a follicle to the nearest crypt or surface, where its light zone lies."""
    cx, cy = FOLLICLES[follicle, :2]
    curves = [curve(points, (root, end))[:, :2] for points, root, end in CRYPTS]
    theta = np.linspace(-np.pi, 0, 100)
    surface = np.c_[3400 + 2520 * np.cos(theta), 3480 + 2520 * np.sin(theta)]
    target = np.vstack([*curves, surface])
    vector = target[np.argmin(np.hypot(*(target - (cx, cy)).T))] - (cx, cy)
    return tuple(vector / np.hypot(*vector))
