"""Points that stay what they are: napari's tools select them, but move and delete them as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Points

_ARRAYS = ("size", "symbol", "border_width", "border_color", "face_color", "shown", "features")
"""What napari keeps for each point beside its place, and shortens with the points."""
_BEFORE = ("adding", "removing", "changing")


class FixedPoints:
    """Puts the points of a layer back when they were moved, deleted, added or pasted.

    To make the layer not editable would do so too, but napari then offers no tool to select with.

    Parameters
    ----------
    layer
        Its points are to stay as they are now; colours and sizes may change.
    on_put_back
        Called after points were put back, once each time.
    """

    def __init__(self, layer: Points, on_put_back: Callable[[], object] | None = None) -> None:
        self.layer = layer
        self._on_put_back = on_put_back
        self._positions = layer.data.copy()
        self._kept: dict[str, Any] | None = None
        layer.events.data.connect(self._on_data)
        layer.events.set_data.connect(self._on_set_data)

    def close(self) -> None:
        """Let the layer be changed again."""
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.set_data.disconnect(self._on_set_data)

    def _on_data(self, event: Any) -> None:
        """Before and after points are changed."""
        if event.action in _BEFORE:
            layer = self.layer
            self._kept = {name: getattr(layer, name).copy() for name in _ARRAYS}
            self._kept["selected_data"] = set(layer.selected_data)
        else:
            self._put_back()

    def _on_set_data(self, event: Any) -> None:
        """Points were drawn: those that are pasted are told by nothing else."""
        if self._kept is None and len(self.layer.data) != len(self._positions):
            self._put_back()

    def _put_back(self) -> None:
        kept, self._kept = self._kept, None
        layer = self.layer
        if np.array_equal(layer.data, self._positions):
            return
        if kept is None:  # pasted, after the others
            n_points = len(self._positions)
            kept = {"selected_data": {row for row in layer.selected_data if row < n_points}}
        with layer.events.data.blocker():  # whoever hears of the change finds nothing changed
            layer.data = self._positions.copy()
        for name, value in kept.items():
            setattr(layer, name, value)
        if self._on_put_back is not None:
            self._on_put_back()
