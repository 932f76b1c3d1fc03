"""Export the picture as a figure, or as the script that draws it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from weakref import ref

from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
)

from napari_sclinguist.control.export import (
    DPIS,
    Area,
    Content,
    FigureOptions,
    figure_steps,
    plan_figure,
)
from napari_sclinguist.control.messages import Message
from napari_sclinguist.control.remembered import Remembered
from napari_sclinguist.control.saving import default_folder, file_stem, free_name
from napari_sclinguist.control.script import python_script
from napari_sclinguist.widgets.save_dialog import choose_file
from napari_sclinguist.widgets.written_file import WrittenFile
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.saving import Saving
    from napari_sclinguist.control.workspace import Workspace

FILES = "PNG image (*.png);;SVG drawing (*.svg);;PDF document (*.pdf)"
TITLE = "Exporting the figure"
LABEL_WIDTH = 92
"""Of the labels, so that the fields of all groups begin at one line."""

_CONTENTS = {
    Content.SCREEN: "As on screen",
    Content.EACH: "Each feature by itself",
    Content.COMPARISON: "Side by side, with difference",
}
_AREAS = {Area.TISSUE: "Whole tissue", Area.IN_VIEW: "What is in view now"}


class FigureGroup(QGroupBox):
    """Options of a figure; exports it, or copies it as Python.

    Parameters
    ----------
    workspace, saving
        Whose active section, and what knows where it was saved.
    """

    def __init__(self, workspace: Workspace, saving: Saving) -> None:
        super().__init__("Export figure")
        self.workspace = workspace
        self.saving = saving
        self._titled = lambda: None
        self._folder: Path | None = None
        self.content = QComboBox()
        for content, text in _CONTENTS.items():
            self.content.addItem(text, content)
        self.content.setToolTip(
            "The coloured section as it is, a panel for each feature, or two features beside each "
            "other with the difference of their z-scores"
        )
        self.area = QComboBox()
        for area, text in _AREAS.items():
            self.area.addItem(text, area)
        self.area.setToolTip("All of the tissue, or the part that the window shows")
        self.width = QDoubleSpinBox()
        self.width.setRange(4.0, 60.0)
        self.width.setDecimals(1)
        self.width.setValue(FigureOptions().width)
        self.width.setSuffix(" cm")
        self.width.setToolTip("Width of the figure on paper")
        self.dpi = QComboBox()
        for dpi in DPIS:
            self.dpi.addItem(f"{dpi} dpi", dpi)
        self.dpi.setCurrentIndex(DPIS.index(FigureOptions().dpi))
        self.dpi.setToolTip("Dots per inch: 150 for slides, 300 for print, 600 for posters")
        self.background = QComboBox()
        for background, text in (("white", "White"), ("black", "Black")):
            self.background.addItem(text, background)
        self.background.setToolTip("White for paper, black for dark slides")
        self.title = QLineEdit()
        self.title.setPlaceholderText("no title")
        self.title.setToolTip("Stands above the figure")
        self.button = QPushButton("Export figure…")
        self.button.setToolTip("PNG, SVG or PDF with scale bar and colour bar")
        self.script = QPushButton("Copy as Python")
        self.script.setToolTip("Copy a script that draws this figure without the window")
        self.file = WrittenFile("Exported to")

        size = QHBoxLayout()
        size.setSpacing(6)
        size.addWidget(self.width, 1)
        size.addWidget(self.dpi, 1)
        rows = (
            ("Show", self.content),
            ("Area", self.area),
            ("Size", size),
            ("Background", self.background),
            ("Title", self.title),
        )
        layout = QGridLayout(self)
        layout.setColumnStretch(1, 1)
        layout.setColumnMinimumWidth(0, LABEL_WIDTH)
        layout.setHorizontalSpacing(12)
        for i, (text, field) in enumerate(rows):
            layout.addWidget(QLabel(text), i, 0)
            if isinstance(field, QHBoxLayout):
                layout.addLayout(field, i, 1)
            else:
                layout.addWidget(field, i, 1)
        buttons = QHBoxLayout()
        buttons.setSpacing(6)
        buttons.addWidget(self.button, 1)
        buttons.addWidget(self.script, 1)
        layout.addLayout(buttons, len(rows), 0, 1, 2)
        layout.addWidget(self.file, len(rows) + 1, 0, 1, 2)
        self.button.clicked.connect(self.export)
        self.script.clicked.connect(self.copy_script)

    def render_section(self, opened: OpenSection | None, idle: bool) -> None:
        """Show a section."""
        self.button.setEnabled(opened is not None and idle)
        self.script.setEnabled(opened is not None)
        if opened is not None and self._titled() is not opened:
            self._titled = ref(opened)
            self.title.setText(opened.name)

    def options(self) -> FigureOptions:
        """Read what is chosen."""
        return FigureOptions(
            content=Content(self.content.currentData()),
            area=Area(self.area.currentData()),
            width=self.width.value(),
            dpi=self.dpi.currentData(),
            background=self.background.currentData(),
            title=self.title.text().strip(),
        )

    def export(self) -> None:
        """Ask where to, and start drawing."""
        opened = self.workspace.active
        if opened is None:
            return
        try:
            plan = plan_figure(opened, self.options())
            folder = self._folder or default_folder(opened.section)
            names = "_".join(opened.catalogue.entry(key).name for key in plan.keys)
            proposed = free_name(folder, file_stem(f"{opened.name}_{names}"), ".png")
            path = choose_file(self, "Export figure", proposed, FILES)
            if path is None:
                return
            self._folder = path.parent
            self.workspace.jobs.start(
                TITLE,
                lambda: figure_steps(opened, plan, path),
                self.file.show_path,
                keeps_result_when_late=True,
            )
        except InputError as error:
            self.workspace.report(error, TITLE)

    def copy_script(self) -> None:
        """Put the script on the clipboard."""
        opened = self.workspace.active
        if opened is None:
            return
        try:
            script = python_script(
                opened,
                plan_figure(opened, self.options()),
                saved=self.saving.path_of(opened),
                models=Remembered().recent_models,
            )
        except InputError as error:
            self.workspace.report(error, "Copying as Python")
            return
        QApplication.clipboard().setText(script)
        self.workspace.message.emit(
            Message(text="Copied: paste it into a file or a notebook and run it.")
        )
