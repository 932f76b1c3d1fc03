"""AnnData on disk (``.h5ad``, AnnData ``.zarr``), read in blocks of rows and never whole.

`BackedTable` opens a file without its matrices, finds the raw counts by the rule of
`sclinguist_core.data.counts`, and reads them a few rows at a time, so that memory does not grow
with the number of cells.

Shapes: n cells, G features.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.counts import ValueSurvey, Verdict, choose_counts, count_places
from sclinguist_core.data.features import gene_mask
from sclinguist_core.data.readers.hdf5 import check_hdf5
from sclinguist_core.data.readers.zarr_check import check_zarr
from sclinguist_core.errors import InputError
from sclinguist_core.reading import reading

_IN_BLOCKS = frozenset({"X", "layers", "raw", "obsm", "obsp", "varm", "varp", "uns"})
"""Parts of a file that are not read whole, or not at all."""
BLOCK_VALUES = 2**22
"""Stored values that are read at a time: about 3,000 cells, 50 MB."""


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
        with _reading(path):
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
            If it is damaged.
        """
        from anndata.io import read_elem

        with _reading(self.path):
            return read_elem(self.group[key])

    def names(self, key: str) -> list[str]:
        """Names of the elements of a group, such as ``"layers"``; none where it is absent."""
        node = self.group.get(key, {})
        # anndata writes an array without values where there is no ``raw``.
        return [] if hasattr(node, "shape") else sorted(map(str, node.keys()))

    def obs_names(self) -> pd.Index:
        """Names of the cells, length n."""
        frame = self.group["obs"]
        # As objects first: zarr gives text of a type that does not turn into others.
        names = np.asarray(self.element(f"obs/{frame.attrs['_index']}"), dtype=object)
        return pd.Index(names, dtype=object).astype(str)

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        with _reading(self.path):
            frame = self.group["obs"]
            return int(frame[frame.attrs["_index"]].shape[0])

    def var(self, where: str = "X") -> pd.DataFrame:
        """Features of a matrix: of ``raw`` its own."""
        frame: pd.DataFrame = self.element("raw/var" if where == "raw" else "var")
        return frame

    def matrix(self, where: str) -> BackedMatrix:
        """Matrix at ``"X"``, ``"layers/<name>"`` or ``"raw"``.

        Raises
        ------
        InputError
            If it is stored by column, or its parts do not fit together.
        """
        place = "raw/X" if where == "raw" else where
        with _reading(self.path):
            return BackedMatrix(self.group[place], self.path, place)

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


class BackedMatrix:
    """A CSR or dense matrix on disk.

    Parameters
    ----------
    node
        Its group (sparse) or array (dense).
    path, place
        Where it is, for messages.

    Attributes
    ----------
    shape
        (n, G).
    indptr
        Where the rows of a CSR matrix begin, int64, shape (n + 1,); None of a dense one.
    """

    def __init__(self, node: Any, path: Path, place: str) -> None:
        self._node = node
        # Looking an array up takes as long as reading a row of it.
        self._parts: dict[str, Any] = {}
        self.label = f"'{path}' ({place})"
        self.indptr: np.ndarray | None = None
        encoding = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", "array"))
        if encoding in {"csc_matrix", "csc"}:
            raise InputError(
                f"{self.label} is stored by column (CSC), so that rows cannot be read a few at a "
                "time; expected CSR: write it anew with adata.X = adata.X.tocsr()."
            )
        if encoding in {"csr_matrix", "csr"}:
            shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
            self.shape = (int(shape[0]), int(shape[1]))
            self.indptr = node["indptr"][:].astype(np.int64)
            self._check_rows()
        else:
            self.shape = (int(node.shape[0]), int(node.shape[1]))

    def _check_rows(self) -> None:
        assert self.indptr is not None
        n_values = int(self._node["data"].shape[0])
        if (
            len(self.indptr) != self.shape[0] + 1
            or self.indptr[0] != 0
            or self.indptr[-1] != n_values
            or self._node["indices"].shape[0] != n_values
            or (np.diff(self.indptr) < 0).any()
        ):
            raise InputError(
                f"{self.label} is damaged: its rows (indptr) do not fit its {n_values:,} values; "
                "write the file anew, or fetch it again."
            )

    @property
    def n_values(self) -> int:
        """Stored values, zeros of a dense matrix included."""
        if self.indptr is None:
            return self.shape[0] * self.shape[1]
        return int(self.indptr[-1])

    @property
    def chunk_rows(self) -> int:
        """Rows that lie in one chunk of the file, about: what a read costs at least."""
        stored = self._node if self.indptr is None else self._node["data"]
        if stored.chunks is None:
            return 1
        if self.indptr is None:
            return int(stored.chunks[0])
        return max(1, int(stored.chunks[0] * self.shape[0] / max(self.n_values, 1)))

    def blocks(self, n_values: int = BLOCK_VALUES) -> Iterator[tuple[int, int]]:
        """First row, and row after the last, of blocks of at most `n_values` values (or a row)."""
        start, n_rows = 0, self.shape[0]
        while start < n_rows:
            if self.indptr is None:
                stop = start + max(1, n_values // max(self.shape[1], 1))
            else:
                last = np.searchsorted(self.indptr, self.indptr[start] + n_values, side="right")
                stop = max(start + 1, int(last) - 1)
            stop = min(stop, n_rows)
            yield start, stop
            start = stop

    def _part(self, name: str) -> Any:
        if name not in self._parts:
            self._parts[name] = self._node[name]
        return self._parts[name]

    def values(self, start: int, stop: int) -> np.ndarray:
        """Read the stored values of some rows, 1-dimensional, of the type in the file."""
        if self.indptr is None:
            return np.asarray(self._node[start:stop]).ravel()
        values: np.ndarray = self._part("data")[self.indptr[start] : self.indptr[stop]]
        return values

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Read some rows, CSR of the type in the file, shape (stop - start, G).

        Raises
        ------
        InputError
            If they cannot be read, or name columns that are not there.
        """
        try:
            if self.indptr is None:
                return sparse.csr_matrix(np.asarray(self._node[start:stop]))
            first, last = int(self.indptr[start]), int(self.indptr[stop])
            data, indices = self._part("data")[first:last], self._part("indices")[first:last]
        except Exception as error:
            raise InputError(
                f"{self.label} cannot be read from row {start:,} on ({_reason(error)}): the file "
                "is damaged or not complete; write it anew, or fetch it again."
            ) from error
        # Before the type changes: an index beyond it would come out as a wrong one.
        if indices.dtype.kind not in "iu" or (
            len(indices) and (indices.min() < 0 or indices.max() >= self.shape[1])
        ):
            raise InputError(
                f"{self.label} is damaged: rows {start:,} to {stop:,} name columns beyond its "
                f"{self.shape[1]:,}; write the file anew, or fetch it again."
            )
        indptr = (self.indptr[start : stop + 1] - first).astype(np.int32)
        parts = (data, indices.astype(np.int32, copy=False), indptr)
        return sparse.csr_matrix(parts, shape=(stop - start, self.shape[1]), copy=False)


def _reading(path: Path) -> AbstractContextManager[None]:
    return reading(path, "AnnData", remedy="write it anew with anndata, or fetch it again")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
