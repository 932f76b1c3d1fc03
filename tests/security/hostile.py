"""What executes something as soon as it is unpickled, and ways to look whether it was."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path


class Trap:
    """Makes a folder when it is unpickled.

    Parameters
    ----------
    mark
        That folder.
    """

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def program(mark: Path) -> bytes:
    """A pickle that makes the folder `mark`."""
    return pickle.dumps(Trap(mark))


def torch_file(mark: Path) -> bytes:
    """The same, as ``torch.save`` packs it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", program(mark))
        archive.writestr("archive/version", "3\n")
    return packed.getvalue()
