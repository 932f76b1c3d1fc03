"""Writing HDF5 so that a full disk is an error, and not the end of the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file, and close it whatever happens.

    The HDF5 library keeps what it could not write, tries again whenever something is closed, and
    crashes when it still cannot at the end of the process. So where writing fails, the file is let
    go of: what is left to write goes nowhere.

    Parameters
    ----------
    path
        The file; after an error it holds anything, and is to be removed.

    Raises
    ------
    OSError
        If it cannot be written; before the block ends, so that it is not told while closing.
    """
    import h5py

    with h5py.File(path, "w") as file:
        try:
            yield file
            file.flush()
        except BaseException:
            let_go(file)
            raise


def let_go(file: h5py.File) -> None:
    """Let everything that is still to be written to an open file go nowhere."""
    if sys.platform == "win32":
        return  # its library has file handles of its own
    with suppress(OSError, ValueError, RuntimeError), open(os.devnull, "r+b") as nowhere:
        os.dup2(nowhere.fileno(), file.id.get_vfd_handle())
