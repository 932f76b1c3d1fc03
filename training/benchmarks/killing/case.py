"""One way of one operation: its inputs, its undisturbed result, and what a kill leaves of it.

A case makes its inputs and an undisturbed result once. For each kill it arranges a fresh folder,
in which an older result may lie, and judges what it finds there afterwards.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from killing.child import Course, ask, observe

TESTS = Path(__file__).resolve().parents[3] / "tests"
sys.path.insert(0, str(TESTS))  # small tables and a web server are made there already


class Case:
    """One way of one operation.

    Parameters
    ----------
    folder
        For inputs and the undisturbed result.

    Attributes
    ----------
    operation, name
        What it is called in the table.
    course
        How the undisturbed run went; set by `measure`.
    """

    operation: str
    name: str
    course: Course

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.older = folder / "older"
        self.reference = folder / "reference"

    def measure(self, *, once: bool = False) -> None:
        """Let it run undisturbed, twice: the first run also fills the caches of the system.

        Parameters
        ----------
        once
            Do without the first, where nobody looks at the time.
        """
        self.older.mkdir(parents=True)
        ask(self.prepare, self.folder)
        folders = [self.reference] if once else [self.folder / "first", self.reference]
        contents = []
        for folder in folders:
            self.arrange(folder)
            self.course = observe(lambda folder=folder: self.run(folder), folder, self.log)
            contents.append(
                ask(lambda folder=folder: self.content(self.target(folder)), self.folder)
            )
        assert len(set(contents)) == 1, f"{self.name}: two undisturbed runs differ"
        self.wanted = contents[0]

    @property
    def log(self) -> Path:
        """Where runs write what they tell."""
        return self.folder / "run.log"

    def prepare(self) -> None:
        """Make the inputs, and in `older` what is there before a run; nothing by default."""

    def arrange(self, trial: Path) -> None:
        """Make a fresh folder with what is there before a run."""
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(self.older, trial)

    def target(self, trial: Path) -> Path:
        """Name what the run makes."""
        raise NotImplementedError

    def run(self, trial: Path) -> None:
        """Run it; in a child."""
        raise NotImplementedError

    def again(self, trial: Path) -> None:
        """Run it after a kill; in a child."""
        self.run(trial)

    def content(self, path: Path) -> str:
        """Open a result, read all of it, and give a checksum of what it says."""
        raise NotImplementedError

    def look(self, trial: Path, before: str | None) -> dict[str, Any]:
        """Judge what a kill has left.

        Returns
        -------
        dict
            ``state``: ``"new"``, ``"old"``, ``"absent"`` or ``"broken"``, and anything that
            `resumed` wants to know.
        """
        target = self.target(trial)
        if not os.path.lexists(target):
            return {"state": "absent"}
        if before is not None and checksum(target) == before:
            return {"state": "old"}
        try:
            state = "new" if self.content(target) == self.wanted else "broken"
        except Exception as error:  # whatever a reader says of half a file
            return {"state": "broken", "why": str(error)}
        return {"state": state}

    def resumed(self, found: dict[str, Any]) -> bool | None:
        """Whether the run after the kill went on from what was there; None if there was nothing.

        Raises
        ------
        AssertionError
            If it could have gone on, and did not.
        """
        return None

    def names(self, trial: Path) -> list[str]:
        """Names of everything below a folder, hidden ones included."""
        return sorted(str(path.relative_to(trial)) for path in trial.rglob("*"))

    def close(self) -> None:
        """End what was started for all kills."""


def checksum(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        digest.update(str(file.relative_to(path)).encode())
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def program(main: Callable[[], None], *arguments: str | Path) -> None:
    """Call the entry point of a command with its arguments."""
    sys.argv = [str(argument) for argument in arguments]
    main()
