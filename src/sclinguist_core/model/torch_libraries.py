"""Loading PyTorch beside a window without holding the window up.

Most of ``import torch`` is the loading of its shared libraries, during which Python's lock is
held: a window stands still for a quarter of a second and more. Loaded through a foreign function
call, which gives the lock back, they are there already when PyTorch is imported.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


def import_torch_quietly() -> None:
    """Import PyTorch in a thread, leaving the others room; does nothing when it is imported.

    What cannot be loaded ahead is left to the import itself, which then raises what there is to
    say about it.
    """
    if "torch" in sys.modules:
        return
    _load_ahead()
    with _no_collections():
        import torch  # noqa: F401

        # Modules live as long as the process: collections need not look through them.
        gc.freeze()


def load_ahead() -> None:
    """Bring PyTorch's shared libraries into memory beside other work, such as reading a file.

    Returns at once; what is still missing when PyTorch is imported is waited for by the import.
    """
    if "torch" not in sys.modules:
        threading.Thread(target=_load_ahead, name="load torch", daemon=True).start()


def _load_ahead() -> None:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None or os.name != "posix":
        return
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    library = Path(found.origin).parent / "lib" / f"libtorch_python{suffix}"
    if not library.is_file():
        return
    process = ctypes.CDLL(None)
    process.dlopen.restype = ctypes.c_void_p
    process.dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
    # ctypes.CDLL(library) would do the same with Python's lock held.
    if not process.dlopen(os.fsencode(library), os.RTLD_NOW | os.RTLD_GLOBAL):
        logger.debug("%s could not be loaded ahead", library)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Postpone the garbage collector: an import makes many objects and next to no garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
