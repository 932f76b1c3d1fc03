"""Training runs of a second or two, in this process or in one that can be killed.

python tests/small_runs.py FOLDER [--devices N] [--strategy ddp] [--resume]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train.augment import Augmentation
from sclinguist_core.train.corpus import PairedDataset, Standard
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.run_folder import RunFolder
from sclinguist_core.train.trainer import TrainingResult, run_training

N_GENES, N_PROTEINS = 40, 4
SHARE = np.full(N_GENES, 1 / N_GENES)
CONFIG = TranslatorConfig(gene_dim=8, width=8, n_latents=3, n_heads=2, n_layers=1, dropout=0.1)
FIT = FitConfig(steps=24, batch_size=16, sets_per_step=4, learning_rate=5e-3, ema=0.9)
OPTIONS = TrainerConfig(accelerator="cpu", log_every=1, save_every=1, validate_every=8)


def paired_set(name: str, seed: int, n: int = 80) -> PairedDataset:
    """Cells of four kinds, with one gene and one protein each; one protein partly unmeasured."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, N_PROTEINS, n)
    rate = np.full((n, N_GENES), 0.5)
    rate[np.arange(n), kind] = 8.0
    counts = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    antibodies = rng.poisson(np.where(np.eye(N_PROTEINS)[kind] > 0, 200.0, 10.0)).astype(np.float32)
    antibodies[: n // 8, 0] = np.nan
    logs = np.log1p(antibodies)
    clr = logs - np.nanmean(logs, axis=1, keepdims=True)
    return PairedDataset(
        name=name,
        rna=AlignedRna(
            counts=counts, measured=np.ones((1, N_GENES), bool), pattern=np.zeros(n, np.int64)
        ),
        antibodies=antibodies,
        protein=np.arange(N_PROTEINS),
        clr=Standard.of(clr),
        log1p=Standard.of(logs),
        spot_clr=Standard.of(clr),
        spot_log1p=Standard.of(logs),
        groups=kind.astype(np.int64),
    )


def tables():
    """Genes and proteins of the sets."""
    import pandas as pd

    genes = pd.DataFrame(
        {
            "symbol": [f"G{i}" for i in range(N_GENES)],
            "ensembl_id": "",
            "reference_share": SHARE,
            "mean": 4.0,
            "std": 2.0,
        }
    )
    proteins = pd.DataFrame(
        {
            "name": [f"P{i}" for i in range(N_PROTEINS)],
            "genes": [f"G{i}" for i in range(N_PROTEINS)],
            "kind": "protein",
        }
    )
    return genes, proteins


def network(config: TranslatorConfig = CONFIG):
    """Return an untrained translator, always the same."""
    import torch

    torch.manual_seed(0)
    return build_translator(config, *tables())


def train(
    folder: Path | None = None,
    *,
    model=None,
    options: TrainerConfig = OPTIONS,
    config: FitConfig = FIT,
    **more,
) -> TrainingResult:
    """Train on three sets and score a fourth."""
    run = None if folder is None else RunFolder(folder)
    if run is not None:
        run.cut_metrics(run.last_step())
    return run_training(
        network() if model is None else model,
        [paired_set("one", 1), paired_set("two", 2), paired_set("three", 3)],
        SHARE,
        config,
        Augmentation(max_tokens=12, gene_dropout=0.2, min_genes=0.5),
        options,
        held_out=[paired_set("new", 4)],
        run=run,
        **more,
    )


def main() -> None:
    """Run as a program of its own."""
    from dataclasses import replace

    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--steps", type=int, default=FIT.steps)
    parser.add_argument("--dropout", type=float, default=CONFIG.dropout)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(exist_ok=True)
    train(
        arguments.folder,
        model=network(replace(CONFIG, dropout=arguments.dropout)),
        config=replace(FIT, steps=arguments.steps),
        options=replace(
            OPTIONS,
            devices=arguments.devices,
            strategy=arguments.strategy,
            accumulate=arguments.accumulate,
        ),
        resume=arguments.resume,
    )


if __name__ == "__main__":
    main()
