"""Train the bundled checkpoint, and measure it on data that it has not seen.

    python training/train_bundled.py DATA [--work runs/bundled]

Four folds hold out two or three data sets each; every held-out figure comes from a checkpoint
that saw neither those cells nor their genes' statistics. From the folds come the trust labels, the
slopes by which predictions are shrunk, and the width of the intervals; the final checkpoint is
trained on all sets. Finished folds are kept in the work folder and not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sclinguist_core.console import progress_bar
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.evaluate import Evaluation, evaluate
from sclinguist_core.inference.predict import Prediction, attach, finish, predict_iter
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sclinguist_core.resources import checkpoints_dir
from sclinguist_core.train.corpus import paired_dataset
from sclinguist_core.train.recipe import Recipe, read_recipe
from sclinguist_core.train.stages import post_pretrain

HERE = Path(__file__).resolve().parent
FOLDS = {
    "a": ("pbmc1k", "teaseq_pbmc", "eccite_pbmc"),
    "b": ("pbmc5k", "bmmc_neurips2021"),
    "c": ("pbmc10k", "pbmc_wide_panel"),
    "d": ("cd8_gse100866", "pbmc_5prime", "cbmc"),
}
WELL, FAIRLY = 0.6, 0.35
SLOPES = (0.1, 1.2)
COVERAGE = 0.9


def train(recipe: Recipe, hold_out: tuple[str, ...], folder: Path) -> Checkpoint:
    """Train one checkpoint, or load it when the work folder has it, made from the same recipe."""
    made_from = folder.with_suffix(".json")
    wanted = json.dumps(
        {"recipe": recipe_record(recipe), "hold_out": sorted(hold_out)}, indent=2, sort_keys=True
    )
    if folder.is_dir():
        if not made_from.is_file() or made_from.read_text("utf-8") != wanted:
            raise SystemExit(f"{folder}: made from another recipe; delete it and run again")
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
    made_from.write_text(wanted, "utf-8")
    print(f"{folder.name}: {time.perf_counter() - started:.0f} s")
    return load_checkpoint(folder)


def recipe_record(recipe: Recipe) -> dict[str, object]:
    """Return what decides a training run, without the folder in which the data happen to lie."""
    record = dataclasses.asdict(recipe)
    for key in ("paired", "rna"):
        record[key] = [Path(path).name for path in record[key]]
    return record


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A data set, as predicted by the checkpoint that did not see it."""

    section: Section
    fold: str
    prediction: Prediction
    target: np.ndarray
    """Standardised CLR, shape (n, A)."""
    column: np.ndarray
    """Column of the prediction for each antibody, shape (A,)."""


def predict_held_out(recipe: Recipe, work: Path) -> list[HeldOut]:
    """Predict every data set with the checkpoint of the fold that left it out."""
    predicted = []
    for fold, names in FOLDS.items():
        checkpoint = train(recipe, names, work / f"fold_{fold}")
        others = {Path(path).stem for path in recipe.paired} - set(names)
        assert set(checkpoint.info.training_datasets) == others, "not the fold's training sets"
        for path in recipe.paired:
            section = open_section(path)
            if section.name not in names:
                continue
            data = paired_dataset(section, checkpoint.symbols, checkpoint.protein_names)
            predicted.append(
                HeldOut(
                    section=section,
                    fold=fold,
                    prediction=finish(predict_iter(section, model=checkpoint)),
                    target=data.targets(data.antibodies),
                    column=data.protein,
                )
            )
    return predicted


def moments(held: HeldOut) -> pd.DataFrame:
    """Covariance of prediction and target, and variance of the prediction, for each protein."""
    x = held.prediction.mean[:, held.column]
    x = x - x.mean(axis=0)
    table = pd.DataFrame(
        {
            "canonical": np.array(held.prediction.names)[held.column],
            "covariance": (x * held.target).mean(axis=0),
            "variance": (x * x).mean(axis=0),
        }
    )
    return table.groupby("canonical", as_index=False).mean().assign(dataset=held.section.name)


