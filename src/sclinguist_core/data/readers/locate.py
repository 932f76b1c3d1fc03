"""Which kind of data a path is, and where its parts lie.

Only names of files are looked at here, so that a folder is recognised in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sclinguist_core.data.readers.layout import (
    MATRIX,
    bin_folders,
    bin_size_of,
    counts_candidates,
    entries,
    find_any,
    preferred_counts,
    segmented_folder,
    spatial_folder,
)
from sclinguist_core.errors import InputError
from sclinguist_core.reading import plain_file, read_json

Kind = Literal[
    "h5ad",
    "anndata_zarr",
    "tenx_h5",
    "mtx",
    "spaceranger",
    "visium_hd",
    "segmented",
    "xenium",
    "spatialdata",
]

KNOWN = (
    "a Space Ranger, Visium HD or Xenium output folder, a 10x .h5 or matrix.mtx folder, an .h5ad "
    "or a SpatialData .zarr"
)
_MAX_DEPTH = 3
_MAX_FOLDERS = 2000
_REMEDIES = {
    ".rds": "convert the Seurat object to .h5ad first",
    ".rda": "convert the R object to .h5ad first",
    ".rdata": "convert the R object to .h5ad first",
    ".gz": "unpack it first and give the folder",
    ".zip": "unpack it first and give the folder",
    ".tar": "unpack it first and give the folder",
    ".tgz": "unpack it first and give the folder",
    ".h5mu": "write its RNA with muon as .h5ad, antibody counts in obsm['protein']",
    ".cloupe": "give the folder with filtered_feature_bc_matrix.h5 and spatial/ instead",
    ".loom": "write it as .h5ad with anndata first",
    ".csv": "write it as .h5ad with anndata first",
    ".tsv": "write it as .h5ad with anndata first",
}
#: Formats that hold data themselves: they do not stand for the run in whose folder they lie.
_NEVER_PART = frozenset({".rds", ".rda", ".rdata", ".h5mu", ".loom", ".zip", ".tar", ".tgz"})


@dataclass(frozen=True)
class Located:
    """What was found at a path.

    Attributes
    ----------
    kind
        Which reader opens it.
    path
        Folder or file that the reader is given.
    counts
        The counts file that the user pointed at, or None to let the reader choose.
    """

    kind: Kind
    path: Path
    counts: Path | None = None


def locate(path: Path) -> Located:
    """Say which reader opens a path.

    Raises
    ------
    InputError
        If the path does not exist, is of no known format, or is a folder of several sections.
    """
    if not path.exists():
        raise InputError(f"'{path}' does not exist: expected {KNOWN}; check the path.")
    if not path.is_dir():
        plain_file(path)
    found = _locate_file(path) if path.is_file() else locate_folder(path)
    if found is None and path.name in {"spatial", "binned_outputs"}:
        found = locate_folder(path.parent)
    if found is not None:
        return found
    if path.is_file():
        remedy = _REMEDIES.get(path.suffix.lower(), "convert it to .h5ad first")
        raise InputError(f"'{path}' is of no known format, expected {KNOWN}: {remedy}.")
    inside = find_sections(path)
    if not inside:
        _explain_missing_counts(path)
    if len(inside) == 1:
        return inside[0]
    if inside:
        listed = ", ".join(str(item.path.relative_to(path)) for item in inside[:8])
        more = f" and {len(inside) - 8} more" if len(inside) > 8 else ""
        raise InputError(
            f"'{path}' holds {len(inside)} sections ({listed}{more}), expected one: choose one of "
            "them, or open all with open_sections."
        )
    raise InputError(
        f"'{path}' holds nothing that can be opened, expected {KNOWN}: check the path."
    )


def find_sections(folder: Path, *, depth: int = _MAX_DEPTH) -> list[Located]:
    """Everything below a folder that can be opened, in the order of the names.

    Parameters
    ----------
    folder
        Where to look.
    depth
        How many levels down.
    """
    found: list[Located] = []
    budget = [_MAX_FOLDERS]

    def visit(current: Path, level: int) -> None:
        for entry in sorted(entries(current)):
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                if entry.suffix == ".h5ad":
                    found.append(Located("h5ad", entry))
                continue
            budget[0] -= 1
            if budget[0] < 0:
                return
            located = locate_folder(entry)
            if located is not None:
                found.append(located)
            elif level + 1 < depth:
                visit(entry, level + 1)

    visit(folder, 0)
    return found


def locate_folder(folder: Path) -> Located | None:
    """Recognise one folder by the names in it, or None."""
    zarr = _zarr_kind(folder)
    if zarr is not None:
        return Located(zarr, folder)
    for candidate in (folder, folder / "outs"):
        if not candidate.is_dir():
            continue
        if bin_folders(candidate):
            return Located("visium_hd", candidate)
        segmented = segmented_folder(candidate)
        if segmented is not None:
            return Located("segmented", segmented)
        if is_xenium(candidate):
            return Located("xenium", candidate)
        if spatial_folder(candidate) is not None and counts_candidates(candidate):
            kind: Kind = "spaceranger" if bin_size_of(candidate) is None else "visium_hd"
            return Located(kind, candidate)
        if find_any(candidate, MATRIX):
            beside = spatial_folder(candidate.parent)
            if beside is not None:
                return Located("spaceranger", candidate.parent, candidate)
            if candidate.name == "cell_feature_matrix" and is_xenium(candidate.parent):
                return Located("xenium", candidate.parent)
            return Located("mtx", candidate)
        tables = counts_candidates(candidate)
        if tables:
            best = preferred_counts(candidate, tables)
            return Located("mtx" if best.is_dir() else "tenx_h5", best)
    return None


def _explain_missing_counts(folder: Path) -> None:
    """Raise for a run whose images are there but whose counts are not."""
    if folder.name == "spatial":
        folder = folder.parent
    for candidate in (folder, folder / "outs"):
        if candidate.is_dir() and spatial_folder(candidate) is not None:
            packed = [e.name for e in entries(candidate) if "feature_bc_matrix.tar" in e.name]
            remedy = f"unpack {packed[0]}" if packed else "put the matrix beside it"
            raise InputError(
                f"'{candidate}' has positions of spots but no counts, expected "
                "filtered_feature_bc_matrix.h5 or the folder filtered_feature_bc_matrix with "
                f"matrix.mtx: {remedy}."
            )


def is_xenium(folder: Path) -> bool:
    """Whether a folder is the output of Xenium."""
    cells = ("cells.parquet", "cells.csv.gz", "cells.csv")
    counts = ("cell_feature_matrix.h5", "cell_feature_matrix", "cell_feature_matrix.zarr.zip")
    return all(any((folder / name).exists() for name in names) for names in (cells, counts))


def _locate_file(path: Path) -> Located | None:
    suffix = path.suffix.lower()
    if suffix == ".h5ad":
        return Located("h5ad", path)
    if path.name.endswith("_feature_cell_matrix.h5"):
        return Located("segmented", path.parent, path)
    if suffix in {".h5", ".hdf5"} and path.name != "cell_feature_matrix.h5":
        if spatial_folder(path.parent) is not None:
            kind: Kind = "spaceranger" if bin_size_of(path.parent) is None else "visium_hd"
            return Located(kind, path.parent, path)
        return Located("tenx_h5", path)
    if suffix in _NEVER_PART or path.name.endswith(".tar.gz"):
        return None
    # Any other file of a run (an image, positions, matrix.mtx, a web summary): its folder.
    for folder in list(path.parents)[:_MAX_DEPTH]:
        located = locate_folder(folder)
        if located is not None:
            return located
    return Located("tenx_h5", path) if suffix in {".h5", ".hdf5"} else None


def _zarr_kind(folder: Path) -> Kind | None:
    """Tell a SpatialData store from an AnnData store by the attributes at its root."""
    attributes: dict[str, object] | None = None
    for name in ("zarr.json", ".zattrs", ".zgroup"):
        path = folder / name
        if not path.exists():
            continue
        content = read_json(path, remedy="write the .zarr anew")
        if name == "zarr.json" and isinstance(content, dict):
            content = content.get("attributes", {})
        if not isinstance(content, dict):
            raise InputError(
                f"'{path}' holds no attributes of zarr, expected an object: the .zarr is damaged; "
                "write it anew."
            )
        attributes = content
        break
    if attributes is None:
        if folder.suffix == ".zarr":
            raise InputError(
                f"'{folder}' is no zarr store: expected zarr.json or .zgroup in it, found none; "
                "write it anew."
            )
        return None
    elements = {"tables", "images", "shapes", "points", "labels"}
    if "spatialdata_attrs" in attributes or elements & {e.name for e in entries(folder)}:
        return "spatialdata"
    if attributes.get("encoding-type") == "anndata" or (folder / "obs").is_dir():
        return "anndata_zarr"
    raise InputError(
        f"'{folder}' is a zarr store but neither SpatialData nor AnnData, expected one of them: "
        "write it with spatialdata or anndata."
    )
