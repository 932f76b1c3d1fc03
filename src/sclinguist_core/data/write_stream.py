"""A table that is written part by part, for tables that are larger than memory.

The input's own data are copied as they lie on disk, chunk by chunk, without being understood; what
is added has the encodings that anndata writes, so that readers cannot tell it from a table that was
written whole.

Shapes: n cells or spots, P proteins.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sclinguist_core.data.backed import BackedTable
from sclinguist_core.data.hdf5_output import new_hdf5
from sclinguist_core.data.write import zarr_as_we_write
from sclinguist_core.files import sync

CHUNK_ROWS = 2**18
"""Values of a column in one chunk of a zarr store: 1 MB, so that files stay few."""
_BLOCK_VALUES = 2**22
_WIDE = 2_000
"""Columns whose names take more than an ordinary attribute of HDF5 may."""
_FRAME = {"encoding-type": "dataframe", "encoding-version": "0.2.0"}
_ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
_MAPPING = {"encoding-type": "dict", "encoding-version": "0.1.0"}


class PartWriter:
    """A new AnnData file with the data of another one, to which columns are added.

    Parameters
    ----------
    source
        The file to copy from.
    path
        ``.h5ad`` file or ``.zarr`` folder to make.
    leave_out
        What not to copy: ``"X"``, ``"layers"``, ``"obsm/NAME"``, ``"obs/NAME"`` and the like.

    Raises
    ------
    OSError
        If it cannot be written.
    """

    def __init__(self, source: BackedTable, path: Path, leave_out: Collection[str] = ()) -> None:
        self.path = path
        self.n_rows = source.n_obs
        self._closing = ExitStack()
        if path.suffix.lower() == ".zarr":
            import zarr

            # A store keeps its format, so that its chunks can be copied as they are.
            zarr_format: Any = getattr(getattr(source.group, "metadata", None), "zarr_format", 3)
            self.group: Any = zarr.open_group(path, mode="w-", zarr_format=zarr_format)
        else:
            self.group = self._closing.enter_context(new_hdf5(path))
        try:
            _copy_attributes(source.group, self.group)
            for name in sorted(map(str, source.group.keys())):
                self._copy(source, name, leave_out)
            for name in ("obsm", "uns"):
                if name not in self.group:
                    _set_attributes(self.group.create_group(name), _MAPPING)
        except BaseException:
            self.close()
            raise

    def _copy(self, source: BackedTable, name: str, leave_out: Collection[str]) -> None:
        if name in leave_out:
            return
        inside = {key.partition("/")[2] for key in leave_out if key.startswith(f"{name}/")}
        if not inside:
            copy_node(source.group, self.group, name)
            return
        old, new = source.group[name], self.group.create_group(name)
        _copy_attributes(old, new)
        for child in sorted(map(str, old.keys())):
            if child not in inside:
                copy_node(old, new, child)
        if "column-order" in old.attrs:
            columns = [str(column) for column in old.attrs["column-order"]]
            kept = [column for column in columns if column not in inside]
            _set_attributes(new, {"column-order": kept})

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file.

        Raises
        ------
        OSError
            If some of it could not be written.
        """
        self._closing.close()

    def add_frame(self, key: str, names: Sequence[str]) -> list[Any]:
        """Add a DataFrame of float32 columns to ``obsm``.

        Returns
        -------
        P arrays of shape (n,) to write rows into.
        """
        # HDF5 keeps few attributes, and long ones, only where their order is kept, too.
        wide = {} if _is_zarr(self.group) or len(names) <= _WIDE else {"track_order": True}
        frame = self.group["obsm"].create_group(key, **wide)
        obs = self.group["obs"]
        index = str(obs.attrs["_index"])
        _set_attributes(frame, {"_index": index, "column-order": list(names), **_FRAME})
        copy_node(obs, frame, index)
        return self._new_columns(frame, names)

    def add_obs(self, name: str) -> Any:
        """Add a float32 column to ``obs``; returns an array of shape (n,) to write rows into."""
        obs = self.group["obs"]
        columns = [str(column) for column in obs.attrs["column-order"]]
        _set_attributes(obs, {"column-order": [*columns, name]})
        return self._new_columns(obs, [name])[0]

    def _new_columns(self, group: Any, names: Sequence[str]) -> list[Any]:
        if _is_zarr(group):
            return _zarr_columns(group, names, self.n_rows)
        columns = []
        for name in names:
            columns.append(group.create_dataset(name, shape=(self.n_rows,), dtype=np.float32))
            _set_attributes(columns[-1], _ARRAY)
        return columns

    def add_uns(self, key: str, value: Any) -> None:
        """Add an element to ``uns``."""
        from anndata.io import write_elem

        uns = self.group["uns"]
        if not (_is_zarr(uns) and isinstance(value, dict)):
            with zarr_as_we_write():
                write_elem(uns, key, value)
            return
        many = {name: part for name, part in value.items() if _are_alike(part)}
        with zarr_as_we_write():
            write_elem(uns, key, {name: part for name, part in value.items() if name not in many})
        for name, part in many.items():
            group = uns[key].create_group(name, attributes=_MAPPING)
            _add_zarr_scalars(group, part)

    def finish(self) -> None:
        """Close the file when all was added, and bring it to the disk."""
        self.close()
        if _is_zarr(self.group):
            import zarr

            with zarr_as_we_write():
                zarr.consolidate_metadata(str(self.path))
        sync(self.path)


