"""Which section the dock is about, and the values under the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QLabel, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace

NOTHING_OPEN = (
    "Drop a Space Ranger folder on the window, or choose File > Open Sample > scLinguist."
)


class SectionBar(QWidget):
    """Chooser of the open sections, and a line for the spot under the cursor."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.chooser = QComboBox()
        self.chooser.setToolTip("Section that the dock is about; a dot marks what is not saved yet")
        self.hint = QLabel(NOTHING_OPEN)
        self.hint.setWordWrap(True)
        self.under_cursor = QLabel()
        self.under_cursor.setTextFormat(Qt.TextFormat.PlainText)
        self.under_cursor.setToolTip("Value of the spot or cell under the cursor")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.chooser, self.hint, self.under_cursor):
            layout.addWidget(widget)
        self.chooser.activated.connect(lambda i: workspace.activate(workspace.sections[i]))
        workspace.sections_changed.connect(self._list)
        workspace.active_changed.connect(self._choose)
        workspace.under_cursor.connect(self._show_row)
        self._list()

    def _list(self) -> None:
        sections = self.workspace.sections
        self.chooser.clear()
        for one in sections:
            self.chooser.addItem(self._title(one))
            one.dirty_changed.connect(self._mark, unique=True)
        self.chooser.setVisible(bool(sections))
        self.hint.setVisible(not sections)
        self.under_cursor.setVisible(bool(sections))
        self._choose(self.workspace.active)

    def _mark(self, dirty: bool) -> None:
        for i, one in enumerate(self.workspace.sections):
            self.chooser.setItemText(i, self._title(one))

    def _choose(self, opened: OpenSection | None) -> None:
        if opened in self.workspace.sections:
            self.chooser.setCurrentIndex(self.workspace.sections.index(opened))
        self.under_cursor.setText("")

    def _show_row(self, text: str) -> None:
        self.under_cursor.setText(text)

    @staticmethod
    def _title(opened: OpenSection) -> str:
        return f"● {opened.name}" if opened.dirty else opened.name
