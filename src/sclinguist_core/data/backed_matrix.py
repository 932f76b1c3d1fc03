"""A matrix on disk, CSR or dense, of which rows are read a few at a time.

Shapes: n cells, G features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from sclinguist_core.errors import InputError
from sclinguist_core.reading import check_fits, reason

BLOCK_VALUES = 2**22
"""Stored values that are read at a time: about 3,000 cells, 50 MB."""


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
            # In the type of the file and in ours; a damaged one may state any length.
            check_fits(16 * math.prod(node["indptr"].shape), path)
            self.indptr = node["indptr"][:].astype(np.int64)
            self._check_rows()
        else:
            self.shape = (int(node.shape[0]), int(node.shape[1]))
            check_fits(node.dtype.itemsize * self.shape[1], path)  # a row

    def _check_rows(self) -> None:
        assert self.indptr is not None
        n_values = int(self._node["data"].shape[0])
        if (
            len(self.indptr) != self.shape[0] + 1
            or self.indptr[0] != 0
            or self.indptr[-1] != n_values
            or self._node["indices"].shape[0] != n_values
            or (self.indptr[1:] < self.indptr[:-1]).any()
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

    @contextmanager
    def _reading_from(self, start: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # libraries raise nearly every one over damaged files
            raise InputError(
                f"{self.label} cannot be read from row {start:,} on ({reason(error)}): the file "
                "is damaged or not complete; write it anew, or fetch it again."
            ) from error

    def _part(self, name: str) -> Any:
        if name not in self._parts:
            self._parts[name] = self._node[name]
        return self._parts[name]

    def values(self, start: int, stop: int) -> np.ndarray:
        """Read the stored values of some rows, 1-dimensional, of the type in the file.

        Raises
        ------
        InputError
            If they cannot be read.
        """
        with self._reading_from(start):
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
        with self._reading_from(start):
            if self.indptr is None:
                return sparse.csr_matrix(np.asarray(self._node[start:stop]))
            first, last = int(self.indptr[start]), int(self.indptr[stop])
            data, indices = self._part("data")[first:last], self._part("indices")[first:last]
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
