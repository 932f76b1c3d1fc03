"""Keep pickles out: a zarr store may name pickle as a codec, which runs code when read."""

from __future__ import annotations

import os
from pathlib import Path

from sclinguist_core.errors import InputError

_METADATA = frozenset({".zarray", ".zmetadata", "zarr.json"})


def refuse_pickles(store: Path) -> None:
    """Refuse a zarr store in which any array is stored through pickle.

    Parameters
    ----------
    store
        Folder of the store; all metadata files in it are read, no chunk is.

    Raises
    ------
    InputError
        If a metadata file names the codec.
    """
    for folder, _, files in os.walk(store):
        for name in _METADATA.intersection(files):
            path = Path(folder) / name
            if b"pickle" in path.read_bytes().lower():
                raise InputError(
                    f"'{path}' stores an array as a Python pickle, which could run any code when "
                    "read; expected plain arrays: write the store anew with current libraries."
                )
