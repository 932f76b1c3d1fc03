"""Zarr stores that nobody has to trust: looked through before anything is read from them.

A store is a folder of small files. It may name pickle as a codec, which runs code when read; links
and keys that lead out of the folder; and sizes in no relation to what is stored. Nearly all of
this stands in names and in metadata; of chunks the first bytes are read (`chunk_heads`).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sclinguist_core.data.readers.chunk_heads import METADATA, check_chunks, check_codecs
from sclinguist_core.errors import InputError
from sclinguist_core.reading import check_fits, plain_file, read_json, reading

_SPARSE = ("csr_matrix", "csc_matrix")
_STORED = frozenset(
    {
        "shape", "chunks", "chunk_grid", "dtype", "data_type", "codecs", "compressor", "filters",
    }
)  # fmt: skip
"""What metadata of an array say of how it is stored."""
_REMEDY = "write the store anew with current libraries"
_POINTER = 8
"""Bytes of an element whose size metadata do not tell, such as a text, in memory at least."""


def check_zarr(store: Path, *, whole: str = "", not_whole: Collection[str] = ()) -> None:
    """Look through a zarr store.

    Parameters
    ----------
    store
        Folder of the store.
    whole
        Beginning of the keys of the arrays that are going to be read whole, such as ``"tables/"``.
        Together they must fit into memory; of others a chunk must.
    not_whole
        Names at the root whose content will not be read whole all the same.

    Raises
    ------
    InputError
        If a file in it is no plain file, if a link or a key leads out of it, if an array is stored
        by pickle or packed by a codec whose result cannot be bounded, if chunks of a sparse matrix
        are missing, or if arrays are larger than memory.
    """
    arrays: dict[str, list[dict[str, Any]]] = {}
    # All files first: what is no plain file must not be taken for a chunk that is missing.
    for path in list(_metadata_files(store)):
        content = read_json(path, remedy=_REMEDY)
        if not isinstance(content, dict):
            raise _refused(path, f"holds {type(content).__name__} where an object is due")
        own = "" if path.parent == store else f"{path.parent.relative_to(store).as_posix()}/"
        for key, node in _nodes(content, own):
            _check_key(key, path)
            _check_codecs(node, path)
            check_codecs(node, path)
            stored = _stored(key, node, path)
            if not stored:
                continue
            # What consolidated metadata repeat counts once; where they differ, either may be read.
            known = arrays.setdefault(key.removesuffix(".zarray/"), [])
            if stored not in known:
                known.append(stored)
        _check_sparse(path.parent, content)
    n_bytes = largest = 0
    for key, nodes in arrays.items():
        sizes = [_sizes(node) for node in nodes]
        heads = [
            check_chunks(store / key, node, chunk)
            for node, (_, chunk) in zip(nodes, sizes, strict=True)
        ]
        largest = max(largest, *heads, *(chunk for _, chunk in sizes))
        if key.startswith(whole) and key.split("/")[0] not in not_whole:
            n_bytes += max(max(size) for size in sizes)
    check_fits(max(n_bytes, largest), store)


@contextmanager
def no_strangers() -> Iterator[None]:
    """Keep zarr from warning of files that are none of a store's, such as those of file browsers.

    What else is ignored within comes back afterwards, too.
    """
    told = ".*not recognized as a component of a Zarr hierarchy"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=told)
        yield


def _metadata_files(store: Path) -> Iterator[Path]:
    """Every metadata file of a store; refuses what is neither a plain file nor a folder."""
    root = Path(os.path.realpath(store))
    folders = [store]
    while folders:
        folder = folders.pop()
        with reading(folder, "a folder of a zarr store", remedy="check the rights to it"):
            entries = list(os.scandir(folder))
        for entry in entries:
            path = Path(entry.path)
            if entry.is_symlink():
                _check_link(path, root)
            elif entry.is_dir():
                folders.append(path)
            elif not entry.is_file():
                plain_file(path)  # which says what it is
            if entry.name in METADATA:
                yield path


def _check_link(path: Path, root: Path) -> None:
    """Let through links to files of the same store; a link to a folder may close a circle."""
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(root) or not target.is_file():
        raise InputError(
            f"'{path}' is a link to '{target}', expected plain files within the store: copy the "
            "store with what its links lead to (cp -rL)."
        )


def _nodes(content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Metadata of a node and, consolidated, of the nodes below it, each with its key and a "/"."""
    yield key, content
    consolidated = content.get("consolidated_metadata")
    below = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if below is None and "zarr_consolidated_format" in content:
        below = content.get("metadata")
    if isinstance(below, dict):
        for name, node in below.items():
            if isinstance(node, dict):
                yield f"{key}{name}/", node


