"""Bins on a square lattice (Visium HD) as an image with a pixel a bin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sclinguist.carriers import LayerData, napari_colormap, units, world_scale

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_sclinguist.control.view import Picture
    from sclinguist_core.data.section import Section

_TOLERANCE = 0.25
"""Largest distance of a bin from its place on the lattice, in bins."""
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class BinGrid:
    """Where bins lie on their lattice.

    Attributes
    ----------
    rows, columns
        (n,) int64, from 0.
    shape
        (height, width) in bins.
    affine
        (3, 3) float64: (row, column, 1) to (y, x, 1) in full-resolution pixels.
    """

    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]
    affine: np.ndarray

    def fill(self, values: np.ndarray, empty: float) -> np.ndarray:
        """Lay values (n,) or (n, 4) out on the lattice: (height, width) or (height, width, 4)."""
        image = np.full((*self.shape, *values.shape[1:]), empty, values.dtype)
        self.put(image, values)
        return image

    def put(self, image: np.ndarray, values: np.ndarray) -> None:
        """Write values (n,) or (n, 4) into an image that `fill` made."""
        image.reshape(-1, *values.shape[1:])[self._places] = values

    @cached_property
    def _places(self) -> np.ndarray:
        return self.rows * self.shape[1] + self.columns


def find_grid(section: Section) -> BinGrid | None:
    """Find the square lattice that the rows of a section lie on; None where there is none.

    Indices come from ``obs["array_row"]`` and ``obs["array_col"]``. The map to pixels is fitted,
    so that rotated slides are right too.
    """
    obs = section.table.obs
    if "array_row" not in obs or "array_col" not in obs:
        return None
    rows = obs["array_row"].to_numpy(np.float64)
    columns = obs["array_col"].to_numpy(np.float64)
    if len(rows) < 4 or not (np.isfinite(rows).all() and np.isfinite(columns).all()):
        return None
    rows, columns = rows - rows.min(), columns - columns.min()
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    if shape[0] * shape[1] > max(_MAX_PIXELS, 50 * len(rows)):
        return None
    design = np.column_stack([rows, columns, np.ones_like(rows)])
    places = section.positions[:, ::-1]
    solution, _, rank, _ = np.linalg.lstsq(design, places, rcond=None)
    if rank < 3:
        return None
    step = np.sqrt(abs(np.linalg.det(solution[:2])))
    off = np.abs(design @ solution - places).max()
    if step == 0 or off > _TOLERANCE * step:
        return None
    row, column = rows.astype(np.int64), columns.astype(np.int64)
    if len(np.unique(row * shape[1] + column)) < len(row):
        return None
    affine = np.eye(3)
    affine[:2] = solution.T
    return BinGrid(rows=row, columns=column, shape=shape, affine=affine)


class BinsCarrier:
    """An image of values with its own colour map, and one of plain colours where that is needed."""

    has_plain_layer = True

    def __init__(self, section: Section, grid: BinGrid) -> None:
        self.section = section
        self.grid = grid
        self._row_of = grid.fill(np.arange(section.n_obs), empty=-1)
        self._to_grid = np.linalg.inv(grid.affine)

    def layer_data(self, picture: Picture | None) -> LayerData:
        """See `Carrier.layer_data`."""
        if picture is None:
            values = np.full(self.section.n_obs, np.nan, np.float32)
            return self.grid.fill(values, empty=np.nan), self._arguments(), "image"
        arguments = self._arguments() | {
            "opacity": picture.opacity,
            "contrast_limits": picture.channels[0].limits,
        }
        if picture.colormap is not None:
            arguments["colormap"] = napari_colormap(picture.colormap)
        return self._values(picture), arguments, "image"

    def update(self, layer: Image, picture: Picture) -> None:
        """See `Carrier.update`."""
        # In place: a new array would have napari measure the whole scene again.
        self.grid.put(layer.data, picture.channels[0].values)
        # Other limits bring a new thumbnail anyway.
        same = layer.contrast_limits == list(picture.channels[0].limits)
        layer.refresh(extent=False, thumbnail=same)
        show_scalar(layer, picture)

    def plain_layer_data(self, picture: Picture) -> LayerData:
        """See `Carrier.plain_layer_data`."""
        arguments = self._arguments() | {"rgb": True, "opacity": picture.opacity}
        return self.grid.fill(picture.colours, empty=0), arguments, "image"

    def update_plain(self, layer: Image, picture: Picture) -> None:
        """See `Carrier.update_plain`."""
        self.grid.put(layer.data, picture.colours)
        layer.refresh(extent=False, thumbnail=True)
        layer.opacity = picture.opacity

    def row_at(self, x: float, y: float) -> int | None:
        """See `Carrier.row_at`."""
        row, column, _ = np.rint(self._to_grid @ (y, x, 1.0)).astype(int)
        height, width = self.grid.shape
        if not (0 <= row < height and 0 <= column < width):
            return None
        found = int(self._row_of[row, column])
        return found if found >= 0 else None

    def _values(self, picture: Picture) -> np.ndarray:
        return self.grid.fill(np.asarray(picture.channels[0].values), empty=np.nan)

    def _arguments(self) -> dict[str, Any]:
        to_world = np.diag([world_scale(self.section)] * 2 + [1.0])
        return {"affine": to_world @ self.grid.affine, **units(self.section)}


def show_scalar(layer: Image, picture: Picture) -> None:
    """Bring colour map, limits and opacity of a picture to an image of values."""
    limits = list(picture.channels[0].limits)
    if layer.contrast_limits != limits:
        layer.contrast_limits = limits
    if picture.colormap is not None:
        colormap = napari_colormap(picture.colormap)
        if layer.colormap.name != colormap.name:
            layer.colormap = colormap
    if layer.opacity != picture.opacity:
        layer.opacity = picture.opacity
