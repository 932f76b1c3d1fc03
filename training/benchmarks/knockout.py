"""Pseudo-knockout of marker genes in blood that the model did not see, beside random genes.

    python training/benchmarks/knockout.py DATA CHECKPOINTS [--bundled]

DATA is the folder with ``citeseq``; CHECKPOINTS holds ``fold_a``, which did not see pbmc1k, as
``training/train_bundled.py`` leaves it. Asks of each perturbation: where does the protein that the
genes code for stand among all proteins, and among those whose antibodies were measured; how far
does it move in the cells that express the genes, and how far in each cell type; and is that beyond
random genes of like expression. Then puts the first-order estimate of a screen beside runs of
every gene. Writes ``docs/results/knockout.csv``, ``knockout_cell_types.csv``,
``knockout_first_order.csv`` and ``knockout.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import sclinguist_core as scl
from sclinguist_core.data.section import Section
from sclinguist_core.inference import trust
from sclinguist_core.inference.first_order import first_order_iter
from sclinguist_core.inference.knockout import Knockouts, knockouts_iter
from sclinguist_core.inference.perturbation import Perturbation
from sclinguist_core.inference.perturber import one_at_a_time
from sclinguist_core.inference.prepare import Prepared, prepare
from sclinguist_core.inference.progress import finish
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.feed import Cells

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
SETS = {
    "CD19": (["CD19"], "CD19"),
    "CD3D+CD3E+CD3G": (["CD3D", "CD3E", "CD3G"], "CD3"),
    "CD8A": (["CD8A"], "CD8"),
    "MS4A1": (["MS4A1"], "CD20"),
    "CD14": (["CD14"], "CD14"),
}
CELL_TYPES = "cell_type_l1"
BACKGROUND = 19
CELLS_OF_A_TYPE = 1
"""Cells of each type in which every gene is run."""
TOP = 20


def own_term(prepared: Prepared, found: Perturbation, protein: str) -> float:
    """Mean over the affected cells of what the model adds for the protein's own mRNA alone."""
    checkpoint = prepared.checkpoint
    model = checkpoint.model
    place = checkpoint.protein_names.index(protein)
    genes = [checkpoint.symbols.index(gene) for gene in found.info["genes"]]
    aligned = prepared.aligned(np.flatnonzero(found.affected))
    share = checkpoint.gene_share
    values = aligned.expression(share, checkpoint.info.model.rna_normalization)[:, genes].toarray()
    mean, std = (x[genes].numpy() for x in (model.gene_mean, model.gene_std))
    clip = checkpoint.info.model.clip
    zero = np.clip(-mean / std, -clip, clip)
    lost = zero - np.where(values > 0, np.clip((values - mean) / std, -clip, clip), zero)
    column = model.coding_column[genes]
    weight = (model.cognate_gain[place] * model.protein_coding[place, column]).detach().numpy()
    slope = trust.slope(prepared.table, prepared.calibration)[place]
    return float(slope * (lost @ weight).mean())


def measured_proteins(section: Section) -> list[str]:
    """Canonical names of the measured antibodies, isotype controls left out."""
    panel = scl.resolve_panel(list(section.table.obsm["protein"].columns))
    return panel.loc[~panel["isotype"], "canonical"].tolist()


