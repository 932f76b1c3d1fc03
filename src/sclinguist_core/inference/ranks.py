"""Which share of the work a process has when several were started together.

``torchrun`` and SLURM's ``srun`` tell each process its number by environment variables. Nothing
else is needed of them: processes meet in files that they share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sclinguist_core.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """A process among those that were started together.

    Attributes
    ----------
    index, count
        Its number, from 0, and how many there are.
    local, local_count
        The same on its own machine.
    """

    index: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1


def find_rank(environment: Mapping[str, str] | None = None) -> Rank:
    """Read the process's number from the environment; one alone is number 0 of 1.

    Parameters
    ----------
    environment
        By default that of the process: of ``torchrun``, ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``
        and ``LOCAL_WORLD_SIZE``; of ``srun``, ``SLURM_PROCID``, ``SLURM_NTASKS`` and
        ``SLURM_LOCALID``. A batch script that does not use ``srun`` is one process, however many
        tasks it was given.

    Raises
    ------
    InputError
        If the numbers make no sense.
    """
    values = os.environ if environment is None else environment
    if "RANK" in values and "WORLD_SIZE" in values:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    elif "SLURM_PROCID" in values and "SLURM_STEP_ID" in values:
        count = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in values else "SLURM_NTASKS"
        names = ("SLURM_PROCID", count, "SLURM_LOCALID", "")
    else:
        return Rank()
    index, count_, local = (_number(values, name, default) for name, default in zip(
        names[:3], (0, 1, 0), strict=True
    ))  # fmt: skip
    local_count = _number(values, names[3], 1) if names[3] else _slurm_local_count(values, count_)
    if not 0 <= index < count_:
        raise InputError(
            f"{names[0]}={index} and {names[1]}={count_}: expected a number from 0 to "
            f"{count_ - 1}; start the processes with torchrun or srun."
        )
    return Rank(index=index, count=count_, local=local, local_count=max(local_count, 1))


def _number(values: Mapping[str, str], name: str, default: int) -> int:
    text = values.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"{name}={text!r}: expected a whole number, as torchrun and srun set it.")
    return int(text)


def _slurm_local_count(values: Mapping[str, str], count: int) -> int:
    """Tasks on this machine: ``SLURM_STEP_TASKS_PER_NODE`` is like ``4(x2),3``."""
    first = values.get("SLURM_STEP_TASKS_PER_NODE", "").partition(",")[0].partition("(")[0]
    return int(first) if first.isdecimal() else count


def device_of(rank: Rank, device: str) -> str:
    """Name the device of a process: of several on one machine, each has a card of its own."""
    if rank.count == 1 or device not in {"auto", "cuda"}:
        return device
    import torch

    if not torch.cuda.is_available():
        return device
    return f"cuda:{rank.local % torch.cuda.device_count()}"


def share_threads(rank: Rank) -> None:
    """Divide the processor's cores between the processes of a machine."""
    if rank.local_count == 1:
        return
    import torch

    own = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if own.isdecimal():
        torch.set_num_threads(max(1, int(own)))
        return
    try:
        n_cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows cannot say which cores are ours
        n_cores = os.cpu_count() or 1
    torch.set_num_threads(max(1, n_cores // rank.local_count))
