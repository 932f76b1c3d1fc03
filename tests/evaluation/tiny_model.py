"""An untrained checkpoint over the genes of made-up cells: it runs, baselines must beat it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from evaluation.made_up import CANONICAL, CODING, make_cells
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo
from sclinguist_core.model.config import TranslatorConfig


def tiny_checkpoint(
    without: Sequence[str] = (), training_datasets: Sequence[str] = ("PBMC-10k", "seen")
) -> Checkpoint:
    """Knows the six coded proteins of made-up cells, less some."""
    symbols = make_cells(3).var_names
    genes = pd.DataFrame(
        {
            "symbol": symbols,
            "ensembl_id": "",
            "reference_share": 1 / len(symbols),
            "mean": 1.0,
            "std": 1.0,
        }
    )
    rows = [
        (CANONICAL.get(name, name), ";".join(coding), "protein") for name, coding in CODING.items()
    ]
    proteins = pd.DataFrame(
        [row for row in rows if row[0] not in without], columns=["name", "genes", "kind"]
    )
    config = TranslatorConfig(gene_dim=8, width=8, n_latents=2, n_heads=2, n_layers=1)
    info = CheckpointInfo(name="tiny", model=config, training_datasets=tuple(training_datasets))
    model = build_translator(config, genes, proteins).eval()
    return Checkpoint(model=model, info=info, genes=genes, proteins=proteins, card="")
