"""What latents attend to: tokens of expressed genes, and of measured proteins.

Shape suffixes as in `sclinguist_core.model.translator`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.device import CPU_CACHED_TOKENS
from sclinguist_core.model.layers import (
    FeedForward,
    attention,
    in_cached_blocks,
    merge_heads,
    split_heads,
)

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

    def neighbours(self, x_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Lower one of the two bins that are not 0, int64, and the share of the upper, (B, T)."""
        place_BT = (x_BT.clamp(*self.limits) - self.limits[0]) / self.width
        lower_BT = place_BT.long().clamp_(max=len(self.centers) - 2)
        return lower_BT, place_BT - lower_BT


class Reader(nn.Module):
    """Base of what latents read: attention to keys and values of tokens."""

    n_heads: int
    query_norm: nn.LayerNorm
    query: nn.Linear
    out: nn.Linear
    feed_forward: FeedForward

    def _queries(self, latents_BLD: Tensor) -> Tensor:
        """Return the queries of the latents, shape (B, H, L, E)."""
        return split_heads(self.query(self.query_norm(latents_BLD)), self.n_heads)

    def _read(self, q_BHLE: Tensor, key_value_BT2D: Tensor, seen_BT: Tensor) -> Tensor:
        """Return what queries read, shape (B, H, L, E); only tokens that are `seen` count."""
        k, v = (split_heads(part, self.n_heads) for part in key_value_BT2D.chunk(2, dim=-1))
        return attention(q_BHLE, k, v, seen_BT[:, None, None, :])

    def _update(self, latents_BLD: Tensor, read_BHLE: Tensor) -> Tensor:
        """Return the latents after what they have read, shape (B, L, D)."""
        return self.feed_forward(latents_BLD + self.out(merge_heads(read_BHLE)))


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

    def table(self, embedding_VG: Tensor) -> Tensor:
        """Key and value of every gene, before its expression is known, and of every value feature.

        Shape (V + F, 2 D).
        """
        genes_V2D = self.gene_to_key_value(self.gene_norm(embedding_VG))
        return torch.cat([genes_V2D, self.value_to_key_value.weight.T])

    def forward(self, latents_BLD: Tensor, table: Tensor, genes_BT: Tensor, x_BT: Tensor) -> Tensor:
        """Return updated latents (B, L, D); tokens with a negative gene index are padding."""

        def read(q_BHLE: Tensor, genes_BT: Tensor, x_BT: Tensor) -> Tensor:
            return self._read(q_BHLE, self.tokens(table, genes_BT, x_BT), genes_BT >= 0)

        n_rows = CPU_CACHED_TOKENS // x_BT.shape[1]
        q_BHLE = self._queries(latents_BLD)
        return self._update(latents_BLD, in_cached_blocks(read, n_rows, q_BHLE, genes_BT, x_BT))

    def tokens(self, table: Tensor, genes_BT: Tensor, x_BT: Tensor) -> Tensor:
        """Key and value of each token, shape (B, T, 2 D)."""
        if not torch.is_grad_enabled() and len(self.features.centers) > 1:
            return self._tokens_at_once(table, genes_BT, x_BT)
        features_BTF = self.features(x_BT)
        gene_BT2D = F.embedding(genes_BT.clamp(min=0), table)
        gain_BT1 = 1.0 + self.value_gain(features_BTF)
        return gene_BT2D * gain_BT1 + self.value_to_key_value(features_BTF)

    def _tokens_at_once(self, table: Tensor, genes_BT: Tensor, x_BT: Tensor) -> Tensor:
        """Return the same in one pass over memory, which is what it costs; slow to differentiate.

        A token is a weighted sum of three rows of the table: its gene, and the two features of its
        value that are not 0.
        """
        n_features = len(self.features.centers)
        lower_BT, share_BT = self.features.neighbours(x_BT)
        gain_F = 1.0 + self.value_gain.weight[0] + self.value_gain.bias
        rise_F2 = torch.stack([gain_F[:-1], gain_F.diff()], dim=1)
        gain_BT, rise_BT = F.embedding(lower_BT, rise_F2).unbind(dim=-1)
        gain_BT = torch.addcmul(gain_BT, rise_BT, share_BT)
        lower_BT = lower_BT + (len(table) - n_features)
        rows = torch.stack([genes_BT.clamp(min=0), lower_BT, lower_BT + 1], dim=-1)
        weights = torch.stack([gain_BT, 1.0 - share_BT, share_BT], dim=-1)
        kind = x_BT.device.type
        # Autocast knows nothing of sums of rows; attention would halve their precision next.
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else table.dtype
        token_N2D = F.embedding_bag(
            rows.view(-1, 3),
            table.to(dtype),
            per_sample_weights=weights.view(-1, 3).to(dtype),
            mode="sum",
        )
        return token_N2D.view(*genes_BT.shape, -1)


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
        read = self._read(self._queries(latents_BLD), key_value_BT2D, seen_BT)
        return self._update(latents_BLD, read)
