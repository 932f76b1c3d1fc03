"""Names and places: odd ones, which must work, and ones that cannot be written to."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from pathlib import Path
from unittest import mock

from crash.failing_disk import full_after
from faults.fault import ANYWHERE, LINUX, POSIX, Ending, Fault, Make
from faults.makers import cases
from faults.small import Small, write_h5ad

_NAMES = {
    "unicode": "Gewebe – 組織 – ткань",
    "spaces": "  my own  section ",
    "line break": "two\nlines",
    "emoji": "🧬🔬",
    "control characters": "bell\x07 and \x1b[31mred",
    "signs of the shell": "$(touch x); `y` & 'z' \"w\" * ? [a] {b} #c %d ~",
    "leading dash": "-o",
    "200 characters": "n" * 200,
    "no UTF-8": b"caf\xe9".decode("utf-8", "surrogateescape"),
    "looks like an address": "s3:",
    "looks like a partition": "donor=1",
    "dots": "...",
}
_EVERYWHERE = frozenset({"unicode", "emoji", "leading dash", "looks like a partition"})
_INPUTS = ("h5ad", "zarr", "tenx", "visium", "mtx")


def _systems(name: str) -> tuple[str, ...]:
    """Where a file can have such a name: some file systems know fewer names than others."""
    if name in _EVERYWHERE:
        return ANYWHERE
    return LINUX if name in ("no UTF-8", "200 characters") else POSIX


def _named(name: str, source: str) -> Make:
    def make(folder: Path, small: Small) -> Path:
        (folder / name).mkdir()
        return small.copy(source, folder / name)

    return make


def _deep(source: str) -> Make:
    """A path of about 3,500 bytes, of the 4,096 that Linux allows."""

    def make(folder: Path, small: Small) -> Path:
        while len(str(folder)) < 3_400:
            folder = folder / ("d" * 100)
        folder.mkdir(parents=True)
        return small.copy(source, folder)

    return make


def _too_long(folder: Path, small: Small) -> Path:
    return folder / ("n" * 5_000 + ".h5ad")


def _output(name: str) -> Make:
    return lambda folder, small: folder / name


def _odd_output(name: str) -> Make:
    def make(folder: Path, small: Small) -> Path:
        (folder / name).mkdir()
        return folder / name / f"{name}.h5ad"

    return make


def _under_a_file(folder: Path, small: Small) -> Path:
    (folder / "file").write_text("a file")
    return folder / "file" / "result.h5ad"


def _predicted(folder: Path, small: Small) -> Path:
    cells = small.cells()
    cells.obsm["protein_predicted"] = cells.obsm["protein"].drop(columns="IgG1")
    return write_h5ad(cells, folder / "predicted.h5ad")


def _taken(name: str) -> Make:
    def make(folder: Path, small: Small) -> Path:
        (folder / name).mkdir()
        (folder / name / "kept.txt").write_text("kept")
        return folder / name

    return make


_REFUSED = {
    "under a file": (_under_a_file, "does not exist"),
    "in no folder": (_output("nowhere/result.h5ad"), "does not exist"),
    "of another suffix": (_output("result.csv"), "expected .h5ad or .zarr"),
    "a folder": (_taken("result.h5ad"), "it is a folder"),
    "a folder of other things": (_taken("result.zarr"), "no AnnData table"),
    "a name of 5,000 letters": (_output("n" * 5_000 + ".h5ad"), "."),
}
_DEVICES = {
    "/dev/full": (lambda folder, small: Path("/dev/full"), "suffix"),
    "in /proc": (lambda folder, small: Path("/proc/result.h5ad"), "choose another|space"),
}

_FULL_AT = 8_000
"""Bytes that a file may have on the full disk: less than any result has."""


def _read_only() -> contextlib.AbstractContextManager[None]:
    """Refuse new names, as a disk does that was mounted read-only."""
    refused = OSError(errno.EROFS, os.strerror(errno.EROFS))
    return mock.patch("os.mkdir", side_effect=refused)


def _full_when_synced() -> contextlib.AbstractContextManager[None]:
    """Fail as some file systems do, which say only in the end that there is no room."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return mock.patch("os.fsync", side_effect=full)


_DISKS = {
    "full": (partial(full_after, _FULL_AT), "File too large|nothing was changed", POSIX),
    "full, told in the end": (_full_when_synced, "No space left on device", ANYWHERE),
    "read-only": (_read_only, "Read-only file system", ANYWHERE),
}

_GOES_ON: Ending = "goes on"
FAULTS = [
    *(
        Fault(
            kind="odd names and places",
            name=f"{source} in {name}",
            make=_named(odd, source),
            says="for 12 (cells|spots)",
            ends=_GOES_ON,
            systems=_systems(name),
        )
        for name, odd in _NAMES.items()
        for source in _INPUTS
    ),
    *(
        Fault(
            kind="odd names and places",
            name=f"{source} 3,500 characters deep",
            make=_deep(source),
            says="for 12 (cells|spots)",
            ends=_GOES_ON,
            systems=LINUX,
        )
        for source in _INPUTS
    ),
    *(
        Fault(
            kind="odd names and places",
            name=f"output called {name}",
            make=_odd_output(odd),
            says="for 12 cells",
            ends=_GOES_ON,
            systems=_systems(name),
            command="output",
        )
        for name, odd in _NAMES.items()
    ),
    *cases("odd names and places", {"a name of 5,000 letters": (_too_long, ".")}),
    *cases("outputs that cannot be written", _REFUSED, command="output"),
    *cases("outputs that cannot be written", _DEVICES, command="output", systems=LINUX),
    *(
        Fault(
            kind="full and read-only disks",
            name=f"{name}, {given}",
            make=make,
            says=says,
            around=around,
            command=command,
            systems=systems,
        )
        for name, (around, says, systems) in _DISKS.items()
        for given, make, command in (
            (".h5ad", _output("result.h5ad"), "output"),
            (".zarr", _output("result.zarr"), "output"),
            ("streamed", lambda folder, small: small.copy("h5ad", folder), "stream"),
            ("evaluation", _predicted, "evaluate"),
        )
    ),
]
