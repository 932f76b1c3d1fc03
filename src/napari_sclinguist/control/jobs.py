"""Long work beside the window: one job at a time, cancelled within a step, never mixed.

A job is a generator that yields `sclinguist_core.inference.progress.Progress` (or anything with
``done``, ``total`` and ``phase``) and returns its result. It runs in a thread that `Launch`
provides; everything here runs in the thread of the window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from psygnal import Signal

from napari_sclinguist.control.messages import Action, Message, from_exception
from sclinguist_core.errors import InputError

Steps = Callable[[], Generator[Any, None, Any]]

REPORTS_PER_SECOND = 5
"""Redrawing a progress bar more often slows the work that it reports on."""
_SECONDS_BEFORE_RATE = 1.0


def single_step(function: Callable[[], Any]) -> Steps:
    """Make a job of a function that has no steps to report."""

    def steps() -> Generator[Any, None, Any]:
        return function()
        yield

    return steps


class State(StrEnum):
    """What a runner is doing."""

    IDLE = "idle"
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How far a job is, for people.

    Attributes
    ----------
    phase
        What is going on.
    done, total
        Spots or cells.
    rate
        Of them a second; None before it is known.
    seconds_left
        None before it is known.
    """

    phase: str
    done: int
    total: int
    rate: float | None = None
    seconds_left: float | None = None


class Listener(Protocol):
    """What a thread tells the runner; called in the thread of the window."""

    def progressed(self, progress: Any) -> None:
        """Hear that a step is done."""

    def returned(self, result: Any) -> None:
        """Take what the generator returned."""

    def raised(self, error: BaseException) -> None:
        """Take what the generator raised."""

    def ended(self) -> None:
        """Hear that the thread is finished, whatever came of it."""


Launch = Callable[[Steps, Listener], Callable[[], None]]
"""Starts the generator in a thread; returns a function that asks it to stop after its next step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A job as it was asked for.

    Attributes
    ----------
    number
        Counts up; results of an earlier number are not accepted.
    title
        What it does, such as ``"Predicting proteins"``.
    steps
        Makes the generator, in the thread.
    on_result
        Takes the result.
    remedy
        Makes the offer that goes with an error, or None.
    keeps_result_when_late
        Whether the result is taken even where the job was cancelled but had finished before it
        could be stopped: a file that was written is there.
    """

    number: int
    title: str
    steps: Steps
    on_result: Callable[[Any], None]
    remedy: Callable[[BaseException], Action | None]
    keeps_result_when_late: bool = False


class JobRunner:
    """Runs one job at a time.

    Parameters
    ----------
    launch
        How to run a generator beside the window.
    clock
        Seconds, for rates.
    tells_cancelled
        Whether a message says that a job was cancelled.
    """

    state_changed = Signal(object)
    """State"""
    reported = Signal(object)
    """Report, at most five a second"""
    message = Signal(object)
    """Message"""

    def __init__(
        self,
        launch: Launch,
        clock: Callable[[], float] = time.monotonic,
        *,
        tells_cancelled: bool = True,
    ) -> None:
        self._launch = launch
        self._clock = clock
        self._tells_cancelled = tells_cancelled
        self._request: Request | None = None
        self._stop: Callable[[], None] | None = None
        self._count = 0
        self._state = State.IDLE
        self._closed = False

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._state

    @property
    def title(self) -> str:
        """Title of the present job, "" when idle."""
        return "" if self._request is None else self._request.title

    def start(
        self,
        title: str,
        steps: Steps,
        on_result: Callable[[Any], None],
        remedy: Callable[[BaseException], Action | None] = lambda error: None,
        *,
        keeps_result_when_late: bool = False,
    ) -> int:
        """Start a job, see `Request`; returns its number.

        Raises
        ------
        InputError
            If another one has not finished yet.
        """
        if self._state is not State.IDLE:
            raise InputError(
                f"{self.title} is still running: wait for it or cancel it, then start again."
            )
        self._count += 1
        self._request = Request(
            number=self._count,
            title=title,
            steps=steps,
            on_result=on_result,
            remedy=remedy,
            keeps_result_when_late=keeps_result_when_late,
        )
        self._set_state(State.RUNNING)
        self._stop = self._launch(steps, _Ear(self, self._request, self._clock))
        return self._count

    def cancel(self) -> None:
        """Ask the job to stop; it does so after its present step.

        Its result is dropped, unless it was asked for with `Request.keeps_result_when_late` and
        there is one already.
        """
        if self._state is State.RUNNING and self._stop is not None:
            self._set_state(State.STOPPING)
            self._stop()

    def close(self) -> None:
        """Cancel, and say nothing any more: the window is going away."""
        self.cancel()
        self._closed = True

    def _set_state(self, state: State) -> None:
        self._state = state
        if not self._closed:
            self.state_changed.emit(state)

    def _accepts(self, request: Request) -> bool:
        return not self._closed and request is self._request and self._state is State.RUNNING

    def _accepts_late(self, request: Request) -> bool:
        is_stopping = request is self._request and self._state is State.STOPPING
        return not self._closed and is_stopping and request.keeps_result_when_late


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Waiting:
    """A job of a queue."""

    title: str
    steps: Steps
    on_result: Callable[[Any], None]
    owner: object


