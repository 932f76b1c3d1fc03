"""Screen: each gene taken away by itself, and what becomes of one protein.

Where the model allows, all genes are estimated by one backward pass a cell (`first_order`) and
the best of them run; otherwise all are run. Runs of many genes in one cell make a batch.

Shapes: n cells or spots, S of them in the sample, V genes of the model, K genes that are run.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import trust
from sclinguist_core.inference.first_order import first_order_iter, has_first_order
from sclinguist_core.inference.gene_names import find_genes
from sclinguist_core.inference.perturb import check_options
from sclinguist_core.inference.perturber import coding_genes, one_at_a_time, provenance
from sclinguist_core.inference.prepare import Prepared, prepare
from sclinguist_core.inference.progress import CHUNK_ROWS, Progress
from sclinguist_core.inference.runner import Runner
from sclinguist_core.inference.sample import spread_sample
from sclinguist_core.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from sclinguist_core.model.translator import Translator

N_CELLS = 300
"""Cells of a sample, unless said otherwise."""
MIN_CELLS = 10
"""A gene that fewer cells of the sample express is skipped: its mean would be chance."""
N_EXACT = 20
"""Genes that are run after all were estimated: so many of each of the two rankings."""
NEIGHBOURS = 200
"""Genes expressed in most nearly as many cells, which a gene is compared with."""
BATCH_RUNS = 1_024
"""Runs of one cell that are put together at a time, so that memory does not grow."""
MAD_TO_SD = 1.4826
"""Standard deviation of a normal distribution whose median absolute deviation is 1."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Screen:
    """How one protein answers to each gene.

    Attributes
    ----------
    protein
        Its canonical name.
    table
        Index ``gene``, the largest absolute ``mean_change`` first:

        ``coded``
            Whether the gene codes for the protein.
        ``mean_change``
            Mean change of the protein over the cells of the sample that express the gene, in the
            unit of the predictions.
        ``effect_size``
            This over the standard deviation of the unperturbed predictions over the sample.
        ``mean_change_all``
            Mean over all cells of the sample; 0 counts where the gene is not expressed.
        ``n_cells``
            Cells of the sample that express the gene.
        ``rank``, ``rank_all``
            1 for the largest absolute change of either kind.
        ``z``
            How far the gene's change is from the median of the 200 genes that are expressed in
            most nearly as many cells, in their standard deviations (by the median absolute
            deviation). One kind of figure for all genes: estimates where there are some.
        ``run``
            Whether the gene was run through the model; otherwise its changes are estimates.
        ``estimate``
            Mean change by the first order alone; NaN where nothing was estimated.
    rows
        The sample, ascending int64, shape (S,).
    info
        Provenance, and how the sample was drawn.
    warnings
        One sentence for everything that the user should know.
    """

    protein: str
    table: pd.DataFrame
    rows: np.ndarray
    info: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())


