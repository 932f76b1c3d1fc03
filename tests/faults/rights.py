"""Inputs that may not be read, and folders that may not be written to."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from faults.fault import LINUX, Make
from faults.makers import cases
from faults.small import Small

_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_VERSION_3 = 0x20080522


@contextlib.contextmanager
def as_anybody() -> Iterator[None]:
    """Give up root's right to read and write everything, as long as the context lasts.

    Files and folders of root then obey their permissions; for others nothing changes.
    """
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 capabilities
    if libc.capget(header, before):
        raise OSError(ctypes.get_errno(), "capget")
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    if libc.capset(header, less):
        raise OSError(ctypes.get_errno(), "capset")
    try:
        yield
    finally:
        libc.capset(header, before)


def _forbidden(source: str, inside: str, mode: int = 0) -> Make:
    """Take the right to read from a file or folder of a valid input."""

    def make(folder: Path, small: Small) -> Path:
        root = small.copy(source, folder)
        (root / inside if inside else root).chmod(mode)
        return root

    return make


def _locked(name: str) -> Make:
    """Give a name in a folder that nobody may write to."""

    def make(folder: Path, small: Small) -> Path:
        (folder / "locked").mkdir(mode=0o555)
        return folder / "locked" / name

    return make


_INPUTS = {
    ".h5ad": _forbidden("h5ad", ""),
    "10x .h5": _forbidden("tenx", ""),
    "zarr": _forbidden("zarr", ""),
    "zarr.json": _forbidden("zarr", "zarr.json"),
    "chunk of zarr": _forbidden("zarr", "X/data/c/0"),
    "folder of zarr": _forbidden("zarr", "obs"),
    "Visium folder": _forbidden("visium", ""),
    "matrix of a Visium folder": _forbidden("visium", "filtered_feature_bc_matrix.h5"),
    "scale factors": _forbidden("visium", "spatial/scalefactors_json.json"),
    "positions": _forbidden("visium", "spatial/tissue_positions.csv"),
    "image": _forbidden("visium", "spatial/tissue_hires_image.png"),
    "matrix.mtx.gz": _forbidden("mtx", "matrix.mtx.gz"),
    "barcodes.tsv.gz": _forbidden("mtx", "barcodes.tsv.gz"),
}
_STREAMED = (".h5ad", "zarr", "chunk of zarr")
_MODEL = {
    name: (_forbidden("model", name), "Permission denied")
    for name in ("model.safetensors", "config.json", "genes.tsv", "proteins.tsv", "card.md")
}
_OUTPUTS = {
    ".h5ad": (_locked("result.h5ad"), "Permission denied"),
    ".zarr": (_locked("result.zarr"), "Permission denied"),
}

FAULTS = [
    *cases(
        "inputs without the right to read",
        {name: (make, "Permission denied") for name, make in _INPUTS.items()},
        around=as_anybody,
        systems=LINUX,
    ),
    *cases(
        "inputs without the right to read",
        {name: (_INPUTS[name], "Permission denied") for name in _STREAMED},
        command="stream",
        around=as_anybody,
        systems=LINUX,
    ),
    *cases(
        "inputs without the right to read",
        _MODEL,
        command="model",
        around=as_anybody,
        systems=LINUX,
    ),
    *cases(
        "outputs that cannot be written",
        {f"{name} in a folder without the right": case for name, case in _OUTPUTS.items()},
        command="output",
        around=as_anybody,
        systems=LINUX,
    ),
]
