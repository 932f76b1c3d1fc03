"""Perturbs sets of genes, one after the other, in the same rows of the same section.

Shapes: n cells or spots, P proteins, V genes of the model, K perturbed genes, N random sets.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from sclinguist_core.inference import trust
from sclinguist_core.inference.background import draw_like_expressed
from sclinguist_core.inference.perturbation import Perturbation, RandomSet
from sclinguist_core.inference.prepare import Prepared
from sclinguist_core.inference.progress import CHUNK_ROWS, Progress
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.device import device_label

BACKGROUND_ROWS = 200
"""Most rows in which a random set is perturbed: their mean is then sure enough."""


@dataclass(slots=True)
class Counter:
    """Counts runs of rows through the model."""

    total: int
    done: int = 0

    def add(self, n: int, phase: str) -> Progress:
        """Count `n` more."""
        self.done += n
        return Progress(self.done, self.total, phase)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    """Which rows are run for a perturbation.

    Attributes
    ----------
    genes
        Perturbed genes of the model, int64, shape (K,).
    scale
        Factor of their expression.
    affected
        Rows that change, ascending int64.
    expressed
        Whether any row expresses the genes: a scale of 1 changes none all the same.
    sets
        Random genes to compare with, int64, shape (N, K).
    samples
        Rows in which each random set is perturbed; N arrays.
    background
        Random sets that were asked for.
    seed
        Of the random sets.
    """

    genes: np.ndarray
    scale: float
    affected: np.ndarray
    expressed: bool
    sets: np.ndarray
    samples: list[np.ndarray]
    background: int
    seed: int

    @property
    def sampled(self) -> np.ndarray:
        """Rows of all samples, each once, ascending int64."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *self.samples]))

    @property
    def n_runs(self) -> int:
        """How often a row is run through the model."""
        return 2 * len(self.affected) + len(self.sampled) + sum(map(len, self.samples))


