"""A section that is open in the window: its view, its layers, what was predicted for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_sclinguist.carriers import world_scale
from napari_sclinguist.control.catalogue import Catalogue
from napari_sclinguist.control.fixed_points import FixedPoints
from napari_sclinguist.control.view import Picture, View, picture
from napari_sclinguist.layers import METADATA_KEY, NOUNS

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sclinguist.carriers import Carrier
    from sclinguist_core.data.section import Section
    from sclinguist_core.inference.prediction import Prediction


class OpenSection:
    """A section with its layers.

    Parameters
    ----------
    viewer
        Where its layers are.
    spots
        Layer that `napari_sclinguist.layers.section_layers` made, with its metadata.

    Attributes
    ----------
    section, catalogue
        What it holds, and how it is found.
    spots
        Layer of the spots, bins or cells.
    selected
        (n,) bool: rows selected in a plot or a region; None where nothing is.
    """

    view_changed = Signal(object)
    """View"""
    contents_changed = Signal()
    """Features came or went."""
    dirty_changed = Signal(bool)
    selection_changed = Signal(object)
    """(n,) bool or None"""
    put_back = Signal()
    """Spots were moved or deleted with napari's tools, and are back in their places."""

    def __init__(self, viewer: ViewerModel, spots: Layer) -> None:
        state = spots.metadata[METADATA_KEY]
        self.viewer = viewer
        self.section: Section = state["section"]
        self.carrier: Carrier = state["carrier"]
        self.catalogue: Catalogue = state["catalogue"]
        self.spots = spots
        self.selected: np.ndarray | None = None
        self._view: View = state["view"]
        self._plain = self._find("blended")
        points = not self.carrier.has_plain_layer
        self._fixed = FixedPoints(spots, self.put_back.emit) if points else None
        self.picture: Picture | None = None
        if self._view.keys:
            self.set_view(self._view)

    @property
    def name(self) -> str:
        """Name of the section."""
        return self.section.name

    @property
    def noun(self) -> str:
        """What its rows are called."""
        return NOUNS.get(self.section.assay, "cells")

    @property
    def view(self) -> View:
        """What is shown, and how."""
        return self._view

    @property
    def dirty(self) -> bool:
        """Whether something was added that no file holds; kept with the layer."""
        return bool(self.spots.metadata[METADATA_KEY].get("dirty", False))

    @property
    def changes(self) -> int:
        """How often something was added: tells what came after a file was begun."""
        return int(self.spots.metadata[METADATA_KEY].get("changes", 0))

    def set_dirty(self, dirty: bool) -> None:
        """Mark what was added (predictions, groups, regions) as unsaved, or as saved."""
        if dirty:
            self.spots.metadata[METADATA_KEY]["changes"] = self.changes + 1
        if dirty != self.dirty:
            self.spots.metadata[METADATA_KEY]["dirty"] = dirty
            self.dirty_changed.emit(dirty)

    @property
    def aside(self) -> list[Layer] | None:
        """What was visible of it before another section took its place; kept with the layer.

        None while it is not put aside.
        """
        return self.spots.metadata[METADATA_KEY].get("aside")

    @aside.setter
    def aside(self, layers: list[Layer] | None) -> None:
        self.spots.metadata[METADATA_KEY]["aside"] = layers

    @property
    def layers(self) -> list[Layer]:
        """Its layers of spots in the window: one, or two once a blended picture was shown."""
        return [self.spots] if self._plain is None else [self.spots, self._plain]

    @property
    def image_layer(self) -> Layer | None:
        """The tissue image below the spots, or None."""
        return self._find("image")

    @property
    def shown_layer(self) -> Layer:
        """The layer that shows the present picture."""
        plain = self._plain is not None and self.picture is not None and not self.picture.scalar
        return self._plain if plain else self.spots

    def show(self, *keys: str) -> None:
        """Colour by one to three features; limits and colours stay as they are."""
        self.set_view(self._view.showing(*keys))

    def set_view(self, view: View) -> None:
        """Colour the layers; they are updated in place.

        Raises
        ------
        KeyError
            If the section has no such feature; the view then stays as it was.
        """
        shown = picture(self.catalogue, view)
        self._view = view
        self.picture = shown
        tissue = self.image_layer
        if tissue is not None and tissue.opacity != view.tissue:
            tissue.opacity = view.tissue
        self.spots.metadata[METADATA_KEY]["view"] = view
        if self.carrier.has_plain_layer and not shown.scalar:
            self._show_plain(shown)
        else:
            self.carrier.update(self.spots, shown)
            if self._plain is not None and self._plain.visible:
                self.spots.visible = True
                self._plain.visible = False
        self.view_changed.emit(view)

    def let_go(self) -> None:
        """Take the second layer along when the spots were removed from the window."""
        if self._fixed is not None:
            self._fixed.close()
        plain, layers = self._plain, self.viewer.layers
        if plain is not None:
            self._drop_plain()
            if plain in layers and plain not in layers.selection:  # or napari goes on to it itself
                layers.remove(plain)

    def forget(self, layer: Layer) -> None:
        """Show the first feature by the spots again if the blended layer was removed."""
        if layer is not self._plain:
            return
        self._drop_plain()
        view = self._view
        self.set_view(replace(view.showing(*view.keys[:1]), thresholds={}, fade=False))

    def refresh_view(self) -> None:
        """Show the view again after features changed; those that are gone are replaced."""
        keys = [key for key in self._view.keys if key in self.catalogue]
        keys = keys or self.catalogue.default_keys()[:1]
        if keys:
            self.show(*keys)

    def accept(self, prediction: Prediction) -> None:
        """Take predictions into the table and show the protein that varies most."""
        from sclinguist_core.inference.prediction import attach

        attach(self.section.table, prediction)
        self.catalogue.refresh()
        self.set_dirty(True)
        self.contents_changed.emit()
        self.show(*self.catalogue.default_keys()[:1])

    def select(self, rows: np.ndarray | None) -> None:
        """Select rows, bool (n,); None selects nothing."""
        self.selected = None if rows is None or not rows.any() else rows
        self.selection_changed.emit(self.selected)

    def row_at(self, world: tuple[float, ...]) -> int | None:
        """Row under a position of the window's world, (y, x); None where there is none."""
        y, x = (float(value) / world_scale(self.section) for value in world[-2:])
        return self.carrier.row_at(x, y)

    def describe_row(self, row: int) -> str:
        """Values of the shown features in a row, in one line."""
        parts = []
        for key in self._view.keys:
            entry = self.catalogue.entry(key)
            value = float(self.catalogue.values(key)[row])
            text = "no value" if np.isnan(value) else f"{value:.3g}"
            spread = self.catalogue.spread_at(entry, row)
            if spread is not None and np.isfinite(spread):
                text += f" ± {spread:.2g}"
            parts.append(f"{entry.label} {text}")
        return f"{self.section.table.obs_names[row]}   " + "   ".join(parts)

    def _show_plain(self, shown: Picture) -> None:
        if self._plain is None:
            from napari.layers import Layer

            data, arguments, kind = self.carrier.plain_layer_data(shown)
            arguments |= {"name": f"{self.name}: blended", "metadata": self._plain_metadata()}
            self._plain = Layer.create(data, arguments, kind)
            self.viewer.layers.insert(self.viewer.layers.index(self.spots) + 1, self._plain)
        else:
            self.carrier.update_plain(self._plain, shown)
        self._plain.visible = self.aside is None
        self.spots.visible = False

    def _drop_plain(self) -> None:
        """Leave the picture to the spots, now or once the section is shown again."""
        plain, self._plain = self._plain, None
        if self.aside is None:
            self.spots.visible = True
        elif plain in self.aside:
            self.aside = [*self.aside, self.spots]

    def _find(self, role: str) -> Layer | None:
        for layer in self.viewer.layers:
            state = layer.metadata.get(METADATA_KEY, {})
            if state.get("section") is self.section and state.get("role") == role:
                return layer
        return None

    def _plain_metadata(self) -> dict[str, Any]:
        return {METADATA_KEY: {"section": self.section, "role": "blended"}}
