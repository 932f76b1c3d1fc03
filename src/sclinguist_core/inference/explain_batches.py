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
from sclinguist_core.data.batches import bucketed_rows
from sclinguist_core.errors import NotEnoughMemoryError
from sclinguist_core.inference.prepare import Prepared
from sclinguist_core.model.device import CPU_GRADIENT_TOKENS
from sclinguist_core.model.feed import Cells

if TYPE_CHECKING:
    import torch

    from sclinguist_core.inference.attribution import Attributed, Inputs

logger = logging.getLogger(__name__)

CUDA_TOKENS = 524_288
"""Fewer than in a prediction: gradients keep what every layer said."""


def attributed_batches(
    prepared: Prepared,
    aligned: AlignedRna,
    expression: sparse.csr_matrix,
    attribute: Callable[[Inputs, torch.Tensor], Attributed],
    batch_size: int | None,
) -> Generator[tuple[np.ndarray, np.ndarray, Attributed]]:
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
    Rows of a batch, int64, shape (B,); where it has tokens and not padding, bool, shape (B, T);
    and its attributions. Rows that express nothing come in none.
    """
    import torch

    from sclinguist_core.inference.attribution import Inputs

    device = prepared.device
    model = prepared.checkpoint.translator.to(device)
    proteins = torch.from_numpy(prepared.proteins).to(device)
    # Not in inference mode, as predictions are: what is made in it cannot meet gradients.
    with torch.no_grad():
        tables = model.tables()
        panels = model.panels(torch.from_numpy(aligned.measured).to(device), tables)
    cells = Cells(values=expression, pattern=aligned.pattern)
    max_tokens = CUDA_TOKENS if device.type == "cuda" else CPU_GRADIENT_TOKENS
    lengths = cells.lengths
    waiting = np.flatnonzero(lengths)
    while len(waiting):
        chosen = next(bucketed_rows(lengths[waiting], batch_size or len(waiting), max_tokens))
        rows = waiting[chosen]
        try:
            tokens = cells.tokens(rows, device)
            panel = panels.of(tokens.pattern)
            found = attribute(Inputs(tokens.genes, tokens.values, panel, tables), proteins)
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
        yield rows, (tokens.genes >= 0).cpu().numpy(), found
        waiting = np.delete(waiting, chosen)


def entries(expression: sparse.csr_matrix, rows: np.ndarray) -> np.ndarray:
    """Places of the entries of some rows in ``expression.data``, row after row."""
    return np.concatenate(
        [np.arange(expression.indptr[row], expression.indptr[row + 1]) for row in rows]
    )
