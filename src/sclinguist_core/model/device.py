"""Where to compute: chosen in one place, with the reason."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

CPU_TOKENS = 131_072
"""Tokens in a batch on a processor: enough cells to keep the overhead of operations small."""
CPU_GRADIENT_TOKENS = 24_576
"""The same where gradients are wanted, which keep every step in memory."""
CPU_CACHED_TOKENS = 8_192
"""Tokens whose keys and values are made at a time on a processor: they then stay in its cache."""
CPU_CACHED_QUERIES = 4_096
"""Protein queries of cells that are answered at a time on a processor, for the same reason."""
CUDA_TOKENS = 2_097_152
CUDA_STREAMS = 3
"""Batches under way on a card: one is computed, one copied to it, and one written down."""
CPU_BATCH = 64
CUDA_BATCH = 2_048


def choose_device(device: str = "auto") -> torch.device:
    """Pick the device: ``"auto"`` takes CUDA where there is one.

    Parameters
    ----------
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.

    Raises
    ------
    InputError
        If CUDA is asked for and not there, or the name is unknown.
    """
    import torch

    if device == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
        reason = "CUDA was found" if chosen == "cuda" else "no CUDA device was found"
        logger.info("device: %s (%s)", chosen, reason)
        return torch.device(chosen)
    name, _, number = device.partition(":")
    if name not in {"cpu", "cuda"} or (number and not number.isdecimal()):
        raise InputError(f"device {device!r}: expected auto, cpu, cuda or cuda:<number>.")
    if name == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= n_devices:
            raise InputError(
                f"device {device!r}: found {n_devices} CUDA devices; use --device cpu, or see "
                "`sclinguist doctor`."
            )
    logger.info("device: %s (asked for)", device)
    return torch.device(device)


def device_label(device: torch.device) -> str:
    """Name for people: the card's name, or the number of threads."""
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
