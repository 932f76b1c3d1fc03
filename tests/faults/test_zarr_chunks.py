"""Chunks of zarr are looked at before they are unpacked, wherever they lie."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import zarr
from numcodecs import Zstd
from scipy import sparse
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from faults.bombs import zstd_stream
from sclinguist_core.data.readers import chunk_heads
from sclinguist_core.data.readers.zarr_check import check_zarr
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError

N, SHARD, CHUNK = 5_000, 2_000, 500
COMPRESSORS = {"blosc": BloscCodec(), "gzip": GzipCodec(), "zstd": ZstdCodec()}


def in_shards(store: Path, compressor: str, index: str = "end") -> Path:
    """Folder of the chunks of an array in shards, of which the last is not full."""
    array = zarr.create_array(
        store,
        shape=(N,),
        dtype="float32",
        chunks=(CHUNK,),
        shards={"shape": (SHARD,), "index_location": index},
        compressors=COMPRESSORS[compressor],
        filters=None,
    )
    array[:] = np.random.default_rng(0).poisson(1, N)
    return store / "c"


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("index", ["start", "end"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_honest_shards(tmp_path, compressor, index):
    in_shards(tmp_path / "a.zarr", compressor, index)
    check_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("index", ["start", "end"])
def test_a_chunk_of_a_shard_that_was_cut_off(tmp_path, index):
    shard = in_shards(tmp_path / "a.zarr", "blosc", index) / "1"
    content = shard.read_bytes()
    n_index = 16 * SHARD // CHUNK + 4
    cut = content[:-60] if index == "start" else content[: -n_index - 60] + content[-n_index:]
    shard.write_bytes(cut)
    with pytest.raises(InputError, match="its index names chunks that are not"):
        check_zarr(tmp_path / "a.zarr")
    shard.write_bytes(content[: n_index - 1])
    with pytest.raises(InputError, match="expected an index of"):
        check_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_a_bomb_in_a_shard(tmp_path, compressor, monkeypatch):
    monkeypatch.setattr(chunk_heads, "_HARMLESS", 2**12)
    chunks = in_shards(tmp_path / "a.zarr", compressor)
    bomb = in_shards(tmp_path / "b.zarr", compressor) / "0"
    array = zarr.create_array(
        tmp_path / "c.zarr", shape=(2**20,), dtype="float32", chunks=(2**20,),
        compressors=COMPRESSORS[compressor], filters=None, config={"write_empty_chunks": True},
    )  # fmt: skip
    array[:] = 0
    packed = (tmp_path / "c.zarr" / "c" / "0").read_bytes()
    # The index of the other shard, with the bomb for its second chunk.
    entries = bytearray(bomb.read_bytes()[-68:])
    entries[16:32] = struct.pack("<QQ", 1_000, len(packed))
    (chunks / "0").write_bytes(bytes(1_000) + packed + bytes(10_000) + entries)
    if compressor == "blosc":  # the others' heads must be right, too
        entries[:16] = entries[32:48] = entries[48:64] = struct.pack("<QQ", 2**64 - 1, 2**64 - 1)
        (chunks / "0").write_bytes(bytes(1_000) + packed + entries)
    if compressor == "gzip":
        entries[:16] = entries[32:48] = entries[48:64] = entries[16:32]
        (chunks / "0").write_bytes(bytes(1_000) + packed + entries)
    with pytest.raises(InputError, match=r"unpacks to [0-9,]+ bytes or more, expected 2,000"):
        check_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_shape": [300]},
        {"chunk_shape": [500, 1]},
        {"chunk_shape": "500"},
        {"index_codecs": [{"name": "bytes"}, {"name": "gzip"}]},
        {"codecs": [{"name": "sharding_indexed"}]},
    ],
)
def test_shards_that_cannot_be_followed(tmp_path, changes):
    in_shards(tmp_path / "a.zarr", "zstd")
    path = tmp_path / "a.zarr" / "zarr.json"
    (codec,) = json.loads(path.read_text())["codecs"]
    edit(path, codecs=[{**codec, "configuration": codec["configuration"] | changes}])
    with pytest.raises(InputError, match="in shards in a way that is not known"):
        check_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("n_frames", [1, 2])
def test_zstandard_without_a_size(tmp_path, monkeypatch, n_frames):
    node = {
        "zarr_format": 2, "shape": [2**20], "chunks": [2**20], "dtype": "|u1",
        "compressor": {"id": "zstd"},
    }  # fmt: skip
    (tmp_path / "0").write_bytes(zstd_stream(2**20 // n_frames) * n_frames)
    # So small a chunk cannot become much, and is not unpacked to find out.
    assert chunk_heads.check_chunks(tmp_path, node, 2**20) == 0
    monkeypatch.setattr(chunk_heads, "_HARMLESS", 0)
    assert chunk_heads.check_chunks(tmp_path, node, 2**20) == 2**20
    with pytest.raises(InputError, match="unpacks to"):
        chunk_heads.check_chunks(tmp_path, node, 2**18)
    (tmp_path / "0").write_bytes((tmp_path / "0").read_bytes()[:-8])
    with pytest.raises(InputError, match="cannot be read as a chunk"):
        chunk_heads.check_chunks(tmp_path, node, 2**20)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_texts_of_any_length_end_at_the_memory_that_is_free(tmp_path, monkeypatch, codec):
    """Of texts no chunk's size is known beforehand."""
    import gzip

    node = {
        "zarr_format": 2, "shape": [4], "chunks": [4], "dtype": "|O",
        "compressor": {"id": codec}, "filters": [{"id": "vlen-utf8"}],
    }  # fmt: skip
    (tmp_path / ".zarray").write_text(json.dumps(node))
    packed = gzip.compress(bytes(2**24)) if codec == "gzip" else zstd_stream(2**24)
    (tmp_path / "0").write_bytes(packed)
    monkeypatch.setattr(chunk_heads, "_HARMLESS", 0)
    check_zarr(tmp_path)
    monkeypatch.setattr(chunk_heads, "free_memory", lambda: 2**22)
    monkeypatch.setattr("sclinguist_core.reading.free_memory", lambda: 2**22)
    with pytest.raises(InputError, match="states that it holds"):
        check_zarr(tmp_path)


