"""The sCT architecture in a checkpoint folder: the same files as a translator's.

The first positions of a cell belong to the rows of ``genes.tsv``, in that order; positions after
the last row are never measured. The model predicts hidden genes, so its table of proteins is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sclinguist_core.model.architectures import SCT
from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo

if TYPE_CHECKING:
    from sclinguist_core.model.sct import SctModel

UNIT = "level of expression, 0 to 4"
STAGE = "pretrain-rna"


def sct_checkpoint(
    model: SctModel,
    *,
    name: str,
    genes: pd.DataFrame,
    card: str,
    training_datasets: tuple[str, ...] = (),
    created_with: dict[str, str] | None = None,
) -> Checkpoint:
    """Make a checkpoint to save with `sclinguist_core.model.checkpoint.save_checkpoint`.

    Parameters
    ----------
    model
        The network.
    name, training_datasets, created_with
        See `CheckpointInfo`.
    genes
        Table of the first positions, columns as in a translator's checkpoint.
    card
        Markdown.
    """
    if len(genes) > model.config.n_genes:
        raise ValueError(f"genes: {len(genes)} rows, expected at most {model.config.n_genes}")
    info = CheckpointInfo(
        name=name,
        model=model.config,
        architecture=SCT,
        unit=UNIT,
        training_datasets=training_datasets,
        created_with=created_with or {},
        stage=STAGE,
    )
    no_proteins = pd.DataFrame(columns=["name", "genes", "kind"])
    return Checkpoint(model=model, info=info, genes=genes, proteins=no_proteins, card=card)
