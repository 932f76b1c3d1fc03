"""One thing to be given odd inputs: a reader of files, or what takes names."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from faults.small import Small
from fuzzing.mutations import mutated


class Target(Protocol):
    """What is tried: draws an input by chance, and runs over it."""

    def draw(self, chance: random.Random) -> Any:
        """Make an input."""

    def run(self, given: Any) -> None:
        """Read it; ends in an `InputError`, or in a valid object, which is looked at."""


@dataclass(kw_only=True)
class Files:
    """A reader of one or several files, one of which is changed at a time.

    Attributes
    ----------
    paths
        The files; they are valid, and are so again when another is changed.
    read
        Reads them, and fails with an `AssertionError` if what it gets is not valid.
    """

    paths: Sequence[Path]
    read: Callable[[], object]
    _valid: list[bytes] = field(init=False)
    _changed: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._valid = [path.read_bytes() for path in self.paths]

    def draw(self, chance: random.Random) -> tuple[int, bytes]:
        """Choose a file, and change what it holds."""
        which = chance.randrange(len(self.paths))
        return which, mutated(self._valid[which], self._valid, chance)

    def run(self, given: tuple[int, bytes]) -> None:
        """Write the file and read it, or all."""
        which, content = given
        if self._changed not in (None, which):
            self.paths[self._changed].write_bytes(self._valid[self._changed])
        self._changed = which
        self.paths[which].write_bytes(content)
        self.read()


@dataclass(kw_only=True)
class Values:
    """A function of generated values."""

    draw: Callable[[random.Random], Any]
    run: Callable[[Any], object]


Make = Callable[[Path, Small], Target]
"""Makes a target in an empty folder, of small valid inputs."""
