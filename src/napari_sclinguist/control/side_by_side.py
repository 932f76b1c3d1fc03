"""Copies of a section beside each other on the canvas, under one camera.

napari's grid puts consecutive layers into one viewbox each and leaves hidden layers out; all
viewboxes share the camera. So every panel is a run of layers at the bottom of the list, and
everything else is hidden until the panels go.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_sclinguist.control.agreement import difference
from napari_sclinguist.control.collecting import little_to_collect
from napari_sclinguist.control.entries import Entry, Kind
from napari_sclinguist.control.tissue_selection import SelectionHighlight
from napari_sclinguist.control.view import Picture, picture
from napari_sclinguist.layers import METADATA_KEY
from sclinguist_core.evaluation.colouring import Channel, colour_limits

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sclinguist.control.agreement import Pair
    from napari_sclinguist.control.open_section import OpenSection

ROLE = "compare"
"""Role of our layers in their metadata: they are no sections of their own."""
_BAR_SIZE = (12, 90)
"""Width and length of a colour bar in pixels: panels are narrow."""


_LEAST_SIZE, _ANY_SIZE = 3.5, 10_000
"""Limits of the diameter of a spot in screen pixels: patterns are seen in a narrow panel, too."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PanelContent:
    """What a panel shows.

    Attributes
    ----------
    title
        Stands at the top of the panel, and in the layer list.
    picture
        Colours of the spots; a scalar one.
    """

    title: str
    picture: Picture


