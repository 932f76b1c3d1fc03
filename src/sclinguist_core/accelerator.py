"""NVIDIA cards, and whether the installed PyTorch can use them; found without importing PyTorch.

The window asks this when it opens: importing PyTorch takes seconds and holds up the window.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

INSTALL_CUDA_TORCH = (
    "install a CUDA build of PyTorch (pytorch.org/get-started) to predict on the card"
)
_CUDA_BUILD = re.compile(r"^cuda(?:\s*:[^=]*)?\s*=\s*['\"]([\d.]+)['\"]", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """An NVIDIA card.

    Attributes
    ----------
    name
        Of the card.
    driver
        Version of its driver.
    free, total
        Memory in MiB.
    """

    name: str
    driver: str
    free: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """What prediction can run on.

    Attributes
    ----------
    cards
        NVIDIA cards of this machine.
    torch_cuda
        CUDA version that PyTorch was built for; "" for a build without CUDA.
    """

    cards: tuple[Card, ...]
    torch_cuda: str

    @property
    def usable(self) -> bool:
        """Whether PyTorch is built for the cards that are there."""
        return bool(self.cards and self.torch_cuda)

    @property
    def remedy(self) -> str:
        """What to do about a card that PyTorch cannot use; "" where all is well."""
        if self.cards and not self.torch_cuda:
            return (
                f"This computer has an {self.cards[0].name}, but the installed PyTorch is built "
                f"without CUDA: {INSTALL_CUDA_TORCH}."
            )
        return ""


def find_accelerator() -> Accelerator:
    """Look for cards and for the build of PyTorch; takes a fraction of a second."""
    return Accelerator(cards=nvidia_cards(), torch_cuda=torch_cuda_build())


def nvidia_cards() -> tuple[Card, ...]:
    """Ask nvidia-smi for the cards; none where it is missing, silent or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = "--query-gpu=name,driver_version,memory.free,memory.total"
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command line
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            # On Windows a program without a window of its own would open a console.
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return read_cards(answer.stdout) if answer.returncode == 0 else ()


def read_cards(listing: str) -> tuple[Card, ...]:
    """Read the lines of nvidia-smi: name, driver, free and total memory in MiB."""
    cards = []
    for line in listing.splitlines():
        fields = [field.strip() for field in line.rsplit(",", 3)]
        if len(fields) == 4 and fields[0]:
            free, total = (int(field) if field.isdecimal() else 0 for field in fields[2:])
            cards.append(Card(name=fields[0], driver=fields[1], free=free, total=total))
    return tuple(cards)


def torch_cuda_build() -> str:
    """CUDA version that the installed PyTorch was built for, "" for none, from its version file."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    try:
        text = Path(found.origin).with_name("version.py").read_text("utf-8")
    except OSError:
        return ""
    match = _CUDA_BUILD.search(text)
    return match.group(1) if match else ""
