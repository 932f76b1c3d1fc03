"""One file fetched over HTTP, continued where an earlier call stopped.

The rest of a partial file is asked for with ``Range`` and ``If-Range``, so that it comes only if
the server still has the same version (ETag or Last-Modified). A server that has another version,
or knows no ranges, sends the whole file, and it starts over.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO

from sclinguist_core.data.http_answer import BEAT, Answer, Head, Lost, described
from sclinguist_core.data.partial_file import PartialFile, Version, is_validator
from sclinguist_core.errors import InputError

_WORTHWHILE_BYTES = 1024 * 1024
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
"""More digits than any file has bytes, and few enough to be read as a number."""
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a server is waited for.

    Attributes
    ----------
    timeout
        Seconds without an answer or a byte after which a connection counts as lost.
    attempts
        Connections in a row that bring less than 1 MiB before it is given up.
    pause
        Seconds before the second attempt; doubled from attempt to attempt.
    """

    timeout: float = 30.0
    attempts: int = 4
    pause: float = 1.0


PATIENCE = Patience()
"""What fits a file of some hundred MB from a public server."""


def remote_size(url: str, patience: Patience = PATIENCE) -> Generator[None, None, int | None]:
    """Ask how large a file is; yields at least every `BEAT` seconds until the answer is there.

    Returns
    -------
    int or None
        Bytes; None if the server does not tell, or does not answer this once.

    Raises
    ------
    InputError
        If no server can be reached, or it is not to be trusted.
    """
    try:
        with closing(Answer(url, method="HEAD", timeout=patience.timeout)) as answer:
            for item in answer:
                if isinstance(item, Head):
                    return _length(item.headers) if item.status == 200 else None
                yield
    except Lost as lost:
        if lost.offline:
            raise _given_up(url, lost) from lost
    return None


def fetch_iter(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    begins_with: bytes = b"",
    patience: Patience = PATIENCE,
) -> Generator[int, None, None]:
    """Fetch a file, going on from what an earlier call has left.

    Parameters
    ----------
    url
        ``https``, or ``http`` on this machine.
    target
        File that appears, by a rename, when all bytes are there.
    max_bytes
        A larger file is refused.
    begins_with
        First bytes of every file of this kind; refuses the web page that a log-in page or a
        firewall sends in place of the file.
    patience
        Timeout and retries.

    Yields
    ------
    int
        Bytes on the disk so far: after each chunk, and at least every `BEAT` seconds. Close the
        generator to stop; the bytes stay for the next call.

    Raises
    ------
    InputError
        In one sentence: no network, not there, too large, not what was expected, disk full.
    """
    part = PartialFile(target, url)
    transfer = _Transfer(part, max_bytes, patience.timeout)
    failures = 0
    most = part.size  # never less: a server that makes it start over again and again is given up
    while True:
        try:
            yield from transfer.attempt()
            break
        except Lost as lost:
            failures = 1 if part.size - most >= _WORTHWHILE_BYTES else failures + 1
            most = max(most, part.size)
            offline = lost.offline and not transfer.answered
            if offline or failures >= patience.attempts:
                raise _given_up(url, lost) from lost
        for _ in _beats(patience.pause * 2 ** (failures - 1)):
            yield part.size
    if not part.begins_with(begins_with):
        part.discard()
        raise InputError(
            f"'{url}' sent something else than the file, such as a log-in page or the notice of a "
            "firewall: open the address in a browser to see what, and try again."
        )
    part.finish()


