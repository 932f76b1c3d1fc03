"""Prediction: one generator that the command line, the window and the tests all consume.

`predict_iter` yields `Progress` and returns a `Prediction`; `attach` writes a prediction into a
table; `predict` does both for notebooks.

Shapes: n cells or spots, P proteins, V genes.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

import sclinguist_core
from sclinguist_core.data.align import FEW_GENES, AlignedRna
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import trust
from sclinguist_core.inference.prepare import prepare
from sclinguist_core.inference.runner import Runner, make_runner
from sclinguist_core.model.calibration import COVERAGE, fisher
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.device import choose_device, device_label

if TYPE_CHECKING:
    from anndata import AnnData

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

CHUNK_ROWS = 1_024
"""Rows that are aligned and normalised at a time, so that memory does not grow with the input."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes
    ----------
    done, total
        Cells or spots.
    phase
        What is going on: ``"loading model"``, ``"predicting"``, ``"judging trust"``.
    """

    done: int
    total: int
    phase: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Predicted proteins of n cells or spots.

    Attributes
    ----------
    names
        Canonical protein names, length P.
    mean
        Abundance in the model's unit, float32, shape (n, P).
    std
        Standard deviation of the error, float32, shape (n, P); NaN where the model states none.
    low, high
        Ends of the 90 % interval, float32, shape (n, P); NaN where the model states no error.
    ood
        Out-of-distribution score of each row, 0 to 1, float32, shape (n,); None when the model
        has no reference for it (`sclinguist_core.model.familiarity`).
    log1p
        ``log1p`` antibody counts in standard deviations of a data set, not calibrated, float32,
        shape (n, P); None unless asked for.
    info
        Provenance, as written to ``uns["sclinguist"]``.
    warnings
        One sentence for everything that the user should know.
    """

    names: list[str]
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    info: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())
    ood: np.ndarray | None = None
    log1p: np.ndarray | None = None


def predict_iter(
    section: Section,
    *,
    model: str | Path | Checkpoint = "bundled",
    proteins: Sequence[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    log1p: bool = False,
) -> Generator[Progress, None, Prediction]:
    """Predict the proteins of a section; yields progress, returns the prediction.

    Parameters
    ----------
    section
        With RNA.
    model
        ``"bundled"``, a checkpoint folder, or a loaded checkpoint.
    proteins
        Names in any spelling; all that the model knows by default.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
    batch_size
        Most cells in a batch. It is halved by itself when memory runs out.
    log1p
        Predict ``log1p`` antibody counts too. Unlike the CLR they rise and fall with how deep the
        antibodies of a cell were sequenced, which RNA hardly tells.

    Yields
    ------
    Progress
        After every batch; a caller that stops iterating cancels within one batch.

    Raises
    ------
    InputError
        If the section has no RNA, genes or proteins are not known, the model does not predict
        what is asked for, or memory does not suffice for a single cell.
    """
    import torch

    started = time.perf_counter()
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected at least 1.")
    total = section.n_obs
    yield Progress(0, total, "loading model")
    prepared = prepare(section, model=model, proteins=proteins, device=device)
    checkpoint, aligner = prepared.checkpoint, prepared.aligner
    runner = prepared.runner(batch_size, log1p=log1p)
    warnings = _gene_warnings(section, aligner.n_found, aligner.resolution.species)
    mean = np.zeros((total, len(prepared.proteins)), np.float32)
    std = np.zeros_like(mean)
    logged = np.zeros_like(mean) if log1p else None
    familiarity = checkpoint.familiarity
    ood = None if familiarity is None else np.full(total, np.nan, np.float32)
    done = n_empty = 0
    for start in range(0, total, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, total))
        aligned = prepared.aligned(rows)
        for inside, outputs in runner.run(aligned):
            mean[start + inside] = outputs.mean
            std[start + inside] = outputs.std
            if logged is not None:
                logged[start + inside] = outputs.log1p
            if familiarity is not None and ood is not None:
                part = aligned.take(inside)
                ood[start + inside] = familiarity.score(part.counts, part.measured, part.pattern)
            done += len(inside)
            yield Progress(done, total, "predicting")
        empty = start + np.flatnonzero(np.diff(aligned.counts.indptr) == 0)
        mean[empty] = std[empty] = np.nan
        if logged is not None:
            logged[empty] = np.nan
        n_empty += len(empty)
    if n_empty:
        warnings.append(
            f"{n_empty} of {total} rows express none of the model's genes; they get no value (NaN)."
        )
    table = prepared.table
    names = table["name"].tolist()
    context = prepared.context
    calibration = prepared.calibration
    if calibration is not None:
        seen = None
        if total >= trust.MIN_ROWS:
            one, other = trust.halves(prepared.aligned(trust.sample_rows(total)))
            first = yield from _quietly(runner, one, total)
            second = yield from _quietly(runner, other, total)
            seen = fisher(column_correlation(first, second))
        judged = trust.judge(calibration, mean, std, seen, context)
    else:
        judged = trust.uncalibrated(table, mean, std, context)
    judged = trust.with_fine_tuning(judged, table, mean, std, context)
    if ood is not None and (sentence := trust.strange_rows_warning(ood, context)):
        warnings.append(sentence)
    counts = aligner.resolution.counts
    info: dict[str, Any] = {
        "input": section.name,
        "model": checkpoint.info.name,
        "model_digest": checkpoint.digest,
        "version": sclinguist_core.__version__,
        "unit": checkpoint.info.unit if judged.unit is None else judged.unit,
        "training_datasets": list(checkpoint.info.training_datasets),
        "rna_normalization": checkpoint.info.model.rna_normalization,
        "protein_normalization": getattr(checkpoint.info.model, "protein_normalization", ""),
        "species": aligner.resolution.species,
        "genes_found": aligner.n_found,
        "genes_expected": len(checkpoint.genes),
        "genes_not_found": aligner.not_found(checkpoint.symbols),
        "gene_names": {status: int(n) for status, n in counts.items()},
        "interval": COVERAGE,
        "context": context,
        "device": device_label(prepared.device),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "seconds": round(time.perf_counter() - started, 3),
        "date": time.strftime("%Y-%m-%d"),
    }
    if judged.labels is not None:
        info["trust"] = dict(zip(names, judged.labels, strict=True))
    if judged.expected_r is not None:
        info["expected_r"] = dict(zip(names, judged.expected_r.round(3).tolist(), strict=True))
    return Prediction(
        names=names,
        mean=judged.mean,
        std=judged.std,
        low=judged.low,
        high=judged.high,
        info=info,
        warnings=tuple(warnings),
        ood=ood,
        log1p=logged,
    )


