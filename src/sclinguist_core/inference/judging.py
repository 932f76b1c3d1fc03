"""What a whole prediction tells: how far to trust each protein, and how it was made.

Shapes: n cells or spots, P proteins.
"""

from __future__ import annotations

import platform
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.inference import trust
from sclinguist_core.inference.chunk import without_reads
from sclinguist_core.inference.prepare import Prepared
from sclinguist_core.inference.progress import Progress
from sclinguist_core.inference.runner import Runner
from sclinguist_core.model.calibration import COVERAGE, fisher
from sclinguist_core.model.device import device_label


def prediction_info(
    prepared: Prepared,
    judged: trust.Judged,
    names: Sequence[str],
    *,
    neighbours: str,
    extra: dict[str, Any],
) -> dict[str, Any]:
    """Say how a prediction was made: ``uns["sclinguist"]`` without its warnings.

    Parameters
    ----------
    prepared
        Section and model.
    judged
        Labels, expected correlations and unit; its values are not looked at.
    names
        Of the proteins.
    neighbours
        What `predict_iter` calls context.
    extra
        Further entries.
    """
    import torch

    checkpoint, aligner, queries = prepared.checkpoint, prepared.aligner, prepared.queries
    counts = aligner.resolution.counts
    info: dict[str, Any] = {
        **prepared.provenance,
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
        "context": prepared.context,
        "neighbours": neighbours,
        "device": device_label(prepared.device),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        **extra,
    }
    if queries is not None:
        info["by_gene"] = dict(zip(queries.names, queries.table["genes"], strict=True))
    if judged.labels is not None:
        info["trust"] = dict(zip(names, judged.labels, strict=True))
    if judged.expected_r is not None:
        info["expected_r"] = dict(zip(names, judged.expected_r.round(3).tolist(), strict=True))
    return info


def section_verdict(
    prepared: Prepared, runner: Runner, mean: np.ndarray, std: np.ndarray
) -> Generator[Progress, None, trust.Verdict]:
    """Judge the proteins that a network has learnt by what it says of the section.

    Parameters
    ----------
    prepared, runner
        Section and model.
    mean, std
        Of the network, for `trust.spread_rows` of the section and the P learnt proteins.
    """
    total, n_learnt = prepared.section.n_obs, len(prepared.table)
    calibration, seen = prepared.calibration, None
    if calibration is not None and total >= trust.MIN_ROWS and n_learnt:
        one, other = trust.halves(prepared.aligned(trust.sample_rows(total)))
        first = yield from _quietly(runner, one, total)
        second = yield from _quietly(runner, other, total)
        seen = fisher(column_correlation(first[:, :n_learnt], second[:, :n_learnt]))
    return trust.verdict(calibration, prepared.table, mean, std, seen, prepared.context)


def _quietly(
    runner: Runner, aligned: AlignedRna, total: int
) -> Generator[Progress, None, np.ndarray]:
    """Predict rows that are not among the results; a caller can still stop after every batch."""
    mean = np.full((aligned.n_obs, runner.n_proteins), np.nan, np.float32)
    for rows, outputs in runner.run(aligned):
        mean[rows] = outputs.mean
        yield Progress(total, total, "judging trust")
    # All rows without reads get one and the same prediction: halves would seem to agree on it.
    mean[without_reads(aligned)] = np.nan
    return mean
