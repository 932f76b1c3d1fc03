"""Export values of the spots, or a summary of the proteins, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QGroupBox,
    QLabel,
    QPushButton,
)

from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.saving import default_folder, file_stem, free_name
from napari_sclinguist.control.table_export import Rows, TableOptions, table_steps
from napari_sclinguist.widgets.figure_group import LABEL_WIDTH
from napari_sclinguist.widgets.save_dialog import choose_file
from napari_sclinguist.widgets.written_file import WrittenFile
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace

FILES = "CSV (*.csv);;Excel (*.xlsx)"
TITLE = "Exporting the table"


class TableGroup(QGroupBox):
    """Options of a table; exports it.

    Parameters
    ----------
    workspace
        Whose active section is exported.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Export table")
        self.workspace = workspace
        self._folder: Path | None = None
        self._has_predictions = self._has_selection = False
        self.rows = QComboBox()
        self.rows.addItem("One row a spot", Rows.SPOTS)
        self.rows.addItem("One row a protein", Rows.PROTEINS)
        self.rows.setToolTip(
            "Values of each spot with its barcode and position; or trust, mean and spread of each "
            "predicted protein"
        )
        self.values = QComboBox()
        self.values.addItem("Shown features", False)
        self.values.addItem("All predicted proteins", True)
        self.intervals = QCheckBox("With 90 % interval and error")
        self.intervals.setToolTip("Columns low, high and SD for every predicted protein")
        self.selected = QCheckBox("Selected only")
        self.selected.setToolTip("Leave out what is not selected in a plot or on the tissue")
        self.button = QPushButton("Export table…")
        self.button.setToolTip("CSV, or Excel with a sheet about units and the model")
        self.file = WrittenFile("Exported to")
        layout = QGridLayout(self)
        layout.setColumnStretch(1, 1)
        layout.setColumnMinimumWidth(0, LABEL_WIDTH)
        layout.setHorizontalSpacing(12)
        layout.addWidget(QLabel("Rows"), 0, 0)
        layout.addWidget(self.rows, 0, 1)
        layout.addWidget(QLabel("Values"), 1, 0)
        layout.addWidget(self.values, 1, 1)
        layout.addWidget(self.intervals, 2, 1)
        layout.addWidget(self.selected, 3, 1)
        layout.addWidget(self.button, 4, 0, 1, 2)
        layout.addWidget(self.file, 5, 0, 1, 2)
        self.button.clicked.connect(self.export)
        self.rows.currentIndexChanged.connect(self._render_choices)

    def render_section(self, opened: OpenSection | None, idle: bool) -> None:
        """Show a section."""
        self.button.setEnabled(opened is not None and idle)
        if opened is None:
            return
        self.rows.setItemText(0, f"One row a {opened.noun.removesuffix('s')}")
        n_proteins = len(opened.catalogue.of_kind(Kind.PREDICTED))
        self._has_predictions = n_proteins > 0
        keys = [key for key in opened.view.keys if key in opened.catalogue]
        shown = ", ".join(opened.catalogue.entry(key).label for key in keys)
        self.values.setItemText(0, f"Shown: {shown}")
        self.values.setItemText(1, f"All {n_proteins} predicted proteins")
        n_selected = 0 if opened.selected is None else int(opened.selected.sum())
        text = f"Only the {n_selected:,} selected {opened.noun}"
        self.selected.setText(text if n_selected else f"Only selected {opened.noun}")
        self._has_selection = n_selected > 0
        self._render_choices()

    def options(self) -> TableOptions:
        """Read what is chosen."""
        opened = self.workspace.active
        every = self.values.currentData() or opened is None
        return TableOptions(
            rows=Rows(self.rows.currentData()),
            keys=() if every else opened.view.keys,
            intervals=self.intervals.isChecked(),
            selected_only=self.selected.isEnabled() and self.selected.isChecked(),
        )

    def export(self) -> None:
        """Ask where to, and start writing."""
        opened = self.workspace.active
        if opened is None:
            return
        options = self.options()
        what = "proteins" if options.rows is Rows.PROTEINS else "values"
        folder = self._folder or default_folder(opened.section)
        proposed = free_name(folder, file_stem(f"{opened.name}_{what}"), ".csv")
        path = choose_file(self, "Export table", proposed, FILES)
        if path is None:
            return
        self._folder = path.parent
        try:
            self.workspace.jobs.start(
                TITLE,
                lambda: table_steps(opened, options, path),
                self.file.show_path,
                keeps_result_when_late=True,
            )
        except InputError as error:
            self.workspace.report(error, TITLE)

    def _render_choices(self) -> None:
        of_spots = self.rows.currentData() == Rows.SPOTS
        self.values.setEnabled(of_spots)
        self.intervals.setEnabled(of_spots and self._has_predictions)
        self.selected.setEnabled(of_spots and self._has_selection)
