"""The download of a public section in the window: what is shown, and what comes after it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_sclinguist.control.jobs import JobRunner, Launch, Report, State
from napari_sclinguist.control.messages import Message
from napari_sclinguist.control.predicting import duration
from sclinguist_core.data.download import download_iter
from sclinguist_core.data.http_file import PATIENCE, Patience, megabytes
from sclinguist_core.inference.progress import Progress

if TYPE_CHECKING:
    from sclinguist_core.data.datasets import Dataset


class Stage(StrEnum):
    """Where a download stands."""

    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadState:
    """What is shown of a download.

    Attributes
    ----------
    stage
        Where it stands; ENDED both when the section is open and after a cancel.
    text
        How far it is, or what went wrong: one sentence.
    fraction
        0 to 1; None while nobody knows how much is to come.
    """

    stage: Stage
    text: str
    fraction: float | None = None


class Download:
    """Downloads a data set beside the window, then opens it.

    Parameters
    ----------
    dataset
        What to download.
    launch
        How to run the work beside the window.
    open_folder
        Opens what came, in the thread of the window.
    patience
        Timeout and retries of a connection.
    """

    changed = Signal(object)
    """DownloadState"""

    def __init__(
        self,
        dataset: Dataset,
        launch: Launch,
        open_folder: Callable[[Path], object],
        *,
        patience: Patience = PATIENCE,
    ) -> None:
        self.dataset = dataset
        self.state = DownloadState(stage=Stage.ENDED, text="")
        self._open_folder = open_folder
        self._patience = patience
        self._failure = ""
        self._jobs = JobRunner(launch)
        self._jobs.reported.connect(self._on_report)
        self._jobs.message.connect(self._on_message)
        self._jobs.state_changed.connect(self._on_job_state)

    def start(self) -> None:
        """Begin, or go on with what an earlier attempt has left."""
        self._failure = ""
        self._set(Stage.RUNNING, "Connecting…")
        self._jobs.start(f"Downloading {self.dataset.title}", self._steps, self._on_result)

    def cancel(self) -> None:
        """Stop; what has come so far is kept for the next time."""
        self._jobs.cancel()

    def close(self) -> None:
        """Cancel, and say nothing any more: the window is going away."""
        self.changed.disconnect()
        self._jobs.close()

    def _steps(self) -> Generator[Progress, None, Path]:
        steps = download_iter(self.dataset, patience=self._patience)
        try:
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    return end.value
                yield Progress(step.done, step.total or 0, step.phase)
        finally:
            steps.close()

    def _on_report(self, report: Report) -> None:
        if report.phase != "downloading":
            self._set(Stage.RUNNING, f"{report.phase.capitalize()}…")
            return
        if report.total == 0:
            self._set(Stage.RUNNING, f"{megabytes(report.done)} so far")
            return
        text = f"{megabytes(report.done)} of {megabytes(report.total)}"
        if report.seconds_left is not None:
            text += f", {duration(report.seconds_left)} left"
        self._set(Stage.RUNNING, text, report.done / report.total)

    def _on_result(self, folder: Path) -> None:
        self._set(Stage.RUNNING, "Opening the section…")
        self._open_folder(folder)

    def _on_message(self, message: Message) -> None:
        if message.level == "error":
            self._failure = message.text

    def _on_job_state(self, state: State) -> None:
        if state is State.STOPPING:
            self._set(Stage.STOPPING, "Stopping…")
        elif state is State.IDLE:  # only now another attempt can begin
            self._set(Stage.FAILED if self._failure else Stage.ENDED, self._failure)

    def _set(self, stage: Stage, text: str, fraction: float | None = None) -> None:
        self.state = DownloadState(stage=stage, text=text, fraction=fraction)
        self.changed.emit(self.state)
