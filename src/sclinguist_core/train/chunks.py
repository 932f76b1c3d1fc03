"""What one step trains on: chunks that depend on seed, step and number alone.

A *chunk* is `batch_size` rows of one data set. A *step* is a list of chunks. Which data set a chunk
comes from, which rows are drawn and how they are varied is a function of the seed, the step and
the chunk's number, and of nothing else: not of what was drawn before, nor of how many processes
share the work. So a run that was interrupted continues as if it had not been, and two processes
that take every second chunk see together what one process sees alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sclinguist_core.train.augment import Augmentation, TrainingBatch, draw_batch
from sclinguist_core.train.corpus import PairedDataset
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.stream import Stream, StreamPlan
from sclinguist_core.train.streamed_pairs import StreamedPairs

_SETS, _ROWS, _DROPOUT = 0, 1, 2  # what a stream of random numbers is for


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Rows of one data set, ready for the network.

    Attributes
    ----------
    tensors
        What the objective reads, by name.
    counts
        For each term of the loss, the (weighted) number of measured entries in these rows: what
        the sum of the term is divided by, over all chunks of a step and all processes.
    n_rows
        Cells or pseudo-spots.
    seed
        Seed of the dropout.
    """

    tensors: dict[str, Tensor]
    counts: tuple[float, ...]
    n_rows: int
    seed: int

    def to(self, device: torch.device) -> Chunk:
        """Move the tensors."""
        moved = {
            name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()
        }
        return Chunk(tensors=moved, counts=self.counts, n_rows=self.n_rows, seed=self.seed)

    def pin_memory(self) -> Chunk:
        """Copy to page-locked memory, from which a GPU reads while it computes."""
        pinned = {name: tensor.pin_memory() for name, tensor in self.tensors.items()}
        return Chunk(tensors=pinned, counts=self.counts, n_rows=self.n_rows, seed=self.seed)


class ChunkSource(Protocol):
    """Where chunks come from."""

    @property
    def n_chunks(self) -> int:
        """Chunks of a step."""
        ...

    @property
    def batch_size(self) -> int:
        """Rows of a chunk (fewer where a data set has fewer)."""
        ...

    def chunk(self, step: int, number: int) -> Chunk:
        """Draw one chunk, a pure function of its arguments."""
        ...


def generator(seed: int, step: int, number: int, purpose: int = _ROWS) -> np.random.Generator:
    """Random numbers of one chunk."""
    return np.random.default_rng((seed, step, number, purpose))


def dropout_seed(seed: int, step: int, number: int) -> int:
    """Seed of one chunk's dropout."""
    state = np.random.SeedSequence((seed, step, number, _DROPOUT)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))  # torch takes 63 bits on every backend


def drawn_set(sizes: Sequence[int], config: FitConfig, step: int, number: int) -> int:
    """Pick the data set of a chunk: in proportion to cells to the power `balance`.

    The chunks of a step come from different sets as long as there are enough of them.
    """
    return int(drawn_sets(sizes, config, step)[number])


def drawn_sets(sizes: Sequence[int], config: FitConfig, step: int) -> np.ndarray:
    """Pick the data sets of all chunks of a step; see `drawn_set`."""
    probability = np.array(sizes, np.float64) ** config.balance
    rng = generator(config.seed, step, 0, _SETS)
    return rng.choice(
        len(sizes),
        config.sets_per_step,
        replace=config.sets_per_step > len(sizes),
        p=probability / probability.sum(),
    )


class Draws:
    """How often each data set was drawn before a chunk.

    Streams are read in order: which of their batches a chunk is follows from the chunks before it,
    and these from the seed. Asked for steps in order, it only counts on.

    Parameters
    ----------
    sizes
        Cells of each data set.
    config
        Balance of data sets, seed, chunks of a step.
    """

    def __init__(self, sizes: Sequence[int], config: FitConfig) -> None:
        self._sizes = sizes
        self._config = config
        self._begin()

    def _begin(self) -> None:
        self._step = 0
        self._counts = np.zeros((self._config.sets_per_step, len(self._sizes)), np.int64)

    def before(self, step: int, number: int, n_lanes: int) -> int:
        """Count the chunks of the same data set before a chunk, in its lane.

        Parameters
        ----------
        step, number
            Which chunk.
        n_lanes
            Lanes of its data set: chunk k of a step reads lane ``k % n_lanes``.
        """
        if step < self._step:
            self._begin()
        numbers = np.arange(self._config.sets_per_step)
        while self._step < step:
            self._counts[numbers, drawn_sets(self._sizes, self._config, self._step)] += 1
            self._step += 1
        drawn = drawn_sets(self._sizes, self._config, step)
        lane = numbers % n_lanes == number % n_lanes
        in_this_step = lane[:number] & (drawn[:number] == drawn[number])
        return int(self._counts[lane, drawn[number]].sum() + in_this_step.sum())


