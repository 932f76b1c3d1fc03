"""AnnData files and stores (``.h5ad``, AnnData ``.zarr``), spatial or of dissociated cells."""

from __future__ import annotations

import warnings as python_warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import anndata
import numpy as np
import pandas as pd

from sclinguist_core.data import lattice
from sclinguist_core.data.features import ORIGINAL_NAME
from sclinguist_core.data.numbers import as_numbers
from sclinguist_core.data.readers.assemble import (
    Parts,
    assemble,
    check_arrays,
    check_positions,
    check_table,
    unique_names,
)
from sclinguist_core.data.readers.hdf5 import check_hdf5
from sclinguist_core.data.readers.images import is_image, to_rgb8
from sclinguist_core.data.readers.positions import check_scale
from sclinguist_core.data.readers.zarr_check import check_zarr, no_strangers
from sclinguist_core.data.section import Assay, Section, SectionImage
from sclinguist_core.data.write import ASSAY
from sclinguist_core.errors import InputError
from sclinguist_core.reading import reading

if TYPE_CHECKING:
    from anndata import AnnData

POSITION_KEYS = ("spatial", "X_spatial", "spatial_coords", "coordinates")


def open_anndata(path: Path, *, layer: str | None = None, name: str | None = None) -> Section:
    """Open an ``.h5ad`` file or an AnnData ``.zarr`` of one section.

    Parameters
    ----------
    path
        File or store.
    layer
        Layer that holds raw counts; by default they are searched for.
    name
        Name of the section; by default the library in ``uns["spatial"]``, else the file's.

    Raises
    ------
    InputError
        If the file is damaged, holds several libraries, or no counts.
    """
    table = read_anndata(path)
    check_one_library(table, path)
    return section_of(table, path, layer=layer, name=name)


def check_one_library(table: AnnData, path: Path) -> None:
    """Refuse a table of several sections."""
    libraries = _libraries(table)
    if len(libraries) > 1 and library_column(table) is not None:
        raise InputError(
            f"'{path}' holds {len(libraries)} sections ({', '.join(libraries)}), expected one: "
            "open them with open_sections, or write one file for each."
        )


def open_libraries(path: Path, *, layer: str | None = None) -> list[Section]:
    """Open every library of a file as a section of its own.

    Parameters
    ----------
    path, layer
        As for :func:`open_anndata`.
    """
    table = read_anndata(path)
    libraries, column = _libraries(table), library_column(table)
    if len(libraries) < 2 or column is None:
        return [section_of(table, path, layer=layer)]
    sections = []
    for library in libraries:
        part = table[table.obs[column].astype(str) == library].copy()
        part.uns["spatial"] = {library: part.uns["spatial"][library]}
        sections.append(section_of(part, path, layer=layer, name=library))
    return sections


def read_anndata(path: Path) -> AnnData:
    """Read a table and make its feature names unique; the originals stay in ``gene_name``.

    Raises
    ------
    InputError
        If the file is damaged or is no AnnData.
    """
    if path.is_dir():
        check_zarr(path)
        read = anndata.read_zarr
    else:
        _check_is_anndata(path)
        read = anndata.read_h5ad
    remedy = "write it anew with anndata, or fetch it again"
    with reading(path, "AnnData", remedy=remedy), no_strangers():
        # Repeated names are dealt with below and told in our own words; numbers as names are usual.
        python_warnings.filterwarnings("ignore", message=".*names are not unique")
        python_warnings.filterwarnings("ignore", message="Transforming to str index")
        table = read(path)
    check_arrays(table, path)
    make_names_unique(table)
    return table


def _check_is_anndata(path: Path) -> None:
    """Refuse other HDF5 files before anndata guesses at them."""
    found = check_hdf5(path)
    if not {"obs", "var"} <= set(found):
        raise InputError(
            f"'{path}' is HDF5 but no AnnData: expected obs and var in it, found "
            f"{', '.join(found) or 'nothing'}; give the file that anndata wrote."
        )


def make_names_unique(table: AnnData) -> None:
    """Make repeated ``var_names`` unique in place; the originals stay in ``gene_name``."""
    if table.var_names.is_unique:
        return
    if ORIGINAL_NAME not in table.var.columns:
        table.var[ORIGINAL_NAME] = table.var_names.to_numpy(dtype=object)
    table.var_names = unique_names(table.var_names)


def section_of(
    table: AnnData, source: Path, *, layer: str | None = None, name: str | None = None
) -> Section:
    """Make a section of a table that was read from an AnnData file.

    Parameters
    ----------
    table
        Positions and measured proteins are put where :class:`Section` has them, in place.
    source, layer, name
        As for :func:`open_anndata`.
    """
    check_table(table, source)
    return assemble(parts_of(table, source, layer=layer, name=name))


