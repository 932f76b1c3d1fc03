"""Coverage, trust labels and out-of-distribution score on data sets that were held out.

    python training/benchmarks/calibration.py DATA [--runs runs/bundled]

Every data set is predicted by the fold that did not see it, and calibrated on the other sets alone,
exactly as `sclinguist predict` calibrates a section. Writes ``calibration.csv`` (a row a set),
``trust.csv`` (a row a set and protein) and ``ood.csv`` (a row a query) to ``docs/results``. Tissue
tests are reported by ``--tissue``; nothing was chosen by them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.readers import open_section
from sclinguist_core.evaluation.calibration import fit_context
from sclinguist_core.evaluation.held_out import (
    HeldOut,
    collect,
    collect_agreement,
    spots_of,
)
from sclinguist_core.evaluation.reference import fit_familiarity
from sclinguist_core.model.calibration import CONTEXTS, WELL_R
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint
from sclinguist_core.train.augment import thin
from sclinguist_core.train.corpus import PairedDataset, paired_dataset

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
MARGINAL = 2 * 1.645
"""Width of an interval that covers 90 % of a normal distribution, in standard deviations."""
TOP = 0.9
OOD_ROWS = 300
SMALL_PANEL = 500
TISSUES = {"human ducts, spots": "human_ducts_rna", "mouse embryo, spots": "mouse_embryo_rna"}
TESTS = {
    "MALT, cells": "citeseq/malt_1000.h5ad",
    "tonsil composite, spots": "spatial/tonsil_composite/outs",
}


def judge_held_out(
    record: HeldOut, others: Sequence[HeldOut], agreement: pd.Series
) -> pd.DataFrame:
    """Calibrate on the other sets, judge this one as a section, compare with its measurement."""
    names = list(record.names)
    calibration, _ = fit_context(others, agreement, names)
    expected_r = calibration.expected_r(record.implied, record.reliability, record.spread)
    here = calibration.labels(expected_r, record.spread)
    before = calibration.labels(calibration.expected_r())
    column = record.column
    value, std, low, high = calibration.take(column).apply(
        record.mean, record.std, expected_r[column]
    )
    y = record.target
    known = np.isfinite(y) & np.isfinite(value)
    inside = np.where(known, (y >= low) & (y <= high), np.nan)
    # A protein with fewer distinct values than that has no top decile worth the name.
    top = np.where(known, y >= np.nanquantile(y, TOP, axis=0), False)
    sd = np.nanstd(y, axis=0)
    return pd.DataFrame(
        {
            "dataset": record.dataset,
            "context": record.context,
            "protein": record.proteins,
            "r": column_correlation(record.mean, y),
            "expected_r": expected_r[column],
            "label": np.array(before)[column],
            "label_here": np.array(here)[column],
            "coverage": np.nanmean(inside, axis=0),
            "coverage_top": np.nanmean(np.where(top, inside, np.nan), axis=0),
            "width": np.nanmean(high - low, axis=0) / (MARGINAL * np.maximum(sd, 1e-6)),
            "rmse_raw": np.sqrt(np.nanmean((y - record.mean) ** 2, axis=0)) / sd,
            "rmse": np.sqrt(np.nanmean((y - value) ** 2, axis=0)) / sd,
            "std": np.sqrt(np.nanmean(std**2, axis=0)) / sd,
        }
    )


def coverage_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Summarise a set and context a row: coverage, worst protein, top decile, width, floor."""
    grouped = judged.groupby(["context", "dataset"], sort=False)
    table = grouped.agg(
        proteins=("r", "size"),
        r=("r", "mean"),
        coverage=("coverage", "mean"),
        coverage_min=("coverage", "min"),
        coverage_top=("coverage_top", "mean"),
        width=("width", "mean"),
        rmse_uncalibrated=("rmse_raw", "mean"),
        rmse=("rmse", "mean"),
        predicted_rmse=("std", "mean"),
    )
    # With normal errors at correlation r no interval of constant coverage is shorter.
    floor = np.sqrt(1 - judged["r"].clip(0, 1) ** 2)
    table["width_floor"] = floor.groupby([judged["context"], judged["dataset"]]).mean()
    return table.reset_index()


def trust_figures(judged: pd.DataFrame, label: str) -> tuple[int, float, float]:
    """How many are labelled well, how many of these are, and how many of the good are labelled."""
    tested = judged[(judged["label"] != "untested") & judged["r"].notna()]
    labelled, good = tested[label] == "well", tested["r"] >= WELL_R
    both = (labelled & good).sum()
    return int(labelled.sum()), both / max(labelled.sum(), 1), both / max(good.sum(), 1)


def queries(data: PairedDataset, rng: np.random.Generator) -> dict[str, AlignedRna]:
    """Rows of a held-out set: cells, at a quarter of their depth, with few genes, as spots."""
    n = min(OOD_ROWS, data.n_obs)
    cells = data.rna.take(np.sort(rng.choice(data.n_obs, n, replace=False)))
    thinned = thin(cells.counts, np.full(n, 0.25), rng)
    thinned.sort_indices()
    present = np.flatnonzero(cells.measured.any(axis=0))
    panel = rng.choice(present, min(SMALL_PANEL, len(present)), replace=False)
    return {
        "cells": cells,
        "quarter depth": AlignedRna(counts=thinned, measured=cells.measured, pattern=cells.pattern),
        f"{SMALL_PANEL} genes": on_panel(cells, panel),
        "spots": spots_of(data, OOD_ROWS, rng)[0],
    }


