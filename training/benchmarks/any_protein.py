"""Proteins that a network has not learnt, asked for by their genes: how well, and by which rule.

    python training/benchmarks/any_protein.py DATA [--folds b c] [--parts 3] [--steps 150]

Proteins with coding genes are dealt into parts, those of one gene together. For each fold of data
sets and each part the bundled recipe is trained without these data sets *and* without the
antibodies of these proteins, and then asked for them: by `sclinguist_core.model.gene_queries`, by
queries that the network's own decoder reads, and by own mRNA alone, as measured and as imputed. The
rule was chosen on fold b; fold c was only reported. Trained networks are kept in the work folder.
Writes ``any_protein.csv`` (a row a set, context and protein) and ``any_protein.md`` to
``docs/results``.
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
from scipy import sparse

import sclinguist_core
from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.readers import open_section
from sclinguist_core.evaluation.held_out import read_held_out, spots_of
from sclinguist_core.evaluation.refit import refit
from sclinguist_core.evaluation.tasks import open_cells
from sclinguist_core.evaluation.unseen_protein import protein_parts
from sclinguist_core.inference.query import QueryRunner
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sclinguist_core.model.gene_queries import gene_queries
from sclinguist_core.train.corpus import PairedDataset, paired_dataset
from sclinguist_core.train.panel import add_proteins
from sclinguist_core.train.recipe import read_recipe
from sclinguist_core.vocabulary.proteins import list_proteins

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))
from train_bundled import FOLDS  # noqa: E402  (a script beside this folder)

ROWS = {"cells": 500, "spots": 300}
RULES = ("by gene", "by decoder", "imputed mRNA", "measured mRNA")
QUANTILES = (0.05, 0.95)


def train_without(data: Path, fold: str, unseen: list[str], steps: int, folder: Path) -> Checkpoint:
    """Train the recipe without a fold's data sets and without some proteins, unless it is done."""
    if folder.is_dir():
        return load_checkpoint(folder)
    started = time.perf_counter()
    os.environ["SCLINGUIST_DATA"] = str(data.resolve())
    recipe = read_recipe(ROOT / "training" / "bundled.yaml", [f"fit.steps={steps}"])
    paths = [Path(str(getattr(entry, "path", entry))) for entry in recipe.paired]
    cells = [open_cells(path) for path in paths if path.stem not in FOLDS[fold]]
    cells = [one.without(unseen) for one in cells]
    cells = [one for one in cells if len(one.truth().proteins) >= 2]
    save_checkpoint(refit(recipe, cells, hold_out=FOLDS[fold]), folder)
    print(f"{folder.name}: {time.perf_counter() - started:.0f} s", flush=True)
    return load_checkpoint(folder)


def ask(
    checkpoint: Checkpoint, unseen: list[str], data: PairedDataset, rna: AlignedRna
) -> dict[str, pd.DataFrame]:
    """Predict unseen proteins by each rule, a column a protein."""
    known = list_proteins()[["genes", "kind"]]
    names = list(dict.fromkeys(data_names(checkpoint, data, unseen)))
    table = known.loc[names].reset_index(names="name")
    queries = gene_queries(checkpoint, table)
    # All rules in one pass: the decoder's queries are rows that are added to the network; without
    # learnt proteins a query is its own mRNA, of which the measured part is known.
    twice = replace(
        queries,
        table=pd.concat([table, table]),
        share=sparse.vstack([queries.share, queries.share], format="csr"),
        mixing=np.vstack([queries.mixing, np.zeros_like(queries.mixing)]),
    )
    wider = add_proteins(checkpoint, table)
    n_old, n = len(checkpoint.proteins), len(names)
    added = np.arange(n_old, n_old + n)
    runner = QueryRunner(wider, torch.device("cpu"), added, None, twice)
    by_decoder, by_gene, own = np.split(runner.run_all(rna)[0], 3, axis=1)
    measured = own_mrna(checkpoint, queries.share, rna)
    imputed = (own - queries.measured_gain * measured) / queries.imputed_gain
    found = (by_gene, by_decoder, imputed, measured)
    return {rule: pd.DataFrame(x, columns=names) for rule, x in zip(RULES, found, strict=True)}