class _Transfer:
    """Attempts to bring one file to the disk; ``answered`` tells whether a server ever did."""

    def __init__(self, part: PartialFile, max_bytes: int, timeout: float) -> None:
        self.part = part
        self.max_bytes = max_bytes
        self.timeout = timeout
        self.answered = False

    def attempt(self) -> Generator[int, None, None]:
        """Make one connection; yields like `fetch_iter`, raises `Lost` to be called again."""
        known = self.part.version()
        size = self.part.size
        if known is not None and known.total == size:
            return  # killed just before the rename
        if known is None or size == 0:
            known, headers = None, {}
        else:
            headers = {"Range": f"bytes={size}-", "If-Range": known.validator}
        with closing(Answer(self.part.url, headers, timeout=self.timeout)) as answer:
            stream = iter(answer)
            for item in stream:
                if isinstance(item, Head):
                    break
                yield size
            assert isinstance(item, Head)
            self.answered = True
            total = self._begin(item, known)
            size = self.part.size
            with self.part.append() as file:
                for item in stream:
                    if isinstance(item, bytes):
                        size += len(item)
                        self._check_size(size)
                        self._write(file, item)
                    yield size
        if total is not None and size != total:
            raise Lost(f"the connection ended after {size:,} of {total:,} bytes")

    def _begin(self, head: Head, known: Version | None) -> int | None:
        """Judge the answer, make the file ready; gives the size of the whole file if told."""
        if head.status == 206 and known is not None:
            total = self._check_continuation(head.headers, known)
        elif head.status == 200:
            total = _length(head.headers)
            if total is None and head.headers.get("Transfer-Encoding", "").lower() != "chunked":
                raise InputError(
                    f"{described(self.part.url)} is sent without its length, so that nobody could "
                    "tell when it is complete: try again from another network."
                )
            self.part.restart(_validator(head.headers), total)
        elif head.status in {206, 416}:
            self.part.discard()
            raise Lost("the server does not continue the file")
        elif head.status in _PASSING_STATUS:
            raise Lost(f"the server answered with status {head.status}")
        else:
            raise InputError(
                f"{described(self.part.url)} was refused by the server (status {head.status}): "
                "the file may have moved; update napari-sclinguist, or try again later."
            )
        if total is not None:
            self._check_size(total)
            require_space(self.part.path.parent, total - self.part.size)
        return total

    def _check_continuation(self, headers: Message, known: Version) -> int | None:
        """Make sure that the server goes on where the bytes end, in the same version."""
        stated = headers.get("ETag" if known.validator.startswith('"') else "Last-Modified")
        ranges = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        total = known.total
        if ranges is not None and ranges[2] != "*":
            total = int(ranges[2])
        if (
            ranges is None
            or int(ranges[1]) != self.part.size
            or stated not in {None, known.validator}
            or known.total not in {None, total}
        ):
            self.part.discard()
            raise Lost("the server continued another version of the file")
        return total

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            self.part.discard()
            check_size(self.part.url, size, self.max_bytes)

    def _write(self, file: IO[bytes], data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise InputError(
                f"'{self.part.path}' cannot be written ({error.strerror}): free some space and try "
                "again; what has come so far is kept."
            ) from error


def check_size(url: str, size: int, max_bytes: int) -> None:
    """Refuse a file that is larger than it may be.

    Raises
    ------
    InputError
        If it has more than `max_bytes` bytes.
    """
    if size > max_bytes:
        raise InputError(
            f"{described(url)} has {megabytes(size)} or more, expected at most "
            f"{megabytes(max_bytes)}: this is not the file that was published; update "
            "napari-sclinguist, or try again later."
        )


def require_space(folder: Path, n_bytes: int) -> None:
    """Refuse to begin what the disk cannot take.

    Raises
    ------
    InputError
        If fewer than `n_bytes` bytes are free on the disk of `folder`, which exists.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise InputError(
            f"'{folder}' lies on a disk with {megabytes(free)} free, expected {megabytes(n_bytes)}:"
            " free some space, or choose a folder on another disk."
        )


def megabytes(n_bytes: int) -> str:
    """Write a size for people."""
    return f"{n_bytes / 1e6:,.1f} MB"


def _given_up(url: str, lost: Lost) -> InputError:
    return InputError(
        f"{described(url)} could not be downloaded ({lost.reason}): check the internet connection "
        "(behind a proxy, set HTTPS_PROXY) and try again; what has come so far is kept."
    )


def _beats(seconds: float) -> Iterator[None]:
    """Wait, in steps so short that it can be given up."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        yield
        time.sleep(min(BEAT, left))


def _length(headers: Message) -> int | None:
    stated = headers.get("Content-Length", "")
    return int(stated) if re.fullmatch("[0-9]{1,18}", stated) else None


def _validator(headers: Message) -> str | None:
    """Strong ETag, else the date of the last change; If-Range takes no weak ETag."""
    etag = headers.get("ETag", "")
    stated = str(etag) if etag.startswith('"') else headers.get("Last-Modified")
    return stated if is_validator(stated) else None
