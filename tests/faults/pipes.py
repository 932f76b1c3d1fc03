"""Pipes and folders in the place of files, and files in the place of folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from faults.fault import ANYWHERE, POSIX, Fault, Make
from faults.makers import cases
from faults.small import Small


def _pipe(source: str, inside: str) -> Make:
    """Put a pipe, which nobody writes to, in the place of a file."""

    def make(folder: Path, small: Small) -> Path:
        root = small.copy(source, folder)
        path = root / inside if inside else root
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return root

    return make


def _folder(source: str, inside: str) -> Make:
    """Put a folder in the place of a file."""

    def make(folder: Path, small: Small) -> Path:
        root = small.copy(source, folder)
        path = root / inside if inside else root
        path.unlink(missing_ok=True)
        path.mkdir()
        return root

    return make


def _file(source: str, inside: str) -> Make:
    """Put a file in the place of a folder."""

    def make(folder: Path, small: Small) -> Path:
        root = small.copy(source, folder)
        path = root / inside if inside else root
        shutil.rmtree(path)
        path.write_text("a file")
        return root

    return make


_PIPES = {
    "input": (_pipe("h5ad", ""), "is a pipe"),
    "matrix of a Visium folder": (_pipe("visium", "filtered_feature_bc_matrix.h5"), "is a pipe"),
    "scale factors": (_pipe("visium", "spatial/scalefactors_json.json"), "is a pipe"),
    "positions": (_pipe("visium", "spatial/tissue_positions.csv"), "is a pipe"),
    "image": (_pipe("visium", "spatial/tissue_hires_image.png"), "is a pipe"),
    "matrix.mtx.gz": (_pipe("mtx", "matrix.mtx.gz"), "is a pipe"),
    "barcodes.tsv.gz": (_pipe("mtx", "barcodes.tsv.gz"), "is a pipe"),
    "zarr.json": (_pipe("zarr", "zarr.json"), "is a pipe"),
    "chunk of zarr": (_pipe("zarr", "X/data/c/0"), "is a pipe"),
}
_FOLDERS = {
    ".h5ad": (_folder("h5ad", ""), "."),
    "10x .h5": (_folder("tenx", ""), "."),
    "matrix of a Visium folder": (_folder("visium", "filtered_feature_bc_matrix.h5"), "no counts"),
    "scale factors": (_folder("visium", "spatial/scalefactors_json.json"), "is a folder"),
    "positions": (_folder("visium", "spatial/tissue_positions.csv"), "is a folder"),
    "image": (_folder("visium", "spatial/tissue_hires_image.png"), "is a folder"),
    "matrix.mtx.gz": (_folder("mtx", "matrix.mtx.gz"), "is a folder"),
    "zarr.json": (_folder("zarr", "zarr.json"), "is a folder"),
    "chunk of zarr": (_folder("zarr", "X/data/c/0"), "0 of its 1 chunks"),
}
_FILES = {
    ".zarr": (_file("zarr", ""), "."),
    "spatial": (_file("visium", "spatial"), "12 cells"),
    "obs of zarr": (_file("zarr", "obs"), "."),
    "chunks of zarr": (_file("zarr", "X/data/c"), "0 of its 1 chunks"),
}
_MODEL_FILES = ("model.safetensors", "config.json", "genes.tsv", "proteins.tsv", "card.md")

FAULTS = [
    *cases("pipes", _PIPES, systems=POSIX),
    *cases("folders in place of files", _FOLDERS),
    *(
        Fault(
            kind="files in place of folders",
            name=name,
            make=make,
            says=says,
            ends="goes on" if name == "spatial" else "refused",
        )
        for name, (make, says) in _FILES.items()
    ),
    *(
        Fault(
            kind=kind,
            name=f"{name} of a model",
            make=make("model", name),
            says="found no",
            command="model",
            systems=systems,
        )
        for name in _MODEL_FILES
        for kind, make, systems in (
            ("pipes", _pipe, POSIX),
            ("folders in place of files", _folder, ANYWHERE),
        )
    ),
]
