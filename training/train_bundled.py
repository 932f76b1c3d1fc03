"""Train the bundled checkpoint, and measure it on data that it has not seen.

    python training/train_bundled.py DATA [--work runs/bundled]

Three folds hold out three or four data sets each; every held-out figure comes from a checkpoint
that saw neither those cells nor their genes' statistics. From the folds come the trust labels and
the width of the intervals; the final checkpoint is trained on all sets. Finished folds are kept in
the work folder and not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sclinguist_core.console import progress_bar
from sclinguist_core.data.readers import open_section
from sclinguist_core.evaluation.evaluate import evaluate
from sclinguist_core.inference.predict import DEFAULT_INTERVAL, attach, finish, predict_iter
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sclinguist_core.resources import checkpoints_dir
from sclinguist_core.train.corpus import paired_dataset
from sclinguist_core.train.recipe import Recipe, read_recipe
from sclinguist_core.train.stages import post_pretrain

HERE = Path(__file__).resolve().parent
FOLDS = {
    "a": ("pbmc1k", "teaseq_pbmc", "eccite_pbmc"),
    "b": ("pbmc5k", "bmmc_neurips2021", "cbmc"),
    "c": ("pbmc10k", "cd8_gse100866", "pbmc_5prime", "pbmc_wide_panel"),
}
WELL, FAIRLY = 0.6, 0.35
MIN_CALIBRATION_CELLS = 300
COVERAGE = 0.9


def train(recipe: Recipe, hold_out: tuple[str, ...], folder: Path) -> Checkpoint:
    """Train one checkpoint, or load it when the work folder has it."""
    if folder.is_dir():
        return load_checkpoint(folder)
    steps = post_pretrain(recipe, hold_out=hold_out)
    started = time.perf_counter()
    with progress_bar(folder.name, unit="steps") as bar:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                save_checkpoint(end.value, folder)
                break
            bar.update(step.done, step.total, f"{folder.name}: error {step.error:.3f}")
    print(f"{folder.name}: {time.perf_counter() - started:.0f} s")
    return load_checkpoint(folder)


def held_out(recipe: Recipe, work: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-protein figures of every held-out set, and errors in units of the predicted std."""
    figures, errors = [], []
    for fold, names in FOLDS.items():
        checkpoint = train(recipe, names, work / f"fold_{fold}")
        trained_on = set(checkpoint.info.training_datasets)
        assert not trained_on & set(names), "a held-out set was trained on"
        for path in recipe.paired:
            section = open_section(path)
            if section.name not in names:
                continue
            prediction = finish(predict_iter(section, model=checkpoint))
            attach(section.table, prediction)
            result = evaluate(section)
            figures.append(result.per_protein.assign(dataset=section.name, fold=fold))
            data = paired_dataset(section, checkpoint.symbols, checkpoint.protein_names)
            error = data.targets(data.antibodies) - prediction.mean[:, data.protein]
            ratio = np.abs(error) / prediction.std[:, data.protein]
            for column, index in enumerate(data.protein):
                name = checkpoint.protein_names[index]
                errors.append(
                    pd.DataFrame(
                        {"canonical": name, "dataset": section.name, "ratio": ratio[:, column]}
                    )
                )
    return pd.concat(figures, ignore_index=True), pd.concat(errors, ignore_index=True)


def summarise(figures: pd.DataFrame) -> pd.DataFrame:
    """One row a held-out set: the model beside cognate mRNA, total count and the mean."""
    rows = []
    for dataset, part in figures.groupby("dataset", sort=False):
        both = part["r_clr_cognate mRNA"].notna() & part["r_clr"].notna()
        rows.append(
            {
                "dataset": dataset,
                "cells": int(part["n_cells"].max()),
                "proteins": int(part["r_clr"].notna().sum()),
                "model": part["r_clr"].mean(),
                "total count": part["r_clr_total count"].mean(),
                "proteins with mRNA": int(both.sum()),
                "model on those": part.loc[both, "r_clr"].mean(),
                "cognate mRNA": part.loc[both, "r_clr_cognate mRNA"].mean(),
                "RMSE": part["rmse"].mean(),
                "RMSE of the mean": 1.0,
            }
        )
    return pd.DataFrame(rows)


