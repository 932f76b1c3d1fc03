"""Regions that are drawn on the tissue: the layer that holds them, as outlines, as GeoJSON text.

A region is made of all shapes of one name in the section's regions layer, which keeps the names
in its ``features``, so that they follow the shapes. Shapes lie in full-resolution pixels; napari's
order is (row, column), that of a `Region` (x, y).

Shapes: n spots, bins or cells, k points of an outline.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_sclinguist.layers import METADATA_KEY
from sclinguist_core.data.regions import Region, inside
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari.layers import Shapes
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry

    from napari_sclinguist.control.open_section import OpenSection

REGIONS_KEY = "sclinguist_regions"
"""Where a saved table keeps the regions, as GeoJSON text (``uns``)."""
ROLE = "regions"
"""Role of the layer in its metadata."""
NAME, HOLE = "name", "hole"
"""Columns of the layer's ``features``: name of the region, and whether the shape is cut out."""

_ELLIPSE_POINTS = 64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """A shape of a region.

    Attributes
    ----------
    outline
        x, y in full-resolution pixels, float64, shape (k, 2).
    hole
        Whether it is cut out of the parts before it.
    """

    outline: np.ndarray
    hole: bool = False


def regions_layer(opened: OpenSection) -> Shapes | None:
    """Find the layer that the regions of a section are drawn in; None while there is none."""
    for layer in opened.viewer.layers:
        state = layer.metadata.get(METADATA_KEY, {})
        if state.get("section") is opened.section and state.get("role") == ROLE:
            return layer
    return None


def drawn_regions(opened: OpenSection) -> list[Region]:
    """Regions of a section, the one drawn last at the end; shapes without a name do not count."""
    layer = regions_layer(opened)
    if layer is None:
        return []
    parts: dict[str, list[Part]] = {}
    named = zip(layer.features[NAME], layer.features[HOLE], strict=True)
    for (name, hole), vertices, kind in zip(named, layer.data, layer.shape_type, strict=False):
        outline = outline_of(vertices, kind)
        if name and outline is not None:
            # Taken out and put back, so that regions are in the order of their last shapes.
            parts[name] = [*parts.pop(name, []), Part(outline=outline, hole=bool(hole))]
    found = [joined(name, of_region) for name, of_region in parts.items()]
    return [region for region in found if region is not None]


def outline_of(vertices: np.ndarray, kind: str) -> np.ndarray | None:
    """Outline of a napari shape: x, y, float64, shape (k, 2); None where it encloses nothing.

    Parameters
    ----------
    vertices
        Rows and columns, shape (k, 2); of an ellipse the corners around it.
    kind
        napari's type of the shape.
    """
    points = np.asarray(vertices, np.float64)[:, ::-1]
    if kind == "line" or len(np.unique(points, axis=0)) < 3 or not _polygons(_valid(points)):
        return None
    if kind == "ellipse":
        angle = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)[:, None]
        one, other = (points[1] - points[0]) / 2, (points[2] - points[1]) / 2
        return points.mean(axis=0) + np.cos(angle) * one + np.sin(angle) * other
    return points


def joined(name: str, parts: Sequence[Part]) -> Region | None:
    """Region of all parts together; None where nothing is left of them."""
    if len(parts) == 1 and not parts[0].hole:
        return Region(name, (parts[0].outline,))
    import shapely

    area: BaseGeometry = shapely.Polygon()
    for part in parts:
        add = shapely.difference if part.hole else shapely.union
        area = add(area, _valid(part.outline))
    rings = [ring for polygon in _polygons(area) for ring in _rings(polygon)]
    return Region(name, tuple(rings)) if rings else None


def parts_of(region: Region) -> list[Part]:
    """Take a region apart into outlines to draw and holes to cut out of them."""
    found = []
    for polygon in _even_odd(region):
        outer, *holes = _rings(polygon)
        found += [Part(outline=outer), *(Part(outline=hole, hole=True) for hole in holes)]
    return found