def data_names(checkpoint: Checkpoint, data: PairedDataset, unseen: list[str]) -> list[str]:
    """Unseen proteins that a set measures and whose gene the network knows."""
    genes, symbols = list_proteins()["genes"], set(checkpoint.symbols)
    measured = [ALL_NAMES[i] for i in data.protein]
    return [n for n in measured if n in unseen and set(genes[n].split(";")) & symbols]


def own_mrna(checkpoint: Checkpoint, share: sparse.csr_matrix, rna: AlignedRna) -> np.ndarray:
    """Standardised expression of each protein's own genes; 0 where not measured."""
    model = checkpoint.translator
    genes = np.unique(share.indices)
    x = rna.expression(checkpoint.gene_share)[:, genes].toarray()
    mean, std = (v[genes].numpy() for v in (model.gene_mean, model.gene_std))
    z = np.clip((x - mean) / std, -model.config.clip, model.config.clip)
    return (z * rna.measured[rna.pattern][:, genes]) @ share[:, genes].toarray().T


def judge(asked: dict[str, pd.DataFrame], data: PairedDataset, target: np.ndarray) -> list[dict]:
    """Correlations with the measurement, a row an antibody; errors for slope and interval."""
    rows = []
    for j, protein in enumerate(data.protein):
        name = ALL_NAMES[protein]
        if name not in asked[RULES[0]]:
            continue
        y = target[:, j].astype(np.float64)
        x = asked[RULES[0]][name].to_numpy(np.float64)
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known] - x[known].mean(), y[known] - y[known].mean()
        row = {"protein": name, "x": x, "y": y}
        for rule in RULES:
            values = asked[rule][[name]].to_numpy()
            row[rule] = column_correlation(values, target[:, [j]])[0]
        rows.append(row)
    return rows


def learnt(runs: Path, dataset: str, context: str) -> dict[str, float]:
    """Correlations of the fold that has learnt the proteins, from the cache of calibration."""
    (path,) = (runs / "held_out").glob(f"{dataset}-{context}-*.npz")
    record = read_held_out(path)
    found = pd.Series(column_correlation(record.mean, record.target), index=record.proteins)
    return found.groupby(level=0).mean().to_dict()


def accuracy(table: pd.DataFrame) -> dict[str, float]:
    """Slope, and quantiles of the calibrated error; each protein counts the same."""
    slope = sum((r.x * r.y).mean() for r in table.itertuples()) / sum(
        (r.x**2).mean() for r in table.itertuples()
    )
    error = np.concatenate(
        [np.quantile(r.y - slope * r.x, np.linspace(0, 1, 201)) for r in table.itertuples()]
    )
    low, high = np.quantile(error, QUANTILES)
    return {"slope": slope, "low": low, "high": high, "std": error.std()}


def coverage(table: pd.DataFrame, given: dict[str, float]) -> float:
    """Share of the values in the interval, mean over proteins."""
    inside = [
        ((e := r.y - given["slope"] * r.x) >= given["low"]) & (e <= given["high"])
        for r in table.itertuples()
    ]
    return float(np.mean([x.mean() for x in inside]))


def evaluate(arguments: argparse.Namespace, parts: list[list[str]]) -> pd.DataFrame:
    """Ask every network for what it has not learnt."""
    rows = []
    for fold in arguments.folds:
        for number, unseen in enumerate(parts):
            name = f"{fold}_{number}_{arguments.parts}_{arguments.steps}"
            folder = arguments.work / name
            checkpoint = train_without(arguments.data, fold, unseen, arguments.steps, folder)
            for dataset in FOLDS[fold]:
                section = open_section(arguments.data / "citeseq" / f"{dataset}.h5ad")
                data = paired_dataset(section, checkpoint.symbols, ALL_NAMES)
                rng = np.random.default_rng(0)
                few = np.sort(rng.permutation(data.n_obs)[: ROWS["cells"]])
                mixed, mix = spots_of(data, ROWS["spots"], rng)
                for context, rna, target in (
                    ("cells", data.rna.take(few), data.targets(data.antibodies[few])),
                    ("spots", mixed, data.targets(mix @ data.antibodies, spots=True)),
                ):
                    if not data_names(checkpoint, data, unseen):
                        continue
                    best = learnt(arguments.runs, dataset, context)
                    for row in judge(ask(checkpoint, unseen, data, rna), data, target):
                        where = {"fold": fold, "dataset": dataset, "context": context}
                        rows.append(where | row | {"learnt": best.get(row["protein"], np.nan)})
                print(f"{name} {dataset}", flush=True)
    return pd.DataFrame(rows)


