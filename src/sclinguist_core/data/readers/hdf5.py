"""HDF5 files that nobody has to trust: looked through before anything is read from them."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sclinguist_core.data.readers import hdf5_walk
from sclinguist_core.errors import InputError
from sclinguist_core.reading import check_fits, plain_file

PROGRAM = Path(hdf5_walk.__file__)
"""What looks through files, in a process of its own."""
SECONDS = 20.0
"""Longest time without progress; a file is usually looked through in hundredths of a second."""


def check_hdf5(path: Path, *, not_whole: Collection[str] = ()) -> list[str]:
    """Look through an HDF5 file without reading its arrays of numbers.

    This happens in another process, since the HDF5 library may hang or crash over a damaged file.

    Parameters
    ----------
    path
        The file.
    not_whole
        Names at its root whose content will not be read whole. The rest must fit into memory.

    Returns
    -------
    list of str
        Names at its root, sorted.

    Raises
    ------
    InputError
        If it is no HDF5, is damaged, is larger than memory, or would lead a reader to other files
        or in circles.
    """
    plain_file(path)
    found = _WALKER.ask(path)
    if "damaged" in found:
        raise InputError(
            f"'{path}' cannot be read as HDF5 ({found['damaged']}): the file is damaged or was not "
            "transferred completely; fetch it again and compare its size."
        )
    if "refused" in found:
        raise InputError(
            f"'{path}' {found['refused']}, expected plain groups and arrays in one file: write it "
            "anew without it."
        )
    sizes = found["bytes"]
    check_fits(sum(size for name, size in sizes.items() if name not in not_whole), path)
    return sorted(sizes)


class _Walker:
    """The other process: started when it is first needed, and again when it had to be stopped."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def ask(self, path: Path) -> dict[str, Any]:
        """Return the answer of `hdf5_walk` for a file."""
        with self._lock:
            try:
                process = self._running()
            except OSError:  # no second process is to be had: then in this one
                return hdf5_walk.answer(str(path))
            question = json.dumps(str(path.absolute())).encode()
            try:
                line = self._said(process, question)
                while line == b"\n":  # there is progress
                    line = self._said(process)
            except OSError:
                line = b""
            if line:
                found: dict[str, Any] = json.loads(line)
                return found
            self.stop()
            return {"damaged": "the HDF5 library crashed over it, or did not come to an end"}

    def _said(self, process: subprocess.Popen[bytes], question: bytes = b"") -> bytes:
        """Return the next line of the process; nothing if it died, or was silent and killed."""
        assert process.stdin is not None
        assert process.stdout is not None
        # Killed, it closes its end of the pipe, and the wait for a line is over.
        patience = threading.Timer(SECONDS, process.kill)
        patience.start()
        try:
            if question:
                process.stdin.write(question + b"\n")
                process.stdin.flush()
            return process.stdout.readline()
        finally:
            patience.cancel()

    def _running(self) -> subprocess.Popen[bytes]:
        # After a fork the pipes are shared with the parent, whose answers they carry.
        if self._process is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                # -P: the folder of the program is not searched for modules.
                [sys.executable, "-P", str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        return self._process

    def stop(self) -> None:
        """Stop the process, if it is this one's."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()


_WALKER = _Walker()
atexit.register(_WALKER.stop)
