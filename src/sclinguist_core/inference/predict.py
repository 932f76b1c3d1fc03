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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

import sclinguist_core
from sclinguist_core.data.align import FEW_GENES, MIN_RESOLVED_GENES, AlignedRna, gene_aligner
from sclinguist_core.data.batches import bucketed_rows, token_batch
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import trust
from sclinguist_core.model.calibration import COVERAGE, fisher
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint
from sclinguist_core.model.device import (
    CPU_BATCH,
    CPU_TOKENS,
    CUDA_BATCH,
    CUDA_TOKENS,
    choose_device,
    device_label,
)
from sclinguist_core.vocabulary.proteins import resolve_protein

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

    from sclinguist_core.model.translator import Panels

logger = logging.getLogger(__name__)

CHUNK_ROWS = 4_096
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
        Standard deviation of the error, float32, shape (n, P).
    low, high
        Ends of the 90 % interval, float32, shape (n, P).
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


class Outputs(NamedTuple):
    """What the network says of a batch, each float32, shape (B, P)."""

    mean: np.ndarray
    std: np.ndarray
    log1p: np.ndarray | None


def select_proteins(checkpoint: Checkpoint, proteins: Sequence[str] | None) -> np.ndarray:
    """Find the chosen proteins (any spelling) in the model's panel; all of them when None.

    Raises
    ------
    InputError
        If a name is unknown, ambiguous, or not in the panel.
    """
    names = checkpoint.protein_names
    if proteins is None:
        return np.arange(len(names))
    position = {name: i for i, name in enumerate(names)}
    chosen: dict[int, None] = {}
    for given in proteins:
        canonical = given if given in position else resolve_protein(given).name
        if canonical not in position:
            raise InputError(
                f"protein {given!r} ({canonical}): the model {checkpoint.info.name!r} does not "
                f"predict it, expected one of its {len(names)} proteins; `sclinguist models "
                f"{checkpoint.path or 'bundled'} --proteins` lists them."
            )
        chosen[position[canonical]] = None
    if not chosen:
        raise InputError("proteins: found an empty list, expected at least one name.")
    return np.array(list(chosen), np.int64)


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
    rna = section.rna()
    total = section.n_obs
    yield Progress(0, total, "loading model")
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    if checkpoint.info.stage.startswith("pretrain-"):
        raise InputError(
            f"model {checkpoint.info.name!r}: comes from {checkpoint.info.stage} and has not "
            "learned to predict protein from RNA; go on with `sclinguist-train post-pretrain`."
        )
    if log1p and not checkpoint.info.model.log_output:
        raise InputError(
            f"model {checkpoint.info.name!r}: does not predict log1p counts; leave out log1p, or "
            "use a model that was trained with model.log_output=true."
        )
    chosen = select_proteins(checkpoint, proteins)
    target = choose_device(device)
    aligner = gene_aligner(rna.names, rna.ids, checkpoint.symbols, source=section.name)
    fewest = min(MIN_RESOLVED_GENES, len(checkpoint.genes) // 2)
    if aligner.n_found < fewest:
        raise InputError(
            f"{section.name}: {aligner.n_found} of the model's {len(checkpoint.genes)} genes were "
            f"measured, expected at least {fewest}; use a model that was trained on these genes."
        )
    warnings = _gene_warnings(section, aligner.n_found, aligner.resolution.species)
    mean = np.zeros((total, len(chosen)), np.float32)
    std = np.zeros_like(mean)
    logged = np.zeros_like(mean) if log1p else None
    familiarity = checkpoint.familiarity
    ood = None if familiarity is None else np.full(total, np.nan, np.float32)
    runner = _Runner(checkpoint, target, chosen, batch_size, log1p=log1p)

    def aligned_rows(rows: slice | np.ndarray) -> AlignedRna:
        measured = None if rna.measured is None else rna.measured[rows]
        return aligner.apply(rna.counts[rows], measured)

    done = n_empty = 0
    for start in range(0, total, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, total))
        aligned = aligned_rows(rows)
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
    table = checkpoint.proteins.iloc[chosen]
    names = table["name"].tolist()
    context = "spots" if section.is_spatial else "cells"
    calibration = (checkpoint.calibration or {}).get(context)
    if calibration is not None:
        seen = None
        if total >= trust.MIN_ROWS:
            one, other = trust.halves(aligned_rows(trust.sample_rows(total)))
            first = yield from _quietly(runner, one, total)
            second = yield from _quietly(runner, other, total)
            seen = fisher(column_correlation(first, second))
        judged = trust.judge(calibration.take(chosen), mean, std, seen, context)
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
        "protein_normalization": checkpoint.info.model.protein_normalization,
        "species": aligner.resolution.species,
        "genes_found": aligner.n_found,
        "genes_expected": len(checkpoint.genes),
        "gene_names": {status: int(n) for status, n in counts.items()},
        "interval": COVERAGE,
        "context": context,
        "device": device_label(target),
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
    runner: _Runner, aligned: AlignedRna, total: int
) -> Generator[Progress, None, np.ndarray]:
    """Predict rows that are not among the results; a caller can still stop after every batch."""
    mean = np.full((aligned.n_obs, len(runner.proteins)), np.nan, np.float32)
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
    return _Runner(checkpoint, choose_device(device), every, None).run_all(aligned)


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


