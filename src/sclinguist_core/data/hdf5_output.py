"""Writing HDF5 so that a full disk is an error, and not the end of the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file, and close it whatever happens.

    The HDF5 library is not made for writes that fail: it keeps what it could not write, complains
    whenever anything is closed, and crashes when the process ends. So it is given a file whose
    writes never fail; an error is kept for when it is done.

    Parameters
    ----------
    path
        The file; after an error it is to be removed.

    Raises
    ------
    OSError
        If it could not be written.
    """
    import h5py

    with path.open("x+b", buffering=0) as raw:
        file = _NeverFailing(raw)
        try:
            with h5py.File(file, "w") as group:
                yield group
        finally:
            # In place of what the library makes of a file that lost some of its bytes.
            if file.error is not None:
                raise file.error


class _NeverFailing:
    """A file that takes everything, and remembers the first error."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write as many bytes as the disk takes, and say that it was all of them."""
        view = memoryview(data)
        start = 0
        try:
            while self.error is None and start < len(view):
                start += self._raw.write(view[start:])
        except OSError as error:
            self.error = error
        return len(view)

    def read(self, size: int = -1) -> bytes:
        """Read; h5py takes an object with this method for a file, and calls `readinto`."""
        return bytes(self._raw.read(size))

    def readinto(self, buffer: Any) -> int:
        """Read; what was never written is zero."""
        n_read = self._raw.readinto(buffer)
        view = memoryview(buffer)
        view[n_read:] = bytes(len(view) - n_read)
        return len(view)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        """Return the place."""
        return int(self._raw.tell())

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend the file, if the disk lets it."""
        try:
            return int(self._raw.truncate(size))
        except OSError as error:
            self.error = self.error or error
            return 0

    def flush(self) -> None:
        """Do nothing: nothing is held back."""
