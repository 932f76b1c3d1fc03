"""The Perturb tab: take a gene away and see which predicted proteins change."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_sclinguist.control.jobs import State
from napari_sclinguist.control.perturbation_run import Run, export_run
from napari_sclinguist.control.perturbing import BACKGROUND, Perturbing, Question
from napari_sclinguist.control.saving import default_folder, file_stem, free_name
from napari_sclinguist.widgets.data_frame_table import Column, TableView
from napari_sclinguist.widgets.gene_line import GeneLine
from napari_sclinguist.widgets.job_progress import JobProgress
from napari_sclinguist.widgets.place_box import PlaceBox
from napari_sclinguist.widgets.plain import as_tip, plain
from napari_sclinguist.widgets.save_dialog import choose_file
from napari_sclinguist.widgets.style import LEVEL_COLOURS, PRIMARY_BUTTON
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent

    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace

WARNING = "Model response, not causation"
_EXPLAINED = (
    "How the model's prediction changes with the expression of a gene. The model has learnt which "
    "genes and proteins go together, not what brings about what."
)
_OWN = "◂"
"""Marks the protein that a perturbed gene codes for."""
_HEIGHT = 300
_SHORT = {"not verifiable here": "unverifiable"}
_UNIT = "{unit}"
_COLUMNS = (
    Column(name="protein", title="Protein", tip=f"{_OWN} marks what the gene codes for"),
    Column(
        name="mean_change",
        title="Change",
        tip="Mean change of the prediction over the spots or cells that express the gene, in "
        f"{_UNIT}",
        digits=3,
        width=58,
    ),
    Column(
        name="effect_size",
        title="Effect",
        tip="Mean change over the standard deviation of the unchanged prediction: −0.5 is half of "
        "what the spots or cells differ by anyway",
        width=46,
    ),
    Column(
        name="lowered",
        title="Lowered",
        tip="Share of these spots or cells, in %, in which the protein falls",
        digits=0,
        width=56,
    ),
    Column(
        name="trust",
        title="Trust",
        tip="How far to trust the prediction of the protein in this section",
        width=68,
    ),
)
_Z = Column(
    name="z",
    title="z",
    tip="How many standard deviations the mean change is away from that of random genes which are "
    "expressed about as much: beyond 3 or −3 it is the gene, not just any gene",
    digits=1,
    width=48,
)


class PerturbPanel(QWidget):
    """The question, the button, the progress, the ranked answer.

    Parameters
    ----------
    workspace
        Whose active section is asked about.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.perturbing = Perturbing(workspace)
        self._followed: OpenSection | None = None
        self._table_of: Run | None = None
        self.hint = _wrapping(QLabel())
        self.genes = GeneLine(workspace)
        self.knock_out = QRadioButton("Knock out")
        self.knock_out.setToolTip("As if the gene were not expressed")
        self.rescale = QRadioButton("Scale to ×")
        self.rescale.setToolTip("Multiply the gene's expression: 0.5 halves, 2 doubles it")
        self.factor = QDoubleSpinBox()
        self.where = PlaceBox(self.perturbing)
        self.background = QCheckBox(f"Compare with {BACKGROUND} random genes (takes longer)")
        self.background.setToolTip(
            "Tells an effect of this gene from one that any gene would have that is expressed "
            "about as much:\nadds the column z. Takes several times as long."
        )
        self.button = QPushButton("Run")
        self.button.setToolTip("Ask the model, and on the device, that are chosen in Predict")
        self.progress = JobProgress(workspace)
        self.history = QComboBox()
        self.history.setToolTip("The last results of this section")
        self.summary = _wrapping(plain(QLabel()))
        self.own = _wrapping(QLabel())
        self.table = TableView(_COLUMNS)
        self.back = QPushButton("Back to the former view")
        self.back.setToolTip("Colour the tissue as before the changes were shown")
        self.export = QPushButton("Export table…")
        self.export.setToolTip("Write all proteins and figures to a CSV file")
        self._lay_out()

        self.knock_out.setChecked(True)
        self.genes.confirmed.connect(self._run)
        self.factor.valueChanged.connect(lambda _: self.rescale.setChecked(True))
        self.button.clicked.connect(self._run)
        self.history.activated.connect(self._on_history)
        self.own.linkActivated.connect(self.perturbing.show_protein)
        self.table.chosen.connect(self._on_row)
        self.back.clicked.connect(self.perturbing.back)
        self.export.clicked.connect(self._ask_where)
        self.perturbing.changed.connect(self.render_state)
        workspace.jobs.state_changed.connect(self._on_state)
        self.render_state()

    # --- composition ------------------------------------------------------------------------

    def _lay_out(self) -> None:
        change = QHBoxLayout()
        change.setSpacing(8)
        change.addWidget(self.knock_out)
        change.addWidget(self.rescale)
        change.addWidget(self.factor)
        change.addStretch(1)
        ways = QButtonGroup(self)
        ways.addButton(self.knock_out)
        ways.addButton(self.rescale)
        self.factor.setRange(0.0, 10.0)
        self.factor.setSingleStep(0.5)
        self.factor.setValue(2.0)
        self.factor.setMinimumWidth(70)
        form = QGridLayout()
        form.setColumnStretch(1, 1)
        form.setHorizontalSpacing(12)
        form.setVerticalSpacing(8)
        form.addWidget(QLabel("Gene"), 0, 0)
        form.addWidget(self.genes, 0, 1)
        form.addWidget(QLabel("Change"), 1, 0)
        form.addLayout(change, 1, 1)
        form.addWidget(QLabel("In"), 2, 0)
        form.addWidget(self.where, 2, 1)
        form.addWidget(self.background, 3, 0, 1, 2)
        self.form = QWidget()
        question = QVBoxLayout(self.form)
        question.setContentsMargins(0, 0, 0, 0)
        question.setSpacing(8)
        question.addLayout(form)
        question.addWidget(self.button)
        self.button.setMinimumHeight(34)
        self.button.setStyleSheet(PRIMARY_BUTTON)
        self.result = QWidget()
        answer = QVBoxLayout(self.result)
        answer.setContentsMargins(0, 4, 0, 0)
        answer.setSpacing(8)
        row = QHBoxLayout()
        row.addWidget(QLabel("Result"))
        row.addWidget(self.history, 1)
        answer.addLayout(row)
        answer.addWidget(self.summary)
        answer.addWidget(self.own)
        self.table.setMinimumHeight(_HEIGHT)
        answer.addWidget(self.table, 1)
        buttons = QHBoxLayout()
        buttons.addWidget(self.back, 1)
        buttons.addWidget(self.export, 1)
        answer.addLayout(buttons)
        # Long titles are cut off rather than widening the dock.
        self.history.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.history.setMinimumContentsLength(12)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 10, 4, 4)
        layout.setSpacing(10)
        layout.addWidget(_notice())
        layout.addWidget(self.hint)
        layout.addWidget(self.form)
        layout.addWidget(self.progress)
        layout.addWidget(self.result, 1)
        layout.addStretch(0)

    # --- rendering --------------------------------------------------------------------------

    def render_state(self) -> None:
        """Show what the controller holds."""
        self._follow(self.workspace.active)
        problem = self.perturbing.problem
        self.hint.setText(problem)
        self.hint.setVisible(bool(problem))
        self.form.setVisible(not problem)
        self.where.list_places()
        runs, run = self.perturbing.runs, self.perturbing.run
        self.result.setVisible(run is not None and not problem)
        self.history.clear()
        self.history.addItems([one.title for one in runs])
        if run is not None:
            self.history.setCurrentIndex(runs.index(run) if run in runs else -1)
            self.history.setToolTip(as_tip(run.title))
            self.summary.setText(_summary(run, self.workspace.active.noun))
            self.own.setText(_own(run))
            self.own.setVisible(bool(self.own.text()))
        self._fill(run)
        self._on_view()
        self._on_state(self.workspace.jobs.state)

    def _fill(self, run: Run | None) -> None:
        if run is self._table_of or run is None:
            return
        self._table_of = run
        shown = run.table.copy()
        shown["protein"] = [
            f"{name} {_OWN}" if coded else name
            for name, coded in zip(shown["protein"], shown["coded"], strict=True)
        ]
        shown["lowered"] = 100.0 * shown["share_lowered"]
        shown["trust"] = shown["trust"].cat.rename_categories(_SHORT)
        columns = [
            replace(column, tip=column.tip.replace(_UNIT, run.unit))
            for column in _COLUMNS
            if column.name != "trust" or any(shown["trust"])
        ]
        self.table.set_frame(shown, [*columns, *([_Z] if run.has_background else [])])
        self.table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)  # as ranked

    def _on_view(self, view: object = None) -> None:
        protein, run = self.perturbing.shown_protein, self.perturbing.run
        self.back.setEnabled(bool(protein))
        if run is not None and self._table_of is run:
            proteins = run.proteins
            self.table.mark(proteins.index(protein) if protein in proteins else None)

    def _on_state(self, state: State) -> None:
        self.button.setEnabled(state is State.IDLE and not self.perturbing.problem)

    def _follow(self, opened: OpenSection | None) -> None:
        if opened is self._followed:
            return
        if self._followed is not None:
            self._followed.view_changed.disconnect(self._on_view)
        self._followed = opened
        if opened is not None:
            opened.view_changed.connect(self._on_view)

    def showEvent(self, event: QShowEvent) -> None:
        """Offer the regions that were drawn meanwhile."""
        super().showEvent(event)
        self.where.list_places()

    # --- what is pressed --------------------------------------------------------------------

    def _run(self) -> None:
        if not self.button.isEnabled():
            return
        self.perturbing.question = Question(
            genes=self.genes.genes,
            scale=0.0 if self.knock_out.isChecked() else self.factor.value(),
            place=self.where.place,
            background=self.background.isChecked(),
        )
        self.perturbing.start()

    def _on_history(self, index: int) -> None:
        self.perturbing.choose_run(self.perturbing.runs[index])

    def _on_row(self, row: int) -> None:
        self.perturbing.show_protein(self.perturbing.run.proteins[row])

    def _ask_where(self) -> None:
        run = self.perturbing.run
        folder = default_folder(self.workspace.active.section)
        proposed = free_name(folder, file_stem(run.title), ".csv")
        path = choose_file(self, "Export table", proposed, "CSV (*.csv)")
        if path is not None:
            self.export_to(path)

    def export_to(self, path: Path) -> None:
        """Write the table of the run that is looked at."""
        try:
            export_run(self.perturbing.run, path)
        except InputError as error:
            self.workspace.report(error, "Exporting the table")


