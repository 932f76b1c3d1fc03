"""Smooth random fields and signed distances on a square canvas, in micrometres.

x runs right, y runs down. Fields are defined by nodes and interpolated, so that they are the same
at every pixel size.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

CANVAS_UM = 6900.0


def smooth_noise(n: int, scale_um: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random field ``(n, n)`` float32 of unit variance with features of about a scale."""
    nodes = int(np.ceil(CANVAS_UM / scale_um)) + 4
    grid = ndimage.spline_filter(rng.standard_normal((nodes, nodes)), order=3)
    grid /= 0.62  # the spread that cubic interpolation leaves between nodes, about
    axis = ((np.arange(n) + 0.5) / n * (nodes - 4) + 1.5).astype(np.float32)
    # separable: two one-dimensional interpolations are far faster than one in two dimensions
    first = _interpolate_rows(grid, axis)
    return _interpolate_rows(first.T, axis).T.astype(np.float32)


def _interpolate_rows(coefficients: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Cubic B-spline along the first axis at the given fractional rows."""
    base = np.floor(axis).astype(int)
    t = (axis - base)[:, None]
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    last = len(coefficients) - 1
    return sum(w * coefficients[np.clip(base + k - 1, 0, last)] for k, w in enumerate(weights))


def enlarge(field: np.ndarray, n: int) -> np.ndarray:
    """Interpolate a coarse map to ``(n, n)`` with the pixel centres aligned."""
    k = field.shape[0]
    axis = (np.arange(n) + 0.5) / n * k - 0.5
    padded = np.pad(field, 2, mode="edge")
    first = _interpolate_rows(padded, axis + 2)
    return _interpolate_rows(first.T, axis + 2).T.astype(np.float32)


def curve(points: tuple, half_widths: tuple[float, float], step: float = 12.0) -> np.ndarray:
    """Sample a smooth curve through points: rows of x, y, half width."""
    points = np.array(points, float)
    along = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
    t = np.arange(0, along[-1], step)
    xy = np.stack([np.interp(t, along, points[:, k]) for k in range(2)], 1)
    xy = ndimage.gaussian_filter1d(xy, 10, axis=0, mode="nearest")
    share = t / along[-1]
    return np.c_[xy, half_widths[0] * (1 - share) + half_widths[1] * share]


def distance_to_curves(curves: tuple, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smallest distance to the border of any tapered curve (negative inside)."""
    best = np.full(x.shape, 1e6)
    query = np.c_[x.ravel(), y.ravel()]
    for points, root, end in curves:
        samples = curve(points, (root, end))
        distance, index = cKDTree(samples[:, :2]).query(query)
        best = np.minimum(best, (distance - samples[index, 2]).reshape(x.shape))
    return best


def ellipse(
    x: np.ndarray, y: np.ndarray, cx: float, cy: float, a: float, b: float, angle: float
) -> np.ndarray:
    """Signed distance to an ellipse, about (negative inside)."""
    turn = np.deg2rad(angle)
    u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / a
    v = (-(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)) / b
    return (np.hypot(u, v) - 1) * np.sqrt(a * b)
