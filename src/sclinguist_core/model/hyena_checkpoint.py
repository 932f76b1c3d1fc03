"""The published architecture in a checkpoint folder: the same files as a translator's.

The first positions of the network belong to the rows of ``genes.tsv`` and ``proteins.tsv``, in that
order; positions after the last row were never trained. Weights are kept in float32: the positions
that filters are made from are too fine for half precision.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo, checkpoint_folder
from sclinguist_core.model.hyena_config import HyenaConfig

if TYPE_CHECKING:
    from sclinguist_core.model.config import TranslatorConfig
    from sclinguist_core.model.hyena import HyenaTranslator
    from sclinguist_core.model.translator import Translator

HYENA = "hyena"
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
) -> Checkpoint:
    """Make a checkpoint to save with `sclinguist_core.model.checkpoint.save_checkpoint`.

    Parameters
    ----------
    model
        The network.
    name, training_datasets, created_with
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
    # What is written are weights, sizes and tables; none of that asks which network it is.
    info = CheckpointInfo(
        name=name,
        model=cast("TranslatorConfig", model.config),
        architecture=HYENA,
        unit=UNIT,
        training_datasets=training_datasets,
        created_with=created_with or {},
    )
    return Checkpoint(
        model=cast("Translator", model), info=info, genes=genes, proteins=proteins, card=card
    )


def load_hyena(folder: str | Path) -> HyenaTranslator:
    """Load the network of a checkpoint folder strictly, in evaluation mode on the CPU.

    Raises
    ------
    InputError
        If the folder is no checkpoint of this architecture, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from sclinguist_core.model.hyena import HyenaTranslator

    folder = checkpoint_folder(folder)
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text("utf-8"))
        architecture, sizes = values["architecture"], dict(values["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected a checkpoint's JSON, found {error!r}") from error
    if architecture != HYENA:
        raise InputError(f"{path}: architecture {architecture!r}, expected {HYENA!r}")
    model = HyenaTranslator(HyenaConfig.from_dict(sizes, source=f"{path} (model)"))
    weights = folder / "model.safetensors"
    try:
        model.load_state_dict(load_file(weights), strict=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        first = " ".join(str(error).split())[:300]
        raise InputError(f"{weights}: weights do not fit config.json ({first})") from error
    return model.eval()
