"""SpatialData ``.zarr`` stores: the table, the positions of what it annotates, the images.

A store holds many elements in several coordinate systems. One is chosen in which the annotated
shapes have their own coordinates, so that positions are what the store's writer meant by
pixels; images are used where they differ from it by a scale alone. Images that are rotated or
shifted become the frame themselves: positions are then given in their pixels.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclinguist_core.data import lattice
from sclinguist_core.data.readers.assemble import Parts, assemble, check_arrays, check_table
from sclinguist_core.data.readers.h5ad import make_names_unique, take_positions
from sclinguist_core.data.readers.layout import CELLS
from sclinguist_core.data.readers.spatialdata_images import affine_of, read_images, scanpy_entry
from sclinguist_core.data.readers.zarr_check import check_zarr, no_strangers
from sclinguist_core.data.section import Assay, Section, SectionImage
from sclinguist_core.errors import InputError
from sclinguist_core.reading import reading

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_BINS = re.compile(r"square_(\d{3})um")
_PREFERRED_BINS = (8, 16)
_REMEDY = "write it anew, or open it with the spatialdata that wrote it"
_SEGMENTED = "cell_segmentations"
"""In the name that spatialdata-io gives to the table of segmented cells."""


def open_spatialdata(
    path: Path,
    *,
    layer: str | None = None,
    bin_size: int | str | None = None,
    name: str | None = None,
) -> Section:
    """Open a SpatialData store of one section.

    Parameters
    ----------
    path
        Store.
    layer
        Layer that holds raw counts; by default they are searched for.
    bin_size
        Side of the bins in µm, for Visium HD; ``"cells"`` for segmented cells.
    name
        Name of the section; by default that of the annotated element.

    Raises
    ------
    InputError
        If the store is damaged, has no table, or its table annotates several elements.
    """
    sdata = _read(path)
    table = sdata.tables[_choose_table(sdata, bin_size, path)]
    regions = _regions(table)
    if len(regions) > 1:
        raise InputError(
            f"The table of '{path}' annotates {len(regions)} sections ({', '.join(regions)}), "
            "expected one: open them with open_sections, or write one store for each."
        )
    region = regions[0] if regions else None
    return _section(sdata, table.copy(), region, path, layer=layer, name=name)


def open_regions(
    path: Path, *, layer: str | None = None, bin_size: int | str | None = None
) -> list[Section]:
    """Open every annotated element of a store as a section of its own.

    Parameters
    ----------
    path, layer, bin_size
        As for :func:`open_spatialdata`.
    """
    return sections_of(_read(path), path, layer=layer, bin_size=bin_size)


def sections_of(
    sdata: SpatialData, source: Path, *, layer: str | None = None, bin_size: int | str | None = None
) -> list[Section]:
    """Make a section of every annotated element of a SpatialData object.

    Parameters
    ----------
    sdata
        With at least one table; not changed.
    source
        Where it came from, for messages.
    layer, bin_size
        As for :func:`open_spatialdata`.
    """
    path = source
    table = sdata.tables[_choose_table(sdata, bin_size, path)]
    sections = []
    if not _regions(table):
        return [_section(sdata, table.copy(), None, path, layer=layer)]
    for region in _regions(table):
        part = table[(table.obs[_attributes(table)["region_key"]] == region).to_numpy()]
        sections.append(_section(sdata, part.copy(), region, path, layer=layer))
    return sections


def _read(path: Path) -> SpatialData:
    import spatialdata

    check_zarr(path, whole="table")
    with reading(path, "SpatialData", remedy=_REMEDY), no_strangers():
        # Advice to who writes the store; older formats are read as well.
        warnings.filterwarnings("ignore", message="SpatialData is not stored in the most current")
        sdata = spatialdata.read_zarr(path)
    if not sdata.tables:
        raise InputError(
            f"'{path}' has no table (found: {', '.join(sdata.images) or 'no images either'}), "
            "expected one with counts: add it to the store."
        )
    for table in sdata.tables.values():
        check_arrays(table, path)
    return sdata


def _choose_table(sdata: SpatialData, bin_size: int | str | None, path: Path) -> str:
    names = list(sdata.tables)
    found = {name: _BINS.search(name) for name in names}
    offered: dict[int | str, str] = {int(m.group(1)): n for n, m in found.items() if m}
    segmented = [name for name in names if _SEGMENTED in name]
    if segmented:
        offered[CELLS] = segmented[0]
    if bin_size is not None and bin_size not in offered:
        raise InputError(
            f"'{path}' has no table for bin_size={bin_size}, found: "
            f"{', '.join(map(str, offered)) or 'none'}; choose one of these."
        )
    if bin_size is not None:
        return offered[bin_size]
    for size in _PREFERRED_BINS:
        if size in offered:
            return offered[size]
    if "table" in names:
        return "table"
    # Tables of statistics are small; the one with the counts is the largest.
    return max(names, key=lambda name: sdata.tables[name].n_obs * sdata.tables[name].n_vars)


def _attributes(table: AnnData) -> dict[str, Any]:
    found = table.uns.get("spatialdata_attrs")
    return found if isinstance(found, dict) else {}


def _regions(table: AnnData) -> list[str]:
    region = _attributes(table).get("region")
    if region is None:
        return []
    return [region] if isinstance(region, str) else [str(name) for name in region]


@dataclass
class _Frame:
    """Positions of the annotated element in the coordinate system that was chosen."""

    system: str
    positions: pd.DataFrame
    diameter: float | None


def _section(
    sdata: SpatialData,
    table: AnnData,
    region: str | None,
    path: Path,
    *,
    layer: str | None,
    name: str | None = None,
) -> Section:
    notes: list[str] = []
    check_table(table, path)
    make_names_unique(table)
    images: dict[str, SectionImage] = {}
    diameter = pixel_size = None
    assay: Assay = "cells"
    if region is not None:
        # What spatialdata makes of transformations and shapes shows when they are used.
        with reading(path, "SpatialData", remedy=_REMEDY):
            frame = _frame(sdata, region, path)
            table = _place(table, frame.positions, region, path, notes)
            images, scale = read_images(sdata, frame.system, table, notes)
            diameter = None if frame.diameter is None else frame.diameter * scale
            pixel_size = _pixel_size(sdata, table, region, frame, diameter, scale)
        assay = _assay(table, region)
    else:
        take_positions(table, "spatial", notes)
    name = name or region or path.name.removesuffix(".zarr")
    if region is not None:
        table.uns["spatial"] = {name: scanpy_entry(images, diameter, pixel_size)}
    return assemble(
        Parts(
            name=name,
            table=table,
            source=path,
            assay=assay,
            images=images,
            spot_diameter=diameter,
            microns_per_pixel=pixel_size,
            layer=layer,
            warnings=notes,
        )
    )


def _frame(sdata: SpatialData, region: str, path: Path) -> _Frame:
    """Positions and size of the elements of a region, in the coordinates they were made in."""
    from spatialdata import get_centroids
    from spatialdata.transformations import Identity, get_transformation

    if region not in sdata:
        raise InputError(
            f"The table of '{path}' annotates '{region}', which is not in the store, expected one "
            f"of: {', '.join(name for _, name, _ in sdata.gen_elements())}; add it."
        )
    element = sdata[region]
    systems = get_transformation(element, get_all=True)
    own = [key for key, transform in systems.items() if isinstance(transform, Identity)]
    preferred = own or list(systems)
    system = "global" if "global" in preferred else preferred[0]
    positions = get_centroids(element, coordinate_system=system).compute()[["x", "y"]]
    factor = np.sqrt(abs(np.linalg.det(affine_of(systems[system])[:2, :2])))
    diameter = None
    if hasattr(element, "columns"):
        if "radius" in element.columns:
            diameter = 2 * float(np.median(element["radius"]))
        elif _BINS.search(region):
            diameter = float(np.sqrt(np.median(element.geometry.area)))
        elif hasattr(element, "geometry"):
            diameter = 2 * float(np.sqrt(np.median(element.geometry.area) / np.pi)) or None
    return _Frame(system, positions, None if diameter is None else diameter * float(factor))


def _place(
    table: AnnData, positions: pd.DataFrame, region: str, path: Path, notes: list[str]
) -> AnnData:
    ids = table.obs[_attributes(table)["instance_key"]].to_numpy()
    rows = positions.index.get_indexer(pd.Index(ids))
    placed = rows >= 0
    if not placed.any():
        raise InputError(
            f"None of the {len(ids):,} rows of the table of '{path}' is found in '{region}' "
            f"({len(positions):,} elements), expected all: the instance key does not fit."
        )
    if not placed.all():
        notes.append(
            f"{int((~placed).sum()):,} of {len(ids):,} rows of the table have no element in "
            f"'{region}' and were left out."
        )
        table = table[placed].copy()
    table.obsm["spatial"] = positions.to_numpy(dtype=np.float64)[rows[placed]]
    return table


def _pixel_size(
    sdata: SpatialData,
    table: AnnData,
    region: str,
    frame: _Frame,
    diameter: float | None,
    scale: float,
) -> float | None:
    """Size of a pixel of the chosen frame: from a system in µm, the bins, or the lattice."""
    from spatialdata.transformations import get_transformation

    systems = get_transformation(sdata[region], get_all=True)
    if "microns" in systems:
        to_pixels, to_microns = affine_of(systems[frame.system]), affine_of(systems["microns"])
        ratio = np.linalg.det(to_microns[:2, :2]) / np.linalg.det(to_pixels[:2, :2])
        return float(np.sqrt(abs(ratio))) / scale
    bins = _BINS.search(region)
    if bins is not None and diameter is not None:
        return int(bins.group(1)) / diameter
    if "array_row" in table.obs.columns and "array_col" in table.obs.columns:
        return lattice.microns_per_pixel(
            table.obs["array_row"].to_numpy(),
            table.obs["array_col"].to_numpy(),
            table.obsm["spatial"],
            diameter,
        )
    return None


def _assay(table: AnnData, region: str) -> Assay:
    if _BINS.search(region):
        return "visium_hd"
    return "visium" if "array_row" in table.obs.columns else "cells"
