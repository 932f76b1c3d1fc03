"""Writing one data set of a store: AnnData as zarr v3, a window of rows at a time.

What anndata needs to read it is there (``encoding-type`` and so on). Matrices are sharded: many
chunks, each read by itself, in one file, so that a million cells are hundreds of files and not
tens of thousands. Larger chunks cost less each, and more where a part of one is wanted.

Shapes: n cells, G genes, A antibodies.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    import zarr

CHUNK_ROWS = 128
SHARD_CHUNKS = 32
_ROWS_PER_CHUNK = 4_096
"""Of arrays with few columns, such as antibody counts."""


def smallest_type(highest: float) -> np.dtype[Any]:
    """Smallest unsigned type that holds counts up to `highest`; estimates are rounded."""
    return np.min_scalar_type(int(np.rint(highest)))


def open_new(path: Path) -> zarr.Group:
    """Make the root of a data set, as AnnData has it."""
    import zarr

    root = zarr.open_group(path, mode="w-", zarr_format=3)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        root.create_group(name, attributes={"encoding-type": "dict", "encoding-version": "0.1.0"})
    return root


def write_element(group: zarr.Group, key: str, value: Any) -> None:
    """Write anything that anndata knows."""
    import anndata
    from anndata.io import write_elem

    # Said explicitly, because the defaults change between versions of anndata.
    wanted = {"zarr_write_format": 3, "auto_shard_zarr_v3": False}
    known = {key: value for key, value in wanted.items() if hasattr(anndata.settings, key)}
    with anndata.settings.override(**known), warnings.catch_warnings():
        # Arrays of text have no final specification in zarr v3 yet; anndata writes them so.
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
        write_elem(group, key, value)


class FrameWriter:
    """A DataFrame on disk, written column by column.

    Parameters
    ----------
    parent, key
        Where.
    index
        Names of the rows, array of text.
    """

    def __init__(self, parent: zarr.Group, key: str, index: Any) -> None:
        self._group = parent.create_group(key)
        self._columns: list[str] = []
        self._index = "_index"
        self._names = index

    def add(self, name: str, values: Any) -> None:
        """Write a column."""
        write_element(self._group, name, values)
        self._columns.append(name)

    def finish(self) -> None:
        """Write the index, under a name that no column has, and say what there is."""
        while self._index in self._columns:
            self._index = f"_{self._index}"
        write_element(self._group, self._index, self._names)
        self._group.attrs.update(
            {
                "_index": self._index,
                "column-order": self._columns,
                "encoding-type": "dataframe",
                "encoding-version": "0.2.0",
            }
        )


class CsrWriter:
    """A CSR matrix on disk, written a few rows at a time; only whole shards are written.

    Parameters
    ----------
    parent, key
        Where.
    shape
        (n, G).
    values_per_row
        Stored values of a row, about: what a chunk is measured by.
    dtype
        Type of the values.
    """

    def __init__(
        self,
        parent: zarr.Group,
        key: str,
        shape: tuple[int, int],
        values_per_row: float,
        dtype: np.dtype[Any],
    ) -> None:
        self._group = parent.create_group(
            key,
            attributes={
                "encoding-type": "csr_matrix",
                "encoding-version": "0.1.0",
                "shape": list(shape),
            },
        )
        chunk = max(1, round(CHUNK_ROWS * values_per_row))
        self._shard = chunk * SHARD_CHUNKS
        # Not the smallest type: scipy works with indices of 32 or 64 bits alone, and what the upper
        # bytes hold compresses to nearly nothing.
        index_type = np.dtype(np.int32)
        self._arrays = [
            _array(self._group, name, (0,), (chunk,), (self._shard,), kind)
            for name, kind in (("data", dtype), ("indices", index_type))
        ]
        self._waiting: list[list[np.ndarray]] = [[], []]
        self._n_waiting = self._n_written = 0
        self._lengths: list[np.ndarray] = []

    def add(self, rows: sparse.csr_matrix) -> None:
        """Write the next rows."""
        self._lengths.append(np.diff(rows.indptr))
        for waiting, array, values in zip(
            self._waiting, self._arrays, (rows.data, rows.indices), strict=True
        ):
            waiting.append(values.astype(array.dtype))
        self._n_waiting += rows.nnz
        self._write(self._n_waiting - self._n_waiting % self._shard)

    def _write(self, n_values: int) -> None:
        if n_values == 0:
            return
        for number, array in enumerate(self._arrays):
            values = np.concatenate(self._waiting[number])
            array.resize((self._n_written + n_values,))
            array[self._n_written :] = values[:n_values]
            self._waiting[number] = [values[n_values:].copy()]
        self._n_written += n_values
        self._n_waiting -= n_values

    def finish(self) -> int:
        """Write what is left, and where the rows begin; returns the number of values."""
        self._write(self._n_waiting)
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        indptr = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=indptr[1:])
        chunk = min(len(indptr), 2**18)
        array = _array(self._group, "indptr", indptr.shape, (chunk,), None, indptr.dtype)
        array[:] = indptr
        return self._n_written


class RowsWriter:
    """A dense array of few columns on disk, written a few rows at a time.

    Parameters
    ----------
    parent, key
        Where.
    shape
        (n, A).
    dtype
        Type of the values.
    """

    def __init__(
        self, parent: zarr.Group, key: str, shape: tuple[int, int], dtype: np.dtype[Any]
    ) -> None:
        chunks = (min(shape[0], _ROWS_PER_CHUNK), shape[1])
        self._array = _array(parent, key, shape, chunks, None, dtype)
        self._n_written = 0
        self._waiting: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """Write the next rows; a chunk is written once, when it is full."""
        self._waiting.append(rows)
        n_waiting = sum(map(len, self._waiting))
        self._write(n_waiting - n_waiting % self._array.chunks[0])

    def _write(self, n_rows: int) -> None:
        if n_rows == 0:
            return
        values = np.concatenate(self._waiting)
        self._array[self._n_written : self._n_written + n_rows] = values[:n_rows]
        self._n_written += n_rows
        self._waiting = [values[n_rows:].copy()]

    def finish(self) -> None:
        """Write what is left."""
        self._write(sum(map(len, self._waiting)))


def _array(
    group: zarr.Group,
    key: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    dtype: np.dtype[Any],
) -> Any:
    from zarr.codecs import BloscCodec

    return group.create_array(
        key,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        # Zstd behind a byte shuffle halves counts and indices once more than zstd alone does.
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
        attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
    )
