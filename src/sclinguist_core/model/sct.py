"""The sCT architecture (sCellTransformer, Joshi et al. 2025): hidden genes of a bag of cells.

A bag of 50 cells is one sequence: the genes of the first cell in a fixed order, those of the
second, and so on, 998,400 positions that hold one of five levels, or say that a gene is hidden or
was not measured. A convolutional tower halves the sequence eight times, a transformer lets the
3,900 tokens that are left look at each other, across genes and cells, and a mirrored tower of
transposed convolutions, which sees again what went down on its own floor, leads back to a guess at
each position. There is no gene embedding: position is what tells genes apart.

Written from the published description. Halving is done by convolutions of stride 2; everything but
convolutions and attention looks at one position at a time. A token stands for 256 genes of one
cell, and sees a little beyond them.

Shape suffixes: B bags, C cells of a bag, G genes, L = C G positions, T tokens of the transformer,
Q chosen positions, N levels and special tokens, D width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sclinguist_core.data.levels import N_LEVELS
from sclinguist_core.model.sct_config import N_TOKENS, PAD, SctConfig
from sclinguist_core.model.sct_layers import DownBlock, TransformerBlock, UpBlock, rotary_angles


class SctModel(nn.Module):
    """Predict hidden levels of expression from a bag of cells.

    Parameters
    ----------
    config
        Sizes; the defaults are the published ones (79 million weights).
    """

    def __init__(self, config: SctConfig) -> None:
        super().__init__()
        self.config = config
        # What was not measured is an empty position, as those beyond the ends of the sequence.
        self.embedding = nn.Embedding(N_TOKENS, config.token_width, padding_idx=PAD)
        self.stem = nn.Conv1d(
            config.token_width, config.stem_width, config.stem_taps, padding="same"
        )
        floors = list(pairwise(config.tower_widths))
        self.down = nn.ModuleList(DownBlock(*widths) for widths in floors)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.n_heads, config.feed_forward_width)
            for _ in range(config.n_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.up = nn.ModuleList(UpBlock(wide, narrow) for narrow, wide in reversed(floors))
        self.head_norm = nn.LayerNorm(config.stem_width)
        self.head = nn.Linear(config.stem_width, N_TOKENS)

    def forward(self, tokens_BCG: Tensor, asked_BQ: Tensor | None = None) -> Tensor:
        """Predict what stands at each position.

        Parameters
        ----------
        tokens_BCG
            Levels 0 to 4, ``MASK`` where hidden, ``PAD`` where not measured; any integer type.
            Bags may have any number of cells.
        asked_BQ
            Positions ``cell * G + gene`` to answer for, int64; all when None.

        Returns
        -------
        Logits of the N tokens, shape (B, C, G, N), or (B, Q, N) for chosen positions. The first
        five are the levels; the others are never right.
        """
        x_BTD, skips = self._encode(tokens_BCG)
        for block in self.up:
            x_BTD = self._run(block, x_BTD, skips.pop())
        if asked_BQ is not None:
            x_BTD = x_BTD.gather(1, asked_BQ[..., None].expand(-1, -1, x_BTD.shape[2]))
            return self.head(self.head_norm(x_BTD))
        return self.head(self.head_norm(x_BTD)).view(*tokens_BCG.shape, N_TOKENS)

    def embed(self, tokens_BCG: Tensor) -> Tensor:
        """Embed cells: mean of the transformer's tokens that stand for a cell, (B, C, D)."""
        x_BTD, _ = self._encode(tokens_BCG)
        return x_BTD.unflatten(1, (tokens_BCG.shape[1], -1)).mean(dim=2)

    def _encode(self, tokens_BCG: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens of the transformer, and what enters each halving."""
        embedded = self.embedding(tokens_BCG.flatten(1).int())
        x = self.stem(embedded.transpose(1, 2)).transpose(1, 2).contiguous()
        skips = []
        for block in self.down:
            skips.append(x)
            x = self._run(block, x)
        angles = rotary_angles(x.shape[1], self.config.width // self.config.n_heads, x.device)
        x = x.float()  # under autocast the towers' sums are in half precision; these are not
        for block in self.blocks:
            x = self._run(block, x, angles)
        return self.norm(x), skips

    def _run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        if self.config.recompute and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(block, *inputs, use_reentrant=False))
        return cast(Tensor, block(*inputs))


def level_probabilities(logits: Tensor) -> Tensor:
    """Probability of each level, float32, shape (..., 5); the special tokens are left out."""
    return F.softmax(logits[..., :N_LEVELS].float(), dim=-1)
