"""Panel expansion: what measured antibodies say of hidden ones, on data sets that were held out.

    python training/benchmarks/panel_expansion.py DATA [--runs runs/bundled]

Every set is predicted by the fold that did not see it, calibrated on the other sets, and
conditioned by errors of the other sets (`sclinguist_core.inference.conditioning`). Half of the
proteins are given and the others hidden, both ways; and each is hidden alone.
Ridge and kNN get the same: the given proteins and all predictions from RNA, learnt on the other
sets that measure the hidden protein and three of the given. The number of factors and their ridge
were compared on all ten sets (mean on cells .589 to .599), which flatters the figures a little.
MALT cells and the tonsil composite are for testing only; there the bundled checkpoint is asked as
`sclinguist predict --given` asks it. Writes ``panel_expansion.csv`` and ``panel_expansion.md`` to
``docs/results``.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import sclinguist_core as scl
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.preprocess import protein_clr, standardize
from sclinguist_core.data.readers import open_section
from sclinguist_core.evaluation.calibration import fit_context
from sclinguist_core.evaluation.conditioning import error_correlation, fit_factors
from sclinguist_core.evaluation.held_out import (
    MAX_CELLS,
    N_SPOTS,
    HeldOut,
    collect,
    collect_agreement,
    spots_of,
)
from sclinguist_core.inference.bag import bag_weights
from sclinguist_core.inference.conditioning import Given, condition
from sclinguist_core.inference.progress import finish
from sclinguist_core.inference.smoothing import smoothed
from sclinguist_core.inference.trust import Judged
from sclinguist_core.model.calibration import CONTEXTS
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.model.conditioning import ErrorFactors
from sclinguist_core.train.corpus import paired_dataset

ROOT = Path(__file__).resolve().parents[2]
TESTS = {"malt_1000": "citeseq/malt_1000.h5ad", "tonsil_composite": "spatial/tonsil_composite/outs"}
N_HALVES = 1
N_NEIGHBOURS = 30
RIDGE = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Set:
    """One held-out set: predictions of its measured proteins, raw counts, measurement.

    ``judged`` has a column a protein, ``counts`` and ``target`` a column an antibody.
    """

    dataset: str
    names: list[str]
    judged: Judged
    counts: np.ndarray
    target: np.ndarray
    antibody: np.ndarray


def held_out_set(
    record: HeldOut, others: Sequence[HeldOut], agreement: pd.Series, counts: np.ndarray
) -> Set:
    """Calibrate a set on the others."""
    calibration, _ = fit_context(others, agreement, list(record.names))
    expected_r = calibration.expected_r(record.implied, record.reliability, record.spread)
    names, first = np.unique(record.proteins, return_index=True)
    column = record.column[first]
    mean, std = record.mean[:, first], record.std[:, first]
    value, std, low, high = calibration.take(column).apply(mean, std, expected_r[column])
    return Set(
        dataset=record.dataset,
        names=names.tolist(),
        judged=Judged(mean=value, std=std, low=low, high=high),
        counts=counts[:, : len(record.column)].astype(np.float64),
        target=record.target,
        antibody=np.searchsorted(names, record.proteins),
    )


def given_part(one: Set, factors: ErrorFactors, proteins: np.ndarray) -> Given:
    """Antibodies against the given proteins (positions)."""
    kept = np.isin(one.antibody, proteins) & factors.known[one.antibody]
    return Given(
        counts=one.counts[:, kept],
        protein=one.antibody[kept],
        factors=factors,
        names=[one.names[i] for i in proteins],
        unused=[],
        digest="",
    )


def halves(n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Given and hidden proteins, each half in both roles."""
    for seed in range(N_HALVES):
        order = np.random.default_rng(seed).permutation(n)
        one, other = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
        yield one, other
        yield other, one


def score(values: np.ndarray, one: Set, hidden: np.ndarray) -> float:
    """Mean over hidden antibodies of the correlation with the measurement."""
    asked = np.isin(one.antibody, hidden)
    return float(
        np.nanmean(column_correlation(values[:, one.antibody[asked]], one.target[:, asked]))
    )


def coverage(judged: Judged, one: Set, hidden: np.ndarray) -> float:
    """Share of hidden measurements in their intervals."""
    asked = np.isin(one.antibody, hidden)
    y, column = one.target[:, asked], one.antibody[asked]
    inside = (y >= judged.low[:, column]) & (y <= judged.high[:, column])
    return float(inside[np.isfinite(y)].mean())