def on_panel(rna: AlignedRna, genes: np.ndarray) -> AlignedRna:
    """Keep only the given genes."""
    keep = np.zeros(rna.counts.shape[1], bool)
    keep[genes] = True
    counts = rna.counts.multiply(keep[None].astype(np.float32)).tocsr()
    counts.eliminate_zeros()
    counts.sort_indices()
    return AlignedRna(counts=counts, measured=rna.measured & keep, pattern=rna.pattern)


def ood_rows(
    checkpoint: Checkpoint, paths: Sequence[Path], foreign: dict[str, Path]
) -> list[dict[str, object]]:
    """Scores of held-out blood and of foreign tissue by one fold."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    sets = {
        path.stem: paired_dataset(open_section(path), checkpoint.symbols, checkpoint.protein_names)
        for path in paths
    }
    seen = [d for name, d in sets.items() if name in checkpoint.info.training_datasets]
    unseen = {n: d for n, d in sets.items() if n not in checkpoint.info.training_datasets}
    reference = fit_familiarity(checkpoint, seen)

    def score(rna: AlignedRna) -> np.ndarray:
        values = reference.score(rna.counts, rna.measured, rna.pattern)
        return values[np.isfinite(values)]

    rows, blood = [], {"cells": [], "spots": []}
    for name, data in unseen.items():
        for kind, rna in queries(data, rng).items():
            values = score(rna)
            rows.append(ood_row(checkpoint, f"{name}, {kind}", values))
            if kind in blood:
                blood[kind].append(values)
    known = {kind: np.concatenate(values) for kind, values in blood.items()}
    for name, path in foreign.items():
        section = open_section(path)
        rna = align_genes(section.rna(), checkpoint.symbols, source=section.name)
        rna = rna.take(np.sort(rng.choice(rna.n_obs, min(OOD_ROWS, rna.n_obs), replace=False)))
        values = score(rna)
        row = ood_row(checkpoint, name, values)
        for kind, own in known.items():
            truth = np.r_[np.zeros(len(own)), np.ones(len(values))]
            row[f"auc_{kind}"] = roc_auc_score(truth, np.r_[own, values])
        rows.append(row)
    return rows


def ood_row(checkpoint: Checkpoint, query: str, values: np.ndarray) -> dict[str, object]:
    """Distribution of the score over the rows of one query."""
    return {
        "fold": checkpoint.path.name if checkpoint.path else "",
        "query": query,
        "rows": len(values),
        "median": np.median(values),
        "above_0.95": (values > 0.95).mean(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/bundled"), help="has fold_* in it")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tissue", action="store_true", help="also report the tissue tests")
    arguments = parser.parse_args()
    started = time.perf_counter()
    checkpoints = [load_checkpoint(p) for p in sorted(arguments.runs.glob("fold_?")) if p.is_dir()]
    names = sorted({name for c in checkpoints for name in c.info.training_datasets})
    paths = [arguments.data / "citeseq" / f"{name}.h5ad" for name in names]
    cache = arguments.runs / "held_out"
    records = collect(checkpoints, [open_section(path) for path in paths], cache)
    rna_only = sorted((arguments.data / "rna_only").glob("*.h5ad"))
    agreement = collect_agreement(checkpoints, [open_section(path) for path in rna_only], cache)
    judged = []
    for context in CONTEXTS:
        own = [record for record in records if record.context == context]
        for record in own:
            others = [other for other in own if other.dataset != record.dataset]
            judged.append(judge_held_out(record, others, agreement))
    table = pd.concat(judged, ignore_index=True)
    coverage = coverage_table(table)
    print(coverage.round(3).to_string(index=False))
    for context, part in table.groupby("context"):
        for label, what in (("label", "from held-out sets"), ("label_here", "in the section")):
            n, precision, recall = trust_figures(part, label)
            print(
                f"{context}, label {what}: {n} well, {precision:.0%} of them r >= {WELL_R}, which "
                f"is {recall:.0%} of all such"
            )
    arguments.results.mkdir(parents=True, exist_ok=True)
    coverage.to_csv(arguments.results / "calibration.csv", index=False, float_format="%.4f")
    table.to_csv(arguments.results / "trust.csv", index=False, float_format="%.4f")
    foreign = {
        name: arguments.data / "spatial" / folder / "outs" for name, folder in TISSUES.items()
    }
    if arguments.tissue:
        foreign |= {name: arguments.data / path for name, path in TESTS.items()}
    scored = [row for checkpoint in checkpoints for row in ood_rows(checkpoint, paths, foreign)]
    ood = pd.DataFrame(scored)
    print(ood.round(3).to_string(index=False))
    ood.to_csv(arguments.results / "ood.csv", index=False, float_format="%.4f")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
