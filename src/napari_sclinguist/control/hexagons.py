"""Many points counted in hexagons: of hundreds of thousands a plot would show a blot.

Shapes: n points, h hexagons that hold any.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_POINTS = 5_000
"""Rows up to which each is a point; more are counted."""
ACROSS = 42
"""Hexagons along the first axis."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hexagons:
    """Counts of points.

    Attributes
    ----------
    x, y
        (h,) float64: centres.
    counts
        (h,) int64, at least 1.
    extent
        Left, right, bottom and top of the lattice, as matplotlib's ``hexbin`` wants it.
    """

    x: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    extent: tuple[float, float, float, float]


def count_hexagons(x: np.ndarray, y: np.ndarray, across: int = ACROSS) -> Hexagons:
    """Count points in hexagons, on the lattice of matplotlib's ``hexbin``.

    It takes some tenths of a second for a million points: not for the thread of the window.

    Parameters
    ----------
    x, y
        (n,) places of the points; those with a NaN do not count.
    across
        Hexagons along the first axis.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known].astype(np.float64), y[known].astype(np.float64)
    left, right = _ends(x)
    bottom, top = _ends(y)
    up = max(int(across / np.sqrt(3)), 1)
    # A little wider, so that the greatest values lie within the lattice.
    margin_x, margin_y = 1e-9 * (right - left), 1e-9 * (top - bottom)
    step_x, step_y = (right - left + 2 * margin_x) / across, (top - bottom + 2 * margin_y) / up
    x, y = (x - left + margin_x) / step_x, (y - bottom + margin_y) / step_y
    # Centres lie on two rectangular lattices, half a step apart: the nearer one has the point.
    corner = np.rint(x), np.rint(y)
    middle = np.floor(x), np.floor(y)
    to_corner = (x - corner[0]) ** 2 + 3 * (y - corner[1]) ** 2
    to_middle = (x - middle[0] - 0.5) ** 2 + 3 * (y - middle[1] - 0.5) ** 2
    at_corner = to_corner < to_middle
    # In halves of a step, so that centres are whole numbers.
    column = np.where(at_corner, 2 * corner[0], 2 * middle[0] + 1).astype(np.int64)
    row = np.where(at_corner, 2 * corner[1], 2 * middle[1] + 1).astype(np.int64)
    width = 2 * across + 2
    counts = np.bincount(row * width + column)
    filled = np.flatnonzero(counts)
    return Hexagons(
        x=left + (filled % width) * step_x / 2,
        y=bottom + (filled // width) * step_y / 2,
        counts=counts[filled],
        extent=(left, right, bottom, top),
    )


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Least and greatest value, apart from each other also for equal ones and for none."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)
