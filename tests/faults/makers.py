"""What makers of damaged inputs share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from faults.fault import Fault, Make, quiet
from faults.small import Small

ChangeHDF5 = Callable[[h5py.File, Path], None]


def cases(kind: str, makers: dict[str, tuple[Make, str]], **options: Any) -> list[Fault]:
    """Make faults of makers, and of what has to be said, by name."""
    return [
        Fault(kind=kind, name=name, make=make, says=says, **options)
        for name, (make, says) in makers.items()
    ]


def in_hdf5(change: ChangeHDF5, source: str = "h5ad") -> Make:
    """Change a valid HDF5 file in place; the change is given the folder that it lies in, too."""

    def make(folder: Path, small: Small) -> Path:
        path = small.copy(source, folder)
        with h5py.File(path, "a") as file:
            change(file, folder)
        return path

    return make


def replaced(key: str, value: Callable[[np.ndarray], Any]) -> ChangeHDF5:
    """Put another dataset in the place of one; its attributes stay."""

    def change(file: h5py.File, _: Path) -> None:
        attributes = dict(file[key].attrs)
        new = value(file[key][:])
        del file[key]
        file[key] = new
        file[key].attrs.update(attributes)

    return change


def in_zarr(change: Callable[[Path, Path], None], source: str = "zarr") -> Make:
    """Change a valid zarr store in place; the change is given the folder that it lies in, too."""

    def make(folder: Path, small: Small) -> Path:
        path = small.copy(source, folder)
        change(path, folder)
        return path

    return make


def in_zarr_array(key: str, value: Callable[[np.ndarray], np.ndarray]) -> Make:
    """Put another array in the place of one of a zarr store; its attributes stay."""

    def change(store: Path, _: Path) -> None:
        import zarr

        root = zarr.open_group(store, mode="a", use_consolidated=False)
        attributes, new = dict(root[key].attrs), value(root[key][:])
        del root[key]
        with quiet():  # zarr's third format knows neither text of a fixed length nor consolidation
            root.create_array(key, data=new).attrs.update(attributes)
            zarr.consolidate_metadata(store)

    return in_zarr(change)


def positions_as_parquet(spatial: Path, small: Small) -> Path:
    """Write the positions of a Visium folder as Parquet instead."""
    (spatial / "tissue_positions.csv").unlink()
    path = spatial / "tissue_positions.parquet"
    small.positions(small.cells()).to_parquet(path)
    return path


def picture(path: Path) -> Path:
    """Write an image of 64 x 64 pixels, in the format of its name."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a JSON file holds."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
