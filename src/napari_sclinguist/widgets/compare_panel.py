"""Two features beside each other: on the tissue, in a plot, in figures; and all proteins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QButtonGroup,
    QDockWidget,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sclinguist.control.comparing import Comparing
from napari_sclinguist.control.groups import GROUP_COLUMN
from napari_sclinguist.control.saving import default_folder, file_stem
from napari_sclinguist.control.side_by_side import SideBySide, contents
from napari_sclinguist.control.tissue_selection import TissueSelection
from napari_sclinguist.widgets.agreement_bar import AgreementBar
from napari_sclinguist.widgets.feature_picker import FeaturePicker
from napari_sclinguist.widgets.plain import plain
from napari_sclinguist.widgets.protein_table import ProteinTable
from napari_sclinguist.widgets.regions_box import RegionsBox
from napari_sclinguist.widgets.scatter_plot import ScatterPlot
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace

PANELS = ("Off", "A | B", "A | B | difference")
_TIPS = (
    "Show the tissue once",
    "Show A and B beside each other, under one camera",
    "Show A, B, and where A is higher (red) or lower (blue) than B, both as z-scores",
)


class ComparePanel(QWidget):
    """The Compare tab.

    Parameters
    ----------
    workspace
        Whose active section is compared.

    Attributes
    ----------
    comparing, side_by_side, selection
        What the panel renders.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.comparing = Comparing(workspace)
        self.side_by_side = SideBySide(workspace.viewer)
        self.selection = TissueSelection(workspace)
        self._followed: OpenSection | None = None

        self.hint = _wrapping(plain(QLabel()))
        self.picker_a, self.picker_b = FeaturePicker(workspace), FeaturePicker(workspace)
        self.swap = QPushButton("⇅")
        self.swap.setToolTip("Exchange A and B")
        self.figures = AgreementBar()
        self.scale = _wrapping(QLabel("RMSE is that of z-scores within this section."))
        self.trust = _wrapping(plain(QLabel()))
        self.panels = QButtonGroup(self)
        self.scatter = ScatterPlot()
        self.selected = QLabel()
        self.clear = QPushButton("Clear selection")
        self.group_name = QLineEdit()
        self.group_name.setPlaceholderText("Name of the group")
        self.save = QPushButton("Save as group")
        self.proteins = ProteinTable()
        self.regions = RegionsBox(workspace)
        self._lay_out()

        # Many changes at once are rendered once; and layers never change while napari's list does.
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self.render_state)
        self._hidden = QTimer(self)
        self._hidden.setSingleShot(True)
        self._hidden.timeout.connect(self._leave_if_closed)
        self.comparing.pair_changed.connect(self._soon)
        self.comparing.view_changed.connect(self._soon)
        self.comparing.proteins_changed.connect(self._soon)
        self.side_by_side.panels_changed.connect(self._on_panels)
        self.picker_a.picked.connect(lambda key: self.comparing.choose(a=key))
        self.picker_b.picked.connect(lambda key: self.comparing.choose(b=key))
        self.swap.clicked.connect(self.comparing.swap)
        self.panels.idClicked.connect(lambda _: self._show_panels())
        self.scatter.lassoed.connect(self._select)
        self.clear.clicked.connect(lambda: self._select(None))
        self.group_name.textChanged.connect(lambda _: self._render_selection())
        self.group_name.returnPressed.connect(self._save_group)
        self.save.clicked.connect(self._save_group)
        self.proteins.chosen.connect(self.comparing.choose_protein)
        self.proteins.export.connect(self._export)
        self.comparing.compare_proteins()
        self.render_state()

    # --- composition --------------------------------------------------------------------------

    def _lay_out(self) -> None:
        choice = QGridLayout()
        choice.setColumnStretch(1, 1)
        for i, (letter, picker) in enumerate((("A", self.picker_a), ("B", self.picker_b))):
            choice.addWidget(QLabel(letter), i, 0)
            choice.addWidget(picker, i, 1)
            picker.setToolTip(f"{letter}: a predicted or measured protein, a gene or a column")
        choice.addWidget(self.swap, 0, 2, 2, 1)
        self.swap.setFixedWidth(32)
        beside = QHBoxLayout()
        beside.setSpacing(4)
        beside.addWidget(QLabel("Side by side"))
        for i, (title, tip) in enumerate(zip(PANELS, _TIPS, strict=True)):
            button = QPushButton(title)
            button.setCheckable(True)
            button.setToolTip(tip)
            self.panels.addButton(button, i)
            beside.addWidget(button, len(title))
        self.panels.button(0).setChecked(True)
        picked = QHBoxLayout()
        picked.addWidget(self.selected, 1)
        picked.addWidget(self.clear)
        group = QHBoxLayout()
        group.addWidget(self.group_name, 1)
        group.addWidget(self.save)
        self.save.setToolTip(f"Name the selected rows in the column '{GROUP_COLUMN}' of the table")
        self.content = QWidget()
        inner = QVBoxLayout(self.content)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(8)
        inner.addLayout(choice)
        inner.addWidget(self.figures)
        inner.addWidget(self.scale)
        inner.addWidget(self.trust)
        inner.addLayout(beside)
        inner.addWidget(self.scatter)
        inner.addLayout(picked)
        inner.addLayout(group)
        inner.addWidget(_line())
        inner.addWidget(self.proteins)
        inner.addWidget(_line())
        inner.addWidget(self.regions)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 10, 4, 4)
        layout.setSpacing(8)
        layout.addWidget(self.hint)
        layout.addWidget(self.content)
        layout.addStretch(1)

    # --- rendering ----------------------------------------------------------------------------

    def render_state(self) -> None:
        """Show what the controllers hold."""
        comparing, opened = self.comparing, self.comparing.opened
        self._follow(opened)
        self.hint.setText(comparing.hint)
        self.hint.setVisible(bool(comparing.hint))
        self.content.setVisible(opened is not None)
        a, b = comparing.entries()
        self.picker_a.set_entry(a)
        self.picker_b.set_entry(b)
        self.swap.setEnabled(b is not None)
        self.figures.show_agreement(comparing.agreement, "" if opened is None else opened.noun)
        self.trust.setText(comparing.trust_line())
        self.trust.setVisible(bool(self.trust.text()))
        complete = a is not None and b is not None
        self.scatter.setVisible(complete)
        if complete:
            features = opened.catalogue.feature(a.key), opened.catalogue.feature(b.key)
            self.scatter.show_pair(*features, comparing.hexagons)
        for button in self.panels.buttons():
            button.setEnabled(complete)
        if self.proteins.comparison is not comparing.proteins:
            if opened is not None:
                stem, folder = file_stem(opened.name), default_folder(opened.section)
                self.proteins.proposed = folder / f"{stem}_compared.csv"
            self.proteins.show_comparison(comparing.proteins)
        self.proteins.mark(comparing.pair)
        self._show_panels()
        self._render_selection()

    def _soon(self) -> None:
        self.comparing.compare_proteins()
        self._later.start()

    def _follow(self, opened: OpenSection | None) -> None:
        if opened is self._followed:
            return
        if self._followed is not None:
            self._followed.selection_changed.disconnect(self._on_selected)
        self._followed = opened
        self.panels.button(0).setChecked(True)
        if opened is not None:
            opened.selection_changed.connect(self._on_selected)

    def _render_selection(self) -> None:
        opened = self.comparing.opened
        rows = None if opened is None else opened.selected
        noun = "spots" if opened is None else opened.noun
        if rows is None:
            self.selected.setText(f"Draw around {noun} to select them.")
        else:
            self.selected.setText(f"{int(rows.sum()):,} of {len(rows):,} {noun} selected")
        self.clear.setEnabled(rows is not None)
        self.save.setEnabled(rows is not None and bool(self.group_name.text().strip()))
        self.scatter.show_selected(rows)

    def _on_selected(self, rows: np.ndarray | None) -> None:
        self._render_selection()
        self.side_by_side.show_selection()

    # --- side by side -------------------------------------------------------------------------

    def _show_panels(self) -> None:
        chosen, pair, opened = self.panels.checkedId(), self.comparing.pair, self.comparing.opened
        if chosen < 1 or opened is None or pair is None or not pair.complete:
            same = self.workspace.active is self.side_by_side.opened
            self.side_by_side.leave(choose_layer=same)
            return
        shown = contents(opened, pair, with_difference=chosen == 2)
        self.side_by_side.show(opened, shown)

    def _on_panels(self) -> None:
        for panel in self.side_by_side.panels:
            self.selection.take_from(panel.spots, self.side_by_side.opened)
        if not self.side_by_side.on:  # perhaps by napari's own button
            self.panels.button(0).setChecked(True)
            self.workspace.show_active()  # not the others in the same place

    # --- what is pressed ----------------------------------------------------------------------

    def _select(self, rows: np.ndarray | None) -> None:
        if self.comparing.opened is not None:
            self.comparing.opened.select(rows)

    def _save_group(self) -> None:
        try:
            self.comparing.save_group(self.group_name.text())
        except InputError as error:
            self.workspace.report(error, "Saving the group")
            return
        self.group_name.clear()

    def _export(self, path: Path) -> None:
        try:
            self.comparing.export(path)
        except OSError as error:
            self.workspace.report(error, "Exporting the table")

    # --- seen or not --------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what happened while another tab was open."""
        super().showEvent(event)
        self.comparing.set_running(True)

    def hideEvent(self, event: QHideEvent) -> None:
        """Follow nothing while another tab is open, unless the canvas shows the pair."""
        super().hideEvent(event)
        self.comparing.set_running(self.side_by_side.on)
        self._hidden.start()

    def _leave_if_closed(self) -> None:
        """Give the canvas back if the dock was closed: napari takes it out of the window then."""
        place = self.parentWidget()
        while place is not None and not isinstance(place, QDockWidget):
            place = place.parentWidget()
        if place is None:
            self.side_by_side.leave()


def _wrapping(label: QLabel) -> QLabel:
    label.setWordWrap(True)
    return label


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    return line
