"""The layer that regions are drawn in: one a section, its shapes named as they come."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from psygnal import Signal

from napari_sclinguist.carriers import units, world_scale
from napari_sclinguist.control.regions import (
    HOLE,
    NAME,
    REGIONS_KEY,
    ROLE,
    drawn_regions,
    from_uns,
    outline_of,
    parts_of,
    regions_layer,
    to_uns,
)
from napari_sclinguist.layers import METADATA_KEY

if TYPE_CHECKING:
    from napari.layers import Shapes

    from napari_sclinguist.control.open_section import OpenSection
    from sclinguist_core.data.regions import Region

TOOLS = {
    "Polygon": "add_polygon",
    "Freehand": "add_polygon_lasso",
    "Rectangle": "add_rectangle",
    "Ellipse": "add_ellipse",
}
"""What people read, and napari's mode."""
COLOURS = (
    "#2fa8e0",
    "#e0562f",
    "#1fa37a",
    "#d168a8",
    "#e8d52a",
    "#2a5fd0",
    "#9a5fd0",
    "#8a8a8a",
)
"""Edges of the regions in turn."""

_EDGE = 0.005
"""Width of an edge, in widths of the section."""
_FACE_OPACITY = 30
"""Of 255."""
_TEXT_SIZE = 11


class RegionDrawing:
    """Draws regions of a section, and gives every new shape a name and a colour.

    Parameters
    ----------
    opened
        The section; its layer of regions is found, or made when it is needed.
    """

    changed = Signal()
    """Regions came, went, were moved or got other names."""
    tool_changed = Signal()

    def __init__(self, opened: OpenSection) -> None:
        self.opened = opened
        self.layer: Shapes | None = None
        self._busy = False
        self._take(regions_layer(opened))
        layers = opened.viewer.layers
        layers.events.inserted.connect(self._on_layers)
        layers.events.removed.connect(self._on_layers)
        layers.selection.events.active.connect(self._on_tool)

    def close(self) -> None:
        """Let go of the viewer and the layer."""
        layers = self.opened.viewer.layers
        layers.events.inserted.disconnect(self._on_layers)
        layers.events.removed.disconnect(self._on_layers)
        layers.selection.events.active.disconnect(self._on_tool)
        self._take(None)

    # --- what there is ----------------------------------------------------------------------

    @property
    def regions(self) -> list[Region]:
        """See `napari_sclinguist.control.regions.drawn_regions`."""
        return drawn_regions(self.opened)

    @property
    def colours(self) -> dict[str, str]:
        """Colour of each region, ``"#rrggbb"``: that of the edge of its first shape."""
        if self.layer is None:
            return {}
        found: dict[str, str] = {}
        for name, edge in zip(self._names(), self._edges(), strict=True):
            found.setdefault(name, edge)
        return found

    @property
    def tool(self) -> str:
        """Tool in hand, a key of `TOOLS`; "" while nothing is drawn."""
        layer = self.layer
        # Equal, not identical: napari hands plugins its layers in wrappers.
        if layer is None or self.opened.viewer.layers.selection.active != layer:
            return ""
        return next((name for name, mode in TOOLS.items() if layer.mode == mode), "")

    @property
    def has_saved(self) -> bool:
        """Whether regions came with the table that are not shown yet."""
        return self.layer is None and REGIONS_KEY in self.opened.section.table.uns

    # --- drawing ----------------------------------------------------------------------------

    def show_saved(self) -> None:
        """Draw the regions that came with the table.

        Raises
        ------
        InputError
            If they cannot be read.
        """
        self.add(from_uns(self.opened))

    def draw(self, tool: str) -> None:
        """Take a tool, a key of `TOOLS`, in hand.

        Raises
        ------
        InputError
            If regions came with the table that cannot be read: they would be overwritten.
        """
        if self.has_saved:
            self.show_saved()
        viewer = self.opened.viewer
        viewer.canvas.grid.enabled = False  # a drawing needs one picture
        layer = self._made()
        viewer.layers.selection.active = layer
        layer.mode = TOOLS[tool]

    def stop(self) -> None:
        """Put the tool away: the mouse moves the picture again."""
        if self.layer is not None:
            self.layer.mode = "pan_zoom"
            # napari keeps the line of a polygon that was not finished.
            self.layer.remove([i for i, name in enumerate(self._names()) if not name])

    def add(self, regions: Iterable[Region]) -> None:
        """Draw regions; those of one name become one.

        Raises
        ------
        InputError
            See `draw`.
        """
        if self.has_saved:
            regions = [*from_uns(self.opened), *regions]
        shapes = [(region.name, part) for region in regions for part in parts_of(region)]
        if not shapes:
            return
        layer = self._made()
        names, holes = self._names(), self._holes()
        new = range(len(names), len(names) + len(shapes))
        with self._silently():
            layer.add([part.outline[:, ::-1] for _, part in shapes], shape_type="polygon")
        names += [name for name, _ in shapes]
        self._set(names, [*holes, *(part.hole for _, part in shapes)], new)

    def rename(self, former: str, name: str) -> None:
        """Give a region another name; that of another region joins the two."""
        name = name.strip()
        if name and self.layer is not None:
            names = [name if one == former else one for one in self._names()]
            self._set(names, self._holes())

    def remove(self, name: str) -> None:
        """Take a region away."""
        if self.layer is not None:
            places = [i for i, one in enumerate(self._names()) if one == name]
            self.layer.remove(places)

    # --- the layer --------------------------------------------------------------------------

    def _made(self) -> Shapes:
        """Find the layer, or make it and put it on top."""
        if self.layer is None:
            from napari.layers import Shapes

            opened = self.opened
            section = opened.section
            # A section of one spot has no extent.
            extent = max(float(np.ptp(section.positions, axis=0).max()), section.drawn_diameter)
            layer = Shapes(
                ndim=2,
                name=f"{section.name} regions",
                features=pd.DataFrame({NAME: np.array([], object), HOLE: np.array([], bool)}),
                edge_width=_EDGE * extent,
                edge_color=COLOURS[0],
                face_color=_translucent(COLOURS[0]),
                opacity=1.0,
                scale=(world_scale(section),) * 2,
                metadata={METADATA_KEY: {"section": section, "role": ROLE}},
                **units(section),
            )
            layers = opened.viewer.layers
            chosen = layers.selection.active
            layers.append(layer)  # is then found by `_on_layers`
            layers.selection.active = chosen  # napari selects what is new
        return self.layer

    def _on_layers(self, event: Any) -> None:
        layer = regions_layer(self.opened)
        if layer is not self.layer:
            self._take(layer)
            self.changed.emit()

    def _take(self, layer: Shapes | None) -> None:
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_data)
            self.layer.events.features.disconnect(self._on_features)
            self.layer.events.mode.disconnect(self._on_tool)
        self.layer = layer
        if layer is not None:
            layer.events.data.connect(self._on_data)
            layer.events.features.connect(self._on_features)
            layer.events.mode.connect(self._on_tool)

    def _on_tool(self, event: Any) -> None:
        self.tool_changed.emit()

    def _on_data(self, event: Any) -> None:
        """After a shape was drawn, moved or removed; while it happens nothing is to be done."""
        if event.action in ("added", "changed", "removed"):
            self._settle()

    def _on_features(self, event: Any) -> None:
        self._settle()  # names were changed, or shapes pasted

    def _settle(self) -> None:
        """Name the shapes that have no name yet "region 1", "region 2" and so on."""
        if self._busy:
            return
        names, shapes = self._names(), zip(self.layer.data, self.layer.shape_type, strict=True)
        areas = [outline_of(vertices, kind) is not None for vertices, kind in shapes]
        new = [i for i, name in enumerate(names) if not name and areas[i]]
        for i in new:
            free = (f"region {number}" for number in count(1))
            names[i] = next(name for name in free if name not in names)
        self._set(names, self._holes(), new)

    def _set(self, names: list[str], holes: list[bool], new: Iterable[int] = ()) -> None:
        """Name and colour all shapes; those that are new take the colour of their name."""
        layer, new = self.layer, set(new)
        colours: dict[str, str] = {}
        for i, edge in enumerate(self._edges()):
            if i not in new:
                colours.setdefault(names[i], edge)
        for name in names:
            if name not in colours:
                colours[name] = _next_colour(colours.values())
        edges = [colours[name] for name in names]
        texts = [name if name not in names[:i] else "" for i, name in enumerate(names)]
        with self._silently():
            layer.features = pd.DataFrame(
                {NAME: np.array(names, object), HOLE: np.array(holes, bool)}
            )
            # What is drawn next has no name yet, but a colour of its own.
            layer.feature_defaults = {NAME: "", HOLE: False}
            with layer.block_update_properties():
                layer.current_edge_color = _next_colour(colours.values())
                layer.current_face_color = _translucent(_next_colour(colours.values()))
            if names:
                layer.edge_color = edges
                layer.face_color = [_translucent(edge) for edge in edges]
                # Tissue is bright: there, black is read best.
                colour = edges if self.opened.image_layer is None else "black"
                layer.text = {"string": texts, "color": colour, "size": _TEXT_SIZE}
        to_uns(self.opened)
        self.changed.emit()

    def _edges(self) -> list[str]:
        """Colours of the edges of all shapes, ``"#rrggbb"``."""
        n_shapes = len(self.layer.data)
        edges = np.rint(255 * np.asarray(self.layer.edge_color)[:n_shapes, :3]).astype(int)
        return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in edges]

    def _names(self) -> list[str]:
        # napari keeps a row too many when a drawing is given up.
        names = self.layer.features[NAME].iloc[: len(self.layer.data)]
        return ["" if pd.isna(name) else str(name) for name in names]

    def _holes(self) -> list[bool]:
        return self.layer.features[HOLE].iloc[: len(self.layer.data)].eq(True).tolist()

    @contextmanager
    def _silently(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


def _next_colour(used: Collection[str]) -> str:
    free = [colour for colour in COLOURS if colour not in used]
    return free[0] if free else COLOURS[len(used) % len(COLOURS)]


def _translucent(colour: str) -> str:
    return f"{colour}{_FACE_OPACITY:02x}"
