"""Tensors out of a PyTorch checkpoint whose pickle is not executed.

The layout is that of ``torch.save`` since 1.6: a zip archive with ``<name>/data.pkl`` and one
uncompressed member ``<name>/data/<key>`` a storage. For the pickle see `restricted_pickle`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sclinguist_core.errors import InputError
from sclinguist_core.model.restricted_pickle import TensorRecord, read_pickle

if TYPE_CHECKING:
    from torch import Tensor

MAX_PROGRAM_BYTES = 64 * 2**20
"""The pickle of a checkpoint holds names and shapes; a longer one is no checkpoint."""
_PART_BYTES = 2**22
_DAMAGED = (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, OverflowError)
"""What `zipfile` raises, from names that are no UTF-8 to versions and places that cannot be."""


class TensorArchive:
    """A ``torch.save`` file, open for reading; use it as a context manager.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    content
        What was saved: plain values, with `TensorRecord` for tensors and `Foreign` for the rest.
    names
        Full names of everything that loading it with ``torch.load`` would have imported.

    Raises
    ------
    InputError
        If the file is not such an archive, or holds what no checkpoint needs.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.names: set[str] = set()
        try:
            self._zip = zipfile.ZipFile(self.path)
            self._n_bytes = self.path.stat().st_size
        except _DAMAGED as error:
            raise self._refused(f"none ({error})") from error
        try:
            self.content = self._read_program()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> TensorArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _refused(self, found: str) -> InputError:
        return InputError(
            f"{self.path}: expected a PyTorch checkpoint (a zip archive of torch.save), found "
            f"{found}; download it again, or save it anew with a current PyTorch."
        )

    def _read_program(self) -> Any:
        programs = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise self._refused(f"{len(programs)} data.pkl in it")
        self._root = programs[0].removesuffix("data.pkl")
        if f"{self._root}byteorder" in self._zip.namelist():
            order = self._member(f"{self._root}byteorder", 16)
            if order != b"little":
                raise self._refused(f"the byte order {order!r}")
        program = self._member(programs[0], MAX_PROGRAM_BYTES)
        try:
            return read_pickle(bytes(program), self.names)
        except ValueError as error:
            raise self._refused(f"in its data.pkl {error}") from error

    def _info(self, name: str, largest: int) -> zipfile.ZipInfo:
        """Find an uncompressed member; a compressed one could unfold to any size."""
        try:
            info = self._zip.getinfo(name)
        except KeyError as error:
            raise self._refused(f"{name} missing") from error
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > largest:
            raise self._refused(f"{name} compressed, or longer than {largest} bytes")
        if info.file_size > self._n_bytes:
            raise self._refused(f"{name} said to be longer than the file")
        return info

    def _member(self, name: str, largest: int) -> bytearray:
        """Bytes of an uncompressed member, checksum checked, without a second copy of them."""
        info = self._info(name, largest)
        try:
            buffer = bytearray(info.file_size)
            view, start = memoryview(buffer), 0
            with self._zip.open(info) as member:
                while part := member.read(min(_PART_BYTES, info.file_size - start)):
                    view[start : start + len(part)] = part
                    start += len(part)
        except _DAMAGED as error:
            raise self._refused(f"{name} damaged ({error})") from error
        if start != info.file_size:
            raise self._refused(f"{start} bytes in {name} (expected {info.file_size})")
        return buffer

    def tensor(self, record: TensorRecord) -> Tensor:
        """Read the numbers of a tensor; they are its own, in contiguous order."""
        import torch

        storage = record.storage
        n_bytes = storage.size * storage.itemsize
        name = f"{self._root}data/{storage.key}"
        found = self._info(name, n_bytes).file_size
        if found != n_bytes:
            raise self._refused(f"{found} bytes in data/{storage.key} (expected {n_bytes})")
        dtype = getattr(torch, storage.dtype)
        if not n_bytes:
            return torch.empty(record.shape, dtype=dtype)
        flat = torch.frombuffer(self._member(name, n_bytes), dtype=dtype)
        return flat.as_strided(record.shape, record.stride, record.offset).contiguous()


class ArchivedWeights(Mapping[str, "Tensor"]):
    """Weights of a checkpoint, each read when it is looked up.

    Parameters
    ----------
    archive
        Of a Lightning checkpoint (``.ckpt``), or of a plain ``torch.save`` of weights; it must stay
        open.

    Raises
    ------
    InputError
        If it has no weights.
    """

    def __init__(self, archive: TensorArchive) -> None:
        content = archive.content
        weights = content.get("state_dict", content) if isinstance(content, dict) else None
        if not isinstance(weights, dict):
            raise InputError(f"{archive.path}: expected a dict with weights, found none.")
        self._archive = archive
        self.records: dict[str, TensorRecord] = {
            name: value
            for name, value in weights.items()
            if isinstance(name, str) and isinstance(value, TensorRecord)
        }
        if not self.records:
            raise InputError(
                f"{archive.path}: expected weights under 'state_dict', found no tensor; give a "
                "checkpoint that a trainer has written."
            )

    def __getitem__(self, name: str) -> Tensor:
        return self._archive.tensor(self.records[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


def read_lightning_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Weights of a Lightning checkpoint (``.ckpt``), or of a plain ``torch.save`` of weights.

    The pickle is not executed. Optimiser states and hyper-parameters are not read.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        If the file is no checkpoint, or has no weights.
    """
    with TensorArchive(path) as archive:
        return dict(ArchivedWeights(archive))
