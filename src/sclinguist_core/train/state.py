"""Training state on disk: one safetensors file, no pickle, whole or not there.

Lightning's own checkpoints are pickles, which can run code when they are read. This plugin writes
the same nested state as tensors (safetensors) and everything else as JSON in the header of the same
file, so that one rename makes it whole. What is neither tensor nor plain value is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.plugins.io import CheckpointIO
from torch import Tensor

from sclinguist_core.errors import InputError
from sclinguist_core.files import replacing
from sclinguist_core.model.tensor_file import writing_tensors
from sclinguist_core.reading import plain_file, reading

_KIND, _REMEDY = "training state (safetensors)", "delete it and train from the start"
_KEY = "state"
_TENSOR, _TUPLE, _PAIRS = "__tensor__", "__tuple__", "__pairs__"


def encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Turn nested state into what JSON holds; tensors go to `tensors` under running numbers.

    Floats survive bit for bit: JSON holds their shortest exact decimal form.

    Raises
    ------
    TypeError
        For anything that is not a tensor, mapping, list, tuple, text, number, truth value or None.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    # By exact type: numpy's float64 is a float, and numpy's own repr is not JSON.
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return encode(value.item(), tensors)
    if isinstance(value, Mapping):
        if all(type(key) is str and not key.startswith("__") for key in value):
            return {key: encode(item, tensors) for key, item in value.items()}
        return {_PAIRS: [[encode(k, tensors), encode(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list):
        return [encode(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {_TUPLE: [encode(item, tensors) for item in value]}
    raise TypeError(f"training state: cannot store {type(value).__name__} without a pickle")


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Reverse `encode`."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(decode(item, tensors) for item in value[_TUPLE])
    if _PAIRS in value:
        return {decode(k, tensors): decode(v, tensors) for k, v in value[_PAIRS]}
    return {key: decode(item, tensors) for key, item in value.items()}


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write nested state; an interrupt, even SIGKILL, leaves the older file as it was.

    Raises
    ------
    OSError
        If the disk does not take it.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    text = json.dumps(encode(state, tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, writing_tensors():
        save_file(tensors, temporary, metadata={_KEY: text})


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Raises
    ------
    InputError
        If the file is missing, may not be read, is damaged, or of another kind (a pickle, for
        one).
    """
    from safetensors import safe_open

    plain_file(path)
    with reading(path, _KIND, remedy=_REMEDY):
        with safe_open(path, framework="pt") as file:
            text = file.metadata()[_KEY]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = decode(json.loads(text), tensors)
    if not isinstance(state, dict):
        raise InputError(f"'{path}' holds a {type(state).__name__}, expected {_KIND}: {_REMEDY}.")
    return state


def state_step(path: Path) -> int:
    """Read how many steps a saved state has done, without reading its tensors.

    Raises
    ------
    InputError
        If the file is not training state of this package, or may not be read.
    """
    from safetensors import safe_open

    plain_file(path)
    with (
        reading(path, _KIND, remedy=_REMEDY),
        safe_open(path, framework="pt") as file,
    ):
        return int(json.loads(file.metadata()[_KEY])["sclinguist"]["step"])


class SafeCheckpointIO(CheckpointIO):
    """Lightning plugin: checkpoints as safetensors and JSON, never a pickle."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; `storage_options` are not supported."""
        if storage_options is not None:
            raise TypeError("storage_options are not supported")
        write_state(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU."""
        return read_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint if it is there."""
        Path(path).unlink(missing_ok=True)
