"""How far the running job is: count, rate, time left, and a way to stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QLabel, QProgressBar, QPushButton, QWidget

from napari_sclinguist.control.jobs import Report, State
from napari_sclinguist.control.predicting import duration
from napari_sclinguist.widgets.plain import plain

if TYPE_CHECKING:
    from napari_sclinguist.control.workspace import Workspace


class JobProgress(QWidget):
    """Progress bar of the job that the user started; hidden while nothing runs.

    Parameters
    ----------
    workspace
        Whose job is shown.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.jobs = jobs = workspace.jobs
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.text = plain(QLabel())
        self.text.setWordWrap(True)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop after the present batch; nothing is changed")
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar, 0, 0)
        layout.addWidget(self.cancel, 0, 1)
        layout.addWidget(self.text, 1, 0, 1, 2)
        layout.setColumnStretch(0, 1)
        self.cancel.clicked.connect(jobs.cancel)
        jobs.state_changed.connect(self._on_state)
        jobs.reported.connect(self.show_report)
        self._on_state(jobs.state)

    def show_report(self, report: Report) -> None:
        """Show how far the job is."""
        if self.jobs.state is not State.RUNNING:
            return
        known = report.total > 0 and report.done > 0
        self.bar.setRange(0, report.total if known else 0)
        self.bar.setValue(report.done if known else 0)
        parts = [f"{report.phase.capitalize()}…"]
        if known:
            parts = [f"{report.done:,} of {report.total:,} {self._noun()}"]
            if report.rate is not None:
                parts.append(f"{report.rate:,.0f} a second")
            if report.seconds_left is not None and report.done < report.total:
                parts.append(f"{duration(report.seconds_left)} left")
            if report.done >= report.total:
                parts.append(report.phase)
        self.text.setText(", ".join(parts))

    def _noun(self) -> str:
        opened = self.workspace.active
        return "rows" if opened is None else opened.noun

    def _on_state(self, state: State) -> None:
        self.setVisible(state is not State.IDLE)
        self.cancel.setEnabled(state is State.RUNNING)
        if state is State.STOPPING:
            self.text.setText("Stopping…")
        elif state is State.RUNNING:
            self.bar.setRange(0, 0)
            self.text.setText(f"{self.jobs.title}: starting…")
