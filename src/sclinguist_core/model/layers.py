"""Attention and the blocks built from it.

Shape suffixes: B cells, T tokens, L latents, Q queries, S keys, H heads, E width of a head,
D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attention(
    q_BHQE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, mask_B1QS: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention, shape (B, H, Q, E).

    `mask_B1QS` is True where a query may look; Q may be 1 for a mask that all queries share, which
    is then not copied for each. A query that may look nowhere returns zeros (SDPA alone would
    return NaN): a cell without a single expressed gene is a cell, not an error.
    """
    if mask_B1QS is None:
        return F.scaled_dot_product_attention(q_BHQE, k_BHSE, v_BHSE)
    blind = ~mask_B1QS.any(dim=-1, keepdim=True)
    out = F.scaled_dot_product_attention(q_BHQE, k_BHSE, v_BHSE, attn_mask=mask_B1QS | blind)
    return out.masked_fill(blind, 0.0)


def attention_reference(
    q_BHQE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, mask_B1QS: Tensor | None = None
) -> Tensor:
    """Return the same as `attention`, written out: the reference of its parity test."""
    logits = q_BHQE @ k_BHSE.transpose(-1, -2) / q_BHQE.shape[-1] ** 0.5
    if mask_B1QS is not None:
        logits = logits.masked_fill(~mask_B1QS, -torch.inf)
    weights = torch.nan_to_num(logits.softmax(dim=-1))
    return weights @ v_BHSE


def in_cached_blocks(function: Callable[..., Tensor], n_rows: int, *tensors: Tensor) -> Tensor:
    """Apply a function to blocks of rows on a processor, so that what it makes stays in the cache.

    Where gradients are wanted everything is kept anyway, and elsewhere one call is faster: the
    function is applied to all rows at once then.

    Parameters
    ----------
    function
        Of the blocks of `tensors`; each row of its result depends on that row alone.
    n_rows
        Rows of a block; at least one is taken.
    tensors
        Arguments with the same number of rows.
    """
    n_rows = max(n_rows, 1)
    if torch.is_grad_enabled() or tensors[0].device.type != "cpu" or len(tensors[0]) <= n_rows:
        return function(*tensors)
    blocks = zip(*(tensor.split(n_rows) for tensor in tensors), strict=True)
    return torch.cat([function(*block) for block in blocks])


def split_heads(x_BSD: Tensor, n_heads: int) -> Tensor:
    """(B, S, D) -> (B, H, S, E)."""
    b, s, d = x_BSD.shape
    return x_BSD.view(b, s, n_heads, d // n_heads).transpose(1, 2)


def merge_heads(x_BHSE: Tensor) -> Tensor:
    """(B, H, S, E) -> (B, S, D)."""
    b, h, s, e = x_BHSE.shape
    return x_BHSE.transpose(1, 2).reshape(b, s, h * e)


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron with a residual path."""

    def __init__(self, width: int, *, expansion: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., D) in and out."""
        return x + self.dropout(self.down(F.gelu(self.up(self.norm(x)))))


class SelfAttention(nn.Module):
    """Pre-norm self-attention over latents, followed by a feed-forward block."""

    def __init__(self, width: int, n_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(width, dropout=dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Shape (B, L, D) in and out."""
        q, k, v = (
            split_heads(part, self.n_heads) for part in self.qkv(self.norm(x_BLD)).chunk(3, dim=-1)
        )
        x_BLD = x_BLD + self.dropout(self.out(merge_heads(attention(q, k, v))))
        return self.feed_forward(x_BLD)