class StepChunks:
    """The chunks of steps that one process works on, in order; iterable for a data loader.

    Parameters
    ----------
    source
        Where chunks come from.
    first, last
        Steps, from `first` up to but without `last`.
    rank, world_size
        Which of how many processes: it takes the chunks with number ``rank`` modulo
        ``world_size``.
    """

    def __init__(
        self, source: ChunkSource, first: int, last: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.source = source
        self.first = first
        self.last = last
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[Chunk]]:
        """Yield one list of chunks a step; workers of a data loader take turns.

        A window of a stream holds batches of consecutive steps: with W workers each reads nearly
        every window, W times the disk's work. One or two read a store fastest.
        """
        worker = torch.utils.data.get_worker_info()
        offset, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step in range(self.first + offset, self.last, stride):
            yield self.of(step)

    def of(self, step: int) -> list[Chunk]:
        """Draw this process's chunks of one step."""
        numbers = range(self.rank, self.source.n_chunks, self.world_size)
        return [self.source.chunk(step, number) for number in numbers]


class ByConfig:
    """Base of sources whose steps are as large as their `config` says."""

    config: FitConfig
    datasets: Sequence[Any]

    @property
    def n_chunks(self) -> int:
        """Chunks of a step."""
        return self.config.sets_per_step

    @property
    def batch_size(self) -> int:
        """Rows of a chunk."""
        return self.config.batch_size

    @cached_property
    def _draws(self) -> Draws:
        return Draws([dataset.n_obs for dataset in self.datasets], self.config)

    @cached_property
    def _plan(self) -> StreamPlan:
        return StreamPlan.of(self.config, sum(isinstance(d, Stream) for d in self.datasets))

    def drawn(self, step: int, number: int) -> tuple[Any, np.ndarray | None]:
        """Tell a chunk's data set, and which of its cells it holds; None leaves these to be drawn.

        Of a stream it is that part of the data set which is in memory.
        """
        chosen = drawn_set([d.n_obs for d in self.datasets], self.config, step, number)
        dataset = self.datasets[chosen]
        if not isinstance(dataset, Stream):
            return dataset, None
        order = dataset.order(self._plan, (self.config.seed, chosen))
        earlier = self._draws.before(step, number, order.n_lanes)
        return dataset.batch(order, number % order.n_lanes, earlier)


@dataclass(frozen=True)
class PairedChunks(ByConfig):
    """Chunks of paired cells (stage 2), augmented.

    Attributes
    ----------
    datasets
        Paired sets, aligned to the model's genes and proteins.
    gene_share
        Reference expression of the genes, shape (V,).
    config, augmentation
        How.
    """

    datasets: Sequence[PairedDataset | StreamedPairs]
    gene_share: np.ndarray
    config: FitConfig
    augmentation: Augmentation

    def chunk(self, step: int, number: int) -> Chunk:
        """Draw one chunk."""
        dataset, rows = self.drawn(step, number)
        seed = self.config.seed
        batch = draw_batch(
            dataset,
            self.gene_share,
            self.config.batch_size,
            self.augmentation,
            generator(seed, step, number),
            rows,
        )
        return paired_chunk(batch, dropout_seed(seed, step, number))


def paired_chunk(batch: TrainingBatch, seed: int) -> Chunk:
    """Tensors of a batch of paired cells.

    A wide panel holds more information than a narrow one, but less than in proportion: an entry
    of a panel of A antibodies weighs 1 / sqrt(A).
    """
    proteins, column = np.unique(batch.protein, return_inverse=True)
    weight = len(batch.protein) ** -0.5
    n_measured = float(np.isfinite(batch.target).sum())
    arrays = {
        "genes": batch.genes,
        "values": batch.values,
        "pattern": np.zeros(len(batch.genes), np.int64),
        "measured": batch.measured[None],
        "attended_genes": batch.attended[0],
        "attended_values": batch.attended[1],
        "proteins": proteins,
        "column": column,
        "target": batch.target,
        "log_target": batch.log_target,
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    tensors["weight"] = torch.tensor(weight)
    return Chunk(
        tensors=tensors,
        counts=(weight * n_measured,) * 3,
        n_rows=len(batch.genes),
        seed=seed,
    )
