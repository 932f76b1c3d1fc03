"""What a window does with its time: how long each step takes, blocks the event loop, and needs.

`WatchedApplication` has to be made before anything else makes a Qt application.

Time in which the whole process was suspended from outside (SIGSTOP, the lid of a laptop) is left
out everywhere.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from qtpy.QtCore import QEvent, QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

_PAINTS = (QEvent.Type.UpdateRequest, QEvent.Type.Paint, QEvent.Type.Expose)
_TICK_MS = 2
_SUSPENDED_S, _SUSPENDED_WORK = 0.3, 0.05
"""Least time without a turn, and most work in it, of a process that was suspended meanwhile."""


class WatchedApplication(QApplication):
    """Adds up the time of painting: of the canvas, and of the window with the canvas in it."""

    painting = 0.0
    painting_work = 0.0
    """Seconds since the start, and seconds of the processor."""
    _depth = 0

    def notify(self, receiver: Any, event: Any) -> bool:
        """Deliver an event."""
        outermost, start, work = self._depth == 0, time.perf_counter(), time.thread_time()
        kind = event.type()
        self._depth += 1
        try:
            return super().notify(receiver, event)
        finally:
            self._depth -= 1
            if outermost and kind in _PAINTS:
                WatchedApplication.painting += time.perf_counter() - start
                WatchedApplication.painting_work += time.thread_time() - work


@dataclass(kw_only=True, slots=True)
class Step:
    """Figures of a step.

    Attributes
    ----------
    seconds
        From its beginning until the window was idle again.
    work
        Seconds of the processor in all threads, painting in software included: what other programs
        on the machine do not make longer.
    stops
        Times in which the event loop did nothing else, in seconds: whole, without painting, and
        without painting the time of the processor, which no other program makes longer.
    memory
        Peak of the resident memory of the process, in bytes.
    """

    seconds: float = 0.0
    work: float = 0.0
    stops: list[tuple[float, float, float]] = field(default_factory=list)
    memory: int = 0

    @property
    def longest(self) -> tuple[float, float, float]:
        """Longest of each of the `stops`, in ms."""
        longest = [1000 * max(times) for times in zip(*self.stops, strict=True)]
        return tuple(longest or (0.0, 0.0, 0.0))


class WindowWatch:
    """Watches the event loop by a timer, and the memory by a thread."""

    def __init__(self) -> None:
        self._application = QApplication.instance()
        self._process = psutil.Process()
        self._step = Step()
        self._last = _now()
        self._timer = QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        self._suspensions: list[tuple[float, float]] = []
        self._continued = 0
        if hasattr(signal, "SIGCONT"):
            signal.signal(signal.SIGCONT, self._on_continued)
        threading.Thread(target=self._watch_process, daemon=True).start()

    @contextmanager
    def step(self) -> Iterator[Step]:
        """Watch what is done within; what has begun is waited for by `until`."""
        self.settle(0.05)
        self._step = step = Step(memory=self._process.memory_info().rss)
        start, work = time.perf_counter(), time.process_time()
        self._last = _now()
        yield step
        self._application.processEvents()
        self._tick()
        step.seconds = self.since(start)
        step.work = time.process_time() - work
        self._step = Step()

    def until(self, condition: Callable[[], bool], *, patience: float = 3_000) -> None:
        """Let the window work until something is true."""
        end = time.perf_counter() + patience
        # A true loop, not `processEvents`: only there what was taken away is deleted.
        loop, timer = QEventLoop(), QTimer()
        timer.timeout.connect(lambda: (condition() or time.perf_counter() > end) and loop.quit())
        timer.start(1)
        loop.exec()
        timer.stop()
        if not condition():
            raise TimeoutError("the window did not get there")

    def since(self, start: float) -> float:
        """Seconds since a time of `time.perf_counter`, less those of suspensions."""
        end = time.perf_counter()
        if not self._continued or end - start < _SUSPENDED_S:
            return end - start
        time.sleep(0.05)  # the other thread has to notice it, too
        suspended = (min(end, last) - max(start, first) for first, last in self._suspensions)
        return end - start - sum(max(0.0, seconds) for seconds in suspended)

    def settle(self, seconds: float) -> None:
        """Let the window do what is waiting."""
        end = time.perf_counter() + seconds
        self._application.processEvents()
        if seconds:
            self.until(lambda: time.perf_counter() >= end)

    def _tick(self) -> None:
        now = _now()
        _, painting, work, painting_work = (
            after - before for after, before in zip(now, self._last, strict=True)
        )
        whole = self.since(self._last[0])
        self._step.stops.append((whole, max(0.0, whole - painting), work - painting_work))
        self._last = now

    def _on_continued(self, *_: object) -> None:
        self._continued += 1

    def _watch_process(self) -> None:
        last, work = time.perf_counter(), time.process_time()
        while True:
            self._step.memory = max(self._step.memory, self._process.memory_info().rss)
            time.sleep(0.02)
            now, worked = time.perf_counter(), time.process_time()
            if now - last > _SUSPENDED_S and worked - work < _SUSPENDED_WORK * (now - last):
                self._suspensions.append((last, now))
            last, work = now, worked


def _now() -> tuple[float, float, float, float]:
    painted = WatchedApplication.painting, WatchedApplication.painting_work
    return time.perf_counter(), painted[0], time.thread_time(), painted[1]