def sparse_store(path: Path, zarr_format: int) -> Path:
    """A table of few values and many places, 30 GB if it were dense."""
    n_obs, n_vars = 200_000, 20_000
    values = np.ones(n_obs, np.float32), np.arange(n_obs) % n_vars, np.arange(n_obs + 1)
    table = ad.AnnData(sparse.csr_matrix(values, shape=(n_obs, n_vars)))
    if zarr_format == 3:
        return write_table(table, path)
    with warnings.catch_warnings(action="ignore"), ad.settings.override(zarr_write_format=2):
        table.write_zarr(path)
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_sparse_matrix_is_as_large_as_its_values(tmp_path, zarr_format, monkeypatch):
    """Not as large as its places, which attributes tell the number of."""
    store = sparse_store(tmp_path / "a.zarr", zarr_format)
    monkeypatch.setattr("sclinguist_core.reading.free_memory", lambda: 2**28)
    check_zarr(store)
    monkeypatch.setattr("sclinguist_core.reading.free_memory", lambda: 2**18)
    with pytest.raises(InputError, match="states that it holds"):
        check_zarr(store)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_consolidated_metadata_say_is_looked_at_where_it_differs(tmp_path, zarr_format):
    """Libraries read the consolidated metadata, and not those beside the chunks."""
    store = sparse_store(tmp_path / "a.zarr", zarr_format)
    data = store / "X" / "data"
    chunk = data / ("c/0" if zarr_format == 3 else "0")
    chunk.write_bytes(Zstd().encode(bytes(2**24)))
    own = data / ("zarr.json" if zarr_format == 3 else ".zarray")
    plain = {"codecs": [{"name": "bytes"}]} if zarr_format == 3 else {"compressor": None}
    if zarr_format == 2:
        listed = store / ".zmetadata"
        content = json.loads(listed.read_text())
        content["metadata"]["X/data/.zarray"]["compressor"] = {"id": "zstd"}
        listed.write_text(json.dumps(content))
    edit(own, **plain)
    with pytest.raises(InputError, match="unpacks to 16,777,216"):
        check_zarr(store)
    own.unlink()
    with pytest.raises(InputError, match="unpacks to 16,777,216"):
        check_zarr(store)
