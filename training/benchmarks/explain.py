"""Which genes drive CD3, CD19, CD14, CD16 and CD56, and whether that can be believed.

    python training/benchmarks/explain.py DATA [--runs runs/bundled]

Explains pbmc1k with the fold of ``training/train_bundled.py`` that did not see it, and with the
bundled checkpoint, which has: first 20 genes, ranks of known drivers (`DRIVERS`, written
down before the first run), stability over resampled cells and over models, completeness,
agreement with exact knock-outs, with attention and with random weights, and deletion curves.
Writes ``docs/results/explain.md``, ``explain.csv``, ``explain_deletion.csv`` and
``docs/images/explain_deletion.png``, ``explain_network.png``.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

import sclinguist_core as scl
from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.benchmark_report import markdown_table
from sclinguist_core.evaluation.deletion import Deletion, deletion_figure, deletion_iter
from sclinguist_core.evaluation.network import network_figure, network_table
from sclinguist_core.evaluation.randomisation import randomisation_iter
from sclinguist_core.files import replacing
from sclinguist_core.inference import trust
from sclinguist_core.inference.background import draw_like_expressed
from sclinguist_core.inference.explain import explain_iter, sampled
from sclinguist_core.inference.explain_agreement import agreement
from sclinguist_core.inference.explanation import Explanation
from sclinguist_core.inference.perturber import scaled
from sclinguist_core.inference.prepare import prepare
from sclinguist_core.inference.progress import finish
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
TEST = "pbmc1k"
DRIVERS = {
    "CD3": ["CD3D", "CD3E", "CD3G", "IL32"],
    "CD19": ["CD19", "CD79A", "MS4A1"],
    "CD14": ["CD14", "LYZ", "S100A8"],
    "CD16": ["FCGR3A"],
    "CD56": ["NCAM1", "NKG7", "GNLY"],
}
"""Genes of the protein and of the cells that carry it, written down before the first run."""
FURTHER = {
    "CD3": ["CD247", "IL7R", "TRAC", "LCK", "CD2"],
    "CD19": ["CD79B", "BANK1", "CD22", "PAX5", "TCL1A"],
    "CD14": ["S100A9", "S100A12", "VCAN", "FCN1", "CST3"],
    "CD16": ["NKG7", "GNLY", "CDKN1C", "MS4A7", "RHOC", "FCER1G", "PRF1"],
    "CD56": ["KLRD1", "KLRF1", "PRF1", "XCL1", "CTSW"],
}
"""More markers of the same cells, listed after a first look at results: an illustration."""
PROTEINS = list(DRIVERS)
N_TOP = 20
KNOCKED_OUT = 30
"""First genes, and as many of like expression, that are taken away one at a time."""
CELLS = {
    "unseen": 300,
    "seen": 150,
    "more steps": 30,
    "knock-outs": 50,
    "random weights": 50,
    "deletion": 100,
    "other models": 50,
}
"""Cells of each part, drawn at random."""


def run(section: Section, model: Checkpoint, **options: object) -> Explanation:
    """Explain the five proteins on the processor."""
    return finish(explain_iter(section, PROTEINS, model=model, device="cpu", **options))


def drivers(ranked: pd.DataFrame, model: Checkpoint) -> pd.DataFrame:
    """Rank of every known driver, and of further markers."""
    read = set(model.symbols)

    def rank(protein: str, gene: str) -> str:
        if gene not in read:
            return f"{gene} not read by the model"
        if (protein, gene) not in ranked.index:
            return f"{gene} not in these cells"
        return f"{gene} {int(ranked.loc[(protein, gene), 'rank'])}"

    rows = []
    for protein, genes in DRIVERS.items():
        first = set(ranked.loc[protein].index[:N_TOP])
        rows.append(
            {
                "protein": protein,
                "known drivers: rank": ", ".join(rank(protein, gene) for gene in genes),
                f"among the first {N_TOP}": f"{len(first & set(genes))} of {len(genes)}",
                "further markers: rank": ", ".join(rank(protein, g) for g in FURTHER[protein]),
            }
        )
    return pd.DataFrame(rows)


def knockout_agreement(
    section: Section, model: Checkpoint, by_method: dict[str, Explanation]
) -> pd.DataFrame:
    """Spearman correlation of attributions with exact knock-outs, over cells x genes.

    The same genes for all methods: the first of the gradients' ranking and as many others of like
    expression, each taken away alone from the cells that express it.
    """
    true = by_method["gradients"]
    places = sampled(np.arange(len(true.rows)), CELLS["knock-outs"], 0)
    prepared = prepare(section, model=model, proteins=PROTEINS, device="cpu")
    runner = prepared.runner()
    aligned = prepared.aligned(true.rows[places])
    expression = runner.expression(aligned)
    slope = trust.slope(prepared.table, prepared.calibration)
    before = runner.run_all(aligned)[0]
    mean = np.asarray(expression.mean(axis=0)).ravel()
    n_rows = np.bincount(expression.indices, minlength=len(mean))
    rows = []
    for i, protein in enumerate(PROTEINS):
        share = np.where(mean > 0, true.shares()[i], -np.inf)
        first = np.argsort(-share, kind="stable")[:KNOCKED_OUT]
        others = draw_like_expressed(mean, n_rows, first, 1, 0)[0]
        drops, said = [], {name: [] for name in by_method}
        for gene in (*first, *others):
            where = np.flatnonzero(expression[:, [gene]].toarray().ravel())
            if not len(where):
                continue
            without = scaled(expression[where], np.array([gene]), 0.0)
            after = np.empty(len(where))
            for done, outputs in runner.run_expression(
                without, aligned.measured, aligned.pattern[where]
            ):
                after[done] = outputs.mean[:, i]
            drops.append(slope[i] * (before[where, i] - after))
            for name, explanation in by_method.items():
                values = explanation.values[i][places][where][:, [gene]].toarray()
                said[name].append(values.ravel())
        drop = pd.Series(np.concatenate(drops))
        row: dict[str, object] = {"protein": protein, "knock-outs": str(len(drop))}
        for name, parts in said.items():
            row[name] = float(drop.corr(pd.Series(np.concatenate(parts)), method="spearman"))
        row["sum of attributions / of drops"] = float(
            np.concatenate(said["gradients"]).sum() / drop.sum()
        )
        rows.append(row)
    return pd.DataFrame(rows)


def moved(curves: dict[str, Deletion]) -> pd.DataFrame:
    """How far predictions move without genes, for each ranking, in SD."""
    rows = []
    for protein in PROTEINS:
        row: dict[str, object] = {"protein": protein}
        for name, result in curves.items():
            summary = result.summary().loc[protein]
            for order in ("first", "random", "last"):
                if name == "attention" and order != "first":
                    continue
                words = order if name == "gradients" else f"{order} by {name}"
                row[f"{words}, 20 genes"] = float(summary.loc[(order, 20), "moved"])
                row[f"{words}, 100 genes"] = float(summary.loc[(order, 100), "moved"])
        rows.append(row)
    return pd.DataFrame(rows)


def falls(result: Deletion) -> pd.DataFrame:
    """Pearson with the measured protein, untouched and without many genes."""
    summary = result.summary()["r_measured"].unstack()
    most = summary.columns.max()
    table = pd.DataFrame({"protein": PROTEINS})
    table["untouched"] = [summary.loc[(p, "first"), 0] for p in PROTEINS]
    for order in ("first", "random", "last"):
        table[f"without {most} {order}"] = [summary.loc[(p, order), most] for p in PROTEINS]
    return table


def wide(random: pd.DataFrame) -> pd.DataFrame:
    """Agreement with random weights, a column for each part that was redrawn last."""
    table = random.pivot_table(
        index="protein", columns="redrawn", values="rank_correlation", sort=False
    )
    table.columns.name = None
    return table.reset_index()


def save(figure: object, path: Path) -> None:
    """Write a figure as PNG of 256 colours, which is half the size."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110, facecolor="white")
    with replacing(path) as temporary:
        image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        image.save(temporary, format="png", optimize=True)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.5f", lineterminator="\n")


