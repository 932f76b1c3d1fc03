"""Arrays that stand beside a checkpoint's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sclinguist_core.errors import InputError


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file, without PyTorch.

    Raises
    ------
    InputError
        If it is damaged, or none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: expected safetensors, found a damaged or foreign file ({error}); install or "
            "train the checkpoint again"
        ) from error
