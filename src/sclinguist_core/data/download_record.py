"""What a downloaded folder says of itself: ``download.json``, with the SHA-256 of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sclinguist_core.data.datasets import Dataset
from sclinguist_core.files import replacing

RECORD = "download.json"
"""Name of the record beside the files."""

_FORMAT_VERSION = 1


def write_record(
    folder: Path, dataset: Dataset, *, sources: dict[str, dict[str, Any]], files: Iterable[Path]
) -> dict[str, Any]:
    """Write down where a folder comes from and what is in it.

    Parameters
    ----------
    folder
        Where the files are and the record goes.
    dataset
        What was downloaded.
    sources
        ``bytes`` and ``sha256`` of each file as it came, by address.
    files
        Files in the folder.

    Returns
    -------
    dict
        The record; its ``sha256`` has the checksum of each file by its path in the folder.
    """
    record = {
        "format_version": _FORMAT_VERSION,
        "name": dataset.name,
        "title": dataset.title,
        "licence": dataset.licence,
        "page": dataset.page,
        "sources": sources,
        "sha256": {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(files)},
    }
    with replacing(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return record


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of a folder; None if there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("sha256"), dict) else None


def changed_file(folder: Path, record: dict[str, Any]) -> str | None:
    """Name the first file that is missing or not as recorded; other files do not matter."""
    for name, digest in record["sha256"].items():
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            return str(name)
    return None


def sha256(path: Path) -> str:
    """Checksum of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
