"""Small files that unpack to more than anybody wants in memory."""

from __future__ import annotations

import gzip
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import pyarrow as pa

from faults.fault import Make
from faults.makers import cases, edit_json, in_hdf5, in_zarr
from faults.small import Small

_UNPACKED = 2**29
_MTX = b"%%MatrixMarket matrix coordinate integer general\n"


def _gzip_of(path: Path, head: bytes, line: bytes, n_bytes: int = 2**28) -> None:
    """Write a gzip file of 256 kB that unpacks to 256 MB of one line."""
    repeated = line * (2**20 // len(line))
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(head)
        for _ in range(n_bytes // len(repeated)):
            file.write(repeated)


def _in_mtx(name: str, head: bytes, line: bytes) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("mtx", folder)
        _gzip_of(root / name, head, line)
        return root

    return make


def _in_spatial(old: str, new: str, head: bytes, line: bytes) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("visium", folder)
        (root / "spatial" / old).unlink()
        _gzip_of(root / "spatial" / new, head, line)
        return root

    return make


def png(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG that says that it is this large."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content
            + struct.pack(">I", zlib.crc32(name + content))
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _text_chunk() -> bytes:
    content = b"Comment\0\0" + zlib.compress(bytes(2**28), 9)
    return (
        struct.pack(">I", len(content)) + b"zTXt" + content
        + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    )  # fmt: skip


def _tiff(width: int, height: int) -> bytes:
    """A TIFF that says that it is this large, with one strip of a few bytes."""
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 4),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 12)
        + bytes(4)
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def _image(name: str, content: Callable[[], bytes]) -> Make:
    def make(folder: Path, small: Small) -> Path:
        root = small.copy("visium", folder)
        (root / "spatial" / "tissue_hires_image.png").unlink()
        (root / "spatial" / name).write_bytes(content())
        return root

    return make


def _archive(folder: Path, small: Small) -> Path:
    path = folder / "spatial.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("spatial/a")
        member.size = 2**26
        archive.addfile(member, _Zeros())
    return path


def _hdf5_chunk(key: str) -> Callable[[h5py.File, Path], None]:
    """Write a chunk that unpacks to far more than a chunk is."""

    def change(file: h5py.File, folder: Path) -> None:
        attributes, n = dict(file[key].attrs), len(file[key])
        dtype = file[key].dtype if file[key].dtype.kind in "iuf" else "S20"
        del file[key]
        array = file.create_dataset(
            key, shape=(n,), chunks=(n,), dtype=dtype, compression="gzip", compression_opts=9
        )
        array.attrs.update(attributes)
        packer = zlib.compressobj(9)
        parts = [packer.compress(bytes(2**20)) for _ in range(_UNPACKED // 2**20)]
        array.id.write_direct_chunk((0,), b"".join([*parts, packer.flush()]))

    return change


def _zarr_chunk(store: Path, folder: Path) -> None:
    from numcodecs import Zstd

    (store / "X" / "data" / "c" / "0").write_bytes(Zstd().encode(bytes(_UNPACKED)))


def zstd_stream(n_bytes: int) -> bytes:
    """Pack zeros as a stream is packed, whose length nobody knew when it began."""
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        for start in range(0, n_bytes, 2**20):
            stream.write(bytes(min(2**20, n_bytes - start)))
    return packed.getvalue().to_pybytes()


def _zstd_chunk_of_a_stream(store: Path, folder: Path) -> None:
    (store / "X" / "data" / "c" / "0").write_bytes(zstd_stream(_UNPACKED))


def _in_shard(store: Path, folder: Path) -> None:
    """A chunk that is a bomb, in a shard whose three other chunks are not there."""
    from numcodecs import Zstd

    packed = Zstd().encode(bytes(_UNPACKED))
    index = struct.pack("<8Q", 0, len(packed), *[2**64 - 1] * 6)
    shard = store / "X" / "data" / "c" / "0"
    shard.write_bytes(packed + index + bytes(4))  # a checksum, which zarr would look at next


def _blosc_chunk(store: Path, folder: Path) -> None:
    from numcodecs import Blosc

    (store / "X" / "data" / "0").write_bytes(Blosc().encode(bytes(_UNPACKED)))


def _say_packed_by(codec: str, store: Path) -> None:
    """In the one place that is left: consolidated metadata would say something else."""
    (store / ".zmetadata").unlink()
    array = store / "X" / "data" / ".zarray"
    edit_json(array, lambda node: node.update(compressor={"id": codec}))


def _bz2_chunk(store: Path, folder: Path) -> None:
    from numcodecs import BZ2

    (store / "X" / "data" / "0").write_bytes(BZ2().encode(bytes(2**24)))
    _say_packed_by("bz2", store)


def _lz4_chunk(store: Path, folder: Path) -> None:
    from numcodecs import LZ4

    (store / "X" / "data" / "0").write_bytes(LZ4().encode(bytes(2**26)))
    _say_packed_by("lz4", store)


def _gzip_chunk(store: Path, folder: Path) -> None:
    """Two members, of which the second is the bomb."""
    path = store / "X" / "data" / "0"
    path.write_bytes(gzip.compress(b"x") + gzip.compress(bytes(_UNPACKED), 9))
    _say_packed_by("gzip", store)


class _Zeros:
    def read(self, size: int = -1) -> bytes:
        return bytes(size)


_READ = {
    "matrix.mtx.gz of one line": (
        _in_mtx(
            "matrix.mtx.gz",
            _MTX + b"240 12 99999999\n",
            b"1 1 1\n",
        ),
        "200 times its size|need|memory",
    ),
    "matrix.mtx.gz of comments": (
        _in_mtx("matrix.mtx.gz", _MTX, b"%\n"),
        "more than 1,000 lines of comments",
    ),
    "barcodes.tsv.gz": (_in_mtx("barcodes.tsv.gz", b"", b"AAAC-1\n"), "200 times its size"),
    "features.tsv.gz without a line break": (
        _in_mtx("features.tsv.gz", b"", b"CD3E"),
        "200 times its size",
    ),
    "positions .csv.gz": (
        _in_spatial("tissue_positions.csv", "tissue_positions.csv.gz", b"", b"A,1,1,1,1,1\n"),
        "200 times its size",
    ),
    "scale factors .json.gz": (
        _in_spatial("scalefactors_json.json", "scalefactors_json.json.gz", b"{", b" " * 64),
        "MiB|200 times",
    ),
    "image .png.gz": (
        _in_spatial("tissue_hires_image.png", "tissue_hires_image.png.gz", b"", b"\0"),
        "200 times its size",
    ),
    "PNG of 100,000 x 100,000": (
        _image("tissue_hires_image.png", lambda: png(100_000, 100_000, bytes(2**20))),
        "pixels",
    ),
    "PNG of 2^31 x 2^31": (
        _image("tissue_hires_image.png", lambda: png(2**31 - 1, 2**31 - 1)),
        "pixels",
    ),
    "PNG with a remark of 256 MB": (
        _image("tissue_hires_image.png", lambda: png(64, 64, b"", _text_chunk())),
        "as an image",
    ),
    "TIFF of 10^6 x 10^6": (
        _image("tissue_hires_image.tif", lambda: _tiff(10**6, 10**6)),
        "pixels",
    ),
    "TIFF of 12,000 x 12,000 without pixels": (
        _image("tissue_hires_image.tif", lambda: _tiff(12_000, 12_000)),
        "as an image|states that it holds",
    ),
    "chunk of HDF5": (in_hdf5(_hdf5_chunk("X/data")), "."),
    "chunk of HDF5 names": (in_hdf5(_hdf5_chunk("obs/_index")), "."),
    "chunk of a 10x .h5": (in_hdf5(_hdf5_chunk("matrix/data"), "tenx"), "."),
    "zstd chunk of zarr": (in_zarr(_zarr_chunk), "."),
    "zstd chunk of zarr that states no size": (in_zarr(_zstd_chunk_of_a_stream), "unpacks to"),
    "chunk of a shard of zarr": (in_zarr(_in_shard, "sharded"), "unpacks to"),
    "bz2 chunk of zarr": (in_zarr(_bz2_chunk, "zarr2"), "packs an array by 'bz2', expected blosc"),
    "lz4 chunk of zarr": (in_zarr(_lz4_chunk, "zarr2"), "unpacks to 67,108,864"),
    "gzip chunk of zarr": (in_zarr(_gzip_chunk, "zarr2"), "unpacks to"),
    "blosc chunk of zarr": (in_zarr(_blosc_chunk, "zarr2"), "."),
}
_STREAMED = ("chunk of HDF5", "zstd chunk of zarr")

FAULTS = [
    *cases("decompression bombs", _READ),
    *cases(
        "decompression bombs",
        {name: _READ[name] for name in _STREAMED},
        command="stream",
    ),
    *cases(
        "decompression bombs",
        {"tar.gz of 64 MB": (_archive, "unpacks to more")},
        command="unpack",
    ),
]
