"""Full garbage collections, put off while they would be in the way.

One looks through every object that there is, napari's, Qt's and PyTorch's, and holds Python's lock
all that time: 0.3 s and more once everything is loaded.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_holders = 0


@contextmanager
def little_to_collect() -> Iterator[None]:
    """Leave the objects that are there out of collections; from any thread, also nested.

    What they refer to is freed as ever once nothing refers to it; only cycles wait.
    """
    global _holders
    with _lock:
        _holders += 1
        gc.freeze()
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                gc.unfreeze()
