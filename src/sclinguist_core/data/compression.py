"""Whether a file's counts unpack too slowly to be streamed, and what to do about it.

Most ``.h5ad`` files are compressed by gzip. Where a model on a processor takes a millisecond a cell
that hardly matters. Where it takes ten microseconds, on a GPU, it waits for gzip, which one thread
unpacks. ``training/benchmarks/stream.py`` measures it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py
    import zarr

_LARGE_CHUNK = 2**24
"""Values. A compressed chunk is unpacked whole, whatever part of it is wanted."""
_SLOW = frozenset({"gzip", "zlib"})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Packing:
    """How a matrix lies on disk: name of the compression, its level, values of a chunk."""

    name: str
    level: int | None
    chunk: int


def slow_compression(path: str | Path, where: str = "X") -> str | None:
    """Say in one sentence why a matrix unpacks slowly when it is streamed, and the remedy.

    Parameters
    ----------
    path
        ``.h5ad`` file or AnnData ``.zarr``. A store of another kind, and a file that cannot be
        opened, have no slow matrix: whoever reads them says what is wrong.
    where
        Place of the matrix: ``"X"``, ``"layers/<name>"`` or ``"raw"``, as in `CountsLocation`.

    Returns
    -------
    The sentence, or None where the matrix is not compressed, or well: by zstd, blosc or lzf, in
    chunks of ordinary size.
    """
    path = Path(path)
    place = "raw/X" if where == "raw" else where
    packing = _of_zarr(path, place) if path.is_dir() else _of_hdf5(path, place)
    if packing is None or not (packing.name in _SLOW or packing.chunk > _LARGE_CHUNK):
        return None
    level = "" if packing.level is None else f" at level {packing.level}"
    return (
        f"'{path}' holds {place} compressed by {packing.name}{level} in chunks of "
        f"{packing.chunk:,} values, which unpack slowly when rows are streamed: write it once in a "
        f"form that streams well with `sclinguist store build {shlex.quote(str(path))} -o FOLDER`."
    )


def _of_hdf5(path: Path, place: str) -> _Packing | None:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            matrix = file.get(place)
            data = matrix.get("data") if isinstance(matrix, h5py.Group) else matrix
            return _packing(data) if isinstance(data, h5py.Dataset) else None
    except (OSError, RuntimeError):  # no HDF5, or a damaged one
        return None


def _packing(data: h5py.Dataset) -> _Packing | None:
    # Filters of plugins (zstd, blosc) have no name in h5py: `compression` is None for them.
    if data.chunks is None or data.compression is None:
        return None
    level = data.compression_opts if isinstance(data.compression_opts, int) else None
    return _Packing(name=str(data.compression), level=level, chunk=_product(data.chunks))


def _of_zarr(path: Path, place: str) -> _Packing | None:
    import zarr

    try:
        # The matrix itself, not the store around it: consolidated metadata are not needed.
        matrix = zarr.open(path / place, mode="r")
        data = matrix["data"] if isinstance(matrix, zarr.Group) else matrix
    except (OSError, ValueError, KeyError):
        return None
    return _packing_of_array(data) if isinstance(data, zarr.Array) else None


def _packing_of_array(data: zarr.Array) -> _Packing | None:
    for codec in data.compressors:
        # Of zarr v3 by class, of v2 by the name in numcodecs.
        name = getattr(codec, "codec_id", type(codec).__name__.removesuffix("Codec").lower())
        level: Any = getattr(codec, "level", None)
        return _Packing(
            name=str(name),
            level=level if isinstance(level, int) else None,
            chunk=_product(data.chunks),
        )
    return None


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
