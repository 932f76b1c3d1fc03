"""Cells of a store as training reads them: a few windows in memory, the next ones read ahead.

Which cells a batch holds is a function of the seed (`sclinguist_core.train.stream_order`), not of
what was read before: a run that was interrupted goes on with the very next batch, and processes
that share the work read different rows.

Shapes: n cells, w cells of a window, V genes of the model.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna, gene_aligner
from sclinguist_core.data.store.reader import StoredCells
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.stream_order import StreamOrder, StreamWindow

BUFFER_CELLS = 32_768
"""Cells that all streams of a process keep in memory, those read ahead included; 12 KB each at
1,500 expressed genes. More data sets have smaller windows."""
MAX_WINDOW_BATCHES = 16
RUN_ROWS = 512
"""Consecutive rows that are read together."""
STATISTICS_CELLS = 100_000
"""Cells of a data set that gene statistics are taken from. A store is shuffled: the first cells are
a random sample."""
_PART_ROWS = 2_048
_NEAR_ROWS = 64
"""Rows that are nearer to each other are read together."""

Held = TypeVar("Held")


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamPlan:
    """How the streams of a recipe are read; parameters of `StreamOrder`."""

    batch_size: int
    n_lanes: int
    window_batches: int
    run_rows: int = RUN_ROWS

    @classmethod
    def of(cls, config: FitConfig, n_streams: int) -> StreamPlan:
        """Fit the windows of all streams into the buffer."""
        room = BUFFER_CELLS // (2 * max(n_streams, 1) * config.sets_per_step * config.batch_size)
        return cls(
            batch_size=config.batch_size,
            n_lanes=config.sets_per_step,
            window_batches=min(max(room, 1), MAX_WINDOW_BATCHES),
        )


class Stream(Generic[Held]):
    """A data set of a store, of which a window for each lane is in memory.

    Parameters
    ----------
    cells
        The data set.
    """

    def __init__(self, cells: StoredCells) -> None:
        self.cells = cells
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._pool: ThreadPoolExecutor | None = None
        self._orders: dict[Any, StreamOrder] = {}
        self._held: dict[int, tuple[Any, Held]] = {}
        self._ahead: dict[int, tuple[Any, Future[Held]]] = {}

    def _read_from(self, cells: StoredCells) -> None:
        """Read the same data set from files that were opened anew."""
        self.cells = cells

    def __getstate__(self) -> dict[str, Any]:
        """Leave out threads and what they read."""
        ours = {"_process", "_pool", "_orders", "_held", "_ahead"}
        return {key: value for key, value in vars(self).items() if key not in ours}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin without windows."""
        vars(self).update(state)
        self._forget()

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.cells.name

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.cells.n_obs

    @abstractmethod
    def load(self, runs: Sequence[tuple[int, int]]) -> Held:
        """Read runs of rows, in the order given; called from another thread too."""

    def order(self, plan: StreamPlan, seed: tuple[int, ...]) -> StreamOrder:
        """Order of the batches under a plan."""
        key = (plan, seed)
        if key not in self._orders:
            self._orders[key] = StreamOrder(
                self.n_obs,
                batch_size=plan.batch_size,
                n_lanes=plan.n_lanes,
                window_batches=plan.window_batches,
                run_rows=plan.run_rows,
                seed=seed,
            )
        return self._orders[key]

    def batch(self, order: StreamOrder, lane: int, number: int) -> tuple[Held, np.ndarray]:
        """Window of a batch, and the batch's rows in it.

        Parameters
        ----------
        order
            As of `order`.
        lane, number
            Which batch of which lane, numbered through all epochs.
        """
        if os.getpid() != self._process:
            # Threads do not come along into a forked process, nor do the files they read.
            self._read_from(StoredCells(self.cells.path, self.cells.name))
            self._forget()
        batch = order.batch(lane, number)
        return self._window(order, batch.window), batch.rows

    def _window(self, order: StreamOrder, window: StreamWindow) -> Held:
        key, held = self._held.get(window.lane, (None, None))
        if key == window.runs and held is not None:
            return held
        key, future = self._ahead.pop(window.lane, (None, None))
        self._held.pop(window.lane, None)
        held = (
            future.result() if key == window.runs and future is not None else self.load(window.runs)
        )
        self._held[window.lane] = (window.runs, held)
        following = order.following(window).runs
        if following != window.runs:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"stream {self.name}")
            self._ahead[window.lane] = (following, self._pool.submit(self.load, following))
        return held


