"""What each part of the bundled recipe is worth: leave one part out, hold data sets out, compare.

    python training/benchmarks/ablation.py DATA [--folds a b] [--steps 250] [--variants NAME ...]

Every variant is trained from scratch for each fold and scored on the data sets that the fold holds
out: mean per-protein Pearson correlation with CLR over the proteins that the other sets measure, on
cells, on pseudo-spots, and on cells of which 500 random genes are left. The test tissue is not
touched. Finished runs are kept in the work folder. Writes ``docs/results/ablation.csv``.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import sclinguist_core
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.readers import open_section
from sclinguist_core.evaluation.degrade import Degradation
from sclinguist_core.evaluation.held_out import HeldOut, hold_out
from sclinguist_core.evaluation.tasks import open_cells
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.progress import finish
from sclinguist_core.model.checkpoint import Checkpoint, save_checkpoint
from sclinguist_core.train.recipe import Recipe, read_recipe
from sclinguist_core.train.stages import pretrain_rna

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))
from train_bundled import FOLDS, train  # noqa: E402  (a script beside this folder)

VARIANTS = {
    "shipped recipe": (),
    "no state": ("model.n_components=0", "model.log_output=false"),
    "one perceptron on the state": ("model.n_perceptrons=1",),
    "all genes alike in the linear read": ("model.full_weight_std=0",),
    "no pseudo-spots": ("augmentation.spots=0",),
    "no gene dropout": ("augmentation.gene_dropout=0",),
    "no depth thinning": ("augmentation.thinning=0",),
}
PANEL_GENES, PANEL_CELLS = 500, 1_500
PRETRAINED = "genes pretrained by gradient first"
"""Stage 1 on the RNA of all training sets, of as many steps, before stage 2."""


def pretrained(recipe: Recipe, hold_out: tuple[str, ...], folder: Path) -> Recipe:
    """Return a recipe that starts from stage 1 on RNA, which is trained unless it is there."""
    if not folder.is_dir():
        save_checkpoint(pretrain_rna(recipe, hold_out=hold_out), folder)
    return replace(recipe, init={"rna": str(folder)})


def score(held: HeldOut) -> float:
    """Mean over antibodies of the correlation with the measurement."""
    return float(np.nanmean(column_correlation(held.mean, held.target)))


def score_on_panel(checkpoint: Checkpoint, path: Path) -> float:
    """Mean over antibodies of the correlation with the measurement, from few random genes."""
    cells = open_cells(path)
    rows = np.random.default_rng(0).permutation(cells.n_obs)[:PANEL_CELLS]
    cells = cells.take(np.sort(rows))
    cells = cells.with_rna(Degradation(n_genes=PANEL_GENES).apply(cells.paired.rna))
    truth = cells.truth(checkpoint.protein_names)
    prediction = finish(predict_iter(cells.to_section(), model=checkpoint, device="cpu"))
    column = [prediction.names.index(name) for name in truth.proteins]
    return float(np.nanmean(column_correlation(prediction.mean[:, column], truth.clr)))


def main() -> None:
    """Train, score, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with citeseq/ and rna_only/")
    parser.add_argument("--folds", nargs="+", default=["a", "b"], choices=sorted(FOLDS))
    parser.add_argument("--steps", type=int, default=250, help="of every run, the shipped one too")
    names = [*VARIANTS, PRETRAINED]
    parser.add_argument("--variants", nargs="+", default=names, choices=names)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "ablation")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "ablation.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["SCLINGUIST_DATA"] = str(arguments.data.resolve())
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (variant, overrides) in enumerate([*VARIANTS.items(), (PRETRAINED, ())]):
        if variant not in arguments.variants:
            continue
        recipe = read_recipe(
            ROOT / "training" / "bundled.yaml", [f"fit.steps={arguments.steps}", *overrides]
        )
        row: dict[str, object] = {"variant": variant, "steps": arguments.steps}
        for fold in arguments.folds:
            names = FOLDS[fold]
            folder = arguments.work / f"{number}_{fold}_{arguments.steps}"
            started_from = recipe
            if variant == PRETRAINED:
                started_from = pretrained(recipe, names, folder.with_name(folder.name + "_rna"))
            checkpoint = train(started_from, names, folder)
            for name in names:
                path = arguments.data / "citeseq" / f"{name}.h5ad"
                cells, spots = hold_out(checkpoint, open_section(path))
                row[name], row[f"{name}, spots"] = score(cells), score(spots)
                row[f"{name}, {PANEL_GENES} genes"] = score_on_panel(checkpoint, path)
        rows.append(row)
        print(pd.DataFrame(rows).round(3).to_string(index=False))
    table = pd.DataFrame(rows)
    sets = [name for fold in arguments.folds for name in FOLDS[fold]]
    table["mean, cells"] = table[sets].mean(axis=1)
    for kind in ("spots", f"{PANEL_GENES} genes"):
        table[f"mean, {kind}"] = table[[f"{name}, {kind}" for name in sets]].mean(axis=1)
    print(table.round(3).to_string(index=False))
    print(
        f"napari-sclinguist {sclinguist_core.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} CPU cores, {time.strftime('%Y-%m-%d')}"
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.output, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