class JobQueue:
    """Runs jobs one after another; for work that the window does by itself.

    Parameters
    ----------
    launch
        How to run a generator beside the window.
    """

    message = Signal(object)
    """Message"""

    def __init__(self, launch: Launch) -> None:
        # Nobody started these jobs by a button, so nobody misses one.
        self._runner = JobRunner(launch, tells_cancelled=False)
        self._waiting: list[_Waiting] = []
        self._owner: object = None  # of the job that runs
        self._runner.message.connect(self._hand_on)
        self._runner.state_changed.connect(self._next)

    @property
    def state(self) -> State:
        """IDLE when nothing runs and nothing waits."""
        return State.RUNNING if self._waiting else self._runner.state

    def add(
        self,
        title: str,
        steps: Steps,
        on_result: Callable[[Any], None],
        *,
        owner: object = None,
    ) -> None:
        """Start a job when those before it have ended; see `drop` for its owner."""
        self._waiting.append(_Waiting(title=title, steps=steps, on_result=on_result, owner=owner))
        self._next()

    def drop(self, owner: object) -> None:
        """Forget the jobs of an owner that has gone; one that runs ends after its present step."""
        self._waiting = [one for one in self._waiting if one.owner is not owner]
        if self._owner is owner:
            self._runner.cancel()

    def close(self) -> None:
        """Cancel everything, and say nothing any more."""
        self._waiting.clear()
        self._runner.close()

    def _hand_on(self, message: Message) -> None:
        self.message.emit(message)

    def _next(self, state: object = None) -> None:
        if self._runner.state is not State.IDLE:
            return
        self._owner = None
        if self._waiting:
            one = self._waiting.pop(0)
            self._owner = one.owner
            self._runner.start(one.title, one.steps, one.on_result)


class _Ear:
    """Hears one job; after it was cancelled nothing counts but a result that is to be kept."""

    def __init__(self, runner: JobRunner, request: Request, clock: Callable[[], float]) -> None:
        self._runner, self._request, self._clock = runner, request, clock
        self._phase = ""
        self._phase_start = self._last_report = 0.0
        self._phase_done = 0
        self._was_late = False

    def progressed(self, progress: Any) -> None:
        if not self._runner._accepts(self._request):
            return
        now = self._clock()
        new_phase = progress.phase != self._phase
        if new_phase:
            self._phase, self._phase_start = progress.phase, now
            self._phase_done = progress.done
        finished = progress.done >= progress.total
        if not (new_phase or finished or now - self._last_report >= 1 / REPORTS_PER_SECOND):
            return
        self._last_report = now
        done, seconds = progress.done - self._phase_done, now - self._phase_start
        # The first batch alone tells little: it is the slowest.
        known = finished or seconds >= _SECONDS_BEFORE_RATE
        rate = done / seconds if known and done > 0 and seconds > 0 else None
        left = None if rate is None else (progress.total - progress.done) / rate
        self._runner.reported.emit(
            Report(
                phase=progress.phase,
                done=progress.done,
                total=progress.total,
                rate=rate,
                seconds_left=left,
            )
        )

    def returned(self, result: Any) -> None:
        self._was_late = self._runner._accepts_late(self._request)
        if not (self._was_late or self._runner._accepts(self._request)):
            return
        try:
            self._request.on_result(result)
        except Exception as error:  # whatever it is, the viewer goes on
            self._runner.message.emit(from_exception(error, self._request.title))

    def raised(self, error: BaseException) -> None:
        if self._runner._accepts(self._request):
            remedy = self._request.remedy(error)
            self._runner.message.emit(from_exception(error, self._request.title, remedy))

    def ended(self) -> None:
        runner = self._runner
        if runner._request is self._request:
            stopped = runner.state is State.STOPPING
            title = self._request.title
            runner._request = runner._stop = None
            runner._set_state(State.IDLE)
            if stopped and runner._tells_cancelled and not runner._closed:
                late = "had finished before it could be stopped"
                end = late if self._was_late else "was cancelled"
                runner.message.emit(Message(text=f"{title} {end}."))