class StreamedRna(Stream[AlignedRna]):
    """RNA of a stored data set over a model's genes; stands where `AlignedRna` does.

    Parameters
    ----------
    cells
        The data set.
    symbols
        The model's genes, canonical symbols, length V.

    Attributes
    ----------
    measured
        Which genes were measured, bool, shape (1, V): a store has one list of genes a data set.
    pattern
        Row of `measured` for each cell: zeros, shape (n,), which take no memory.
    """

    def __init__(self, cells: StoredCells, symbols: Sequence[str]) -> None:
        super().__init__(cells)
        aligner = gene_aligner(cells.names, cells.ids, symbols, source=cells.name)
        self._n_genes = len(symbols)
        # The model's gene of each gene of the store, -1 for none.
        self._target = np.full(cells.record.n_genes, -1, np.int32)
        self._target[np.diff(aligner.move.indptr) > 0] = aligner.move.indices
        known = self._target[self._target >= 0]
        # Genes of a store and of a model are both sorted by symbol: rows stay sorted.
        self._stays_sorted = bool((np.diff(known) > 0).all())
        self.measured = np.zeros((1, self._n_genes), bool)
        self.measured[0, known] = True
        self.pattern = np.broadcast_to(np.int64(0), cells.n_obs)

    @property
    def n_measured(self) -> int:
        """Number of the model's genes that were measured."""
        return int(self.measured.sum())

    def load(self, runs: Sequence[tuple[int, int]]) -> AlignedRna:
        """Read runs of rows, in the order given."""
        blocks = [self._align(self.cells.rows(start, stop)) for start, stop in _joined(runs)]
        return self._aligned(sparse.vstack(blocks, format="csr", dtype=np.float32))

    def parts(self) -> Iterator[AlignedRna]:
        """Give out the cells a part at a time; of a large data set a sample."""
        n_obs = min(self.n_obs, STATISTICS_CELLS)
        for start in range(0, n_obs, _PART_ROWS):
            yield self.load([(start, min(start + _PART_ROWS, n_obs))])

    def take(self, rows: np.ndarray) -> AlignedRna:
        """Read the chosen cells (indices), of which there are to be few."""
        wanted, place = np.unique(rows, return_inverse=True)
        gaps = np.flatnonzero(np.diff(wanted) > _NEAR_ROWS) + 1
        blocks = []
        for near in np.split(wanted, gaps):
            for group in np.split(near, range(_PART_ROWS, len(near), _PART_ROWS)):
                if len(group):
                    block = self._align(self.cells.rows(int(group[0]), int(group[-1]) + 1))
                    blocks.append(block[group - group[0]])
        counts = sparse.vstack(blocks, format="csr", dtype=np.float32)
        return self._aligned(sparse.csr_matrix(counts[place]))

    def _aligned(self, counts: sparse.csr_matrix) -> AlignedRna:
        pattern = np.zeros(counts.shape[0], np.int64)
        return AlignedRna(counts=counts, measured=self.measured, pattern=pattern)

    def _align(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Bring rows onto the model's genes, as `GeneAligner.apply` does, without a product."""
        genes = self._target[counts.indices]
        data, indptr = counts.data, counts.indptr
        known = genes >= 0
        if not known.all():
            before = np.concatenate([[0], np.cumsum(known, dtype=np.int32)])
            data, genes, indptr = data[known], genes[known], before[indptr]
        shape = (counts.shape[0], self._n_genes)
        aligned = sparse.csr_matrix((data, genes, indptr), shape=shape, copy=False)
        if self._stays_sorted:
            aligned.has_canonical_format = True
        else:
            aligned.sum_duplicates()
        return aligned


def _joined(runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join runs that follow each other, to read them in one go."""
    joined: list[tuple[int, int]] = []
    for start, stop in runs:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
