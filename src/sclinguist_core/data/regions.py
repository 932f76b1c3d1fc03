"""Regions of a section that somebody drew: polygons as GeoJSON, and categories from Loupe Browser.

Shapes: n spots, bins or cells, k points of an outline.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.files import replacing
from sclinguist_core.reading import plain_file

_SEPARATORS = (",", ";", "\t")
_SUFFIX = "-1"
"""Ends every barcode of a single capture area; some tools leave it away."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A named part of the plane.

    Attributes
    ----------
    name
        Need not be unique: several regions may be of one kind.
    polygons
        Outlines, each float64 of shape (k, 2): x, y in full-resolution pixels, not closed by a
        repeated point. What an even number of outlines encloses is outside, so an outline within
        another is a hole, and a loop of a self-crossing one may be.

    Raises
    ------
    InputError
        If there is no outline, or one is not at least three finite points.
    """

    name: str
    polygons: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        outlines = tuple(np.asarray(outline, np.float64) for outline in self.polygons)
        for outline in outlines:
            if outline.ndim != 2 or outline.shape[1] != 2 or len(outline) < 3:
                raise InputError(
                    f"region {self.name!r}: found an outline of shape {outline.shape}, expected "
                    "at least three points of x and y; draw it again."
                )
            if not np.isfinite(outline).all():
                raise InputError(
                    f"region {self.name!r}: found a coordinate that is not a finite number, "
                    "expected pixels; draw it again."
                )
        if not outlines:
            raise InputError(f"region {self.name!r}: found no outline, expected at least one.")
        object.__setattr__(self, "polygons", outlines)


def inside(region: Region, positions: np.ndarray) -> np.ndarray:
    """Tell which positions lie in a region.

    Parameters
    ----------
    region
        Outlines may cross themselves and each other: the even-odd rule decides.
    positions
        x, y in full-resolution pixels, shape (n, 2).

    Returns
    -------
    bool, shape (n,). A position on an outline itself may fall on either side.
    """
    import shapely

    x, y = np.asarray(positions, np.float64).T
    enclosed = np.zeros(len(x), bool)
    for outline in region.polygons:
        (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
        near = np.flatnonzero((x >= left) & (x <= right) & (y >= top) & (y <= bottom))
        polygon = shapely.Polygon(outline)
        shapely.prepare(polygon)
        enclosed[near] ^= shapely.contains_xy(polygon, x[near], y[near])
    return enclosed


def read_geojson(path: str | Path, *, pixels_per_unit: float = 1.0) -> list[Region]:
    """Read regions from GeoJSON, such as QuPath exports.

    Parameters
    ----------
    path
        A FeatureCollection, a list of features, a feature or a bare geometry. Polygons and
        MultiPolygons count; points and lines are passed over.
    pixels_per_unit
        Full-resolution pixels per unit of the file. QuPath writes pixels of its image: 1 when
        that is the full-resolution image.

    Returns
    -------
    One region a feature, named by ``properties.name``, else by its classification, else
    "region 1" by its place in the list.

    Raises
    ------
    InputError
        If the file cannot be read, is not GeoJSON, or holds no polygon.
    """
    path = Path(path)
    if not (np.isfinite(pixels_per_unit) and pixels_per_unit > 0):
        raise InputError(f"pixels per unit {pixels_per_unit}: expected a positive number.")
    plain_file(path)
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"Cannot read '{path}' ({error.strerror}): check the name.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"'{path}' is not JSON ({error}), expected regions as GeoJSON; export them again, in "
            "QuPath with File > Export objects as GeoJSON."
        ) from error
    regions: list[Region] = []
    kinds: list[str] = []
    for geometry, properties in _geometries(content):
        kinds.append(str(geometry.get("type")))
        name = _name(properties) or f"region {len(regions) + 1}"
        try:
            outlines = [_outline(ring) * pixels_per_unit for ring in _rings(geometry)]
            regions += [Region(name, tuple(outlines))] if outlines else []
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise InputError(
                f"'{path}': feature {len(kinds)} is not a {kinds[-1][:40]} with points of x and y "
                f"({error}); export the regions again."
            ) from error
    if not regions:
        found = ", ".join(sorted(set(kinds))) or "no geometry"
        raise InputError(
            f"'{path}' holds no polygon (found {found}), expected GeoJSON with Polygon or "
            "MultiPolygon features; draw areas and export them again."
        )
    return regions


def write_geojson(regions: Iterable[Region], path: str | Path) -> Path:
    """Write regions as a GeoJSON FeatureCollection that QuPath opens, whole or not at all.

    An outline that lies in an odd number of others of its region is written as a hole.

    Raises
    ------
    InputError
        If the folder does not exist or cannot be written to.
    """
    path = Path(path)
    features = [
        {
            "type": "Feature",
            "geometry": _geometry(region),
            "properties": {"objectType": "annotation", "name": region.name},
        }
        for region in regions
    ]
    try:
        with replacing(path) as temporary:
            content = {"type": "FeatureCollection", "features": features}
            temporary.write_text(json.dumps(content), "utf-8")
    except OSError as error:
        raise InputError(
            f"Cannot write '{path}' ({error.strerror}): choose another folder."
        ) from error
    return path


def read_loupe_categories(path: str | Path) -> pd.DataFrame:
    """Read the categories of spots that Loupe Browser exports as CSV.

    Returns
    -------
    DataFrame of strings, index ``barcode`` as in the file, a column a category; NaN where a spot
    has none.

    Raises
    ------
    InputError
        If the file cannot be read, its first column is not headed "Barcode", it has no other
        column, rows differ in length, or a barcode has two different ones.
    """
    path = Path(path)
    remedy = "export the categories again in Loupe Browser."
    try:
        with plain_file(path).open(encoding="utf-8-sig", newline="") as file:
            separator = max(_SEPARATORS, key=file.readline().count)
            file.seek(0)
            lines = csv.reader(file, delimiter=separator, skipinitialspace=True)
            rows = [[cell.strip() for cell in line] for line in lines if any(line)]
    except OSError as error:
        raise InputError(f"Cannot read '{path}' ({error.strerror}): check the name.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{path}' is not a table of categories ({error}); {remedy}") from error
    header = rows[0] if rows else [""]
    named = header[0].casefold() in ("barcode", "barcodes")
    if not named or len(header) < 2 or len(set(header)) < len(header):
        raise InputError(
            f"'{path}': the columns are headed {', '.join(map(repr, header))[:80]}, expected "
            f"'Barcode' and then one or more different categories; {remedy}"
        )
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(
                f"'{path}': row {number} has {len(row)} columns, expected {len(header)} as in the "
                f"header; {remedy}"
            )
    table = pd.DataFrame(rows[1:], columns=header).drop_duplicates().set_index(header[0])
    table = table.where(table != "").rename_axis("barcode")
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise InputError(
            f"'{path}': the barcode {twice[0]!r} has several different rows, expected one; {remedy}"
        )
    return table


def categories_for(
    barcodes: Sequence[str] | pd.Index, table: pd.DataFrame, column: str | None = None
) -> pd.Categorical:
    """Bring categories into the order of a section's spots.

    Parameters
    ----------
    barcodes
        ``obs_names`` of the section, length n. The ``-1`` at the end of a barcode may be there or
        missing, here and in the table.
    table
        From `read_loupe_categories`.
    column
        Which category; the first when None.

    Returns
    -------
    Length n, NaN where the table does not name the spot; categories that occur, in natural order
    ("Cluster 2" before "Cluster 10").

    Raises
    ------
    InputError
        If there is no such column, or none of the section's barcodes is in the table.
    """
    column = str(table.columns[0]) if column is None else column
    if column not in table.columns:
        raise InputError(
            f"categories: there is no column {column!r}, expected one of "
            f"{', '.join(map(repr, table.columns))}."
        )
    plain = pd.Index(map(str, barcodes)).str.removesuffix(_SUFFIX)
    known = table[column].set_axis(table.index.astype(str).str.removesuffix(_SUFFIX))
    known = known[~known.index.duplicated()]
    n_found = int(plain.isin(known.index).sum())
    if not n_found:
        examples = " and ".join(repr(names[0]) for names in (table.index, barcodes) if len(names))
        raise InputError(
            f"categories: 0 of {len(table)} barcodes are among the {len(plain)} of the section "
            f"(for example {examples}), expected those of the same capture area; choose the file "
            "that belongs to this section."
        )
    values = known.reindex(plain)
    return pd.Categorical(values, categories=sorted(values.dropna().unique(), key=_natural))


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key in which numbers count as numbers, however many digits they have."""
    key = []
    for part in re.split(r"(\d+)", text):
        digits = part.lstrip("0")
        key.append((0, len(digits), digits) if part.isdecimal() else (1, 0, part))
    return key


