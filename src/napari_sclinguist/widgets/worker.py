"""Running a generator in a thread, its steps reported in the thread of the window.

napari's and superqt's workers take a RuntimeError for a deleted window and then never say that
they finished; PyTorch raises RuntimeError for most of what can go wrong, so this is our own.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal, Slot

from napari_sclinguist.control.collecting import little_to_collect
from napari_sclinguist.control.jobs import Listener, Steps

_NICE = 5


class _Courier(QObject):
    """Carries news from the thread to the listener, through the window's event loop."""

    news = Signal(str, object)

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self.news.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    @Slot(str, object)
    def _deliver(self, what: str, content: Any) -> None:
        if what == "ended":
            self._listener.ended()
            _couriers.discard(self)
        else:
            getattr(self._listener, what)(content)


_couriers: set[_Courier] = set()
"""Held until their thread ended: nobody else has to."""


def launch(steps: Steps, listener: Listener) -> Callable[[], None]:
    """Run a job beside the window; see `napari_sclinguist.control.jobs.Launch`."""
    courier = _Courier(listener)
    _couriers.add(courier)
    stop = threading.Event()
    thread = threading.Thread(target=_run, args=(steps, courier, stop), name="sclinguist-job")
    thread.start()
    return stop.set


@contextmanager
def _in_the_background() -> Iterator[None]:
    """Leave the window its turn while heavy work runs in this thread.

    On Linux, where threads have priorities of their own, the window and its drawing come first.
    """
    if sys.platform.startswith("linux"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    with little_to_collect():
        yield


def _run(steps: Steps, courier: _Courier, stop: threading.Event) -> None:
    def tell(what: str, content: Any = None) -> None:
        try:
            courier.news.emit(what, content)
        except RuntimeError:  # Qt is gone: the application was closed meanwhile
            stop.set()

    try:
        with _in_the_background():
            generator = steps()
            try:
                while not stop.is_set():
                    try:
                        progress = next(generator)
                    except StopIteration as end:
                        tell("returned", end.value)
                        return
                    tell("progressed", progress)
            finally:
                generator.close()
    except BaseException as error:  # handed on; a thread has nobody to raise it to
        tell("raised", error)
    finally:
        tell("ended")
