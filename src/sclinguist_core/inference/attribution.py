"""What a translator's prediction owes to each expressed gene of a cell: two methods.

*Integrated gradients* (Sundararajan et al., ICML 2017): the gradient with respect to a gene's
normalised expression, averaged on the straight way from a cell whose genes are all at zero to the
cell itself, times the expression. The parts add up to the difference of the two predictions. The
start of the way keeps the tokens of the expressed genes, with the value zero. Which tokens are
there makes starts of the bundled model differ by about a thousandth of what its predictions differ
by, so that the start is, in effect, a cell that expresses nothing.

*Attention x value*: how far a protein's query looks at a gene through decoder, latents and reader
(attention rollout: Abnar & Zuidema, ACL 2020), times the gene's expression. It sees one of the
model's heads alone and knows no sign; one pass, no gradients.

Shape suffixes as in `sclinguist_core.model.translator`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

from sclinguist_core.model.layers import split_heads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sclinguist_core.model.layers import SelfAttention
    from sclinguist_core.model.translator import Panels, Tables, Translator


class Inputs(NamedTuple):
    """Cells as the network reads them."""

    genes_BT: Tensor
    x_BT: Tensor
    panel: Panels
    tables: Tables


class Attributed(NamedTuple):
    """Attributions of B cells, and the network's mean for them and for the start of the way."""

    values_PBT: Tensor
    mean_BP: Tensor
    start_BP: Tensor


def integrated_gradients(
    model: Translator, cells: Inputs, proteins: Tensor, *, steps: int
) -> Attributed:
    """Attribute the network's means to the cells' genes; they add up to ``mean - start``.

    Parameters
    ----------
    model, cells
        In evaluation mode; made without inference mode, which forbids gradients.
    proteins
        Indices, int64, shape (P,).
    steps
        Points on the way, each in the middle of its stretch.
    """
    import torch

    genes_BT, x_BT, panel, tables = cells
    summed_PBT = x_BT.new_zeros(len(proteins), *x_BT.shape)
    for step in range(steps):
        with torch.enable_grad():
            on_way_BT = (x_BT * ((step + 0.5) / steps)).requires_grad_(True)
            mean_BP = model(genes_BT, on_way_BT, panel, tables, proteins).mean
            for i in range(len(proteins)):
                last = i == len(proteins) - 1
                # Cells do not meet in the network: the sum's gradient is that of every cell.
                (slope_BT,) = torch.autograd.grad(
                    mean_BP[:, i].sum(), on_way_BT, retain_graph=not last
                )
                summed_PBT[i] += slope_BT
    with torch.no_grad():
        mean_BP = model(genes_BT, x_BT, panel, tables, proteins).mean
        start_BP = model(genes_BT, torch.zeros_like(x_BT), panel, tables, proteins).mean
    return Attributed(summed_PBT * (x_BT / steps), mean_BP, start_BP)


def attention_times_value(model: Translator, cells: Inputs, proteins: Tensor) -> Attributed:
    """Attention of each protein's query to each gene, times the gene's expression; no sign."""
    import torch

    genes_BT, x_BT, panel, tables = cells
    with torch.no_grad():
        read = model.reader.query
        blocks = cast("list[SelfAttention]", list(model.layers))
        mixed = [block.qkv for block in blocks]
        decoded = [model.decoder.query, model.decoder.key_value]
        with _outputs_of([read, *mixed, *decoded]) as said:
            mean_BP = model(genes_BT, x_BT, panel, tables, proteins).mean
        q_BLD = said[read]
        key_BTD, _ = model.reader.tokens(tables.token, genes_BT, x_BT).chunk(2, dim=-1)
        seen_BT = genes_BT >= 0
        looks_BLT = _attention(q_BLD, key_BTD, model.reader.n_heads, seen_BT)
        for block, module in zip(blocks, mixed, strict=True):
            q_BLD, key_BLD, _ = said[module].chunk(3, dim=-1)
            among_BLL = _attention(q_BLD, key_BLD, block.n_heads)
            # Half of what leaves a block is what entered it: the residual path.
            looks_BLT = 0.5 * looks_BLT + 0.5 * among_BLL @ looks_BLT
        q_1PD, (key_BLD, _) = said[decoded[0]], said[decoded[1]].chunk(2, dim=-1)
        q_BPD = q_1PD.expand(len(x_BT), -1, -1)
        looks_BPT = _attention(q_BPD, key_BLD, model.decoder.n_heads) @ looks_BLT
        values_PBT = looks_BPT.transpose(0, 1) * x_BT
    return Attributed(values_PBT, mean_BP, torch.full_like(mean_BP, torch.nan))


def _attention(q_BQD: Tensor, k_BSD: Tensor, n_heads: int, seen_BS: Tensor | None = None) -> Tensor:
    """Attention weights, mean over the heads, shape (B, Q, S); 0 where nothing is seen."""
    import torch

    q, k = split_heads(q_BQD, n_heads), split_heads(k_BSD, n_heads)
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if seen_BS is not None:
        logits = logits.masked_fill(~seen_BS[:, None, None, :], -torch.inf)
    return torch.nan_to_num(logits.softmax(dim=-1)).mean(dim=1)


@contextmanager
def _outputs_of(modules: list[nn.Linear]) -> Iterator[dict[nn.Module, Tensor]]:
    """Keep what some modules of a network say while it runs."""
    said: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        said[module] = output

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield said
    finally:
        for handle in handles:
            handle.remove()
