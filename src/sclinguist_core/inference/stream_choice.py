"""Whether a table is predicted in memory or streamed from the disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sclinguist_core.data.backed import BackedTable
from sclinguist_core.data.readers.locate import locate
from sclinguist_core.errors import InputError
from sclinguist_core.inference.predict import BYTES_PER_VALUE
from sclinguist_core.inference.ranks import find_rank
from sclinguist_core.inference.stream import STREAMED

STREAM_ROWS = 50_000
"""Tables of more rows are streamed by themselves: that takes as long, and can be resumed."""
_USUAL_PROTEINS = 300


def streams(
    source: Path,
    wish: bool | None,
    *,
    whole: Sequence[str] = (),
    n_proteins: int = _USUAL_PROTEINS,
) -> bool:
    """Decide whether an input is streamed.

    Parameters
    ----------
    source
        What is to be predicted.
    wish
        What the user asked for; None to decide here.
    whole
        Options given that need all rows in memory.
    n_proteins
        About how many proteins are predicted.

    Raises
    ------
    InputError
        If what the user asked for cannot be had together.
    """
    several = find_rank().count > 1
    if wish is False and several:
        raise InputError(
            "--no-stream: several processes were started, expected one; leave out --no-stream, or "
            "start one process."
        )
    if whole and (wish or several):
        raise InputError(
            f"{whole[0]} needs all rows in memory, which a streamed prediction does not have: "
            f"leave out {whole[0]}, or {'start one process' if several else '--stream'}."
        )
    if wish or several:
        return True
    if wish is False or whole:
        return False
    try:
        located = locate(source.expanduser())
    except InputError:
        return False  # whoever opens it says so
    return located.kind in STREAMED and _is_large(located.path, n_proteins)


def _is_large(path: Path, n_proteins: int) -> bool:
    import psutil

    try:
        with BackedTable(path) as table:
            n_obs = table.n_obs
            need = _matrix_bytes(table.group) + n_obs * n_proteins * BYTES_PER_VALUE
            has_rows = table.has_rows
    except (InputError, LookupError, AttributeError, TypeError, ValueError, OSError, RuntimeError):
        return False  # an old or damaged file: the reader for tables in memory knows more of them
    fits = need < psutil.virtual_memory().available
    # What is stored by column cannot be streamed, but read whole, if there is room.
    return not fits or (n_obs > STREAM_ROWS and has_rows)


def _matrix_bytes(group: Any) -> int:
    """Bytes of a table's matrices in memory, and of its counts once more, as float32."""
    sizes = [
        sum(_bytes(array) for array in _arrays(group[name]))
        for name in ("X", "layers", "raw", "obsm", "obsp")
        if name in group
    ]
    return sum(sizes) + max(sizes, default=0)


def _bytes(array: Any) -> int:
    # HDF5 has arrays without a shape, which hold nothing.
    return 0 if array.shape is None else math.prod(array.shape) * int(array.dtype.itemsize)


def _arrays(node: Any) -> list[Any]:
    if hasattr(node, "shape"):
        return [node]
    return [array for name in list(node.keys()) for array in _arrays(node[name])]
