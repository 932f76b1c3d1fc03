"""What all commands share: the progress bar, the way errors are shown."""

from __future__ import annotations

import gc
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from sclinguist_core.errors import InputError
from sclinguist_core.reading import reason

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """A progress bar with count, rate and time left."""

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=None)

    def update(self, done: int, total: int, description: str) -> None:
        """Show how far it is."""
        self._progress.update(self._task, completed=done, total=total, description=description)


@contextmanager
def progress_bar(description: str, *, unit: str) -> Iterator[Bar]:
    """Bar on standard error, so that standard output stays clean for pipes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Task as RichTask
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} {unit}/s")

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=5,
    ) as progress:
        yield Bar(progress, description)


class Commands(TyperGroup):
    """Commands in which a file that ends too early is an error.

    Click takes an `EOFError` for the end of what a user types, and says no more than "Aborted.".
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise InputError(
                f"A file ends too early ({reason(error)}), expected a complete one: compare the "
                "sizes of what was given with those at its source, and fetch it again."
            ) from error


def run_app(app: typer.Typer) -> None:
    """Run a command-line app; expected errors become one sentence and a status.

    Exit status: 0 done; 1 something the user gave cannot be used; 2 unknown options; 130
    interrupted (nothing is half-written: files are renamed into place at the end).
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be UTF-8; they are printed as they were given.
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        app()
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        logger.debug("What the system refused", exc_info=True)
        typer.echo(f"Error: {_refused(error)}", err=True)
        sys.exit(1)
    finally:
        # The process ends here: looking for garbage once more would take most of a second.
        gc.freeze()


def _refused(error: OSError) -> InputError:
    """Say what the system refuses: rights, a name that is too long, a full disk."""
    what = f"'{error.filename}': " if error.filename else ""
    return InputError(
        f"{what}{error.strerror or error}, expected a file or folder that can be read and written; "
        "check its name, the rights to it and the space on its disk."
    )
