"""How far a job is, and how a generator of that is run to its end."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from logging import Logger
from typing import Protocol, TypeVar

from sclinguist_core.errors import InputError


class Warned(Protocol):
    """A result that says what the user should know."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence each."""
        ...


Result = TypeVar("Result")
WarnedResult = TypeVar("WarnedResult", bound=Warned)

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


def finish_in_notebook(
    steps: Generator[Progress, None, WarnedResult], logger: Logger
) -> WarnedResult:
    """Run a generator of progress to its end, and log what its result warns of."""
    result = finish(steps)
    for sentence in result.warnings:
        logger.warning(sentence)
    return result


def check_memory(need: int, what: str, remedy: str) -> None:
    """Refuse a result that would not fit into memory, before work is spent.

    Parameters
    ----------
    need
        Bytes.
    what, remedy
        Beginning and end of the sentence: what takes them, and what to do.

    Raises
    ------
    InputError
        If less is free.
    """
    import psutil

    free = psutil.virtual_memory().available
    if need > free:
        raise InputError(
            f"{what} take {need / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free; "
            f"{remedy}"
        )
