"""The published architecture in a checkpoint folder: the same files as a translator's.

The first positions of the network belong to the rows of ``genes.tsv`` and ``proteins.tsv``, in that
order; positions after the last row were never trained. Weights are kept in float32: the positions
that filters are made from are too fine for half precision.
"""

from __future__ import annotations

import pandas as pd

from sclinguist_core.model.architectures import HYENA
from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo
from sclinguist_core.model.hyena import HyenaTranslator

UNIT = "min-max of the cell's protein panel"


def hyena_checkpoint(
    model: HyenaTranslator,
    *,
    name: str,
    genes: pd.DataFrame,
    proteins: pd.DataFrame,
    card: str,
    training_datasets: tuple[str, ...] = (),
    created_with: dict[str, str] | None = None,
    stage: str = "post-pretrain",
) -> Checkpoint:
    """Make a checkpoint to save with `sclinguist_core.model.checkpoint.save_checkpoint`.

    Parameters
    ----------
    model
        The network.
    name, training_datasets, created_with, stage
        See `CheckpointInfo`.
    genes, proteins
        Tables of the first positions, columns as in a translator's checkpoint.
    card
        Markdown.
    """
    if len(genes) > model.config.n_genes or len(proteins) > model.config.n_proteins:
        raise ValueError(
            f"genes, proteins: {len(genes)} and {len(proteins)} rows, expected at most "
            f"{model.config.n_genes} and {model.config.n_proteins}"
        )
    info = CheckpointInfo(
        name=name,
        model=model.config,
        architecture=HYENA,
        unit=UNIT,
        training_datasets=training_datasets,
        created_with=created_with or {},
        stage=stage,
    )
    return Checkpoint(model=model, info=info, genes=genes, proteins=proteins, card=card)
