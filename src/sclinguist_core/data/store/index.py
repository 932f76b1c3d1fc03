"""What a store says about itself: a record in each data set, and all of them in ``store.json``.

The record lies in the attributes of the data set's own root, where the rename that finishes the
data set puts it too; ``store.json`` repeats the records for whoever looks into the folder. It is
written anew from them, so that it cannot disagree for longer than one call.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sclinguist_core.errors import InputError
from sclinguist_core.files import replacing

FORMAT_VERSION = 1
INDEX = "store.json"
RECORD = "sclinguist_store"
"""Attribute of a data set's root that holds its record."""
N_CELLS = "n_cells_expressing"
"""Column of ``var`` in a data set: cells with a count of the gene."""
SUFFIX = ".zarr"
_SAMPLES = 16
_SAMPLE_BYTES = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceMark:
    """How to tell whether a source is what it was.

    Attributes
    ----------
    path
        Where it lay when the store was built, absolute.
    size, mtime_ns
        Bytes, and time of the last change, of the file or of all files of a folder.
    sha256
        Digest of names, sizes and a sample of the content: sixteen pieces of 64 KiB a file, spread
        evenly.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> SourceMark:
        """Look at a file or folder now."""
        # A link is told by what it leads to.
        path = Path(os.path.realpath(path))
        digest = hashlib.sha256()
        files = _files(path)
        for file, status in files:
            digest.update(f"{file.relative_to(path).as_posix()}\t{status.st_size}\n".encode())
            _add_sample(digest, file, status.st_size)
        size, mtime_ns = _size_and_time(files)
        return cls(path=str(path), size=size, mtime_ns=mtime_ns, sha256=digest.hexdigest())

    def is_untouched(self) -> bool:
        """Whether nobody has written there since, told by size and time alone.

        This costs no reading: it is asked after every part that a source is split into.
        """
        try:
            return _size_and_time(_files(Path(self.path))) == (self.size, self.mtime_ns)
        except FileNotFoundError:
            return False

    def is_same_content(self, other: SourceMark) -> bool:
        """Whether size, time and sample are those of another mark; the path may differ."""
        return (self.size, self.mtime_ns, self.sha256) == (other.size, other.mtime_ns, other.sha256)


def _files(path: Path) -> list[tuple[Path, os.stat_result]]:
    """All files of a source, sorted, and what the system tells of them."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [(file, file.stat()) for file in files]


def _size_and_time(files: list[tuple[Path, os.stat_result]]) -> tuple[int, int]:
    return (
        sum(status.st_size for _, status in files),
        max((status.st_mtime_ns for _, status in files), default=0),
    )


def _add_sample(digest: Any, file: Path, size: int) -> None:
    with file.open("rb") as data:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(data.read())
            return
        for number in range(_SAMPLES):
            data.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(data.read(_SAMPLE_BYTES))


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a data set was built with.

    Attributes
    ----------
    seed
        Of the order of the rows.
    layer
        Place of the raw counts, where it was given.
    protein_key
        Key of ``obsm`` with antibody counts, where it was given.
    split_by
        Column of ``obs`` by which the source was split into data sets.
    """

    seed: int = 0
    layer: str | None = None
    protein_key: str | None = None
    split_by: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What a data set of a store says about itself.

    Attributes
    ----------
    name
        Name of the data set; ``source/batch`` where the source was split.
    n_obs, n_genes, n_proteins, n_values
        Cells, genes, antibodies (0 where none were measured) and counts above zero.
    counts
        Where the source kept its raw counts.
    source
        What it was built from.
    options
        How.
    parts
        Names of all data sets that were made of the source, this one among them.
    format_version
        Of the layout.
    """

    name: str
    n_obs: int
    n_genes: int
    n_proteins: int
    n_values: int
    counts: str
    source: SourceMark
    options: Options
    parts: tuple[str, ...]
    format_version: int = FORMAT_VERSION

    def to_plain(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], path: Path) -> Record:
        """Read what `to_plain` gave.

        Raises
        ------
        InputError
            If it is of another version, or no record.
        """
        version = values.get("format_version") if isinstance(values, Mapping) else None
        if version != FORMAT_VERSION:
            raise InputError(
                f"'{path}' is a data set of a store of version {version!r}, expected "
                f"{FORMAT_VERSION}: build it anew with `sclinguist store build`."
            )
        try:
            record = cls(
                **{
                    **values,
                    "source": SourceMark(**values["source"]),
                    "options": Options(**values["options"]),
                    "parts": tuple(values["parts"]),
                }
            )
            record._check_types()
        except (TypeError, KeyError) as error:
            raise InputError(
                f"'{path}' has a damaged record ({error}), expected what `sclinguist store build` "
                "writes: build it anew."
            ) from error
        return record

    def _check_types(self) -> None:
        """Refuse what JSON allows and nobody wrote."""
        numbers = {
            "n_obs": self.n_obs,
            "n_genes": self.n_genes,
            "n_proteins": self.n_proteins,
            "n_values": self.n_values,
            "size": self.source.size,
        }
        for key, number in numbers.items():
            if type(number) is not int or number < (key in ("n_obs", "n_genes")):
                raise TypeError(f"{key} is {number!r}")
        for text in (self.name, self.counts, self.source.path, *self.parts):
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is no text")


def read_record(path: Path) -> Record | None:
    """Read the record of a data set; None where the path holds none.

    Raises
    ------
    InputError
        If the record is damaged, or of another version.
    """
    try:
        content = json.loads((path / "zarr.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    attributes = content.get("attributes") if isinstance(content, dict) else None
    if not isinstance(attributes, dict) or RECORD not in attributes:
        return None
    return Record.from_plain(attributes[RECORD], path)


def is_store(path: Path) -> bool:
    """Whether a folder is a store."""
    return os.path.isfile(path / INDEX)  # false for what can be no name, too


def data_sets(store: Path) -> list[tuple[Path, Record]]:
    """Finished data sets of a store, folder and record, sorted by name.

    Raises
    ------
    InputError
        If one of them is damaged, or of another version.
    """
    found = []
    # Hidden folders are those of builds that are under way or were killed.
    for pattern in (f"[!.]*{SUFFIX}", f"[!.]*/[!.]*{SUFFIX}"):
        for path in store.glob(pattern):
            record = read_record(path)
            if record is not None:
                found.append((path, record))
    return sorted(found, key=lambda item: item[1].name)


def location(store: Path, name: str) -> Path:
    """Folder of a data set: ``store/name.zarr``, or ``store/source/batch.zarr``."""
    *folders, last = name.split("/")
    return store.joinpath(*folders, f"{last}{SUFFIX}")


def write_index(store: Path) -> None:
    """Write ``store.json`` from the records of the data sets."""
    content = {
        "format_version": FORMAT_VERSION,
        "data_sets": [
            {"path": path.relative_to(store).as_posix()}
            | {k: v for k, v in record.to_plain().items() if k not in {"format_version", "parts"}}
            for path, record in data_sets(store)
        ],
    }
    with replacing(store / INDEX) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