def one_row(
    found: Knockouts, name: str, prepared: Prepared, section: Section, measured: list[str]
) -> dict[str, object]:
    """Figures of one perturbation."""
    protein = SETS[name][1]
    one = found.perturbations[name]
    ranked = one.ranked()
    lowered = ranked["mean_change"].sort_values()
    own = ranked.loc[protein]
    place = one.names.index(protein)
    # CD20 was not measured here: it takes its place among those that were.
    known = [other for other in dict.fromkeys([*measured, protein]) if other in one.names]
    others = ranked.loc[[other for other in known if other != protein], "mean_change"]
    background = one.background[:, place]
    away = np.abs(own["mean_change"] - background.mean())
    beyond = ranked["verdict"].isin(["lowered", "raised"])
    return {
        "genes": name,
        "coded": protein,
        "n_expressing": int(own["n_rows"]),
        "rank_all": int(lowered.index.get_loc(protein)) + 1,
        "n_all": len(lowered),
        "rank_measured": int(lowered[known].sort_values().index.get_loc(protein)) + 1,
        "n_measured": len(known),
        "change_expressing": own["mean_change"],
        "share_lowered": own["share_lowered"],
        "effect_size": own["effect_size"],
        "largest_change_elsewhere": np.nanmax(np.abs(one.change[~one.affected])),
        "own_mrna_term": own_term(prepared, one, protein),
        "next_measured": others.abs().idxmax(),
        "next_measured_change": others[others.abs().idxmax()],
        "background_mean": background.mean(),
        "background_sd": own["background_sd"],
        "background_lowest": background.min(),
        "background_highest": background.max(),
        "z": own["z"],
        "empirical_rank": 1 + int((np.abs(background - background.mean()) >= away).sum()),
        "n_ranked": len(background) + 1,
        "p_value": own["p_value"],
        "verdict": own["verdict"],
        "n_beyond": int(beyond.sum()),
    }


def by_cell_type(found: Knockouts, section: Section) -> pd.DataFrame:
    """Change of each coded protein over all cells of a type, expressing or not."""
    types = section.table.obs[CELL_TYPES].astype(str)
    rows = []
    for name, (_, protein) in SETS.items():
        one = found.perturbations[name]
        change = one.change[:, one.names.index(protein)]
        for cell_type in sorted(types.unique()):
            inside = (types == cell_type).to_numpy()
            affected = inside & one.affected
            rows.append(
                {
                    "genes": name,
                    "coded": protein,
                    "cell_type": cell_type,
                    "n_cells": int(inside.sum()),
                    "share_expressing": affected.sum() / inside.sum(),
                    "mean_change": np.nanmean(change[inside]),
                    "mean_change_expressing": change[affected].mean() if affected.any() else np.nan,
                }
            )
    return pd.DataFrame(rows)


def plain_gradient(
    checkpoint: Checkpoint, prepared: Prepared, cell: int, protein: int
) -> np.ndarray:
    """Minus value times gradient to the value: the usual first order, blind to clipped values."""
    model = checkpoint.model
    aligned = prepared.aligned(np.array([cell]))
    expression = aligned.expression(checkpoint.gene_share, checkpoint.info.model.rna_normalization)
    cells = Cells(values=expression, pattern=aligned.pattern)
    tokens = cells.tokens(np.array([0]), torch.device("cpu"))
    with torch.no_grad():
        tables = model.tables()
        panels = model.panels(torch.from_numpy(aligned.measured), tables)
    x = tokens.values.requires_grad_()
    panel = panels.of(tokens.pattern)
    said = model(tokens.genes, x, panel, tables, torch.tensor([protein])).mean
    (slope,) = torch.autograd.grad(said.sum(), [x])
    return -(x * slope).detach().numpy()[0]


