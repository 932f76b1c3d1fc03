"""Cell types of one data set by the labels of another, beside simpler ways.

Every checkpoint has seen neither of the two sets. All ways vote in the same manner
(`sclinguist_core.inference.annotate_votes`) but the logistic regression; they differ in where the
cells lie. Writes ``annotate.csv``, ``annotate_novel.csv`` and ``annotate.md``.

    python training/benchmarks/annotate.py ../shared/data
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import sclinguist_core
from sclinguist_core import load_checkpoint, open_section
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.preprocess import log1p_cp10k
from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.annotation import score_annotation
from sclinguist_core.inference.annotate_votes import LabelledCells
from sclinguist_core.inference.embed import embed_iter, with_context
from sclinguist_core.inference.embed_correct import CENTER_SHARE, corrected
from sclinguist_core.inference.progress import finish
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.train.corpus import paired_dataset

sys.path.insert(0, str(Path(__file__).parent))
from cell_types import coarse_labels, fine_labels

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SPLITS = [
    # checkpoint that has seen neither, reference, query, labels
    ("only_pbmc10k", "pbmc1k", "pbmc5k", "coarse"),
    ("only_pbmc10k", "pbmc5k", "pbmc1k", "coarse"),
    ("fold_a", "pbmc1k", "teaseq_pbmc", "coarse"),
    ("fold_a", "teaseq_pbmc", "pbmc1k", "coarse"),
    ("fold_b", "pbmc5k", "bmmc_neurips2021", "coarse"),
    ("fold_b", "bmmc_neurips2021", "pbmc5k", "coarse"),
    ("only_pbmc10k", "pbmc1k", "pbmc5k", "fine"),
    ("fold_a", "pbmc1k", "teaseq_pbmc", "fine"),
    ("only_pbmc10k", "pbmc5k", "cbmc", "coarse"),
    ("only_pbmc10k", "pbmc5k", "pbmc_wide_panel", "coarse"),
]
FRESH = ("cbmc", "pbmc_wide_panel")
"""The embedding, the votes and their limits were chosen on the other sets."""
N_GENES, N_COMPONENTS = 2_000, 50
MIN_CONFIDENCE = 0.5
FEWEST_LEFT_OUT = 20

Places = tuple[np.ndarray, np.ndarray]
"""Where the reference's and the query's cells lie, shapes (m, E) and (n, E)."""


@dataclass(frozen=True)
class Pair:
    """A reference and a query."""

    reference: Section
    query: Section
    known: np.ndarray
    truth: np.ndarray


def rna_pca(checkpoint: Checkpoint, pair: Pair, *, own_scale: bool = False) -> Places:
    """Principal components of the genes that both measured, as a notebook has it.

    log1p CP10k, the 2,000 most variable genes of the reference, scaled by it (or each set by
    itself), clipped at 10; what a cell did not measure is put at the mean.
    """
    from sklearn.decomposition import PCA

    sides = [align_genes(s.rna(), checkpoint.symbols) for s in (pair.reference, pair.query)]
    both = np.logical_and(*(side.measured.any(axis=0) for side in sides))
    x = [log1p_cp10k(side.counts.tocsc()[:, both].tocsr()) for side in sides]
    first = x[0]
    variance = np.asarray(first.multiply(first).mean(axis=0) - np.square(first.mean(axis=0)))
    genes = np.sort(np.argsort(-variance.ravel())[:N_GENES])
    seen = [side.measured[:, both][:, genes][side.pattern] for side in sides]
    dense = [np.where(m, one[:, genes].toarray(), np.nan) for one, m in zip(x, seen, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # genes that no cell of a side measured
        sides_scale = [
            (np.nan_to_num(np.nanmean(one, axis=0)), np.nan_to_num(np.nanstd(one, axis=0)) + 1e-6)
            for one in (dense if own_scale else [dense[0], dense[0]])
        ]
    scaled = [
        np.nan_to_num(np.clip((one - mean) / sd, -10, 10))
        for one, (mean, sd) in zip(dense, sides_scale, strict=True)
    ]
    pca = PCA(min(N_COMPONENTS, len(scaled[0]) - 1), random_state=0).fit(scaled[0])
    return pca.transform(scaled[0]).astype(np.float32), pca.transform(scaled[1]).astype(np.float32)


def harmonised(places: Places) -> dict[str, Places]:
    """Correct principal components between the two sets by Harmony, where it is installed."""
    if find_spec("harmonypy") is None:
        print("harmonypy is not installed: PCA with Harmony is left out")
        return {}
    batch = np.repeat(["reference", "query"], [len(side) for side in places])
    moved = corrected(np.concatenate(places), batch, "harmony")
    return {"kNN on PCA, Harmony": (moved[: len(places[0])], moved[len(places[0]) :])}


def measured_protein(checkpoint: Checkpoint, pair: Pair) -> Places:
    """CLR of the proteins that both measured: what a prediction cannot beat but by luck."""
    sets = [
        paired_dataset(s, checkpoint.symbols, checkpoint.protein_names)
        for s in (pair.reference, pair.query)
    ]
    both = sorted(set(sets[0].protein.tolist()) & set(sets[1].protein.tolist()))
    sides = []
    for one in sets:
        column = [int(np.flatnonzero(one.protein == p)[0]) for p in both]
        values = np.nan_to_num(one.targets(one.antibodies)[:, column])
        sides.append(values.astype(np.float32))
    return sides[0], sides[1]


def vote(places: Places, known: np.ndarray) -> tuple[LabelledCells, np.ndarray, np.ndarray]:
    """Labels and confidence of the query's cells, and what voted."""
    usable = np.array([name is not None for name in known]) & np.isfinite(places[0]).all(axis=1)
    cells = LabelledCells(places[0][usable], known[usable].astype(str))
    votes = cells(places[1])
    return cells, votes.probability, votes.distance


