"""Many cells as discs that are painted once; a table of values gives them their colours.

Shapes: n cells; H, W of the painted label image; label 0 is where no cell is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sclinguist.carriers import LayerData, napari_colormap, units, world_scale
from napari_sclinguist.carriers.bins import show_scalar
from napari_sclinguist.carriers.cell_levels import CellTable, LookupLevel, MeanLevel

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_sclinguist.control.view import Picture
    from sclinguist_core.data.section import Section

_PIXELS_PER_CELL = 5
"""Diameter of a painted disc in pixels, where the image stays small enough."""
_MAX_SIDE = 12_000
_SMALLEST_LEVEL = 512


def paint_discs(places: np.ndarray, diameter: float, shape: tuple[int, int]) -> np.ndarray:
    """Paint discs into a label image: label i + 1 where disc i is the nearest.

    Parameters
    ----------
    places
        (n, 2) float row and column of the centres, in pixels of the label image.
    diameter
        In pixels.
    shape
        (H, W).

    Returns
    -------
    (H, W) int32
    """
    labels = np.zeros(shape, np.int32)
    centres = np.rint(places).astype(np.int64)
    reach = max(int(np.ceil(diameter / 2)), 0)
    steps = np.arange(-reach, reach + 1)
    row_step, column_step = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    distance = np.hypot(row_step, column_step)
    inside = distance <= max(diameter / 2, 0.5)
    # From the rim inwards: where discs overlap, the nearest centre has the last word.
    order = np.flatnonzero(inside)[np.argsort(-distance[inside], kind="stable")]
    number = np.arange(1, len(places) + 1, dtype=np.int32)
    for step in order:
        rows, columns = centres[:, 0] + row_step[step], centres[:, 1] + column_step[step]
        fits = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        labels[rows[fits], columns[fits]] = number[fits]
    return labels


class CellsCarrier:
    """Cells of any number; switching a feature swaps a table of n + 1 values."""

    has_plain_layer = True

    def __init__(self, section: Section) -> None:
        self.section = section
        positions = section.positions
        margin = section.drawn_diameter
        self._corner = positions.min(axis=0) - margin  # x, y
        extent = positions.max(axis=0) + margin - self._corner
        wanted = _PIXELS_PER_CELL / section.drawn_diameter
        #: label pixels in a full-resolution pixel
        self.density = min(wanted, _MAX_SIDE / float(extent.max()))
        shape = tuple(int(np.ceil(side * self.density)) + 1 for side in extent[::-1])
        places = ((positions - self._corner) * self.density)[:, ::-1]
        labels = paint_discs(places, section.drawn_diameter * self.density, (shape[0], shape[1]))
        self.levels = [labels]
        while max(self.levels[-1].shape) > _SMALLEST_LEVEL:
            self.levels.append(np.ascontiguousarray(self.levels[-1][::2, ::2]))
        self._centres = np.rint(places).astype(np.int64)
        self._diameter = section.drawn_diameter * self.density  # in pixels of the first level

    def layer_data(self, picture: Picture | None) -> LayerData:
        """See `Carrier.layer_data`."""
        table = CellTable(self.section.n_obs)
        arguments = self._arguments()
        if picture is not None:
            table.write(picture.channels[0].values)
            arguments |= {"opacity": picture.opacity}
            arguments |= {"contrast_limits": picture.channels[0].limits}
            if picture.colormap is not None:
                arguments["colormap"] = napari_colormap(picture.colormap)
        else:
            arguments["contrast_limits"] = (0.0, 1.0)  # asked of the layer, all is unknown
        return self._levels_of(table), arguments, "image"

    def update(self, layer: Image, picture: Picture) -> None:
        """See `Carrier.update`."""
        layer.data[0].table.write(picture.channels[0].values)
        show_scalar(layer, picture)
        _look_up_again(layer)

    def plain_layer_data(self, picture: Picture) -> LayerData:
        """See `Carrier.plain_layer_data`."""
        table = CellTable(self.section.n_obs, colours=True)
        table.write(picture.colours)
        arguments = self._arguments() | {"rgb": True, "opacity": picture.opacity}
        return self._levels_of(table), arguments, "image"

    def update_plain(self, layer: Image, picture: Picture) -> None:
        """See `Carrier.update_plain`."""
        layer.data[0].table.write(picture.colours)
        layer.opacity = picture.opacity
        _look_up_again(layer)

    def row_at(self, x: float, y: float) -> int | None:
        """See `Carrier.row_at`."""
        column, row = np.rint((np.array([x, y]) - self._corner) * self.density).astype(int)
        height, width = self.levels[0].shape
        if not (0 <= row < height and 0 <= column < width):
            return None
        label = int(self.levels[0][row, column])
        return label - 1 if label else None

    def _levels_of(self, table: CellTable) -> list[LookupLevel]:
        """Levels of a layer: looked up while a cell covers a pixel, then means."""
        found = []
        for i, labels in enumerate(self.levels):
            if self._diameter / 2**i >= 1 or i == 0:
                found.append(LookupLevel(labels, table))
            else:
                row, column = np.minimum(self._centres >> i, np.array(labels.shape) - 1).T
                found.append(MeanLevel(labels, row * labels.shape[1] + column, table))
        return found

    def _arguments(self) -> dict[str, Any]:
        world = world_scale(self.section)
        pixel = world / self.density
        return {
            "multiscale": True,
            "scale": (pixel, pixel),
            "translate": tuple(self._corner[::-1] * world),
            **units(self.section),
        }


def _look_up_again(layer: Image) -> None:
    """Draw a layer whose table has changed: a refresh would reuse the smallest level."""
    layer.data = list(layer.data)
