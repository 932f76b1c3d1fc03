"""Writing files so that nobody ever meets half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the place of `path` when all went well.

    The temporary file lies in the same folder. After an exception, Ctrl-C included, it is removed,
    and an older file of that name stays as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files that only the owner may read; results are there to be shown.
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(new: Path, final: Path) -> None:
    """Give a complete folder its final name; an older one makes way and comes back on failure.

    A folder cannot be renamed over a full one, so there is a moment without either; an interrupt
    in it brings the old one back.
    """
    if not final.exists():
        os.replace(new, final)
        return
    old = new.with_name(f"{new.name}.old")
    os.replace(final, old)
    try:
        os.replace(new, final)
    except BaseException:
        os.replace(old, final)
        raise
    shutil.rmtree(old, ignore_errors=True)
