"""Files of tensors (safetensors), which may come from anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.reading import check_fits, plain_file, reading

if TYPE_CHECKING:
    from torch import Tensor

_KIND, _REMEDY = "safetensors", "install or train the checkpoint again"
_BYTES = 4
"""Of a value in memory: everything becomes float32."""


def stated_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a file; no value is read.

    Raises
    ------
    InputError
        If the file is damaged, or none, or if its tensors are larger than memory.
    """
    from safetensors import safe_open

    plain_file(path)
    with reading(path, _KIND, remedy=_REMEDY), safe_open(path, framework="numpy") as file:
        names = file.keys()
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    check_fits(_BYTES * sum(map(math.prod, shapes.values())), path)
    return shapes


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file, without PyTorch.

    Raises
    ------
    InputError
        If it is damaged, or none.
    """
    from safetensors.numpy import load_file

    stated_shapes(path)
    with reading(path, _KIND, remedy=_REMEDY):
        return load_file(path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a network as float32.

    Raises
    ------
    InputError
        If the file is damaged, or none, or if a weight is not finite.
    """
    from safetensors.torch import load_file

    stated_shapes(path)
    with reading(path, _KIND, remedy=_REMEDY):
        stored = load_file(path)
    weights = {}
    for name, values in stored.items():
        if values.is_complex():
            raise _unusable(path, name, "complex numbers")
        weights[name] = values.float()
        # NaN is the least and the largest of everything; no memory for one answer a value.
        if values.numel() and not all(end.isfinite() for end in weights[name].aminmax()):
            raise _unusable(path, name, "values that are NaN or infinite")
    return weights


@contextmanager
def writing_tensors() -> Iterator[None]:
    """Raise what the safetensors library says of a disk that takes no more as an `OSError`."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _unusable(path: Path, name: str, found: str) -> InputError:
    return InputError(f"{path}: {name!r} holds {found}, expected finite weights; {_REMEDY}.")
