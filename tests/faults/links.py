"""Links and keys that lead a reader to other files, in circles, or nowhere."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

from faults.fault import POSIX, Make
from faults.makers import cases, edit_json, in_hdf5, in_zarr, replaced
from faults.small import Small

_SECRET = "secret that lies elsewhere"


def _secret(folder: Path) -> Path:
    """A file beside the input that no reader should look into."""
    path = folder.parent / "elsewhere.bin"
    path.write_text(_SECRET * 100)
    return path


def _external_link(file: h5py.File, folder: Path) -> None:
    del file["obsm"]
    file["obsm"] = h5py.ExternalLink(str(_secret(folder)), "/obsm")


def _external_data(file: h5py.File, folder: Path) -> None:
    n = len(file["X/data"])
    del file["X/data"]
    places = [(str(_secret(folder)), 0, 4 * n)]
    file.create_dataset("X/data", shape=(n,), dtype="f4", external=places)


def _virtual(file: h5py.File, folder: Path) -> None:
    n = len(file["X/data"])
    layout = h5py.VirtualLayout(shape=(n,), dtype="f4")
    layout[:] = h5py.VirtualSource(str(_secret(folder)), "X/data", shape=(n,))
    del file["X/data"]
    file.create_virtual_dataset("X/data", layout)


def _soft_circle(file: h5py.File, folder: Path) -> None:
    file["uns/again"] = h5py.SoftLink("/uns")


def _hard_circle(file: h5py.File, folder: Path) -> None:
    file["uns/again"] = file["uns"]


def _soft_to_itself(file: h5py.File, folder: Path) -> None:
    del file["X"]
    file["X"] = h5py.SoftLink("/X")


def _to_nothing(file: h5py.File, folder: Path) -> None:
    del file["X/data"]
    file["X/data"] = h5py.SoftLink("/nothing")


def _many_ways(file: h5py.File, folder: Path) -> None:
    """Thirty groups, each with two links to the next: 2^30 ways to the last."""
    for i in range(30):
        file.create_group(f"uns/g{i}").attrs.update(
            {"encoding-type": "dict", "encoding-version": "0.1.0"}
        )
    for i in range(29):
        file[f"uns/g{i}/a"] = file[f"uns/g{i}/b"] = file[f"uns/g{i + 1}"]


def _traversing_key(store: Path, folder: Path) -> None:
    def change(content: dict) -> None:
        nodes = content["consolidated_metadata"]["metadata"]
        nodes["X/../../../elsewhere"] = nodes["X/data"]

    edit_json(store / "zarr.json", change)


def _traversing_column(store: Path, folder: Path) -> None:
    def change(content: dict) -> None:
        content["attributes"]["_index"] = "../../../elsewhere"

    edit_json(store / "obs" / "zarr.json", change)
    edit_json(
        store / "zarr.json",
        lambda content: change(content["consolidated_metadata"]["metadata"]["obs"]),
    )


def _linked_chunk(store: Path, folder: Path) -> None:
    chunk = store / "X" / "data" / "c" / "0"
    chunk.unlink()
    chunk.symlink_to(_secret(folder))


def _linked_folder(store: Path, folder: Path) -> None:
    shutil.rmtree(store / "obsm")
    (store / "obsm").symlink_to(folder.parent)


def _looping_folder(store: Path, folder: Path) -> None:
    (store / "uns" / "again").symlink_to(store / "uns")


def _pickled(store: Path, folder: Path) -> None:
    # Written so that the word does not stand in the file as it is.
    path = store / "X" / "data" / "zarr.json"
    content = json.loads(path.read_text())
    content["codecs"] = [{"name": "numcodecs.PICKLE_", "configuration": {}}]
    path.write_text(json.dumps(content).replace("PICKLE_", "\\u0070ickle"))


def _pickled_2(store: Path, folder: Path) -> None:
    def change(content: dict) -> None:
        content["filters"] = [{"id": "pickle", "protocol": 5}]

    edit_json(store / "X" / "data" / ".zarray", change)


def _traversing_key_2(store: Path, folder: Path) -> None:
    def change(content: dict) -> None:
        content["metadata"]["../../elsewhere/.zarray"] = content["metadata"]["X/data/.zarray"]

    edit_json(store / ".zmetadata", change)


def _loop(folder: Path, small: Small) -> Path:
    path = folder / "loop.h5ad"
    path.symlink_to(folder / "loop2.h5ad")
    (folder / "loop2.h5ad").symlink_to(path)
    return path


def _to_itself(source: str, inside: str) -> Make:
    """Put a link to itself in the place of a file or folder."""

    def make(folder: Path, small: Small) -> Path:
        root = small.copy(source, folder)
        path = root / inside
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(path)
        return root

    return make


def _folder_of_loops(folder: Path, small: Small) -> Path:
    (folder / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    return folder


def _zip(folder: Path, small: Small) -> Path:
    path = folder / "section.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escaped.txt", "x")
        archive.writestr("/escaped.txt", "x")
    return path


def _tar(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", pax: dict[str, str] | None = None
) -> Make:
    def make(folder: Path, small: Small) -> Path:
        path = folder / "spatial.tar.gz"
        with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo(name)
            member.pax_headers = pax or {}
            member.type, member.linkname, member.size = kind, link, 3 * (kind == tarfile.REGTYPE)
            archive.addfile(member, io.BytesIO(b"abc"))
        return path

    return make


_HDF5_LINKS = {
    "link to another file": (in_hdf5(_external_link), "link to another file"),
    "values in another file": (in_hdf5(_external_data), "from another file"),
    "virtual array of another file": (in_hdf5(_virtual), "virtual array"),
    "soft link in a circle": (in_hdf5(_soft_circle), "within itself"),
    "hard link in a circle": (in_hdf5(_hard_circle), "within itself"),
    "soft link to itself": (in_hdf5(_soft_to_itself), "."),
    "soft link to nothing": (in_hdf5(_to_nothing), "."),
    "2^30 ways to a group": (in_hdf5(_many_ways), "too many links"),
}
_ZARR_LINKS = {
    "chunk that is a link": (in_zarr(_linked_chunk), "is a link to"),
    "folder that is a link": (in_zarr(_linked_folder), "is a link to"),
    "link in a circle": (in_zarr(_looping_folder), "is a link to"),
}
_ZARR_KEYS = {
    "key that leads out": (in_zarr(_traversing_key), "leads out of the store"),
    "column that leads out": (in_zarr(_traversing_column), "."),
    "pickle, written as \\u0070ickle": (in_zarr(_pickled), "Python pickle"),
    "key of .zmetadata that leads out": (
        in_zarr(_traversing_key_2, "zarr2"),
        "leads out of the store",
    ),
    "pickle as a filter": (in_zarr(_pickled_2, "zarr2"), "Python pickle"),
}
_ARCHIVES = {
    "tar entry that leads out": (_tar("spatial/../../escaped"), "leads out of its folder"),
    "absolute tar entry": (_tar("/spatial/escaped"), "leads out of its folder"),
    "tar entry of another folder": (_tar("elsewhere/escaped"), "is not in spatial/"),
    "symbolic link in a tar": (_tar("spatial/a", tarfile.SYMTYPE, "/etc"), "a link or a device"),
    "hard link in a tar": (_tar("spatial/a", tarfile.LNKTYPE, "/etc/hosts"), "a link or a device"),
    "tar header that is no number": (
        _tar("spatial/a", pax={"GNU.sparse.map": "a,b", "GNU.sparse.size": "3"}),
        "damaged archive",
    ),
    "device in a tar": (_tar("spatial/a", tarfile.CHRTYPE), "a link or a device"),
}
_CIRCLES = {
    "input": (_loop, "does not exist"),
    "folder": (_folder_of_loops, "nothing that can be opened"),
    "matrix of a Visium folder": (
        _to_itself("visium", "filtered_feature_bc_matrix.h5"),
        "symbolic links",
    ),
    "scale factors": (_to_itself("visium", "spatial/scalefactors_json.json"), "."),
    "positions": (_to_itself("visium", "spatial/tissue_positions.csv"), "."),
    "barcodes.tsv.gz": (_to_itself("mtx", "barcodes.tsv.gz"), "."),
    "chunk of zarr": (_to_itself("zarr", "X/data/c/0"), "is a link to"),
    "folder of zarr": (_to_itself("zarr", "obsm"), "is a link to"),
}
_MODEL_FILES = ("model.safetensors", "config.json", "genes.tsv")


FAULTS = [
    *cases("HDF5 that leads elsewhere", _HDF5_LINKS),
    *cases("HDF5 that leads elsewhere", _HDF5_LINKS, command="stream"),
    *cases(
        "HDF5 that leads elsewhere",
        {
            "10x link to another file": (
                in_hdf5(
                    lambda file, folder: file.__setitem__(
                        "other", h5py.ExternalLink(str(_secret(folder)), "/")
                    ),
                    "tenx",
                ),
                "link to another file",
            ),
            "10x counts of references": (
                in_hdf5(
                    lambda file, folder: replaced(
                        "matrix/data", lambda x: np.array([file.ref] * len(x), h5py.ref_dtype)
                    )(file, folder),
                    "tenx",
                ),
                "expected numbers",
            ),
        },
    ),
    *cases("zarr that leads elsewhere", _ZARR_KEYS),
    *cases("zarr that leads elsewhere", _ZARR_KEYS, command="stream"),
    *cases("zarr that leads elsewhere", _ZARR_LINKS, systems=POSIX),
    *cases("zarr that leads elsewhere", _ZARR_LINKS, systems=POSIX, command="stream"),
    *cases("archives that lead elsewhere", _ARCHIVES, command="unpack"),
    *cases("archives that lead elsewhere", {"zip": (_zip, "unpack it first")}),
    *cases("links in circles", _CIRCLES, systems=POSIX),
    *cases(
        "links in circles",
        {f"{name} of a model": (_to_itself("model", name), "found no") for name in _MODEL_FILES},
        command="model",
        systems=POSIX,
    ),
]
