"""Imputation against the trivial: what is hidden, who imputes it, and how well.

Entries (a gene in a cell) are hidden at random among all that were measured, expressed or not, in
the proportion in which they occur: most are zeros. Every method gets the same counts without them
and is scored on the same hidden entries. The baselines turn what they know into values and levels
by the same regression as the model, fitted to entries that they hide themselves: a plain mean or a
plain average of neighbours would call nearly everything level 1.

Shapes: n cells or spots, V genes, m hidden entries.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.levels import extremes, level_mcc
from sclinguist_core.data.preprocess import log1p_cp10k, size_factors
from sclinguist_core.data.section import Section
from sclinguist_core.data.seen import seen_in_training
from sclinguist_core.errors import InputError
from sclinguist_core.inference.bag import N_NEIGHBOURS, bag_weights, check_context
from sclinguist_core.inference.impute import MIN_ROWS, refuse_nearest
from sclinguist_core.inference.impute_calibration import Describer, hide_entries, truth
from sclinguist_core.inference.impute_methods import (
    HIDDEN_SHARE,
    MAX_TEST_ROWS,
    CalibratedImputer,
    Imputer,
    StateImputer,
)
from sclinguist_core.inference.impute_scores import MIN_EXPRESSED, entry_pearson
from sclinguist_core.inference.impute_survey import bag_mean, with_cells
from sclinguist_core.inference.prepare import prepare
from sclinguist_core.inference.progress import Progress
from sclinguist_core.inference.sct import SctImputer
from sclinguist_core.model.architectures import SCT
from sclinguist_core.model.checkpoint import Checkpoint

KNN_NEIGHBOURS = 40
"""Neighbours of the baseline; 15 and 40 were tried on pbmc5k, teaseq_pbmc and eccite_pbmc, and 40
was ahead on all three."""
KNN_COMPONENTS = 30

COLUMNS = {
    "mcc": "MCC of the levels of all hidden entries",
    "mcc_expressed": "MCC of the levels of hidden entries that are expressed",
    "pearson": "Pearson of the values of all hidden entries",
    "pearson_per_gene": "mean over genes of Pearson across cells",
    "pearson_per_cell": "mean over cells of Pearson across genes",
    "seconds": "wall time",
}
"""What the figures are."""


@dataclass(frozen=True, slots=True, eq=False)
class _Depths:
    """Library sizes and extremes of cells, from visible entries."""

    rna: AlignedRna
    hidden: sparse.csr_matrix
    size: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    expression: sparse.csr_matrix

    @classmethod
    def of(cls, rna: AlignedRna, hidden: sparse.csr_matrix, gene_share: np.ndarray) -> _Depths:
        share = rna.shares(gene_share) - hidden @ gene_share
        x = log1p_cp10k(rna.counts, share)
        n_of_pattern = np.bincount(rna.pattern, minlength=len(rna.measured))
        n_visible = n_of_pattern @ rna.measured - np.asarray(hidden.sum(axis=0)).ravel()
        mean = np.asarray(x.sum(axis=0)).ravel() / np.maximum(n_visible, 1)
        size = size_factors(rna.counts, share)
        return cls(rna, hidden, size, *extremes(x), mean, x)

    def features(self, said: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return with_cells([said], self.size[rows], self.low[rows], self.high[rows])


class MeanImputer(CalibratedImputer):
    """The gene's mean over the cells in which it is visible."""

    name = "gene mean"

    def describe(
        self, rna: AlignedRna, hidden: sparse.csr_matrix
    ) -> Generator[Progress, None, Describer]:
        """See `CalibratedImputer.describe`."""
        known = _Depths.of(rna, hidden, self.gene_share)
        yield Progress(rna.n_obs, rna.n_obs, "averaging cells")

        def features(rows: np.ndarray, genes: np.ndarray) -> np.ndarray:
            return known.features(np.tile(known.mean[genes], (len(rows), 1)), rows)

        return features