def first_order(checkpoint: Checkpoint, section: Section, proteins: list[str]) -> pd.DataFrame:
    """Estimates beside runs of every gene, in a few cells of each type."""
    prepared = prepare(section, model=checkpoint, proteins=proteins, device="cpu")
    runner = prepared.runner()
    slope = trust.slope(prepared.table, prepared.calibration)
    types = section.table.obs[CELL_TYPES].astype(str)
    cells = types.groupby(types).sample(CELLS_OF_A_TYPE, random_state=0).index
    cells = np.sort(section.table.obs_names.get_indexer(cells))
    figures: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {p: [] for p in proteins}
    seconds = {"runs": 0.0, "estimates": 0.0}
    for cell in cells:
        aligned = prepared.aligned(np.array([cell]))
        expression = runner.expression(aligned)
        started = time.perf_counter()
        entries = np.arange(expression.nnz)
        before = runner.run_all(aligned)[0][0]
        after = np.empty((len(entries), len(proteins)))
        for start in range(0, len(entries), 512):
            runs = one_at_a_time(expression, entries[start : start + 512], 0.0)
            pattern = np.full(runs.shape[0], 0)
            for inside, outputs in runner.run_expression(runs, aligned.measured, pattern):
                after[start + inside] = outputs.mean
        change = slope * (after - before)
        seconds["runs"] += time.perf_counter() - started
        for k, protein in enumerate(proteins):
            started = time.perf_counter()
            place = int(prepared.proteins[k])
            ((_, _, estimate, _),) = first_order_iter(
                checkpoint.model, expression, aligned.measured, aligned.pattern, place
            )
            seconds["estimates"] += time.perf_counter() - started
            plain = plain_gradient(checkpoint, prepared, int(cell), place)
            figures[protein].append((change[:, k], slope[k] * estimate[0], slope[k] * plain))
    print(f"{len(cells)} cells, every gene: {seconds}")
    rows = []
    for protein, parts in figures.items():
        run = np.concatenate([part[0] for part in parts])
        row: dict[str, object] = {"protein": protein, "n_runs": len(run)}
        for name, index in (("estimate", 1), ("plain_gradient", 2)):
            guess = np.concatenate([part[index] for part in parts])
            row[f"r_{name}"] = np.corrcoef(run, guess)[0, 1]
            row[f"largest_error_{name}"] = np.abs(run - guess).max()
            row[f"top{TOP}_found_{name}"] = np.mean(
                [np.isin(first(part[0], TOP), first(part[index], TOP)).mean() for part in parts]
            )
            row[f"best_found_{name}"] = np.mean(
                [first(part[0], 1)[0] == first(part[index], 1)[0] for part in parts]
            )
        row["largest_change"] = np.abs(run).max()
        row["seconds_runs"] = seconds["runs"]
        row["seconds_estimates"] = seconds["estimates"] / len(proteins)
        rows.append(row)
    return pd.DataFrame(rows)


def first(values: np.ndarray, n: int) -> np.ndarray:
    """Places of the largest absolute values."""
    return np.argsort(-np.abs(values), kind="stable")[:n]


