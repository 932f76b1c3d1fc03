"""Names of the files in a run, with the prefixes that 10x downloads and GEO put before them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sclinguist_core.errors import InputError

#: Files of spot positions, best first.
POSITIONS = (
    "tissue_positions.parquet",
    "tissue_positions.csv",
    "tissue_positions.csv.gz",
    "tissue_positions_list.csv",
    "tissue_positions_list.csv.gz",
)
#: Files of scale factors.
SCALEFACTORS = ("scalefactors_json.json", "scalefactors_json.json.gz")
#: Counts of the segmented cells of Visium HD (Space Ranger 4), best first.
CELL_MATRICES = (
    "filtered_feature_cell_matrix.h5",
    "filtered_feature_cell_matrix",
    "raw_feature_cell_matrix.h5",
    "raw_feature_cell_matrix",
)
#: Files of their outlines, best first; nuclei carry the numbers of their cells.
CELL_OUTLINES = (
    "cell_segmentations.geojson",
    "cell_segmentations.geojson.gz",
    "graphclust_annotated_cell_segmentations.geojson",
    "nucleus_segmentations.geojson",
    "nucleus_segmentations.geojson.gz",
)
#: Files of a matrix in Matrix Market format.
MATRIX = ("matrix.mtx", "matrix.mtx.gz")

#: What stands for segmented cells where a bin size is asked for.
CELLS = "cells"

_BIN_FOLDER = re.compile(r"^square_(\d{3})um$")
_COUNTS_H5 = re.compile(r"^(?P<prefix>.*?)(?:filtered|raw)_feature_bc_matrix\.h5$")
_COUNTS_MTX = re.compile(r"^(?P<prefix>.*?)(?:filtered|raw)_feature_bc_matrix$")


def find_one(folder: Path, names: Sequence[str], *, prefix: str = "") -> Path | None:
    """Find the one file in a folder that has one of these names, alone or after a prefix.

    Names are tried in order, the exact one before any with a prefix (as 10x downloads and GEO
    have them).

    Parameters
    ----------
    folder
        Where to look; not searched deeper.
    names
        Names in order of preference.
    prefix
        Prefix to prefer where several files match.

    Raises
    ------
    InputError
        If several prefixes fit and none is the wanted one.
    """
    for name in names:
        if prefix and (folder / f"{prefix}{name}").exists():
            return folder / f"{prefix}{name}"
        if (folder / name).exists():
            return folder / name
        matches = sorted(
            path
            for path in entries(folder)
            if path.name.endswith(name) and path.name[: -len(name)][-1:] in "_-. "
        )
        if len(matches) > 1:
            raise InputError(
                f"'{folder}' holds {len(matches)} files for one {name} "
                f"({', '.join(path.name for path in matches)}), expected one section: put each "
                "section in a folder of its own."
            )
        if matches:
            return matches[0]
    return None


def find_any(folder: Path, names: Sequence[str]) -> bool:
    """Whether a folder holds a file of one of these names, with or without a prefix."""
    return any(
        entry.name == name or (entry.name.endswith(f"_{name}") and entry.is_file())
        for entry in entries(folder)
        for name in names
    )


def spatial_folder(folder: Path) -> Path | None:
    """Folder with positions and scale factors of a section, or None.

    ``spatial/``, ``<prefix>_spatial/``, or the folder itself where the files lie flat (GEO).
    """
    if (folder / "spatial").is_dir():
        return folder / "spatial"
    named = sorted(
        entry for entry in entries(folder) if entry.name.endswith("_spatial") and entry.is_dir()
    )
    if len(named) > 1:
        raise InputError(
            f"'{folder}' holds {len(named)} folders of images and positions "
            f"({', '.join(entry.name for entry in named)}), expected one section: put each section "
            "in a folder of its own."
        )
    if named:
        return named[0]
    if find_any(folder, POSITIONS) and find_any(folder, SCALEFACTORS):
        return folder
    return None


def bin_folders(folder: Path) -> dict[int, Path]:
    """Bin folders of a Visium HD run by bin size in µm; empty if it is none."""
    for candidate in (folder / "binned_outputs", folder):
        bins = {
            size: entry
            for entry in sorted(entries(candidate))
            if (size := bin_size_of(entry)) is not None and entry.is_dir()
        }
        if bins:
            return bins
    return {}


def segmented_folder(folder: Path) -> Path | None:
    """Folder with the segmented cells of a Visium HD run, or None."""
    for candidate in (folder, folder / "segmented_outputs"):
        if find_any(candidate, (*CELL_MATRICES, *CELL_OUTLINES)):
            return candidate
    return None


def counts_candidates(folder: Path) -> list[Path]:
    """Feature-barcode matrices that lie in a folder, filtered and raw, .h5 and mtx."""
    found = []
    for entry in sorted(entries(folder)):
        if entry.is_dir():
            matches = bool(_COUNTS_MTX.match(entry.name)) and find_any(entry, MATRIX)
        else:
            matches = bool(_COUNTS_H5.match(entry.name)) or flat_mtx_prefix(entry) is not None
        if matches:
            found.append(entry)
    return found


def preferred_counts(folder: Path, candidates: Sequence[Path]) -> Path:
    """Choose among matrices: filtered before raw, .h5 before mtx.

    Raises
    ------
    InputError
        If two of the best sort differ in their prefix: two sections in one folder.
    """

    def rank(path: Path) -> tuple[bool, bool, bool]:
        flat = flat_mtx_prefix(path) is not None
        return ("raw_feature" in path.name, path.is_dir() or flat, flat)

    best = min(rank(path) for path in candidates)
    chosen = [path for path in candidates if rank(path) == best]
    if len(chosen) > 1:
        raise InputError(
            f"'{folder}' holds {len(chosen)} count matrices "
            f"({', '.join(path.name for path in chosen)}), expected one section: give the file "
            "itself, or put each section in a folder of its own."
        )
    return chosen[0]


def flat_mtx_prefix(path: Path) -> str | None:
    """Beginning of ``<prefix>matrix.mtx[.gz]``, or None if the path is named otherwise."""
    for name in MATRIX:
        if path.name == name or path.name.endswith(f"_{name}"):
            return path.name[: -len(name)]
    return None


def prefix_of(counts: Path) -> str:
    """Beginning of the file name before ``filtered_feature_bc_matrix.h5``, or ""."""
    flat = flat_mtx_prefix(counts)
    if flat is not None:
        return flat
    for pattern in (_COUNTS_H5, _COUNTS_MTX):
        matched = pattern.match(counts.name)
        if matched:
            return matched.group("prefix")
    return ""


def bin_size_of(folder: Path) -> int | None:
    """Bin size in µm of a folder named ``square_008um``, or None for other names."""
    matched = _BIN_FOLDER.match(folder.name)
    return int(matched.group(1)) if matched else None


def parse_bin_size(given: int | str | None) -> int | str | None:
    """Turn what somebody asked for into µm or :data:`CELLS`; None stays None.

    Raises
    ------
    InputError
        If it is neither a whole number above zero nor ``"cells"``.
    """
    if given is None or given == CELLS:
        return given
    try:
        size = int(given)
    except ValueError:
        size = 0
    if size <= 0:
        raise InputError(
            f"bin_size={given}: expected the side of the bins in µm, such as 8, or '{CELLS}' for "
            "segmented cells."
        )
    return size


def entries(folder: Path) -> list[Path]:
    """List what a folder holds; nothing if it is none or may not be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