class KnnImputer(CalibratedImputer):
    """kNN smoothing: the gene's mean over the nearest cells on principal components.

    Components are those of the section itself, of its visible entries.

    Parameters
    ----------
    gene_share, seed
        See `CalibratedImputer`.
    n_neighbours
        Nearest cells, the cell itself not among them.
    """

    name = "kNN smoothing"

    def __init__(
        self, gene_share: np.ndarray, *, n_neighbours: int = KNN_NEIGHBOURS, seed: int = 0
    ) -> None:
        super().__init__(gene_share, seed=seed)
        self.n_neighbours = n_neighbours

    def describe(
        self, rna: AlignedRna, hidden: sparse.csr_matrix
    ) -> Generator[Progress, None, Describer]:
        """See `CalibratedImputer.describe`."""
        known = _Depths.of(rna, hidden, self.gene_share)
        yield Progress(0, rna.n_obs, "finding neighbours")
        places = _principal_components(known)
        bags = bag_weights(None, places, "nearest", n_neighbours=self.n_neighbours)
        yield Progress(rna.n_obs, rna.n_obs, "finding neighbours")

        def features(rows: np.ndarray, genes: np.ndarray) -> np.ndarray:
            said = bag_mean(
                bags[rows], rna, hidden, known.size, genes, known.mean, self.n_neighbours
            )
            return known.features(said, rows)

        return features


def _principal_components(known: _Depths) -> np.ndarray:
    """Place the cells on principal components of visible expression, shape (n, components).

    A hidden entry counts as the gene's mean, so it moves a cell nowhere.
    """
    from scipy.sparse.linalg import LinearOperator, svds

    x, mean = known.expression, known.mean
    n, n_genes = x.shape
    square = np.asarray(x.multiply(x).mean(axis=0)).ravel()
    # Genes that vary more count more, but not in proportion.
    weight = (np.sqrt(np.maximum(square - mean**2, 0.0)) + 0.1) ** -0.5
    measured, pattern, hidden = known.rna.measured, known.rna.pattern, known.hidden

    def times(v: np.ndarray) -> np.ndarray:
        v = v.ravel() * weight
        return x @ v - (measured @ (mean * v))[pattern] + hidden @ (mean * v)

    def transposed(u: np.ndarray) -> np.ndarray:
        u = u.ravel()
        cells = measured.T @ np.bincount(pattern, weights=u, minlength=len(measured))
        return weight * (x.T @ u - mean * (cells - hidden.T @ u))

    centred = LinearOperator((n, n_genes), matvec=times, rmatvec=transposed, dtype=np.float64)
    k = min(KNN_COMPONENTS, min(n, n_genes) - 1)
    start = np.random.default_rng(0).standard_normal(min(n, n_genes))
    left, values, _ = svds(centred, k=k, v0=start)
    return left * values


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImputationScores:
    """Methods compared on the same hidden entries.

    Attributes
    ----------
    table
        A row a method, columns as in `COLUMNS`.
    per_gene
        A row a method and gene that has `MIN_EXPRESSED` expressed hidden entries or more:
        ``method``, ``gene``, ``pearson``, ``mcc``, ``n_hidden``, ``n_expressed``.
    info
        What was hidden: ``n_rows``, ``n_hidden``, ``n_expressed``, ``levels`` (share of each);
        the model and its training data; ``seen_in_training``, the name of the training set that
        the section is, or "".
    """

    table: pd.DataFrame
    per_gene: pd.DataFrame
    info: dict[str, Any]


def evaluate_imputation_iter(
    section: Section,
    *,
    contexts: Sequence[str] = (),
    n_neighbours: int = N_NEIGHBOURS,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    others: Sequence[Imputer] = (),
    seed: int = 0,
) -> Generator[Progress, None, ImputationScores]:
    """Hide entries of a section and score methods that impute them; yields progress.

    Parameters
    ----------
    section
        With RNA of at least `impute.MIN_ROWS` cells or spots.
    contexts
        ``"spatial"``, ``"nearest"`` or both; the model without a context is always scored.
    n_neighbours, model, device
        See `impute.impute_iter`.
    others
        Further methods, on the genes of the model.
    seed
        Draws what is hidden: a fifth of the measured entries of each row, of at most
        `impute_methods.MAX_TEST_ROWS` rows.

    Raises
    ------
    InputError
        As `impute.impute_iter`.
    """
    for context in contexts:
        check_context(context, n_neighbours, name=section.name, is_spatial=section.is_spatial)
    yield Progress(0, section.n_obs, "loading model")
    prepared = prepare(section, model=model, device=device, for_protein=False)
    checkpoint = prepared.checkpoint
    rna = prepared.aligned(np.arange(section.n_obs))
    filled = np.flatnonzero(np.diff(rna.counts.indptr))
    if len(filled) < MIN_ROWS:
        raise InputError(
            f"{section.name}: {len(filled)} cells or spots with reads, expected at least "
            f"{MIN_ROWS}."
        )
    rna = rna.take(filled)
    positions = section.positions[filled] if section.is_spatial else None
    gene_share = checkpoint.gene_share
    methods: dict[str, Imputer] = {
        "gene mean": MeanImputer(gene_share, seed=seed),
        "kNN smoothing": KnnImputer(gene_share, seed=seed),
    }
    if checkpoint.info.architecture == SCT:
        methods["sCT, random bags"] = SctImputer(checkpoint, device=device, seed=seed)
        for context in contexts:
            refuse_nearest(context)
            methods["sCT, bags of tissue"] = SctImputer(
                checkpoint, positions=positions, device=device, seed=seed
            )
    else:
        never = StateImputer(checkpoint, never_measured=True, seed=seed)
        methods["model, gene never measured"] = never
        methods["model"] = StateImputer(checkpoint, seed=seed)
        for context in contexts:
            methods[f"model, {context} context"] = StateImputer(
                checkpoint,
                context=context,
                positions=positions,
                n_neighbours=n_neighbours,
                seed=seed,
            )
    methods |= {other.name: other for other in others}
    # Another stream than the methods draw from, or they would hide the same entries again.
    scores = yield from score_imputers(
        methods, rna, gene_share, checkpoint.symbols, np.random.default_rng([seed, 1])
    )
    scores.info.update(
        input=section.name,
        model=checkpoint.info.name,
        model_digest=checkpoint.digest,
        training_datasets=list(checkpoint.info.training_datasets),
        seen_in_training=seen_in_training(section, checkpoint.info.training_datasets),
        contexts=list(contexts),
        seed=seed,
    )
    return scores