def _summary(run: Run, noun: str) -> str:
    affected = f"{run.n_affected:,} of {run.n_rows:,} {noun}"
    text = f"{' or '.join(run.genes)} is expressed in {affected}; figures are means over these."
    return " ".join([text, *run.warnings])


def _own(run: Run) -> str:
    """Where the proteins stand that the genes code for, as links that show them."""
    table = run.table
    parts = []
    for rank in table.index[table["coded"]]:
        name, change = table.at[rank, "protein"], table.at[rank, "mean_change"]
        figure = f"{change:+.3f}".replace("-", "−")
        style = f"color: {LEVEL_COLOURS['info']}"
        link = f'<a href="{escape(name)}" style="{style}">{escape(name)}</a>'
        parts.append(f"{link} {figure}, rank {rank + 1} of {len(table)}")
    genes = "gene codes" if len(run.genes) == 1 else "genes code"
    return f"The {genes} for {'; '.join(parts)}." if parts else ""


def _notice() -> QFrame:
    """Say what must be known before any figure is looked at; always there."""
    frame = QFrame()
    frame.setObjectName("sclinguistNotice")
    colour = LEVEL_COLOURS["warning"]
    frame.setStyleSheet("#sclinguistNotice { border-left: 4px solid " + colour + "; }")
    title = QLabel(f"<b>{WARNING}</b>")
    text = _wrapping(QLabel(_EXPLAINED))
    layout = QVBoxLayout(frame)
    layout.setContentsMargins(8, 2, 4, 2)
    layout.setSpacing(2)
    layout.addWidget(title)
    layout.addWidget(text)
    return frame


def _wrapping(label: QLabel) -> QLabel:
    label.setWordWrap(True)
    return label
