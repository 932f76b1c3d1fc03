"""A pandas table on the screen: sorted by a click on a column, fast for many rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QKeySequence, QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QApplication, QHeaderView, QTableView

NOTHING = "–"
"""Stands for a missing value."""
_LEAST_REST = 80
"""Width in pixels that a column without a width of its own needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """How a column of the table is shown.

    Attributes
    ----------
    name
        Its name in the table.
    title
        Its name on the screen.
    tip
        What it is, in a sentence.
    digits
        Decimals of numbers.
    width
        In pixels; None takes what is left over.
    optional
        Left out where the table is too narrow for all of its columns.
    """

    name: str
    title: str = ""
    tip: str = ""
    digits: int = 2
    width: int | None = None
    optional: bool = False


class DataFrameModel(QAbstractTableModel):
    """Rows of a table in an order of its own.

    Sorting is done here on whole columns: a `QSortFilterProxyModel` would ask Python for two
    values at every comparison.
    """

    def __init__(self, columns: Sequence[Column] = ()) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.frame = pd.DataFrame({column.name: [] for column in self.columns})
        self.order = np.arange(0)
        self.sorted_by: tuple[int, Qt.SortOrder] | None = None

    def set_frame(self, frame: pd.DataFrame, columns: Sequence[Column] | None = None) -> None:
        """Show another table, sorted as the former one was.

        Parameters
        ----------
        frame
            The table; its index is not shown.
        columns
            Columns to show; those of the former table by default, all if there were none.
        """
        self.beginResetModel()
        if columns is not None:
            self.columns = tuple(columns)
        if not self.columns:
            self.columns = tuple(Column(name=name) for name in frame.columns)
        self.frame = frame
        self.order = self._sorted()
        self.endResetModel()

    def row_of(self, place: int) -> int:
        """Row of the table that is shown at a place."""
        return int(self.order[place])

    def place_of(self, row: int) -> int:
        """Where a row of the table is shown."""
        return int(np.flatnonzero(self.order == row)[0])

    # --- what Qt asks -------------------------------------------------------------------------

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """See Qt."""
        return 0 if parent is not None and parent.isValid() else len(self.order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """See Qt."""
        return 0 if parent is not None and parent.isValid() else len(self.columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """See Qt."""
        column = self.columns[index.column()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            value = self.frame[column.name].iat[self.row_of(index.row())]
            return as_text(value, column.digits)
        if role == Qt.ItemDataRole.TextAlignmentRole and self._is_numeric(column):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """See Qt."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        column = self.columns[section]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.title or column.name
        return (column.tip or None) if role == Qt.ItemDataRole.ToolTipRole else None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column: numbers by size, categories in their order, missing values last."""
        self.layoutAboutToBeChanged.emit()
        self.sorted_by = (column, order) if 0 <= column < len(self.columns) else None
        former = self.persistentIndexList()
        rows = [self.row_of(index.row()) for index in former]
        self.order = self._sorted()
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        self.changePersistentIndexList(
            former,
            [
                self.index(int(place[row]), index.column())
                for row, index in zip(rows, former, strict=True)
            ],
        )
        self.layoutChanged.emit()

    def _sorted(self) -> np.ndarray:
        rows = np.arange(len(self.frame))
        if self.sorted_by is None or not len(rows):
            return rows
        column, order = self.sorted_by
        values = self.frame[self.columns[column].name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            codes = values.cat.codes.to_numpy(np.float64)
            keys = np.where(codes < 0, np.nan, codes)
        elif pd.api.types.is_numeric_dtype(values):
            keys = values.to_numpy(np.float64, na_value=np.nan)
        else:
            text = values.astype("string").str.casefold()
            codes = pd.Categorical(text).codes.astype(np.float64)
            keys = np.where((codes < 0) | (text == "").fillna(True), np.nan, codes)
        if order == Qt.SortOrder.DescendingOrder:
            keys = -keys
        return np.argsort(keys, kind="stable")  # NaN comes last either way

    def _is_numeric(self, column: Column) -> bool:
        return pd.api.types.is_numeric_dtype(self.frame[column.name])


class TableView(QTableView):
    """A sortable table of rows to choose from; Ctrl+C copies the chosen ones for a spreadsheet.

    Parameters
    ----------
    columns
        Columns to show; all of the table by default.
    """

    chosen = Signal(int)
    """Row of the table (not its place) that was clicked, or reached with the arrow keys."""

    def __init__(self, columns: Sequence[Column] = ()) -> None:
        super().__init__()
        self.frame_model = DataFrameModel(columns)
        self.setModel(self.frame_model)
        self.setSortingEnabled(True)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        rows = self.verticalHeader()
        rows.setVisible(False)
        # One height for all: Qt then does not ask for that of every row.
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self.fontMetrics().height() + 8)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(20)
        header.setHighlightSections(False)  # whole rows are chosen: all titles would turn bold
        self._lay_out()
        self._quiet = False
        self.selectionModel().currentRowChanged.connect(self._on_row)

    def set_frame(self, frame: pd.DataFrame, columns: Sequence[Column] | None = None) -> None:
        """Show another table; see `DataFrameModel.set_frame`."""
        self._quiet = True
        try:
            self.frame_model.set_frame(frame, columns)
            self._lay_out()
        finally:
            self._quiet = False

    def sort_by(self, name: str, *, descending: bool = False) -> None:
        """Sort by a column, by its name in the table."""
        place = [column.name for column in self.frame_model.columns].index(name)
        order = Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder
        self.sortByColumn(place, order)

    def mark(self, row: int | None) -> None:
        """Select a row of the table and scroll to it, telling nobody; None selects nothing."""
        self._quiet = True
        try:
            if row is None:
                self.selectionModel().clear()
                return
            index = self.frame_model.index(self.frame_model.place_of(row), 0)
            if index.row() != self.currentIndex().row():
                self.setCurrentIndex(index)
        finally:
            self._quiet = False

    def shown(self, name: str) -> list[str]:
        """Texts of a column, from the top."""
        model = self.frame_model
        place = [column.name for column in model.columns].index(name)
        return [model.data(model.index(i, place)) for i in range(model.rowCount())]

    def keyPressEvent(self, event: Any) -> None:
        """Copy the chosen rows on Ctrl+C."""
        if event.matches(QKeySequence.StandardKey.Copy):
            model = self.frame_model
            places = sorted(index.row() for index in self.selectionModel().selectedRows())
            rows = model.frame.iloc[[model.row_of(place) for place in places]]
            names = [column.name for column in model.columns]
            QApplication.clipboard().setText(rows[names].to_csv(sep="\t", index=False))
            return
        super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Leave columns out, or bring them back."""
        super().resizeEvent(event)
        self._choose_columns()

    def _on_row(self, index: QModelIndex, _former: QModelIndex) -> None:
        if index.isValid() and not self._quiet:
            self.chosen.emit(self.frame_model.row_of(index.row()))

    def _lay_out(self) -> None:
        header = self.horizontalHeader()
        for i, column in enumerate(self.frame_model.columns):
            fixed = column.width is not None
            mode = QHeaderView.ResizeMode.Interactive if fixed else QHeaderView.ResizeMode.Stretch
            header.setSectionResizeMode(i, mode)
            if fixed:
                header.resizeSection(i, column.width)
        self._choose_columns()

    def _choose_columns(self) -> None:
        left = self.viewport().width()
        columns = enumerate(self.frame_model.columns)
        for i, column in sorted(columns, key=lambda item: item[1].optional):
            left -= _LEAST_REST if column.width is None else column.width
            self.setColumnHidden(i, column.optional and left < 0)


def as_text(value: Any, digits: int = 2) -> str:
    """Spell a value: numbers with so many decimals, missing ones as a dash."""
    if value is None or value is pd.NA or value == "" or value != value:  # NaN differs from itself
        return NOTHING
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}f}".replace("-", "−")
    return f"{value:,}" if isinstance(value, int | np.integer) else str(value)
