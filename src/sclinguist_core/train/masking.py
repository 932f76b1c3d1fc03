"""How much is hidden in pretraining on one modality."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """The ``masking`` section of a recipe.

    Attributes
    ----------
    gene_rate
        Share of a cell's expressed genes that are hidden. Of the genes that it does not express a
        tenth of that share is hidden too, though never more than of the expressed ones.
    max_genes
        Hidden genes of a cell that are decoded (a random subset); the rest is just hidden.
    level_weight
        Weight of the loss of the level beside that of the value.
    protein_rate
        Share of a cell's proteins that are hidden.
    """

    gene_rate: float = 0.3
    max_genes: int = 128
    level_weight: float = 0.3
    protein_rate: float = 0.3

    def __post_init__(self) -> None:
        for name in ("gene_rate", "protein_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: expected between 0 and 1, found {getattr(self, name)}")
        if self.max_genes < 1:
            raise ValueError(f"max_genes: expected at least 1, found {self.max_genes}")
        if self.level_weight < 0:
            raise ValueError(f"level_weight: expected at least 0, found {self.level_weight}")