def screen_iter(
    section: Section,
    protein: str,
    *,
    genes: Sequence[str] | None = None,
    scale: float = 0.0,
    n_cells: int | None = N_CELLS,
    groups: pd.Series | pd.Categorical | None = None,
    min_cells: int = MIN_CELLS,
    n_exact: int | None = N_EXACT,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
) -> Generator[Progress, None, Screen]:
    """Perturb each gene by itself and rank the genes by what becomes of a protein.

    Parameters
    ----------
    section
        With RNA.
    protein
        Name in any spelling.
    genes
        Candidates, in any spelling; all that the model reads by default.
    scale
        Factor of the expression in linear space: 0 knocks out, 2 doubles.
    n_cells
        Size of the sample of rows; None for all rows. The sample is spread evenly over the
        groups, or else over the predicted protein: each part has its share.
    groups
        Label of each row, shape (n,); rows without one are left out.
    min_cells
        Genes that fewer cells of the sample express are skipped, but for those that code for the
        protein.
    n_exact
        The genes that come first by the estimate in either ranking, so many of each, are run
        through the model. None runs every gene in every cell: hours for thousands of genes on a
        processor. Without effect on models that cannot be estimated: all is run there.
    model, device, batch_size
        See `predict.predict_iter`.
    seed
        Draws the sample.

    Yields
    ------
    Progress
        After every batch; a caller that stops iterating cancels within one batch.

    Raises
    ------
    InputError
        Besides what `predict.predict_iter` raises: if a gene is not known, no gene is expressed
        in enough cells, or the options make no sense.
    """
    started = time.perf_counter()
    check_options(scale, batch_size, 0)
    if scale == 1.0:
        raise InputError("scale 1.0: leaves the expression as it is; choose another factor.")
    for name, value in (("sample", n_cells), ("min_cells", min_cells), ("n_exact", n_exact)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value}: expected at least 1.")
    yield Progress(0, section.n_obs, "loading model")
    prepared = prepare(section, model=model, proteins=[protein], device=device)
    runner = prepared.runner(batch_size)
    candidates = None if genes is None else find_genes(prepared, genes)
    rows = yield from spread_sample(prepared, runner, n_cells, groups, seed)
    n_expressing = _n_expressing(prepared, rows)
    if candidates is None:
        candidates = np.arange(len(n_expressing))
    name = str(prepared.table["name"].iloc[0])
    own = coding_genes(prepared.checkpoint)[name]
    # The protein's own genes are what a reader looks for first, however rare they are.
    enough = np.where(np.isin(candidates, own), 1, min_cells)
    chosen = candidates[n_expressing[candidates] >= enough]
    if not len(chosen):
        raise InputError(
            f"{section.name}: none of {len(candidates):,} genes is expressed in {min_cells} of the "
            f"{len(rows)} {prepared.context} of the sample; take a larger sample or lower "
            "min_cells."
        )
    n_of = n_expressing[chosen]
    slope = float(trust.slope(prepared.table, prepared.calibration)[0])
    estimated = has_first_order(prepared.checkpoint.model) and n_exact is not None
    estimate = np.full(len(chosen), np.nan)
    run = np.ones(len(chosen), bool)
    if estimated:
        sums = yield from _estimates(prepared, runner, rows, scale)
        estimate = slope * sums[chosen] / n_of
        first = [np.argsort(-np.abs(by))[:n_exact] for by in (estimate, estimate * n_of)]
        run = np.isin(np.arange(len(chosen)), np.concatenate(first)) | np.isin(chosen, own)
    sums, values = yield from _exact(prepared, runner, rows, chosen[run], scale)
    mean_change = estimate.copy()
    mean_change[run] = slope * sums / n_of[run]
    spread = float(slope * values.std())
    over_all = mean_change * n_of / len(rows)
    table = pd.DataFrame(
        {
            "coded": np.isin(chosen, own),
            "mean_change": mean_change,
            "effect_size": mean_change / spread if spread > 0 else np.nan,
            "mean_change_all": over_all,
            "n_cells": n_of,
            "rank": _rank(mean_change),
            "rank_all": _rank(over_all),
            "z": _robust_z(estimate if estimated else mean_change, n_of),
            "run": run,
            "estimate": estimate,
        },
        index=pd.Index([prepared.checkpoint.symbols[gene] for gene in chosen], name="gene"),
    )
    info = provenance(prepared) | {
        "protein": name,
        "scale": float(scale),
        "n_rows": section.n_obs,
        "n_sample": len(rows),
        "sample_spread_over": "groups" if groups is not None else f"predicted {name}",
        "n_genes": len(chosen),
        "n_skipped": len(candidates) - len(chosen),
        "n_run": int(run.sum()),
        "min_cells": min_cells,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 3),
    }
    return Screen(
        protein=name,
        table=table.sort_values("rank", kind="stable"),
        rows=rows,
        info=info,
        warnings=_missed(table) if estimated else (),
    )


