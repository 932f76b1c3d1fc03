"""Sections that another plugin opened: napari-spatialdata keeps its object at the layers.

Its layers lie in the coordinate system of the object, and stay as they are. Ours is added over
them in the same coordinates, without units, since those layers have none.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sclinguist.layers import METADATA_KEY, section_layers
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sclinguist.carriers import LayerData

FOREIGN_KEY = "sdata"
"""Where napari-spatialdata keeps its object in ``layer.metadata``."""


def foreign_object(layer: Layer) -> Any | None:
    """SpatialData object of a layer that is not ours; None where there is none with a table."""
    found = layer.metadata.get(FOREIGN_KEY)
    if found is None or METADATA_KEY in layer.metadata or not getattr(found, "tables", None):
        return None
    return found


def adopted_layers(sdata: Any) -> list[LayerData]:
    """Spots of the sections of a SpatialData object, in its own coordinates; slow, no window.

    Raises
    ------
    InputError
        If it holds no section with positions.
    """
    from sclinguist_core.data.readers.spatialdata_store import sections_of

    source = Path(str(sdata.path)) if sdata.path is not None else Path("SpatialData")
    layers = []
    for section in sections_of(sdata, source):
        if section.is_spatial:
            # Without a size of a pixel, and without the image, which is in the window already.
            plain = replace(section, microns_per_pixel=None, images={})
            layers += section_layers(plain)
    if not layers:
        raise InputError(
            f"'{source.name}' has no table with positions, so there is nothing to predict; open "
            "one whose table annotates shapes."
        )
    return layers


def make_layers(data: list[LayerData]) -> list[Layer]:
    """Make layers of layer data; in any thread, since a large one takes some tenths of a second."""
    from napari.layers import Layer

    return [Layer.create(*one) for one in data]


def add_layers(viewer: ViewerModel, layers: list[Layer]) -> None:
    """Add layers to a viewer, which shows all of the first ones."""
    was_empty = not viewer.layers
    for layer in layers:
        viewer.add_layer(layer)
    if was_empty:
        viewer.reset_view()