def label_rows(regions: Sequence[Region], positions: np.ndarray) -> tuple[pd.Categorical, int]:
    """Tell which region each position lies in; where several overlap, the last one.

    Parameters
    ----------
    regions
        With different names.
    positions
        x, y in full-resolution pixels, shape (n, 2).

    Returns
    -------
    Labels, length n, NaN outside; and the number of positions that lie in several regions.
    """
    codes = np.full(len(positions), -1)
    times = np.zeros(len(positions), int)
    for code, region in enumerate(regions):
        within = inside(region, positions)
        codes[within] = code
        times += within
    labels = pd.Categorical.from_codes(codes, [region.name for region in regions])
    return labels, int((times > 1).sum())


# --- kept with the table --------------------------------------------------------------------


def to_uns(opened: OpenSection) -> None:
    """Keep the drawn regions in ``uns`` of the section's table, so that saving keeps them."""
    regions, uns = drawn_regions(opened), opened.section.table.uns
    before = uns.pop(REGIONS_KEY, None)
    if regions:
        uns[REGIONS_KEY] = to_text(regions)
    if uns.get(REGIONS_KEY) != before:
        opened.set_dirty(True)


def from_uns(opened: OpenSection) -> list[Region]:
    """Regions that were kept with the section's table; empty where there are none.

    Raises
    ------
    InputError
        If what is there is no GeoJSON with polygons.
    """
    text = opened.section.table.uns.get(REGIONS_KEY)
    return [] if text is None else from_text(str(text), f"uns['{REGIONS_KEY}'] of '{opened.name}'")


def to_text(regions: Iterable[Region]) -> str:
    """Write regions as GeoJSON, one feature a region; those that enclose nothing are left out."""
    from shapely import MultiPolygon
    from shapely.geometry import mapping

    areas = [(region.name, _even_odd(region)) for region in regions]
    features = [
        {
            "type": "Feature",
            "geometry": mapping(MultiPolygon(polygons)),
            "properties": {NAME: name},
        }
        for name, polygons in areas
        if polygons
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


def from_text(text: str, source: str) -> list[Region]:
    """Read what `to_text` wrote; features that enclose nothing are left out.

    Raises
    ------
    InputError
        If it is something else; `source` says where it came from.
    """
    from shapely.geometry import shape

    try:
        found = [
            (
                str(feature["properties"][NAME]),
                tuple(r for p in shape(feature["geometry"]).geoms for r in _rings(p)),
            )
            for feature in json.loads(text)["features"]
        ]
        return [Region(name, rings) for name, rings in found if rings]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"{source} cannot be read ({error}), expected regions as GeoJSON; draw or import them "
            "again."
        ) from error


# --- geometry -------------------------------------------------------------------------------


def _even_odd(region: Region) -> list[Polygon]:
    """Polygons, with their holes, of a region whose outlines count by the even-odd rule."""
    import shapely

    area = _valid(region.polygons[0])
    for outline in region.polygons[1:]:
        area = shapely.symmetric_difference(area, _valid(outline))
    return _polygons(area)


def _valid(outline: np.ndarray) -> BaseGeometry:
    import shapely

    polygon = shapely.Polygon(outline)
    return polygon if polygon.is_valid else shapely.make_valid(polygon)


def _polygons(area: BaseGeometry) -> list[Polygon]:
    """Polygons of any geometry; its lines and points enclose nothing."""
    import shapely

    parts: list[Any] = [area]
    while any(hasattr(part, "geoms") for part in parts):
        parts = [one for part in parts for one in getattr(part, "geoms", [part])]
    return [part for part in parts if isinstance(part, shapely.Polygon) and part.area > 0]


def _rings(polygon: Polygon) -> list[np.ndarray]:
    """Outline and holes of a polygon, not closed by a repeated point."""
    rings = [polygon.exterior, *polygon.interiors]
    return [np.array(ring.coords, np.float64)[:-1, :2] for ring in rings]
