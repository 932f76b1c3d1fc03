"""In which order a store keeps rows: shuffled once, so that neighbours are a random sample.

Rows cannot be read one by one from a compressed file. A source is therefore cut into slices of
consecutive rows; slices are drawn at random until a *window* is full, and the rows of a window are
shuffled. Rows of one slice stay in one window, thousands of rows from hundreds of places of the
source, which is as random as training needs: what lies together in a file is a donor or a plate of
thousands of cells, not a slice of 64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SLICE_ROWS = 64
"""Rows of a slice, where the source does not make larger ones cheaper."""
MAX_SLICE_ROWS = 512
WINDOW_VALUES = 2**23
"""Stored values in a window, about: 5,600 cells of 1,500 values each."""
_MIN_WINDOW_ROWS, _MAX_WINDOW_ROWS = 1_024, 65_536


@dataclass(frozen=True, slots=True)
class Window:
    """Rows that are shuffled together.

    Attributes
    ----------
    slices
        Rows of the source, sorted within each slice.
    order
        Which of the rows, counted through the slices, comes first, second, ...
    """

    slices: list[np.ndarray]
    order: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Rows of the source in the order in which they are stored."""
        rows: np.ndarray = np.concatenate(self.slices)[self.order]
        return rows


def windows(
    rows: np.ndarray, seed: int, *, values_per_row: float, chunk_rows: int = 1
) -> Iterator[Window]:
    """Shuffle rows.

    Parameters
    ----------
    rows
        Rows of the source, sorted.
    seed
        Seed of the order; the same seed and rows give the same order.
    values_per_row
        Stored values of a row, on average: the fewer, the larger the windows.
    chunk_rows
        Rows that the source unpacks at a time.
    """
    rng = np.random.default_rng(seed)
    slice_rows = int(np.clip(chunk_rows, SLICE_ROWS, MAX_SLICE_ROWS))
    window_rows = int(
        np.clip(WINDOW_VALUES / max(values_per_row, 1.0), _MIN_WINDOW_ROWS, _MAX_WINDOW_ROWS)
    )
    cuts = np.arange(slice_rows, len(rows), slice_rows)
    slices = np.split(rows, cuts)
    shuffled = rng.permutation(len(slices))
    for first in range(0, len(slices), max(1, window_rows // slice_rows)):
        chosen = [slices[i] for i in shuffled[first : first + max(1, window_rows // slice_rows)]]
        yield Window(chosen, rng.permutation(sum(map(len, chosen))))
