"""Queries of proteins, or of genes, read the latents of a cell.

Shape suffixes as in `sclinguist_core.model.translator`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sclinguist_core.data.levels import N_LEVELS
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.device import CPU_CACHED_QUERIES
from sclinguist_core.model.layers import (
    FeedForward,
    attention,
    in_cached_blocks,
    merge_heads,
    split_heads,
)


class ProteinDecoder(nn.Module):
    """One query per protein reads the latents; beside it a bilinear path from the cell."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.gene_to_query = nn.Linear(config.gene_dim, config.width)
        self.query = nn.Linear(config.width, config.width)
        self.latent_norm = nn.LayerNorm(config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.feed_forward = FeedForward(config.width, dropout=config.dropout)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, 2)
        self.query_to_readout = nn.Linear(config.width, config.gene_dim)
        if config.gene_output:
            self.gene_head = nn.Linear(config.width, 1 + N_LEVELS)

    def _read(self, query_BQD: Tensor, latents_BLD: Tensor) -> Tensor:
        """Let queries of each cell, or of all (1, Q, D), read the latents; shape (B, Q, D)."""
        b = latents_BLD.shape[0]
        q = split_heads(self.query(query_BQD), self.n_heads).expand(b, -1, -1, -1)
        k, v = (
            split_heads(part, self.n_heads)
            for part in self.key_value(self.latent_norm(latents_BLD)).chunk(2, dim=-1)
        )
        x_BQD = query_BQD + self.out(merge_heads(attention(q, k, v)))
        return self.norm(self.feed_forward(x_BQD))

    def forward(self, query_PD: Tensor, latents_BLD: Tensor, trunk_BG: Tensor) -> Tensor:
        """Return the mean and the raw scale of each protein, shape (B, P, 2)."""

        def read(latents_BLD: Tensor) -> Tensor:
            return self.head(self._read(query_PD[None], latents_BLD))

        raw_BP2 = in_cached_blocks(read, CPU_CACHED_QUERIES // len(query_PD), latents_BLD)
        bilinear_BP = trunk_BG @ self.query_to_readout(query_PD).T / trunk_BG.shape[1] ** 0.5
        return raw_BP2 + F.pad(bilinear_BP[..., None], (0, 1))

    def genes(self, query_BQD: Tensor, latents_BLD: Tensor, trunk_BG: Tensor) -> Tensor:
        """Return value and level logits of each cell's own queries, shape (B, Q, 1 + N)."""
        raw = self.gene_head(self._read(query_BQD, latents_BLD))
        readout_BQG = self.query_to_readout(query_BQD)
        bilinear_BQ1 = readout_BQG @ trunk_BG[..., None] / trunk_BG.shape[1] ** 0.5
        return raw + F.pad(bilinear_BQ1, (0, N_LEVELS))
