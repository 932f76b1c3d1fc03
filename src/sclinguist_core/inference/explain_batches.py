"""Batches of cells for attributions: like those of a prediction, but gradients must pass.

Shapes: n cells or spots, V genes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.batches import TokenBatch, bucketed_rows, token_batch
from sclinguist_core.errors import NotEnoughMemoryError
from sclinguist_core.inference.prepare import Prepared
from sclinguist_core.model.device import CPU_GRADIENT_TOKENS

if TYPE_CHECKING:
    import torch

    from sclinguist_core.inference.attribution import Attributed, Tokens
    from sclinguist_core.model.translator import Panels, Tables

logger = logging.getLogger(__name__)

CUDA_TOKENS = 524_288
"""Fewer than in a prediction: gradients keep what every layer said."""


def attributed_batches(
    prepared: Prepared,
    aligned: AlignedRna,
    expression: sparse.csr_matrix,
    attribute: Callable[[Tokens, torch.Tensor], Attributed],
    batch_size: int | None,
) -> Generator[tuple[TokenBatch, Attributed]]:
    """Attribute batch by batch, the longest cells first; halves batches when memory runs out.

    Parameters
    ----------
    prepared
        Model, proteins, device.
    aligned, expression
        Rows and their normalised expression, CSR float32, shape (n, V).
    attribute
        Given the tokens of a batch and the proteins' indices.
    batch_size
        Most rows in a batch; None for as many as suit the device.

    Yields
    ------
    A batch and its attributions; rows that express nothing come in none.
    """
    import torch

    device = prepared.device
    model = prepared.checkpoint.translator.to(device)
    proteins = torch.from_numpy(prepared.proteins).to(device)
    # Not in inference mode, as predictions are: what is made in it cannot meet gradients.
    with torch.no_grad():
        tables = model.tables()
        panels = model.panels(torch.from_numpy(aligned.measured).to(device), tables)
    lengths = np.diff(expression.indptr)
    tokens = CUDA_TOKENS if device.type == "cuda" else CPU_GRADIENT_TOKENS
    waiting = np.flatnonzero(lengths)
    while len(waiting):
        rows = next(bucketed_rows(lengths[waiting], batch_size or len(waiting), tokens))
        batch = token_batch(expression, aligned.pattern, waiting[rows])
        try:
            found = attribute(_tokens(batch, panels, tables, device), proteins)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise NotEnoughMemoryError(
                    f"{device}: memory does not suffice to explain a single cell; close other "
                    "programs or use --device cpu."
                ) from error
            batch_size = len(rows) // 2
            logger.warning("out of memory; going on with batches of %d cells", batch_size)
            torch.cuda.empty_cache()
            continue
        yield batch, found
        waiting = np.delete(waiting, rows)


def _tokens(batch: TokenBatch, panels: Panels, tables: Tables, device: torch.device) -> Tokens:
    import torch

    from sclinguist_core.inference.attribution import Tokens

    return Tokens(
        torch.from_numpy(batch.genes).to(device),
        torch.from_numpy(batch.values).to(device),
        panels.of(torch.from_numpy(batch.pattern).to(device)),
        tables,
    )


def entries(expression: sparse.csr_matrix, rows: np.ndarray) -> np.ndarray:
    """Places of the entries of some rows in ``expression.data``, row after row."""
    return np.concatenate(
        [np.arange(expression.indptr[row], expression.indptr[row + 1]) for row in rows]
    )
