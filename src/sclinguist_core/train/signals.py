"""Stopping a run from outside without losing a step.

A signal sets a flag; the step that is under way is finished, the state is saved, and the program
ends. Lightning's own handlers save in the middle of whatever is running, which cannot be continued
bit for bit; so these take their place for as long as training lasts.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # Windows has no SIGUSR1


class TrainingInterrupted(Exception):
    """A signal ended training early; everything up to its last step is saved.

    Attributes
    ----------
    signum
        The signal.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


class StopRequest:
    """Remembers the signal that asks for a stop."""

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def install(self) -> None:
        """Listen; a second Ctrl-C stops at once. Only the main thread may do this."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in _NAMES:
            signum = getattr(signal, name, None)
            if signum is not None:
                self._previous[signum] = signal.signal(signum, self._receive)

    def remove(self) -> None:
        """Give the signals back to whoever listened before."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum


def requeue_under_slurm() -> bool:
    """Ask SLURM to start this job again; False where there is no SLURM, or it refuses."""
    job = os.environ.get("SLURM_JOB_ID")
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        job = f"{array}_{task}"
    program = shutil.which("scontrol")
    if not job or program is None:
        return False
    done = subprocess.run(  # noqa: S603 - no shell, and the job's own id
        [program, "requeue", job], capture_output=True, text=True, check=False
    )
    if done.returncode:
        logger.warning("scontrol requeue %s: %s", job, done.stderr.strip())
    return done.returncode == 0
