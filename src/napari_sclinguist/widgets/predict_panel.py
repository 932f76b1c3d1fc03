"""One button: predict the proteins of the section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_sclinguist.control.jobs import State
from napari_sclinguist.control.predicting import Predicting, duration
from napari_sclinguist.control.protein_choice import Which
from napari_sclinguist.widgets.job_progress import JobProgress
from napari_sclinguist.widgets.model_card import show_card
from napari_sclinguist.widgets.plain import plain
from napari_sclinguist.widgets.style import PRIMARY_BUTTON

if TYPE_CHECKING:
    from napari_sclinguist.control.workspace import Workspace

_FOLDER = "Choose a folder…"
_TRUST_WORDS = {
    "well": "predicted well",
    "fairly": "fairly",
    "poorly": "poorly",
    "untested": "untested",
    "not verifiable here": "not verifiable here",
}


class PredictPanel(QWidget):
    """What a prediction will have to work with, the button, the progress, the outcome.

    Parameters
    ----------
    workspace
        Whose active section is predicted.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.predicting = Predicting(workspace)
        self.section, self.genes, self.measured, self.time = (plain(QLabel()) for _ in range(4))
        for label in (self.section, self.genes, self.measured, self.time):
            label.setWordWrap(True)
        self.model = QComboBox()
        self.model.setToolTip("Model that predicts: the bundled one, or a checkpoint folder")
        self.card = QPushButton("Card")
        self.card.setToolTip("What the model was trained on, and how well it does")
        self.device = QComboBox()
        self.device.setToolTip("Where the prediction runs")
        self.batch = QSpinBox()
        self.batch.setRange(0, 65_536)
        self.batch.setSpecialValueText("automatic")
        self.batch.setToolTip("Most rows in a batch; halved by itself when memory runs out")
        self.proteins = QComboBox()
        self.proteins.setToolTip("All proteins of the model, or a part: it takes less memory")
        self.names = QLineEdit()
        self.names.setPlaceholderText("CD3, CD19, PD-1")
        self.names.setToolTip("Names in any spelling, apart by commas")
        self.note = plain(QLabel())
        self.note.setWordWrap(True)
        self.button = QPushButton("Predict proteins")
        self.button.setMinimumHeight(40)
        self.button.setStyleSheet(PRIMARY_BUTTON)
        self.progress = JobProgress(workspace)
        self.outcome = plain(QLabel())
        self.outcome.setWordWrap(True)
        self.outcome.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

        rows: list[tuple[str, Sequence[QWidget]]] = [
            ("Section", [self.section]),
            ("Genes found", [self.genes]),
            ("Measured proteins", [self.measured]),
            ("Model", [self.model, self.card]),
            ("Device", [self.device]),
            ("Batch size", [self.batch]),
            ("Proteins", [self.proteins]),
            ("", [self.names]),
            ("Estimated time", [self.time]),
        ]
        # A grid, since a form does not give labels that wrap the height that they need.
        form = QGridLayout()
        form.setColumnStretch(1, 1)
        form.setVerticalSpacing(8)
        form.setHorizontalSpacing(12)
        for i, (title, widgets) in enumerate(rows):
            if title:  # an empty label would keep the row of a hidden widget open
                form.addWidget(QLabel(title), i, 0)
            form.addWidget(widgets[0], i, 1, 1, 3 - len(widgets))
            for widget in widgets[1:]:
                form.addWidget(widget, i, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 10, 4, 4)
        layout.setSpacing(10)
        layout.addLayout(form)
        layout.addWidget(self.note)
        layout.addWidget(self.button)
        layout.addWidget(self.progress)
        layout.addWidget(self.outcome)
        layout.addStretch(1)

        self.button.clicked.connect(self.predicting.start)
        self.model.activated.connect(self._on_model)
        self.card.clicked.connect(lambda: show_card(self, self.predicting.card()))
        self.device.activated.connect(self._on_device)
        self.batch.valueChanged.connect(self._on_batch)
        self.proteins.activated.connect(self._on_proteins)
        self.names.textChanged.connect(
            lambda text: self.predicting.choose_proteins(Which.NAMED, text)
        )
        self.predicting.changed.connect(self.render_state)
        workspace.jobs.state_changed.connect(self._on_state)
        self.render_state()

    def render_state(self) -> None:
        """Show what the controller holds."""
        opened, facts = self.workspace.active, self.predicting.facts
        choice = self.predicting.choice
        waiting = "…" if opened is not None else "none open"
        _offer(self.model, [*self.predicting.models(), ("", _FOLDER)], choice.model)
        _offer(self.device, choice.devices(), choice.chosen_device)
        if opened is None or facts is None:
            self.section.setText(opened.name if opened is not None else waiting)
            for label in (self.genes, self.measured, self.time):
                label.setText(waiting if opened is not None else "")
        else:
            self.section.setText(f"{opened.name} ({facts.n_rows:,} {facts.noun})")
            self.genes.setText(
                facts.problem or f"{facts.genes_found:,} of {facts.genes_expected:,}"
            )
            self.measured.setText(f"{facts.n_measured}" if facts.n_measured else "none")
            self.time.setText(self._time())
        chosen = self.predicting.proteins
        _offer(self.proteins, chosen.options(), chosen.which)
        self.names.setVisible(chosen.which is Which.NAMED)
        self.note.setText(self.predicting.note)
        self.note.setVisible(bool(self.note.text()))
        self.outcome.setText(self._outcome())
        self.outcome.setVisible(bool(self.outcome.text()))
        self._on_state(self.workspace.jobs.state)

    def _time(self) -> str:
        estimate = self.predicting.estimate()
        if estimate is None:
            return "-"
        seconds, known = estimate
        basis = "as fast as last time" if known else "a guess until the first run"
        return f"about {duration(seconds)} ({basis})"

    def _outcome(self) -> str:
        outcome = self.predicting.outcome
        if outcome is None:
            return ""
        counts = [
            f"{outcome.trust[label]} {words}"
            for label, words in _TRUST_WORDS.items()
            if outcome.trust.get(label)
        ]
        lines = [
            f"{outcome.section}: {outcome.n_proteins} proteins in {duration(outcome.seconds)}.",
            *([f"How far to trust them here: {', '.join(counts)}."] if counts else []),
            *outcome.warnings,
        ]
        return "\n\n".join(lines)

    def _on_state(self, state: State) -> None:
        ready = self.workspace.active is not None and self.predicting.is_ready
        self.button.setEnabled(ready and state is State.IDLE)
        for widget in (self.model, self.device, self.batch, self.proteins, self.names):
            widget.setEnabled(state is State.IDLE)

    def _on_model(self, index: int) -> None:
        value = self.model.itemData(index)
        if not value:
            value = QFileDialog.getExistingDirectory(self, "Folder of a model (checkpoint)")
        if value:
            self.predicting.choose_model(value)
        self.render_state()

    def _on_device(self, index: int) -> None:
        self.predicting.choice.device = self.device.itemData(index)
        self.render_state()

    def _on_proteins(self, index: int) -> None:
        self.predicting.choose_proteins(Which(self.proteins.itemData(index)))
        if self.predicting.proteins.which is Which.NAMED:
            self.names.setFocus(Qt.FocusReason.OtherFocusReason)

    def _on_batch(self, value: int) -> None:
        self.predicting.choice.batch_size = value or None


def _offer(box: QComboBox, offers: Sequence[tuple[str, str]], chosen: str) -> None:
    present = [(box.itemData(i), box.itemText(i)) for i in range(box.count())]
    if present != list(offers):
        box.clear()
        for value, text in offers:
            box.addItem(text, value)
    values = [value for value, _ in offers]
    box.setCurrentIndex(values.index(chosen) if chosen in values else -1)