def main() -> None:
    """Run all, print the main table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("--bundled", action="store_true", help="the bundled checkpoint, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    section = scl.open_section(options.data / "citeseq" / "pbmc1k.h5ad")
    measured = measured_proteins(section)
    models = {"did not see pbmc1k": scl.load_checkpoint(options.checkpoints / "fold_a")}
    assert "pbmc1k" not in models["did not see pbmc1k"].info.training_datasets
    if options.bundled:
        models["bundled, has seen pbmc1k"] = scl.load_checkpoint("bundled")
    tables, types = [], []
    for label, checkpoint in models.items():
        started = time.perf_counter()
        sets = [genes for genes, _ in SETS.values()]
        steps = knockouts_iter(section, sets, model=checkpoint, device="cpu", background=BACKGROUND)
        found = finish(steps)
        prepared = prepare(section, model=checkpoint, device="cpu")
        rows = [one_row(found, name, prepared, section, measured) for name in SETS]
        table = pd.DataFrame(rows)
        table.insert(0, "model", f"{label} ({checkpoint.digest})")
        table["seconds_together"] = time.perf_counter() - started
        tables.append(table)
        types.append(by_cell_type(found, section).assign(model=label))
        print(table.T.to_string(), flush=True)
    table, cell_types = pd.concat(tables), pd.concat(types)
    table.to_csv(RESULTS / "knockout.csv", index=False, float_format="%.5g")
    cell_types.to_csv(RESULTS / "knockout_cell_types.csv", index=False, float_format="%.5g")
    known = [name for name in measured if name in models["did not see pbmc1k"].protein_names]
    estimates = first_order(models["did not see pbmc1k"], section, known)
    estimates.to_csv(RESULTS / "knockout_first_order.csv", index=False, float_format="%.5g")
    (RESULTS / "knockout.md").write_text(page(table, cell_types, estimates), "utf-8")


def page(table: pd.DataFrame, types: pd.DataFrame, estimates: pd.DataFrame) -> str:
    """Lay the three tables out."""
    head = (
        "# Pseudo-knockout of marker genes\n\nWritten by `training/benchmarks/knockout.py`. "
        "pbmc1k (552 cells, whole transcriptome); changes are the response of the model, no "
        "experiment, in SD of the training reference (CLR). "
        f"{time.strftime('%Y-%m-%d')}, napari-sclinguist {scl.__version__}, torch "
        f"{torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} CPU cores, one "
        "thread, other work beside it.\n"
    )
    parts = [head]
    for model, rows in table.groupby("model", sort=False):
        shown = [
            f"| {r.genes} | {r.coded} | {r.n_expressing} | {r.rank_all} of {r.n_all} "
            f"| {r.rank_measured} of {r.n_measured} | {r.change_expressing:+.3f} "
            f"| {r.largest_change_elsewhere:.0f} | {r.own_mrna_term:+.3f} "
            f"| {r.next_measured} {r.next_measured_change:+.3f} "
            f"| {r.background_mean:+.4f} ± {r.background_sd:.4f} | {r.z:.0f} "
            f"| {r.empirical_rank} of {r.n_ranked} | {r.p_value:.3f} | {r.verdict} "
            f"| {r.n_beyond} |"
            for r in rows.itertuples()
        ]
        parts.append(
            f"## Model: {model}\n\n| knocked out | coded protein | cells that express | rank among "
            "the most lowered, all proteins | among measured | mean change, expressing cells | "
            "largest change in other cells | of it the own-mRNA term | largest other measured | "
            "random genes, mean ± SD | z | rank among random sets | p, family-wise | verdict | "
            "proteins beyond random genes |\n|" + "---|" * 15 + "\n" + "\n".join(shown) + "\n"
        )
    seen = types[types["model"] == types["model"].iloc[0]]
    wide = seen.pivot(index="genes", columns="cell_type", values="mean_change").loc[list(SETS)]
    share = seen.pivot(index="genes", columns="cell_type", values="share_expressing")
    lines = [
        "| "
        + " | ".join(
            [name, *(f"{wide.loc[name, t]:+.3f} ({share.loc[name, t]:.0%})" for t in wide.columns)]
        )
        + " |"
        for name in wide.index
    ]
    parts.append(
        "## By cell type\n\nMean change of the coded protein over *all* cells of a type, and in "
        "brackets the share of them that express a gene. Model that did not see pbmc1k.\n\n"
        f"| knocked out | {' | '.join(wide.columns)} |\n|"
        + "---|" * (len(wide.columns) + 1) + "\n" + "\n".join(lines) + "\n"
    )  # fmt: skip
    lines = [
        f"| {r.protein} | {r.r_estimate:.5f} | {r.largest_error_estimate:.4f} of "
        f"{r.largest_change:.3f} | {r.top20_found_estimate:.0%} | {r.best_found_estimate:.0%} "
        f"| {r.r_plain_gradient:.3f} | {r.top20_found_plain_gradient:.0%} "
        f"| {r.best_found_plain_gradient:.0%} |"
        for r in estimates.itertuples()
    ]
    one = estimates.iloc[0]
    parts.append(
        "## First order beside runs\n\nEvery expressed gene of "
        f"{CELLS_OF_A_TYPE} cell of each type, {one.n_runs:,} runs in {one.seconds_runs:.0f} s, "
        f"estimates in {one.seconds_estimates:.1f} s a protein. Found: share of the {TOP} genes "
        "(and of the one) with the largest change in a cell that are also the estimate's.\n\n"
        f"| protein | r | largest error | top {TOP} found | best found | plain gradient: r | "
        f"top {TOP} found | best found |\n|" + "---|" * 8 + "\n" + "\n".join(lines) + "\n"
    )
    return "\n".join(parts)


if __name__ == "__main__":
    main()