class Perturber:
    """Perturbs one set of genes after the other in the same rows of the same section.

    Parameters
    ----------
    prepared
        Section and model.
    rows
        Rows to look at, ascending int64.
    batch_size
        See `predict.predict_iter`.
    """

    def __init__(
        self, prepared: Prepared, rows: np.ndarray, *, batch_size: int | None = None
    ) -> None:
        self.prepared = prepared
        self.rows = rows
        self.runner = prepared.runner(batch_size)
        self.slope = trust.slope(prepared.table, prepared.calibration)
        self._seen = _counts(prepared, rows)
        move = prepared.aligner.move
        self._has_reads = _expressing(self._seen @ move.sum(axis=1))
        self._mean = np.asarray(self._seen.mean(axis=0) @ move).ravel()
        self._n_rows = self._seen.getnnz(axis=0) @ move
        self._coding = np.concatenate(
            [np.zeros(0, np.int64), *coding_genes(prepared.checkpoint).values()]
        )

    def expressing(self, genes: np.ndarray) -> np.ndarray:
        """Rows that express any of the genes, ascending int64."""
        return self.rows[_expressing(self._seen @ self.prepared.aligner.move[:, genes])]

    def plan(self, genes: np.ndarray, *, scale: float, background: int, seed: int) -> Plan:
        """Find the rows that change, and draw what to compare them with."""
        affected = self.expressing(genes)
        expressed = len(affected) > 0
        if scale == 1.0:
            affected = affected[:0]
        sets = np.zeros((0, len(genes)), np.int64)
        if background and len(affected):
            sets = draw_like_expressed(
                self._mean, self._n_rows, genes, background, seed, excluded=self._coding
            )
        return Plan(
            genes=genes,
            scale=scale,
            affected=affected,
            expressed=expressed,
            sets=sets,
            samples=[_sample(self.expressing(others)) for others in sets],
            background=background,
            seed=seed,
        )

    def run(self, plan: Plan, counter: Counter) -> Generator[Progress, None, Perturbation]:
        """Carry a plan out; yields progress, returns the change of every protein."""
        started = time.perf_counter()
        slope, affected = self.slope, plan.affected
        n_obs = self.prepared.section.n_obs
        change = np.full((n_obs, len(slope)), np.nan, np.float32)
        change[self.rows[self._has_reads]] = 0.0
        moments = np.zeros((2, len(slope)))
        phase = "changing the gene" if plan.scale else "switching off the gene"
        for start in range(0, len(affected), CHUNK_ROWS):
            part = affected[start : start + CHUNK_ROWS]
            versions = (None, plan.genes)
            before, after = yield from self._means(part, versions, plan.scale, counter, phase)
            change[part] = slope * (after - before)
            value = slope * before
            moments += value.sum(axis=0), (value**2).sum(axis=0)
        random_sets = yield from self._random_sets(plan, counter)
        known = self.prepared.checkpoint.symbols
        symbols = [known[gene] for gene in plan.genes]
        warnings = []
        if not plan.expressed:
            warnings.append(f"No row expresses {' or '.join(symbols)}: nothing changes.")
        elif plan.background and len(affected) and not random_sets:
            warnings.append("No other genes are expressed: there is no background to compare with.")
        info = provenance(self.prepared) | {
            "genes": symbols,
            "scale": float(plan.scale),
            "n_rows": len(self.rows),
            "n_affected": len(affected),
            "background_genes": [[known[gene] for gene in others] for others in plan.sets],
            "seed": plan.seed,
            "seconds": round(time.perf_counter() - started, 3),
        }
        mask = np.zeros(n_obs, bool)
        mask[affected] = True
        return Perturbation(
            names=self.prepared.table["name"].tolist(),
            change=change,
            affected=mask,
            spread=_spread(moments, len(affected)),
            info=info,
            background=_means_of(random_sets),
            random_sets=random_sets,
            warnings=tuple(warnings),
        )

    def _random_sets(
        self, plan: Plan, counter: Counter
    ) -> Generator[Progress, None, tuple[RandomSet, ...]]:
        """Perturb the random sets, each in its sample of rows."""
        phase = "comparing with other genes"
        # Samples overlap: rows are run once as they are, whatever the number of sets.
        sampled = plan.sampled
        before = np.empty((len(sampled), len(self.slope)), np.float32)
        for start in range(0, len(sampled), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            (before[part],) = yield from self._means(sampled[part], (None,), 1.0, counter, phase)
        found = []
        for genes, rows in zip(plan.sets, plan.samples, strict=True):
            (after,) = yield from self._means(rows, (genes,), plan.scale, counter, phase)
            change = self.slope * (after - before[np.searchsorted(sampled, rows)])
            found.append(RandomSet(rows, change.astype(np.float32)))
        return tuple(found)

    def _means(
        self,
        rows: np.ndarray,
        versions: Sequence[np.ndarray | None],
        scale: float,
        counter: Counter,
        phase: str,
    ) -> Generator[Progress, None, list[np.ndarray]]:
        """Network's means of rows in several versions, each with other genes scaled, (rows, P)."""
        aligned = self.prepared.aligned(rows)
        plain = self.runner.expression(aligned)
        # Together, so that a row and its perturbed self meet the same padding, or nearly so.
        stacked = sparse.vstack(
            [plain if genes is None else scaled(plain, genes, scale) for genes in versions],
            format="csr",
        )
        mean = np.empty((stacked.shape[0], len(self.slope)), np.float32)
        pattern = np.tile(aligned.pattern, len(versions))
        for done, outputs in self.runner.run_expression(stacked, aligned.measured, pattern):
            mean[done] = outputs.mean
            yield counter.add(len(done), phase)
        return np.split(mean, len(versions))


def scaled(expression: sparse.csr_matrix, genes: np.ndarray, scale: float) -> sparse.csr_matrix:
    """Scale some genes in linear space: ``log1p(scale * expm1(x))``, other values untouched.

    Parameters
    ----------
    expression
        ``log1p`` expression, CSR float32, shape (n, V). Not changed.
    genes
        Columns, shape (K,).
    scale
        Zero takes the entries away: a gene that is not expressed is no token.
    """
    chosen = np.isin(expression.indices, genes)
    data = expression.data.copy()
    data[chosen] = scaled_value(data[chosen], scale)
    keep = ~(chosen & (data == 0))
    indptr = np.concatenate([[0], np.cumsum(keep)])[expression.indptr]
    return sparse.csr_matrix((data[keep], expression.indices[keep], indptr), expression.shape)


def one_at_a_time(cell: sparse.csr_matrix, entries: np.ndarray, scale: float) -> sparse.csr_matrix:
    """Repeat a cell with each of some entries scaled in turn, CSR float32, shape (K, V).

    Parameters
    ----------
    cell
        ``log1p`` expression, CSR float32, shape (1, V).
    entries
        Which of its stored entries, int64, shape (K,).
    scale
        Factor in linear space; 0 takes the entry away.
    """
    n_runs = len(entries)
    data = np.repeat(cell.data[None], n_runs, axis=0)
    data[np.arange(n_runs), entries] = scaled_value(cell.data[entries], scale)
    keep = data != 0
    genes = np.broadcast_to(cell.indices, data.shape)[keep]
    indptr = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    return sparse.csr_matrix((data[keep], genes, indptr), (n_runs, cell.shape[1]))


def scaled_value(value: np.ndarray, scale: float) -> np.ndarray:
    """Scale ``log1p`` values in linear space, float64; exactly 0 where the scale is."""
    return np.log1p(scale * np.expm1(value.astype(np.float64)))


def provenance(prepared: Prepared) -> dict[str, Any]:
    """Tell what a perturbation was made with, and its unit."""
    unit = trust.calibrated_unit(prepared.context) if prepared.calibration is not None else None
    return {
        **prepared.provenance,
        "unit": prepared.checkpoint.info.unit if unit is None else unit,
        "context": prepared.context,
        "device": device_label(prepared.device),
    }


def coding_genes(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Find the genes that code for each protein among the model's genes, int64 positions."""
    position = {symbol: i for i, symbol in enumerate(checkpoint.symbols)}
    return {
        name: np.array([position[gene] for gene in genes.split(";") if gene in position], np.int64)
        for name, genes in zip(
            checkpoint.proteins["name"], checkpoint.proteins["genes"].astype(str), strict=True
        )
    }


def _counts(prepared: Prepared, rows: np.ndarray) -> sparse.csr_matrix:
    """Pick the counts of some rows where genes were measured, CSR, shape (rows, G)."""
    counts, measured = prepared.rna.counts, prepared.rna.measured
    if measured is not None:
        counts = sparse.csr_matrix(counts.multiply(measured))
    return counts if len(rows) == counts.shape[0] else counts[rows]


def _expressing(counts: sparse.csr_matrix | np.ndarray) -> np.ndarray:
    """Tell which rows have at least one read, bool, shape (n,)."""
    return np.asarray(counts.sum(axis=1)).ravel() > 0


def _means_of(random_sets: tuple[RandomSet, ...]) -> np.ndarray | None:
    """Mean change by each random set, float64, shape (N, P); None without any."""
    if not random_sets:
        return None
    return np.stack([change.mean(axis=0, dtype=np.float64) for _, change in random_sets])


def _sample(rows: np.ndarray) -> np.ndarray:
    """Evenly spaced rows, at most `BACKGROUND_ROWS`: the same in every run."""
    return rows[
        np.unique(np.linspace(0, len(rows) - 1, min(len(rows), BACKGROUND_ROWS), dtype=int))
    ]


def _spread(moments: np.ndarray, n_rows: int) -> np.ndarray:
    """Compute standard deviations from the sums of values and of their squares, shape (2, P)."""
    if n_rows < 2:
        return np.full(moments.shape[1], np.nan)
    mean, square = moments / n_rows
    return np.sqrt(np.maximum(square - mean**2, 0.0))
