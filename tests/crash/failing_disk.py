"""A disk that fails at a chosen call, in this process."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CALLS = ("replace", "rename", "mkdir", "chmod", "fsync", "open", "link")
"""Functions of `os` through which Python's own libraries change names and bring files to the disk.
What removes files is left out: the clearing up after a failure needs it. (So is `open` in a folder
that is open already, by which `shutil.rmtree` descends.)"""
REMOVALS = ("unlink", "rmdir")
CODES = (errno.ENOSPC, errno.EIO)


class FailingDisk:
    """Lets the n-th call of some functions of `os` fail, or the next one where Ctrl-C comes.

    Parameters
    ----------
    at
        Number of the call, from 1; 0 for none.
    error
        What it raises.
    is_done
        Whether the call does its work first, as where Ctrl-C comes just as it returns.
    """

    def __init__(self, at: int, error: BaseException, is_done: bool = False) -> None:
        self.at = at
        self.error = error
        self.is_done = is_done
        self.calls = 0
        self.has_failed = False

    def _fails(self) -> bool:
        if self.has_failed or not 0 < self.at <= self.calls:
            return False
        # Python raises KeyboardInterrupt in the main thread alone.
        is_main = threading.current_thread() is threading.main_thread()
        self.has_failed = is_main or isinstance(self.error, Exception)
        return self.has_failed

    def wrapped(self, name: str) -> Callable[..., Any]:
        """Make the function that takes the place of one of `os`."""
        real = getattr(os, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            if not (name == "open" and "dir_fd" in keywords):
                self.calls += 1
                if self._fails():
                    if self.is_done:
                        real(*arguments, **keywords)
                    raise self.error
            return real(*arguments, **keywords)

        return call


@contextmanager
def failing_at(
    at: int, error: BaseException, calls: Sequence[str] = CALLS, *, is_done: bool = False
) -> Iterator[FailingDisk]:
    """Let the disk fail while the block runs."""
    disk = FailingDisk(at, error, is_done)
    with pytest.MonkeyPatch.context() as patch:
        for name in calls:
            patch.setattr(os, name, disk.wrapped(name))
        yield disk


def errors() -> list[BaseException]:
    """What a call may raise: two errors of a disk, and somebody who presses Ctrl-C."""
    return [*(OSError(code, os.strerror(code)) for code in CODES), KeyboardInterrupt()]


@contextmanager
def full_after(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as on a full disk, whoever writes it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def every_name(folder: Path) -> list[str]:
    """Everything below a folder, hidden things included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
