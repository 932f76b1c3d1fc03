"""Four data sets of blood in one space, with and without correction; and context on tissue.

Cells of pbmc1k, pbmc5k, pbmc10k and teaseq_pbmc (2,000 of each at most) in principal components of
RNA, in measured protein and in what the model makes of the RNA, as it is and corrected. pbmc10k has
no labels of its own: it gets those of pbmc5k by neighbours in measured protein, where they are
surer than 0.8. Figures by `sclinguist_core.evaluation.integration`. Then regions of a section whose
spots are told by the other half of it, with and without context. Writes ``integration.csv``,
``context.csv`` and ``integration.md``.

    python training/benchmarks/integration.py ../shared/data
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import sclinguist_core
from sclinguist_core import load_checkpoint, open_section
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.preprocess import log1p_cp10k
from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.integration import (
    DIRECTIONS,
    integration_scores,
    scib_installed,
)
from sclinguist_core.inference.annotate_votes import LabelledCells
from sclinguist_core.inference.embed import embed_iter, with_context
from sclinguist_core.inference.embed_correct import corrected
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.progress import finish
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.train.corpus import paired_dataset

sys.path.insert(0, str(Path(__file__).parent))
from annotate import markdown
from cell_types import coarse_labels

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SETS = ("pbmc1k", "pbmc5k", "pbmc10k", "teaseq_pbmc")
MAX_CELLS = 2_000
N_GENES, N_COMPONENTS = 2_000, 50
SURE = 0.8


def sampled(section: Section, seed: int = 0) -> Section:
    """At most `MAX_CELLS` cells of a set."""
    if section.n_obs <= MAX_CELLS:
        return section
    rows = np.random.default_rng(seed).choice(section.n_obs, MAX_CELLS, replace=False)
    return replace(section, table=section.table[np.sort(rows)].copy())


def rna_pca(sections: Sequence[Section], symbols: Sequence[str]) -> np.ndarray:
    """Principal components of the genes that all measured, of all cells together."""
    from sklearn.decomposition import PCA

    sides = [align_genes(section.rna(), symbols) for section in sections]
    shared = np.logical_and.reduce([side.measured.any(axis=0) for side in sides])
    x = [log1p_cp10k(side.counts.tocsc()[:, shared].tocsr()) for side in sides]
    variance = np.mean([np.asarray(one.power(2).mean(axis=0) - np.square(one.mean(axis=0))).ravel()
                        for one in x], axis=0)  # fmt: skip
    genes = np.sort(np.argsort(-variance)[:N_GENES])
    dense = np.concatenate([one[:, genes].toarray() for one in x])
    scaled = np.clip((dense - dense.mean(axis=0)) / (dense.std(axis=0) + 1e-6), -10, 10)
    n_components = min(N_COMPONENTS, len(genes) - 1, len(scaled) - 1)
    return PCA(n_components, random_state=0).fit_transform(scaled).astype(np.float32)


def measured_protein(sections: Sequence[Section], checkpoint: Checkpoint) -> np.ndarray:
    """CLR, standardised within each set as the model's targets are, of the shared proteins."""
    sets = [paired_dataset(s, checkpoint.symbols, checkpoint.protein_names) for s in sections]
    shared = sorted(set.intersection(*(set(one.protein.tolist()) for one in sets)))
    parts = []
    for one in sets:
        column = [int(np.flatnonzero(one.protein == p)[0]) for p in shared]
        parts.append(np.nan_to_num(one.targets(one.antibodies)[:, column]))
    return np.concatenate(parts).astype(np.float32)


def labels_of(sections: Sequence[Section], checkpoint: Checkpoint) -> np.ndarray:
    """Coarse labels; those of pbmc10k from pbmc5k, by measured protein."""
    known = [
        np.full(s.n_obs, None, object) if s.name == "pbmc10k" else coarse_labels(s.name, s.table)
        for s in sections
    ]
    at = {section.name: i for i, section in enumerate(sections)}
    pair = [sections[at["pbmc5k"]], sections[at["pbmc10k"]]]
    protein = measured_protein(pair, checkpoint)
    of_5k = known[at["pbmc5k"]]
    has = np.array([label is not None for label in of_5k])
    cells = LabelledCells(protein[: len(of_5k)][has], of_5k[has].astype(str))
    votes = cells(protein[len(of_5k) :])
    sure = votes.probability.max(axis=1) >= SURE
    carried = np.array(cells.names, object)[votes.probability.argmax(axis=1)]
    known[at["pbmc10k"]] = np.where(sure, carried, None)
    return np.concatenate(known)


