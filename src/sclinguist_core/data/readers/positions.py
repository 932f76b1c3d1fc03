"""Positions of spots and scale factors, as Space Ranger writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import pandas as pd

from sclinguist_core.data.numbers import as_numbers
from sclinguist_core.data.readers.layout import POSITIONS, SCALEFACTORS, find_one
from sclinguist_core.errors import InputError
from sclinguist_core.reading import check_fits, opened, read_json, reading

#: Columns of a positions file after the barcode, in the order of files without a header.
COLUMNS = ("in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")

_SCALES = ("spot_diameter_fullres", "tissue_hires_scalef", "tissue_lowres_scalef")
#: No position on a slide and no scale has a larger number; NaN and infinity are not smaller.
_LARGEST = 1e9
#: Below this share of matched barcodes the positions belong to another run.
_MIN_MATCHED = 0.5


def read_positions(folder: Path, prefix: str = "") -> pd.DataFrame:
    """Read the positions of all spots of a slide.

    Understands ``tissue_positions.parquet`` (Visium HD), ``tissue_positions.csv`` (Space Ranger
    2 and later, with a header) and ``tissue_positions_list.csv`` (1.x, without).

    Returns
    -------
    pandas.DataFrame
        Index barcode; columns as :data:`COLUMNS`.

    Raises
    ------
    InputError
        If the file is missing, damaged, lacks columns, or names a barcode twice.
    """
    path = find_one(folder, POSITIONS, prefix=prefix)
    if path is None:
        raise InputError(
            f"'{folder}' has no positions of spots, expected tissue_positions.csv, "
            "tissue_positions_list.csv or tissue_positions.parquet: fetch the file of this run."
        )
    frame = _read_positions_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    missing = [name for name in ("barcode", *COLUMNS) if (frame.columns == name).sum() != 1]
    if missing:
        raise InputError(
            f"'{path}' lacks the column(s) {', '.join(missing)}, or has them twice, expected "
            f"barcode, {', '.join(COLUMNS)}: take the file that Space Ranger wrote."
        )
    if frame["barcode"].duplicated().any():
        repeated = frame["barcode"][frame["barcode"].duplicated()]
        raise InputError(
            f"'{path}' names {repeated.nunique()} barcode(s) twice, such as {repeated.iloc[0]}, "
            "expected one line a spot: take the file that Space Ranger wrote."
        )
    numbers = pd.DataFrame({name: as_numbers(frame[name]) for name in COLUMNS}, index=frame.index)
    bad = ~(numbers.abs() < _LARGEST).all(axis=1)
    if bad.any():
        line = frame.loc[bad].iloc[0]
        raise InputError(
            f"'{path}' has {int(bad.sum())} line(s) that are no positions, such as that of "
            f"'{line['barcode']}', expected five numbers after the barcode: take the file that "
            "Space Ranger wrote."
        )
    numbers.index = pd.Index(frame["barcode"].astype(str), dtype=object)
    for name in COLUMNS[:3]:
        numbers[name] = numbers[name].astype(np.int64)
    return numbers


def read_scalefactors(folder: Path, prefix: str = "", *, of_spots: bool = True) -> dict[str, float]:
    """Read ``scalefactors_json.json`` and check that its numbers make sense.

    Parameters
    ----------
    folder, prefix
        Where it lies, and what may stand before its name.
    of_spots
        Whether a diameter of spots must be stated; segmented cells have none.

    Raises
    ------
    InputError
        If it is missing, is no JSON, or holds a scale that is not a positive number.
    """
    path = find_one(folder, SCALEFACTORS, prefix=prefix)
    if path is None:
        raise InputError(
            f"'{folder}' has no scalefactors_json.json, expected it beside the positions: without "
            "it spots cannot be placed on the image; fetch the file of this run."
        )
    values = read_json(path)
    expected = {"spot_diameter_fullres"} if of_spots else set()
    if not isinstance(values, dict) or not expected <= set(values):
        raise InputError(
            f"'{path}' does not state spot_diameter_fullres, expected scale factors of Space "
            "Ranger: fetch the file of this run."
        )
    for name in (*_SCALES, "microns_per_pixel", "bin_size_um"):
        if name in values:
            check_scale(values[name], name, path)
    # The others are stored with the section: of what is no number no file of tables has a place.
    return {name: float(value) for name, value in values.items() if _is_number(value)}


def _is_number(value: object) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    # Compared, not converted: an int may be too long to become a float.
    return -_LARGEST < value < _LARGEST


def check_scale(value: object, name: str, source: object) -> float:
    """Return a scale as float; refuse zero, negative, infinite and non-numeric ones."""
    number = float(value) if _is_number(value) else math.nan
    if not number > 1 / _LARGEST:
        raise InputError(
            f"'{source}' states {name} = {_shown(value)}, expected a number above zero: fetch the "
            "file of this run again."
        )
    return number


def _shown(value: object) -> str:
    # Python refuses to write out an int of thousands of digits.
    return "a very large number" if isinstance(value, int) and value > _LARGEST else repr(value)


def match_barcodes(
    barcodes: np.ndarray, known: pd.Index, *, counts_path: Path, positions_path: Path
) -> np.ndarray:
    """Row of the positions for each barcode of the counts.

    Barcodes are compared as they stand; where that fails for most of them, without the suffix
    (``-1``) that one of both files may lack.

    Returns
    -------
    numpy.ndarray
        (n_barcodes,) int; -1 where a barcode has no position.

    Raises
    ------
    InputError
        If fewer than half of the barcodes have a position.
    """
    rows = known.get_indexer(pd.Index(barcodes))
    if len(barcodes) and np.mean(rows >= 0) < _MIN_MATCHED:
        bare_known = known.str.replace(r"-\d+$", "", regex=True)
        bare = pd.Index(barcodes).str.replace(r"-\d+$", "", regex=True)
        if bare_known.is_unique and bare.is_unique:
            rows = bare_known.get_indexer(bare)
    matched = int(np.count_nonzero(rows >= 0))
    if len(barcodes) and matched < _MIN_MATCHED * len(barcodes):
        raise InputError(
            f"Only {matched:,} of the {len(barcodes):,} barcodes of '{counts_path}' (such as "
            f"{_example(barcodes)}) have a position in '{positions_path}' (such as "
            f"{_example(known)}), expected all: counts and positions must come from one run."
        )
    return np.asarray(rows)


def _example(barcodes: Sequence[str] | np.ndarray | pd.Index) -> str:
    return str(barcodes[0]) if len(barcodes) else "none"


def _read_csv(path: Path) -> pd.DataFrame:
    with opened(path) as file, reading(path, "a comma-separated file"):
        try:
            frame = pd.read_csv(file, header=None, dtype=str, keep_default_na=False)
        except pd.errors.EmptyDataError as error:
            raise InputError(
                f"'{path}' is empty, expected a line for every spot: fetch it again."
            ) from error
    first = [str(value).strip().lower() for value in frame.iloc[0]]
    # Some 1.x files were given a header by their owners: look at the line, not the name.
    if "barcode" in first or "in_tissue" in first:
        frame = frame.iloc[1:].set_axis(first, axis=1)
        if "barcode" not in frame.columns:
            frame = frame.rename(columns={frame.columns[0]: "barcode"})
        return frame.reset_index(drop=True)
    if frame.shape[1] != len(COLUMNS) + 1:
        raise InputError(
            f"'{path}' has {frame.shape[1]} columns and no header, expected barcode, "
            f"{', '.join(COLUMNS)}: take the file that Space Ranger wrote."
        )
    return frame.set_axis(["barcode", *COLUMNS], axis=1)


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file, if what it says that it holds fits into memory."""
    from pyarrow.parquet import ParquetFile

    # From an open file: of a path, names of folders (a=1) would become columns.
    with opened(path) as file, reading(path, "Parquet"):
        metadata = ParquetFile(file).metadata
        check_fits(8 * metadata.num_rows * metadata.num_columns, path)
        return pd.read_parquet(file)


def _read_positions_parquet(path: Path) -> pd.DataFrame:
    frame = read_parquet(path)
    if "barcode" not in frame.columns:
        frame = frame.reset_index(names="barcode")
    return frame