def learner(one: Set, given: np.ndarray, hidden: np.ndarray, sets: Sequence[Set], kind: str):
    """Predict the hidden proteins from the given ones and all predictions; NaN where nobody can."""
    total = np.zeros((len(one.target), len(one.names)))
    weight = np.zeros(len(one.names))
    for other in sets:
        place = {name: i for i, name in enumerate(other.names)}
        shared = [p for p in given if one.names[p] in place]
        targets = [p for p in hidden if one.names[p] in place]
        if other.dataset == one.dataset or len(shared) < 3 or not targets:
            continue
        read = [p for p, name in enumerate(one.names) if name in place]
        query, known = (
            np.nan_to_num(
                np.hstack(
                    [
                        standardize(protein_clr(protein_counts(side, measured))),
                        standardize(side.judged.mean[:, predicted]),
                    ]
                )
            )
            for side, measured, predicted in (
                (one, shared, read),
                (other, at(place, one, shared), at(place, one, read)),
            )
        )
        first = [int(np.flatnonzero(other.antibody == p)[0]) for p in at(place, one, targets)]
        y = np.nan_to_num(other.target[:, first])
        if kind == "ridge":
            gram = known.T @ known + RIDGE * len(known) * np.eye(known.shape[1])
            found = query @ np.linalg.solve(gram, known.T @ y)
        else:
            from sklearn.neighbors import NearestNeighbors

            search = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(known)
            found = y[search.kneighbors(query, return_distance=False)].mean(axis=1)
        size = len(shared) * len(known) ** 0.5
        total[:, targets] += size * found
        weight[targets] += size
    return np.where(weight > 0, total / np.maximum(weight, 1e-9), np.nan)


def at(place: dict[str, int], one: Set, proteins: Sequence[int]) -> list[int]:
    """Positions in another set of some proteins of one."""
    return [place[one.names[p]] for p in proteins]


def protein_counts(one: Set, proteins: Sequence[int]) -> np.ndarray:
    """Return counts of the first antibody of each protein."""
    return one.counts[:, [int(np.flatnonzero(one.antibody == p)[0]) for p in proteins]]


def nearest(one: Set) -> Judged:
    """Draw values half-way to those of the nearest rows in predicted protein."""
    return smoothed(one.judged, bag_weights(None, one.judged.mean, "nearest"))


def evaluate(one: Set, factors: ErrorFactors, sets: Sequence[Set]) -> dict[str, object]:
    """All figures of a set."""
    every, rows = np.arange(len(one.names)), []
    for given, hidden in halves(len(one.names)):
        if factors.known[given].sum() < 2:
            continue
        after = finish(condition(one.judged, given_part(one, factors, given)))
        row = {"RNA alone": score(one.judged.mean, one, hidden)}
        row["conditioned"] = score(after.mean, one, hidden)
        row["coverage"] = coverage(one.judged, one, hidden)
        row["coverage, conditioned"] = coverage(after, one, hidden)
        row["width"] = float(
            np.nanmean((after.high - after.low)[:, hidden])
            / np.nanmean((one.judged.high - one.judged.low)[:, hidden])
        )
        for kind in ("ridge", "kNN"):
            found = learner(one, given, hidden, sets, kind)
            can = hidden[np.isfinite(found[0, hidden])]
            row[kind] = score(found, one, can) if len(can) else np.nan
        rows.append(row)
    alone = finish(condition(one.judged, given_part(one, factors, every)))
    mean = pd.DataFrame(rows).mean().to_dict()
    return {
        "dataset": one.dataset,
        "proteins": len(one.names),
        **mean,
        "one hidden, RNA alone": score(one.judged.mean, one, every),
        "one hidden, conditioned": score(alone.mean, one, every),
        "nearest": score(nearest(one).mean, one, every),
    }


def evaluate_test(path: Path, name: str) -> list[dict[str, object]]:
    """Ask the bundled checkpoint as a user would, half of the antibodies hidden."""
    section = open_section(path)
    checkpoint = load_checkpoint()
    data = paired_dataset(section, checkpoint.symbols, checkpoint.protein_names)
    target = standardize(data.targets(data.antibodies))
    names = np.array(checkpoint.protein_names)[data.protein]
    context = "spots" if section.is_spatial else "cells"

    def r(columns: np.ndarray, **options: object) -> np.ndarray:
        table = scl.predict(section, model=checkpoint, device="cpu", **options)
        values = table.obsm["protein_predicted"][names[columns]].to_numpy()
        return column_correlation(values, target[:, columns])

    every = np.arange(len(names))
    alone = r(every)
    rows = []
    for given, hidden in list(halves(len(names)))[:2]:
        found = r(hidden, given=names[given].tolist())
        rows.append({"RNA alone": np.nanmean(alone[hidden]), "conditioned": np.nanmean(found)})
    row = {"context": context, "dataset": name, "proteins": len(names)}
    row |= pd.DataFrame(rows).mean().to_dict()
    row["one hidden, RNA alone"] = np.nanmean(alone)
    row["one hidden, conditioned"] = np.nanmean(r(every, given="measured"))
    row["nearest"] = np.nanmean(r(every, context="nearest"))
    if section.is_spatial:
        row["spatial"] = np.nanmean(r(every, context="spatial"))
    return [row]


