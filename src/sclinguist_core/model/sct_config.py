"""Sizes of the sCT (sCellTransformer) architecture, without anything heavy behind them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sclinguist_core.data.levels import N_LEVELS
from sclinguist_core.model.config import dataclass_from_dict

PUBLISHED_CELLS = 50
PUBLISHED_GENES = 19_968
MASK, PAD = N_LEVELS, N_LEVELS + 1
"""Tokens of a hidden gene, and of one that was not measured; the others are levels."""
N_TOKENS = N_LEVELS + 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SctConfig:
    """Sizes of an `SctModel`; the defaults are those of the published sCT as far as it tells them.

    Published are cells, genes, tokens, halvings, width, layers and heads of the transformer, and
    79.2 million weights in all. Widths of the embedding, the stem, the tower and the feed-forward
    layers are ours; they were chosen so that the sum (79.0 million) is about that.

    Attributes
    ----------
    n_cells
        Cells of a bag.
    n_genes
        Positions of a cell, a multiple of ``2 ** n_halvings``. Genes have a fixed order: the
        architecture knows a gene by its position alone. Positions after the last gene hold
        ``PAD``.
    token_width
        Width of the embedding of a token.
    stem_width
        Width of a position before the first halving.
    stem_taps
        Taps of the convolution that makes it (odd).
    n_halvings
        Convolutions of the tower, each of which halves the sequence. Widths grow evenly from
        `stem_width` to `width`.
    width
        Width of the transformer.
    n_layers, n_heads
        Of the transformer; the width of a head must be even (rotary positions turn pairs).
    feed_forward_width
        Hidden width of its gated feed-forward layers.
    recompute
        Whether training computes activations twice to hold fewer; changes no result.
    rna_normalization
        Name of what is cut into levels: ``log1p`` CP10k over the model's genes.
    """

    n_cells: int = PUBLISHED_CELLS
    n_genes: int = PUBLISHED_GENES
    token_width: int = 16
    stem_width: int = 64
    stem_taps: int = 15
    n_halvings: int = 8
    width: int = 1024
    n_layers: int = 4
    n_heads: int = 16
    feed_forward_width: int = 2176
    recompute: bool = False
    rna_normalization: str = "log1p_cp10k"

    def __post_init__(self) -> None:
        for name in (
            "n_cells", "n_genes", "token_width", "stem_width", "stem_taps", "n_halvings", "width",
            "n_layers", "n_heads", "feed_forward_width",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.n_halvings > 30:
            raise ValueError(f"n_halvings: expected at most 30, found {self.n_halvings}")
        if self.stem_taps % 2 == 0:
            raise ValueError(f"stem_taps: expected an odd number, found {self.stem_taps}")
        if self.n_genes % self.genes_per_token:
            nearest = -(-self.n_genes // self.genes_per_token) * self.genes_per_token
            raise ValueError(
                f"n_genes: {self.n_genes} is no multiple of {self.genes_per_token} (2 to the power "
                f"of n_halvings), so that tokens would straddle cells; set it to {nearest}"
            )
        if self.width % (2 * self.n_heads):
            raise ValueError(
                f"width: {self.width} is no multiple of {2 * self.n_heads} (twice n_heads)"
            )

    @property
    def genes_per_token(self) -> int:
        """Positions that one token of the transformer stands for."""
        return 2**self.n_halvings

    @property
    def tokens_per_cell(self) -> int:
        """Tokens of the transformer that stand for one cell."""
        return self.n_genes // self.genes_per_token

    @property
    def tower_widths(self) -> tuple[int, ...]:
        """Widths before the first halving and after each, such as (64, 184, ..., 1024)."""
        step = (self.width - self.stem_width) / self.n_halvings
        return tuple(round(self.stem_width + i * step) for i in range(self.n_halvings + 1))

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, source: str = "config") -> SctConfig:
        """Build from a mapping; unknown keys are errors that name the nearest known one."""
        return dataclass_from_dict(cls, values, source=source)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as written to ``config.json``."""
        return dataclasses.asdict(self)
