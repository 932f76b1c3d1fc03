"""Run a translator over cells in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.batches import bucketed_rows, token_batch
from sclinguist_core.model.translator import Tables, Translation, Translator


def translations(
    model: Translator,
    rna: AlignedRna,
    gene_share: np.ndarray,
    tables: Tables,
    *,
    batch_size: int,
    max_tokens: int,
    proteins: torch.Tensor | None = None,
) -> Iterator[tuple[np.ndarray, Translation]]:
    """Translate cells where the model is; gradients and training mode are the caller's choice.

    Parameters
    ----------
    model
        The network, on any device.
    rna
        Counts over its genes.
    gene_share
        Reference expression of the genes, shape (V,).
    tables
        `Translator.tables` of the model.
    batch_size, max_tokens
        Most cells, and most tokens with padding, of a batch.
    proteins
        Indices of the proteins to predict, on the model's device; all by default.

    Yields
    ------
    Rows of a batch, int64, and what the model says of them.
    """
    device = model.gene_embedding.device
    expression = rna.expression(gene_share, model.config.rna_normalization)
    panels = model.panels(torch.from_numpy(rna.measured).to(device), tables)
    for rows in bucketed_rows(np.diff(expression.indptr), batch_size, max_tokens):
        batch = token_batch(expression, rna.pattern, rows)
        yield (
            rows,
            model(
                torch.from_numpy(batch.genes).to(device),
                torch.from_numpy(batch.values).to(device),
                panels.of(torch.from_numpy(batch.pattern).to(device)),
                tables,
                proteins,
            ),
        )