def figures(
    probability: np.ndarray, distance: np.ndarray | None, names: list[str], truth: np.ndarray
) -> dict[str, float]:
    """Scores of one way; rejection by confidence and, where there is one, by distance."""
    known = np.isfinite(probability).all(axis=1)
    best = np.full(len(known), "unassigned", object)
    best[known] = np.array(names, object)[probability[known].argmax(axis=1)]
    confidence = probability.max(axis=1)
    assigned = np.nan_to_num(confidence) >= MIN_CONFIDENCE
    if distance is not None:
        assigned &= distance <= 1.0
    scores = score_annotation(truth, best, assigned, names, confidence)
    sure = np.nan_to_num(confidence) >= np.nanquantile(confidence, 0.1)
    right = (best == truth)[np.isin(truth.astype(str), names)]
    return {
        **scores.summary,
        "accuracy_90": float(right[sure[np.isin(truth.astype(str), names)]].mean()),
    }


def logistic(places: Places, pair: Pair) -> tuple[np.ndarray, list[str]]:
    """Class-balanced logistic regression on standardised places."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    usable = np.array([name is not None for name in pair.known])
    usable &= np.isfinite(places[0]).all(axis=1)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=500, class_weight="balanced")
    )
    model.fit(places[0][usable], pair.known[usable].astype(str))
    good = np.isfinite(places[1]).all(axis=1)
    probability = np.full((len(good), len(model.classes_)), np.nan)
    probability[good] = model.predict_proba(places[1][good])
    return probability, model.classes_.tolist()


def left_out(places: Places, pair: Pair) -> list[dict[str, object]]:
    """Take one type after the other out of the reference, and see whether its cells look new."""
    from sklearn.metrics import roc_auc_score

    rows = []
    types, sizes = np.unique([n for n in pair.known if n is not None], return_counts=True)
    for name, size in zip(types, sizes, strict=True):
        new = pair.truth == name
        if size < FEWEST_LEFT_OUT or new.sum() < FEWEST_LEFT_OUT:
            continue
        rest = np.array([None if label == name else label for label in pair.known], object)
        cells, probability, distance = vote(places, rest)
        known = np.isin(pair.truth.astype(str), cells.names)
        confidence = probability.max(axis=1)
        rejected = ~((confidence >= MIN_CONFIDENCE) & (distance <= 1.0))
        both = (new | known) & np.isfinite(distance)
        rows.append(
            {
                "left_out": name,
                "cells": int(new.sum()),
                "auc_distance": roc_auc_score(new[both], distance[both]),
                "auc_confidence": roc_auc_score(new[both], -confidence[both]),
                "rejected_new": rejected[new].mean(),
                "rejected_known": rejected[known].mean(),
            }
        )
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/bundled"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    started = time.perf_counter()
    section_of = cache(lambda name: open_section(arguments.data / "citeseq" / f"{name}.h5ad"))
    checkpoint_of = cache(lambda name: load_checkpoint(arguments.runs / name))

    @cache
    def places_of(fold: str, name: str, kind: str) -> np.ndarray:
        steps = embed_iter(section_of(name), model=checkpoint_of(fold), kind=kind, device="cpu")
        return finish(steps).values

    rows, novel = [], []
    for fold, reference, query, level in SPLITS:
        checkpoint = checkpoint_of(fold)
        assert not {reference, query} & set(checkpoint.info.training_datasets)
        label: Callable[..., np.ndarray] = coarse_labels if level == "coarse" else fine_labels
        pair = Pair(
            section_of(reference),
            section_of(query),
            label(reference, section_of(reference).table),
            label(query, section_of(query).table),
        )
        protein, latent = (
            (places_of(fold, reference, kind), places_of(fold, query, kind))
            for kind in ("protein", "latent")
        )
        shift = CENTER_SHARE * (np.nanmean(protein[0], axis=0) - np.nanmean(protein[1], axis=0))
        pca = rna_pca(checkpoint, pair)
        ways = {
            "annotate": protein,
            "annotate, --correct center": (protein[0], protein[1] + shift),
            "annotate, --context nearest": (protein[0], with_context(protein[1], None, "nearest")),
            "the same votes on the latent": latent,
            "kNN on PCA": pca,
            "kNN on PCA, each set scaled by itself": rna_pca(checkpoint, pair, own_scale=True),
            **harmonised(pca),
            "kNN on PCA, context nearest": (pca[0], with_context(pca[1], None, "nearest")),
            "kNN on measured protein": measured_protein(checkpoint, pair),
        }
        split = {"reference": reference, "query": query, "labels": level, "checkpoint": fold}
        for way, places in ways.items():
            cells, probability, distance = vote(places, pair.known)
            rows.append(
                {**split, "way": way, **figures(probability, distance, cells.names, pair.truth)}
            )
        for way, places in (("logistic regression on PCA", pca), ("the same on annotate", protein)):
            probability, names = logistic(places, pair)
            rows.append({**split, "way": way, **figures(probability, None, names, pair.truth)})
        names, counts = np.unique([n for n in pair.known if n is not None], return_counts=True)
        majority = np.tile((np.arange(len(names)) == counts.argmax()) * 1.0, (len(pair.truth), 1))
        scored = figures(majority, None, names.tolist(), pair.truth)
        rows.append({**split, "way": "most frequent type", **scored})
        if level == "coarse":
            for way in ("annotate", "kNN on PCA", "kNN on PCA, each set scaled by itself"):
                novel += [{**split, "way": way, **row} for row in left_out(ways[way], pair)]
        print(f"{reference} -> {query}, {level}: {time.perf_counter() - started:.0f} s", flush=True)
    table, new = pd.DataFrame(rows), pd.DataFrame(novel)
    arguments.results.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.results / "annotate.csv", index=False, float_format="%.4f")
    new.to_csv(arguments.results / "annotate_novel.csv", index=False, float_format="%.4f")
    text = report(table, new, {fold: checkpoint_of(fold).digest for fold, *_ in SPLITS})
    (arguments.results / "annotate.md").write_text(text, "utf-8")
    print(text)
    print(f"{time.perf_counter() - started:.0f} s")


def report(table: pd.DataFrame, new: pd.DataFrame, digests: dict[str, str]) -> str:
    """Lay the figures out as a page."""
    table = table.assign(
        split=table["reference"] + " → " + table["query"]
        + table["labels"].map({"coarse": "", "fine": " (fine)"})
        + np.where(table["query"].isin(FRESH), " †", "")
    )  # fmt: skip
    splits = table["split"].unique()
    parts = ["# Cell types by a reference", "", INTRODUCTION, ""]
    for figure, what in (
        ("accuracy", "Accuracy of the likeliest label, nothing rejected"),
        ("macro_f1", "Macro-F1 of the same"),
        ("coverage", "Share of the cells of known types that is assigned"),
        ("accuracy_assigned", "Accuracy of those that are assigned"),
        ("accuracy_90", "Accuracy of the surest 90 %"),
        ("calibration_error", "Expected calibration error of the confidence"),
        ("new_rejected", "Share rejected of the cells of types that the reference lacks"),
    ):
        wide = table.pivot(index="way", columns="split", values=figure)
        wide = wide.loc[table["way"].unique(), splits].dropna(axis=1, how="all")
        wide.insert(0, "mean", wide.mean(axis=1))
        parts += [f"## {what}", "", markdown(wide), ""]
    parts += ["## One type left out of the reference", "", LEFT_OUT, ""]
    for figure in ("auc_distance", "auc_confidence", "rejected_new", "rejected_known"):
        new = new.assign(split=new["reference"] + " → " + new["query"])
        wide = new.pivot_table(index="way", columns="split", values=figure, sort=False)
        wide.insert(0, "mean", wide.mean(axis=1))
        parts += [f"`{figure}`", "", markdown(wide), ""]
    models = ", ".join(f"{fold} {digest}" for fold, digest in digests.items())
    parts += [
        f"Ran on: napari-sclinguist {sclinguist_core.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} CPU cores, "
        f"{time.strftime('%Y-%m-%d')}; checkpoints {models}. "
        "`python training/benchmarks/annotate.py DATA`.",
        "",
    ]
    return "\n".join(parts)


INTRODUCTION = (
    "Reference → query; no checkpoint has seen either set. The embedding, the votes and the limits "
    "were chosen on these pairs, but for those marked †, which were looked at once, at the end. "
    "Labels of pbmc1k and pbmc5k come from their antibodies. Coarse labels: CD4 T, CD8 T, B, NK, "
    "monocyte, DC, and in marrow progenitor, erythroid, plasma."
)
LEFT_OUT = (
    "Means over the types. `auc_*`: how well the distance from the reference, and a low "
    "confidence, tell the cells of the type that was left out from all others (0.5 = not at all). "
    "`rejected_*`: share that is unassigned at the default limits."
)


def markdown(table: pd.DataFrame) -> str:
    """Lay a table of figures out in Markdown."""
    lines = ["| | " + " | ".join(table.columns) + " |", "|---" * (len(table.columns) + 1) + "|"]
    for name, row in table.iterrows():
        cells = ["–" if np.isnan(v) else f"{v:.3f}" for v in row]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
