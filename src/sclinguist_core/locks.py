"""A lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NOT_SUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


class Locked(Exception):
    """Another process, or another part of this one, holds the lock."""


class NoLocks(OSError):
    """The file system knows no locks, as some network drives."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock while the block runs.

    The operating system lets go of it when the process dies, so that nothing has to be cleared
    away after a crash.

    Parameters
    ----------
    path
        File that stands for the lock; made, and removed in the end.

    Raises
    ------
    Locked
        If it is held already; nobody waits.
    NoLocks
        If the file system has none.
    OSError
        If the file cannot be made.
    """
    handle = _acquire(path)
    try:
        yield
    finally:
        # Removed before it is let go: whoever opened it in between finds that it is not the file
        # of that name any more. Windows removes no open file; there it stays, which is harmless.
        if sys.platform != "win32":
            with suppress(OSError):
                path.unlink()
        os.close(handle)


def remove_stale(path: Path) -> None:
    """Remove the file of a lock that a killed process has left; one that is held stays."""
    if path.exists():
        with suppress(Locked, OSError), locked(path):
            pass


def _acquire(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle)
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise Locked from error
    except OSError as error:
        if error.errno in _NOT_SUPPORTED:
            raise NoLocks(error.errno, error.strerror) from error
        raise


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file still is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
