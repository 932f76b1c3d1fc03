"""Selected rows on the tissue: shown by rings or by dimming the rest, and taken from napari."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sclinguist.carriers import units, world_scale
from napari_sclinguist.control.collecting import little_to_collect
from napari_sclinguist.control.fixed_points import FixedPoints
from napari_sclinguist.layers import METADATA_KEY

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace

SELECTION_COLOUR = "#ff7a00"
"""Stands out from stained tissue and from all colour maps that are offered."""
_RING = 1.3
"""Diameter of a ring, in diameters of a spot."""
_LEAST_RING = 5
"""Its least diameter in screen pixels: where spots are smaller than that, rings are seen still."""
_VEIL = np.array([255, 255, 255, 200], np.uint8)
_VEIL_ON_BLACK = np.array([0, 0, 0, 190], np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Veil:
    """What carriers ask of a picture that is not scalar: (n, 4) uint8 RGBA, and opacity."""

    colours: np.ndarray
    opacity: float = 1.0


class SelectionHighlight:
    """A layer that shows which rows are selected; made once, then updated in place.

    Rows that are shown as Points get rings; of bins and many cells, the others are dimmed.

    Parameters
    ----------
    opened
        Section whose rows are selected.
    role
        Role of the layer in its metadata.
    name
        Name of the layer.
    """

    def __init__(self, opened: OpenSection, role: str, name: str) -> None:
        from napari.layers import Layer

        self.opened = opened
        self._carrier = opened.carrier
        self._rows: np.ndarray | None = None
        self.has_rings = not opened.carrier.has_plain_layer  # its rows are Points
        if self.has_rings:
            data, arguments, kind = self._rings()
        else:
            data, arguments, kind = self._carrier.plain_layer_data(self._dimmed(None))
        self.layer: Layer = Layer.create(
            data,
            arguments
            | {
                "name": name,
                "metadata": {METADATA_KEY: {"section": opened.section, "role": role}},
            },
            kind,
        )
        self._fixed = FixedPoints(self.layer) if self.has_rings else None

    def show(self, rows: np.ndarray | None) -> None:
        """Highlight rows, bool (n,); None highlights nothing.

        The layer stays visible, and empty: to hide one arranges the whole canvas anew.
        """
        size = self._size
        if self.has_rings and self.layer.size[0] != size:
            self.layer.size = size
        if rows is self._rows:
            return
        self._rows = rows
        if self.has_rings:
            with self.layer.events.border_color.blocker():  # drawn once, by an event of its own
                self.layer.border_color = self._ring_colours(rows)
        else:
            self._carrier.update_plain(self.layer, self._dimmed(rows))

    @property
    def _size(self) -> float:
        return _RING * self.opened.section.drawn_diameter * self.opened.view.size

    def _rings(self) -> tuple[Any, dict[str, Any], str]:
        section = self.opened.section
        arguments = {
            "size": self._size,
            "face_color": "transparent",
            # Not by `shown`, which napari heeds only for points of more than two dimensions.
            "border_color": self._ring_colours(None),
            "border_width": 0.16,
            "canvas_size_limits": (_LEAST_RING, 10_000),
            "scale": (world_scale(section),) * 2,
            **units(section),
        }
        return section.positions[:, ::-1].copy(), arguments, "points"

    def _ring_colours(self, rows: np.ndarray | None) -> np.ndarray:
        from matplotlib.colors import to_rgb

        colours = np.zeros((self.opened.section.n_obs, 4), np.float32)
        if rows is not None:
            colours[rows] = (*to_rgb(SELECTION_COLOUR), 1.0)
        return colours

    def _dimmed(self, rows: np.ndarray | None) -> _Veil:
        colours = np.zeros((self.opened.section.n_obs, 4), np.uint8)
        if rows is not None:
            colours[~rows] = _VEIL_ON_BLACK if self.opened.image_layer is None else _VEIL
        return _Veil(colours=colours)


class TissueSelection:
    """Keeps the selection of every open section and what the tissue shows of it together.

    Spots that are selected with napari's own tool (of Points layers) become the selection of
    their section; a selection from elsewhere is highlighted on the tissue.

    Parameters
    ----------
    workspace
        Its sections are followed.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.highlights: dict[OpenSection, SelectionHighlight] = {}
        self._followed: dict[OpenSection, Callable[[object], None]] = {}
        self._sources: dict[Layer, Callable[..., None]] = {}
        self._fixed: dict[Layer, FixedPoints] = {}
        self._taking = False
        workspace.sections_changed.connect(self._on_sections)
        # Last, when napari's own lists have followed: layers must not go while one is going.
        workspace.viewer.layers.events.removed.connect(self._on_removed, position="last")
        self._on_sections()

    def close(self) -> None:
        """Let go of the viewer's layers."""
        self.workspace.viewer.layers.events.removed.disconnect(self._on_removed)
        for layer in list(self._sources):
            self._let_go(layer)

    def take_from(self, layer: Layer, opened: OpenSection) -> None:
        """Let what is selected in a Points layer be the selection of a section.

        From now on, until the layer is removed.
        """
        if layer in self._sources or not hasattr(layer, "selected_data"):
            return

        def on_changed(*_: object) -> None:
            if self._taking:
                return
            rows = np.zeros(opened.section.n_obs, bool)
            # napari has selected what it pastes before anyone can take it away again.
            rows[[row for row in layer.selected_data if row < len(rows)]] = True
            self._taking = True
            try:
                opened.select(rows)
            finally:
                self._taking = False

        layer.selected_data.events.items_changed.connect(on_changed)
        self._sources[layer] = on_changed
        if layer is not opened.spots:  # a copy of them, which has the same tools
            self._fixed[layer] = FixedPoints(layer, opened.put_back.emit)

    def _let_go(self, layer: Layer) -> None:
        layer.selected_data.events.items_changed.disconnect(self._sources.pop(layer))
        fixed = self._fixed.pop(layer, None)
        if fixed is not None:
            fixed.close()

    def _on_sections(self) -> None:
        for opened in self.workspace.sections:
            if opened not in self._followed:
                self._followed[opened] = lambda rows, opened=opened: self._show(opened, rows)
                opened.selection_changed.connect(self._followed[opened])
                opened.view_changed.connect(self._on_view)
                self.take_from(opened.spots, opened)

    def _show(self, opened: OpenSection, rows: np.ndarray | None) -> None:
        if not self._taking:
            self._forget_napari_selection(opened)
        highlight = self.highlights.get(opened)
        if highlight is None or highlight.layer not in self.workspace.viewer.layers:
            if rows is None:
                return
            highlight = SelectionHighlight(opened, "selection", f"{opened.name}: selected")
            self.highlights[opened] = highlight
            self._insert(highlight.layer, opened)
        highlight.show(rows)

    def _insert(self, layer: Layer, opened: OpenSection) -> None:
        layers = self.workspace.viewer.layers
        chosen = layers.selection.active
        # napari collects garbage after a batch, for the sake of layers that went; none did.
        with little_to_collect(), layers.batched_update():
            layers.insert(1 + max(layers.index(one) for one in opened.layers), layer)
            layers.selection.active = chosen  # napari chooses what is new; its tools stay put

    def _forget_napari_selection(self, opened: OpenSection) -> None:
        self._taking = True
        try:
            for layer in self.workspace.viewer.layers:
                state = layer.metadata.get(METADATA_KEY, {})
                if state.get("section") is opened.section and getattr(layer, "selected_data", None):
                    layer.selected_data = set()
        finally:
            self._taking = False

    def _on_view(self, view: object) -> None:
        for opened, highlight in self.highlights.items():
            highlight.show(opened.selected)

    def _on_removed(self, event: Any) -> None:
        if event.value in self._sources:  # it may come back, for a section that is opened anew
            self._let_go(event.value)
        layers = self.workspace.viewer.layers
        gone = [one for one in self._followed if one not in self.workspace.sections]
        for opened in gone:
            opened.selection_changed.disconnect(self._followed.pop(opened))
            opened.view_changed.disconnect(self._on_view)
            highlight = self.highlights.pop(opened, None)
            # One that is selected as well is being removed by napari already.
            if highlight is not None and highlight.layer in set(layers) - set(layers.selection):
                layers.remove(highlight.layer)
