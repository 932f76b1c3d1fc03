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
from collections.abc import Callable
from typing import Any

import h5py

_FEW_OBJECTS = 1_000
_BYTES_OF_AN_OBJECT = 64
"""Least size of a group or dataset on disk: a file that has more of them for its size names some
of them twice, and then perhaps 2^30 times."""
_BEAT = 1_000
"""Objects after which it is said that there is progress."""
_SMALL = 2**20
_LONGEST_TEXT = 2**16
"""Bytes of a text of fixed length; longer ones have a length each."""
_SLACK = 4096
"""Bytes that packing may add to a chunk, beside its size once more."""
_FIRST_ROWS, _BLOCK_ROWS, _MOST_ROWS = 64, 10_000, 100_000
"""Texts that are read at once: few at first, then as many, or a chunk, up to this."""
_SPARE_TEXT = 2**20
_MEMORY = 4 * 2**30


class Refused(Exception):
    """The file holds what no file of counts needs; the message says what."""


def walk(path: str, beat: Callable[[], None]) -> dict[str, Any]:
    """Walk through a file.

    Parameters
    ----------
    path
        The file.
    beat
        Called when there is progress.

    Returns
    -------
    dict
        ``bytes`` that the datasets take when they are read, by the name at the root that they lie
        under; 0 where there are none.

    Raises
    ------
    Refused
        If it leads out of the file, or in circles, or holds more than memory does.
    OSError, RuntimeError, ...
        What h5py raises, if the file cannot be opened.
    """
    with h5py.File(path, "r") as file:
        walker = _Walker(os.path.getsize(path), beat)
        walker.group(file, above=())
        return {"bytes": walker.n_bytes}


class _Walker:
    def __init__(self, file_size: int, beat: Callable[[], None]) -> None:
        self.most_objects = _FEW_OBJECTS + file_size // _BYTES_OF_AN_OBJECT
        # Texts of any length lie in the file one by one, and not packed.
        self.most_text = file_size + _SPARE_TEXT
        self.beat = beat
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
                self.beat()
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
            if dataset.dtype.kind == "S" and dataset.dtype.itemsize > _LONGEST_TEXT:
                raise Refused(
                    f"gives each text {dataset.dtype.itemsize:,} letters of room ({dataset.name})"
                )
            n_values = max(math.prod(dataset.shape or ()), math.prod(dataset.chunks or ()))
            n_bytes = n_values * dataset.dtype.itemsize
            self.n_bytes[self._branch] += n_bytes
            stored = dataset.id.get_storage_size()
            if dataset.chunks and stored:
                _check_chunks(dataset)
            if dataset.dtype.kind == "O" and dataset.ndim and stored:
                self.n_bytes[self._branch] += self.texts(dataset)
            elif _indexed(dataset) and max(n_bytes, stored) <= _SMALL:
                dataset[()]
        except Refused:
            raise
        except MemoryError as error:
            raise _too_large(dataset) from error
        except Exception:  # noqa: S110 - whoever wants it will say what is wrong
            pass

    def texts(self, dataset: h5py.Dataset) -> int:
        """Read texts, block by block; returns how many bytes they have together."""
        most_rows = min(max(_BLOCK_ROWS, (dataset.chunks or (0,))[0]), _MOST_ROWS)
        n_bytes, start, n_rows = 0, 0, _FIRST_ROWS
        while start < dataset.shape[0]:
            block = dataset[start : start + n_rows].ravel()
            n_bytes += sum(len(text) for text in block if hasattr(text, "__len__"))
            if n_bytes > self.most_text:
                raise Refused(f"holds more text in {dataset.name} than there is in the file")
            self.beat()
            start, n_rows = start + n_rows, min(2 * n_rows, most_rows)
        return n_bytes


def _too_large(item: h5py.Group | h5py.Dataset) -> Refused:
    return Refused(f"holds values that take gigabytes when they are read ({item.name})")


def _check_chunks(dataset: h5py.Dataset) -> None:
    """Refuse chunks that are larger packed than they can be: they unpack to more than they state.

    The library unpacks a chunk whole before it looks how much of it there is, and gzip packs a
    thousand bytes into one.
    """
    n_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    most = 2 * n_bytes + _SLACK

    def look(chunk: h5py.h5d.StoreInfo) -> bool | None:
        return True if chunk.size > most else None  # anything but None ends it

    if dataset.id.chunk_iter(look):
        raise Refused(
            f"packs a chunk of {n_bytes:,} bytes into more than {most:,} ({dataset.name})"
        )


def _indexed(dataset: h5py.Dataset) -> bool:
    """Whether values lie in chunks or in the header, and not simply one behind another."""
    layout = dataset.id.get_create_plist().get_layout()
    return dataset.ndim == 0 or bool(layout != h5py.h5d.CONTIGUOUS)


def _touch_attributes(item: h5py.Group | h5py.Dataset) -> None:
    try:
        for name in item.attrs:
            item.attrs.get(name)
    except MemoryError as error:
        raise _too_large(item) from error
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
        print(json.dumps(answer(json.loads(line), print_beat)), flush=True)  # noqa: T201


def print_beat() -> None:
    """Say that there is progress."""
    print(flush=True)  # noqa: T201


def answer(path: str, beat: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Say of a file what was found, refused, or what is damaged."""
    try:
        return walk(path, beat)
    except Refused as error:
        return {"refused": str(error)}
    except Exception as error:  # what h5py raises shares no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {"damaged": lines[0]}


if __name__ == "__main__":
    main()