def trust_table(names: list[str], figures: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """Trust label, held-out correlation and interval width of every protein.

    A protein is tested where a fold held out a set that measures it *and* trained on another
    that does; the label is the mean over such sets.
    """
    mean_r = figures.groupby("canonical")["r_clr"].mean()
    pooled = errors.groupby("dataset")["ratio"].quantile(COVERAGE).mean()
    rows = []
    for name in names:
        r = mean_r.get(name, np.nan)
        if np.isnan(r):
            label = "untested"
        else:
            label = "well" if r >= WELL else "fairly" if r >= FAIRLY else "poorly"
        own = errors[errors["canonical"] == name]
        enough = len(own) >= MIN_CALIBRATION_CELLS
        width = own.groupby("dataset")["ratio"].quantile(COVERAGE).mean() if enough else pooled
        rows.append({"trust": label, "heldout_r": r, "interval": max(width, DEFAULT_INTERVAL)})
    return pd.DataFrame(rows)


def card(checkpoint: Checkpoint, summary: pd.DataFrame, trust: pd.DataFrame) -> str:
    """Model card in Markdown."""
    info, n = checkpoint.info, trust["trust"].value_counts()
    labels = ", ".join(f"{n.get(key, 0)} {key}" for key in ("well", "fairly", "poorly", "untested"))
    return f"""# {info.name}

A translator from RNA to surface protein: {len(checkpoint.genes):,} genes in,
{len(checkpoint.proteins)} proteins out. It is bundled with napari-sclinguist.

**Unit.** {info.unit}: 1 means one standard deviation above the mean of the cells that it was
trained on, relative to the other surface proteins of the cell.

**Training data.** Paired cells of {", ".join(info.training_datasets)}: blood, cord blood and bone
marrow of healthy donors. 10x Genomics data sets (CC BY 4.0): pbmc_10k_protein_v3,
5k_pbmc_protein_v3, pbmc_1k_protein_v3, 5' TotalSeq-C PBMC, and three RNA-only PBMC sets. GEO:
GSE126310 (ECCITE-seq), GSE158013 (TEA-seq), GSE194122 (NeurIPS 2021 bone marrow), GSE100866 (CITE-seq:
cord blood, sorted CD8 T cells), GSE164378 (Hao et al. 2021, subset).

**Not trained on.** Any solid tissue. Germinal-centre, epithelial, endothelial and stromal cells are
foreign to it.

## Held-out results

Three folds; each figure is from a checkpoint that did not see the data set. Mean per-protein
Pearson against the CLR measurement over single cells; RMSE in standard deviations of the data
set (its own mean scores 1).

{markdown(summary)}

Trust labels (mean held-out Pearson; well from {WELL}, fairly from {FAIRLY}; untested: no held-out set
measures it that others measure too): {labels}. They hold for dissociated blood and marrow cells, not
for spots.

**Intervals** are 90 % in the mean over the held-out sets, not in each of them.
"""


def markdown(table: pd.DataFrame) -> str:
    """Table in Markdown."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    for row in table.itertuples(index=False):
        cells = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train the folds, measure, train the final checkpoint, and install it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with citeseq/ and rna_only/")
    parser.add_argument("--work", type=Path, default=Path("runs/bundled"))
    parser.add_argument("--output", type=Path, default=checkpoints_dir() / "bundled")
    parser.add_argument("--results", type=Path, default=HERE.parent / "docs" / "results")
    parser.add_argument("--hold-out", nargs="*", help="train one checkpoint without these, stop")
    parser.add_argument("overrides", nargs="*", default=[], help="key=value")
    arguments = parser.parse_args()
    os.environ["SCLINGUIST_DATA"] = str(arguments.data.resolve())
    recipe = read_recipe(HERE / "bundled.yaml", arguments.overrides)
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.hold_out is not None:
        train(recipe, tuple(arguments.hold_out), arguments.output)
        return
    figures, errors = held_out(recipe, arguments.work)
    summary = summarise(figures)
    print(summary.round(3).to_string(index=False))
    final = train(recipe, (), arguments.work / "final")
    trust = trust_table(final.protein_names, figures, errors)
    proteins = final.proteins[["name", "genes", "kind"]].join(trust)
    final = dataclasses.replace(final, proteins=proteins, card=card(final, summary, trust))
    save_checkpoint(final, arguments.output)
    arguments.results.mkdir(parents=True, exist_ok=True)
    summary.to_csv(arguments.results / "heldout_summary.csv", index=False, float_format="%.4f")
    figures.to_csv(arguments.results / "heldout_proteins.csv", index=False, float_format="%.4f")
    print(f"checkpoint: {arguments.output}\nfigures: {arguments.results}")


if __name__ == "__main__":
    main()
