"""Files cut short, and files with flipped bits: what downloads and old disks do."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

from faults.fault import Command, Ending, Fault, Make
from faults.makers import picture, positions_as_parquet
from faults.small import Small

_SHORT = {"empty": 0.0, "first tenth": 0.1, "half": 0.5, "all but 3 bytes": 1.0}
_FLIPS = 4
"""Damaged copies of each file."""


def cut(path: Path, share: float) -> None:
    """Keep the beginning of a file; all but its last bytes for a share of 1."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 3] if share == 1 else data[: int(share * len(data))])


def flip(path: Path, seed: int, n_bits: int = 24) -> None:
    """Flip some bits, of which the first lies among the first 200 bytes."""
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    places = [chance.randrange(min(200, len(data)))]
    places += [chance.randrange(len(data)) for _ in range(n_bits - 1)]
    for place in places:
        data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _in(source: str, inside: str, given: str = "") -> Callable[[Path, Small], tuple[Path, Path]]:
    """Copy a valid input; returns what is given to the command, and the file to damage."""

    def make(folder: Path, small: Small) -> tuple[Path, Path]:
        root = small.copy(source, folder)
        target = root / inside if inside else root
        if source == "visium" and not target.exists():
            _another_form(root, target, small)
        return (root / given if given else root), target

    return make


def _another_form(root: Path, target: Path, small: Small) -> None:
    """Replace a file of a Visium folder by the same content in another format."""
    spatial = root / "spatial"
    if target.suffix == ".parquet":
        positions_as_parquet(spatial, small)
        return
    if target.suffix == ".gz":
        target.write_bytes(gzip.compress((spatial / "tissue_hires_image.png").read_bytes()))
    else:
        picture(target)
    (spatial / "tissue_hires_image.png").unlink()


_FILES: dict[str, tuple[Callable[[Path, Small], tuple[Path, Path]], Command]] = {
    "10x .h5": (_in("tenx", ""), "predict"),
    ".h5ad": (_in("h5ad", ""), "predict"),
    ".h5ad, streamed": (_in("h5ad", ""), "stream"),
    "zarr.json": (_in("zarr", "zarr.json"), "predict"),
    "zarr.json of X": (_in("zarr", "X/data/zarr.json"), "predict"),
    ".zattrs": (_in("zarr2", ".zattrs"), "predict"),
    ".zmetadata": (_in("zarr2", ".zmetadata"), "predict"),
    ".zarray of X": (_in("zarr2", "X/data/.zarray"), "predict"),
    "chunk of zarr 2": (_in("zarr2", "X/data/0"), "predict"),
    "chunk of zarr": (_in("zarr", "X/data/c/0"), "predict"),
    "chunk of zarr, streamed": (_in("zarr", "X/indices/c/0"), "stream"),
    "shard of zarr": (_in("sharded", "X/data/c/0"), "predict"),
    "shard of zarr, streamed": (_in("sharded", "X/indices/c/0"), "stream"),
    "zarr.json of shards": (_in("sharded", "X/data/zarr.json"), "predict"),
    "zarr.json of SpatialData": (_in("spatialdata", "zarr.json"), "predict"),
    "table of SpatialData": (_in("spatialdata", "tables/table/X/data/c/0"), "predict"),
    "shapes of SpatialData": (_in("spatialdata", "shapes/visium/shapes.parquet"), "predict"),
    "image of SpatialData": (
        _in("spatialdata", "images/visium_hires_image/s0/c/0/0/0"),
        "predict",
    ),
    "matrix of a Visium folder": (_in("visium", "filtered_feature_bc_matrix.h5"), "predict"),
    ".png": (_in("visium", "spatial/tissue_hires_image.png"), "predict"),
    ".png.gz": (_in("visium", "spatial/tissue_hires_image.png.gz"), "predict"),
    ".tif": (_in("visium", "spatial/tissue_hires_image.tif"), "predict"),
    ".jpg": (_in("visium", "spatial/tissue_hires_image.jpg"), "predict"),
    "scale factors .json": (_in("visium", "spatial/scalefactors_json.json"), "predict"),
    "positions .csv": (_in("visium", "spatial/tissue_positions.csv"), "predict"),
    "positions .parquet": (_in("visium", "spatial/tissue_positions.parquet"), "predict"),
    "matrix.mtx.gz": (_in("mtx", "matrix.mtx.gz"), "predict"),
    "barcodes.tsv.gz": (_in("mtx", "barcodes.tsv.gz"), "predict"),
    "features.tsv.gz": (_in("mtx", "features.tsv.gz"), "predict"),
    "model.safetensors": (_in("model", "model.safetensors"), "model"),
    "config.json": (_in("model", "config.json"), "model"),
    "genes.tsv": (_in("model", "genes.tsv"), "model"),
    "proteins.tsv": (_in("model", "proteins.tsv"), "model"),
}
_TEXT = frozenset({"positions .csv", "genes.tsv", "proteins.tsv"})
"""Formats in which a shorter file may be a whole one."""


def _damaged(
    make: Callable[[Path, Small], tuple[Path, Path]], harm: Callable[[Path], None]
) -> Make:
    def damaged(folder: Path, small: Small) -> Path:
        given, target = make(folder, small)
        harm(target)
        return given

    return damaged


def _cuts() -> list[Fault]:
    faults = []
    for name, (make, command) in _FILES.items():
        for how, share in _SHORT.items():
            ends: Ending = "either" if name in _TEXT and share > 0 else "refused"
            if how == "all but 3 bytes" and name in (".jpg", ".png", "zarr.json"):
                ends = "either"
            faults.append(
                Fault(
                    kind="cut short",
                    name=f"{name}, {how}",
                    make=_damaged(make, lambda path, share=share: cut(path, share)),
                    says=".",
                    command=command,
                    ends=ends,
                )
            )
    return faults


def _flips() -> list[Fault]:
    return [
        Fault(
            kind="flipped bits",
            name=f"{name}, {seed}",
            make=_damaged(make, lambda path, seed=seed: flip(path, seed)),
            command=command,
            ends="either",
        )
        for name, (make, command) in _FILES.items()
        for seed in range(_FLIPS)
    ]


FAULTS = [*_cuts(), *_flips()]
