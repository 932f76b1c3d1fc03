"""A section as napari layers: the tissue image, and the spots or cells upon it.

Qt is not imported, and napari only for the objects of its colour maps. World coordinates are µm
where the size of a pixel is known (every layer then says so in ``units``), pixels of the
full-resolution image elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sclinguist.carriers import LayerData, choose_carrier, units, world_scale
from napari_sclinguist.control.catalogue import Catalogue
from napari_sclinguist.control.view import View, picture
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from sclinguist_core.data.section import Section, SectionImage

__all__ = ["METADATA_KEY", "VIEW_KEY", "LayerData", "section_layers"]

METADATA_KEY = "sclinguist"
"""Where a layer keeps what belongs to it: section, role, carrier, catalogue, view."""
VIEW_KEY = "sclinguist_view"
"""Where a saved table keeps the view that it was saved with (``uns``)."""

NOUNS = {"visium": "spots", "visium_hd": "bins"}
"""What the rows of an assay are called; those of others are cells."""

_SMALLEST_LEVEL = 1024


def section_layers(section: Section, feature: str | None = None) -> list[LayerData]:
    """Turn a section into layers.

    Parameters
    ----------
    section
        A section with positions.
    feature
        Protein, gene or ``obs`` column to colour by; by default the view that the section was
        saved with, else what `Catalogue.default_keys` chooses.

    Returns
    -------
    list of LayerData
        The image, if the section has one, and the spots. Both carry
        ``metadata["sclinguist"]`` with the section and the role of the layer.

    Raises
    ------
    InputError
        If the section has no positions, or nothing of the name `feature`.
    """
    if not section.is_spatial:
        raise InputError(
            f"'{section.source or section.name}' holds dissociated cells without positions, so "
            "there is nothing to show on a tissue; use `sclinguist predict` for them."
        )
    catalogue = Catalogue(section)
    view = first_view(catalogue, feature)
    carrier = choose_carrier(section)
    shown = picture(catalogue, view) if view.keys else None
    data, arguments, kind = carrier.layer_data(shown)
    state = {
        "section": section,
        "role": "spots",
        "carrier": carrier,
        "catalogue": catalogue,
        "view": view,
    }
    arguments |= {
        "name": f"{section.name} {NOUNS.get(section.assay, 'cells')}",
        "metadata": {METADATA_KEY: state},
    }
    layers = [(data, arguments, kind)]
    if section.image is not None:
        layers.insert(0, image_layer(section, section.image))
    return layers


def first_view(catalogue: Catalogue, feature: str | None = None) -> View:
    """Choose the view: of a feature, the one saved with the section, or the default one."""
    saved = catalogue.section.table.uns.get(VIEW_KEY)
    view = View.from_dict(saved) if isinstance(saved, dict) else View()
    if feature is not None:
        return view.showing(catalogue.find(feature).key)
    keys = [key for key in view.keys if key in catalogue] or catalogue.default_keys()[:1]
    return view.showing(*keys)


def image_layer(section: Section, image: SectionImage) -> LayerData:
    """Make the layer of the tissue image, a pyramid where it is large."""
    pixel = 1.0 / image.scale  # side of an image pixel in full-resolution pixels
    # Both grids begin at the same corner, but napari (and Space Ranger) count from the centre of
    # the first pixel, which lies further in when the pixel is larger.
    offset = (pixel - 1.0) / 2.0
    world = world_scale(section)
    levels = pyramid(image.pixels)
    arguments: dict[str, Any] = {
        "name": f"{section.name} {image.name}",
        "rgb": True,
        "multiscale": len(levels) > 1,
        "scale": (pixel * world,) * 2,
        "translate": (offset * world,) * 2,
        "metadata": {METADATA_KEY: {"section": section, "role": "image"}},
        **units(section),
    }
    return levels if len(levels) > 1 else levels[0], arguments, "image"


def pyramid(pixels: np.ndarray) -> list[np.ndarray]:
    """Halve an image (H, W, 3) uint8 until it is small: the full one first."""
    levels = [pixels]
    while max(levels[-1].shape[:2]) > 2 * _SMALLEST_LEVEL:
        last = levels[-1]
        # Mean of four pixels; a last odd row or column is left out.
        even = last[: last.shape[0] // 2 * 2, : last.shape[1] // 2 * 2].astype(np.uint16)
        mean = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) >> 2
        levels.append(mean.astype(np.uint8))
    return levels
