"""More proteins for a trained model."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch

from sclinguist_core.model import conditioning as conditionings
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.calibration import extended
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.config import TranslatorConfig

UNCALIBRATED = {"trust": "untested", "slope": 1.0, "interval": 1.645}
"""What prediction assumes of a protein of which nothing else is known."""


def add_proteins(
    checkpoint: Checkpoint, proteins: pd.DataFrame, config: TranslatorConfig | None = None
) -> Checkpoint:
    """Rebuild a model with further proteins, and with the optional parts of another configuration.

    A new protein has no embedding of its own: its query is made from its coding genes alone, as
    far as the model knows them.

    Parameters
    ----------
    checkpoint
        The model; it is not changed.
    proteins
        Rows to add to its table: ``name``, ``genes``, ``kind``. May be empty.
    config
        The same sizes, with further parts, such as the adapter.

    Returns
    -------
    Checkpoint
        With the columns ``trust``, ``slope`` and ``interval`` in its table of proteins. What is
        new and has no counterpart in the old weights has its initial value.
    """
    config = config or checkpoint.translator.config
    table = pd.concat([checkpoint.proteins, proteins[["name", "genes", "kind"]]], ignore_index=True)
    for column, default in UNCALIBRATED.items():
        if column not in table:
            table[column] = default
        table[column] = table[column].fillna(default)
    if "heldout_r" in table:
        table["heldout_r"] = table["heldout_r"].astype(object).where(table["heldout_r"].notna(), "")
    model = build_translator(config, checkpoint.genes, table)
    state = model.state_dict()
    n_old = len(checkpoint.proteins)
    with torch.no_grad():
        for name, weight in checkpoint.model.state_dict().items():
            # What differs in shape has one row a protein; new rows keep their initial value.
            state[name][: len(weight)] = weight
        state["protein_embedding"][n_old:] = 0.0
    return replace(
        checkpoint,
        model=model.eval(),
        info=replace(checkpoint.info, model=config),
        proteins=table,
        digest="",
        path=None,
        calibration=extended(checkpoint.calibration, len(table)),
        conditioning=conditionings.extended(checkpoint.conditioning, len(table)),
    )
