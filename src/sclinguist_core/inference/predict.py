"""Prediction: one generator that the command line, the window and the tests all consume.

`predict_iter` yields `Progress` and returns a `Prediction`; `attach` writes a prediction into a
table; `predict` does both for notebooks.

Shapes: n cells or spots, P proteins, V genes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.readers.memory import around_same_arrays, as_section
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import trust
from sclinguist_core.inference.bag import bag_weights, check_context
from sclinguist_core.inference.chunk import Raw, empty_warning, run_chunk, without_reads
from sclinguist_core.inference.conditioning import Given, condition, given_antibodies
from sclinguist_core.inference.judging import prediction_info, section_verdict
from sclinguist_core.inference.prediction import Prediction, attach
from sclinguist_core.inference.prepare import prepare
from sclinguist_core.inference.progress import (
    CHUNK_ROWS,
    Progress,
    check_memory,
    finish_in_notebook,
)
from sclinguist_core.inference.query import judge_queries, query_center, query_warning
from sclinguist_core.inference.runner import make_runner
from sclinguist_core.inference.smoothing import CONTEXT_SHARE, smoothed
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.device import choose_device

if TYPE_CHECKING:
    from anndata import AnnData


logger = logging.getLogger(__name__)

BYTES_PER_VALUE = 32
"""Network's mean and deviation, and value, deviation, two ends and room to write them, float32."""
BYTES_PER_MOVED_VALUE = 64
"""The same where queries, given proteins or neighbours copy values (40 at the peak), with room."""


