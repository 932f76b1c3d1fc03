"""Space Ranger output folders of Visium sections (versions 1 to 3).

This is our own reader and not ``spatialdata_io.visium``, for reasons that users meet: that one
needs the ``.h5`` matrix and, for a plain ``outs`` folder, a ``dataset_id``; reads neither
matrix.mtx folders nor files with the prefixes of 10x downloads and GEO throughout; keeps
antibody features only on request; and importing dask and spatialdata takes longer than opening
the section does here. A test holds both to the same barcodes, counts, positions and radii.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sclinguist_core.data import lattice
from sclinguist_core.data.readers.assemble import Parts, assemble, writable_name
from sclinguist_core.data.readers.images import read_image
from sclinguist_core.data.readers.layout import (
    counts_candidates,
    find_one,
    flat_mtx_prefix,
    preferred_counts,
    prefix_of,
    spatial_folder,
)
from sclinguist_core.data.readers.positions import (
    check_scale,
    match_barcodes,
    read_positions,
    read_scalefactors,
)
from sclinguist_core.data.readers.tenx import FeatureMatrix, read_10x_h5, read_10x_mtx
from sclinguist_core.data.section import Assay, Section, SectionImage
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

_SUFFIXES = (".png", ".png.gz", ".jpg", ".jpeg", ".tif", ".tiff")
#: Folders that say nothing about which section they hold.
_GENERIC = frozenset({"outs", "spatial", "binned_outputs", "segmented_outputs", "count", "data"})


def open_spaceranger(
    folder: Path,
    *,
    counts: Path | None = None,
    layer: str | None = None,
    name: str | None = None,
    assay: Assay = "visium",
) -> Section:
    """Open a Space Ranger folder.

    Parameters
    ----------
    folder
        ``outs``, or one bin folder of Visium HD.
    counts
        Matrix to use; by default the filtered one, else the raw one within the tissue.
    layer
        Refused unless it is ``"X"``: these folders have no layers.
    name
        Name of the section; by default that of the folder.
    assay
        ``"visium"`` or ``"visium_hd"``.

    Raises
    ------
    InputError
        If a part is missing, damaged, or does not go with the others.
    """
    warnings: list[str] = []
    if counts is None:
        candidates = counts_candidates(folder)
        if not candidates:
            raise InputError(
                f"'{folder}' has no counts, expected filtered_feature_bc_matrix.h5 or the folder "
                "filtered_feature_bc_matrix with matrix.mtx: fetch one of them."
            )
        counts = preferred_counts(folder, candidates)
    prefix = prefix_of(counts)
    spatial = spatial_folder(folder)
    if spatial is None:
        raise InputError(
            f"'{folder}' has no folder spatial/, expected positions and scale factors in it: "
            "fetch it from the same run."
        )
    matrix = read_counts(counts)
    table = matrix.to_anndata(counts)
    scalefactors = read_scalefactors(spatial, prefix)
    table = _place(table, spatial, prefix, counts, warnings)
    name = name or section_name(folder, prefix)
    images = read_section_images(spatial, prefix, scalefactors, warnings)
    table.uns["spatial"] = {
        name: {
            "images": {key: image.pixels for key, image in images.items()},
            "scalefactors": scalefactors,
            "metadata": matrix.metadata,
        }
    }
    diameter = float(scalefactors["spot_diameter_fullres"])
    pixel_size = scalefactors.get("microns_per_pixel")
    if pixel_size is None and assay == "visium":
        pixel_size = lattice.microns_per_pixel(
            table.obs["array_row"].to_numpy(),
            table.obs["array_col"].to_numpy(),
            table.obsm["spatial"],
            diameter,
        )
    return assemble(
        Parts(
            name=name,
            table=table,
            source=folder,
            assay=assay,
            images=images,
            spot_diameter=diameter,
            microns_per_pixel=None if pixel_size is None else float(pixel_size),
            layer=layer,
            warnings=warnings,
        )
    )


def read_counts(path: Path) -> FeatureMatrix:
    """Read a 10x matrix: an .h5 file, a matrix.mtx folder, or files beside each other."""
    if path.is_dir():
        return read_10x_mtx(path)
    prefix = flat_mtx_prefix(path)
    if prefix is not None:
        return read_10x_mtx(path.parent, prefix)
    return read_10x_h5(path)


def section_name(folder: Path, prefix: str = "") -> str:
    """Name of a section: its prefix, or the nearest folder whose name tells something."""
    stem = prefix.strip("_-. ")
    if stem:
        return writable_name(stem)
    for candidate in (folder.resolve(), *folder.resolve().parents):
        generic = candidate.name.lower() in _GENERIC or candidate.name.startswith("square_")
        if candidate.name and not generic:
            return writable_name(candidate.name)
    return "section"


def _place(
    table: AnnData, spatial: Path, prefix: str, counts: Path, warnings: list[str]
) -> AnnData:
    """Add positions; keep the spots under tissue, in the order of the matrix."""
    positions = read_positions(spatial, prefix)
    rows = match_barcodes(
        table.obs_names.to_numpy(),
        positions.index,
        counts_path=counts,
        positions_path=spatial,
    )
    placed = rows >= 0
    if not placed.all():
        warnings.append(
            f"{int((~placed).sum()):,} of {len(placed):,} barcodes have no position in "
            f"'{spatial}' and were left out."
        )
    in_tissue = np.zeros(len(rows), dtype=bool)
    in_tissue[placed] = positions["in_tissue"].to_numpy()[rows[placed]] == 1
    if not in_tissue.any():
        raise InputError(
            f"None of the {len(rows):,} spots of '{counts}' lies under tissue (in_tissue is 0 for "
            f"all in '{spatial}'), expected some: counts and positions must come from one run."
        )
    if counts.name.startswith(f"{prefix}raw_"):
        warnings.append(
            f"'{counts.parent}' has no filtered matrix, so '{counts.name}' was read and restricted "
            f"to the {int(in_tissue.sum()):,} of {len(rows):,} spots under tissue."
        )
    elif (placed & ~in_tissue).any():
        warnings.append(
            f"{int((placed & ~in_tissue).sum()):,} of {len(rows):,} spots are marked as outside "
            "the tissue and were left out."
        )
    if not in_tissue.all():
        table = table[in_tissue].copy()
    kept = positions.iloc[rows[in_tissue]]
    for column in ("in_tissue", "array_row", "array_col"):
        table.obs[column] = kept[column].to_numpy()
    table.obsm["spatial"] = kept[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(
        dtype=np.float64
    )
    return table


def read_section_images(
    spatial: Path, prefix: str, scalefactors: dict[str, Any], warnings: list[str]
) -> dict[str, SectionImage]:
    """Read the images of a folder ``spatial``; a warning is added where there are none."""
    images = {}
    for key in ("hires", "lowres"):
        path = find_one(
            spatial, [f"tissue_{key}_image{suffix}" for suffix in _SUFFIXES], prefix=prefix
        )
        if path is None:
            continue
        scale = check_scale(
            scalefactors.get(f"tissue_{key}_scalef"),
            f"tissue_{key}_scalef",
            spatial / "scalefactors_json.json",
        )
        images[key] = SectionImage(read_image(path), scale, key)
    if not images:
        warnings.append(
            f"'{spatial}' has no image (tissue_hires_image.png or tissue_lowres_image.png): spots "
            "are shown without tissue."
        )
    return images