class _ZarrColumn:
    """A float32 array of a zarr store whose chunks are written as files, not compressed.

    Digits of float32 hardly compress, and a frame has hundreds of columns: through the library each
    of them takes milliseconds to make, and again for each chunk.
    """

    def __init__(self, folder: Path, n_rows: int, chunk_rows: int) -> None:
        self._folder = folder
        self._n_rows = n_rows
        self._chunk_rows = chunk_rows

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        """Write whole chunks: the rows begin with one, and end with one or with the array."""
        start, stop, _ = rows.indices(self._n_rows)
        size = self._chunk_rows
        assert start % size == 0
        assert stop % size == 0 or stop == self._n_rows
        for first in range(start, stop, size):
            chunk = np.zeros(size, "<f4")
            part = values[first - start : first - start + size]
            chunk[: len(part)] = part
            chunk.tofile(self._folder / str(first // size))


def _zarr_columns(group: Any, names: Sequence[str], n_rows: int) -> list[_ZarrColumn]:
    """Make float32 columns."""
    chunk_rows = min(max(n_rows, 1), CHUNK_ROWS)
    folders = _zarr_arrays(
        group, names, shape=(n_rows,), dtype="<f4", chunks=(chunk_rows,), attributes=_ARRAY
    )
    is_v3 = group.metadata.zarr_format == 3
    columns = []
    for folder in folders:
        chunks = folder / "c" if is_v3 else folder
        chunks.mkdir(exist_ok=True)
        columns.append(_ZarrColumn(chunks, n_rows, chunk_rows))
    return columns


def _are_alike(value: Any) -> bool:
    """Whether a value is a dict of texts, or of numbers, one for each of many proteins."""
    return (
        isinstance(value, dict)
        and len(value) > 1
        and {type(one) for one in value.values()} in ({str}, {float})
        and not any("/" in str(name) for name in value)
    )


def _add_zarr_scalars(group: Any, values: dict[str, Any]) -> None:
    """Write scalars, all texts or all numbers, as anndata does one by one."""
    from numcodecs import VLenUTF8

    is_text = isinstance(next(iter(values.values())), str)
    encoding = "string" if is_text else "numeric-scalar"
    folders = _zarr_arrays(
        group,
        list(values),
        shape=(),
        dtype=str if is_text else "<f8",
        attributes={"encoding-type": encoding, "encoding-version": "0.2.0"},
    )
    chunk = "c" if group.metadata.zarr_format == 3 else "0"
    for folder, value in zip(folders, values.values(), strict=True):
        content: Any = np.array([value], object if is_text else "<f8")
        (folder / chunk).write_bytes(bytes(VLenUTF8().encode(content) if is_text else content.data))


def _zarr_arrays(group: Any, names: Sequence[str], **options: Any) -> list[Path]:
    """Make arrays that differ in nothing but their names and values; returns their folders."""
    template: Path | None = None
    folders = [_folder(group) / name for name in names]
    for name, folder in zip(names, folders, strict=True):
        if template is None:
            group.create_array(name, compressors=None, **options)
            template = folder
        else:
            shutil.copytree(template, folder)
    return folders


def copy_node(source: Any, target: Any, name: str) -> None:
    """Copy an array, or a group with everything in it, from one file into another.

    Parameters
    ----------
    source, target
        Groups, each of an ``.h5ad`` or of a zarr store.
    name
        Of the array or group.
    """
    if not _is_zarr(source) and not _is_zarr(target):
        source.copy(source[name], target, name)
    elif _is_zarr(source) and _is_zarr(target):
        # Not by hard links: who changes one of the two stores would change both.
        new = _folder(target) / name
        shutil.copytree(_folder(source) / name, new, copy_function=shutil.copyfile)
    else:
        _convert(source, target, name)


def _convert(source: Any, target: Any, name: str) -> None:
    """Copy between HDF5 and zarr: the layout is the same, the way of storing is not."""
    from anndata.io import read_elem, write_elem

    node = source[name]
    if not hasattr(node, "shape"):
        group = target.create_group(name)
        _copy_attributes(node, group)
        for child in sorted(map(str, node.keys())):
            _convert(node, group, child)
        return
    is_text = node.attrs.get("encoding-type") == "string-array" and node.ndim == 1
    if node.ndim == 0 or not (is_text or node.dtype.kind in "biuf"):
        with zarr_as_we_write():
            write_elem(target, name, read_elem(node))
        return
    row_values = max(int(np.prod(node.shape[1:])), 1)
    n_rows = max(1, _BLOCK_VALUES // row_values)
    if _is_zarr(target):
        chunks = (max(1, min(node.shape[0], n_rows // 16)), *node.shape[1:])
        made = target.create_array(
            name, shape=node.shape, dtype=str if is_text else node.dtype, chunks=chunks
        )
    else:
        import h5py

        made = target.create_dataset(
            name, shape=node.shape, dtype=h5py.string_dtype() if is_text else node.dtype
        )
    _copy_attributes(node, made)
    for start in range(0, node.shape[0], n_rows):
        rows = slice(start, start + n_rows)
        if is_text:
            text = node[rows] if _is_zarr(source) else node.asstr()[rows]
            text = np.asarray(text).astype(object)
            made[rows] = text if not _is_zarr(target) else text.astype(np.dtypes.StringDType())
        else:
            made[rows] = node[rows]


def _is_zarr(group: Any) -> bool:
    return type(group).__module__.partition(".")[0] == "zarr"


def _folder(group: Any) -> Path:
    return Path(group.store.root) / group.path


def _copy_attributes(source: Any, target: Any) -> None:
    _set_attributes(target, dict(source.attrs))


def _set_attributes(target: Any, attributes: dict[str, Any]) -> None:
    """Set attributes, as JSON for zarr and as arrays for HDF5."""
    if _is_zarr(target):
        plain = {
            key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
            for key, value in attributes.items()
        }
        target.attrs.update(plain)
        return
    import h5py

    for key, value in attributes.items():
        if isinstance(value, list | np.ndarray) and all(isinstance(one, str) for one in value):
            target.attrs.create(key, np.array(value, dtype=object), dtype=h5py.string_dtype())
        else:
            target.attrs[key] = value
