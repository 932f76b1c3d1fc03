"""Blocks of the sCT architecture: halvings, doublings, and a transformer with rotary positions.

A position is a vector of channels, and everything but the two convolutions looks at one position
at a time. Sequences are therefore kept with the channels last, where normalisation and linear maps
want them; a convolution of stride 2 is three products of matrices on pairs of positions, without
a copy of the windows and without moving the channels.

Shape suffixes: B bags, L positions, T tokens of the transformer, H heads, E width of a head,
D width, C channels in, O channels out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sclinguist_core.model.layers import attention, merge_heads, split_heads

TAPS = 5
"""Positions that a halving or a doubling looks at."""
ROTARY_BASE = 10_000.0


class Halve(nn.Module):
    """Convolution of 5 taps and stride 2: half as many positions."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, TAPS, n_in) * (TAPS * n_in) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Shape (B, L, C) to (B, L / 2, O); beyond the ends are zeros."""
        b, length, n_in = x_BLC.shape
        pairs = x_BLC.reshape(b, length // 2, 2 * n_in)
        taps = self.weight.flatten(1)  # (O, 5 C); position 2 j is tap 2 of output j
        y = F.linear(pairs, taps[:, 2 * n_in : 4 * n_in], self.bias)
        before = F.linear(pairs[:, :-1], taps[:, : 2 * n_in])
        after = F.linear(pairs[:, 1:, :n_in], taps[:, 4 * n_in :])
        y[:, 1:] += before
        y[:, :-1] += after
        return y


class Double(nn.Module):
    """Transposed convolution of 5 taps and stride 2, the mirror of `Halve`."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        # Every second output sees three taps, the others two.
        self.weight = nn.Parameter(torch.randn(TAPS, n_out, n_in) * (TAPS / 2 * n_in) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Shape (B, L, C) to (B, 2 L, O); beyond the ends are zeros."""
        b, length, _ = x_BLC.shape
        n_out = len(self.bias)
        # An input reaches both outputs of its own pair, both of the pair before, one of the next.
        y = F.linear(x_BLC, self.weight[2:4].flatten(0, 1), self.bias.repeat(2))
        before = F.linear(x_BLC[:, 1:], self.weight[:2].flatten(0, 1))
        after = F.linear(x_BLC[:, :-1], self.weight[4])
        y[:, :-1] += before
        y[:, 1:, :n_out] += after
        return y.view(b, 2 * length, n_out)


class Pointwise(nn.Module):
    """Residual map of each position by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Shape (B, L, C) in and out."""
        return x_BLC + self.linear(F.gelu(self.norm(x_BLC)))


class DownBlock(nn.Module):
    """One floor of the tower: half as many positions, wider."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_in)
        self.halving = Halve(n_in, n_out)
        self.pointwise = Pointwise(n_out)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Shape (B, L, C) to (B, L / 2, O)."""
        return self.pointwise(self.halving(F.gelu(self.norm(x_BLC))))


class UpBlock(nn.Module):
    """The floor on the other side: twice as many positions, joined by what went down there."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_in)
        self.doubling = Double(n_in, n_out)
        self.pointwise = Pointwise(n_out)

    def forward(self, x_BLC: Tensor, skip_BLO: Tensor) -> Tensor:
        """Shape (B, L, C) and (B, 2 L, O) to (B, 2 L, O)."""
        return self.pointwise(self.doubling(F.gelu(self.norm(x_BLC))) + skip_BLO)


def rotary_angles(n_tokens: int, width: int, device: torch.device) -> Tensor:
    """Angle by which each pair of channels is turned, float32, shape (T, E / 2).

    Su et al. 2021, RoFormer.
    """
    pair = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    token = torch.arange(n_tokens, device=device, dtype=torch.float32)
    return token[:, None] * ROTARY_BASE ** (-pair / width)


def rotate(x_BHTE: Tensor, angles_TE: Tensor) -> Tensor:
    """Turn pairs of channels (channel i with channel i + E / 2); products see distances alone."""
    # In float32: at 4,000 tokens half precision knows an angle to about a radian.
    first, second = x_BHTE.float().chunk(2, dim=-1)
    cos, sin = angles_TE.cos(), angles_TE.sin()
    turned = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return turned.to(x_BHTE.dtype)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention with rotary positions, and a SwiGLU layer (Shazeer 2020)."""

    def __init__(self, width: int, n_heads: int, feed_forward_width: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * feed_forward_width, bias=False)
        self.down = nn.Linear(feed_forward_width, width, bias=False)

    def forward(self, x_BTD: Tensor, angles_TE: Tensor) -> Tensor:
        """Shape (B, T, D) in and out."""
        q, k, v = (
            split_heads(part, self.n_heads) for part in self.qkv(self.norm(x_BTD)).chunk(3, dim=-1)
        )
        mixed = attention(rotate(q, angles_TE), rotate(k, angles_TE), v)
        x_BTD = x_BTD + self.out(merge_heads(mixed))
        gate, value = self.up(self.gate_norm(x_BTD)).chunk(2, dim=-1)
        return x_BTD + self.down(F.silu(gate) * value)