def regions(
    section: Section, truth: pd.Series, places: dict[str, np.ndarray]
) -> list[dict[str, object]]:
    """Tell the region of each spot by its neighbours in an embedding, from the other half."""
    from sklearn.metrics import accuracy_score, f1_score

    x = section.positions[:, 0]
    left = x < np.median(x)
    label = truth.reindex(section.table.obs_names).to_numpy(object)
    rows = []
    for name, values in places.items():
        for context in ("none", "spatial", "nearest"):
            positions = section.positions if context == "spatial" else None
            said = np.full(len(label), None, object)
            for half in (left, ~left):
                # Each half is mixed within itself: no spot reaches over the cut.
                sides = [
                    with_context(values[s], None if positions is None else positions[s], context)
                    if context != "none" else values[s]
                    for s in (~half, half)
                ]  # fmt: skip
                good = np.isfinite(sides[0]).all(axis=1)
                cells = LabelledCells(sides[0][good], label[~half][good].astype(str))
                votes = cells(sides[1])
                ok = np.isfinite(votes.distance)
                names = np.array(cells.names, object)
                part = np.full(int(half.sum()), "none", object)
                part[ok] = names[votes.probability[ok].argmax(axis=1)]
                said[half] = part
            rows.append(
                {
                    "embedding": name,
                    "context": context,
                    "accuracy": accuracy_score(label.astype(str), said.astype(str)),
                    "macro_f1": f1_score(label.astype(str), said.astype(str), average="macro"),
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
    if not scib_installed():
        print("scib-metrics is not installed: iLISI, cLISI and kBET are left out")
    # Libraries of the extra warn about their own dependencies.
    warnings.filterwarnings("ignore", category=FutureWarning)
    bundled, held_out = load_checkpoint("bundled"), load_checkpoint(arguments.runs / "only_pbmc10k")
    sections = [sampled(open_section(arguments.data / "citeseq" / f"{n}.h5ad")) for n in SETS]
    batch = np.concatenate([np.full(section.n_obs, section.name) for section in sections])
    labels = labels_of(sections, bundled)

    def embedded(checkpoint: Checkpoint, kind: str) -> np.ndarray:
        return np.concatenate(
            [
                finish(embed_iter(s, model=checkpoint, kind=kind, device="cpu")).values
                for s in sections
            ]
        )

    calibrated = [finish(predict_iter(s, model=bundled, device="cpu")).mean for s in sections]
    places = {
        "RNA, principal components": rna_pca(sections, bundled.symbols),
        "measured protein": measured_protein(sections, bundled),
        "X_sclinguist, model that saw pbmc10k alone": embedded(held_out, "protein"),
        "X_sclinguist, bundled model (saw all four)": embedded(bundled, "protein"),
        "the same, --kind latent": embedded(bundled, "latent"),
        "protein_predicted, bundled model": np.concatenate(calibrated),
    }
    print(f"embedded: {time.perf_counter() - started:.0f} s", flush=True)
    rows = []
    for name, values in places.items():
        for method in ("none", "center", "harmony"):
            scores = integration_scores(corrected(values, batch, method), batch, labels)
            rows.append({"embedding": name, "correct": method, **scores})
            print(f"{name}, {method}: {time.perf_counter() - started:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    tonsil = open_section(arguments.data / "spatial" / "tonsil_composite" / "outs")
    truth = pd.read_csv(
        arguments.data / "spatial" / "tonsil_composite" / "regions.csv", index_col="barcode"
    )["region"]
    on_tissue = {
        "X_sclinguist": finish(embed_iter(tonsil, model=bundled, device="cpu")).values,
        "the same, --kind latent": finish(
            embed_iter(tonsil, model=bundled, kind="latent", device="cpu")
        ).values,
        "RNA, principal components": rna_pca([tonsil], bundled.symbols),
    }
    context = pd.DataFrame(regions(tonsil, truth, on_tissue))
    arguments.results.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.results / "integration.csv", index=False, float_format="%.4f")
    context.to_csv(arguments.results / "context.csv", index=False, float_format="%.4f")
    text = report(table, context, bundled, held_out, labels, sections)
    (arguments.results / "integration.md").write_text(text, "utf-8")
    print(text)
    print(f"{time.perf_counter() - started:.0f} s")


def report(
    table: pd.DataFrame,
    context: pd.DataFrame,
    bundled: Checkpoint,
    held_out: Checkpoint,
    labels: np.ndarray,
    sections: Sequence[Section],
) -> str:
    """Lay the figures out as a page."""
    figures = [name for name in DIRECTIONS if table[name].notna().any()]
    wide = table.set_index(table["embedding"] + "; " + table["correct"])[figures]
    n_labelled = sum(label is not None for label in labels)
    cells = ", ".join(f"{s.name} {s.n_obs:,}" for s in sections)
    told = context.set_index(context["embedding"] + "; " + context["context"])
    parts = [
        "# Several data sets in one space",
        "",
        f"{cells} cells, {n_labelled:,} of them with one of six cell types. Higher is better in "
        "every column; both kinds of figure have to be looked at together, as one blob mixes "
        "perfectly. Labels of pbmc10k are carried over from pbmc5k by measured protein, those of "
        "pbmc1k and pbmc5k come from antibodies too, which favours protein. Measured protein is "
        "standardised within each set; RNA components are of all cells together.",
        "",
        markdown(wide),
        "",
        *(f"- `{name}`: {DIRECTIONS[name]}" for name in figures),
        "",
        "## Context on tissue",
        "",
        "Region of each spot of the tonsil composite (made of real cells by region; a test set, "
        "nothing was chosen on it), told by the 30 nearest spots of the other half of the section.",
        "",
        markdown(told[["accuracy", "macro_f1"]]),
        "",
        f"Ran on: napari-sclinguist {sclinguist_core.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} CPU cores, "
        f"{time.strftime('%Y-%m-%d')}; {bundled.info.name} {bundled.digest} and, trained on "
        f"pbmc10k alone, {held_out.digest}. `python training/benchmarks/integration.py DATA`.",
        "",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