def main() -> None:
    """Explain, check, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with citeseq/")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bundled")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="in place of docs")
    parser.add_argument("--cells", type=int, help="so many for every part, to try the script")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.cells:
        CELLS.update(dict.fromkeys(CELLS, arguments.cells))
    results, images = (arguments.output / name for name in ("results", "images"))
    for folder in (results, images):
        folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()

    def log(what: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {what}", flush=True)

    section = scl.open_section(arguments.data / "citeseq" / f"{TEST}.h5ad")
    folds = {f.name: load_checkpoint(f) for f in sorted(arguments.runs.glob("fold_?"))}
    blind = next(name for name, m in folds.items() if TEST not in m.info.training_datasets)
    models = {f"{blind} (unseen)": folds[blind], "bundled (seen)": load_checkpoint("bundled")}
    tops, deleted = [], []
    text: list[str] = []
    explained = {}
    for name, model in models.items():
        unseen = model is folds[blind]
        log(f"{name}: gradients")
        true = explained[name] = run(section, model, max_rows=CELLS["unseen" if unseen else "seen"])
        ranked = true.ranked()
        top = ranked[ranked["rank"] <= N_TOP].reset_index()
        tops.append(top.assign(model=name))
        words = "has not seen these cells" if unseen else "was trained on these cells"
        text.append(f"\n## Model {name}: {true.info['model_digest']}, which {words}\n")
        text.append(f"{len(true.rows)} cells of {TEST}; {true.info['seconds']:.0f} s.\n")
        for protein in PROTEINS:
            genes = ", ".join(
                f"{'−' if row.direction == 'lowers' else ''}{row.gene} {row.share:.1%}"
                for row in top[top["protein"] == protein].itertuples()
            )
            text.append(f"- **{protein}**: {genes}")
        text.append("\nA minus: expressing the gene lowers the prediction.\n")
        text.append(markdown_table(drivers(ranked, model)))
        stability = true.stability().reset_index()
        first = ranked["share"].groupby("protein", sort=False).apply(lambda s: s.head(N_TOP).sum())
        stability["share of the first 20"] = first.to_numpy()
        stability["spread of the start / of the prediction"] = true.start.std(
            axis=0
        ) / true.predicted.std(axis=0)
        text.append(
            "\nOver 100 bootstrap samples of the cells: mean Spearman correlation of all shares, "
            "mean Jaccard overlap of the first 20. The start of the way (tokens there, all values "
            "0) should not differ between cells.\n"
        )
        text.append(markdown_table(stability))
        text.append(
            f"\nCompleteness: with {true.info['steps']} steps, sums of attributions are off by "
            f"{true.info['completeness_error']:.2%} of the predictions' spread on average."
        )
        if unseen:
            log(f"{name}: more steps")
            places = sampled(np.arange(len(true.rows)), CELLS["more steps"], 0)
            coarse = true.take(places)
            finer = run(section, model, rows=coarse.rows, max_rows=None, steps=32)
            same = agreement(coarse, finer)
            text.append(
                f"With 32 steps, on {len(finer.rows)} cells: "
                f"{finer.info['completeness_error']:.2%}; Spearman correlation of the shares with "
                f"those of {true.info['steps']} steps "
                f"{same['rank_correlation'].min():.4f} or more, overlap of the first 20 "
                f"{same['jaccard'].min():.2f} or more."
            )
            log(f"{name}: attention")
            attention = run(section, model, rows=true.rows, max_rows=None, method="attention")
            versus = agreement(true, attention).reset_index()
            known = drivers(attention.ranked(resamples=0), model)
            column = f"among the first {N_TOP}"
            versus[f"known drivers {column}, gradients"] = drivers(ranked, model)[column]
            versus["the same, attention"] = known[column]
            text.append("\n### Attention x value beside gradients\n")
            text.append(f"{attention.info['seconds']:.0f} s for all cells.\n")
            text.append(markdown_table(versus))
            log(f"{name}: knock-outs")
            by_method = {"gradients": true, "attention": attention}
            text.append("\n### Against exact knock-outs\n")
            text.append(
                f"The first {KNOCKED_OUT} genes and as many of like expression, taken away one at "
                f"a time from those of {CELLS['knock-outs']} cells that express them: Spearman "
                "correlation of what a cell's prediction drops by with the attribution.\n"
            )
            text.append(markdown_table(knockout_agreement(section, model, by_method)))
        log(f"{name}: random weights")
        options = {"model": model, "device": "cpu"}
        drawn = randomisation_iter(section, true, max_rows=CELLS["random weights"], **options)
        text.append("\n### Random weights\n")
        text.append(
            "Spearman correlation of the shares with those of the model whose weights were drawn "
            "anew, from the proteins down to the part named, on "
            f"{CELLS['random weights']} cells:\n"
        )
        text.append(markdown_table(wide(finish(drawn))))
        log(f"{name}: deletion")
        options["max_rows"] = CELLS["deletion"]
        steps = deletion_iter(section, true, draws=3 if unseen else 1, **options)
        curves = {"gradients": finish(steps)}
        if unseen:
            steps = deletion_iter(section, attention, draws=1, counts=(20, 100), **options)
            curves["attention"] = finish(steps)
            save(deletion_figure(curves["gradients"]), images / "explain_deletion.png")
            save(network_figure(network_table(ranked)), images / "explain_network.png")
        deleted += [c.table.assign(model=name, ranking=r) for r, c in curves.items()]
        text.append("\n### Deletion\n")
        text.append(
            f"Mean change of the prediction in its SD over {curves['gradients'].n_rows} cells, "
            "when genes are taken away from all of them:\n"
        )
        text.append(markdown_table(moved(curves)))
        text.append("\nPearson with the measured protein (CLR):\n")
        text.append(markdown_table(falls(curves["gradients"])))
    log("other models")
    true = explained[f"{blind} (unseen)"]
    some = true.rows[sampled(np.arange(len(true.rows)), CELLS["other models"], 0)]
    base = true.take(np.flatnonzero(np.isin(true.rows, some)))
    table = pd.DataFrame({"protein": PROTEINS})
    for name, model in {**folds, "bundled": models["bundled (seen)"]}.items():
        if name != blind:
            log(f"other models: {name}")
            found = agreement(base, run(section, model, rows=some, max_rows=None))
            table[f"{name}: Spearman"] = found["rank_correlation"].to_numpy()
            table[f"{name}: Jaccard"] = found["jaccard"].to_numpy()
    text.append(f"\n## {blind} beside models of other training sets\n")
    text.append(f"{len(some)} cells. These models have other training cells and other seeds.\n")
    text.append(markdown_table(table))
    log("writing")
    ran = (
        f"Written by `training/benchmarks/explain.py`. {time.strftime('%Y-%m-%d')}, "
        f"napari-sclinguist {scl.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, one thread, other work beside it; "
        f"{time.perf_counter() - began:.0f} s."
    )
    report = "\n".join(["# Which genes drive a protein: how it was tested\n", ran, *text]) + "\n"
    with replacing(results / "explain.md") as temporary:
        temporary.write_text(report, encoding="utf-8")
    write_csv(pd.concat(tops, ignore_index=True), results / "explain.csv")
    write_csv(pd.concat(deleted, ignore_index=True), results / "explain_deletion.csv")
    print(report)


if __name__ == "__main__":
    main()
