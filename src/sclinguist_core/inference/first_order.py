"""What losing each gene would change, from one backward pass a cell.

A knock-out of each of a cell's 3,000 expressed genes is 3,000 runs. But a gene enters the
translator as a sum: the linear read, the state, the coding genes and the adapter's components
each add its value times a vector that is known. What the sums lose with the gene is therefore
known exactly, clipped values included; how the prediction answers to the sums is its gradient, the
same for all genes of the cell. Only two things are left out: that the answer bends, and that the
latents no longer attend to the gene. `training/benchmarks/knockout.py` states how little that is.

The plain gradient to the expression values would not do: it is zero where a value is clipped,
which is so for the strong and rare markers that are looked for.

Shape suffixes as in `sclinguist_core.model.translator`, and F components of the adapter.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sclinguist_core.data.batches import bucketed_rows
from sclinguist_core.model.device import CPU_GRADIENT_TOKENS
from sclinguist_core.model.feed import Cells, Tokens

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sclinguist_core.model.translator import Panels, Tables, Translator


def has_first_order(model: object) -> bool:
    """Tell whether genes enter a model as sums: a translator's do."""
    from sclinguist_core.model.translator import Translator

    return isinstance(model, Translator)


def first_order_iter(
    model: Translator,
    expression: sparse.csr_matrix,
    measured: np.ndarray,
    pattern: np.ndarray,
    protein: int,
    *,
    scale: float = 0.0,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Generator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Estimate how the mean of one protein changes with each gene of each cell.

    Parameters
    ----------
    model
        On the device.
    expression, measured, pattern
        As of `runner.Runner.run_expression`.
    protein
        Its position in the model.
    scale
        Factor of the expression in linear space; 0 knocks out.
    batch_size
        Most cells in a batch.
    device
        Where the model is.

    Yields
    ------
    Rows of a batch, int64, shape (B,); their genes, int64, shape (B, T), -1 where padded; the
    change of the network's mean when that gene alone is scaled, float32, shape (B, T); and the
    mean without any change, float32, shape (B,).
    """
    import torch

    device = torch.device(device)
    with torch.no_grad():
        # Not those of a Runner: what is made in inference mode cannot be differentiated through.
        tables = model.tables()
        panels = model.panels(torch.from_numpy(measured).to(device), tables)
    cells = Cells(values=expression, pattern=pattern)
    for rows in bucketed_rows(cells.lengths, batch_size or len(pattern), CPU_GRADIENT_TOKENS):
        tokens = cells.tokens(rows, device)
        change, mean = _batch(model, tables, panels, tokens, protein, scale)
        yield rows, tokens.genes.cpu().numpy(), change, mean


def _batch(
    model: Translator,
    tables: Tables,
    panels: Panels,
    tokens: Tokens,
    protein: int,
    scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the changes (B, T) and the means (B,) of a batch."""
    import torch

    genes_BT, x_BT = tokens.genes, tokens.values
    panel = panels.of(tokens.pattern)
    sums = {
        name: getattr(panel, name).detach().requires_grad_()
        for name in (field.name for field in fields(panel))
        if name != "gram" and getattr(panel, name).shape[1]
    }
    with torch.enable_grad():
        said_B1 = model(
            genes_BT,
            x_BT,
            replace(panel, **sums),
            tables,
            torch.tensor([protein], device=x_BT.device),
        ).mean
        # Cells do not see each other: the gradient of the sum is that of each.
        found = torch.autograd.grad(said_B1.sum(), list(sums.values()), allow_unused=True)
    gradient = {
        name: torch.zeros_like(value) if slope is None else slope
        for (name, value), slope in zip(sums.items(), found, strict=True)
    }
    with torch.no_grad():
        after_BT = torch.log1p(scale * torch.expm1(x_BT))
        change_BT = _answer(model, tables, gradient, genes_BT, x_BT, after_BT)
    return change_BT.float().cpu().numpy(), said_B1.detach().float().cpu().numpy()[:, 0]


def _answer(
    model: Translator,
    tables: Tables,
    gradient: dict[str, Tensor],
    genes_BT: Tensor,
    x_BT: Tensor,
    after_BT: Tensor,
) -> Tensor:
    """Gradients to the sums times what each gene's new value adds to them, shape (B, T)."""
    import torch
    from torch.nn import functional as F

    index_BT = genes_BT.clamp(min=0)
    clip = model.config.clip

    def standardised(value_BT: Tensor) -> Tensor:
        z_BT = (value_BT - model.gene_mean[index_BT]) / model.gene_std[index_BT]
        # A gene that is not expressed is no token: its standardised value is that of the panel.
        return torch.where(value_BT > 0, z_BT.clamp(-clip, clip), tables.zero[index_BT])

    def along(weight_VG: Tensor, slope_BG: Tensor) -> Tensor:
        """Product of each gene's weights with the gradient: all genes at once, no (B, T, G)."""
        return (slope_BG @ weight_VG.float().T).gather(1, index_BT)

    moved_BT = standardised(after_BT) - standardised(x_BT)
    slope_BT = model.gene_weight[index_BT] * along(model.gene_embedding, gradient["read"])
    coding_BC = F.pad(gradient["coding"], (0, 1))
    slope_BT = slope_BT + coding_BC.gather(1, model.coding_column[index_BT])
    if model.state is not None:
        slope_BT = slope_BT + along(model.state.loadings, gradient["state"])
    change_BT = moved_BT * slope_BT
    if model.adapter is not None:
        change_BT = change_BT + (after_BT - x_BT) * along(model.adapter.basis, gradient["own"])
    return change_BT.masked_fill(genes_BT < 0, 0.0)
