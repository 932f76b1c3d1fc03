"""Regions and groups: draw and import them, count, select and keep what lies in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sclinguist.control.group_comparison import GroupComparing
from napari_sclinguist.control.groupings import KEPT_COLUMN
from napari_sclinguist.control.region_drawing import TOOLS
from napari_sclinguist.control.region_groups import RegionGroups
from napari_sclinguist.control.saving import default_folder, file_stem, free_name
from napari_sclinguist.widgets.group_figures import GroupFigures
from napari_sclinguist.widgets.group_list import GroupList
from napari_sclinguist.widgets.save_dialog import choose_file

if TYPE_CHECKING:
    from napari_sclinguist.control.workspace import Workspace

_GEOJSON = "GeoJSON (*.geojson *.json)"
_NOTHING_DRAWN = "Draw a region on the tissue, import some, or take the groups from a column."
_HELP = {
    "Polygon": "Click around the area; a double click ends it.",
    "Freehand": "Keep the button pressed and draw around the area.",
    "Rectangle": "Press, drag to the opposite corner, let go.",
    "Ellipse": "Press, drag to the opposite corner, let go.",
}


class RegionsBox(QWidget):
    """Renders the groups of the active section.

    Parameters
    ----------
    workspace
        Whose active section is looked at.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.groups = RegionGroups(workspace)
        self.comparing = GroupComparing(self.groups)
        self.draw = QPushButton("Draw region")
        self.tool = QComboBox()
        self.importing = QPushButton("Import")
        self.export = QPushButton("Export…")
        self.saved = QPushButton("Show saved regions")
        self.help = QLabel()
        self.grouping = QComboBox()
        self.list = GroupList()
        self.note = QLabel()
        self.select = QPushButton("Select")
        self.rename = QPushButton("Rename")
        self.delete = QPushButton("Delete")
        self.keep = QPushButton("Keep as column")
        self.figures = GroupFigures(self.groups, self.comparing)
        self._lay_out()
        self._add_menu()
        self._connect()
        self.render_state()

    # --- composition ------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self.draw.setCheckable(True)
        self.tool.addItems(list(TOOLS))
        self.draw.setToolTip("Draw on the tissue; press again to move the picture as before")
        self.tool.setToolTip("What to draw with")
        self.importing.setToolTip("Take regions from QuPath, or groups from Loupe Browser")
        self.export.setToolTip("Write the drawn regions as GeoJSON, which QuPath opens")
        self.saved.setToolTip("Draw the regions that were saved with this section")
        self.grouping.setToolTip("Where the groups come from: regions, or a column of the table")
        self.select.setToolTip("Select what lies in the group, on the tissue and in the plot")
        self.rename.setToolTip("Give the region another name; so does a double click")
        self.delete.setToolTip("Take the region away")
        self.keep.setToolTip(
            f"Write these groups into the table as the column '{KEPT_COLUMN}', in place of those\n"
            "kept there before; groups saved by name are in a column of their own and stay"
        )
        for label in (self.help, self.note):
            label.setWordWrap(True)
        self.grouping.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.grouping.setMinimumContentsLength(12)
        source = QHBoxLayout()
        source.addWidget(QLabel("Groups from"))
        source.addWidget(self.grouping, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addWidget(QLabel("<b>Regions and groups</b>"))
        layout.addLayout(_row(self.draw, self.tool, self.importing, self.export))
        layout.addWidget(self.help)
        layout.addWidget(self.saved)
        layout.addLayout(source)
        layout.addWidget(self.list)
        layout.addWidget(self.note)
        layout.addLayout(_row(self.select, self.rename, self.delete, self.keep))
        layout.addWidget(self.figures)

    def _add_menu(self) -> None:
        menu = QMenu(self)
        self.import_pixels = menu.addAction("Regions from QuPath (GeoJSON)…")
        self.import_microns = menu.addAction("Regions in µm (GeoJSON)…")
        self.import_categories = menu.addAction("Categories from Loupe Browser (CSV)…")
        self.importing.setMenu(menu)
        self.import_pixels.triggered.connect(lambda: self._ask_regions(microns=False))
        self.import_microns.triggered.connect(lambda: self._ask_regions(microns=True))
        self.import_categories.triggered.connect(self._ask_categories)

    def _connect(self) -> None:
        groups = self.groups
        self.draw.clicked.connect(lambda on: groups.draw(self.tool.currentText() if on else ""))
        self.tool.activated.connect(lambda _: groups.draw(self.tool.currentText()))
        self.saved.clicked.connect(groups.show_saved)
        self.export.clicked.connect(self._ask_export)
        self.grouping.activated.connect(lambda i: groups.choose(self.grouping.itemData(i)))
        self.list.chosen.connect(lambda _: self._enable())
        self.list.renamed.connect(groups.rename)
        self.select.clicked.connect(lambda: groups.select(self.list.name))
        self.rename.clicked.connect(self.list.rename_chosen)
        self.delete.clicked.connect(lambda: groups.remove(self.list.name))
        self.keep.clicked.connect(groups.keep)
        groups.changed.connect(self.render_state)
        self.destroyed.connect(groups.close)

    # --- rendering --------------------------------------------------------------------------

    def render_state(self) -> None:
        """Show what the controller holds."""
        groups, opened, drawing = self.groups, self.groups.opened, self.groups.drawing
        if opened is None or drawing is None:
            self.setEnabled(False)
            return
        self.setEnabled(True)
        self.draw.setChecked(bool(drawing.tool))
        if drawing.tool:
            self.tool.setCurrentText(drawing.tool)
        self.help.setText(_HELP.get(drawing.tool, ""))
        self.help.setVisible(bool(drawing.tool))
        self.saved.setVisible(drawing.has_saved)
        self.import_microns.setVisible(opened.section.microns_per_pixel is not None)
        offers = groups.groupings()
        self.grouping.clear()
        for one in offers:
            self.grouping.addItem(one.title, one.key)
        self.grouping.setCurrentIndex([one.key for one in offers].index(groups.grouping))
        listed = groups.groups()
        self.list.show_groups(listed, opened.noun, renamable=groups.is_drawn)
        self.list.setVisible(bool(listed))
        self.note.setText(self._note(bool(listed), opened.noun))
        self.note.setVisible(bool(self.note.text()))
        self._enable()

    def _note(self, any_groups: bool, noun: str) -> str:
        if not any_groups:
            return _NOTHING_DRAWN
        n_overlapping = self.groups.labels.n_overlapping
        if n_overlapping:
            return f"{n_overlapping:,} {noun} lie in several regions; the last one drawn counts."
        return ""

    def _enable(self) -> None:
        """Offer what can be done with what is there, and with the chosen group."""
        any_groups, chosen = self.groups.labels is not None, bool(self.list.name)
        drawn = self.groups.is_drawn
        self.export.setEnabled(any_groups and drawn)
        self.keep.setEnabled(any_groups)
        self.select.setEnabled(chosen)
        for button in (self.rename, self.delete):
            button.setEnabled(chosen and drawn)
        for button in (self.select, self.rename, self.delete, self.keep):
            button.setVisible(any_groups)

    # --- files ------------------------------------------------------------------------------

    def _ask_regions(self, *, microns: bool) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import regions", "", _GEOJSON)
        if path:
            self.groups.import_regions(Path(path), microns=microns)

    def _ask_categories(self) -> None:
        title = "Import categories"
        path, _ = QFileDialog.getOpenFileName(self, title, "", "CSV (*.csv *.tsv *.txt)")
        if path:
            self.groups.import_categories(Path(path), self._ask_column)

    def _ask_column(self, columns: list[str]) -> str | None:
        text = "Column that holds the groups:"
        column, ok = QInputDialog.getItem(self, "Import categories", text, columns, 0, False)
        return column if ok else None

    def _ask_export(self) -> None:
        section = self.groups.opened.section
        folder = default_folder(section)
        proposed = free_name(folder, f"{file_stem(section.name)}_regions", ".geojson")
        path = choose_file(self, "Export regions", proposed, _GEOJSON)
        if path is not None:
            self.groups.export_regions(path)


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(4)
    for widget in widgets:
        row.addWidget(widget, 1)
    return row
