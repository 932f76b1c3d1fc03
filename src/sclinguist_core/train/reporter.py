"""What ``sclinguist-train`` shows while it trains, and the sentence that it ends with."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from sclinguist_core.console import progress_bar

if TYPE_CHECKING:
    from pathlib import Path

    from sclinguist_core.train.fit import FitConfig, Step

LINE_SECONDS = 10.0
"""Least time between lines of a log file: a run of a day is not to write a book."""


class Reporter:
    """A progress bar in a terminal; elsewhere (a log file, SLURM) a line now and then.

    Parameters
    ----------
    stage
        Name of what is shown.
    fit
        Gives the size of a step.
    seconds
        Least time between lines outside of a terminal.
    """

    def __init__(self, stage: str, fit: FitConfig, *, seconds: float = LINE_SECONDS) -> None:
        self.stage = stage
        self.batch = fit.sets_per_step * fit.batch_size
        self.seconds = seconds
        self.last: Step | None = None
        """The last report."""
        self._score: float | None = None

    @contextmanager
    def shown(self) -> Iterator[Callable[[Step], None]]:
        """Yield the function that takes reports."""
        if not sys.stderr.isatty():
            yield self._lines()
            return
        with progress_bar(f"{self.stage}: reading data", unit="cells") as bar:

            def show(step: Step) -> None:
                self._keep(step)
                bar.update(step.done * self.batch, step.total * self.batch, self._scores(step))

            yield show

    def _lines(self) -> Callable[[Step], None]:
        due = 0.0

        def show(step: Step) -> None:
            nonlocal due
            self._keep(step)
            if time.monotonic() >= due:
                due = time.monotonic() + self.seconds
                typer.echo(
                    f"{self.stage}: step {step.done:,}/{step.total:,}, {self._scores(step)}, "
                    f"{step.cells_per_second:,.0f} cells/s",
                    err=True,
                )

        return show

    def _keep(self, step: Step) -> None:
        self.last = step
        if step.score is not None:
            self._score = step.score

    def _scores(self, step: Step) -> str:
        held_out = "" if self._score is None else f", held-out {self._score:.3f}"
        return f"error {step.error:.3f}{held_out}"

    def summary(self, folder: Path) -> str:
        """Say in one sentence how the run ended; `folder` is that of the run."""
        step = self.last
        if step is None:
            return f"{self.stage}: the run in {folder} was finished already."
        early = ""
        if step.done < step.total:
            early = f" of {step.total:,} (held-out sets no longer gain)"
        return (
            f"{self.stage}: {step.done:,} steps{early}, {step.done * self.batch:,} cells, "
            f"{self._scores(step)}; everything about the run is in {folder}"
        )
