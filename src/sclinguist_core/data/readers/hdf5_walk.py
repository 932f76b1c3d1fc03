"""Walk through HDF5 files and say what opening them would mean; a program of its own.

Given some damaged files the HDF5 library never returns, or takes the process with it (the cause
lies in the library; see ``docs/reliability.md``). `sclinguist_core.data.readers.hdf5` therefore
runs this file in a process that may be stopped, before it opens anything itself. So it imports
nothing of this package. It is given paths as lines of JSON, and answers each with a line of JSON:
``{"bytes": {...}}``, ``{"refused": "holds ..."}`` or ``{"damaged": "..."}``; empty lines before it
say that there is progress.

Everything that a reader meets is met here: every group and attribute, the index of every dataset,
and the content of all datasets that hold text, or are small and lie in chunks. Other numbers are
left out: they are read from where their index, which was walked through, says that they are.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

import h5py

_FEW_OBJECTS = 1_000
_BYTES_OF_AN_OBJECT = 64
"""Least size of a group or dataset on disk: a file that has more of them for its size names some
of them twice, and then perhaps 2^30 times."""
_BEAT = 1_000
"""Objects after which it is said that there is progress."""
_SMALL = 2**20
_BLOCK_ROWS = 100_000
_MEMORY = 4 * 2**30


class Refused(Exception):
    """The file holds what no file of counts needs; the message says what."""


def walk(path: str) -> dict[str, Any]:
    """Walk through a file.

    Returns
    -------
    dict
        ``bytes`` that the datasets take when they are read, by the name at the root that they lie
        under; 0 where there are none.

    Raises
    ------
    Refused
        If it leads out of the file, or in circles.
    OSError, RuntimeError, ...
        What h5py raises, if the file cannot be opened.
    """
    with h5py.File(path, "r") as file:
        walker = _Walker(_FEW_OBJECTS + os.path.getsize(path) // _BYTES_OF_AN_OBJECT)
        walker.group(file, above=())
        return {"bytes": walker.n_bytes}


class _Walker:
    def __init__(self, most_objects: int) -> None:
        self.most_objects = most_objects
        self.n_objects = 0
        self.n_bytes: dict[str, int] = {}
        self._branch = ""

    def group(self, group: h5py.Group, above: tuple[int, ...]) -> None:
        """Walk through a group; `above` are the addresses of the groups that it lies in."""
        address = h5py.h5o.get_info(group.id).addr
        if address in above:
            raise Refused(f"holds a group that lies within itself ({group.name})")
        _touch_attributes(group)
        for name in group:
            if not above:
                self._branch = name
                self.n_bytes[name] = 0
            # The plain way to ask, `group.get(name, getlink=True)`, takes four times as long.
            key = name.encode("utf-8", "surrogateescape")
            if group.id.links.get_info(key).type == h5py.h5l.TYPE_EXTERNAL:
                filename = group.get(name, getlink=True).filename
                raise Refused(f"holds a link to another file ({group.name}/{name} to {filename})")
            item = group[name]
            self.n_objects += 1
            if self.n_objects > self.most_objects:
                raise Refused("names its groups and arrays by too many links")
            if self.n_objects % _BEAT == 0:
                print(flush=True)  # noqa: T201
            if isinstance(item, h5py.Group):
                self.group(item, (*above, address))
            elif isinstance(item, h5py.Dataset):
                self.dataset(item)

    def dataset(self, dataset: h5py.Dataset) -> None:
        """Look at a dataset, and read it where it is small or text."""
        if dataset.external:
            raise Refused(f"takes {dataset.name} from another file ({dataset.external[0][0]})")
        if dataset.is_virtual:
            raise Refused(f"holds a virtual array ({dataset.name}), which is made of others")
        _touch_attributes(dataset)
        try:
            n_values = max(math.prod(dataset.shape or ()), math.prod(dataset.chunks or ()))
            n_bytes = n_values * dataset.dtype.itemsize
            self.n_bytes[self._branch] += n_bytes
            stored = dataset.id.get_storage_size()
            if dataset.dtype.kind == "O" and dataset.ndim and stored:
                for start in range(0, dataset.shape[0], _BLOCK_ROWS):
                    dataset[start : start + _BLOCK_ROWS]
            elif _indexed(dataset) and max(n_bytes, stored) <= _SMALL:
                dataset[()]
        except Exception:  # noqa: S110 - whoever wants it will say what is wrong
            pass


def _indexed(dataset: h5py.Dataset) -> bool:
    """Whether values lie in chunks or in the header, and not simply one behind another."""
    layout = dataset.id.get_create_plist().get_layout()
    return dataset.ndim == 0 or bool(layout != h5py.h5d.CONTIGUOUS)


def _touch_attributes(item: h5py.Group | h5py.Dataset) -> None:
    try:
        for name in item.attrs:
            item.attrs.get(name)
    except Exception:  # noqa: S110 - whoever wants it will say what is wrong
        pass


def main() -> None:
    """Answer for one file after another, in little memory."""
    if sys.platform != "win32":
        import resource

        limit, most = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY or limit > _MEMORY:
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, most))
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201


def answer(path: str) -> dict[str, Any]:
    """Say of a file what was found, refused, or what is damaged."""
    try:
        return walk(path)
    except Refused as error:
        return {"refused": str(error)}
    except Exception as error:  # what h5py raises shares no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {"damaged": lines[0]}


if __name__ == "__main__":
    main()