def _n_expressing(prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """How many of the rows express each of the model's genes, int64, shape (V,)."""
    n_genes = len(prepared.checkpoint.genes)
    count = np.zeros(n_genes, np.int64)
    for start in range(0, len(rows), CHUNK_ROWS):
        aligned = prepared.aligned(rows[start : start + CHUNK_ROWS])
        count += np.bincount(aligned.counts.indices, minlength=n_genes)
    return count


def _estimates(
    prepared: Prepared, runner: Runner, rows: np.ndarray, scale: float
) -> Generator[Progress, None, np.ndarray]:
    """Sum over cells of what each gene would change of the network's mean, shape (V,)."""
    checkpoint = prepared.checkpoint
    model = cast("Translator", checkpoint.model.to(prepared.device))
    total = np.zeros(len(checkpoint.genes))
    done = 0
    for start in range(0, len(rows), CHUNK_ROWS):
        aligned = prepared.aligned(rows[start : start + CHUNK_ROWS])
        for inside, genes, change, _ in first_order_iter(
            model,
            runner.expression(aligned),
            aligned.measured,
            aligned.pattern,
            int(prepared.proteins[0]),
            scale=scale,
            batch_size=runner.batch_size,
            device=prepared.device,
        ):
            seen = genes >= 0
            total += np.bincount(genes[seen], change[seen], minlength=len(total))
            done += len(inside)
            yield Progress(done, len(rows), "estimating all genes")
    return total


def _exact(
    prepared: Prepared, runner: Runner, rows: np.ndarray, genes: np.ndarray, scale: float
) -> Generator[Progress, None, tuple[np.ndarray, np.ndarray]]:
    """Run genes one at a time, in every cell that expresses them.

    Returns the sum over cells of the change of the network's mean, shape (K,), and the means
    without any change, shape (S,).
    """
    position = np.full(len(prepared.checkpoint.genes), -1)
    position[genes] = np.arange(len(genes))
    sums = np.zeros(len(genes))
    means = np.empty(len(rows))
    total = int(_n_expressing(prepared, rows)[genes].sum()) + len(rows)
    done = 0
    for start in range(0, len(rows), CHUNK_ROWS):
        aligned = prepared.aligned(rows[start : start + CHUNK_ROWS])
        expression = runner.expression(aligned)
        for i in range(aligned.n_obs):
            cell = expression[i]
            wanted = np.flatnonzero(position[cell.indices] >= 0)
            answers = np.empty(1 + len(wanted))
            for first in range(0, len(answers), BATCH_RUNS):
                # The first run is of the cell as it is.
                part = slice(max(first - 1, 0), first + BATCH_RUNS - 1)
                runs = one_at_a_time(cell, wanted[part], scale)
                if first == 0:
                    runs = sparse.vstack([cell, runs], format="csr")
                pattern = np.full(runs.shape[0], aligned.pattern[i])
                for inside, outputs in runner.run_expression(runs, aligned.measured, pattern):
                    answers[first + inside] = outputs.mean[:, 0]
                    done += len(inside)
                    yield Progress(done, total, "running genes one by one")
            means[start + i] = answers[0]
            sums[position[cell.indices[wanted]]] += answers[1:] - answers[0]
    return sums, means


def _rank(values: np.ndarray) -> np.ndarray:
    """1 for the largest absolute value, int64."""
    rank = np.empty(len(values), np.int64)
    rank[np.argsort(-np.abs(values), kind="stable")] = np.arange(1, len(values) + 1)
    return rank


def _robust_z(change: np.ndarray, n_cells: np.ndarray) -> np.ndarray:
    """Distance from genes expressed in as many cells, in their SDs; NaN with fewer than 20."""
    order = np.argsort(n_cells, kind="stable")
    ordered = change[order]
    size = min(NEIGHBOURS, len(change) - 1)
    z = np.full(len(change), np.nan)
    if size < 20:
        return z
    for place, gene in enumerate(order):
        start = min(max(place - size // 2, 0), len(change) - size - 1)
        others = np.delete(ordered[start : start + size + 1], place - start)
        middle = np.median(others)
        deviation = MAD_TO_SD * np.median(np.abs(others - middle))
        if deviation > 0:
            z[gene] = (change[gene] - middle) / deviation
    return z


def _missed(table: pd.DataFrame) -> tuple[str, ...]:
    """Say how well estimate and run agree, if so badly that the best genes may be others."""
    run, rest = table[table["run"]], table[~table["run"]]
    error = (run["mean_change"] - run["estimate"]).abs()
    if rest.empty or error.max() <= 0.2 * run["mean_change"].abs().max():
        return ()
    return (
        f"Estimates of the genes that were run are off by up to {error.max():.3f}: genes that were "
        "not run may have a larger effect; run more of them (n_exact).",
    )