def _geometries(content: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Geometry and properties of each feature, whatever is around them."""
    features = content if isinstance(content, list) else [content]
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        listed = content.get("features")
        features = listed if isinstance(listed, list) else []
    for feature in features:
        if isinstance(feature, dict):
            geometry = feature.get("geometry") if "geometry" in feature else feature
            properties = feature.get("properties")
            if isinstance(geometry, dict):
                yield geometry, properties if isinstance(properties, dict) else {}


def _rings(geometry: dict[str, Any]) -> list[Any]:
    """All rings of a geometry, holes among them; none for points and lines."""
    kind = geometry.get("type")
    if kind == "Polygon":
        return list(geometry["coordinates"])
    if kind == "MultiPolygon":
        return [ring for polygon in geometry["coordinates"] for ring in polygon]
    if kind == "GeometryCollection":  # these should not be nested
        parts = (part for part in geometry["geometries"] if part["type"] != kind)
        return [ring for part in parts for ring in _rings(part)]
    return []


def _outline(ring: Any) -> np.ndarray:
    """Points of a ring without heights and without the first one repeated at the end."""
    points = np.array([point[:2] for point in ring], np.float64)
    closed = len(points) > 1 and bool((points[0] == points[-1]).all())
    return points[:-1] if closed else points


def _name(properties: dict[str, Any]) -> str:
    classification = properties.get("classification")
    kind = classification if isinstance(classification, dict) else {"name": classification}
    names = kind.get("names")
    joined = ": ".join(map(str, names)) if isinstance(names, list) else None
    for name in (properties.get("name"), kind.get("name"), joined):
        if isinstance(name, str) and name.strip():
            return name.strip()
    return ""


def _geometry(region: Region) -> dict[str, Any]:
    """MultiPolygon of a region's outlines, each hole with the outline around it."""
    outlines = region.polygons
    alone = [Region(region.name, (outline,)) for outline in outlines]
    low = np.array([outline.min(axis=0) for outline in outlines])
    high = np.array([outline.max(axis=0) for outline in outlines])
    around: list[set[int]] = []
    for i, outline in enumerate(outlines):
        near = np.flatnonzero(((low <= high[i]) & (high >= low[i])).all(axis=1)).tolist()
        # Most of its points, since a hole may touch the outline around it.
        around.append({j for j in near if j != i and inside(alone[j], outline).mean() > 0.5})
    polygons = {i: [_ring(outline)] for i, outline in enumerate(outlines) if not len(around[i]) % 2}
    for i, outline in enumerate(outlines):
        if len(around[i]) % 2:
            nearest = [j for j in around[i] if len(around[j]) == len(around[i]) - 1]
            # Outlines that cross may each be mostly in the other: then neither is a hole.
            polygons.setdefault(nearest[0] if nearest else i, []).append(_ring(outline))
    return {"type": "MultiPolygon", "coordinates": list(polygons.values())}


def _ring(outline: np.ndarray) -> list[list[float]]:
    return [*outline.tolist(), outline[0].tolist()]
