"""Spots as napari Points at their true size: sections of up to some ten thousand rows."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sclinguist.carriers import LayerData, napari_colormap, units, world_scale

if TYPE_CHECKING:
    from napari.layers import Points
    from scipy.spatial import KDTree

    from napari_sclinguist.control.view import Picture
    from sclinguist_core.data.section import Section


class PointsCarrier:
    """One point a row; its colour is set directly, so that every picture is shown the same way."""

    has_plain_layer = False

    def __init__(self, section: Section) -> None:
        self.section = section

    def layer_data(self, picture: Picture | None) -> LayerData:
        """See `Carrier.layer_data`."""
        section = self.section
        arguments: dict[str, Any] = {
            "size": section.drawn_diameter,
            "symbol": "square" if section.assay == "visium_hd" else "disc",
            "border_width": 0,
            # Not napari's own least size: at it, points are all border, which is grey.
            "canvas_size_limits": (0, 10_000),
            "scale": (world_scale(section),) * 2,
            **units(section),
        }
        if picture is not None:
            arguments |= {
                "face_color": picture.colours / np.float32(255),
                "opacity": picture.opacity,
                "size": section.drawn_diameter * picture.size,
            }
        # napari's order is (row, column), the section's (x, y)
        return section.positions[:, ::-1].copy(), arguments, "points"

    def update(self, layer: Points, picture: Picture) -> None:
        """See `Carrier.update`."""
        # The colours have an event of their own; on this one napari would draw everything again.
        with layer.events.face_color.blocker():
            layer.face_color = picture.colours / np.float32(255)
        if layer.opacity != picture.opacity:
            layer.opacity = picture.opacity
        size = self.section.drawn_diameter * picture.size
        if layer.current_size != size or (len(layer.size) and layer.size[0] != size):
            layer.size = size
        if picture.colormap is not None:
            # The colour bar reads these; the colours themselves were set above.
            colormap = napari_colormap(picture.colormap)
            if layer.face_colormap.name != colormap.name:
                layer.face_colormap = colormap
            if layer.face_contrast_limits != picture.channels[0].limits:
                layer.face_contrast_limits = picture.channels[0].limits
        layer.face_colorbar.visible = picture.colormap is not None

    def plain_layer_data(self, picture: Picture) -> LayerData:
        """Never asked for: Points show every picture."""
        raise NotImplementedError

    def update_plain(self, layer: Points, picture: Picture) -> None:
        """Never asked for: Points show every picture."""
        raise NotImplementedError

    def row_at(self, x: float, y: float) -> int | None:
        """See `Carrier.row_at`."""
        distance, row = self._tree.query((x, y))
        return int(row) if distance <= 0.5 * self.section.drawn_diameter else None

    @cached_property
    def _tree(self) -> KDTree:
        from scipy.spatial import KDTree

        return KDTree(self.section.positions)
