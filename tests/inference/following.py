"""A translator whose proteins follow their own mRNA, as training would have it."""

from __future__ import annotations

from dataclasses import replace

from anndata import AnnData

from inference.untrained import untrained_checkpoint
from sclinguist_core.model.checkpoint import Checkpoint


def following_checkpoint(cells: AnnData, *, training_datasets: tuple[str, ...] = ()) -> Checkpoint:
    """Checkpoint of the cells' genes and proteins, always the same."""
    checkpoint = untrained_checkpoint(cells)
    # Enough to stand out from the random weights.
    checkpoint.translator.cognate_gain.data.fill_(3.0)
    return replace(checkpoint, info=replace(checkpoint.info, training_datasets=training_datasets))
