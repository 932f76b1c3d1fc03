"""The hexagonal lattice of Visium slides, and what it says about the size of a pixel.

A Visium capture area holds spots of 55 µm diameter, 100 µm from centre to centre: in a row
every second ``array_col`` is a spot (100 µm apart), the next row is shifted by one column, and
rows are 100·√3/2 µm apart. The pitch is therefore a ruler. The diameter in
``scalefactors_json.json`` is a worse one: Space Ranger documents it as that of a "theoretical
65 µm spot", and files exist in which it amounts to 55 or 70 µm.
"""

from __future__ import annotations

import numpy as np

#: Centre-to-centre distance of neighbouring Visium spots in µm.
PITCH_MICRONS = 100.0
#: True diameter of a Visium spot in µm.
SPOT_MICRONS = 55.0

_ROW_TO_COLUMN = np.sqrt(3.0)  # distance of rows / distance of columns (one array_col = 50 µm)
_RELATIVE_TOLERANCE = 0.05
_DIAMETER_RANGE = (45.0, 85.0)
_MAX_ROW, _MAX_COLUMN = 128, 224


def microns_per_pixel(
    rows: np.ndarray,
    columns: np.ndarray,
    positions: np.ndarray,
    spot_diameter: float | None = None,
) -> float | None:
    """Size of a pixel from the lattice of a Visium slide.

    Parameters
    ----------
    rows, columns
        (n,) ``array_row`` and ``array_col`` of spots.
    positions
        (n, 2) x, y in full-resolution pixels.
    spot_diameter
        Diameter in pixels, to check the outcome with.

    Returns
    -------
    float or None
        µm per pixel; None where the layout is not that of a Visium slide (square lattices,
        bins, a wrong diameter) or where too few spots are there to tell.
    """
    rows = np.asarray(rows, dtype=np.float64)
    columns = np.asarray(columns, dtype=np.float64)
    if len(rows) < 4 or not is_hexagonal(rows, columns):
        return None
    design = np.column_stack([columns, rows, np.ones_like(rows)])
    if np.linalg.matrix_rank(design) < 3:
        return None
    # One affine map for the whole slide, so that rotation and shear of the image do no harm.
    solution, *_ = np.linalg.lstsq(design, positions, rcond=None)
    column_step, row_step = np.linalg.norm(solution[0]), np.linalg.norm(solution[1])
    cosine = abs(float(solution[0] @ solution[1])) / max(float(column_step * row_step), 1e-12)
    if column_step == 0 or cosine > _RELATIVE_TOLERANCE:
        return None
    if abs(row_step / column_step / _ROW_TO_COLUMN - 1) > _RELATIVE_TOLERANCE:
        return None
    residual = np.abs(design @ solution - positions).max()
    if residual > column_step:
        return None  # positions were moved by hand, or belong to something else
    size = float(PITCH_MICRONS / (2 * column_step))
    if spot_diameter is not None:
        low, high = _DIAMETER_RANGE
        if not low <= spot_diameter * size <= high:
            return None
    return size


def is_hexagonal(rows: np.ndarray, columns: np.ndarray) -> bool:
    """Whether array indices follow Visium's lattice: row and column even or odd together."""
    indices = np.asarray(rows) + np.asarray(columns)
    if len(indices) == 0 or not np.array_equal(indices, np.rint(indices)):
        return False
    return bool(np.all(indices % 2 == indices[0] % 2)) and len(np.unique(columns)) > 1


def is_array_position(positions: np.ndarray) -> bool:
    """Whether positions are (array_row, array_col) of a Visium slide rather than pixels."""
    if len(positions) < 20 or not np.array_equal(positions, np.rint(positions)):
        return False
    rows, columns = positions[:, 0], positions[:, 1]
    inside = rows.min() >= 0 and columns.min() >= 0
    inside = inside and rows.max() < _MAX_ROW and columns.max() < _MAX_COLUMN
    return bool(inside) and is_hexagonal(rows, columns)


def to_microns(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(n, 2) x, y in µm of spots on Visium's lattice."""
    half = PITCH_MICRONS / 2
    return np.column_stack(
        [np.asarray(columns) * half, np.asarray(rows) * half * _ROW_TO_COLUMN]
    ).astype(np.float64)
