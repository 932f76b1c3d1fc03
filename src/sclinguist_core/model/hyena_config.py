"""Sizes of the published scLinguist architecture, without anything heavy behind them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import ceil
from typing import Any

from sclinguist_core.model.config import dataclass_from_dict

PUBLISHED_GENES = 19_202
PUBLISHED_PROTEINS = 6_427
RNA_NORMALIZATION = "log1p_cp10k"
PROTEIN_NORMALIZATION = "minmax"
PARTS = ("encoder", "bridge", "decoder")
"""Parts of the network, in the order in which a cell passes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HyenaConfig:
    """Sizes of a `HyenaTranslator`; the defaults are those of the published scLinguist.

    Genes and proteins have a fixed order: the architecture knows a gene by its position alone.

    Attributes
    ----------
    n_genes, n_proteins
        Length of the two sequences.
    width
        Width of a position.
    n_layers
        Hyena blocks of the encoder, and of the decoder.
    expansion
        Hidden width of a block's perceptron in units of `width`.
    short_width
        Taps of the short convolution.
    position_features
        Features of a position that the long filter is made from: time, cosines, sines (odd).
    filter_width, filter_depth
        Hidden width of the sine perceptron that makes the long filter, and its hidden layers
        after the first.
    bridge_layers
        Linear layers of the perceptron over the gene axis.
    bridge_dropout
        Dropout inside it.
    rna_normalization, protein_normalization
        Names of what goes in and comes out: ``log1p`` CP10k over the model's genes, and per-cell
        min-max of the protein panel.
    parts
        Parts that there are, of `PARTS`. Pretraining on one modality leaves one: the encoder (the
        number of proteins means nothing then) or the decoder (likewise the number of genes).
    """

    n_genes: int = PUBLISHED_GENES
    n_proteins: int = PUBLISHED_PROTEINS
    width: int = 128
    n_layers: int = 1
    expansion: int = 4
    short_width: int = 3
    position_features: int = 5
    filter_width: int = 64
    filter_depth: int = 2
    bridge_layers: int = 2
    bridge_dropout: float = 0.1
    rna_normalization: str = RNA_NORMALIZATION
    protein_normalization: str = PROTEIN_NORMALIZATION
    parts: tuple[str, ...] = PARTS

    def __post_init__(self) -> None:
        for name in ("n_genes", "n_proteins"):  # positions run from 0 to 1: one is none
            if getattr(self, name) < 2:
                raise ValueError(f"{name}: expected at least 2, found {getattr(self, name)}")
        for name in (
            "width", "n_layers", "expansion", "short_width", "filter_width", "bridge_layers",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.filter_depth < 0:
            raise ValueError(f"filter_depth: expected at least 0, found {self.filter_depth}")
        if self.position_features < 3 or self.position_features % 2 == 0:
            raise ValueError(
                "position_features: expected an odd number from 3 (time, cosines, sines), found "
                f"{self.position_features}"
            )
        if not 0 <= self.bridge_dropout < 1:
            raise ValueError(f"bridge_dropout: expected 0 <= p < 1, found {self.bridge_dropout}")
        for name, expected in (
            ("rna_normalization", RNA_NORMALIZATION),
            ("protein_normalization", PROTEIN_NORMALIZATION),
        ):
            if getattr(self, name) != expected:
                raise ValueError(
                    f"{name}: the published architecture is trained on {expected!r}, found "
                    f"{getattr(self, name)!r}"
                )
        if not self.parts or self.parts != tuple(part for part in PARTS if part in self.parts):
            raise ValueError(
                f"parts: expected some of {', '.join(PARTS)}, in this order, found {self.parts!r}"
            )

    @property
    def bridge_sizes(self) -> tuple[int, ...]:
        """Sizes along the gene axis, such as (19202, 11110, 6427): geometric, rounded up."""
        ratio = (self.n_genes / self.n_proteins) ** (1 / self.bridge_layers)
        hidden = (ceil(self.n_genes / ratio**i) for i in range(1, self.bridge_layers))
        return (self.n_genes, *hidden, self.n_proteins)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, source: str = "config") -> HyenaConfig:
        """Build from a mapping; unknown keys are errors that name the nearest known one."""
        # JSON has lists where frozen dataclasses have tuples.
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return dataclass_from_dict(cls, values, source=source)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as written to ``config.json``."""
        return dataclasses.asdict(self)
