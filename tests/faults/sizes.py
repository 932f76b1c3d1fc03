"""Small files that state that they hold more than memory does."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import h5py

from faults.fault import Make
from faults.makers import cases, edit_json, in_hdf5, in_zarr
from faults.small import Small

_HUGE = 10**12
_MTX = b"%%MatrixMarket matrix coordinate integer general\n"


def _mtx_of(entries: bytes) -> Make:
    """Write a matrix whose line of sizes is hostile."""

    def make(folder: Path, small: Small) -> Path:
        root = small.copy("mtx", folder)
        (root / "matrix.mtx.gz").write_bytes(gzip.compress(_MTX + entries))
        return root

    return make


def _empty_array(key: str, n: int = _HUGE, dtype: str = "f4") -> Callable[[h5py.File, Path], None]:
    """Put an array of which a single chunk is stored in the place of another."""

    def change(file: h5py.File, folder: Path) -> None:
        attributes = dict(file[key].attrs)
        del file[key]
        array = file.create_dataset(
            key, shape=(n,), chunks=(2**16,), dtype=dtype, compression="gzip"
        )
        array[:10] = 0
        array.attrs.update(attributes)

    return change


def _dense(file: h5py.File, folder: Path) -> None:
    del file["X"]
    array = file.create_dataset("X", shape=(12, 10**11), chunks=(1, 2**16), dtype="f4")
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def _sparse_shape(file: h5py.File, folder: Path) -> None:
    file["X"].attrs["shape"] = [12, 2**62]


def _wide_names(file: h5py.File, folder: Path) -> None:
    n = len(file["matrix/barcodes"])
    del file["matrix/barcodes"]
    file.create_dataset("matrix/barcodes", shape=(n,), chunks=(1,), dtype=f"S{2**30}")


def _zarr_array(key: str, shape: int, chunks: int) -> Make:
    """State another size of an array, in its own metadata and in the consolidated ones."""

    def change(content: dict) -> None:
        content["shape"] = [shape]
        content["chunk_grid"]["configuration"]["chunk_shape"] = [chunks]

    def on_disk(store: Path, folder: Path) -> None:
        edit_json(store / key / "zarr.json", change)
        edit_json(
            store / "zarr.json", lambda top: change(top["consolidated_metadata"]["metadata"][key])
        )

    return in_zarr(on_disk)


def _safetensors(header: dict | bytes, stated: int | None = None) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("model", folder)
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        length = len(text) if stated is None else stated
        (root / "model.safetensors").write_bytes(struct.pack("<Q", length) + text)
        return root

    return make


def _parquet(folder: Path, small: Small) -> Path:
    """Write ten thousand million rows, of each of which is stored only that it is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = small.copy("visium", folder)
    (root / "spatial" / "tissue_positions.csv").unlink()
    table = pa.table({"barcode": pa.nulls(10**10)})
    pq.write_table(table, root / "spatial" / "tissue_positions.parquet", row_group_size=2**26)
    return root


_TENSOR = {"w": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}
_NO_DATA = {"w": {"dtype": "F32", "shape": [0, 10**15], "data_offsets": [0, 0]}}
_OVERFLOW = {"w": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]}}
_HOLDS = "states that it holds"
_READ = {
    "matrix of 10^15 entries": (_mtx_of(b"240 12 1000000000000000\n1 1 1\n"), _HOLDS),
    "matrix of 10^18 barcodes": (_mtx_of(b"240 1000000000000000000 1\n1 1 1\n"), _HOLDS),
    "matrix of 10^400 genes": (_mtx_of(b"1" + b"0" * 400 + b" 12 1\n1 1 1\n"), _HOLDS),
    "matrix of 10^5000 genes": (_mtx_of(b"1" * 5_000 + b" 12 1\n1 1 1\n"), "line of sizes"),
    # Tables larger than memory are streamed.
    "HDF5 data of 10^12 zeros": (in_hdf5(_empty_array("X/data")), "do not fit its"),
    "HDF5 indptr of 10^12 zeros": (in_hdf5(_empty_array("X/indptr")), _HOLDS),
    "HDF5 names of 10^12 cells": (in_hdf5(_empty_array("obs/_index", dtype="S20")), _HOLDS),
    "HDF5 dense X of 12 x 10^11": (in_hdf5(_dense), _HOLDS),
    "HDF5 sparse X of 12 x 2^62": (in_hdf5(_sparse_shape), "4,?611,?686"),
    "10x data of 10^12 zeros": (in_hdf5(_empty_array("matrix/data"), "tenx"), _HOLDS),
    "10x barcodes of 10^9 letters": (in_hdf5(_wide_names, "tenx"), "letters of room"),
    "zarr values of 10^12, of which a chunk is there": (
        _zarr_array("X/data", _HUGE, 1000),
        "1 of its 1,000,000,000 chunks",
    ),
    "zarr names of 10^12 cells": (_zarr_array("obs/_index", _HUGE, 1000), _HOLDS),
    "zarr names of 10^30 cells": (_zarr_array("obs/_index", 10**30, 1000), _HOLDS),
    "zarr chunk of 10^12 values": (_zarr_array("X/data", 100, _HUGE), _HOLDS),
    "Parquet of 10^10 rows": (_parquet, _HOLDS),
}
_STREAMED = (
    "HDF5 indptr of 10^12 zeros", "HDF5 names of 10^12 cells", "HDF5 dense X of 12 x 10^11",
    "HDF5 sparse X of 12 x 2^62", "zarr names of 10^12 cells", "zarr chunk of 10^12 values",
)  # fmt: skip
_MODEL = {
    "safetensors header of 10^15 bytes": (_safetensors({}, 10**15), "as safetensors"),
    "safetensors header of 2^64 bytes": (_safetensors({}, 2**64 - 1), "as safetensors"),
    "tensor of 10^15 values": (_safetensors(_TENSOR), "as safetensors"),
    "tensor of 0 x 10^15 values": (_safetensors(_NO_DATA), "."),
    "tensor of 2^32 x 2^32 values": (_safetensors(_OVERFLOW), "."),
}

FAULTS = [
    *cases("sizes beyond memory", _READ),
    *cases("sizes beyond memory", {name: _READ[name] for name in _STREAMED}, command="stream"),
    *cases("sizes beyond memory", _MODEL, command="model"),
]
