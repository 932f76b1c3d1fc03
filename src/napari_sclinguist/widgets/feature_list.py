"""The list of found features: click, arrows and Enter colour the tissue."""

from __future__ import annotations

from qtpy.QtCore import QItemSelectionModel, QSize, Qt, Signal
from qtpy.QtGui import QKeyEvent, QMouseEvent
from qtpy.QtWidgets import QAbstractItemView, QListView

from napari_sclinguist.control.exploring import Exploring
from napari_sclinguist.widgets.feature_delegate import FeatureDelegate
from napari_sclinguist.widgets.feature_model import FeatureModel

_ROWS = 8
"""Rows that should be visible where there is room."""
_LEAST_ROWS = 7


class FeatureList(QListView):
    """Renders `Exploring.listing`.

    Parameters
    ----------
    exploring
        State of the list.
    """

    typed = Signal(str)
    """A letter was typed: the search box takes it."""

    def __init__(self, exploring: Exploring) -> None:
        super().__init__()
        self._exploring = exploring
        self.features = FeatureModel(exploring)
        self.setModel(self.features)
        self.setItemDelegate(FeatureDelegate(self))
        self.setUniformItemSizes(True)
        self.setMouseTracking(True)
        self.setAccessibleName("Features")
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._is_new = True
        self._row: int | None = None
        exploring.listed.connect(self._on_listed)
        exploring.moved.connect(self._on_moved)
        self._on_listed()
        self._on_moved()

    def sizeHint(self) -> QSize:
        """Ask for some rows."""
        return QSize(300, _ROWS * self._row_height())

    def minimumSizeHint(self) -> QSize:
        """Ask for fewer rows where the legend is long: the legend scrolls then."""
        return QSize(200, _LEAST_ROWS * self._row_height())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Arrows step and colour; Enter, star and plus act on the row."""
        key, modifiers = event.key(), event.modifiers()
        page = max(self.viewport().height() // max(self._row_height(), 1) - 1, 1)
        steps = {
            Qt.Key.Key_Down: 1,
            Qt.Key.Key_Up: -1,
            Qt.Key.Key_PageDown: page,
            Qt.Key.Key_PageUp: -page,
            Qt.Key.Key_Home: -self.features.rowCount(),
            Qt.Key.Key_End: self.features.rowCount(),
        }
        control = bool(modifiers & Qt.KeyboardModifier.ControlModifier)
        if key in steps:
            self._exploring.step(steps[key])
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if modifiers & Qt.KeyboardModifier.ShiftModifier:
                self._exploring.add()
            else:
                self._exploring.show()
        elif key == Qt.Key.Key_Asterisk or (control and key == Qt.Key.Key_D):
            self._exploring.toggle_star()
        elif key == Qt.Key.Key_Plus:
            self._exploring.add()
        elif key == Qt.Key.Key_Slash:
            self.typed.emit("")
        elif event.text().isprintable() and event.text().strip() and not control:
            self.typed.emit(event.text())
        else:
            event.ignore()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Show what is clicked; the star and the plus sign have their own meaning."""
        place = event.position().toPoint()
        index = self.indexAt(place)
        if event.button() != Qt.MouseButton.LeftButton or not index.isValid():
            return
        row = self.visualRect(index)
        if FeatureDelegate.is_star(row, place.x()):
            self._exploring.toggle_star(index.row())
        elif (
            FeatureDelegate.is_plus(row, place.x())
            or event.modifiers() & Qt.KeyboardModifier.ShiftModifier
        ):
            self._exploring.add(index.row())
        else:
            self._exploring.show(index.row())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Only hover: dragging over the rows selects nothing."""
        if event.buttons() == Qt.MouseButton.NoButton:
            super().mouseMoveEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Everything happened when the button was pressed."""

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Take a second click as a click."""
        self.mousePressEvent(event)

    def _row_height(self) -> int:
        rows = self.features.rowCount()
        return self.sizeHintForRow(0) if rows else self.fontMetrics().height() + 9

    def _on_listed(self) -> None:
        self.features.refresh()
        self._is_new = True

    def _on_moved(self) -> None:
        row = self._exploring.row
        if row != self._row or self._is_new:
            self._go_to(row)
        self._row = row
        self._is_new = False
        self.viewport().update()

    def _go_to(self, row: int | None) -> None:
        if row is None:
            self.clearSelection()
            self.scrollToTop()
            return
        index = self.features.index(row)
        command = QItemSelectionModel.SelectionFlag.ClearAndSelect
        self.selectionModel().setCurrentIndex(index, command)
        hint = QAbstractItemView.ScrollHint
        self.scrollTo(index, hint.PositionAtCenter if self._is_new else hint.EnsureVisible)
