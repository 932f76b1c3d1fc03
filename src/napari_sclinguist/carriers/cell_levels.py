"""Levels of a pyramid of cells, worked out from one table of values when they are drawn.

Close up a pixel shows the cell that covers it. From afar many cells lie in a pixel, of which one
taken at random would make the picture grainy: there a pixel shows the mean of its cells.

Shapes: n cells; H, W of a level; label 0 is where no cell is.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class CellTable:
    """A value, or a colour, of each cell; all levels of a layer share one.

    Parameters
    ----------
    n
        Number of cells.
    colours
        Whether it holds uint8 RGBA, transparent at first, and not float32 values, NaN at first.

    Attributes
    ----------
    by_label
        (n + 1,) or (n + 1, 4): the cell i has the label i + 1.
    version
        Counts up when values were written.
    """

    def __init__(self, n: int, *, colours: bool = False) -> None:
        if colours:
            self.by_label = np.zeros((n + 1, 4), np.uint8)
        else:
            self.by_label = np.full(n + 1, np.nan, np.float32)
        self.version = 0

    def write(self, values: np.ndarray) -> None:
        """Write values (n,), or colours (n, 4)."""
        self.by_label[1:] = values
        self.version += 1


class LookupLevel:
    """A level on which cells are larger than pixels: each shows the cell that covers it.

    What napari asks of an array: shape, ndim, size, dtype, slicing, and conversion.
    """

    def __init__(self, labels: np.ndarray, table: CellTable) -> None:
        self.labels = labels
        self.table = table
        self.shape = (*labels.shape, *table.by_label.shape[1:])
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape))
        self.dtype = table.by_label.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        index = index if isinstance(index, tuple) else (index,)
        found = self.table.by_label[self.labels[index[:2]]]
        return found[(..., *index[2:])] if len(index) > 2 else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)


class MeanLevel(LookupLevel):
    """A level on which cells are smaller than pixels: each shows the mean of its cells.

    Means of colours are weighted by their opacity. A pixel without the centre of a cell shows the
    cell that reaches into it.

    Parameters
    ----------
    labels
        (H, W) label of a cell that covers the pixel.
    places
        (n,) pixel in which the centre of each cell lies, as an index into the flat level.
    table
        Of the layer.
    """

    def __init__(self, labels: np.ndarray, places: np.ndarray, table: CellTable) -> None:
        super().__init__(labels, table)
        self.places = places
        self._made_of = -1
        self._image = np.empty(0, self.dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        # Only the level that is drawn is ever asked, so that the others cost nothing.
        if self._made_of != self.table.version:
            self._made_of = self.table.version
            self._image = self._mean()
        return self._image[index]

    def _mean(self) -> np.ndarray:
        values = self.table.by_label[1:]
        image = self.table.by_label[self.labels.ravel()]
        if values.ndim == 1:
            known = np.isfinite(values)
            some = slice(None) if known.all() else known
            counts = self._sum(some)
            filled = counts > 0
            image[filled] = self._sum(some, values)[filled] / counts[filled]
        else:
            opacity = values[:, 3].astype(np.float32)
            counts, total = self._sum(), self._sum(weights=opacity)
            image[counts > 0] = 0
            seen = total > 0
            for i in range(3):
                colour = self._sum(weights=values[:, i] * opacity)
                image[seen, i] = colour[seen] / total[seen] + 0.5
            image[seen, 3] = total[seen] / counts[seen] + 0.5
        return image.reshape(self.shape)

    def _sum(
        self, some: slice | np.ndarray = slice(None), weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Count cells in each pixel, or sum their weights up; (H·W,)."""
        weights = None if weights is None else weights[some]
        return np.bincount(self.places[some], weights, minlength=self.labels.size)
