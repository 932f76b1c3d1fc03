"""Outlines of segmented cells in GeoJSON: where each cell lies and how large it is.

A section of a million cells has hundreds of megabytes of outlines, which as Python objects would
take ten times that. The file is therefore read feature by feature, and of each only the centroid
and the area are kept.

Shapes: n cells, m points of all outlines in a batch, r outlines.
"""

from __future__ import annotations

import io
import json
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.reading import opened, reading

_BLOCK = 1 << 22
"""Characters that are read at a time."""
_LONGEST_VALUE = 1 << 25
"""Characters of one feature: an outline of a cell has some thousand."""
_BATCH = 4_096
_NUMBER = re.compile(r"^(?:cellid_)?0*(\d{1,18})(?:-\d+)?$")
_NO_OUTLINE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CellOutlines:
    """What the outlines of cells tell.

    Attributes
    ----------
    numbers
        (n,) int64: number of each cell, as in its barcode (7 for ``cellid_000000007-1``).
    centroids
        (n, 2) float64: x, y, in the units of the file.
    areas
        (n,) float64, in the square of these units; 0 for an outline that encloses nothing.
    n_empty
        Cells without any outline; they are not among the others.
    """

    numbers: np.ndarray
    centroids: np.ndarray
    areas: np.ndarray
    n_empty: int


