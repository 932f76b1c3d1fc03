"""What the first bytes of the chunks of a zarr array say, before a library believes them.

Blosc's decoder takes the length of a packed chunk from the chunk itself, and reads on behind the
end of one that was cut off. Both Blosc and Zstandard take as much memory as a chunk states, and
thirty kilobytes can stand for a gigabyte. What states nothing is unpacked bit by bit, and counted.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from sclinguist_core.data.readers.shards import (
    Packed,
    as_codecs,
    codec_name,
    inner_chunks,
    settings,
    sharding,
)
from sclinguist_core.errors import InputError
from sclinguist_core.reading import free_memory, reading

METADATA = frozenset({".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"})
"""Names of files that hold no chunk."""
_ZSTD = b"\x28\xb5\x2f\xfd"
_HEAD = 18
"""Bytes of the longest header."""
_LZ4 = 4
"""Bytes of the length that numcodecs writes before what LZ4 packed."""
_COMPRESSORS = frozenset({"blosc", "zstd", "lz4", "gzip", "zlib"})
"""Those of which the size of what they unpack to is known, or can be bounded."""
_FILTERS = frozenset(
    {
        "bytes", "transpose", "sharding_indexed", "crc32c", "crc32", "adler32", "fletcher32",
        "jenkins_lookup3", "vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2", "delta",
        "shuffle", "quantize", "bitround", "fixedscaleoffset", "scale_offset", "cast_value",
        "packbits", "categorize", "astype",
    }
)  # fmt: skip
"""What changes the size of values by little."""
_MOST_OF_DEFLATE = 1032
"""Bytes that one byte of gzip or zlib may unpack to."""
_MOST_OF_ZSTD = 2**15
"""Bytes that one byte of Zstandard may unpack to: four say that one is repeated 128 KiB long."""
_HARMLESS = 2**28
"""Bytes that a chunk may unpack to without being looked at: to find out takes as long as to read
it."""
_AT_ONCE = 2**20
_AS_IN_MEMORY = frozenset({"bytes", "transpose", "crc32c"}) | _COMPRESSORS
_CHECKSUM = 16
"""Bytes that a checksum adds to a chunk, at most."""
_REMEDY = "copy the store again, or write it anew"


def check_codecs(node: dict[str, Any], path: Path) -> None:
    """Refuse an array that is packed by what cannot be bounded, or packed twice.

    Raises
    ------
    InputError
        Naming the codec.
    """
    for chain in _chains(node):
        strange = [name for name in chain if name not in _COMPRESSORS | _FILTERS]
        if strange:
            raise InputError(
                f"'{path}' packs an array by '{strange[0]}', expected "
                f"{', '.join(sorted(_COMPRESSORS))} or nothing: write the store anew with one of "
                "these."
            )
        packed = [name for name in chain if name in _COMPRESSORS]
        if len(packed) > 1:
            raise InputError(
                f"'{path}' packs an array by {' and '.join(packed)}, expected one of them at most: "
                "write the store anew."
            )


def check_chunks(array: Path, node: dict[str, Any], n_bytes: int) -> int:
    """Look at the heads of an array's chunks.

    Parameters
    ----------
    array
        Its folder.
    node
        Its metadata; nothing happens for a group.
    n_bytes
        Of a chunk, as metadata state it.

    Returns
    -------
    int
        Bytes that the largest chunk says that it unpacks to; 0 where chunks do not tell.

    Raises
    ------
    InputError
        If a chunk is not complete, or would unpack to more than a chunk has.
    """
    shards = sharding(node, n_bytes, array)
    chain = _codecs(node if shards is None else shards.chunk)
    codec = next((name for name in chain if name in _COMPRESSORS), "")
    if not codec:
        return 0
    if shards is not None:
        node, n_bytes = shards.chunk, shards.chunk_bytes
    largest, most = 0, n_bytes + _CHECKSUM if n_bytes and _has_fixed_size(node) else math.inf
    for folder, _, names in os.walk(array):
        for name in sorted(set(names) - METADATA):
            path = Path(folder, name)
            with reading(path, "a chunk", remedy=_REMEDY), path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                pieces = [Packed(0, size)] if shards is None else inner_chunks(file, shards, path)
                stated = [_unpacked(codec, file, piece, most, path) for piece in pieces]
            if (unpacked := max(stated, default=0)) > most:
                raise InputError(
                    f"'{path}' unpacks to {unpacked:,} bytes or more, expected {n_bytes:,} as "
                    f"of every chunk: it is damaged; {_REMEDY}."
                )
            largest = max(largest, unpacked)
    return largest


def _codecs(node: dict[str, Any]) -> list[str]:
    """Names of what chunks are packed by."""
    return next(_chains(node))


def _chains(node: dict[str, Any]) -> Iterator[list[str]]:
    """Names of the codecs of chunks, and of the chunks and the index within those of shards."""
    # What has a name in the third format had an id in the second; the other key means nothing.
    second = [node.get("compressor"), *_listed(node, "filters")]
    named = [{"name": each.get("id")} if isinstance(each, dict) else each for each in second]
    waiting = [[*named, *_listed(node, "codecs")]]
    while waiting:
        codecs = as_codecs([each for each in waiting.pop() if isinstance(each, dict | str)])
        yield [codec_name(codec) for codec in codecs]
        for codec in codecs:
            waiting += [_listed(settings(codec), key) for key in ("codecs", "index_codecs")]


def _listed(node: dict[str, Any], key: str) -> list[Any]:
    found = node.get(key)
    return found if isinstance(found, list) else []


def _has_fixed_size(node: dict[str, Any]) -> bool:
    """Whether values take the same number of bytes each, packed as in memory, as numbers do."""
    if node.get("filters") or not _AS_IN_MEMORY.issuperset(_codecs(node)):
        return False
    try:
        return np.dtype(node.get("dtype", node.get("data_type"))).kind in "biufcSU"
    except (TypeError, ValueError, SyntaxError):  # numpy reads types as Python does
        return False


def _unpacked(codec: str, file: IO[bytes], piece: Packed, most: float, path: Path) -> int:
    """Bytes that a chunk unpacks to; 0 where they cannot be many, or it is damaged beyond that."""
    file.seek(piece.start)
    head = file.read(min(_HEAD, piece.size))
    if codec == "blosc":
        return _of_blosc(head, piece.size, path)
    if codec == "lz4":
        return int.from_bytes(head[:_LZ4], "little")  # numcodecs makes room for them
    if codec == "zstd":
        stated = _of_zstd(head)
        if stated is not None or piece.size * _MOST_OF_ZSTD <= _HARMLESS:
            return stated or 0
    elif piece.size * _MOST_OF_DEFLATE <= _HARMLESS:
        return 0
    most = min(most, free_memory())
    file.seek(piece.start)
    return (_count_zstd if codec == "zstd" else _count_deflate)(file, piece.size, most)


def _of_blosc(head: bytes, size: int, path: Path) -> int:
    packed = int.from_bytes(head[12:16], "little")
    if len(head) < 16 or packed != size:
        raise InputError(
            f"'{path}' has a chunk of {size:,} bytes, expected {packed:,} as it says itself: the "
            f"store is not complete; {_REMEDY}."
        )
    return int.from_bytes(head[4:8], "little")


def _of_zstd(head: bytes) -> int | None:
    """Bytes that a Zstandard frame states; None where it states none, 0 where it is no frame."""
    if not head.startswith(_ZSTD) or len(head) < 6:
        return 0
    kind, single = head[4] >> 6, head[4] >> 5 & 1
    length = (single, 2, 4, 8)[kind]
    if not length:
        return None
    start = 5 + (1 - single) + (0, 1, 2, 4)[head[4] & 3]
    stated = int.from_bytes(head[start : start + length], "little")
    return stated + 256 * (length == 2)


def _count_zstd(file: IO[bytes], size: int, most: float) -> int:
    """Bytes that frames of Zstandard unpack to, counted until they are more than `most`."""
    import pyarrow as pa

    unpacked = 0
    with pa.CompressedInputStream(pa.BufferReader(file.read(size)), "zstd") as stream:
        while unpacked <= most and (part := stream.read(_AT_ONCE)):
            unpacked += len(part)
    return unpacked


def _count_deflate(file: IO[bytes], size: int, most: float) -> int:
    """Bytes that gzip or zlib unpack to, counted until they are more than `most`."""
    unpacked, left = 0, size
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)  # either of them
    while unpacked <= most:
        packed = unpacker.unconsumed_tail or unpacker.unused_data
        if not packed:
            packed = file.read(min(_AT_ONCE, left))
            left -= len(packed)
        if not packed:
            break
        if unpacker.eof:  # gzip may hold one after another
            unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)
        unpacked += len(unpacker.decompress(packed, _AT_ONCE))
    return unpacked