def slopes(table: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Slope of unseen measurements on predictions, for each protein.

    Predictions on new data are too bold: what they add to the average must shrink by this factor.
    A protein's own slope is drawn to that of all proteins with the weight of one data set.
    """
    overall = table["covariance"].sum() / table["variance"].sum()
    prior = table["variance"].mean()
    own = table.groupby("canonical")[["covariance", "variance"]].sum()
    own = own.reindex(names).fillna(0.0)
    slope = (own["covariance"] + prior * overall) / (own["variance"] + prior)
    return slope.clip(*SLOPES).to_numpy(np.float32)


def held_out(recipe: Recipe, work: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Per-protein figures, summary and per-protein moments of every held-out set.

    The slopes that a set's predictions are shrunk by come from the other sets.
    """
    predicted = predict_held_out(recipe, work)
    table = pd.concat([moments(held) for held in predicted], ignore_index=True)
    table = table.merge(pd.concat([widths(held, table) for held in predicted]))
    figures, summaries = [], []
    for held in predicted:
        name, prediction = held.section.name, held.prediction
        others = table[table["dataset"] != name]
        prediction = dataclasses.replace(
            prediction,
            mean=prediction.mean * slopes(others, prediction.names),
            half_width=half_widths(others, prediction.names),
        )
        attach(held.section.table, prediction)
        result = evaluate(held.section)
        reach = prediction.std * prediction.half_width
        inside = np.abs(held.target - prediction.mean[:, held.column]) <= reach[:, held.column]
        summaries.append(summary_row(result, name) | {"coverage": float(inside.mean())})
        figures.append(result.per_protein.assign(dataset=name, fold=held.fold))
    return pd.concat(figures, ignore_index=True), pd.DataFrame(summaries), table


def widths(held: HeldOut, table: pd.DataFrame) -> pd.DataFrame:
    """Half-width that would have covered 90 % of each protein, in predicted std."""
    names = held.prediction.names
    mean = held.prediction.mean * slopes(table[table["dataset"] != held.section.name], names)
    error = np.abs(held.target - mean[:, held.column])
    ratio = np.quantile(error / held.prediction.std[:, held.column], COVERAGE, axis=0)
    canonical = np.array(names)[held.column]
    one = pd.DataFrame({"canonical": canonical, "width": ratio})
    return one.groupby("canonical", as_index=False).mean().assign(dataset=held.section.name)


def half_widths(table: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Half-width of the 90 % interval of each protein; the mean of all where none was tested."""
    own = table.groupby("canonical")["width"].mean().reindex(names)
    return own.fillna(table["width"].mean()).to_numpy(np.float32)


def summary_row(result: Evaluation, dataset: str) -> dict[str, object]:
    """One held-out set: the model beside total count, cognate mRNA and the mean."""
    model, mrna = result.summary.loc["model"], result.summary.loc["cognate mRNA"]
    return {
        "dataset": dataset,
        "cells": result.section.n_obs,
        "proteins": int(model["n_proteins"]),
        "model": model["pearson_clr"],
        "total count": result.summary.loc["total count", "pearson_clr"],
        "proteins with mRNA": int(mrna["n_proteins"]),
        "model on those": mrna["model_same_cells"],
        "cognate mRNA": mrna["pearson_clr"],
        "RMSE": model["rmse"],
        "RMSE of the mean": result.summary.loc["protein mean", "rmse"],
    }


def trust_table(names: list[str], figures: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Trust label, held-out correlation, slope and interval width of every protein.

    A protein is tested where a fold held out a set that measures it *and* trained on another
    that does; label and width are means over such sets.
    """
    per_set = figures.groupby(["canonical", "dataset"])["r_clr"].mean()
    r = per_set.groupby("canonical").mean().reindex(names)
    label = np.select([r >= WELL, r >= FAIRLY, r.notna()], ["well", "fairly", "poorly"], "untested")
    return pd.DataFrame(
        {
            "trust": label,
            "heldout_r": r.to_numpy(),
            "slope": slopes(table, names),
            "interval": half_widths(table, names),
        }
    )


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
marrow. 10x Genomics data sets (CC BY 4.0): pbmc_10k_protein_v3,
5k_pbmc_protein_v3, pbmc_1k_protein_v3, 5' TotalSeq-C PBMC, and three RNA-only PBMC sets. GEO:
GSE126310 (ECCITE-seq), GSE158013 (TEA-seq), GSE194122 (NeurIPS 2021 bone marrow), GSE100866
(CITE-seq: cord blood, sorted CD8 T cells), GSE164378 (Hao et al. 2021, subset).

**Not trained on.** Any solid tissue. Germinal-centre, epithelial, endothelial and stromal cells are
foreign to it.

## Held-out results

{len(FOLDS)} folds; each figure is from a checkpoint that did not see the data set. Mean per-protein
Pearson against the CLR measurement over single cells; RMSE in standard deviations of the data
set (its own mean scores 1).

{markdown(summary)}

Trust labels (mean held-out Pearson; well from {WELL}, fairly from {FAIRLY}; untested: no held-out
set measures it that others measure too): {labels}. They hold for dissociated blood and marrow
cells, not for spots.

**Calibration.** Predictions are multiplied by their slope on unseen data (column `slope` of
`proteins.tsv`; mean {trust["slope"].mean():.2f}); for the table above it came from the other sets.
Intervals are meant to cover 90 %; with widths from the other sets they covered
{summary["coverage"].min():.0%} to {summary["coverage"].max():.0%} of a set. Untested proteins have
the average slope and width of the tested ones.
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
    parser.add_argument(
        "--hold-out", nargs="+", metavar="NAME", help="train one checkpoint without these, and stop"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides")
    arguments = parser.parse_args()
    os.environ["SCLINGUIST_DATA"] = str(arguments.data.resolve())
    recipe = read_recipe(HERE / "bundled.yaml", arguments.set)
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.hold_out is not None:
        name = "without_" + "_".join(sorted(arguments.hold_out))
        train(recipe, tuple(arguments.hold_out), arguments.work / name)
        print(f"checkpoint: {arguments.work / name}")
        return
    figures, summary, table = held_out(recipe, arguments.work)
    print(summary.round(3).to_string(index=False))
    final = train(recipe, (), arguments.work / "final")
    trust = trust_table(final.protein_names, figures, table)
    proteins = final.proteins[["name", "genes", "kind"]].join(trust)
    final = dataclasses.replace(final, proteins=proteins, card=card(final, summary, trust))
    save_checkpoint(final, arguments.output)
    arguments.results.mkdir(parents=True, exist_ok=True)
    summary.to_csv(arguments.results / "heldout_summary.csv", index=False, float_format="%.4f")
    figures.to_csv(arguments.results / "heldout_proteins.csv", index=False, float_format="%.4f")
    print(f"checkpoint: {arguments.output}\nfigures: {arguments.results}")


if __name__ == "__main__":
    main()