class _Runner:
    """Runs batches on a device; halves them when memory runs out."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        proteins: np.ndarray,
        batch_size: int | None,
        *,
        log1p: bool = False,
    ) -> None:
        import torch

        on_cuda = device.type == "cuda"
        self.device = device
        self.model = checkpoint.model.to(device)
        self.gene_share = checkpoint.gene_share
        self.normalization = checkpoint.info.model.rna_normalization
        self.log1p = log1p
        self.batch_size = batch_size or (CUDA_BATCH if on_cuda else CPU_BATCH)
        self.max_tokens = CUDA_TOKENS if on_cuda else CPU_TOKENS
        with torch.inference_mode():
            self.tables = self.model.tables()
            self.proteins = torch.from_numpy(proteins).to(device)

    def run_all(self, aligned: AlignedRna) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of all rows, shape (n, P); NaN for rows without reads."""
        mean = np.full((aligned.n_obs, len(self.proteins)), np.nan, np.float32)
        std = mean.copy()
        for rows, outputs in self.run(aligned):
            mean[rows], std[rows] = outputs.mean, outputs.std
        mean[np.diff(aligned.counts.indptr) == 0] = np.nan
        std[np.isnan(mean)] = np.nan
        return mean, std

    def run(self, aligned: AlignedRna) -> Generator[tuple[np.ndarray, Outputs]]:
        """Yield the rows of each batch, and what the network says of them."""
        import torch

        expression = aligned.expression(self.gene_share, self.normalization)
        lengths = np.diff(expression.indptr)
        with torch.inference_mode():
            panels = self.model.panels(
                torch.from_numpy(aligned.measured).to(self.device), self.tables
            )
        waiting = np.arange(aligned.n_obs)
        while len(waiting):
            rows = next(bucketed_rows(lengths[waiting], self.batch_size, self.max_tokens))
            try:
                batch = token_batch(expression, aligned.pattern, waiting[rows])
                outputs = self._forward(batch, panels)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._halve(len(rows), error)
                continue
            yield batch.rows, outputs
            keep = np.ones(len(waiting), bool)
            keep[rows] = False
            waiting = waiting[keep]

    def _forward(self, batch: Any, panels: Panels) -> Outputs:
        import torch

        # Inference mode is local to a thread, so it is entered where the work is done.
        with torch.inference_mode():
            out = self.model(
                torch.from_numpy(batch.genes).to(self.device),
                torch.from_numpy(batch.values).to(self.device),
                panels.of(torch.from_numpy(batch.pattern).to(self.device)),
                self.tables,
                self.proteins,
                log1p=self.log1p,
            )
            mean, std = (x.float().cpu().numpy() for x in (out.mean, out.std))
            return Outputs(mean, std, out.log1p.float().cpu().numpy() if self.log1p else None)

    def _halve(self, n_rows: int, error: BaseException) -> None:
        import torch

        if n_rows <= 1:
            raise InputError(
                f"{self.device}: memory does not suffice for a single cell; close other programs "
                "or use --device cpu."
            ) from error
        self.batch_size = n_rows // 2
        logger.warning("out of memory; going on with batches of %d cells", self.batch_size)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def attach(table: AnnData, prediction: Prediction) -> None:
    """Write a prediction into a table, in place; ``X`` and everything else stay as they were.

    ``obsm["protein_predicted"]``, ``..._low``, ``..._high``, ``..._std`` (DataFrames with a column
    a protein), ``..._log1p`` where asked for, ``obs["sclinguist_ood"]`` where the model can tell,
    and ``uns["sclinguist"]``.
    """
    parts = {
        "protein_predicted": prediction.mean,
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


def finish(steps: Generator[Progress, None, Prediction]) -> Prediction:
    """Run a prediction to its end and return it."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
