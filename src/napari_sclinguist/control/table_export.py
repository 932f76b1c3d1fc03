"""Values of the spots, or a summary of the proteins, as CSV or Excel; written in parts.

Shapes: n spots, bins or cells.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pandas as pd

from napari_sclinguist.control import names
from napari_sclinguist.control.catalogue import OOD_KEY, PREDICTED_KEY
from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.export import check_target, writing_to
from napari_sclinguist.control.jobs import Report
from sclinguist_core.errors import InputError
from sclinguist_core.files import replacing

if TYPE_CHECKING:
    from napari_sclinguist.control.entries import Entry
    from napari_sclinguist.control.open_section import OpenSection

FORMATS = ("csv", "xlsx")
MOST_EXCEL_ROWS = 1_048_575
"""Rows below the header that a sheet of Excel holds."""
MOST_EXCEL_COLUMNS = 16_384

_VALUES_AT_ONCE = 20_000
"""A step holds the window up for some hundredths of a second; it also bounds the memory."""
_PARTS = {
    "low": f"{PREDICTED_KEY}_low",
    "high": f"{PREDICTED_KEY}_high",
    "SD": f"{PREDICTED_KEY}_std",
}


class Rows(StrEnum):
    """What a row of the table is."""

    SPOTS = "spots"
    PROTEINS = "proteins"


@dataclass(frozen=True, kw_only=True, slots=True)
class TableOptions:
    """Which values are wanted.

    Attributes
    ----------
    rows
        One row a spot, or one row a predicted protein.
    keys
        Features to write; empty for all predicted proteins.
    intervals
        Also the ends of the 90 % interval and the standard deviation of the error of predicted
        proteins.
    selected_only
        Only the selected spots.
    """

    rows: Rows = Rows.SPOTS
    keys: tuple[str, ...] = ()
    intervals: bool = False
    selected_only: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Columns:
    """A table by its columns, so that it is never copied as a whole.

    Attributes
    ----------
    values
        Name to values, each of shape (n,).
    rows
        Row numbers to write, (m,).
    """

    values: dict[str, Any]
    rows: np.ndarray

    def part(self, start: int, stop: int) -> pd.DataFrame:
        """Take some of the rows."""
        rows = self.rows[start:stop]
        return pd.DataFrame({name: column[rows] for name, column in self.values.items()})


def columns_of(opened: OpenSection, options: TableOptions) -> Columns:
    """Gather the table as it is now.

    Raises
    ------
    InputError
        If there is nothing to write.
    """
    return _proteins(opened) if options.rows is Rows.PROTEINS else _spots(opened, options)


def table_steps(
    opened: OpenSection, options: TableOptions, path: str | os.PathLike[str]
) -> Generator[Report, None, Path]:
    """Write a table as CSV or Excel, completely or not at all; a job.

    Raises
    ------
    InputError
        If there is nothing to write, Excel cannot hold it, or the file cannot be written.
    """
    target = check_target(path, FORMATS)
    columns = columns_of(opened, options)
    total = len(columns.rows)
    excel = target.suffix.lower() == ".xlsx"
    if excel and (total > MOST_EXCEL_ROWS or len(columns.values) > MOST_EXCEL_COLUMNS):
        raise InputError(
            f"The table has {total:,} rows and {len(columns.values):,} columns, more than a sheet "
            f"of Excel holds ({MOST_EXCEL_ROWS:,} and {MOST_EXCEL_COLUMNS:,}): choose CSV."
        )
    yield Report(phase="writing", done=0, total=total)
    with writing_to(target), replacing(target) as temporary, contextlib.ExitStack() as stack:
        if excel:
            add, finish = _excel(stack, columns, about(opened, options), temporary)
        else:
            add, finish = _csv(stack, temporary)
        at_once = max(_VALUES_AT_ONCE // len(columns.values), 1)
        for start in range(0, total, at_once):
            stop = min(start + at_once, total)
            add(columns.part(start, stop))
            yield Report(phase="writing", done=stop, total=total)
        finish()
    return target


def about(opened: OpenSection, options: TableOptions) -> dict[str, str]:
    """Say where the values come from, for a sheet of its own."""
    section = opened.section
    info = section.table.uns.get("sclinguist", {})
    entries = [opened.catalogue.entry(key) for key in options.keys]
    units = {entry.label: entry.unit for entry in entries if entry.unit}
    lines = {
        "Section": section.name,
        "Opened from": str(section.source or ""),
        "Positions in": "pixels of the full-resolution image"
        if section.microns_per_pixel is None
        else "µm",
        "Model": str(info.get("model", "")),
        "Unit of predicted proteins": str(info.get("unit", "")),
        "Predicted on": str(info.get("date", "")),
        "Version of napari-sclinguist": str(info.get("version", "")),
        "Interval": "low and high hold 90 % of the true values" if options.intervals else "",
        "Written on": time.strftime("%Y-%m-%d"),
    }
    if options.rows is Rows.SPOTS:
        lines |= {f"Unit of {label}": unit for label, unit in units.items()}
    if section.table.uns.get("simulated"):
        lines["Note"] = "This section is simulated: its values say nothing about biology."
    return {name: value for name, value in lines.items() if value}


def _spots(opened: OpenSection, options: TableOptions) -> Columns:
    section, catalogue = opened.section, opened.catalogue
    table = section.table
    unit = "px" if section.microns_per_pixel is None else "um"
    places = section.positions * (section.microns_per_pixel or 1.0)
    values: dict[str, Any] = {
        "barcode": table.obs_names.to_numpy(),
        f"x_{unit}": places[:, 0],
        f"y_{unit}": places[:, 1],
    }
    if OOD_KEY in table.obs:
        values[OOD_KEY] = table.obs[OOD_KEY].to_numpy()
    for name, column in table.obs.items():
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            title = f"{name} (obs)" if name in values else str(name)
            values[title] = column.to_numpy(dtype=object)
    entries = [catalogue.entry(key) for key in options.keys]
    for entry in entries or _predicted(opened):
        if entry.kind is Kind.PREDICTED:  # as it is: the catalogue would keep copies
            values[entry.label] = table.obsm[PREDICTED_KEY][entry.name].to_numpy()
        else:
            values[entry.label] = catalogue.values(entry.key)
        if not (options.intervals and entry.kind is Kind.PREDICTED):
            continue
        for word, key in _PARTS.items():
            frame = table.obsm.get(key)
            if isinstance(frame, pd.DataFrame) and entry.name in frame:
                values[f"{entry.label} {word}"] = frame[entry.name].to_numpy()
    selected = opened.selected if options.selected_only else None
    rows = np.arange(section.n_obs) if selected is None else np.flatnonzero(selected)
    return Columns(values=values, rows=rows)


def _proteins(opened: OpenSection) -> Columns:
    entries = _predicted(opened)
    frame = opened.section.table.obsm[PREDICTED_KEY]
    mean, sd, n = frame.mean(), frame.std(ddof=0), frame.notna().sum()
    genes = names.coding_genes()
    proteins = [entry.name for entry in entries]
    values = {
        "protein": proteins,
        "genes": ["; ".join(genes.get(name, ())) for name in proteins],
        "trust": [entry.trust for entry in entries],
        "expected_r": [entry.expected_r for entry in entries],
        "mean": mean[proteins],
        "sd": sd[proteins],
        f"{opened.noun}_with_a_value": n[proteins],
    }
    return Columns(
        values={name: np.asarray(column) for name, column in values.items()},
        rows=np.arange(len(entries)),
    )


def _predicted(opened: OpenSection) -> list[Entry]:
    entries = opened.catalogue.of_kind(Kind.PREDICTED)
    if not entries:
        raise InputError(
            f"No proteins are predicted for '{opened.name}' yet: predict them first, or export "
            "the features that are shown."
        )
    return entries


Writer = tuple[Callable[[pd.DataFrame], None], Callable[[], None]]
"""Adds rows; finishes the file."""


def _csv(stack: contextlib.ExitStack, path: Path) -> Writer:
    handle = stack.enter_context(path.open("w", encoding="utf-8", newline=""))

    def add(part: pd.DataFrame) -> None:
        part.to_csv(handle, index=False, header=handle.tell() == 0, float_format="%.7g")

    return add, lambda: None


def _excel(
    stack: contextlib.ExitStack, columns: Columns, notes: dict[str, str], path: Path
) -> Writer:
    from openpyxl import Workbook
    from openpyxl.writer.excel import ExcelWriter

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Values")
    stack.callback(_let_go, sheet)
    sheet.freeze_panes = "B2"
    for letter, wide in (("A", 24), ("B", 14), ("C", 14)):
        sheet.column_dimensions[letter].width = wide
    sheet.append(_cells(sheet, columns.values))

    def add(part: pd.DataFrame) -> None:
        for row in _plain(part):
            sheet.append(_cells(sheet, row))

    def finish() -> None:
        other = book.create_sheet("About")
        stack.callback(_let_go, other)
        other.column_dimensions["A"].width = 32
        other.column_dimensions["B"].width = 60
        for pair in notes.items():
            other.append(_cells(other, pair))
        # As the library saves a book, but that its archive is closed when the disk fails, too.
        book.properties.modified = datetime.now(UTC).replace(tzinfo=None)
        with ZipFile(path, "w", ZIP_DEFLATED) as archive:
            ExcelWriter(book, archive).save()

    return add, finish


def _let_go(sheet: Any) -> None:
    """End a sheet that was not finished: its parts would complain when they are collected."""
    writer = sheet._writer
    if sheet.closed or writer is None:
        return
    rows = [] if sheet._rows is None else [sheet._rows.close]
    for end in (*rows, writer.close, writer.cleanup):
        with contextlib.suppress(Exception):  # a full disk may refuse each of them
            end()


def _plain(part: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Rows of Python values: 0.1 and not 0.10000000149, and nothing where a value is unknown."""
    plain = []
    for _, column in part.items():
        values = column.to_numpy()
        if values.dtype.kind == "f":
            # The shortest text that stands for a float32 is what was meant.
            values = values.astype(str).astype(np.float64)
        values = values.astype(object)
        values[column.isna().to_numpy()] = None
        plain.append(values)
    return zip(*plain, strict=True)


def _cells(sheet: Any, row: Any) -> list[Any]:
    """Texts as texts: what begins with "=" is no formula, and no text ends the writing."""
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    cells = []
    for value in row:
        if not isinstance(value, str):
            cells.append(value.item() if isinstance(value, np.generic) else value)
            continue
        value = ILLEGAL_CHARACTERS_RE.sub("", value)
        if value.startswith("="):
            cell = WriteOnlyCell(sheet, value)
            cell.data_type = "s"
            value = cell
        cells.append(value)
    return cells
