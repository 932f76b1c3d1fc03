"""How far a job is, and how a generator of that is run to its end."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")

CHUNK_ROWS = 1_024
"""Rows that are aligned and normalised at a time, so that memory does not grow with the input."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes
    ----------
    done, total
        Cells or spots.
    phase
        What is going on: ``"loading model"``, ``"predicting"``, ``"judging trust"``,
        ``"conditioning"``.
    """

    done: int
    total: int
    phase: str


def finish(steps: Generator[Progress, None, Result]) -> Result:
    """Run a generator of progress to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