def read_cell_outlines(path: Path) -> CellOutlines:
    """Read the outlines of cells, in memory that does not grow with the file.

    Parameters
    ----------
    path
        GeoJSON, a FeatureCollection of Polygons or MultiPolygons with the cell's number in
        ``properties.cell_id``, as Space Ranger 4 writes it; possibly gzip-compressed. Holes are
        passed over.

    Raises
    ------
    InputError
        If the file is damaged, is no FeatureCollection, or names a cell twice.
    """
    parts = [_Batch()]
    with (
        opened(path) as file,
        reading(path, "GeoJSON"),
        io.TextIOWrapper(file, encoding="utf-8-sig") as text,
    ):
        for feature in _features(text, path):
            if len(parts[-1].numbers) == _BATCH:
                parts[-1].finish(path)
                parts.append(_Batch())
            try:
                parts[-1].add(feature)
            except _NO_OUTLINE as error:
                raise _not_a_cell(feature, path) from error
    parts[-1].finish(path)
    numbers = np.concatenate([np.array(part.numbers, np.int64) for part in parts])
    repeated = len(numbers) - len(np.unique(numbers))
    if repeated:
        raise InputError(
            f"'{path}' outlines {repeated:,} cell(s) more than once, expected each once: take the "
            "file that Space Ranger wrote."
        )
    return CellOutlines(
        numbers=numbers,
        centroids=np.concatenate([part.centroids for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        n_empty=sum(part.n_empty for part in parts),
    )


def _doubles() -> array[float]:
    return array("d")


@dataclass(kw_only=True, slots=True)
class _Batch:
    """Some thousand cells: points one behind another while they come, then places and areas."""

    numbers: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    points: array[float] = field(default_factory=_doubles)
    n_empty: int = 0
    centroids: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    areas: np.ndarray = field(default_factory=lambda: np.empty(0))

    def add(self, feature: Any) -> None:
        """Take a cell; raises one of `_NO_OUTLINE` where it is none."""
        number = _number(feature["properties"]["cell_id"])
        rings = _outer_rings(feature["geometry"])
        for ring in rings:
            if set(map(len, ring)) != {2}:
                ring = [(x, y) for x, y, *_ in ring]
            # At once, for lists of a million cells would keep the garbage collector busy.
            self.points.extend(chain.from_iterable(ring))
            self.lengths.append(len(ring))
            self.owners.append(len(self.numbers))
        if rings:
            self.numbers.append(number)
        else:
            self.n_empty += 1

    def finish(self, path: Path) -> None:
        """Work out places and areas."""
        if not self.numbers:
            return
        owners, lengths = np.array(self.owners), np.array(self.lengths)
        points = np.frombuffer(self.points, np.float64).reshape(-1, 2)
        wrong = np.flatnonzero(~np.isfinite(points).all(axis=1))
        if len(wrong):
            owner = np.repeat(owners, lengths)[wrong[0]]
            raise _not_a_cell({"properties": {"cell_id": self.numbers[owner]}}, path)
        self.centroids, self.areas = _measure(points, lengths, owners)
        self.points = array("d")


def _not_a_cell(feature: Any, path: Path) -> InputError:
    found = str(feature.get("properties") if isinstance(feature, dict) else feature)[:80]
    return InputError(
        f"'{path}' has a feature that is no outline of a cell (properties {found}), expected a "
        "Polygon of x and y and a whole number as cell_id: take cell_segmentations.geojson as "
        "Space Ranger wrote it."
    )


def _number(value: Any) -> int:
    if isinstance(value, str):
        matched = _NUMBER.match(value)
        if matched is None:
            raise ValueError(value)
        return int(matched.group(1))
    if isinstance(value, bool) or int(value) != value or not 0 <= value < 10**18:
        raise ValueError(value)
    return int(value)


def _outer_rings(geometry: Any) -> list[Any]:
    """Outlines of a geometry without their holes; none where there is no geometry."""
    if geometry is None:
        return []
    if geometry["type"] == "Polygon":
        parts = [geometry["coordinates"]]
    elif geometry["type"] == "MultiPolygon":
        parts = geometry["coordinates"]
    else:
        raise ValueError(geometry["type"])
    return [part[0] for part in parts if part and part[0]]


def _measure(
    points: np.ndarray, lengths: np.ndarray, owners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids (n, 2) and areas (n,) of cells.

    The shoelace formula, about the first point of each outline so that nothing is lost far from
    the origin. Of an outline without area it is the mean of the points.

    Parameters
    ----------
    points
        (m, 2) of all outlines, one outline behind the other.
    lengths, owners
        (r,) points of each outline, and the place of its cell.
    """
    starts = np.cumsum(lengths) - lengths
    first = points[starts]
    xy = points - np.repeat(first, lengths, axis=0)
    following = np.arange(1, len(xy) + 1)
    following[starts + lengths - 1] = starts
    cross = xy[:, 0] * xy[following, 1] - xy[following, 0] * xy[:, 1]
    twice = np.add.reduceat(cross, starts)
    weighted = np.add.reduceat((xy + xy[following]) * cross[:, None], starts, axis=0)
    centres = np.add.reduceat(xy, starts, axis=0) / lengths[:, None]
    filled = np.abs(twice) > 1e-9
    centres[filled] = weighted[filled] / (3 * twice[filled, None])
    centres += first

    n = int(owners[-1]) + 1
    areas = np.bincount(owners, np.abs(twice) / 2, minlength=n)
    # Parts of a cell count by their area, or alike where none has any.
    weights = np.where(areas[owners] > 0, np.abs(twice) / 2, 1.0)
    total = np.bincount(owners, weights, minlength=n)
    centroids = [np.bincount(owners, weights * axis, minlength=n) / total for axis in centres.T]
    return np.column_stack(centroids), areas


# --- reading feature by feature -----------------------------------------------------------------


def _features(file: TextIO, path: Path) -> Iterator[Any]:
    """Yield the features of a collection; its other members are passed over."""
    text = _JsonText(file, path)
    text.expect("{")
    found = False
    while text.peek() == '"':
        key = text.value()
        text.expect(":")
        if key != "features":
            text.value()
        else:
            found = True
            text.expect("[")
            while text.peek() != "]":
                yield text.value()
                if text.peek() != ",":
                    break
                text.expect(",")
            text.expect("]")
        if text.peek() != ",":
            break
        text.expect(",")
    text.expect("}")
    if not found:
        raise InputError(
            f"'{path}' is no FeatureCollection, expected a list of features with the outlines of "
            "cells: take cell_segmentations.geojson as Space Ranger wrote it."
        )


class _JsonText:
    """JSON of any length, of which a part is held at a time."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._text = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Next character that is no space; "" at the end."""
        while True:
            rest = len(self._text) - self._at
            while rest and self._text[self._at] in " \t\r\n":
                self._at += 1
                rest -= 1
            if rest:
                return self._text[self._at]
            if not self._more():
                return ""

    def expect(self, character: str) -> None:
        """Pass over a character."""
        found = self.peek()
        if found != character:
            raise self._damaged(f"found {found!r} where {character!r} is due" if found else "")
        self._at += 1

    def value(self) -> Any:
        """Read the next value, whole."""
        if not self.peek():
            raise self._damaged()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except RecursionError as error:
                raise self._damaged("it is nested too deeply") from error
            except ValueError as error:
                if len(self._text) - self._at > _LONGEST_VALUE:
                    raise self._damaged("a feature does not end") from error
                if self._more():
                    continue
                raise self._damaged() from error
            if end < len(self._text):
                self._at = end
                return value
            if not self._more():
                self._at = len(self._text)
                return value
            # A number at the very end may go on in what was read now.

    def _more(self) -> bool:
        block = self._file.read(_BLOCK)
        self._text = self._text[self._at :] + block
        self._at = 0
        return bool(block)

    def _damaged(self, detail: str = "") -> InputError:
        why = detail or "it ends too early"
        return InputError(
            f"'{self._path}' cannot be read as GeoJSON ({why}): the file is damaged or not "
            "complete; fetch it again."
        )