def parts_of(
    table: AnnData, source: Path, *, layer: str | None = None, name: str | None = None
) -> Parts:
    """Gather the parts of a section that is no more than a table; as for `section_of`.

    Only ``obs``, ``obsm`` and ``uns`` are looked at.
    """
    notes: list[str] = []
    libraries = _libraries(table)
    library = next(iter(libraries), None)
    has_positions, on_lattice = _normalise_positions(table, notes)
    content = libraries[library] if library is not None and has_positions else {}
    scalefactors = _mapping(content.get("scalefactors"))
    diameter = _scale(scalefactors, "spot_diameter_fullres", source)
    pixel_size = 1.0 if on_lattice else _scale(scalefactors, "microns_per_pixel", source)
    assay: Assay = "cells"
    if has_positions:
        check_positions(table, source)
        rows, columns = table.obs.get("array_row"), table.obs.get("array_col")
        if rows is not None and columns is not None and pixel_size is None:
            pixel_size = lattice.microns_per_pixel(
                _indices(rows), _indices(columns), table.obsm["spatial"], diameter
            )
        stated = _stated_assay(content)
        if pixel_size is not None and diameter is None and stated in (None, "visium"):
            diameter = lattice.SPOT_MICRONS / pixel_size
        assay = "visium" if diameter is not None or rows is not None else "cells"
        assay = "visium_hd" if "bin_size_um" in scalefactors else assay
        assay = stated or assay
    return Parts(
        name=name or library or source.name.removesuffix(source.suffix),
        table=table,
        source=source,
        assay=assay,
        images=_images(content, scalefactors, source),
        spot_diameter=diameter,
        microns_per_pixel=pixel_size,
        layer=layer,
        warnings=notes,
    )


def library_column(table: AnnData) -> str | None:
    """Column of ``obs`` that says to which library of ``uns["spatial"]`` a spot belongs."""
    libraries = set(_libraries(table))
    for column in table.obs.columns:
        values = table.obs[column]
        if values.dtype.kind in "OSU" or isinstance(values.dtype, pd.CategoricalDtype):
            names = {str(value) for value in pd.unique(values.dropna())}
            if len(names) > 1 and names <= libraries:
                return str(column)
    return None


def _libraries(table: AnnData) -> dict[str, dict[str, Any]]:
    spatial = table.uns.get("spatial")
    if not isinstance(spatial, dict):
        return {}
    return {str(key): value for key, value in spatial.items() if isinstance(value, dict)}


def _normalise_positions(table: AnnData, notes: list[str]) -> tuple[bool, bool]:
    """Put positions into ``obsm["spatial"]`` as (n, 2) float64.

    Returns
    -------
    tuple of bool
        Whether there are positions, and whether they were rows and columns of the slide and
        are in µm now.
    """
    key = next((key for key in POSITION_KEYS if key in table.obsm), None)
    if key is None:
        return False, False
    if not take_positions(table, key, notes):
        return False, False
    positions = table.obsm["spatial"]
    on_lattice = "array_row" not in table.obs.columns and lattice.is_array_position(positions)
    if on_lattice:
        notes.append(
            "Positions are rows and columns of the slide (array_row, array_col), not pixels: spots "
            "were placed on Visium's lattice in µm."
        )
        table.obs["array_row"] = positions[:, 0].astype(np.int64)
        table.obs["array_col"] = positions[:, 1].astype(np.int64)
        positions = lattice.to_microns(positions[:, 0], positions[:, 1])
    table.obsm["spatial"] = positions
    return True, on_lattice


def take_positions(table: AnnData, key: str, notes: list[str]) -> bool:
    """Put ``obsm[key]`` into ``obsm["spatial"]`` as (n, 2) float64, x and y.

    Returns
    -------
    bool
        False where there are none, or none that can be used; then ``obsm`` has no ``"spatial"``,
        and what had this name is kept as ``"spatial_ignored"``.
    """
    if key not in table.obsm:
        return False
    try:
        positions = np.asarray(table.obsm[key], dtype=np.float64)
        found = f"the shape {positions.shape}"
    except (TypeError, ValueError):
        positions, found = np.empty(0), "values that are no numbers"
    if positions.ndim != 2 or positions.shape[1] < 2:
        notes.append(f"obsm['{key}'] has {found}, expected two columns, x and y; it was ignored.")
        if key == "spatial":
            table.obsm["spatial_ignored"] = table.obsm.pop("spatial")
        return False
    if positions.shape[1] > 2:
        notes.append(f"obsm['{key}'] has {positions.shape[1]} columns; the first two are used.")
        positions = positions[:, :2]
    table.obsm["spatial"] = positions
    return True


def _scale(scalefactors: dict[str, Any], key: str, source: Path) -> float | None:
    value = scalefactors.get(key)
    if value is None:
        return None
    # HDF5 gives numpy scalars, sometimes in an array of one.
    if isinstance(value, np.generic | np.ndarray) and value.size:
        value = value.ravel()[0].item()
    return check_scale(value, key, source)


def _mapping(value: Any) -> dict[str, Any]:
    """Return what should be a dict, if it is one."""
    return value if isinstance(value, dict) else {}


def _indices(column: pd.Series) -> np.ndarray:
    """Rows or columns of the slide, float64; NaN for what is no number."""
    numbers = as_numbers(column)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _stated_assay(content: dict[str, Any]) -> Assay | None:
    """Kind of section as `sclinguist_core.data.write.section_table` wrote it, or None."""
    stated = _mapping(content.get("metadata")).get(ASSAY)
    # An array would be compared element by element.
    known = isinstance(stated, str)
    return next((assay for assay in get_args(Assay) if known and assay == stated), None)


def _images(
    content: dict[str, Any], scalefactors: dict[str, Any], source: Path
) -> dict[str, SectionImage]:
    images = {}
    for key, value in _mapping(content.get("images")).items():
        scale = _scale(scalefactors, f"tissue_{key}_scalef", source)
        # Those that are still on disk stay there until somebody looks at them.
        is_read = isinstance(value, np.ndarray) or not hasattr(value, "shape")
        pixels = np.asarray(value) if is_read else value
        if scale is None or not is_image(pixels):
            continue
        height, width = pixels.shape[:2]
        images[str(key)] = SectionImage(
            to_rgb8(pixels) if is_read else partial(to_rgb8, pixels),
            scale, str(key), shape=(int(height), int(width)),
        )  # fmt: skip
    return images
