"""How far the download of a public section is, and a way to stop it."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sclinguist.control.download import Download, DownloadState, Stage
from napari_sclinguist.docking import PLUGIN
from napari_sclinguist.widgets.style import LEVEL_COLOURS
from napari_sclinguist.widgets.worker import launch

if TYPE_CHECKING:
    import napari

    from sclinguist_core.data.datasets import Dataset

_STEPS = 1000
_WIDTH = 560


class DownloadDialog(QDialog):
    """Renders a `Download`; goes away by itself when the section is open, or after a cancel.

    Parameters
    ----------
    download
        What is shown.
    parent
        The window that it belongs to and closes with.
    """

    def __init__(self, download: Download, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.download = download
        dataset = download.dataset
        self.setWindowTitle("Download")
        self.setModal(False)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.title = QLabel(
            f'<a href="{escape(dataset.page)}" style="color: {LEVEL_COLOURS["info"]}">'
            f"{escape(dataset.title)}</a>, licence {escape(dataset.licence)}"
        )
        self.title.setOpenExternalLinks(True)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.again = QPushButton("Try again")
        self.stop = QPushButton("Cancel")
        buttons = QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(self.again)
        buttons.addWidget(self.stop)
        layout = QVBoxLayout(self)
        for part in (self.title, self.bar, self.text):
            layout.addWidget(part)
        layout.addLayout(buttons)
        self.setFixedWidth(_WIDTH)
        self.again.clicked.connect(download.start)
        self.stop.clicked.connect(self.reject)
        # Also when the window is closed, which takes this dialog along.
        self.destroyed.connect(lambda: download.close())
        download.changed.connect(self.show_state)
        self.show_state(download.state)

    def show_state(self, state: DownloadState) -> None:
        """Show how far it is."""
        failed = state.stage is Stage.FAILED
        self.bar.setVisible(not failed)
        self.bar.setRange(0, 0 if state.fraction is None else _STEPS)
        self.bar.setValue(round((state.fraction or 0) * _STEPS))
        self.text.setText(state.text)
        self.again.setVisible(failed)
        self.stop.setText("Close" if failed else "Cancel")
        self.stop.setEnabled(state.stage is not Stage.STOPPING)
        self.adjustSize()  # a sentence takes several lines
        if state.stage is Stage.ENDED and self.isVisible():
            self.accept()

    def reject(self) -> None:
        """Cancel, by the button, the Escape key or the window's cross; close once it has ended."""
        if self.download.state.stage is Stage.RUNNING:
            self.download.cancel()
        elif self.download.state.stage is not Stage.STOPPING:
            super().reject()


def download_into(viewer: napari.Viewer, dataset: Dataset) -> DownloadDialog:
    """Download a data set beside the window of a viewer, and open it there when it has come."""

    def open_folder(folder: Path) -> None:
        viewer.open(str(folder), plugin=PLUGIN)

    dialog = DownloadDialog(Download(dataset, launch, open_folder), viewer.window._qt_window)
    dialog.show()
    dialog.download.start()
    return dialog
