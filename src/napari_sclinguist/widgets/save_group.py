"""Save the predictions of the section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGroupBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_sclinguist.control.entries import Kind
from napari_sclinguist.widgets.plain import plain
from napari_sclinguist.widgets.save_dialog import choose_file
from napari_sclinguist.widgets.style import PRIMARY_BUTTON
from napari_sclinguist.widgets.written_file import WrittenFile

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.saving import Saving
    from napari_sclinguist.control.workspace import Workspace

FILES = "AnnData file (*.h5ad);;AnnData folder (*.zarr)"


class SaveGroup(QGroupBox):
    """Says whether predictions are saved, and saves them.

    Parameters
    ----------
    workspace, saving
        Whose active section, and what saves it.
    """

    def __init__(self, workspace: Workspace, saving: Saving) -> None:
        super().__init__("Save predictions")
        self.workspace = workspace
        self.saving = saving
        self.state = plain(QLabel())
        self.state.setWordWrap(True)
        self.button = QPushButton("Save…")
        self.button.setToolTip(
            "Write the section with its predictions, image and present view to a file of its own; "
            "what was opened stays as it is"
        )
        self.file = WrittenFile("Saved in")
        layout = QVBoxLayout(self)
        layout.addWidget(self.state)
        layout.addWidget(self.button)
        layout.addWidget(self.file)
        self.button.clicked.connect(self.save)

    def render_section(self, opened: OpenSection | None, idle: bool) -> None:
        """Show a section."""
        self.button.setEnabled(opened is not None and idle)
        unsaved = opened is not None and opened.dirty
        self.button.setStyleSheet(PRIMARY_BUTTON if unsaved else "")
        self.file.show_path(None if opened is None else self.saving.path_of(opened))
        self.state.setText("No section is open." if opened is None else _describe(opened))

    def save(self) -> None:
        """Ask where to, and start writing."""
        opened = self.workspace.active
        if opened is None:
            return
        path = choose_where_to_save(self, self.saving, opened)
        if path is not None:
            self.saving.save([(opened, path)])


def choose_where_to_save(parent: QWidget, saving: Saving, opened: OpenSection) -> Path | None:
    """Ask for the file of a section; its original is replaced only after a question of its own."""

    def question(path: Path) -> str:
        if saving.must_ask(opened, path):
            return f"Replace the original? '{path.name}' is the file that was opened."
        return ""

    path = choose_file(parent, f"Save {opened.name}", saving.propose(opened), FILES, question)
    if path is not None and saving.must_ask(opened, path):
        saving.allow_replacing(opened)
    return path


def _describe(opened: OpenSection) -> str:
    n_proteins = len(opened.catalogue.of_kind(Kind.PREDICTED))
    if n_proteins == 0 and not opened.dirty:
        return "No proteins are predicted yet. The section can be saved with its present view."
    what = f"{n_proteins} predicted proteins" if n_proteins else "Changes"
    saved = "not saved yet" if opened.dirty else "saved"
    return f"{what}, {opened.section.n_obs:,} {opened.noun}: {saved}."
