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
from sclinguist_core.evaluation import held_out as held_out_sets
from sclinguist_core.evaluation.calibration import fit_calibration, fit_context
from sclinguist_core.evaluation.conditioning import fit_conditioning
from sclinguist_core.evaluation.evaluate import Evaluation, evaluate
from sclinguist_core.evaluation.reference import fit_familiarity
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.prediction import Prediction, attach
from sclinguist_core.inference.progress import finish
from sclinguist_core.inference.trust import judge
from sclinguist_core.model.calibration import FAIRLY_R, WELL_R
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sclinguist_core.resources import checkpoints_dir
from sclinguist_core.train.corpus import paired_dataset
from sclinguist_core.train.fit import Step
from sclinguist_core.train.recipe import DATA_LISTS, Recipe, read_recipe
from sclinguist_core.train.stages import post_pretrain

HERE = Path(__file__).resolve().parent
FOLDS = {
    "a": ("pbmc1k", "teaseq_pbmc", "eccite_pbmc"),
    "b": ("pbmc5k", "bmmc_neurips2021"),
    "c": ("pbmc10k", "pbmc_wide_panel"),
    "d": ("cd8_gse100866", "pbmc_5prime", "cbmc"),
}


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
    started = time.perf_counter()
    with progress_bar(folder.name, unit="steps") as bar:

        def show(step: Step) -> None:
            bar.update(step.done, step.total, f"{folder.name}: error {step.error:.3f}")

        save_checkpoint(post_pretrain(recipe, hold_out=hold_out, progress=show), folder)
    made_from.write_text(wanted, "utf-8")
    print(f"{folder.name}: {time.perf_counter() - started:.0f} s")
    return load_checkpoint(folder)


def recipe_record(recipe: Recipe) -> dict[str, object]:
    """Return what decides a training run, without the folder in which the data happen to lie."""
    record = dataclasses.asdict(recipe)
    for key in DATA_LISTS:
        record[key] = [Path(entry).name for entry in getattr(recipe, key)]
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


def predict_held_out(folds: list[Checkpoint], paired: list[Section]) -> list[HeldOut]:
    """Predict every data set with the checkpoint of the fold that left it out."""
    predicted = []
    for (fold, names), checkpoint in zip(FOLDS.items(), folds, strict=True):
        others = {section.name for section in paired} - set(names)
        assert set(checkpoint.info.training_datasets) == others, "not the fold's training sets"
        for section in paired:
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


def held_out(
    folds: list[Checkpoint],
    paired: list[Section],
    records: list[held_out_sets.HeldOut],
    agreement: pd.Series,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-protein figures and summary of every held-out set, calibrated on the other sets."""
    cells = [record for record in records if record.context == "cells"]
    figures, summaries = [], []
    for held in predict_held_out(folds, paired):
        name, prediction = held.section.name, held.prediction
        others = [record for record in cells if record.dataset != name]
        own = next(record for record in cells if record.dataset == name)
        calibration, _ = fit_context(others, agreement, prediction.names)
        judged = judge(calibration, prediction.mean, prediction.std, own.reliability)
        prediction = dataclasses.replace(
            prediction, mean=judged.mean, std=judged.std, low=judged.low, high=judged.high
        )
        attach(held.section.table, prediction)
        result = evaluate(held.section)
        low, high = judged.low[:, held.column], judged.high[:, held.column]
        inside = (held.target >= low) & (held.target <= high)
        coverage = float(inside[np.isfinite(held.target)].mean())
        summaries.append(summary_row(result, name) | {"coverage": coverage})
        figures.append(result.per_protein.assign(dataset=name, fold=held.fold))
    return pd.concat(figures, ignore_index=True), pd.DataFrame(summaries)


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


def card(checkpoint: Checkpoint, summary: pd.DataFrame, trust: pd.DataFrame) -> str:
    """Model card in Markdown."""
    info, n = checkpoint.info, trust["trust_cells"].value_counts()
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

Trust labels for cells, by the correlation to be expected in a set that nobody has seen (well: such
proteins mostly reach r >= {WELL_R}; fairly: {FAIRLY_R} is expected; untested: no held-out set
measures it that others measure too): {labels}. Labels for spots rest on sums of held-out cells.
Prediction judges every section anew and lowers a label where its RNA does not bear the protein.

**Calibration.** Slopes and intervals come from held-out sets; for the table above from the other
sets. Intervals are meant to cover 90 %; they covered {summary["coverage"].min():.0%} to
{summary["coverage"].max():.0%} of the values of a set. Untested proteins have a slope and an
interval that the agreement of the folds' networks suggests.
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
    folds = [train(recipe, names, arguments.work / f"fold_{f}") for f, names in FOLDS.items()]
    cache = arguments.work / "held_out"
    paired = [open_section(path) for path in recipe.paired]
    records = held_out_sets.collect(folds, paired, cache)
    rna = [open_section(path) for path in recipe.rna]
    agreement = held_out_sets.collect_agreement(folds, rna, cache)
    figures, summary = held_out(folds, paired, records, agreement)
    print(summary.round(3).to_string(index=False))
    final = train(recipe, (), arguments.work / "final")
    calibration, trust = fit_calibration(records, agreement, final.protein_names)
    aligned = [paired_dataset(section, final.symbols, final.protein_names) for section in paired]
    final = dataclasses.replace(
        final,
        proteins=final.proteins[["name", "genes", "kind"]].join(trust),
        card=card(final, summary, trust),
        calibration=calibration,
        familiarity=fit_familiarity(final, aligned),
        conditioning=fit_conditioning(records, agreement, final.protein_names),
    )
    save_checkpoint(final, arguments.output)
    arguments.results.mkdir(parents=True, exist_ok=True)
    summary.to_csv(arguments.results / "heldout_summary.csv", index=False, float_format="%.4f")
    figures.to_csv(arguments.results / "heldout_proteins.csv", index=False, float_format="%.4f")
    print(f"checkpoint: {arguments.output}\nfigures: {arguments.results}")


if __name__ == "__main__":
    main()
