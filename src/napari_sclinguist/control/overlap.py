"""Sections that lie in the same place on the canvas are shown one at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from napari_sclinguist.layers import METADATA_KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sclinguist.control.open_section import OpenSection

_PANEL = "compare"
"""Role of the layers of panels that are side by side; they come and go by themselves."""
_SCENE = ("image", "spots")
"""Roles of the layers that say where a section lies."""


def show_alone(viewer: ViewerModel, shown: OpenSection, sections: Iterable[OpenSection]) -> None:
    """Show a section again, and put those aside that it lies upon.

    What was visible of a section that is put aside is remembered, and visible again when the
    section is shown; what the user hid stays hidden. Sections that lie elsewhere, and layers that
    belong to no section, stay as they are. While panels are side by side nothing is done.
    """
    if any(_state(layer).get("role") == _PANEL for layer in viewer.layers):
        return
    _bring_back(viewer, shown)
    place = _place(viewer, shown)
    for other in sections:
        if other is not shown and _overlap(place, _place(viewer, other)):
            visible = [layer for layer in _layers_of(viewer, other) if layer.visible]
            other.aside = [*(other.aside or ()), *visible]
            for layer in visible:
                layer.visible = False
            # napari's tools work on the chosen layer, seen or not.
            if viewer.layers.selection.active in _layers_of(viewer, other):
                viewer.layers.selection.active = shown.shown_layer


def _bring_back(viewer: ViewerModel, opened: OpenSection) -> None:
    aside, opened.aside = opened.aside or [], None
    if any(layer in aside for layer in opened.layers):
        # Which of them carries the picture may have changed meanwhile.
        opened.shown_layer.visible = True
    for layer in aside:
        if layer in viewer.layers and layer not in opened.layers:
            layer.visible = True


def _state(layer: Layer) -> dict[str, object]:
    return layer.metadata.get(METADATA_KEY, {})


def _layers_of(viewer: ViewerModel, opened: OpenSection) -> list[Layer]:
    return [one for one in viewer.layers if _state(one).get("section") is opened.section]


def _place(viewer: ViewerModel, opened: OpenSection) -> np.ndarray:
    """Least and greatest (y, x) of the tissue and the spots in the world, shape (2, 2)."""
    layers = [one for one in _layers_of(viewer, opened) if _state(one).get("role") in _SCENE]
    extents = np.array([layer.extent.world[:, -2:] for layer in layers])
    return np.array([extents[:, 0].min(axis=0), extents[:, 1].max(axis=0)])


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one[0] < other[1]).all() and (other[0] < one[1]).all())
