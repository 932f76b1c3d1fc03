"""All damaged and hostile inputs."""

from __future__ import annotations

from faults import (
    bombs,
    checkpoints,
    damage,
    hostile,
    links,
    pipes,
    places,
    rights,
    sizes,
    values,
    visium,
)
from faults.fault import Fault

_MODULES = (
    damage, values, visium, links, pipes, bombs, sizes, hostile, checkpoints, places, rights,
)  # fmt: skip
CORPUS: list[Fault] = [fault for module in _MODULES for fault in module.FAULTS]
