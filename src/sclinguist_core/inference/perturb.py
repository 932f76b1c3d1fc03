"""Pseudo-knockout: how the model's prediction changes when a gene is taken away.

The normalised expression of the chosen genes is set to zero, or scaled, and everything else stays
in place: the library size is not computed anew, and a measured gene stays a measured one. The
change is what the *model* makes of it, learned from cells in which genes vary together; it is no
experiment, and says nothing about cause. (Theodoris et al., Nature 618:616, 2023, ask a model the
same way.)

Shapes: n cells or spots, P proteins, V genes of the model, K perturbed genes.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import sclinguist_core
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import trust
from sclinguist_core.inference.perturbation import Perturbation, row_numbers
from sclinguist_core.inference.predict import CHUNK_ROWS, Progress
from sclinguist_core.inference.prepare import Prepared, prepare
from sclinguist_core.inference.runner import Runner
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.device import device_label
from sclinguist_core.vocabulary.genes import resolve_genes
from sclinguist_core.vocabulary.proteins import resolve_protein

LIKE_EXPRESSED = 0.1
"""Random genes come from this share of the expressed genes, nearest in mean expression."""


@dataclass(slots=True)
class _Counter:
    """Counts runs of rows; every row is run twice, as it is and perturbed."""

    total: int
    phase: str
    runs: int = 0

    def add(self, n: int) -> Progress:
        self.runs += n
        return Progress(self.runs // 2, self.total, self.phase)


def perturb_iter(
    section: Section,
    genes: Sequence[str],
    *,
    scale: float = 0.0,
    rows: np.ndarray | None = None,
    proteins: Sequence[str] | None = None,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    background: int = 0,
    seed: int = 0,
) -> Generator[Progress, None, Perturbation]:
    """Perturb genes of a section; yields progress, returns the change of every protein.

    Calibrated values are linear in what the network says (value = slope x (mean - offset), with a
    slope for each protein and context), so the change is the slope times the difference of the
    network's means: the same unit as `predict.predict_iter`, without judging the section anew.

    Parameters
    ----------
    section
        With RNA.
    genes
        Names in any spelling, perturbed together.
    scale
        Factor of the expression in linear space: 0 knocks out, 0.5 halves, 2 doubles.
    rows
        Mask or indices of the rows to look at; all by default. Only those of them that express a
        gene are run through the model.
    proteins, model, device, batch_size
        See `predict.predict_iter`.
    background
        Number of random genes (of sets of them, where several are perturbed) to compare with:
        expressed about as much as the perturbed ones, perturbed alike in a sample of the rows
        that express them.
    seed
        Draws the random genes.

    Yields
    ------
    Progress
        After every batch; a caller that stops iterating cancels within one batch.

    Raises
    ------
    InputError
        Besides what `predict.predict_iter` raises: if a gene is not known, not read by the model
        or not measured in the section, or if scale, rows or background make no sense.
    """
    started = time.perf_counter()
    _check(scale, batch_size, background)
    chosen = row_numbers(rows, section.n_obs)
    yield Progress(0, len(chosen), "loading model")
    prepared = prepare(section, model=model, proteins=proteins, device=device)
    targets = find_genes(prepared, genes)
    known = prepared.checkpoint.symbols
    symbols = [known[gene] for gene in targets]
    slope = trust.slope(prepared.table, prepared.calibration)
    move = prepared.aligner.move
    seen = _counts(prepared, chosen)
    affected = chosen[_expressing(seen @ move[:, targets])]
    expressed = len(affected) > 0
    if scale == 1.0:
        affected = affected[:0]
    sets = np.zeros((0, len(targets)), np.int64)
    if background and len(affected):
        sets = _like_expressed(seen.mean(axis=0) @ move, targets, background, seed)
    samples = []
    for others in sets:
        expressing = chosen[_expressing(seen @ move[:, others])]
        samples.append(expressing[trust.sample_rows(len(expressing))])
    counter = _Counter(
        total=len(affected) + sum(map(len, samples)),
        phase="changing the gene" if scale else "switching off the gene",
    )
    runner = prepared.runner(batch_size)
    change = np.full((section.n_obs, len(slope)), np.nan, np.float32)
    change[chosen[_expressing(seen @ move.sum(axis=1))]] = 0.0
    moments = np.zeros((2, len(slope)))
    for start in range(0, len(affected), CHUNK_ROWS):
        part = affected[start : start + CHUNK_ROWS]
        before, after = yield from _run_both(prepared, runner, part, targets, scale, counter)
        change[part] = slope * (after - before)
        value = slope * before
        moments += value.sum(axis=0), (value**2).sum(axis=0)
    counter.phase = "comparing with other genes"
    mean_changes = np.empty((len(sets), len(slope)))
    for i, (others, part) in enumerate(zip(sets, samples, strict=True)):
        before, after = yield from _run_both(prepared, runner, part, others, scale, counter)
        mean_changes[i] = slope * (after - before).mean(axis=0)
    warnings = []
    if not expressed:
        warnings.append(f"No row expresses {' or '.join(symbols)}: nothing changes.")
    elif background and len(affected) and not len(sets):
        warnings.append("No other genes are expressed: there is no background to compare with.")
    info = _provenance(prepared) | {
        "genes": symbols,
        "scale": float(scale),
        "n_rows": len(chosen),
        "n_affected": len(affected),
        "background_genes": [[known[gene] for gene in others] for others in sets],
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 3),
    }
    mask = np.zeros(section.n_obs, bool)
    mask[affected] = True
    return Perturbation(
        names=prepared.table["name"].tolist(),
        change=change,
        affected=mask,
        spread=_spread(moments, len(affected)),
        info=info,
        background=mean_changes if len(sets) else None,
        warnings=tuple(warnings),
    )


def find_genes(prepared: Prepared, genes: Sequence[str]) -> np.ndarray:
    """Positions of the named genes in the model, int64, shape (K,), each once.

    Raises
    ------
    InputError
        If a name is not known, or the gene is not in the model or not measured in the section.
    """
    symbols = prepared.checkpoint.symbols
    position = {symbol: i for i, symbol in enumerate(symbols)}
    measured = set(prepared.aligner.move.indices.tolist())
    found: dict[int, None] = {}
    for given in [genes] if isinstance(genes, str) else genes:
        read = resolve_genes([given]).table.iloc[0]
        symbol = read["symbol"]
        if position.get(symbol) in measured:
            found[position[symbol]] = None
            continue
        if read["status"] == "ambiguous":
            what = "may mean several genes, expected the symbol of one"
        elif not symbol:
            what = "not a known gene, expected one of this section"
        elif symbol not in position:
            what = f"the model does not read {symbol}, expected a gene that it reads"
        else:
            what = f"{symbol} was not measured in {prepared.section.name}, expected one that was"
        near = ", ".join(_nearest(str(given), [symbols[i] for i in sorted(measured)]))
        raise InputError(f"gene {str(given)[:40]!r}: {what}; the nearest names are {near}.")
    if not found:
        raise InputError("genes: found an empty list, expected at least one name.")
    return np.array(list(found), np.int64)


def _provenance(prepared: Prepared) -> dict[str, Any]:
    checkpoint = prepared.checkpoint
    unit = trust.calibrated_unit(prepared.context) if prepared.calibration is not None else None
    return {
        "input": prepared.section.name,
        "model": checkpoint.info.name,
        "model_digest": checkpoint.digest,
        "version": sclinguist_core.__version__,
        "unit": checkpoint.info.unit if unit is None else unit,
        "context": prepared.context,
        "device": device_label(prepared.device),
        "date": time.strftime("%Y-%m-%d"),
    }


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
    data[chosen] = np.log1p(scale * np.expm1(data[chosen].astype(np.float64)))
    keep = ~(chosen & (data == 0))
    indptr = np.concatenate([[0], np.cumsum(keep)])[expression.indptr]
    return sparse.csr_matrix((data[keep], expression.indices[keep], indptr), expression.shape)


def _check(scale: float, batch_size: int | None, background: int) -> None:
    if not (np.isfinite(scale) and scale >= 0):
        raise InputError(f"scale {scale}: expected 0 (knocked out) or a positive factor.")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected at least 1.")
    if background < 0:
        raise InputError(f"background {background}: expected 0 or a number of random genes.")


def _nearest(name: str, symbols: list[str]) -> list[str]:
    """Suggest symbols: the genes of the protein of that name, or else what is spelled alike."""
    with contextlib.suppress(InputError):
        coding = [gene for gene in resolve_protein(name).genes if gene in symbols]
        if coding:
            return coding
    return difflib.get_close_matches(name.upper()[:40], symbols, n=3, cutoff=0.0)


def _counts(prepared: Prepared, rows: np.ndarray) -> sparse.csr_matrix:
    """Pick the counts of some rows where genes were measured, CSR, shape (rows, G)."""
    counts, measured = prepared.rna.counts, prepared.rna.measured
    if measured is not None:
        counts = sparse.csr_matrix(counts.multiply(measured))
    return counts if len(rows) == counts.shape[0] else counts[rows]


def _expressing(counts: sparse.csr_matrix | np.ndarray) -> np.ndarray:
    """Tell which rows have at least one read, bool, shape (n,)."""
    return np.asarray(counts.sum(axis=1)).ravel() > 0


def _like_expressed(mean: np.ndarray, genes: np.ndarray, n_sets: int, seed: int) -> np.ndarray:
    """Draw sets of genes that are expressed about as much as the given ones.

    A gene's stand-in is drawn from the tenth of the expressed genes whose mean count is nearest
    in rank: a decile around the gene.

    Parameters
    ----------
    mean
        Mean count of each of the model's genes, shape (V,) or (1, V).
    genes
        The given ones, shape (K,).

    Returns
    -------
    int64, shape (n_sets, K); no rows where fewer than K other genes are expressed.
    """
    rng = np.random.default_rng(seed)
    mean = np.asarray(mean).ravel()
    others = np.setdiff1d(np.flatnonzero(mean > 0), genes)
    if len(others) < len(genes):
        return np.zeros((0, len(genes)), np.int64)
    others = others[np.argsort(mean[others], kind="stable")]
    size = max(len(genes), math.ceil(LIKE_EXPRESSED * len(others)))
    drawn = np.empty((n_sets, len(genes)), np.int64)
    for k, gene in enumerate(genes):
        rank = np.searchsorted(mean[others], mean[gene])
        away = np.abs(np.arange(len(others)) - rank)
        nearest = others[np.argsort(away, kind="stable")[:size]]
        for i in range(n_sets):
            drawn[i, k] = rng.choice(np.setdiff1d(nearest, drawn[i, :k]))
    return drawn


def _run_both(
    prepared: Prepared,
    runner: Runner,
    rows: np.ndarray,
    genes: np.ndarray,
    scale: float,
    counter: _Counter,
) -> Generator[Progress, None, tuple[np.ndarray, np.ndarray]]:
    """Network's means of the chosen rows without and with the perturbation, each (rows, P)."""
    aligned = prepared.aligned(rows)
    before = runner.expression(aligned)
    both = sparse.vstack([before, scaled(before, genes, scale)], format="csr")
    mean = np.empty((both.shape[0], len(prepared.proteins)), np.float32)
    # Together, so that a row and its perturbed self meet the same padding, or nearly so.
    pattern = np.tile(aligned.pattern, 2)
    for done, outputs in runner.run_expression(both, aligned.measured, pattern):
        mean[done] = outputs.mean
        yield counter.add(len(done))
    return mean[: len(rows)], mean[len(rows) :]


def _spread(moments: np.ndarray, n_rows: int) -> np.ndarray:
    """Compute standard deviations from the sums of values and of their squares, shape (2, P)."""
    if n_rows < 2:
        return np.full(moments.shape[1], np.nan)
    mean, square = moments / n_rows
    return np.sqrt(np.maximum(square - mean**2, 0.0))
