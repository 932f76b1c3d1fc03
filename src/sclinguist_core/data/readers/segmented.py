"""Segmented cells of Visium HD: the folder ``segmented_outputs`` of Space Ranger 4 and later.

10x Genomics documents it under "Space Ranger Segmented Outputs"
(https://www.10xgenomics.com/support/software/space-ranger/latest/analysis/outputs/segmented-outputs).
It holds ``filtered_feature_cell_matrix.h5`` with barcodes such as ``cellid_000000007-1``,
``cell_segmentations.geojson`` with a Polygon a cell, in pixels of the full-resolution image and
with its number in ``properties.cell_id``, and ``spatial/`` with images and scale factors, where
``spot_diameter_fullres`` is missing, for there are no spots (scverse/squidpy issue 1057).
There is no table of positions: a cell lies at the centroid of its outline. ``nucleus_segmentations
.geojson`` has the nuclei under the same numbers; ``barcode_mappings.parquet``, in the folder
above, tells which 2 µm squares belong to which cell and is not needed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.data.readers.assemble import Parts, assemble
from sclinguist_core.data.readers.cell_outlines import CellOutlines, read_cell_outlines
from sclinguist_core.data.readers.layout import (
    CELL_MATRICES,
    CELL_OUTLINES,
    find_one,
    spatial_folder,
)
from sclinguist_core.data.readers.positions import match_barcodes, read_scalefactors
from sclinguist_core.data.readers.spaceranger import (
    read_counts,
    read_section_images,
    section_name,
)
from sclinguist_core.data.section import Section, SectionImage
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData


def open_segmented(
    folder: Path, *, counts: Path | None = None, layer: str | None = None, name: str | None = None
) -> Section:
    """Open the segmented cells of a Visium HD run.

    Parameters
    ----------
    folder
        ``segmented_outputs``.
    counts
        Matrix to use; by default the filtered one.
    layer
        Refused unless it is ``"X"``: these folders have no layers.
    name
        Name of the section; by default that of the run's folder.

    Returns
    -------
    Section
        With ``assay="cells"``; ``obs["cell_area"]`` in µm² where the size of a pixel is known.
        Cells without an outline are left out, outlines without counts too; both are told.

    Raises
    ------
    InputError
        If a part is missing, damaged, or does not go with the others.
    """
    if counts is None:
        counts = find_one(folder, CELL_MATRICES)
    if counts is None:
        raise InputError(
            f"'{folder}' has outlines of cells but no counts, expected {CELL_MATRICES[0]}: fetch "
            "it from the same run."
        )
    outlines_path = find_one(folder, CELL_OUTLINES)
    if outlines_path is None:
        raise InputError(
            f"'{folder}' has counts of cells but no outlines, expected {CELL_OUTLINES[0]}: fetch "
            "it from the same run, for without it nobody knows where the cells lie."
        )
    matrix = read_counts(counts)
    table = matrix.to_anndata(counts)
    warnings: list[str] = []
    outlines = read_cell_outlines(outlines_path)
    table, areas = _place(table, outlines, counts, outlines_path, warnings)

    # Runs that were copied in part may have lost their own; the run's folder has the same.
    spatial = spatial_folder(folder) or spatial_folder(folder.parent)
    scalefactors: dict[str, float] = {}
    images: dict[str, SectionImage] = {}
    if spatial is None:
        warnings.append(
            f"'{folder}' has no folder spatial/ with scale factors and images: cells are shown "
            "without tissue and scale."
        )
    else:
        scalefactors = read_scalefactors(spatial, of_spots=False)
        images = read_section_images(spatial, "", scalefactors, warnings)
    pixel_size = scalefactors.get("microns_per_pixel")
    if pixel_size is not None:
        table.obs["cell_area"] = areas * pixel_size**2
    # A disc of the median area: good enough to draw cells by.
    diameter = float(2 * np.sqrt(np.median(areas) / np.pi)) or None
    name = name or section_name(folder)
    stated = (
        scalefactors if diameter is None else {**scalefactors, "spot_diameter_fullres": diameter}
    )
    table.uns["spatial"] = {
        name: {
            "images": {key: image.pixels for key, image in images.items()},
            # scanpy and squidpy cannot plot without a diameter.
            "scalefactors": stated,
            "metadata": matrix.metadata,
        }
    }
    return assemble(
        Parts(
            name=name,
            table=table,
            source=folder,
            assay="cells",
            images=images,
            spot_diameter=diameter,
            microns_per_pixel=pixel_size,
            layer=layer,
            warnings=warnings,
        )
    )


def _place(
    table: AnnData,
    outlines: CellOutlines,
    counts: Path,
    outlines_path: Path,
    warnings: list[str],
) -> tuple[AnnData, np.ndarray]:
    """Add positions; returns the cells that have one, and their areas in pixels."""
    barcodes = pd.Index([f"cellid_{number:09d}-1" for number in outlines.numbers.tolist()])
    rows = match_barcodes(
        table.obs_names.to_numpy(), barcodes, counts_path=counts, positions_path=outlines_path
    )
    placed = rows >= 0
    n_without = int(np.count_nonzero(~placed))
    if n_without:
        warnings.append(
            f"{n_without:,} of {len(placed):,} cells have no outline in '{outlines_path.name}' and "
            "were left out."
        )
        table = table[placed].copy()
        rows = rows[placed]
    n_unused = len(barcodes) - len(rows)
    if n_unused:
        warnings.append(
            f"{n_unused:,} of {len(barcodes):,} outlined cells are not in '{counts.name}', which "
            "leaves out cells without molecules; they are not shown."
        )
    table.obsm["spatial"] = outlines.centroids[rows]
    return table, outlines.areas[rows]
