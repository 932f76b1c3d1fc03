"""The last step of every reader: checks that hold for all formats, then a Section."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from scipy import sparse

from sclinguist_core.data.counts import CountsLocation, find_counts
from sclinguist_core.data.features import gene_mask
from sclinguist_core.data.readers.notice import says_simulated
from sclinguist_core.data.readers.proteins import attach_measured_proteins
from sclinguist_core.data.section import Assay, Section, SectionImage
from sclinguist_core.errors import InputError
from sclinguist_core.reading import reason

if TYPE_CHECKING:
    from anndata import AnnData

_UNITS = {"visium": "spots", "visium_hd": "bins"}
#: Above this share of spots beside the image, image and positions do not belong together.
_MAX_OUTSIDE = 0.05
_FARTHEST = 1e12


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
    notes = [*parts.warnings, *check_place(parts)]
    counts = find_counts(table, parts.layer, source=parts.source)
    notes += counts.warnings
    notes += _empty_rows(parts, counts)
    notes += attach_measured_proteins(table)
    if says_simulated(parts.source):
        table.uns["simulated"] = True
    return Section(
        name=writable_name(parts.name),
        table=table,
        images=parts.images,
        spot_diameter=parts.spot_diameter,
        microns_per_pixel=parts.microns_per_pixel,
        assay=parts.assay,
        source=parts.source,
        counts_location=counts.where,
        warnings=tuple(notes),
    )


def writable_name(name: str) -> str:
    """Spell a name so that files can hold it: names of files need not be UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def check_place(parts: Parts) -> list[str]:
    """Refuse positions that are not numbers; sentences on others that look wrong."""
    if "spatial" not in parts.table.obsm:
        return []
    check_positions(parts.table, parts.source)
    return _spots_beside_image(parts)


def check_table(table: AnnData, source: Path) -> None:
    """Refuse a table without rows or columns, and one that names a barcode twice."""
    check_shape(table.shape, source)
    check_barcodes(table.obs_names, source)


def check_shape(shape: tuple[int, ...], source: Path) -> None:
    """Refuse a table without rows or columns."""
    if 0 in shape:
        n_obs, n_vars = shape
        raise InputError(
            f"'{source}' is empty: {n_obs} barcodes x {n_vars} features, expected at least one of "
            "each; give a matrix with counts."
        )


def unique_names(names: pd.Index) -> pd.Index:
    """Make repeated names unique, as anndata does, whatever they end in."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Suffix used")
        return make_index_unique(pd.Index(names.astype(str), dtype=object))


def check_arrays(table: AnnData, source: Path) -> None:
    """Refuse sparse matrices whose index leads out of them: libraries follow it unchecked."""
    named: dict[str, Any] = {"X": table.X}
    if table.raw is not None:
        named["raw/X"] = table.raw.X
    for part in ("layers", "obsm", "varm", "obsp", "varp"):
        named |= {f"{part}/{key}": value for key, value in getattr(table, part).items()}
    for place, matrix in named.items():
        if not sparse.issparse(matrix):
            continue
        try:
            if not {matrix.indices.dtype.kind, matrix.indptr.dtype.kind} <= set("iu"):
                raise ValueError(f"indices of type {matrix.indices.dtype}, {matrix.indptr.dtype}")
            # Without entries by the last pointer, scipy does not look at the others.
            if (matrix.indptr[1:] < matrix.indptr[:-1]).any():  # a difference may be too large
                raise ValueError("pointers that fall")
            matrix.check_format(full_check=True)
        except ValueError as error:
            raise InputError(
                f"'{source}' has a matrix whose index does not fit its size ({place}: "
                f"{reason(error)}): it is damaged; write it anew with anndata."
            ) from error


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
    """Refuse positions that are not numbers, or larger than any image."""
    positions = np.asarray(table.obsm["spatial"], dtype=np.float64)
    n_bad = int(np.count_nonzero(~(np.abs(positions) < _FARTHEST).all(axis=1)))
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
    return empty_rows_note(int(np.count_nonzero(totals == 0)), table.n_obs, parts.assay)


def empty_rows_note(n_empty: int, n_rows: int, assay: Assay) -> list[str]:
    """Sentence on rows without counts, if there are any."""
    if not n_empty:
        return []
    return [
        f"{n_empty:,} of {n_rows:,} {_UNITS.get(assay, 'cells')} have no counts; they are kept, "
        "and nothing can be predicted for them."
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
