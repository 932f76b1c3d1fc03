"""What carries the colours: the kind of layer that is fast enough for a number of rows.

==================  =======================================  =================================
rows                layer                                    switching the shown feature
==================  =======================================  =================================
up to 20,000        Points                                   new face colours
bins on a lattice   Image, a pixel a bin                     new pixels
other cells         multiscale Image over painted discs      new look-up table
==================  =======================================  =================================

A carrier makes the arguments of its layer (`LayerData`), brings a picture to a layer that is
already in the window, and tells which row lies under a position. Layers are updated in place,
never deleted and added again.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.utils import Colormap

    from napari_sclinguist.control.view import Picture
    from sclinguist_core.data.section import Section

LayerData = tuple[Any, dict[str, Any], str]
"""Data, arguments of the layer, layer type: what a napari reader returns."""

MAX_POINTS = 20_000
"""Rows up to which Points are used: beyond it they take seconds to change colour."""


class Carrier(Protocol):
    """Rows of a section as a layer."""

    has_plain_layer: bool
    """Whether a second layer is needed for pictures that are not `Picture.scalar`."""

    def layer_data(self, picture: Picture | None) -> LayerData:
        """Arguments of the layer that shows scalar pictures (or all, for Points)."""

    def update(self, layer: Layer, picture: Picture) -> None:
        """Bring a picture to the layer."""

    def plain_layer_data(self, picture: Picture) -> LayerData:
        """Arguments of the layer for pictures that are not scalar."""

    def update_plain(self, layer: Layer, picture: Picture) -> None:
        """Bring a picture that is not scalar to its layer."""

    def row_at(self, x: float, y: float) -> int | None:
        """Row at a position in full-resolution pixels; None where there is none."""


def choose_carrier(section: Section) -> Carrier:
    """Pick the carrier by the number of rows and how they lie."""
    if section.n_obs <= MAX_POINTS:
        from napari_sclinguist.carriers.points import PointsCarrier

        return PointsCarrier(section)
    from napari_sclinguist.carriers.bins import find_grid

    grid = find_grid(section)
    if grid is not None:
        from napari_sclinguist.carriers.bins import BinsCarrier

        return BinsCarrier(section, grid)
    from napari_sclinguist.carriers.cells import CellsCarrier

    return CellsCarrier(section)


def world_scale(section: Section) -> float:
    """World units in a full-resolution pixel: µm where the size of a pixel is known."""
    return section.microns_per_pixel or 1.0


def units(section: Section) -> dict[str, Any]:
    """Arguments that say that the world is in µm; none where it is in pixels."""
    return {} if section.microns_per_pixel is None else {"units": ("µm", "µm")}


@cache
def napari_colormap(name: str) -> Colormap:
    """Make napari's object of a colour map, from the same table that the pictures use.

    It has a name of its own, since napari has other maps under some of these names.
    """
    from napari.utils import Colormap

    from sclinguist_core.evaluation.colouring import lookup_table

    return Colormap(colors=lookup_table(name) / np.float32(255), name=f"matplotlib {name}")
