"""AnnData on disk (``.h5ad``, AnnData ``.zarr``), read in blocks of rows and never whole.

`BackedTable` opens a file without its matrices, finds the raw counts by the rule of
`sclinguist_core.data.counts`, and reads them a few rows at a time, so that memory does not grow
with the number of cells.

Shapes: n cells, G features.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sclinguist_core.data.backed_matrix import BLOCK_VALUES, BackedMatrix
from sclinguist_core.data.counts import ValueSurvey, Verdict, choose_counts, count_places
from sclinguist_core.data.features import gene_mask
from sclinguist_core.data.readers.hdf5 import check_hdf5
from sclinguist_core.data.readers.zarr_check import check_zarr, no_strangers
from sclinguist_core.errors import InputError
from sclinguist_core.reading import check_fits, reading

__all__ = ["BLOCK_VALUES", "BackedTable", "FoundCounts"]

_IN_BLOCKS = frozenset({"X", "layers", "raw", "obsm", "obsp", "varm", "varp", "uns"})
"""Parts of a file that are not read whole, or not at all."""


class BackedTable:
    """An AnnData file whose rows are read in blocks; closed by ``with`` or `close`.

    Parameters
    ----------
    path
        ``.h5ad`` file or AnnData ``.zarr`` folder.

    Attributes
    ----------
    path
        The file.
    group
        Its root: `h5py.File` or `zarr.Group`.

    Raises
    ------
    InputError
        If it cannot be read as AnnData.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closing = ExitStack()
        self._read: dict[str, Any] = {}
        with _reading(path), no_strangers():
            self.group: Any = self._open()
            found = sorted(map(str, self.group.keys()))
        if not {"obs", "var"} <= set(found):
            self.close()
            raise InputError(
                f"'{path}' is no AnnData: expected obs and var in it, found "
                f"{', '.join(found) or 'nothing'}; give the file that anndata wrote."
            )

    def _open(self) -> Any:
        if self.path.is_dir():
            import zarr

            check_zarr(self.path, not_whole=_IN_BLOCKS)
            return zarr.open_group(self.path, mode="r", use_consolidated=False)
        import h5py

        check_hdf5(self.path, not_whole=_IN_BLOCKS)
        return self._closing.enter_context(h5py.File(self.path, "r"))

    def __enter__(self) -> BackedTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._closing.close()

    @property
    def has_rows(self) -> bool:
        """Whether rows can be read a few at a time: not of matrices by column, nor of old files."""
        with _reading(self.path):
            # Before version 0.7 anndata wrote obs as one compound dataset.
            if "_index" not in self.group["obs"].attrs:
                return False
            places = ["X", "raw/X", *(f"layers/{name}" for name in self.names("layers"))]
            return all(
                self.group[place].attrs.get("encoding-type") != "csc_matrix"
                for place in places
                if place in self.group
            )

    def element(self, key: str) -> Any:
        """Read one element, such as ``"var"`` or ``"obs/donor"``, into memory.

        Raises
        ------
        InputError
            If it is damaged, or larger than the memory that is free.
        """
        from anndata.io import read_elem

        with _reading(self.path), no_strangers():
            node = self.group[key]
            check_fits(_n_bytes(node), self.path)
            return read_elem(node)

    def frame(self, key: str) -> pd.DataFrame:
        """Read one element that has to be a table, such as ``"obs"``.

        Raises
        ------
        InputError
            If it is none, or see `element`.
        """
        frame = self.element(key)
        if not isinstance(frame, pd.DataFrame):
            raise InputError(
                f"'{self.path}' is damaged: {key} is {type(frame).__name__}, expected a table; "
                "write it anew with anndata, or fetch it again."
            )
        return frame

    def names(self, key: str) -> list[str]:
        """Names of the elements of a group, such as ``"layers"``; none where it is absent."""
        with _reading(self.path), no_strangers():
            node = self.group.get(key, {})
            # anndata writes an array without values where there is no ``raw``.
            return [] if hasattr(node, "shape") else sorted(map(str, node.keys()))

    def obs_names(self) -> pd.Index:
        """Names of the cells, length n."""
        with _reading(self.path):
            key = self.group["obs"].attrs["_index"]
            # As objects first: zarr gives text of a type that does not turn into others.
            names = np.asarray(self.element(f"obs/{key}"), dtype=object)
            return pd.Index(names, dtype=object).astype(str)

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        with _reading(self.path):
            return _n_rows(self.group["obs"])

    def var(self, where: str = "X") -> pd.DataFrame:
        """Features of a matrix: of ``raw`` its own."""
        return self.frame("raw/var" if where == "raw" else "var")

    def matrix(self, where: str) -> BackedMatrix:
        """Matrix at ``"X"``, ``"layers/<name>"`` or ``"raw"``.

        Raises
        ------
        InputError
            If it is stored by column, or its parts do not fit together or to the names of cells
            and features.
        """
        place, var = ("raw/X", "raw/var") if where == "raw" else (where, "var")
        with _reading(self.path):
            matrix = BackedMatrix(self.group[place], self.path, place)
            named = (self.n_obs, _n_rows(self.group[var]))
        if matrix.shape != named:
            raise InputError(
                f"{matrix.label} is damaged: it is {matrix.shape[0]:,} x {matrix.shape[1]:,}, but "
                f"{named[0]:,} cells and {named[1]:,} features have names; write the file anew, or "
                "fetch it again."
            )
        return matrix

    def find_counts(self, layer: str | None = None) -> FoundCounts:
        """Find the raw counts, as `sclinguist_core.data.counts.find_counts` does.

        Parameters
        ----------
        layer
            Layer to use instead of searching.

        Raises
        ------
        InputError
            If no counts are found.
        """
        steps = self.find_counts_iter(layer)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: FoundCounts = end.value
                return found

    def find_counts_iter(
        self, layer: str | None = None
    ) -> Generator[tuple[int, int], None, FoundCounts]:
        """Find the raw counts, as `find_counts`; every candidate is read through once, in blocks.

        Yields
        ------
        tuple of int
            How many cells of how many were looked at, of the candidate in hand.
        """
        layers = self.names("layers")
        has_raw = "X" in self.names("raw")
        places = count_places(layers, has_x="X" in self.group, has_raw=has_raw)
        surveys: dict[str, ValueSurvey] = {}
        while True:
            # Whoever chooses asks for one candidate after the other, and each answer takes a pass
            # through the file: what is not known yet is looked at, and the choice begins anew.
            missing: list[str] = []

            def judge(where: str, missing: list[str] = missing) -> Verdict:
                if where in surveys:
                    return surveys[where].verdict()
                missing.append(where)
                return Verdict(counts=True, found="")

            where, notes = choose_counts(places, layers, judge, layer, f"'{self.path}'")
            if not missing:
                highest = float(max(surveys[where].high, 0.0))
                return FoundCounts(where=where, notes=notes, highest=highest)
            surveys[missing[0]] = yield from self._survey(missing[0])

    def _survey(self, where: str) -> Generator[tuple[int, int], None, ValueSurvey]:
        genes = gene_mask(self.var(where))
        matrix = self.matrix(where)
        survey = ValueSurvey(matrix.n_values)
        for start, stop in matrix.blocks():
            if genes.all() or not genes.any():
                survey.add(matrix.values(start, stop))
            else:
                rows = matrix.rows(start, stop)
                survey.add(rows.data[genes[rows.indices]])
            yield stop, matrix.shape[0]
        return survey

    def obsm_rows(self, key: str, start: int, stop: int) -> Any:
        """Read some rows of an element of ``obsm``: an array, or a DataFrame of what is numbers."""
        node = self.group["obsm"][key]
        encoding = node.attrs.get("encoding-type", "array")
        if encoding == "array":
            return np.asarray(node[start:stop])
        if encoding == "dataframe":
            columns = [str(name) for name in node.attrs["column-order"]]
            parts = {name: node[name] for name in columns}
            # Categories and the like are groups, and no counts.
            kept = {
                name: part[start:stop]
                for name, part in parts.items()
                if len(getattr(part, "shape", ())) == 1 and part.dtype.kind in "biuf"
            }
            return pd.DataFrame(kept, columns=list(kept))
        if key not in self._read:
            self._read[key] = self.element(f"obsm/{key}")
        return self._read[key][start:stop]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundCounts:
    """Where a file keeps its raw counts.

    Attributes
    ----------
    where
        ``"X"``, ``"layers/<name>"`` or ``"raw"``.
    notes
        What the user should know about the choice, one sentence each.
    highest
        Largest count of the genes; 0 where there is none.
    """

    where: str
    notes: tuple[str, ...]
    highest: float


def _n_bytes(node: Any) -> int:
    """Bytes that the arrays of an element state that they take in memory."""
    if hasattr(node, "shape"):
        return math.prod(node.shape or ()) * int(node.dtype.itemsize)
    return sum(_n_bytes(node[name]) for name in node.keys())  # noqa: SIM118 - groups of zarr


def _n_rows(frame: Any) -> int:
    """Rows of a DataFrame on disk."""
    names = frame[frame.attrs["_index"]]
    if not hasattr(names, "shape"):  # categories, or text with gaps: a group of arrays
        names = names["codes" if "codes" in names else "values"]
    return int(names.shape[0])


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(path, "AnnData", remedy="write it anew with anndata, or fetch it again")