def _quietly(
    runner: Runner, aligned: AlignedRna, total: int
) -> Generator[Progress, None, np.ndarray]:
    """Predict rows that are not among the results; a caller can still stop after every batch."""
    mean = np.full((aligned.n_obs, runner.n_proteins), np.nan, np.float32)
    for rows, outputs in runner.run(aligned):
        mean[rows] = outputs.mean
        yield Progress(total, total, "judging trust")
    # All rows without reads get one and the same prediction: halves would seem to agree on it.
    mean[np.diff(aligned.counts.indptr) == 0] = np.nan
    return mean


def translate(
    checkpoint: Checkpoint, aligned: AlignedRna, *, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Run the network alone: mean and standard deviation, not calibrated, shape (n, P).

    Rows that express nothing are NaN.
    """
    every = np.arange(len(checkpoint.proteins))
    return make_runner(checkpoint, choose_device(device), every).run_all(aligned)


def _gene_warnings(section: Section, n_found: int, species: str) -> list[str]:
    warnings = list(section.warnings)
    if species == "mouse":
        warnings.append(
            "The genes are of mouse; they were mapped to human genes by orthologs, and the model "
            "has seen human cells only: trust its values less."
        )
    if n_found < FEW_GENES:
        warnings.append(
            f"Only {n_found} of the model's genes were measured (fewer than {FEW_GENES}): trust "
            "its values less."
        )
    return warnings


def attach(table: AnnData, prediction: Prediction) -> None:
    """Write a prediction into a table, in place; ``X`` and everything else stay as they were.

    ``obsm["protein_predicted"]``, ``..._low``, ``..._high``, ``..._std`` (DataFrames with a column
    a protein; the latter three only where the model states an error), ``..._log1p`` where asked
    for, and ``uns["sclinguist"]``.
    """
    # An earlier prediction may have had columns that this one has not.
    for suffix in ("_low", "_high", "_std", "_log1p"):
        table.obsm.pop(f"protein_predicted{suffix}", None)
    parts = {"protein_predicted": prediction.mean}
    if np.isfinite(prediction.std).any():
        parts |= {
            "protein_predicted_low": prediction.low,
            "protein_predicted_high": prediction.high,
            "protein_predicted_std": prediction.std,
        }
    if prediction.log1p is not None:
        parts["protein_predicted_log1p"] = prediction.log1p
    if prediction.ood is not None:
        table.obs["sclinguist_ood"] = prediction.ood
    for key, values in parts.items():
        table.obsm[key] = pd.DataFrame(values, index=table.obs_names, columns=prediction.names)
    table.uns["sclinguist"] = {**prediction.info, "warnings": list(prediction.warnings)}


def predict(
    source: AnnData | Section | str | Path,
    *,
    model: str | Path | Checkpoint = "bundled",
    proteins: Sequence[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    log1p: bool = False,
    layer: str | None = None,
) -> AnnData:
    """Predict proteins and return the table with them; for notebooks.

    Parameters
    ----------
    source
        AnnData with raw counts in X, a layer or raw; a `Section`; or a path that `open_section`
        reads. An AnnData is not changed.
    model, proteins, device, batch_size, log1p
        See `predict_iter`.
    layer
        Layer that holds the raw counts; found by itself when None.

    Returns
    -------
    AnnData with the columns that `attach` writes. Data that prediction does not change are shared
    with the input, not copied.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> adata = scl.predict("pbmc.h5ad", proteins=["CD3", "PD-1"])  # doctest: +SKIP
    >>> adata.obsm["protein_predicted"]["CD279"]  # doctest: +SKIP
    """
    section = as_section(source, layer=layer)
    steps = predict_iter(
        section,
        model=model,
        proteins=proteins,
        device=device,
        batch_size=batch_size,
        log1p=log1p,
    )
    prediction = finish(steps)
    for sentence in prediction.warnings:
        logger.warning(sentence)
    table = section.table
    attach(table, prediction)
    return table


def finish(steps: Generator[Progress, None, Result]) -> Result:
    """Run a generator of progress to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
