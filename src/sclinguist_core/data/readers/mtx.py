"""Matrix Market files of counts.

``scipy.io.mmread`` is a little faster, but some damaged files make it bring down the whole
process, and a window with it. Here pandas parses the numbers and every index is checked.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.errors import InputError
from sclinguist_core.reading import check_fits, opened, reading

_FIELDS = frozenset({"integer", "real", "double", "pattern"})
_LONGEST_LINE = 10_000
_MOST_COMMENTS = 1_000


def read_mtx(path: Path) -> sparse.csr_matrix:
    """Read a Matrix Market file, turned: what are its columns become rows.

    Parameters
    ----------
    path
        ``matrix.mtx`` or ``matrix.mtx.gz`` of 10x: a row a feature, a column a barcode.

    Returns
    -------
    scipy.sparse.csr_matrix
        (n_columns, n_rows) float32.

    Raises
    ------
    InputError
        If the file is damaged, not complete, or no sparse matrix.
    """
    with opened(path) as file, reading(path, "a Matrix Market file"):
        pattern, shape, n_entries = _read_header(file, path)
        # Of each number 8 bytes, then the matrix; a damaged header may state any sizes.
        check_fits(40 * n_entries + 8 * (shape[0] + shape[1]), path)
        entries = _read_entries(file, pattern=pattern, most=n_entries + 1)
    if len(entries) != n_entries:
        more = "more than " if len(entries) > n_entries else f"{len(entries):,} of "
        raise _damaged(path, f"{more}{n_entries:,} entries are there")
    rows = entries["row"].to_numpy() - 1
    columns = entries["column"].to_numpy() - 1
    values = (
        np.ones(len(entries), dtype=np.float32)
        if pattern
        else entries["value"].to_numpy(dtype=np.float32)
    )
    if len(entries) and (
        rows.min() < 0 or columns.min() < 0 or rows.max() >= shape[0] or columns.max() >= shape[1]
    ):
        raise _damaged(path, f"it has entries beyond its size of {shape[0]} x {shape[1]}")
    matrix = sparse.csr_matrix((values, (columns, rows)), shape=shape[::-1])
    matrix.sum_duplicates()
    return matrix


def _read_entries(file: BinaryIO, *, pattern: bool, most: int) -> pd.DataFrame:
    """Read entries, and no more than so many."""
    names = ["row", "column"] if pattern else ["row", "column", "value"]
    try:
        # What is too large becomes infinite, and is refused by who looks at the counts.
        with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # lines of unequal length
            return pd.read_csv(
                file,
                sep=r"\s+",
                header=None,
                names=names,
                dtype={"row": np.int64, "column": np.int64, "value": np.float32},
                index_col=False,
                nrows=most,
                # The default may crash (`sclinguist_core.data.numbers`); exact enough for float32.
                float_precision="legacy",
            )
    except pd.errors.EmptyDataError:
        return pd.DataFrame({"row": [], "column": [], "value": []}, dtype=np.int64)


def _read_header(file: BinaryIO, path: Path) -> tuple[bool, tuple[int, int], int]:
    """Whether values are left out, the size, and the number of entries."""
    words = file.readline(_LONGEST_LINE).decode("ascii", "replace").lower().split()
    known = len(words) >= 5 and words[:3] == ["%%matrixmarket", "matrix", "coordinate"]
    if not known or words[3] not in _FIELDS:
        raise InputError(
            f"'{path}' is no sparse Matrix Market file of numbers: its first line is "
            f"'{' '.join(words)[:60]}', expected '%%MatrixMarket matrix coordinate integer "
            "general'; fetch it again."
        )
    line = b"%"
    for _ in range(_MOST_COMMENTS + 2):
        if not line.startswith(b"%"):
            break
        line = file.readline(_LONGEST_LINE)
    else:
        raise _damaged(path, f"it begins with more than {_MOST_COMMENTS:,} lines of comments")
    try:
        sizes = [int(word) for word in line.split()]
    except ValueError:
        sizes = []
    if len(sizes) != 3 or min(sizes) < 0:
        raise _damaged(path, "its line of sizes is no three numbers")
    if words[4] != "general" and sizes[2]:
        raise InputError(
            f"'{path}' is a {words[4]} matrix, expected a general one: counts of features and "
            "barcodes are never symmetric; write it anew."
        )
    return words[3] == "pattern", (sizes[0], sizes[1]), sizes[2]


def _damaged(path: Path, found: str) -> InputError:
    return InputError(
        f"'{path}' is damaged or not complete ({found}), expected a Matrix Market file: fetch it "
        "again and compare its size."
    )
