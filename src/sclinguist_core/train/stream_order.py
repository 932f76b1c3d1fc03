"""In which order a stored data set is trained on: a function of the seed, and of nothing else.

A store keeps its rows shuffled (`sclinguist_core.data.store.order`), so that consecutive rows are a
random sample. They are read as *runs* of consecutive rows. In every epoch the runs are shuffled and
dealt to *lanes*, one for each chunk of a step as long as there are enough runs; a lane joins its
runs to *windows*, shuffles the rows of a window, and cuts them into batches. In an epoch every
cell is in one batch of one lane. Processes that share the work take different lanes, and read
different rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RUNS, _ROWS = 0, 1  # what a stream of random numbers is for


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamWindow:
    """Rows that are in memory together.

    Attributes
    ----------
    epoch, lane, number
        Which window this is.
    runs
        First row, and row after the last, of each run in it.
    """

    epoch: int
    lane: int
    number: int
    runs: tuple[tuple[int, int], ...]

    @property
    def n_rows(self) -> int:
        """Rows in the window."""
        return sum(stop - start for start, stop in self.runs)


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamBatch:
    """One batch of a stream.

    Attributes
    ----------
    window
        What has to be in memory.
    rows
        The batch's rows among those of the window, int64.
    """

    window: StreamWindow
    rows: np.ndarray


class StreamOrder:
    """Order of the batches of one data set.

    Parameters
    ----------
    n_obs
        Rows of the data set.
    batch_size
        Most rows of a batch.
    n_lanes
        Lanes that are asked for; there are no more than runs.
    window_batches
        Most batches in a window.
    run_rows
        Most rows in a run.
    seed
        Of the shuffling.
    """

    def __init__(
        self,
        n_obs: int,
        *,
        batch_size: int,
        n_lanes: int,
        window_batches: int,
        run_rows: int,
        seed: Sequence[int],
    ) -> None:
        self.batch_size = batch_size
        self._seed = tuple(seed)
        run_rows = min(run_rows, batch_size * window_batches)
        n_runs = max(1, -(-n_obs // run_rows))
        self._bounds = np.linspace(0, n_obs, n_runs + 1).astype(np.int64)
        self.n_lanes = min(n_lanes, n_runs)
        self._runs_per_window = batch_size * window_batches // run_rows
        self._epochs: dict[int, np.ndarray] = {}
        # For each lane, the epoch that its last batch was of, and the batches before that epoch.
        self._reached = [(0, 0)] * self.n_lanes
        # For each lane, the last epoch whose batches were counted, and the last window.
        self._counted: dict[int, tuple[int, np.ndarray]] = {}
        self._last: dict[int, tuple[tuple[int, int], tuple[StreamWindow, list[np.ndarray]]]] = {}

    def windows(self, epoch: int, lane: int) -> list[StreamWindow]:
        """All windows of a lane in an epoch, in order."""
        return [self.window(epoch, lane, n) for n in range(self._n_windows(lane))]

    def window(self, epoch: int, lane: int, number: int) -> StreamWindow:
        """One window of a lane in an epoch."""
        start = number * self._runs_per_window
        runs = self._shuffled(epoch)[lane :: self.n_lanes][start : start + self._runs_per_window]
        # Sorted: neighbours are read in one go; the order of the rows is drawn anyway.
        bounds = ((int(self._bounds[run]), int(self._bounds[run + 1])) for run in np.sort(runs))
        return StreamWindow(epoch=epoch, lane=lane, number=number, runs=tuple(bounds))

    def _ends(self, epoch: int, lane: int) -> np.ndarray:
        """Batches of a lane up to the end of each window of an epoch, int64."""
        known, ends = self._counted.get(lane, (-1, None))
        if known != epoch or ends is None:
            sizes = np.diff(self._bounds)[self._shuffled(epoch)[lane :: self.n_lanes]]
            n_rows = np.add.reduceat(sizes, np.arange(0, len(sizes), self._runs_per_window))
            ends = np.cumsum(-(-n_rows // self.batch_size))
            self._counted[lane] = epoch, ends
        return ends

    def batch(self, lane: int, number: int) -> StreamBatch:
        """Batch of a lane, numbered through all epochs."""
        epoch, before = self._reached[lane]
        if number < before:
            epoch, before = 0, 0
        while number >= before + (n_batches := int(self._ends(epoch, lane)[-1])):
            before += n_batches
            epoch += 1
        self._reached[lane] = epoch, before
        ends = self._ends(epoch, lane)
        which = int(np.searchsorted(ends, number - before, side="right"))
        first = before + (int(ends[which - 1]) if which else 0)
        window, rows = self._opened(epoch, lane, which)
        return StreamBatch(window=window, rows=rows[number - first])

    def _opened(self, epoch: int, lane: int, number: int) -> tuple[StreamWindow, list[np.ndarray]]:
        """Return a window and the rows of its batches; a lane's last one is kept."""
        key, kept = self._last.get(lane, (None, None))
        if key != (epoch, number) or kept is None:
            window = self.window(epoch, lane, number)
            kept = window, self.rows(window)
            self._last[lane] = (epoch, number), kept
        return kept

    def rows(self, window: StreamWindow) -> list[np.ndarray]:
        """Rows of each batch of a window; batches differ by a row at most."""
        seed = (*self._seed, _ROWS, window.epoch, window.lane, window.number)
        rows = np.random.default_rng(seed).permutation(window.n_rows)
        return np.array_split(rows, -(-window.n_rows // self.batch_size))

    def following(self, window: StreamWindow) -> StreamWindow:
        """Window that the lane comes to next."""
        if window.number + 1 < self._n_windows(window.lane):
            return self.window(window.epoch, window.lane, window.number + 1)
        return self.window(window.epoch + 1, window.lane, 0)

    def _n_windows(self, lane: int) -> int:
        """Windows of a lane, as many in every epoch."""
        n_runs = len(range(lane, len(self._bounds) - 1, self.n_lanes))
        return -(-n_runs // self._runs_per_window)

    def _shuffled(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            seed = (*self._seed, _RUNS, epoch)
            # Lanes are at most an epoch apart, and look one ahead.
            self._epochs = {e: o for e, o in self._epochs.items() if abs(e - epoch) < 3}
            n_runs = len(self._bounds) - 1
            self._epochs[epoch] = np.random.default_rng(seed).permutation(n_runs)
        return self._epochs[epoch]
