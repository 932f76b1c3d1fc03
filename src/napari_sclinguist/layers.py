"""A section as napari layers: the tissue image, and the spots or cells upon it.

Pure data: neither Qt nor napari is imported. World coordinates are µm where the size of a pixel is
known (every layer then says so in ``units``), pixels of the full-resolution image elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_sclinguist.features import Feature, default_features, find_feature
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from sclinguist_core.data.section import Section, SectionImage

LayerData = tuple[Any, dict[str, Any], str]
"""Data, arguments of the layer, layer type: what a napari reader returns."""

METADATA_KEY = "sclinguist"

_SHOWN_PERCENTILES = (1, 99)  # a few extreme spots must not darken all others
_COLORMAP = "viridis"


def section_layers(section: Section, feature: str | None = None) -> list[LayerData]:
    """Turn a section into layers.

    Parameters
    ----------
    section
        A section with positions.
    feature
        Protein, gene or ``obs`` column to colour by; chosen by `default_features` if None.

    Returns
    -------
    list of LayerData
        The image, if the section has one, and the points. Both carry
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
    features = default_features(section)
    if feature is not None:
        chosen = find_feature(section, feature)
        others = [other for other in features if other.label != chosen.label]
        features = [chosen, *others[:2]]
    layers = [_points(section, features)]
    if section.image is not None:
        layers.insert(0, _image(section, section.image))
    return layers


def _image(section: Section, image: SectionImage) -> LayerData:
    pixel = 1.0 / image.scale  # side of an image pixel in full-resolution pixels
    # Both grids begin at the same corner, but napari (and Space Ranger) count from the centre of
    # the first pixel, which lies further in when the pixel is larger.
    offset = (pixel - 1.0) / 2.0
    return (
        image.pixels,
        {
            "name": f"{section.name} {image.name}",
            "rgb": True,
            "translate": (offset * _world(section),) * 2,
            "metadata": {METADATA_KEY: {"section": section, "role": "image"}},
            **_scale_and_units(section, pixel),
        },
        "image",
    )


def _points(section: Section, features: list[Feature]) -> LayerData:
    arguments: dict[str, Any] = {
        "name": f"{section.name} spots",
        "size": section.drawn_diameter,
        "symbol": "square" if section.assay == "visium_hd" else "disc",
        "border_width": 0,
        "opacity": 0.8,
        "metadata": {METADATA_KEY: {"section": section, "role": "spots"}},
        **_scale_and_units(section, 1.0),
    }
    if features:
        shown = features[0]
        columns = {feature.label: feature.values for feature in features}
        arguments |= {
            "name": f"{section.name}: {shown.label}",
            "features": pd.DataFrame(columns),
            "face_color": shown.label,
            "face_colormap": _COLORMAP,
            "face_contrast_limits": contrast_limits(shown.values),
        }
        arguments["metadata"][METADATA_KEY] |= {"feature": shown.label, "unit": shown.unit}
    # napari's order is (row, column), the section's (x, y)
    return section.positions[:, ::-1].copy(), arguments, "points"


def contrast_limits(values: np.ndarray) -> tuple[float, float]:
    """Range of values that the colours span, without the outermost percent at both ends."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return (0.0, 1.0)
    low, high = (float(value) for value in np.percentile(finite, _SHOWN_PERCENTILES))
    return (low, high) if high > low else (low, low + 1.0)


def _world(section: Section) -> float:
    """World units in a full-resolution pixel."""
    return section.microns_per_pixel or 1.0


def _scale_and_units(section: Section, pixel: float) -> dict[str, Any]:
    scaled = {"scale": (pixel * _world(section),) * 2}
    if section.microns_per_pixel is None:
        return scaled
    return scaled | {"units": ("µm", "µm")}