def report(table: pd.DataFrame, started: float) -> str:
    """Page in Markdown."""
    columns = [name for name in table.columns if name not in ("context", "dataset")]
    lines = [
        "# Panel expansion",
        "",
        "`training/benchmarks/panel_expansion.py`. Mean over hidden antibodies of the Pearson",
        "correlation with their CLR, half of the proteins given (*RNA alone* to *kNN*), and each",
        "protein hidden alone. *Coverage* and *width* are of the 90 % interval (width: conditioned",
        "over RNA alone). *nearest* and *spatial*: RNA alone, drawn half-way to the neighbours.",
        "Neighbours of the held-out sets are found by the proteins that they measure.",
        "malt_1000 and tonsil_composite are tests: the bundled checkpoint, nothing chosen by them.",
    ]
    for context, part in table.groupby("context", sort=False):
        lines += [
            "",
            f"## {context.capitalize()}",
            "",
            "| data set | " + " | ".join(columns) + " |",
        ]
        lines.append("|" + "---|" * (1 + len(columns)))
        tests = part["dataset"].isin(TESTS)
        mean = part[~tests][columns].mean()
        rows = [*part.itertuples(index=False), ("", "mean of held-out sets", *mean)]
        for row in rows:
            figures = ["" if np.isnan(x) else f"{x:.3f}" for x in row[3:]]
            lines.append(f"| {row[1]} | {row[2]:.0f} | {' | '.join(figures)} |")
    lines += [
        "",
        f"napari-sclinguist {scl.__version__}, model {load_checkpoint().digest}, Python "
        f"{platform.python_version()}, {os.cpu_count()} CPU cores, {time.strftime('%Y-%m-%d')}, "
        f"{time.perf_counter() - started:.0f} s.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bundled")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    started = time.perf_counter()
    folds = [load_checkpoint(p) for p in sorted(arguments.runs.glob("fold_?")) if p.is_dir()]
    names = sorted({name for fold in folds for name in fold.info.training_datasets})
    sections = [open_section(arguments.data / "citeseq" / f"{name}.h5ad") for name in names]
    records = collect(folds, sections, arguments.runs / "held_out")
    rna = [open_section(path) for path in sorted((arguments.data / "rna_only").glob("*.h5ad"))]
    agreement = collect_agreement(folds, rna, arguments.runs / "held_out")
    counts: dict[tuple[str, str], np.ndarray] = {}
    for section in sections:
        (fold,) = (f for f in folds if section.name not in f.info.training_datasets)
        data = paired_dataset(section, fold.symbols, fold.protein_names)
        # The same rows and sums as `hold_out` drew.
        rng = np.random.default_rng(0)
        rows = np.arange(data.n_obs)
        if len(rows) > MAX_CELLS:
            rows = np.sort(rng.choice(rows, MAX_CELLS, replace=False))
        mix = spots_of(data, N_SPOTS, rng)[1]
        counts[section.name, "cells"] = data.antibodies[rows]
        counts[section.name, "spots"] = mix @ data.antibodies
    table = []
    for context in CONTEXTS:
        own = [record for record in records if record.context == context]
        rest = {r.dataset: [o for o in own if o.dataset != r.dataset] for r in own}
        sets = [
            held_out_set(r, rest[r.dataset], agreement, counts[r.dataset, context]) for r in own
        ]
        errors = {r.dataset: error_correlation(r, rest[r.dataset], agreement) for r in own}
        for one in sets:
            others = [errors[r.dataset] for r in rest[one.dataset]]
            measured = sorted({name for other in others for name in other.names} | {*one.names})
            whole = fit_factors(others, measured)
            kept = [measured.index(name) for name in one.names]
            factors = ErrorFactors(loadings=whole.loadings[kept], noise=whole.noise[kept])
            table.append({"context": context, **evaluate(one, factors, sets)})
            print(table[-1], flush=True)
    for name, path in TESTS.items():
        table += evaluate_test(arguments.data / path, name)
        print(table[-1], flush=True)
    frame = pd.DataFrame(table)
    page = report(frame, started)
    print(page)
    arguments.results.mkdir(parents=True, exist_ok=True)
    frame.to_csv(arguments.results / "panel_expansion.csv", index=False, float_format="%.4f")
    (arguments.results / "panel_expansion.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
