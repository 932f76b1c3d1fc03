"""Fine-tuning on one section with measured protein, to predict the next: on pseudo-sections.

    python training/benchmarks/few_shot_sections.py DATA CHECKPOINTS

No section with RNA and antibodies of the same spots is at hand to train on, so two sections are
made from each held-out set of cells: its cells are dealt into two halves, and spots are sums of 3
to 15 cells of one half, mixed unevenly. Nobody measured them; they show what a change from cells to
mixtures costs and what fine-tuning gets back, not how real tissue behaves. From the first section
20, 100 and 500 spots are learnt (and, to compare, 100 of its single cells); 400 spots of the second
are predicted. The model itself has seen pseudo-spots of other data sets. Writes
``docs/results/few_shot_sections.csv``.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

import sclinguist_core as scl
from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.metrics import nan_mean, pearson
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.progress import finish
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint
from sclinguist_core.train.augment import pseudo_spots, thin

ROOT = Path(__file__).resolve().parents[2]
SETS = {"pbmc1k": "fold_a", "teaseq_pbmc": "fold_a", "pbmc5k": "fold_b"}
SPOTS = (20, 100, 500)
SPOT_CELLS = (3, 15)
N_GROUPS = 12


def cell_groups(cells: Section) -> np.ndarray:
    """Coarse groups of cells by their surface protein, int64, shape (n,)."""
    from sklearn.cluster import KMeans

    clr = protein_clr(cells.table.obsm["protein"])
    return KMeans(N_GROUPS, n_init=3, random_state=0).fit_predict(clr).astype(np.int64)


def pseudo_section(
    cells: Section, groups: np.ndarray, rows: np.ndarray, n: int, rng: np.random.Generator
) -> Section:
    """Pool cells into `n` spots; depth grows with the square root of the cells."""
    counts = cells.table.obsm["protein"]
    mix = pseudo_spots(rows, groups, n, SPOT_CELLS, rng)
    size = np.asarray(mix.sum(axis=1)).ravel()
    rna = thin(sparse.csr_matrix(mix @ cells.rna().counts), 1 / np.sqrt(size), rng)
    names = [f"spot-{i}" for i in range(n)]
    table = ad.AnnData(
        rna, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=cells.rna().names)
    )
    table.obsm["protein"] = pd.DataFrame(mix @ counts.to_numpy(), names, counts.columns)
    table.obsm["spatial"] = np.stack(np.divmod(np.arange(n), 50), axis=1) * 100.0
    table.uns["simulated"] = True
    return as_section(table)


def score(section: Section, model: Checkpoint, known: set[str]) -> float:
    """Mean per-protein Pearson against CLR over the antibodies that the unchanged model knows."""
    counts, panel = section.table.obsm["protein"], section.table.uns["protein_panel"]
    clr = protein_clr(counts, panel["isotype"].to_numpy(bool))
    wanted = ((panel["status"] == "resolved") & panel["canonical"].isin(known)).to_numpy()
    prediction = finish(predict_iter(section, model=model, device="cpu"))
    column = [prediction.names.index(name) for name in panel.loc[wanted, "canonical"]]
    r = pearson(prediction.mean[:, column], clr.loc[:, wanted].to_numpy(np.float64))
    return nan_mean(np.nan_to_num(r))


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with citeseq/")
    parser.add_argument("checkpoints", type=Path, help="folder with fold_a and fold_b")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument(
        "--results", type=Path, default=ROOT / "docs" / "results" / "few_shot_sections.csv"
    )
    given = parser.parse_args()
    rows = []
    for name, fold in SETS.items():
        model = load_checkpoint(given.checkpoints / fold)
        assert name not in model.info.training_datasets, f"{fold} has seen {name}"
        known = set(model.protein_names)
        cells = scl.open_section(given.data / "citeseq" / f"{name}.h5ad")
        groups = cell_groups(cells)
        for draw in range(given.draws):
            rng = np.random.default_rng(draw)
            order = rng.permutation(cells.n_obs)
            first, second = order[: len(order) // 2], order[len(order) // 2 :]
            test = pseudo_section(cells, groups, second, 400, rng)
            rows.append((name, 0, draw, "zero-shot", score(test, model, known)))
            for n in SPOTS:
                learn = pseudo_section(cells, groups, first, n, rng)
                tuned = scl.finetune(learn, model=model).checkpoint
                rows.append((name, n, draw, "fine-tuned", score(test, tuned, known)))
            on_cells = cells.table[np.sort(first[:100])].copy()
            tuned = scl.finetune(on_cells, model=model).checkpoint
            rows.append((name, 100, draw, "fine-tuned on cells", score(test, tuned, known)))
        print(name, "done", flush=True)
    table = pd.DataFrame(rows, columns=["dataset", "spots", "draw", "method", "r"])
    given.results.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.results, index=False, float_format="%.4f")
    summary = table.groupby(["dataset", "method", "spots"], sort=False)["r"].agg(["mean", "std"])
    print(summary.round(3).to_string())
    print(
        f"napari-sclinguist {scl.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} CPU cores, {time.strftime('%Y-%m-%d')}"
    )


if __name__ == "__main__":
    main()
