"""Which model runs where: chosen in the Predict tab, used by everything that runs a model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sclinguist_core.accelerator import Accelerator

BUNDLED = "bundled"


@dataclass(kw_only=True, slots=True)
class ModelChoice:
    """Model, device and batch size of a window.

    Attributes
    ----------
    model
        ``"bundled"`` or the folder of a checkpoint.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda:<number>"``; see `chosen_device`.
    batch_size
        Most rows in a batch; None for the device's own.
    accelerator
        Graphics cards that were found; None before anybody has looked.
    """

    model: str = BUNDLED
    device: str = "auto"
    batch_size: int | None = None
    accelerator: Accelerator | None = None

    def devices(self) -> list[tuple[str, str]]:
        """Devices on offer: value and what people read; the one used by default first."""
        cpu = f"CPU ({os.cpu_count()} cores)"
        cards = self.accelerator.cards if self.accelerator and self.accelerator.usable else ()
        offers = [
            (f"cuda:{i}", f"{card.name}, {card.free / 1024:.0f} of {card.total / 1024:.0f} GB free")
            for i, card in enumerate(cards)
        ]
        return [*offers, ("cpu", cpu)]

    @property
    def chosen_device(self) -> str:
        """The device that a run would use."""
        offered = [value for value, _ in self.devices()]
        return self.device if self.device in offered else offered[0]