def report(table: pd.DataFrame, arguments: argparse.Namespace, started: float) -> str:
    """Page with means by set, and what calibration was made of."""
    # The comparison is on the proteins that the fold's other sets measure.
    table = table.assign(of_these=table["by gene"].where(table["learnt"].notna()))
    table = table.rename(columns={"of_these": "by gene, of these"})
    columns = [*RULES, "learnt", "by gene, of these"]
    lines = [
        "# Proteins by their genes alone",
        "",
        "`training/benchmarks/any_protein.py`. Mean over proteins of the Pearson correlation with",
        "the CLR measurement, for proteins whose antibodies were left out of training, in data",
        f"sets that were left out, too ({arguments.parts} parts of the proteins, the bundled",
        f"recipe with {arguments.steps} steps). *By gene* is what `sclinguist predict` does;",
        "*learnt* is a network that had learnt these proteins (the fold of the full recipe).",
        "",
        "| context | data set | proteins | " + " | ".join(columns) + " |",
        "|" + "---|" * (3 + len(columns)),
    ]
    for (context, dataset), part in table.groupby(["context", "dataset"], sort=False):
        means = " | ".join(f"{part[c].mean():.2f}" for c in columns)
        lines.append(f"| {context} | {dataset} | {len(part)} | {means} |")
    for context, part in table.groupby("context", sort=False):
        r = part["by gene"]
        ahead = (r > part["measured mRNA"].fillna(0)).mean()
        lines += [
            "",
            f"On {context}, {len(part)} antibodies: mean {r.mean():.2f}, a tenth below "
            f"{r.quantile(0.1):.2f}, a tenth above {r.quantile(0.9):.2f}; "
            f"{(r < 0.2).mean():.0%} below 0.2; ahead of the measured mRNA for {ahead:.0%}.",
        ]
        folds = {fold: accuracy(p) for fold, p in part.groupby("fold")}
        found = accuracy(part)
        across = [
            f"{coverage(p, folds[other]):.2f} (from fold {other}, of fold {fold})"
            for fold, p in part.groupby("fold")
            for other in folds
            if other != fold
        ]
        figures = ", ".join(f"{key} {value:.2f}" for key, value in found.items())
        lines.append(f"Calibration: {figures}. Coverage of the 90 % interval: {', '.join(across)}.")
    lines += [
        "",
        f"napari-sclinguist {sclinguist_core.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} CPU cores, {time.strftime('%Y-%m-%d')}; "
        f"{ROWS['cells']} cells and {ROWS['spots']} pseudo-spots a set, "
        f"{time.perf_counter() - started:.0f} s besides training.",
    ]
    return "\n".join(lines) + "\n"


ALL_NAMES: list[str] = []


def main() -> None:
    """Train, predict, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bundled")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "any_protein")
    parser.add_argument("--folds", nargs="+", default=["b", "c"])
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    started = time.perf_counter()
    ALL_NAMES.extend(load_checkpoint(arguments.runs / "final").protein_names)
    arguments.work.mkdir(parents=True, exist_ok=True)
    genes = list_proteins()["genes"].reindex(ALL_NAMES).fillna("").to_dict()
    table = evaluate(arguments, protein_parts(genes, arguments.parts))
    page = report(table, arguments, started)
    print(page)
    arguments.results.mkdir(parents=True, exist_ok=True)
    table.drop(columns=["x", "y"]).to_csv(
        arguments.results / "any_protein.csv", index=False, float_format="%.4f"
    )
    (arguments.results / "any_protein.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
