"""Run a translator over cells in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.batches import bucketed_rows
from sclinguist_core.model.feed import Cells
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
    cells = Cells(values=expression, pattern=rna.pattern)
    panels = model.panels(torch.from_numpy(rna.measured).to(device), tables)
    for rows in bucketed_rows(cells.lengths, batch_size, max_tokens):
        tokens = cells.tokens(rows, device)
        panel = panels.of(tokens.pattern)
        yield rows, model(tokens.genes, tokens.values, panel, tables, proteins)
