"""The last step of every reader: checks that hold for all formats, then a Section."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.data.counts import CountsLocation, find_counts
from sclinguist_core.data.features import gene_mask
from sclinguist_core.data.readers.notice import says_simulated
from sclinguist_core.data.readers.proteins import attach_measured_proteins
from sclinguist_core.data.section import Assay, Section, SectionImage
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

_UNITS = {"visium": "spots", "visium_hd": "bins"}
#: Above this share of spots beside the image, image and positions do not belong together.
_MAX_OUTSIDE = 0.05


@dataclass(kw_only=True)
class Parts:
    """What a reader has gathered of a section; the fields are those of Section.

    ``layer`` is the layer of counts that the user asked for, ``warnings`` what the reader found
    worth telling.
    """

    name: str
    table: AnnData
    source: Path
    assay: Assay
    images: dict[str, SectionImage] = field(default_factory=dict)
    spot_diameter: float | None = None
    microns_per_pixel: float | None = None
    layer: str | None = None
    warnings: list[str] = field(default_factory=list)


def assemble(parts: Parts) -> Section:
    """Check a table, find its counts and measured proteins, and make a Section of it.

    Raises
    ------
    InputError
        If the table is empty, has duplicated barcodes or unusable positions, or no counts.
    """
    table = parts.table
    check_table(table, parts.source)
    notes = list(parts.warnings)
    if "spatial" in table.obsm:
        check_positions(table, parts.source)
        notes += _spots_beside_image(parts)
    counts = find_counts(table, parts.layer, source=parts.source)
    notes += counts.warnings
    notes += _empty_rows(parts, counts)
    notes += attach_measured_proteins(table)
    if says_simulated(parts.source):
        table.uns["simulated"] = True
    return Section(
        name=parts.name,
        table=table,
        images=parts.images,
        spot_diameter=parts.spot_diameter,
        microns_per_pixel=parts.microns_per_pixel,
        assay=parts.assay,
        source=parts.source,
        counts_location=counts.where,
        warnings=tuple(notes),
    )


def check_table(table: AnnData, source: Path) -> None:
    """Refuse a table without rows or columns, and one that names a barcode twice."""
    if table.n_obs == 0 or table.n_vars == 0:
        raise InputError(
            f"'{source}' is empty: {table.n_obs} barcodes x {table.n_vars} features, expected at "
            "least one of each; give a matrix with counts."
        )
    check_barcodes(table.obs_names, source)


def check_barcodes(barcodes: pd.Index, source: Path) -> None:
    """Refuse barcodes that repeat."""
    if not barcodes.is_unique:
        repeated = barcodes[barcodes.duplicated()]
        raise InputError(
            f"'{source}' names {repeated.nunique():,} barcode(s) more than once, such as "
            f"{repeated[0]}, expected each once: call obs_names_make_unique() where samples were "
            "joined, or remove the repeats."
        )


def check_positions(table: AnnData, source: Path) -> None:
    """Refuse positions that are not numbers."""
    positions = np.asarray(table.obsm["spatial"], dtype=np.float64)
    n_bad = int(np.count_nonzero(~np.isfinite(positions).all(axis=1)))
    if n_bad:
        raise InputError(
            f"'{source}' has {n_bad:,} of {table.n_obs:,} positions that are NaN or infinite "
            "(obsm['spatial']), expected x and y for each: remove these rows."
        )


def _empty_rows(parts: Parts, counts: CountsLocation) -> list[str]:
    table = parts.table
    var = table.raw.var if counts.where == "raw" else table.var
    genes = gene_mask(var)
    judged = genes if genes.any() else np.ones(len(var), dtype=bool)
    totals = counts.matrix @ judged.astype(np.float32)
    n_empty = int(np.count_nonzero(totals == 0))
    if not n_empty:
        return []
    return [
        f"{n_empty:,} of {table.n_obs:,} {_UNITS.get(parts.assay, 'cells')} have no counts; they "
        "are kept, and nothing can be predicted for them."
    ]


def _spots_beside_image(parts: Parts) -> list[str]:
    if not parts.images:
        return []
    image = max(parts.images.values(), key=lambda im: im.scale)
    height, width = image.shape
    xy = np.asarray(parts.table.obsm["spatial"], dtype=np.float64)[:, :2] * image.scale
    inside = (xy >= 0).all(axis=1) & (xy[:, 0] <= width) & (xy[:, 1] <= height)
    n_outside = int(np.count_nonzero(~inside))
    if n_outside <= _MAX_OUTSIDE * len(xy):
        return []
    return [
        f"{n_outside:,} of {len(xy):,} positions lie outside the image '{image.name}' "
        f"({width} x {height} pixels): image, scale factors and positions may be of different "
        "sections."
    ]
