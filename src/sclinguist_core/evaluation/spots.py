"""Spots, bins and cells of a section as matplotlib artists.

Shapes: m drawn rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.panel import Bounds, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RASTER_FROM = 20_000
_PAINTED_FROM = 150_000
_PAINTED_PIXELS = 5
_PAINTED_SIDE = 4_000


def draw_spots(
    ax: Axes, section: Section, colours: np.ndarray, bounds: Bounds, style: Style
) -> None:
    """Draw spots at their true size into axes whose data are full-resolution pixels.

    Parameters
    ----------
    ax, section, bounds, style
        Where, of what, which part of it, and how.
    colours
        (n, 4) uint8 RGBA of all rows.
    """
    from matplotlib.collections import Collection, EllipseCollection, PolyCollection

    size = section.drawn_diameter * style.size
    left, right, top, bottom = bounds
    x, y = section.positions.T
    inside = (x > left - size) & (x < right + size) & (y > top - size) & (y < bottom + size)
    # What lies elsewhere, or is not coloured, would only make the file larger.
    shown = inside & (colours[:, 3] > 0)
    positions, colours = section.positions[shown], colours[shown]
    squares = section.assay == "visium_hd"
    if len(positions) > _PAINTED_FROM:
        painted = paint(positions, colours, size, bounds, squares=squares)
        extent = (left, right, bottom, top)
        ax.imshow(painted, extent=extent, interpolation="antialiased", alpha=style.opacity)
        return
    collection: Collection
    if squares:
        corners = 0.5 * size * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        collection = PolyCollection(list(positions[:, None, :] + corners), edgecolors="none")
    else:
        diameters = np.full(len(positions), size)
        collection = EllipseCollection(
            diameters,
            diameters,
            np.zeros(len(positions)),
            offsets=positions,
            offset_transform=ax.transData,
            units="xy",
            edgecolors="none",
        )
    rgba = colours / 255.0
    rgba[:, 3] *= style.opacity
    collection.set(facecolor=rgba)
    collection.set_rasterized(len(positions) > _RASTER_FROM)
    ax.add_collection(collection, autolim=False)


def paint(
    positions: np.ndarray,
    colours: np.ndarray,
    size: float,
    bounds: Bounds,
    *,
    squares: bool = False,
) -> np.ndarray:
    """Paint very many spots into an image: each pixel takes the colour of the nearest spot.

    Drawing a million circles one by one takes minutes.

    Parameters
    ----------
    positions
        (m, 2) x, y.
    colours
        (m, 4) uint8 RGBA.
    size
        Diameter, or side of squares, in the unit of the positions.
    bounds
        Left, right, top, bottom of the image.
    squares
        Paint squares, not discs.

    Returns
    -------
    (H, W, 4) uint8, transparent where no spot is; at most 4,000 pixels a side.
    """
    left, right, top, bottom = bounds
    density = min(_PAINTED_PIXELS / size, _PAINTED_SIDE / max(right - left, bottom - top))
    width, height = (max(round(side * density), 1) for side in (right - left, bottom - top))
    places = (positions - (left, top)) * density
    centres = np.floor(places).astype(np.int64)
    reach = int(np.ceil(size * density / 2)) + 1
    steps = np.arange(-reach, reach + 1)
    x_step, y_step = (axis.ravel() for axis in np.meshgrid(steps, steps))
    away = np.maximum(abs(x_step), abs(y_step)) if squares else np.hypot(x_step, y_step)
    # Squares touch: half a pixel more leaves no gap between them where pixels are coarse.
    reached = size * density / 2 + (0.49 if squares else 0.0)
    within = away <= max(reached, 0.5)
    # From the rim inwards, so that where spots meet the nearest centre has the last word.
    order = np.flatnonzero(within)[np.argsort(-away[within], kind="stable")]
    image = np.zeros((height, width), np.uint32)
    packed = np.ascontiguousarray(colours).view(np.uint32).ravel()
    for step in order:
        column, row = centres[:, 0] + x_step[step], centres[:, 1] + y_step[step]
        fits = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        image[row[fits], column[fits]] = packed[fits]
    return image.view(np.uint8).reshape(height, width, 4)
