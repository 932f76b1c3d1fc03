"""Work in child processes that are killed: a parent that has everything imported, and forks.

A forked child runs the same code on the same files as a command that was started anew, some
seconds sooner. The parent itself opens no table, starts no thread and computes nothing, so that
its children inherit nothing but modules.

What a child does to the disk is counted in memory that it shares with the parent, by Python's audit
events, below one folder. Libraries in C write without such events; kills by the clock meet those.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOUCHES = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree"}
)
"""Audit events of what changes or opens files."""

_POLL = 0.001
_LIMIT = 120.0
"""Seconds after which a child counts as stuck."""


class Stuck(Exception):
    """A child did not end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """How an undisturbed run went.

    Attributes
    ----------
    seconds
        From fork to exit.
    first_touch
        Seconds until the first touch of the disk; that of the exit if there was none.
    touches
        Their number.
    """

    seconds: float
    first_touch: float
    touches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """When a child is killed.

    Attributes
    ----------
    kind
        ``"clock"``: some time after the start; ``"writing"``: some time after the first touch of
        the disk; ``"touch"``: right before a certain touch.
    at
        Seconds, or the number of the touch, from 1.
    """

    kind: str
    at: float

    @classmethod
    def draw(cls, course: Course, rng: random.Random, *, touches_only: bool = False) -> Moment:
        """Draw a moment; three of four lie where there is something to break."""
        if touches_only:
            return cls(kind="touch", at=rng.randint(1, course.touches))
        kind = rng.choices(("clock", "writing", "touch"), (0.25, 0.35, 0.4))[0]
        if kind == "touch" and course.touches:
            return cls(kind=kind, at=rng.randint(1, course.touches))
        if kind == "writing":
            return cls(kind=kind, at=rng.uniform(0, course.seconds - course.first_touch))
        return cls(kind="clock", at=rng.uniform(0, course.seconds))


class Child:
    """A forked process that works below a folder.

    Parameters
    ----------
    work
        What it does; an exception makes its exit status 1, `SystemExit` its own.
    folder
        Where touches count.
    log
        File for its standard output and error.
    killed_at
        Touch before which it kills itself with SIGKILL, and its group; 0 for none.
    """

    def __init__(
        self, work: Callable[[], object], folder: Path, log: Path, *, killed_at: int = 0
    ) -> None:
        self._shared = mmap.mmap(-1, 8)
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(work, folder, log, killed_at)
        self.status: int | None = None

    @property
    def touches(self) -> int:
        """Touches of the disk so far."""
        return int(struct.unpack("q", self._shared[:8])[0])

    def _live(self, work: Callable[[], object], folder: Path, log: Path, killed_at: int) -> None:
        code = 1
        try:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            self._watch(str(folder), killed_at)
            work()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _watch(self, folder: str, killed_at: int) -> None:
        done = 0

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal done
            if event in TOUCHES and any(folder in str(a) for a in arguments[:2]):
                done += 1
                if done == killed_at:
                    os.killpg(0, signal.SIGKILL)
                self._shared[:8] = struct.pack("q", done)

        sys.addaudithook(heard)

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the end, or for something else; tells whether it has ended."""
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                return True
            if until():
                return False
            if time.monotonic() - self.started > _LIMIT:
                self.kill()
                raise Stuck(f"still at work after {_LIMIT:.0f} s")
            time.sleep(_POLL)
        return True

    def kill(self) -> bool:
        """Kill it and its group with SIGKILL; whether that came before its end."""
        if self.status is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitpid(self.pid, 0)[1]
        return self.was_killed

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        status = self.status
        return status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9

    @property
    def exit_code(self) -> int:
        """Exit status; that of a killed process is negative."""
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)


def observe(work: Callable[[], object], folder: Path, log: Path) -> Course:
    """Let a child run to its end, and tell how that went.

    Raises
    ------
    RuntimeError
        If it failed; with what it wrote.
    """
    child = Child(work, folder, log)
    ended = child.wait(lambda: child.touches > 0)
    first = time.monotonic() - child.started
    if not ended:
        child.wait()
    if child.exit_code:
        raise RuntimeError(f"exit status {child.exit_code}:\n{log.read_text()}")
    return Course(
        seconds=time.monotonic() - child.started, first_touch=first, touches=child.touches
    )


def kill_at(moment: Moment, work: Callable[[], object], folder: Path, log: Path) -> Child:
    """Run a child and kill it at a moment; it may have ended by itself before."""
    if moment.kind == "touch":
        child = Child(work, folder, log, killed_at=int(moment.at))
        child.wait()
        return child
    child = Child(work, folder, log)
    since = child.started
    if moment.kind == "writing":
        if child.wait(lambda: child.touches > 0):
            return child
        since = time.monotonic()
    if not child.wait(lambda: time.monotonic() - since >= moment.at):
        child.kill()
    return child


def ask(question: Callable[[], Any], folder: Path) -> Any:
    """Answer a question in a child of its own; the answer is what JSON can hold.

    Raises
    ------
    RuntimeError
        If there was no answer; with what the child wrote.
    """
    answer, log = folder / "answer.json", folder / "answer.log"

    def work() -> None:
        answer.write_text(json.dumps(question()))

    child = Child(work, folder, log)
    child.wait()
    if child.exit_code:
        raise RuntimeError(log.read_text())
    return json.loads(answer.read_text())