def predict_iter(
    section: Section,
    *,
    model: str | Path | Checkpoint = "bundled",
    proteins: str | Sequence[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    log1p: bool = False,
    given: str | Sequence[str] | None = None,
    context: str = "none",
) -> Generator[Progress, None, Prediction]:
    """Predict the proteins of a section; yields progress, returns the prediction.

    Parameters
    ----------
    section
        With RNA.
    model
        ``"bundled"``, a checkpoint folder, or a loaded checkpoint.
    proteins
        Names in any spelling; all that the model has learnt by default. A protein that it has not
        learnt is asked for by its coding gene, and stands after the others; ``"all-genes"`` asks
        for the product of every gene of the model. A plain string is one name.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
    batch_size
        Most cells in a batch. It is halved by itself when memory runs out.
    log1p
        Predict ``log1p`` antibody counts too. Unlike the CLR they rise and fall with how deep the
        antibodies of a cell were sequenced, which RNA hardly tells.
    given
        Measured proteins of the section that predictions are conditioned on: names in any
        spelling (a plain string is one), or ``"measured"`` for all of ``obsm["protein"]``. The
        column of a measured protein is conditioned on the others.
    context
        ``"spatial"`` or ``"nearest"`` draws every value half-way to the mean over the 15 nearest
        rows on the tissue, or in predicted protein.

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
    started = time.perf_counter()
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected at least 1.")
    check_context(context, name=section.name, is_spatial=section.is_spatial)
    total = section.n_obs
    yield Progress(0, total, "loading model")
    prepared = prepare(section, model=model, proteins=proteins, device=device, by_gene=True)
    wanted, queries = prepared.proteins, prepared.queries
    checkpoint, aligner = prepared.checkpoint, prepared.aligner
    kind = prepared.context
    bags = None
    if context == "spatial":
        bags = bag_weights(section.positions, None, context)
    measured = None
    if given is not None:
        measured = given_antibodies(section, checkpoint, given, kind)
    # Measured proteins and neighbours bear on the chosen proteins by way of all others.
    every = measured is not None or context == "nearest"
    if every:
        prepared = replace(prepared, proteins=np.arange(len(checkpoint.proteins)))
    n_learnt = len(prepared.proteins)
    n_columns = n_learnt + (0 if queries is None else len(queries.table))
    moved = every or queries is not None or bags is not None
    check_memory(
        total * n_columns * (BYTES_PER_MOVED_VALUE if moved else BYTES_PER_VALUE),
        f"{section.name}: {n_columns:,} proteins of {total:,} rows",
        "ask for fewer proteins, or for a part of the rows at a time.",
    )
    runner = prepared.runner(batch_size, log1p=log1p)
    warnings = prepared.warnings
    warnings += runner.gene_warnings(aligner.not_found(checkpoint.symbols))
    familiarity = checkpoint.familiarity
    raw = Raw.of_size(total, n_columns, log1p=log1p, ood=familiarity is not None)
    done = n_empty = 0
    for start in range(0, total, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, total))
        aligned = prepared.aligned(rows)
        for n_rows in run_chunk(runner, familiarity, aligned, raw.part(rows)):
            done += n_rows
            yield Progress(done, total, "predicting")
        n_empty += int(without_reads(aligned).sum())
    warnings += empty_warning(n_empty, total)
    mean, std, logged, ood = raw.mean, raw.std, raw.log1p, raw.ood
    sample = trust.spread_rows(total)
    learnt = np.s_[:, :n_learnt]
    verdict = yield from section_verdict(
        prepared, runner, mean[sample][learnt], std[sample][learnt]
    )
    judged = verdict.apply(mean[learnt], std[learnt])
    if measured is not None and not np.isfinite(judged.mean).any():
        measured = None
        warnings.append("No row has a prediction, so that none was conditioned on measured ones.")
    if measured is not None:
        judged = yield from _condition(judged, measured, total)
        warnings.append(_given_warning(measured))
    if queries is not None:
        asked = mean[:, n_learnt:]
        center = query_center(asked[sample], kind)
        judged = trust.beside(judged, judge_queries(asked, kind, center))
        found = np.isin(np.arange(len(checkpoint.genes)), aligner.move.indices)
        warnings.append(query_warning(queries, found, kind))
    if context == "nearest":
        bags = bag_weights(None, mean[:, :n_learnt], context)
    if bags is not None:
        judged = smoothed(judged, bags)
    if every:
        columns = np.r_[wanted, np.arange(n_learnt, n_columns)]
        judged = judged.take(columns)
        logged = None if logged is None else logged[:, columns]
    if ood is not None and (sentence := trust.strange_rows_warning(ood, kind)):
        warnings.append(sentence)
    names = checkpoint.proteins["name"].iloc[wanted].tolist()
    if queries is not None:
        names += queries.names
    extra: dict[str, Any] = {"seconds": round(time.perf_counter() - started, 3)}
    if context != "none":
        extra["neighbours_share"] = CONTEXT_SHARE
    if measured is not None:
        extra |= {"given": measured.names, "given_digest": measured.digest}
    return Prediction(
        names=names,
        mean=judged.mean,
        std=judged.std,
        low=judged.low,
        high=judged.high,
        info=prediction_info(prepared, judged, names, neighbours=context, extra=extra),
        warnings=tuple(warnings),
        ood=ood,
        log1p=logged,
    )


def _condition(
    judged: trust.Judged, given: Given, total: int
) -> Generator[Progress, None, trust.Judged]:
    """Run `condition`; a caller can stop after every measured protein, and sees as many rows."""
    steps, n_steps = condition(judged, given), len(given.names) + 1
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            return end.value
        yield Progress(total * done // n_steps, total, "conditioning")


def _given_warning(given: Given) -> str:
    unused = ""
    if given.unused:
        shown = ", ".join(given.unused[:5]) + ", ..." * (len(given.unused) > 5)
        unused = f"; {len(given.unused)} antibodies say nothing to it ({shown})"
    return (
        f"Conditioned on {len(given.names)} measured proteins, each of these on the others"
        f"{unused}; trust labels are those of RNA alone."
    )


def translate(
    checkpoint: Checkpoint, aligned: AlignedRna, *, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Run the network alone: mean and standard deviation, not calibrated, shape (n, P).

    Rows that express nothing are NaN.
    """
    every = np.arange(len(checkpoint.proteins))
    return make_runner(checkpoint, choose_device(device), every).run_all(aligned)


def predict(
    source: AnnData | Section | str | Path,
    *,
    model: str | Path | Checkpoint = "bundled",
    proteins: str | Sequence[str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    log1p: bool = False,
    given: str | Sequence[str] | None = None,
    context: str = "none",
    layer: str | None = None,
) -> AnnData:
    """Predict proteins and return the table with them; for notebooks.

    Parameters
    ----------
    source
        AnnData with raw counts in X, a layer or raw; a `Section`; or a path that `open_section`
        reads. What is given is not changed.
    model, proteins, device, batch_size, log1p, given, context
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
        given=given,
        context=context,
    )
    prediction = finish_in_notebook(steps, logger)
    table = around_same_arrays(section.table)
    attach(table, prediction)
    return table
