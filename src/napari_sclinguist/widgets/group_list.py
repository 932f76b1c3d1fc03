"""The groups of a grouping in a list: colour, name, number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

if TYPE_CHECKING:
    from napari_sclinguist.control.region_groups import Group

_SWATCH = 14
_MOST_SHOWN = 7
_EMPTY_ROWS = 2


class GroupList(QTreeWidget):
    """Chooses one group; a double click on a region renames it."""

    chosen = Signal(str)
    renamed = Signal(str, str)
    """Former and new name."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet = False
        self.setColumnCount(2)
        self.setHeaderHidden(True)
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setAccessibleName("Groups")
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.currentItemChanged.connect(self._on_current)
        self.itemDoubleClicked.connect(lambda item, _: self._edit(item))
        self.itemChanged.connect(self._on_changed)

    @property
    def name(self) -> str:
        """Name of the chosen group; "" if none is."""
        item = self.currentItem()
        return "" if item is None else item.data(0, Qt.ItemDataRole.UserRole)

    @property
    def _row_height(self) -> int:
        return self.fontMetrics().height() + 6

    def show_groups(self, groups: Sequence[Group], noun: str, *, renamable: bool) -> None:
        """List groups; the chosen one stays chosen as long as it is there."""
        former, self._quiet = self.name, True
        try:
            self.clear()
            for group in groups:
                item = QTreeWidgetItem([group.name, f"{group.n_rows:,} {noun}"])
                item.setData(0, Qt.ItemDataRole.UserRole, group.name)
                item.setToolTip(0, group.name)
                item.setSizeHint(0, QSize(0, self._row_height))
                item.setTextAlignment(
                    1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                )
                if group.colour:
                    item.setIcon(0, _swatch(group.colour))
                if renamable:
                    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                self.addTopLevelItem(item)
                if group.name == former:
                    self.setCurrentItem(item)
        finally:
            self._quiet = False
        n_shown = min(max(len(groups), _EMPTY_ROWS), _MOST_SHOWN)
        self.setFixedHeight(n_shown * self._row_height + 2 * self.frameWidth() + 2)

    def rename_chosen(self) -> None:
        """Let the name of the chosen region be typed."""
        if self.currentItem() is not None:
            self._edit(self.currentItem())

    def _edit(self, item: QTreeWidgetItem) -> None:
        if item.flags() & Qt.ItemFlag.ItemIsEditable:
            self.editItem(item, 0)

    def _on_current(self, item: QTreeWidgetItem | None, former: object) -> None:
        if not self._quiet:
            self.chosen.emit(self.name)

    def _on_changed(self, item: QTreeWidgetItem, column: int) -> None:
        former = item.data(0, Qt.ItemDataRole.UserRole)
        name = item.text(0).strip()
        if self._quiet or column != 0 or name == former:
            return
        if name:
            item.setData(0, Qt.ItemDataRole.UserRole, name)  # stays chosen under its new name
            self.renamed.emit(former, name)
        else:
            item.setText(0, former)


def _swatch(colour: str) -> QIcon:
    picture = QPixmap(_SWATCH, _SWATCH)
    picture.fill(QColor(colour))
    return QIcon(picture)
