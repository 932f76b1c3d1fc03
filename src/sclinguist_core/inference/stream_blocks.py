"""The blocks of a streamed prediction that are one process's: read, predicted and kept.

Shapes: n cells or spots, P proteins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.backed_section import BackedCounts, BackedSection
from sclinguist_core.inference.chunk import Raw, run_chunk, without_reads
from sclinguist_core.inference.prepare import Prepared
from sclinguist_core.inference.progress import Progress
from sclinguist_core.inference.ranks import Rank
from sclinguist_core.inference.runner import Runner
from sclinguist_core.inference.stream_work import BlockFacts, Vanished, WorkFolder

logger = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds without a new block after which the first process does the others' blocks itself."""
_POLL = 0.2
_LISTING = 2.0
"""Seconds after which a process looks for what others have done."""


@dataclass(kw_only=True)
class Job:
    """The blocks of one process.

    Attributes
    ----------
    section
        The input, open.
    prepared, runner
        Model, proteins, device, and what runs it.
    work
        Where blocks are kept.
    rank
        Which share of the blocks is this process's.
    """

    section: BackedSection
    prepared: Prepared
    runner: Runner
    work: WorkFolder
    rank: Rank

    def share(self, final: Path, before: tuple[int, int] | None) -> Generator[Progress, None, None]:
        """Do the blocks of a process that is not the first, which makes the folder and removes it.

        Parameters
        ----------
        final
            The output.
        before
            What `file_state` said of it when this process began.
        """
        try:
            if (yield from self._wait_for_journal(final, before)):
                with self.work.held(self.rank.index):
                    yield from self.run()
        except Vanished:
            if file_state(final) is None:
                raise
            logger.warning("%s: was finished by the first process", final)

    def _wait_for_journal(
        self, final: Path, before: tuple[int, int] | None
    ) -> Generator[Progress, None, bool]:
        """Wait until the first process has begun; False where it is done already."""
        since = time.monotonic()
        while not self.work.check():
            now = file_state(final)
            # An output that was there before is of this run, unless the first begins late: then
            # it does this process's blocks, too.
            if now is not None and (now != before or time.monotonic() - since > PATIENCE):
                logger.warning("%s: was finished by the first process", final)
                return False
            yield Progress(0, self.section.n_obs, "waiting for the first process")
            time.sleep(_POLL)
        return True

    def run(self) -> Generator[Progress, None, None]:
        """Do this process's blocks; the first of several then sees to it that all are there."""
        work, rank = self.work, self.rank
        total = self.section.n_obs
        own = range(rank.index, work.n_blocks, rank.count)
        missing, n_done = [], self._count(work.present())
        for block in own:
            if not work.is_whole(block):
                missing.append(block)
            yield Progress(n_done, total, "checking what is there")
        if n_done := self._count(work.present()):
            logger.warning("%s: going on at row %s of %s", work.path, f"{n_done:,}", f"{total:,}")
        longest = yield from self._predict(missing)
        if rank.index > 0:
            return
        waited_since, there = time.monotonic(), work.present()
        while not there.all():
            yield Progress(self._count(there), total, "waiting for the other processes")
            mine: list[int] = []
            if time.monotonic() - waited_since > PATIENCE + 10 * longest:
                mine = np.flatnonzero(~there)[-1:].tolist()
                yield from self._predict(mine)
            else:
                time.sleep(_POLL)
            now = work.present()
            by_others = now & ~there
            by_others[mine] = False
            if by_others.any():  # somebody else is alive
                waited_since = time.monotonic()
            there = now
        damaged = [block for block in range(work.n_blocks) if block not in own]
        yield from self._predict([block for block in damaged if not work.is_whole(block)])

    def _count(self, there: np.ndarray) -> int:
        """Rows of the blocks that are there."""
        return int(np.diff(self.work.starts)[there].sum())

    def _predict(self, blocks: list[int]) -> Generator[Progress, None, float]:
        """Predict blocks that are not there; returns how long the longest took, in seconds."""
        longest, total, familiarity = 0.0, self.section.n_obs, self.prepared.checkpoint.familiarity
        n_done, listed = self._count(self.work.present()), time.monotonic()
        with closing(_read_ahead(self._aligned(blocks))) as read:
            began = time.perf_counter()
            for block, aligned, n_empty, rounded in read:
                if self.work.has(block):  # since it was read
                    continue
                raw = Raw.of_size(
                    aligned.n_obs,
                    self.work.n_proteins,
                    log1p="log1p" in self.work.arrays,
                    ood=self.work.with_ood,
                )
                # What others have done is looked up at times: listing many blocks takes a while.
                if time.monotonic() - listed > _LISTING:
                    n_done, listed = self._count(self.work.present()), time.monotonic()
                done = n_done
                for n_rows in run_chunk(self.runner, familiarity, aligned, raw):
                    done += n_rows
                    yield Progress(min(done, total), total, "predicting")
                seconds = time.perf_counter() - began
                facts = BlockFacts(
                    n_empty=n_empty,
                    n_without_reads=int(without_reads(aligned).sum()),
                    rounded=rounded,
                    states_error=bool(np.isfinite(raw.std).any()),
                    seconds=seconds,
                )
                self.work.write(block, raw, facts)
                n_done += aligned.n_obs
                longest, began = max(longest, seconds), time.perf_counter()
        return longest

    def _aligned(self, blocks: list[int]) -> Iterator[tuple[int, AlignedRna, int, bool]]:
        """Read blocks and bring them onto the model's genes."""
        rna, aligner = self.prepared.rna, self.prepared.aligner
        matrix: BackedCounts = rna.counts
        for block in blocks:
            if self.work.has(block):  # the first process took this one for slow
                continue
            rows, n_rounded = self.work.rows(block), matrix.n_rounded
            counts = matrix[rows]
            measured = None if rna.measured is None else rna.measured[rows]
            n_empty = int(np.count_nonzero(np.asarray(counts.sum(axis=1)) == 0))
            aligned = aligner.apply(counts, measured)
            yield block, aligned, n_empty, matrix.n_rounded > n_rounded


def _read_ahead(blocks: Iterator[Any]) -> Generator[Any, None, None]:
    """Read the next block in a thread while the one before it is worked on."""
    end = object()
    with ThreadPoolExecutor(1, "sclinguist-read") as pool:
        coming = pool.submit(next, blocks, end)
        while (block := coming.result()) is not end:
            coming = pool.submit(next, blocks, end)
            yield block


def file_state(path: Path) -> tuple[int, int] | None:
    """Tell an output from the one that takes its place; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
