"""Imputation of hidden entries on data that the model has not seen, beside the trivial.

    python training/benchmarks/impute.py DATA [--runs runs/bundled] [--seeds 3] [--sets NAME ...]

A fifth of the measured entries of every row is hidden (of at most 1,000 rows of a set) and imputed
by the gene's mean, by kNN smoothing, by the model as if the gene had never been measured, by the
model, and by the model with a context. Writes ``impute.csv`` (a row a set, seed and method; sets
that are not run anew keep theirs) and from it ``impute.md``, to ``docs/results``. The number of
neighbours of kNN smoothing and what is fixed in the model's method were chosen on pbmc5k,
teaseq_pbmc and eccite_pbmc; none of the sets here took part.

``--protein`` compares imputed and measured mRNA with the protein that the gene codes for, which
no method has seen, and writes ``impute_protein.csv``.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import sklearn
from scipy import sparse

import sclinguist_core
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.levels import N_LEVELS
from sclinguist_core.data.preprocess import isotype_mask, protein_clr
from sclinguist_core.data.readers import open_section
from sclinguist_core.evaluation.imputation import COLUMNS, KnnImputer, evaluate_imputation_iter
from sclinguist_core.inference.impute import impute_iter
from sclinguist_core.inference.progress import finish
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.vocabulary.proteins import resolve_protein

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
BUNDLED = "bundled"
SETS = {
    "pbmc1k": ("citeseq/pbmc1k.h5ad", "fold_a", ("nearest",)),
    "bmmc_neurips2021": ("citeseq/bmmc_neurips2021.h5ad", "fold_b", ("nearest",)),
    "malt_1000": ("citeseq/malt_1000.h5ad", BUNDLED, ("nearest",)),
    "tonsil_composite": ("spatial/tonsil_composite/outs", BUNDLED, ("spatial", "nearest")),
    "human_ducts_rna": ("spatial/human_ducts_rna/outs", BUNDLED, ("spatial", "nearest")),
}
"""Where a set lies, a checkpoint that has not seen it, and the contexts to score."""
NOTES = {
    "bmmc_neurips2021": "Bone marrow. Sites measured different genes, at different depths.",
    "malt_1000": "Cells of a tissue that the model has never seen; nothing was chosen on them.",
    "tonsil_composite": "Spots pooled from the cells of malt_1000 by histological region: what is "
    "alike in neighbours is alike by construction.",
    "human_ducts_rna": "A real section, of a tissue that the model has never seen.",
}
WITH_PROTEIN = ("pbmc1k", "malt_1000")
LABELS = {
    "mcc": "MCC",
    "mcc_expressed": "MCC expressed",
    "pearson": "r",
    "pearson_per_gene": "r gene",
    "pearson_per_cell": "r cell",
}
FIGURES = list(LABELS)


def measure(name: str, data: Path, runs: Path, n_seeds: int) -> pd.DataFrame:
    """Score one set: a row a seed and method, with what was hidden."""
    path, model, contexts = SETS[name]
    checkpoint = load_checkpoint(model if model == BUNDLED else runs / model)
    section = open_section(data / path)
    tables = []
    for seed in range(n_seeds):
        scores = finish(
            evaluate_imputation_iter(section, contexts=contexts, model=checkpoint, seed=seed)
        )
        info = scores.info
        if name in info["training_datasets"]:
            raise SystemExit(f"{model} was trained on {name}")
        print(name, seed, scores.table.round(4).to_string(), sep="\n", flush=True)
        table = scores.table.drop(columns="seconds").reset_index()
        table.insert(0, "dataset", name)
        table.insert(1, "seed", seed)
        for key in ("n_rows", "n_genes", "n_hidden", "n_expressed"):
            table[key] = info[key]
        for level, share in enumerate(info["levels"]):
            table[f"level_{level}"] = share
        tables.append(table.assign(checkpoint=f"{model} {checkpoint.digest}", ran_on=ran_on()))
    return pd.concat(tables, ignore_index=True)


def page(table: pd.DataFrame) -> str:
    """Lay the table out as a page."""
    lines = [
        "# Imputation",
        "",
        "Written by `training/benchmarks/impute.py`. A fifth of the measured entries of every row",
        "is hidden, zeros and expressed ones alike; means over the draws.",
        "",
        *(f"- {label}: {COLUMNS[name]}" for name, label in LABELS.items()),
        "",
        "A gene has a figure of its own if 10 of its hidden entries or more are expressed.",
        "",
    ]
    for name in SETS:
        part = table[table["dataset"] == name]
        if part.empty:
            continue
        row = part.iloc[0]
        mean = part.groupby("method", sort=False)[FIGURES].mean()
        n_draws = part["seed"].nunique()
        shares = ", ".join(f"{100 * row[f'level_{level}']:.2f} %" for level in range(N_LEVELS))
        lines += [
            f"## {name}",
            "",
            *([NOTES[name], ""] if name in NOTES else []),
            f"{row['n_rows']:,} rows, {row['n_genes']:,} genes, {row['n_hidden']:,} hidden "
            f"entries, {row['n_expressed']:,} of them expressed; levels 0 to 4: {shares}. "
            f"{n_draws} draw{'s' * (n_draws > 1)}. Checkpoint {row['checkpoint']}, which has not "
            f"seen the set. {row['ran_on']}.",
            "",
            "| method | " + " | ".join(LABELS.values()) + " |",
            "|---" * (len(LABELS) + 1) + "|",
        ]
        for method, figures in mean.iterrows():
            values = " | ".join(f"{figures[figure]:.3f}" for figure in FIGURES)
            lines.append(f"| {method} | {values} |")
        lines += ["", *_gains(part), ""]
    return "\n".join(lines)


def _gains(part: pd.DataFrame) -> list[str]:
    """Say what a context gains, and what the model gains on kNN smoothing, draw by draw."""
    wide = part.pivot(index="seed", columns="method", values=["mcc", "pearson_per_gene"])
    pairs = [("model", "kNN smoothing")]
    pairs += [(name, "model") for name in part["method"].unique() if name.endswith("context")]
    sentences = []
    for one, other in pairs:
        gain = {key: wide[key][one] - wide[key][other] for key in ("mcc", "pearson_per_gene")}
        said = ", ".join(
            f"{label} {g.mean():+.4f}"
            + (f" ({g.min():+.4f} to {g.max():+.4f})" if len(g) > 1 else "")
            for label, g in zip(("MCC", "r gene"), gain.values(), strict=True)
        )
        sentences.append(f"- {one} against {other}: {said}.")
    return sentences


def against_protein(name: str, data: Path, runs: Path) -> pd.DataFrame:
    """Pearson of measured, smoothed and imputed mRNA with the CLR of its protein: a row a gene."""
    path, model, _ = SETS[name]
    section = open_section(data / path)
    counts = section.table.obsm["protein"]
    isotype = isotype_mask(section.table)
    clr = protein_clr(counts, isotype)
    coding = {
        protein: resolve_protein(protein).genes
        for protein, control in zip(counts.columns, isotype, strict=True)
        if not control
    }
    checkpoint = load_checkpoint(model if model == BUNDLED else runs / model)
    position = {symbol: i for i, symbol in enumerate(checkpoint.symbols)}
    pairs = [(gene, of) for of, genes in coding.items() for gene in genes if gene in position]
    names = list(dict.fromkeys(gene for gene, _ in pairs))
    imputation = finish(impute_iter(section, genes=names, model=checkpoint))
    rna = align_genes(section.rna(), checkpoint.symbols)
    nothing = sparse.csr_matrix(rna.counts.shape, dtype=bool)
    smooth = finish(KnnImputer(checkpoint.gene_share).describe(rna, nothing))
    numbers = np.array([position[gene] for gene in names])
    smoothed = smooth(np.arange(rna.n_obs), numbers)[..., 0]
    measured = rna.expression(checkpoint.gene_share)[:, numbers].toarray()
    rows = []
    for gene, protein in pairs:
        at = names.index(gene)
        sides = np.column_stack([x[:, at] for x in (measured, smoothed, imputation.value)])
        r = column_correlation(sides, np.tile(clr[[protein]].to_numpy(), 3))
        shown = (measured[:, at] > 0).mean()
        rows.append([name, gene, protein, shown, *r])
    columns = ["dataset", "gene", "protein", "share_expressed"]
    table = pd.DataFrame(rows, columns=[*columns, "r_measured", "r_smoothed", "r_imputed"])
    # A gene that no cell shows has no correlation to be better than.
    table = table.dropna(ignore_index=True)
    return table.assign(checkpoint=f"{model} {checkpoint.digest}", ran_on=ran_on())


def ran_on() -> str:
    """Say when, with which versions and on what a figure was measured."""
    return (
        f"{time.strftime('%Y-%m-%d')}, napari-sclinguist {sclinguist_core.__version__}, "
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s) "
        f"of {os.cpu_count()} cores"
    )


def main() -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/bundled"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--protein", action="store_true")
    arguments = parser.parse_args()
    print(ran_on(), flush=True)
    if arguments.protein:
        tables = [against_protein(n, arguments.data, arguments.runs) for n in WITH_PROTEIN]
        table = pd.concat(tables, ignore_index=True)
        print(table.iloc[:, :7].round(3).to_string())
        figures = ["r_measured", "r_smoothed", "r_imputed"]
        print(table.groupby("dataset")[figures].agg(["mean", "count"]).round(3).to_string())
        table.to_csv(
            RESULTS / "impute_protein.csv", index=False, float_format="%.4f", lineterminator="\n"
        )
        return
    path = RESULTS / "impute.csv"
    for name in arguments.sets:
        table = measure(name, arguments.data, arguments.runs, arguments.seeds)
        if path.is_file():
            known = pd.read_csv(path)
            table = pd.concat([known[known["dataset"] != name], table], ignore_index=True)
        table.to_csv(path, index=False, float_format="%.4f", lineterminator="\n")
        (RESULTS / "impute.md").write_text(page(table), "utf-8")


if __name__ == "__main__":
    main()
