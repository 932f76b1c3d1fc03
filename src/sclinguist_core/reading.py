"""Reading files that a user gives: whatever is wrong with one becomes a sentence about it.

Files are cut off by broken downloads, written by tools that mean something else, and now and then
made to do harm: a few bytes that unpack to more than memory holds, a pipe that never ends. Readers
open files by what stands here, so that each of these is dealt with once.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sclinguist_core.errors import InputError

MAX_RATIO = 200
"""Most bytes that one byte of a gzip file may unpack to. Text unpacks to 3 to 30 times its size;
gzip can reach 1032, on repetitions that no data have."""
ALWAYS_UNPACKED = 64 * 2**20
"""Bytes that are unpacked whatever the size of the file."""
MAX_JSON_BYTES = 64 * 2**20
"""Longest JSON that is read: parsing takes up to ten times as much memory."""
_ADDRESS = re.compile(r" <[^<>]* at 0x[0-9A-Fa-f]+>")


@contextmanager
def reading(path: Path, kind: str, *, remedy: str = "fetch it again") -> Iterator[None]:
    """Say in one sentence what a library finds wrong with a file, whatever it raises.

    Libraries raise nearly every exception over damaged files, and no base class is common to them;
    so only the call that reads belongs inside, and nothing of our own.

    Parameters
    ----------
    path
        The file or folder.
    kind
        What it should be, with its article: ``"an image"``; where kinds of things have none, the
        name alone: ``"JSON"``.
    remedy
        What to do.

    Raises
    ------
    InputError
        In place of any other exception; its own go through.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"'{path}' needs more memory than is free when it is read as {kind}: it is damaged, or "
            f"too large for this machine; {remedy}, or use a machine with more memory."
        ) from error
    except Exception as error:
        raise InputError(
            f"'{path}' cannot be read as {kind} ({reason(error)}): it is damaged or not complete; "
            f"{remedy}."
        ) from error


def reason(error: BaseException) -> str:
    """First line of an error's message, shortened; its class where it has none."""
    # Pillow and others name what they were given by its address in memory.
    lines = _ADDRESS.sub("", str(error)).strip().splitlines()
    return lines[0].strip().rstrip(".:")[:300] if lines else type(error).__name__


def check_path(path: Path) -> Path:
    """Refuse what no file can be called: a name that is too long, or half a character.

    Raises
    ------
    InputError
        If the system cannot so much as look whether there is such a file.
    """
    try:
        os.lstat(path)
    except ValueError as error:
        raise InputError(
            f"'{path}' cannot be the name of a file ({reason(error)}): choose another name."
        ) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"'{path}' is too long for a name: choose a shorter one.") from error
    return path


def plain_file(path: Path) -> Path:
    """Refuse what is no file: folders, and pipes and devices, which might never end.

    Raises
    ------
    InputError
        If it is none, or may not be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            # Some libraries take a file that may not be read for one that is not there.
            path.open("rb").close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{path}' cannot be opened ({reason(error)}): check the path and the rights to it."
        ) from error
    if stat.S_ISREG(mode):
        return path
    found = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    raise InputError(f"'{path}' is {found}, expected a file: check what has this name.")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, unpacked where its name ends in ``.gz``.

    Raises
    ------
    InputError
        If it is no file; and, while it is read, if it cannot be unpacked, or unpacks to a multiple
        of its size that no data reach.
    """
    with _unpacking(path), ExitStack() as stack:
        file: Any = stack.enter_context(plain_file(path).open("rb"))
        if path.suffix.lower() == ".gz":
            unpacked = stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb"))
            most = max(ALWAYS_UNPACKED, MAX_RATIO * path.stat().st_size)
            file = stack.enter_context(io.BufferedReader(_Bounded(unpacked, path, most)))
        yield file


@contextmanager
def _unpacking(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"'{path}' cannot be unpacked ({reason(error)}): it is damaged or not complete; fetch "
            "it again."
        ) from error


def read_json(path: Path, *, remedy: str = "fetch it again") -> Any:
    """Read a JSON file (also ``.json.gz``).

    Parameters
    ----------
    path
        The file.
    remedy
        What to do if it is damaged.

    Raises
    ------
    InputError
        If it is none, is nested too deeply, or is longer than `MAX_JSON_BYTES`.
    """
    with opened(path) as file, reading(path, "JSON", remedy=remedy):
        content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise InputError(
                f"'{path}' is longer than {MAX_JSON_BYTES // 2**20} MiB, expected some kB of JSON: "
                "check what has this name."
            )
        return json.loads(content)


def free_memory() -> int:
    """Bytes that this process can still take."""
    import psutil

    free = int(psutil.virtual_memory().available)
    if sys.platform != "win32":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            free = min(free, limit - psutil.Process().memory_info().vms)
    if sys.platform == "linux":
        free = min(free, *_left_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))
    return max(free, 0)


def _left_in_groups(memberships: Path, root: Path) -> list[int]:
    """Bytes that the control groups of this process leave to it, as in containers and queues.

    Parameters
    ----------
    memberships
        ``/proc/self/cgroup``: a line of number, controllers and path for each.
    root
        Where the groups are; in a container its own group is the root.
    """
    left = [sys.maxsize]
    try:
        lines = memberships.read_text().splitlines()
    except OSError:
        return left
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if not controllers:
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / inside.lstrip("/")
        for folder in (group, *group.parents):  # each is limited by those that it lies in
            left += _left_in(folder, *names)
            if folder == base:
                break
    return left


def _left_in(group: Path, limit: str, used: str, cached: str) -> list[int]:
    """Bytes that one control group leaves; empty where it has no limit."""
    try:
        most, taken = int((group / limit).read_text()), int((group / used).read_text())
        stats = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # not there, or "max"
        return []
    # What files have in the cache is given back when memory is asked for.
    return [most - taken + int(stats.get(cached, 0))]


def check_fits(n_bytes: int, path: Path) -> None:
    """Refuse a file whose content is larger than the memory that is free.

    Parameters
    ----------
    n_bytes
        What its arrays take in memory, as the file states it.
    path
        The file.

    Raises
    ------
    InputError
        If it does not fit. Damaged and hostile files state sizes that are in no relation to what
        is stored in them.
    """
    free = free_memory()
    if n_bytes > free:
        raise InputError(
            f"'{path}' states that it holds {_size(n_bytes)}, {_size(free)} of memory are free: it "
            "is damaged (then write it anew), or needs a machine with more memory."
        )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes < 2**60 else "more than 10^18 bytes"


class _Bounded(io.RawIOBase):
    """A stream that ends in an error instead of going on for ever."""

    def __init__(self, stream: gzip.GzipFile, path: Path, most: int) -> None:
        super().__init__()
        self._stream = stream
        self._path = path
        self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read1(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"'{self._path}' unpacks to more than {MAX_RATIO} times its size, which no data "
                "do: it is damaged or meant to fill the memory; fetch it again from its source."
            )
        buffer[: len(data)] = data
        return len(data)