def _stored(key: str, node: dict[str, Any], path: Path) -> dict[str, Any]:
    """Take of a node what it says of how an array is stored; nothing where it is no array."""
    name = key.rstrip("/").rpartition("/")[2] if path.name == ".zmetadata" else path.name
    # In the second format attributes are a node of their own, and those of a matrix have a shape.
    if name not in (".zarray", "zarr.json") or "shape" not in node:
        return {}
    return {key: value for key, value in node.items() if key in _STORED}


def _check_key(key: str, path: Path) -> None:
    parts = key.rstrip("/").split("/") if key else []
    # The last two lead out on Windows.
    if any(p in ("", ".", "..") or "\\" in p or (len(p) == 2 and p[1] == ":") for p in parts):
        raise _refused(path, f"has the key '{key}', which leads out of the store")


def _check_codecs(node: dict[str, Any], path: Path) -> None:
    """Refuse pickle under the names by which metadata call codecs, however deep in them."""
    waiting = [value for key, value in node.items() if key not in _NO_CODECS]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            names = [value.get(key) for key in ("id", "name")]
            if any(isinstance(name, str) and "pickle" in name.lower() for name in names):
                raise InputError(
                    f"'{path}' stores an array as a Python pickle, which could run any code when "
                    f"read; expected plain arrays: {_REMEDY}."
                )


_NO_CODECS = frozenset({"attributes", "consolidated_metadata", "metadata"})


def _check_sparse(folder: Path, content: dict[str, Any]) -> None:
    """Refuse a sparse matrix that lacks chunks, which zarr would take for zeros without a word.

    Of other arrays a chunk may be left out rightly, if it holds nothing but zeros. The values of a
    sparse matrix are none, nor are the columns that they stand in, if there are several.
    """
    attributes = content.get("attributes", content)
    if not isinstance(attributes, dict) or attributes.get("encoding-type") not in _SPARSE:
        return
    shape = attributes.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or 1 in shape:
        return
    for name in ("data", "indices"):
        array = folder / name
        found = [array / file for file in ("zarr.json", ".zarray") if (array / file).exists()]
        node = read_json(found[0], remedy=_REMEDY) if found else None
        n_values, n_chunk = _extent(node) if isinstance(node, dict) else (0, 0)
        n_expected = -(-n_values // n_chunk) if n_chunk else 0
        if n_values and (n_found := _n_chunks(array)) < n_expected:
            raise InputError(
                f"'{array}' has {n_found:,} of its {n_expected:,} chunks: the store is not "
                "complete; copy it again, or write it anew."
            )


def _n_chunks(array: Path) -> int:
    """Count the files that hold chunks of an array of one dimension."""
    folder = array / "c" if (array / "c").is_dir() else array
    return sum(entry.is_file() and entry.name.isdecimal() for entry in os.scandir(folder))


def _extent(node: dict[str, Any]) -> tuple[int, int]:
    """Values of an array, and of one of its chunks; 0 where metadata do not tell."""
    grid = node.get("chunk_grid")
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    chunks = configuration.get("chunk_shape") if isinstance(configuration, dict) else None
    return (
        _n_values(node.get("shape")),
        _n_values(chunks if chunks is not None else node.get("chunks")),
    )


def _sizes(node: dict[str, Any]) -> tuple[int, int]:
    """Bytes of a whole array and of one chunk; 0 for a group, and where metadata do not tell."""
    itemsize = _itemsize(node.get("dtype", node.get("data_type")))
    n_values, n_chunk = _extent(node)
    return n_values * itemsize, n_chunk * itemsize


def _n_values(shape: Any) -> int:
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    return math.prod(shape) if whole and shape else 0


def _itemsize(dtype: Any) -> int:
    if isinstance(dtype, dict):  # a type with settings, such as text of a fixed length
        configuration = dtype.get("configuration")
        length = configuration.get("length_bytes") if isinstance(configuration, dict) else None
        return length if type(length) is int and length > 0 else _POINTER
    try:
        return max(np.dtype(dtype).itemsize, 1) if isinstance(dtype, str) else _POINTER
    except (TypeError, ValueError, SyntaxError):  # numpy reads types as Python does
        return _POINTER


def _refused(path: Path, found: str) -> InputError:
    return InputError(f"'{path}' {found}, expected metadata of zarr: {_REMEDY}.")