def grid_shape(
    n_panels: int, canvas: tuple[float, float], tissue: Sequence[float]
) -> tuple[int, int]:
    """Rows and columns in which panels are largest.

    Parameters
    ----------
    n_panels
        At least one.
    canvas, tissue
        Height and width.
    """
    height, width = np.maximum(tissue, 1e-9)
    shapes = [(rows, -(-n_panels // rows)) for rows in range(1, n_panels + 1)]
    return max(
        shapes,
        key=lambda shape: (
            min(canvas[0] / shape[0] / height, canvas[1] / shape[1] / width),
            -shape[0],
        ),
    )


def contents(opened: OpenSection, pair: Pair, *, with_difference: bool) -> list[PanelContent]:
    """Both features of a pair as the view colours them, each with its own limits.

    The difference is that of z-scores, around zero, in the view's diverging colours.
    """
    catalogue = opened.catalogue
    plain = replace(opened.view, thresholds={}, fade=False)
    found = []
    for letter, key in (("A", pair.a), ("B", pair.b)):
        shown = picture(catalogue, plain.showing(key))
        found.append(PanelContent(title=f"{letter}: {shown.entries[0].label}", picture=shown))
    if with_difference:
        values = difference(catalogue.values(pair.a), catalogue.values(pair.b))
        channel = Channel(values=values, limits=colour_limits(values, diverging=True))
        shown = Picture(
            entries=(Entry(kind=Kind.COLUMN, name="A − B", unit="z-scores"),),
            channels=(channel,),
            colormap=plain.diverging_colormap,
            certainty=None,
            opacity=plain.opacity,
            size=plain.size,
        )
        found.append(PanelContent(title="A − B (z-scores)", picture=shown))
    return found


class Panel:
    """A viewbox: the tissue, the spots and the selection, each a layer of its own.

    Attributes
    ----------
    tissue
        Copy of the tissue image over the same pixels; None without an image.
    spots
        The coloured spots, bins or cells; its name is the title of the panel.
    highlight
        What is selected.
    """

    def __init__(self, opened: OpenSection, content: PanelContent, letter: str) -> None:
        from napari.layers import Layer

        metadata = {METADATA_KEY: {"section": opened.section, "role": ROLE}}
        self._carrier = opened.carrier
        data, arguments, kind = self._carrier.layer_data(content.picture)
        arguments |= {"name": content.title, "metadata": metadata}
        self.spots: Layer = Layer.create(data, arguments, kind)
        self.tissue = _copy_of_image(opened.image_layer, f"{letter}: tissue", metadata)
        self.highlight = SelectionHighlight(opened, ROLE, f"{letter}: selected")
        if hasattr(self.spots, "canvas_size_limits"):
            self.spots.canvas_size_limits = (_LEAST_SIZE, _ANY_SIZE)
        title = self.spots.name_overlay
        title.position, title.visible = "top_left", True
        bar = getattr(self.spots, "face_colorbar", None) or self.spots.colorbar
        bar.position, bar.size, bar.visible = "bottom_left", _BAR_SIZE, True
        self.show(opened, content)

    @property
    def layers(self) -> list[Layer]:
        """From the bottom up."""
        return [one for one in (self.tissue, self.spots, self.highlight.layer) if one is not None]

    def show(self, opened: OpenSection, content: PanelContent) -> None:
        """Bring a picture to the layers, in place."""
        self._carrier.update(self.spots, content.picture)
        if hasattr(self.spots, "border_color"):
            # Points of the least size on the screen are all border, even one without a width.
            with self.spots.events.border_color.blocker():  # drawn once, by an event of its own
                self.spots.border_color = self.spots.face_color
        if self.spots.name != content.title:
            self.spots.name = content.title
        if self.tissue is not None:
            self.tissue.opacity = opened.view.tissue
        self.highlight.show(opened.selected)


class SideBySide:
    """Puts panels on the canvas, and everything back as it was when they go.

    Parameters
    ----------
    viewer
        Its grid is used while panels are shown.

    Attributes
    ----------
    panels
        What is shown, from the left; empty when off.
    """

    panels_changed = Signal()
    """Panels came or went, also when the viewer's grid was switched off by hand."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.opened: OpenSection | None = None
        self.panels: list[Panel] = []
        self._hidden: dict[Layer, bool] = {}
        self._before: dict[str, Any] = {}
        self._busy = False

    @property
    def on(self) -> bool:
        """Whether panels are shown."""
        return bool(self.panels)

    def show(self, opened: OpenSection, shown: Sequence[PanelContent]) -> None:
        """Show panels; those that are there already are updated in place."""
        if self.on and opened is not self.opened:
            self.leave()
        if len(shown) != len(self.panels):
            self._set_up(opened, shown)
        for panel, content in zip(self.panels, shown, strict=True):
            panel.show(opened, content)
        # A title in each panel says it; one over all would name the feature that is not shown.
        self.viewer.canvas.overlays.text.visible = False

    def show_selection(self) -> None:
        """Highlight what is selected of the section."""
        for panel in self.panels:
            panel.highlight.show(self.opened.selected)

    def leave(self, *, choose_layer: bool = True) -> None:
        """Remove the panels; the viewer is then as it was before.

        Parameters
        ----------
        choose_layer
            Choose the layer that was chosen before the panels came. Not so when another section was
            chosen meanwhile: the layer would bring the former section back.
        """
        if not self.on:
            return
        if not choose_layer:
            self._before["active"] = None
        self._busy = True
        try:
            with self.viewer.layers.batched_update():
                self._take_down()
        finally:
            self._busy = False
        self.panels_changed.emit()

    # --- coming ------------------------------------------------------------------------------

    def _set_up(self, opened: OpenSection, shown: Sequence[PanelContent]) -> None:
        self._busy = True
        layers, grid = self.viewer.layers, self.viewer.canvas.grid
        going = len(shown) < len(self.panels)
        try:
            # The canvas is arranged once, at the end; garbage is of layers that went.
            with nullcontext() if going else little_to_collect(), layers.batched_update():
                if not self.on:
                    self._remember(opened)
                for gone in self.panels[len(shown) :]:
                    self._remove(gone)
                del self.panels[len(shown) :]
                for i in range(len(self.panels), len(shown)):
                    panel = Panel(opened, shown[i], ("A", "B", "A − B")[i])
                    self.panels.append(panel)
                    for j, layer in enumerate(panel.layers):
                        layers.insert(i * len(panel.layers) + j, layer)
                grid.stride = len(self.panels[0].layers)
                lower, upper = self.panels[0].spots.extent.world
                grid.shape = grid_shape(len(shown), self.viewer.canvas.size, upper - lower)
                grid.enabled = True
                layers.selection.active = self.panels[0].spots
            self.viewer.reset_view(layers=[self.panels[0].spots])
        finally:
            self._busy = False
        self.panels_changed.emit()

    def _remove(self, panel: Panel) -> None:
        for layer in panel.layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def _remember(self, opened: OpenSection) -> None:
        self.opened = opened
        viewer, grid = self.viewer, self.viewer.canvas.grid
        camera = viewer.scene.camera
        self._before = {
            "grid": (grid.enabled, grid.stride, grid.shape),
            "camera": (camera.center, camera.zoom),
            "text": viewer.canvas.overlays.text.visible,
            "active": viewer.layers.selection.active,
        }
        for layer in viewer.layers:
            self._hide(layer)
        grid.events.enabled.connect(self._on_grid, position="last")
        # Last, when napari's own lists have followed.
        viewer.layers.events.inserted.connect(self._on_inserted, position="last")
        viewer.layers.events.removed.connect(self._on_removed, position="last")
        opened.view_changed.connect(self._on_view)

    def _hide(self, layer: Layer) -> None:
        self._hidden[layer] = layer.visible
        layer.visible = False
        layer.events.visible.connect(self._keep_hidden)

    def _keep_hidden(self, event: Any) -> None:
        """Something wants to be seen meanwhile: it is, once the panels are gone."""
        layer = event.source
        if layer.visible:
            self._hidden[layer] = True
            layer.visible = False

    # --- going -------------------------------------------------------------------------------

    def _take_down(self) -> None:
        viewer, grid, opened = self.viewer, self.viewer.canvas.grid, self.opened
        grid.events.enabled.disconnect(self._on_grid)
        viewer.layers.events.inserted.disconnect(self._on_inserted)
        viewer.layers.events.removed.disconnect(self._on_removed)
        opened.view_changed.disconnect(self._on_view)
        grid.enabled, grid.stride, grid.shape = self._before["grid"]
        for panel in self.panels:
            self._remove(panel)
        for layer in self._hidden:
            layer.events.visible.disconnect(self._keep_hidden)
        # Which of its layers carries the picture may have changed meanwhile.
        carrying = any(self._hidden.get(layer, False) for layer in opened.layers)
        for layer, visible in self._hidden.items():
            own = layer in opened.layers
            layer.visible = carrying and layer is opened.shown_layer if own else visible
        camera = viewer.scene.camera
        camera.center, camera.zoom = self._before["camera"]
        viewer.canvas.overlays.text.visible = self._before["text"]
        if self._before["active"] is not None and self._before["active"] in viewer.layers:
            viewer.layers.selection.active = self._before["active"]
        self.panels, self._hidden, self._before, self.opened = [], {}, {}, None

    # --- meanwhile ---------------------------------------------------------------------------

    def _on_grid(self, event: Any) -> None:
        if not self._busy and not self.viewer.canvas.grid.enabled:
            self.leave()

    def _on_inserted(self, event: Any) -> None:
        if self._busy:
            return
        if event.value.metadata.get(METADATA_KEY, {}).get("section") is self.opened.section:
            self._hide(event.value)  # a layer that its pictures need
        else:
            self.leave()  # something else was added to be seen

    def _on_removed(self, event: Any) -> None:
        ours = any(event.value in panel.layers for panel in self.panels)
        if not self._busy and (ours or event.value is self.opened.spots):
            self.leave()

    def _on_view(self, view: object) -> None:
        self.viewer.canvas.overlays.text.visible = False


def _copy_of_image(image: Layer | None, name: str, metadata: dict[str, Any]) -> Layer | None:
    """Make a second layer over the pixels of an image."""
    if image is None:
        return None
    from napari.layers import Image

    return Image(
        list(image.data) if image.multiscale else np.asarray(image.data),
        rgb=image.rgb,
        multiscale=image.multiscale,
        scale=image.scale,
        translate=image.translate,
        affine=image.affine,
        units=image.units,
        opacity=image.opacity,
        name=name,
        metadata=metadata,
    )