def score_imputers(
    methods: dict[str, Imputer],
    rna: AlignedRna,
    gene_share: np.ndarray,
    symbols: Sequence[str],
    rng: np.random.Generator,
) -> Generator[Progress, None, ImputationScores]:
    """Hide entries and score methods on them.

    Parameters
    ----------
    methods
        By the name that the table gives them.
    rna
        Counts over V genes; every row has some.
    gene_share, symbols
        Reference expression and names of the genes, length V.
    rng
        Draws what is hidden.
    """
    n, n_genes = rna.counts.shape
    rows = np.sort(rng.choice(n, min(n, MAX_TEST_ROWS), replace=False))
    visible, hidden = hide_entries(rna, HIDDEN_SHARE, rng, rows=rows)
    part = rna.take(rows)
    value, level = truth(log1p_cp10k(part.counts, part.shares(gene_share)), hidden[rows])
    gene = hidden.indices
    cell = np.repeat(np.arange(n), np.diff(hidden.indptr))
    n_hidden = np.bincount(gene, minlength=n_genes)
    n_expressed = np.bincount(gene, weights=level > 0, minlength=n_genes).astype(int)
    common = np.flatnonzero(n_expressed >= MIN_EXPRESSED)
    table, parts = {}, []
    for name, method in methods.items():
        started = time.perf_counter()
        said = yield from method.estimate(visible, hidden)
        seconds = time.perf_counter() - started
        of_genes = entry_pearson(value, said.value, gene, n_genes)[common]
        of_cells = entry_pearson(value, said.value, cell, n)
        up = level > 0
        table[name] = {
            "mcc": float(level_mcc(level, said.level)[0]),
            "mcc_expressed": float(level_mcc(level[up], said.level[up])[0]),
            "pearson": float(entry_pearson(value, said.value)[0]),
            # A method that says the same of all cells tells nothing of a gene: that counts as 0.
            "pearson_per_gene": _mean(np.nan_to_num(of_genes)),
            "pearson_per_cell": _mean(of_cells[np.isfinite(of_cells)]),
            "seconds": round(seconds, 2),
        }
        parts.append(
            pd.DataFrame(
                {
                    "method": name,
                    "gene": np.asarray(symbols)[common],
                    "pearson": of_genes,
                    "mcc": level_mcc(level, said.level, gene, n_genes)[common],
                    "n_hidden": n_hidden[common],
                    "n_expressed": n_expressed[common],
                }
            )
        )
    levels = np.bincount(level, minlength=5) / len(level)
    return ImputationScores(
        table=pd.DataFrame.from_dict(table, orient="index").rename_axis("method"),
        per_gene=pd.concat(parts, ignore_index=True),
        info={
            "n_rows": len(rows),
            "n_hidden": len(level),
            "n_expressed": int((level > 0).sum()),
            "n_genes": int((n_hidden > 0).sum()),
            "n_genes_scored": len(common),
            "levels": levels.round(4).tolist(),
        },
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
