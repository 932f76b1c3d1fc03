"""What the first bytes of the chunks of a zarr array say, before a library believes them.

Blosc's decoder takes the length of a packed chunk from the chunk itself, and reads on behind the
end of one that was cut off. Both Blosc and Zstandard take as much memory as a chunk states, and
thirty kilobytes can stand for a gigabyte.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.reading import reading

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
    codec = next((name for name in _codecs(node) if name in _COMPRESSORS), "")
    if not codec:
        return 0
    largest, most = 0, n_bytes + _CHECKSUM if n_bytes and _has_fixed_size(node) else math.inf
    for folder, _, names in os.walk(array):
        for name in sorted(set(names) - METADATA):
            path = Path(folder, name)
            with reading(path, "a chunk", remedy=_REMEDY), path.open("rb") as file:
                head, size = file.read(_HEAD), os.fstat(file.fileno()).st_size
            if codec in _DEFLATES:
                stated = _of_deflate(path, size, most)
            else:
                stated = _READERS[codec](head, size, path)
            if stated > most:
                raise InputError(
                    f"'{path}' says that it unpacks to {stated:,} bytes, expected {n_bytes:,} as "
                    f"of every chunk: it is damaged; {_REMEDY}."
                )
            largest = max(largest, stated)
    return largest


def _codecs(node: dict[str, Any]) -> list[str]:
    """Names of what chunks are packed by."""
    return next(_chains(node))


def _chains(node: dict[str, Any]) -> Iterator[list[str]]:
    """Names of the codecs of chunks, and of the chunks and the index within those of shards."""
    waiting = [[node.get("compressor"), *_listed(node, "filters"), *_listed(node, "codecs")]]
    while waiting:
        chain = waiting.pop()
        codecs = [codec for codec in chain if isinstance(codec, dict)]
        names = [codec.get("id") or codec.get("name") for codec in codecs]
        names += [codec for codec in chain if isinstance(codec, str)]
        yield [str(name).removeprefix("numcodecs.") for name in names]
        for codec in codecs:
            inner = codec.get("configuration")
            if isinstance(inner, dict):
                waiting += [_listed(inner, key) for key in ("codecs", "index_codecs")]


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


def _of_blosc(head: bytes, size: int, path: Path) -> int:
    packed = int.from_bytes(head[12:16], "little")
    if len(head) < 16 or packed != size:
        raise InputError(
            f"'{path}' has {size:,} bytes, expected {packed:,} as it says itself: the store is not "
            f"complete; {_REMEDY}."
        )
    return int.from_bytes(head[4:8], "little")


def _of_zstd(head: bytes, size: int, path: Path) -> int:
    """Bytes that a Zstandard frame states; 0 where it states none, or is no frame."""
    if not head.startswith(_ZSTD) or len(head) < 6:
        return 0
    kind, single = head[4] >> 6, head[4] >> 5 & 1
    length = (single, 2, 4, 8)[kind]
    start = 5 + (1 - single) + (0, 1, 2, 4)[head[4] & 3]
    stated = int.from_bytes(head[start : start + length], "little")
    return stated + 256 * (length == 2)


def _of_lz4(head: bytes, size: int, path: Path) -> int:
    """Bytes that numcodecs makes room for."""
    return int.from_bytes(head[:_LZ4], "little")


def _of_deflate(path: Path, size: int, most: float) -> int:
    """Bytes that gzip or zlib unpack to, of which they say nothing; 0 where they cannot be many."""
    if size * _MOST_OF_DEFLATE <= _HARMLESS or most == math.inf:
        return 0
    unpacked = 0
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)  # either of them
    with reading(path, "a chunk", remedy=_REMEDY), path.open("rb") as file:
        while unpacked <= most:
            packed = unpacker.unconsumed_tail or unpacker.unused_data or file.read(_AT_ONCE)
            if not packed:
                break
            if unpacker.eof:  # gzip may hold one after another
                unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)
            unpacked += len(unpacker.decompress(packed, _AT_ONCE))
    return unpacked


_DEFLATES = frozenset({"gzip", "zlib"})
_READERS: dict[str, Callable[[bytes, int, Path], int]] = {
    "blosc": _of_blosc, "zstd": _of_zstd, "lz4": _of_lz4,
}  # fmt: skip
