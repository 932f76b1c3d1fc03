"""What latents attend to: tokens of expressed genes, and of measured proteins.

Shape suffixes as in `sclinguist_core.model.translator`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.layers import FeedForward, attention, merge_heads, split_heads

_VALUE_RANGE = (0.0, 6.0)  # log1p CP10k rarely exceeds it; soft bins span it
_ABUNDANCE_RANGE = (-4.0, 4.0)  # standardised abundance


class ValueFeatures(nn.Module):
    """Soft bins of a value: a small basis in which effects of expression are linear."""

    centers: Tensor

    def __init__(self, n_features: int, limits: tuple[float, float] = _VALUE_RANGE) -> None:
        super().__init__()
        self.limits = limits
        self.register_buffer("centers", torch.linspace(*limits, n_features), persistent=False)
        self.width = (limits[1] - limits[0]) / max(n_features - 1, 1)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Shape (B, T) -> (B, T, F); each token's features sum to about one."""
        return F.relu(1.0 - (x_BT.clamp(*self.limits)[..., None] - self.centers).abs() / self.width)


class Reader(nn.Module):
    """Base of what latents read: attention to keys and values of tokens."""

    n_heads: int
    query_norm: nn.LayerNorm
    query: nn.Linear
    out: nn.Linear
    feed_forward: FeedForward

    def _attend(self, latents_BLD: Tensor, key_value_BT2D: Tensor, seen_BT: Tensor) -> Tensor:
        """Return updated latents (B, L, D); only tokens that are `seen` count."""
        k, v = (split_heads(part, self.n_heads) for part in key_value_BT2D.chunk(2, dim=-1))
        q = split_heads(self.query(self.query_norm(latents_BLD)), self.n_heads)
        read = attention(q, k, v, seen_BT[:, None, None, :].expand(-1, -1, q.shape[2], -1))
        return self.feed_forward(latents_BLD + self.out(merge_heads(read)))


class TokenReader(Reader):
    """Latents attend to the tokens of a cell's expressed genes."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.gene_norm = nn.LayerNorm(config.gene_dim)
        self.gene_to_key_value = nn.Linear(config.gene_dim, 2 * config.width)
        self.features = ValueFeatures(config.value_dim)
        self.value_to_key_value = nn.Linear(config.value_dim, 2 * config.width, bias=False)
        self.value_gain = nn.Linear(config.value_dim, 1)
        self.query_norm = nn.LayerNorm(config.width)
        self.query = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.feed_forward = FeedForward(config.width, dropout=config.dropout)

    def gene_table(self, embedding_VG: Tensor) -> Tensor:
        """Key and value of every gene, before its expression is known, shape (V, 2 D)."""
        return self.gene_to_key_value(self.gene_norm(embedding_VG))

    def forward(
        self, latents_BLD: Tensor, table_V2D: Tensor, genes_BT: Tensor, x_BT: Tensor
    ) -> Tensor:
        """Return updated latents (B, L, D); tokens with a negative gene index are padding."""
        seen_BT = genes_BT >= 0
        features_BTF = self.features(x_BT)
        gene_BT2D = F.embedding(genes_BT.clamp(min=0), table_V2D)
        token_BT2D = gene_BT2D * (1.0 + self.value_gain(features_BTF)) + self.value_to_key_value(
            features_BTF
        )
        return self._attend(latents_BLD, token_BT2D, seen_BT)


class ProteinReader(Reader):
    """Read the measured proteins of a cell, linearly and by attention, as genes are read."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.protein_to_read = nn.Linear(config.width, config.gene_dim, bias=False)
        self.token_norm = nn.LayerNorm(config.width)
        self.protein_to_key_value = nn.Linear(config.width, 2 * config.width)
        self.features = ValueFeatures(config.value_dim, _ABUNDANCE_RANGE)
        # What a level means differs between proteins: features enter the token before the norm.
        self.value_to_token = nn.Linear(config.value_dim, config.width, bias=False)
        self.value_gain = nn.Linear(config.value_dim, config.width)
        self.query_norm = nn.LayerNorm(config.width)
        self.query = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.feed_forward = FeedForward(config.width, dropout=config.dropout)

    def linear_read(self, query_PD: Tensor, proteins_BT: Tensor, x_BT: Tensor) -> Tensor:
        """Sum of abundance times an embedding of the protein, shape (B, G)."""
        seen_BT = proteins_BT >= 0
        read_BG = F.embedding_bag(
            proteins_BT.clamp(min=0),
            self.protein_to_read(query_PD),
            per_sample_weights=x_BT.masked_fill(~seen_BT, 0.0),
            mode="sum",
        )
        # Panels have 3 to 200 proteins.
        return read_BG / seen_BT.sum(dim=1, keepdim=True).clamp(min=1).sqrt()

    def forward(
        self, latents_BLD: Tensor, query_PD: Tensor, proteins_BT: Tensor, x_BT: Tensor
    ) -> Tensor:
        """Return updated latents (B, L, D); tokens with a negative protein are padding."""
        seen_BT = proteins_BT >= 0
        features_BTF = self.features(x_BT)
        protein_BTD = F.embedding(proteins_BT.clamp(min=0), query_PD)
        token_BTD = protein_BTD * (1.0 + self.value_gain(features_BTF)) + self.value_to_token(
            features_BTF
        )
        key_value_BT2D = self.protein_to_key_value(self.token_norm(token_BTD))
        return self._attend(latents_BLD, key_value_BT2D, seen_BT)
