"""Xenium output folders: the table of cells and their positions (no images yet).

Xenium gives positions in µm; they are kept, so that here a "full-resolution pixel" is 1 µm.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from sclinguist_core.data.readers.assemble import Parts, assemble, check_table
from sclinguist_core.data.readers.positions import match_barcodes
from sclinguist_core.data.readers.spaceranger import section_name
from sclinguist_core.data.readers.tenx import read_10x_h5
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError

_CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
_COLUMNS = ("cell_id", "x_centroid", "y_centroid")
_EXTRA = ("cell_area", "nucleus_area", "transcript_counts")


def open_xenium(folder: Path, *, layer: str | None = None, name: str | None = None) -> Section:
    """Open the cells of a Xenium run.

    Parameters
    ----------
    folder
        Output folder with ``cell_feature_matrix.h5`` and ``cells.parquet`` or ``cells.csv.gz``.
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
    counts_path = folder / "cell_feature_matrix.h5"
    table = read_10x_h5(counts_path).to_anndata(counts_path)
    check_table(table, counts_path)
    cells_path = next(folder / file for file in _CELLS if (folder / file).exists())
    cells = _read_cells(cells_path)
    rows = match_barcodes(
        table.obs_names.to_numpy(),
        cells.index,
        counts_path=counts_path,
        positions_path=cells_path,
    )
    warnings = []
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
    if "cell_area" in kept.columns:
        # Diameter of a disc of the median area, in µm: good enough to draw cells as points.
        diameter = float(2 * np.sqrt(np.nanmedian(kept["cell_area"]) / np.pi))
    name = name or section_name(folder)
    return assemble(
        Parts(
            name=name,
            table=table,
            source=folder,
            assay="xenium",
            spot_diameter=diameter,
            microns_per_pixel=1.0,
            layer=layer,
            warnings=warnings,
        )
    )


def _read_cells(path: Path) -> pd.DataFrame:
    import pyarrow as pa

    try:
        cells = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (pa.ArrowException, OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            f"'{path}' cannot be read as a table of cells: it is damaged; fetch it again."
        ) from error
    missing = [column for column in _COLUMNS if column not in cells.columns]
    if missing:
        raise InputError(
            f"'{path}' lacks the column(s) {', '.join(missing)}, expected {', '.join(_COLUMNS)}: "
            "take the file that Xenium wrote."
        )
    ids = [v.decode() if isinstance(v, bytes) else str(v) for v in cells["cell_id"]]
    cells.index = pd.Index(ids, dtype=object)
    if not cells.index.is_unique:
        raise InputError(
            f"'{path}' names {int(cells.index.duplicated().sum())} cell(s) twice, expected one "
            "line a cell: take the file that Xenium wrote."
        )
    return cells
