"""Shards of a zarr array: files that hold many chunks and an index of where each lies."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from sclinguist_core.errors import InputError

_CODEC = "sharding_indexed"
_ENTRY = 16
"""Bytes of an entry of an index: where a chunk begins, and its length."""
_CRC = 4
_NOT_THERE = 2**64 - 1
_REMEDY = "copy the store again, or write it anew"


class Packed(NamedTuple):
    """A chunk as it lies in a file, in bytes."""

    start: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """How an array is kept in shards.

    Attributes
    ----------
    chunk
        Metadata of a chunk within a shard, as those of an array without shards would be.
    chunk_bytes
        What a chunk takes in memory; 0 where that is not known.
    n_chunks
        Chunks of a shard.
    index_bytes
        Length of the index.
    at_start
        Whether the index is the first thing in the file, and not the last.
    byte_order
        Of the index, as numpy writes it.
    """

    chunk: dict[str, Any]
    chunk_bytes: int
    n_chunks: int
    index_bytes: int
    at_start: bool
    byte_order: str


def sharding(node: dict[str, Any], n_bytes: int, array: Path) -> Sharding | None:
    """Read how an array is kept in shards; None if it is not.

    Parameters
    ----------
    node
        Metadata of the array.
    n_bytes
        Of a shard in memory; 0 where that is not known.
    array
        Its folder, named in the message.

    Raises
    ------
    InputError
        If it says that in a way that cannot be followed.
    """
    codecs = as_codecs(node.get("codecs"))
    configuration = next((settings(codec) for codec in codecs if codec_name(codec) == _CODEC), None)
    if configuration is None:
        return None
    inner, index = (as_codecs(configuration.get(key)) for key in ("codecs", "index_codecs"))
    names = [codec_name(codec) for codec in index]
    grid = node.get("chunk_grid")
    outer = _shape(settings(grid).get("chunk_shape") if isinstance(grid, dict) else None)
    shape = _shape(configuration.get("chunk_shape"))
    is_known = (
        len(outer) == len(shape) > 0
        and not any(many % one for many, one in zip(outer, shape, strict=True))
        and codec_name(codecs[-1]) == _CODEC
        and names in (["bytes"], ["bytes", "crc32c"])
        and all(codec_name(codec) != _CODEC for codec in inner)
    )
    if not is_known:
        raise InputError(
            f"'{array}' is kept in shards in a way that is not known, expected chunks that fill "
            "them, one level of them, and neither them nor their index packed as a whole: write "
            "the store anew."
        )
    n_chunks = math.prod(outer) // math.prod(shape)
    return Sharding(
        chunk={**node, "codecs": inner},
        chunk_bytes=n_bytes // n_chunks,
        n_chunks=n_chunks,
        index_bytes=n_chunks * _ENTRY + _CRC * ("crc32c" in names),
        at_start=configuration.get("index_location", "end") == "start",
        byte_order=">" if settings(index[0]).get("endian") == "big" else "<",
    )


def inner_chunks(file: IO[bytes], shards: Sharding, path: Path) -> list[Packed]:
    """Read where the chunks of a shard lie.

    Raises
    ------
    InputError
        If the index, or a chunk that it names, is not in the file.
    """
    size = os.fstat(file.fileno()).st_size
    if shards.index_bytes > size:
        raise InputError(
            f"'{path}' has {size:,} bytes, expected an index of {shards.index_bytes:,}: the store "
            f"is not complete; {_REMEDY}."
        )
    begin = 0 if shards.at_start else size - shards.index_bytes
    low, high = (shards.index_bytes, size) if shards.at_start else (0, begin)
    file.seek(begin)
    content = file.read(shards.n_chunks * _ENTRY)
    places = np.frombuffer(content, f"{shards.byte_order}u8").reshape(-1, 2)
    found = [Packed(*place) for place in places[(places != _NOT_THERE).any(axis=1)].tolist()]
    if any(piece.start < low or piece.start + piece.size > high for piece in found):
        raise InputError(
            f"'{path}' has {size:,} bytes, expected others, as its index names chunks that are not "
            f"among them: the store is not complete; {_REMEDY}."
        )
    return found


def _shape(value: Any) -> list[int]:
    """Numbers of values in each direction; none where that is not what was written."""
    is_shape = isinstance(value, list) and all(type(n) is int and n > 0 for n in value)
    return value if is_shape else []


def as_codecs(listed: Any) -> list[dict[str, Any]]:
    """Codecs as objects: a name alone is one without settings; none where that is no list."""
    codecs = listed if isinstance(listed, list) else []
    return [codec if isinstance(codec, dict) else {"name": codec} for codec in codecs]


def codec_name(codec: dict[str, Any]) -> str:
    """Name of a codec, whoever made it."""
    return str(codec.get("name")).removeprefix("numcodecs.")


def settings(codec: dict[str, Any]) -> dict[str, Any]:
    """Return what a codec is set to."""
    found = codec.get("configuration")
    return found if isinstance(found, dict) else {}
