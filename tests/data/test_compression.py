"""Slow compression is told from the file, with the remedy; fast compression is passed over."""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import zarr
from scipy import sparse
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from sclinguist_core.data.compression import slow_compression


def _table() -> anndata.AnnData:
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(0.3, (40, 30)).astype(np.float32))
    return anndata.AnnData(counts, layers={"counts": counts.copy()})


def test_gzip_is_told_with_level_chunk_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "my cells.h5ad"
    _table().write_h5ad(path, compression="gzip", compression_opts=4)
    with h5py.File(path) as file:
        chunk = file["X/data"].chunks[0]
    sentence = slow_compression(path)
    assert sentence is not None
    assert "gzip at level 4" in sentence
    assert f"chunks of {chunk:,} values" in sentence
    assert f"`sclinguist store build '{path}' -o FOLDER`" in sentence


@pytest.mark.parametrize("compression", [None, "lzf"])
def test_fast_files_are_passed_over(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "cells.h5ad"
    _table().write_h5ad(path, compression=compression)
    assert slow_compression(path) is None


def test_the_place_of_the_counts_is_what_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    table = _table()
    table.raw = table
    table.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        values = file["layers/counts/data"][:]
        del file["layers/counts/data"]
        file["layers/counts"].create_dataset("data", data=values, compression="gzip")
    assert slow_compression(path) is None
    assert slow_compression(path, "raw") is None
    sentence = slow_compression(path, "layers/counts")
    assert sentence is not None
    assert "layers/counts" in sentence


def test_a_dense_matrix_is_looked_at_too(tmp_path: Path) -> None:
    path = tmp_path / "dense.h5ad"
    table = _table()
    table.X = table.X.toarray()
    table.write_h5ad(path, compression="gzip", compression_opts=1)
    assert "gzip at level 1" in (slow_compression(path) or "")


def test_huge_chunks_are_slow_under_any_compression(tmp_path: Path) -> None:
    path = tmp_path / "chunk.h5ad"
    with h5py.File(path, "w") as file:
        file.create_dataset("X/data", (2**24 + 1,), "u1", chunks=(2**24 + 1,), compression="lzf")
    assert f"lzf in chunks of {2**24 + 1:,} values" in (slow_compression(path) or "")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_is_told_by_its_codec(tmp_path: Path, zarr_format: int) -> None:
    import numcodecs

    codecs = (
        {"gzip": GzipCodec(level=5), "zstd": ZstdCodec(level=3), "blosc": BloscCodec()}
        if zarr_format == 3
        else {
            "gzip": numcodecs.GZip(level=5),
            "zstd": numcodecs.Zstd(level=3),
            "blosc": numcodecs.Blosc(),
        }
    )
    for name, codec in codecs.items():
        group = zarr.open_group(tmp_path / f"{name}.zarr", mode="w", zarr_format=zarr_format)
        group.create_group("X").create_array(
            "data", shape=(1000,), chunks=(100,), dtype="u1", compressors=codec
        )
    assert slow_compression(tmp_path / "zstd.zarr") is None
    assert slow_compression(tmp_path / "blosc.zarr") is None
    assert "gzip at level 5 in chunks of 100 values" in (
        slow_compression(tmp_path / "gzip.zarr") or ""
    )


def test_shards_are_looked_into(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=3)
    group.create_group("X").create_array(
        "data", shape=(1000,), chunks=(100,), shards=(500,), dtype="u1", compressors=GzipCodec()
    )
    assert "chunks of 100 values" in (slow_compression(tmp_path / "s.zarr") or "")


def test_what_is_no_table_is_left_to_its_reader(tmp_path: Path) -> None:
    (tmp_path / "text.h5ad").write_text("no HDF5")
    (tmp_path / "empty.zarr").mkdir()
    assert slow_compression(tmp_path / "text.h5ad") is None
    assert slow_compression(tmp_path / "empty.zarr") is None
    assert slow_compression(tmp_path / "absent.h5ad") is None
