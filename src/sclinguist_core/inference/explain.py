"""Which genes drive a predicted protein: attributions of cells, one generator as for predictions.

An attribution says what the *model* rests on, not what regulates the protein: genes that are
expressed together share what either alone could tell, and which of them gets more is chance of
training as much as biology.

Shapes: n cells or spots, m of them explained, P proteins, V genes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import trust
from sclinguist_core.inference.explain_batches import attributed_batches, entries
from sclinguist_core.inference.explanation import LEAST_ROWS, Explanation, expressing
from sclinguist_core.inference.perturbation import row_numbers
from sclinguist_core.inference.perturber import provenance
from sclinguist_core.inference.prepare import Prepared, prepare
from sclinguist_core.inference.progress import CHUNK_ROWS, Progress, finish_in_notebook
from sclinguist_core.model.architectures import TRANSLATOR
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

    from sclinguist_core.inference.attribution import Attributed, Inputs

logger = logging.getLogger(__name__)

GRADIENTS, ATTENTION = METHODS = ("gradients", "attention")
MAX_ROWS = 1_000
"""Rows that are explained by default: what genes mean overall hardly changes with more."""
STEPS = 8
"""Points on the way of integrated gradients: sums are then off by 0.4 % of a prediction's spread
over cells on average, of the bundled model; 16 are off by 0.1 % and cost twice the time."""
N_DEFAULT = 6
"""Proteins that are explained when none is named."""


def explain_iter(
    section: Section,
    proteins: Sequence[str] | None = None,
    *,
    method: str = GRADIENTS,
    rows: np.ndarray | None = None,
    max_rows: int | None = MAX_ROWS,
    steps: int = STEPS,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
) -> Generator[Progress, None, Explanation]:
    """Attribute the predictions of a section to its genes; yields progress, returns the result.

    Parameters
    ----------
    section
        With RNA.
    proteins
        Names in any spelling; by default the six that the model predicts best, by its calibration
        (the first six where it has none).
    method
        ``"gradients"`` (integrated gradients, in the unit of the predictions) or ``"attention"``
        (attention x value; cheaper, and worse: it sees one head of the model and no signs).
    rows
        Mask or indices of the rows to explain; all by default.
    max_rows
        A random sample of so many is explained where there are more; None for no limit.
    steps
        Points on the way of integrated gradients.
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
        Besides what `predict.predict_iter` raises: if the model is of an architecture that cannot
        be explained, fewer than 10 rows express anything, or an option makes no sense.
    """
    from sclinguist_core.inference.attribution import attention_times_value, integrated_gradients

    started = time.perf_counter()
    _check(method, max_rows, steps, batch_size)
    chosen = sampled(row_numbers(rows, section.n_obs), max_rows, seed)
    yield Progress(0, len(chosen), "loading model")
    prepared = _prepared(section, proteins, model, device)

    def attribute(cells: Inputs, indices: torch.Tensor) -> Attributed:
        network = prepared.checkpoint.translator
        if method == GRADIENTS:
            return integrated_gradients(network, cells, indices, steps=steps)
        return attention_times_value(network, cells, indices)

    n_proteins = len(prepared.proteins)
    predicted = np.zeros((len(chosen), n_proteins), np.float32)
    start = np.zeros_like(predicted)
    parts: list[list[sparse.csr_matrix]] = [[] for _ in range(n_proteins)]
    done = 0
    for begin in range(0, len(chosen), CHUNK_ROWS):
        aligned = prepared.aligned(chosen[begin : begin + CHUNK_ROWS])
        expression = aligned.expression(
            prepared.checkpoint.gene_share, prepared.checkpoint.info.model.rna_normalization
        )
        values = np.zeros((n_proteins, expression.nnz), np.float32)
        for places, inside, found in attributed_batches(
            prepared, aligned, expression, attribute, batch_size
        ):
            where = entries(expression, places)
            for i in range(n_proteins):
                values[i, where] = found.values_PBT[i].float().cpu().numpy()[inside]
            predicted[begin + places] = found.mean_BP.float().cpu().numpy()
            start[begin + places] = found.start_BP.float().cpu().numpy()
            done += len(places)
            yield Progress(done, len(chosen), "explaining")
        for i in range(n_proteins):
            parts[i].append(
                sparse.csr_matrix(
                    (values[i], expression.indices, expression.indptr), expression.shape
                )
            )
    matrices = [sparse.vstack(part, format="csr") for part in parts]
    slope = trust.slope(prepared.table, prepared.calibration).astype(np.float32)
    if method == GRADIENTS:
        for matrix, factor in zip(matrices, slope, strict=True):
            matrix.data *= factor
    full = np.diff(matrices[0].indptr) > 0
    if full.sum() < LEAST_ROWS:
        raise InputError(
            f"{section.name}: {int(full.sum())} of the rows to explain express any of the model's "
            f"genes, expected at least {LEAST_ROWS}; choose more rows."
        )
    warnings = prepared.warnings
    if not full.all():
        warnings.append(
            f"{int((~full).sum())} of {len(full)} rows express none of the model's genes and are "
            "not explained."
        )
    kept = tuple(matrix[full] for matrix in matrices)
    predicted, start = (slope * predicted)[full], (slope * start)[full]
    info = provenance(prepared) | {
        "method": method,
        "steps": steps if method == GRADIENTS else None,
        "n_rows": int(full.sum()),
        "n_obs": section.n_obs,
        "seed": seed,
        "completeness_error": _completeness_error(kept, predicted, start),
        "seconds": round(time.perf_counter() - started, 3),
    }
    if method == ATTENTION:
        info["unit"] = "attention x log1p CP10k"
    return Explanation(
        names=prepared.table["name"].tolist(),
        symbols=prepared.checkpoint.symbols,
        rows=chosen[full],
        n_obs=section.n_obs,
        values=kept,
        predicted=predicted,
        start=start,
        expressing=expressing(kept[0]),
        info=info,
        warnings=tuple(warnings),
    )


def explain(
    source: AnnData | Section | str | Path,
    proteins: Sequence[str] | None = None,
    *,
    method: str = GRADIENTS,
    rows: np.ndarray | None = None,
    max_rows: int | None = MAX_ROWS,
    steps: int = STEPS,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    layer: str | None = None,
) -> Explanation:
    """Say which genes drive predicted proteins; for notebooks.

    Parameters
    ----------
    source
        AnnData with raw counts in X, a layer or raw; a `Section`; or a path that `open_section`
        reads. An AnnData is not changed.
    proteins, method, rows, max_rows, steps, model, device, batch_size, seed
        See `explain_iter`.
    layer
        Layer that holds the raw counts; found by itself when None.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> why = scl.explain("pbmc.h5ad", ["CD3", "CD19"])  # doctest: +SKIP
    >>> why.ranked().loc["CD19"].head(10)  # doctest: +SKIP
    """
    steps_of = explain_iter(
        as_section(source, layer=layer),
        [proteins] if isinstance(proteins, str) else proteins,
        method=method,
        rows=rows,
        max_rows=max_rows,
        steps=steps,
        model=model,
        device=device,
        batch_size=batch_size,
        seed=seed,
    )
    return finish_in_notebook(steps_of, logger)


def explainable(model: str | Path | Checkpoint) -> Checkpoint:
    """Load a checkpoint, if need be, and refuse one whose architecture cannot be explained."""
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    if checkpoint.info.architecture != TRANSLATOR:
        raise InputError(
            f"model {checkpoint.info.name!r}: is of the architecture "
            f"{checkpoint.info.architecture!r}, which `explain` cannot take apart, expected "
            f"{TRANSLATOR!r}; use the bundled model, or look at single genes with `knockout`."
        )
    return checkpoint


def _prepared(
    section: Section,
    proteins: Sequence[str] | None,
    model: str | Path | Checkpoint,
    device: str,
) -> Prepared:
    checkpoint = explainable(model)
    if proteins is None:
        proteins = best_predicted(checkpoint, "spots" if section.is_spatial else "cells")
    return prepare(section, model=checkpoint, proteins=proteins, device=device)


def best_predicted(checkpoint: Checkpoint, context: str) -> list[str]:
    """Name the proteins that the model predicts best, by its calibration for a context."""
    calibration = (checkpoint.calibration or {}).get(context)
    names = checkpoint.protein_names
    if calibration is None:
        return names[:N_DEFAULT]
    # Of proteins that were never held out, a correlation is only guessed.
    expected = np.where(calibration.observed > 0, calibration.expected_r(), -1.0)
    return [names[i] for i in np.argsort(-expected, kind="stable")[:N_DEFAULT]]


def _check(method: str, max_rows: int | None, steps: int, batch_size: int | None) -> None:
    if method not in METHODS:
        raise InputError(f"method {method!r}: expected {GRADIENTS} or {ATTENTION}.")
    if max_rows is not None and max_rows < LEAST_ROWS:
        raise InputError(f"number of rows to explain {max_rows}: expected at least {LEAST_ROWS}.")
    if steps < 1:
        raise InputError(f"steps {steps}: expected at least 1, such as {STEPS}.")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected at least 1.")


def sampled(rows: np.ndarray, most: int | None, seed: int) -> np.ndarray:
    """At most so many of the rows, at random, in ascending order; all of them when None."""
    if most is None or len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _completeness_error(
    values: Sequence[sparse.csr_matrix], predicted: np.ndarray, start: np.ndarray
) -> float | None:
    """Mean over rows and proteins of how far sums are off, in spreads of the predictions."""
    if np.isnan(start).any():
        return None
    sums = np.column_stack([np.asarray(matrix.sum(axis=1)).ravel() for matrix in values])
    spread = predicted.std(axis=0, dtype=np.float64)
    off = np.abs(sums - (predicted - start)).mean(axis=0)
    return float(np.mean(off / np.where(spread > 0, spread, np.inf)))
