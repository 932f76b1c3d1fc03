"""The part of a file that has come so far, and the version of the file that it belongs to.

The bytes are in ``NAME.part``. ``NAME.part.json`` says which version they are of, so that the rest
of just that version can be asked for. At every moment, that of a ``kill -9`` included, the two say
either how to go on or that nothing is known.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from sclinguist_core.files import replacing

_VALIDATOR = re.compile(r"[\x20-\x7e]{1,256}")


def is_validator(text: object) -> bool:
    """Whether a text of a server, or of a note on the disk, may be sent back in a header."""
    return isinstance(text, str) and _VALIDATOR.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """Which version of a file the bytes on the disk belong to.

    Attributes
    ----------
    url
        Where they came from.
    validator
        What tells versions apart: a strong ETag, or the date of the last change.
    total
        Bytes of the whole file; None where the server did not tell.
    """

    url: str
    validator: str
    total: int | None

    def __post_init__(self) -> None:
        whole = self.total is None or (type(self.total) is int and self.total >= 0)
        if not (isinstance(self.url, str) and is_validator(self.validator) and whole):
            raise ValueError(f"not a version of a file: {self}")


class PartialFile:
    """A file on its way.

    Parameters
    ----------
    target
        Its name once it is complete.
    url
        Where it comes from.
    """

    def __init__(self, target: Path, url: str) -> None:
        self.target = target
        self.url = url
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def version(self) -> Version | None:
        """Say what the bytes belong to; None if they cannot be continued."""
        try:
            version = Version(**json.loads(self.note.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return version if version.url == self.url and self.path.exists() else None

    def restart(self, validator: str | None, total: int | None) -> None:
        """Begin with no bytes.

        Killed between these steps, the note is missing and the bytes count for nothing; it never
        lies beside bytes of another version.
        """
        self.note.unlink(missing_ok=True)
        self.path.write_bytes(b"")
        if validator is not None:
            version = Version(url=self.url, validator=validator, total=total)
            with replacing(self.note) as temporary:
                temporary.write_text(json.dumps(asdict(version)), "utf-8")

    def append(self) -> IO[bytes]:
        """Open for writing behind the last byte, without a buffer that a kill would lose."""
        return self.path.open("ab", buffering=0)

    def begins_with(self, first: bytes) -> bool:
        """Whether these are the first bytes."""
        with self.path.open("rb") as file:
            return file.read(len(first)) == first

    def discard(self) -> None:
        """Forget everything."""
        self.note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the complete file its name."""
        self.path.replace(self.target)
        self.note.unlink(missing_ok=True)
