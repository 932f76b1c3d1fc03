"""One loop that runs a network over rows, on whichever device, whatever its memory.

What a network takes and gives differs between architectures: `TranslatorRunner` here,
`sclinguist_core.inference.hyena_runner` for the published one; `make_runner` picks.

Shapes: n cells or spots, B of them in a batch, P proteins, V genes.
"""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.batches import bucketed_rows
from sclinguist_core.errors import InputError, NotEnoughMemoryError
from sclinguist_core.model.architectures import HYENA, TRANSLATOR
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.device import (
    CPU_BATCH,
    CPU_TOKENS,
    CUDA_BATCH,
    CUDA_STREAMS,
    CUDA_TOKENS,
)
from sclinguist_core.model.feed import Cells, Tokens
from sclinguist_core.model.workers import Workers

if TYPE_CHECKING:
    import torch

    from sclinguist_core.model.translator import Panels

logger = logging.getLogger(__name__)


class Outputs(NamedTuple):
    """What the network says of a batch, each float32, shape (B, P).

    The standard deviation is NaN for a network that states none.
    """

    mean: np.ndarray
    std: np.ndarray
    log1p: np.ndarray | None


class Runner(ABC):
    """Runs batches on a device; halves them when memory runs out.

    Parameters
    ----------
    checkpoint
        The model.
    device
        Where to run.
    proteins
        Positions of the proteins to predict, int64, shape (P,).
    batch_size
        Most rows in a batch; None for what suits the device.
    """

    cpu_batch: ClassVar[int] = CPU_BATCH
    cuda_batch: ClassVar[int] = CUDA_BATCH
    batch_a_thread: ClassVar[bool] = True
    """Whether each thread has a batch of its own, or all share one. On a card a thread also has a
    stream of its own: it computes one batch while others are copied to it, or written down."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        proteins: np.ndarray,
        batch_size: int | None,
    ) -> None:
        import torch

        on_cuda = device.type == "cuda"
        self.device = device
        self.n_proteins = len(proteins)
        self.gene_share = checkpoint.gene_share
        self.normalization = checkpoint.info.model.rna_normalization
        self.batch_size = batch_size or (self.cuda_batch if on_cuda else self.cpu_batch)
        self.max_tokens = CUDA_TOKENS if on_cuda else CPU_TOKENS
        n_threads = CUDA_STREAMS if on_cuda else torch.get_num_threads()
        self.n_workers = n_threads if self.batch_a_thread else 1
        self.half = on_cuda
        """Whether abundance is predicted with products of matrices in bfloat16."""
        self._streams: SimpleQueue[torch.cuda.Stream] = SimpleQueue()
        for _ in range(self.n_workers if on_cuda else 0):
            self._streams.put(torch.cuda.Stream(device))

    @abstractmethod
    def _shared(self, measured: np.ndarray) -> Any:
        """Work out what all batches share, given the patterns of measured genes, shape (K, V).

        Called in inference mode.
        """

    @abstractmethod
    def _forward(self, batch: Tokens, shared: Any) -> Outputs:
        """Run one batch. Called in any thread, in inference mode."""

    def gene_warnings(self, not_found: Sequence[str]) -> list[str]:
        """Sentences on genes of the model that an input does not have; none by default.

        An architecture that knows missing genes leaves them out; see `HyenaRunner`.
        """
        return []

    def run_all(self, aligned: AlignedRna) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of all rows, shape (n, P); NaN for rows without reads."""
        mean = np.full((aligned.n_obs, self.n_proteins), np.nan, np.float32)
        std = mean.copy()
        for rows, outputs in self.run(aligned):
            mean[rows], std[rows] = outputs.mean, outputs.std
        mean[np.diff(aligned.counts.indptr) == 0] = np.nan
        std[np.isnan(mean)] = np.nan
        return mean, std

    def expression(self, aligned: AlignedRna) -> sparse.csr_matrix:
        """Expression as the model was trained to read it, CSR float32, shape (n, V)."""
        return aligned.expression(self.gene_share, self.normalization)

    def run(self, aligned: AlignedRna) -> Generator[tuple[np.ndarray, Outputs]]:
        """Yield the rows of each batch, and what the network says of them."""
        scale = aligned.scale(self.gene_share, self.normalization)
        cells = Cells(values=aligned.counts, pattern=aligned.pattern, scale=scale)
        yield from self._run(cells, aligned.measured, half=self.half)

    def run_expression(
        self, expression: sparse.csr_matrix, measured: np.ndarray, pattern: np.ndarray
    ) -> Generator[tuple[np.ndarray, Outputs]]:
        """Run expression that is normalised already, or changed by hand.

        In float32 on every device: small changes of expression make differences that bfloat16
        would round away.

        Parameters
        ----------
        expression
            Normalised expression, CSR float32, shape (n, V); every stored entry is a token.
        measured, pattern
            See `AlignedRna`.

        Yields
        ------
        Rows of a batch, int64, shape (B,), and what the network says of them.
        """
        yield from self._run(Cells(values=expression, pattern=pattern), measured, half=False)

    def _run(
        self, cells: Cells, measured: np.ndarray, *, half: bool
    ) -> Generator[tuple[np.ndarray, Outputs]]:
        import torch

        with torch.inference_mode():
            shared = self._shared(measured)
        if self.device.type == "cuda":
            # Other streams read it, as they do the tables.
            torch.cuda.current_stream(self.device).synchronize()

        def forward(rows: np.ndarray) -> tuple[np.ndarray, Outputs]:
            # These are local to a thread, so they are entered where the work is done.
            precision = torch.autocast(self.device.type, torch.bfloat16, enabled=half)
            with torch.inference_mode(), self._stream(), precision:
                return rows, self._forward(cells.tokens(rows, self.device), shared)

        batches = deque(bucketed_rows(cells.lengths, self.batch_size, self.max_tokens))
        with Workers(self.n_workers if len(batches) > 1 else 1) as workers:
            n_ahead = 2 * workers.n if workers.n > 1 else 1
            running: deque[tuple[np.ndarray, Future[tuple[np.ndarray, Outputs]]]] = deque()
            while batches or running:
                while batches and len(running) < n_ahead:
                    rows = batches.popleft()
                    if len(rows) > self.batch_size:
                        batches.extendleft((rows[self.batch_size :], rows[: self.batch_size]))
                        continue
                    running.append((rows, workers.submit(forward, rows)))
                rows, future = running.popleft()
                try:
                    yield future.result()
                except RuntimeError as error:  # torch.OutOfMemoryError is one
                    if not _is_out_of_memory(error):
                        raise
                    # They hold what the batch had on the device.
                    traceback.clear_frames(error.__traceback__)
                    del future
                    self._halve(len(rows), error)
                    batches.appendleft(rows)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """Lend a batch a stream of its own on a card; they last, since memory is kept for each."""
        import torch

        if self.device.type != "cuda":
            yield
            return
        stream = self._streams.get()
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._streams.put(stream)

    def _halve(self, n_rows: int, error: BaseException) -> None:
        import torch

        if n_rows <= 1:
            raise NotEnoughMemoryError(
                f"{self.device}: memory does not suffice for a single cell; close other programs "
                "or use --device cpu."
            ) from error
        # Batches that were under way together fail together: that is no reason to halve again.
        self.batch_size = min(self.batch_size, n_rows // 2)
        logger.warning("out of memory; going on with batches of %d cells", self.batch_size)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class TranslatorRunner(Runner):
    """Runs the translator on the tokens of expressed genes; see `Runner`.

    Parameters
    ----------
    checkpoint, device, proteins, batch_size
        See `Runner`.
    log1p
        Whether to predict ``log1p`` counts too.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        proteins: np.ndarray,
        batch_size: int | None,
        *,
        log1p: bool = False,
    ) -> None:
        import torch

        super().__init__(checkpoint, device, proteins, batch_size)
        self.model = checkpoint.translator.to(device)
        self.log1p = log1p
        with torch.inference_mode():
            self.tables = self.model.tables()
            self.proteins = torch.from_numpy(proteins).to(device)

    def _shared(self, measured: np.ndarray) -> Panels:
        import torch

        return self.model.panels(torch.from_numpy(measured).to(self.device), self.tables)

    def _forward(self, batch: Tokens, shared: Panels) -> Outputs:
        out = self.model(
            batch.genes,
            batch.values,
            shared.of(batch.pattern),
            self.tables,
            self.proteins,
            log1p=self.log1p,
        )
        mean, std = (x.float().cpu().numpy() for x in (out.mean, out.std))
        return Outputs(mean, std, out.log1p.float().cpu().numpy() if self.log1p else None)


def make_runner(
    checkpoint: Checkpoint,
    device: torch.device,
    proteins: np.ndarray,
    batch_size: int | None = None,
    *,
    log1p: bool = False,
) -> Runner:
    """Set a model up on a device; parameters as of `TranslatorRunner`.

    Raises
    ------
    InputError
        If the model's architecture does not predict protein, or no ``log1p`` counts.
    """
    architecture = checkpoint.info.architecture
    if log1p and not getattr(checkpoint.info.model, "log_output", False):
        raise InputError(
            f"model {checkpoint.info.name!r}: does not predict log1p counts; leave out log1p, or "
            "use a model that was trained with model.log_output=true."
        )
    if architecture == TRANSLATOR:
        return TranslatorRunner(checkpoint, device, proteins, batch_size, log1p=log1p)
    if architecture == HYENA:
        from sclinguist_core.inference.hyena_runner import HyenaRunner

        return HyenaRunner(checkpoint, device, proteins, batch_size)
    raise InputError(
        f"model {checkpoint.info.name!r}: its architecture, {architecture}, does not predict "
        "protein; use the bundled model, or another one that does."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
