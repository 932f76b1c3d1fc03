"""Xenium output folders: the table of cells, their positions and the morphology image.

Xenium gives positions in µm; they are kept, so that here a "full-resolution pixel" is 1 µm.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sclinguist_core.data.numbers import SAFE_PRECISION, as_numbers
from sclinguist_core.data.readers.assemble import Parts, assemble
from sclinguist_core.data.readers.positions import match_barcodes, read_parquet
from sclinguist_core.data.readers.spaceranger import read_counts, section_name
from sclinguist_core.data.readers.xenium_image import morphology_image
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.reading import opened, reading

_CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
_COUNTS = ("cell_feature_matrix.h5", "cell_feature_matrix")
_COLUMNS = ("cell_id", "x_centroid", "y_centroid")
_EXTRA = ("cell_area", "nucleus_area", "transcript_counts")


def open_xenium(folder: Path, *, layer: str | None = None, name: str | None = None) -> Section:
    """Open the cells of a Xenium run.

    Parameters
    ----------
    folder
        Output folder with ``cell_feature_matrix.h5`` (or the folder ``cell_feature_matrix`` with
        matrix.mtx) and ``cells.parquet`` or ``cells.csv.gz``.
    layer
        Refused unless it is ``"X"``: these folders have no layers.
    name
        Name of the section; by default that of the folder.

    Returns
    -------
    Section
        Positions in µm; control probes stay in ``X`` and are no genes.

    Raises
    ------
    InputError
        If a file is missing, damaged, or does not go with the other.
    """
    counts_path = next((folder / file for file in _COUNTS if (folder / file).exists()), None)
    if counts_path is None:
        raise InputError(
            f"'{folder}' has cells but no counts that can be read, expected cell_feature_matrix.h5 "
            "(the .zarr.zip is not read): fetch it from the same run."
        )
    table = read_counts(counts_path).to_anndata(counts_path)
    cells_path = next(folder / file for file in _CELLS if (folder / file).exists())
    cells = _read_cells(cells_path)
    rows = match_barcodes(
        table.obs_names.to_numpy(),
        cells.index,
        counts_path=counts_path,
        positions_path=cells_path,
    )
    warnings: list[str] = []
    if (rows < 0).any():
        warnings.append(
            f"{int((rows < 0).sum()):,} of {len(rows):,} cells have no position in "
            f"'{cells_path.name}' and were left out."
        )
        table = table[rows >= 0].copy()
        rows = rows[rows >= 0]
    kept = cells.iloc[rows]
    table.obsm["spatial"] = kept[["x_centroid", "y_centroid"]].to_numpy(dtype=np.float64)
    for column in _EXTRA:
        if column in kept.columns:
            table.obs[column] = kept[column].to_numpy()
    diameter = None
    areas = kept.get("cell_area", pd.Series(dtype=np.float64))
    areas = areas[(areas > 0) & (areas < np.inf)]
    if len(areas):
        # Diameter of a disc of the median area, in µm: good enough to draw cells as points.
        diameter = float(2 * np.sqrt(areas.median() / np.pi))
    image = morphology_image(folder, warnings)
    name = name or section_name(folder)
    return assemble(
        Parts(
            name=name,
            table=table,
            source=folder,
            assay="xenium",
            images={} if image is None else {image.name: image},
            spot_diameter=diameter,
            microns_per_pixel=1.0,
            layer=layer,
            warnings=warnings,
        )
    )


def _read_cells(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        cells = read_parquet(path)
    else:
        with opened(path) as file, reading(path, "a table of cells"):
            cells = pd.read_csv(file, float_precision=SAFE_PRECISION)
    missing = [column for column in _COLUMNS if column not in cells.columns]
    if missing:
        raise InputError(
            f"'{path}' lacks the column(s) {', '.join(missing)}, expected {', '.join(_COLUMNS)}: "
            "take the file that Xenium wrote."
        )
    ids = [
        v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in cells["cell_id"]
    ]
    cells.index = pd.Index(ids, dtype=object)
    if not cells.index.is_unique:
        raise InputError(
            f"'{path}' names {int(cells.index.duplicated().sum())} cell(s) twice, expected one "
            "line a cell: take the file that Xenium wrote."
        )
    for column in (*_COLUMNS[1:], *_EXTRA):
        if column in cells:
            cells[column] = as_numbers(cells[column])
    return cells
