"""A file that was written: its name, and ways to get at it."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QHBoxLayout, QPushButton, QVBoxLayout, QWidget
from superqt import QElidingLabel


class WrittenFile(QWidget):
    """Path of a file with "Show in folder" and "Copy path"; hidden while there is none.

    Parameters
    ----------
    verb
        What was done, such as ``"Saved in"``.
    """

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb = verb
        self.path: Path | None = None
        self.text = QElidingLabel()
        self.text.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.folder = QPushButton("Show in folder")
        self.copy = QPushButton("Copy path")
        buttons = QHBoxLayout()
        buttons.setSpacing(6)
        buttons.addWidget(self.folder)
        buttons.addWidget(self.copy)
        buttons.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.text)
        layout.addLayout(buttons)
        self.folder.clicked.connect(self._show_in_folder)
        self.copy.clicked.connect(lambda: QApplication.clipboard().setText(str(self.path)))
        self.show_path(None)

    def show_path(self, path: Path | None) -> None:
        """Show another file, or none."""
        self.path = path
        self.setVisible(path is not None)
        if path is not None:
            self.text.setText(f"{self.verb} {path}")
            self.text.setToolTip(str(path))

    def _show_in_folder(self) -> None:
        if self.path is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.path.parent)))
