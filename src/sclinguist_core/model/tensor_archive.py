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

    Raises
    ------
    InputError
        If the file is not such an archive, or holds what no checkpoint needs.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
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
            return read_pickle(program)
        except ValueError as error:
            raise self._refused(f"in its data.pkl {error}") from error

    def _member(self, name: str, largest: int) -> bytes:
        """Bytes of an uncompressed member; a compressed one could unfold to any size."""
        try:
            info = self._zip.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > largest:
                raise self._refused(f"{name} compressed, or longer than {largest} bytes")
            return self._zip.read(info)
        except (KeyError, OSError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
            raise self._refused(f"{name} missing or damaged ({error})") from error

    def tensor(self, record: TensorRecord) -> Tensor:
        """Read the numbers of a tensor; they are its own, in contiguous order."""
        import torch

        storage = record.storage
        n_bytes = storage.size * storage.itemsize
        raw = self._member(f"{self._root}data/{storage.key}", n_bytes)
        if len(raw) != n_bytes:
            raise self._refused(f"{len(raw)} bytes in data/{storage.key} (expected {n_bytes})")
        dtype = getattr(torch, storage.dtype)
        if not raw:
            return torch.empty(record.shape, dtype=dtype)
        flat = torch.frombuffer(bytearray(raw), dtype=dtype)
        return flat.as_strided(record.shape, record.stride, record.offset).contiguous()

    def tensors(self, values: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """Read the tensors among the values of a dict, one at a time."""
        for name, value in values.items():
            if isinstance(value, TensorRecord):
                yield name, self.tensor(value)


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
        content = archive.content
        weights = content.get("state_dict", content) if isinstance(content, dict) else None
        if not isinstance(weights, dict):
            raise InputError(f"{path}: expected a dict with weights, found none.")
        tensors = dict(archive.tensors(weights))
    if not tensors:
        raise InputError(
            f"{path}: expected weights under 'state_dict', found no tensor; give a checkpoint "
            "that a trainer has written."
        )
    return tensors
