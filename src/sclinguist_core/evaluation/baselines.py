"""The trivial predictors that stand beside the model wherever a figure is shown.

A model earns its place only by what it adds to these. None of them is trained; the trained ones
(nearest neighbours, ridge, kernel ridge, a small network) are in
:mod:`sclinguist_core.evaluation.learners`.

Shapes: n cells or spots, P antibodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.preprocess import TARGET_SUM, size_factors
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.evaluation.metrics import FloatArray, pearson

TOTAL_COUNT = "total count"
PROTEIN_MEAN = "protein mean"
COGNATE_MRNA = "cognate mRNA"

DESCRIPTIONS = {
    TOTAL_COUNT: "log1p of all antibody counts of the cell, the same for every protein",
    PROTEIN_MEAN: "the protein's mean over the section in every cell",
    COGNATE_MRNA: "log1p CP10k of the coding gene; of several genes the best one",
}
"""What each untrained baseline is, in words for a table."""


def total_count(counts: pd.DataFrame) -> FloatArray:
    """``log1p`` of the total antibody count of each cell, as the score of every protein.

    Against log1p counts this alone scores 0.4-0.6 on spots, because a deeper spot has more of
    everything; against CLR it must score about 0. It shows how much of a figure is depth.

    Parameters
    ----------
    counts
        Raw antibody counts of the whole panel, (n, P); NaN = not measured.

    Returns
    -------
    (n, P) float64, the same column P times; NaN where nothing was measured in a cell.
    """
    values = np.asarray(counts, dtype=np.float64)
    total = np.where(np.isfinite(values).any(axis=1), np.log1p(np.nansum(values, axis=1)), np.nan)
    return np.repeat(total[:, None], values.shape[1], axis=1)


def protein_mean(counts: pd.DataFrame) -> FloatArray:
    """Predict every protein's mean in every cell: (n, P) zeros, in standard deviations.

    Its correlation is undefined (0 by convention) and its RMSE exactly 1.
    """
    return np.zeros(counts.shape)


@dataclass(frozen=True)
class CognateMrna:
    """The mRNA baseline.

    Attributes
    ----------
    values
        (n, P) float64, log1p CP10k of the chosen gene; NaN columns where there is none.
    genes
        The gene chosen for each antibody; ``""`` where no coding gene exists or was measured.
    """

    values: FloatArray
    genes: tuple[str, ...]


def cognate_mrna(
    rna: RnaCounts, genes: Sequence[Sequence[str]], measured: np.ndarray
) -> CognateMrna:
    """Expression of the gene(s) that code for each protein.

    Where several genes code for a target (CD3: *CD3D*, *CD3E*, *CD3G*), the one that correlates
    best with the measurement is taken. That looks at the answer, on purpose: the baseline is
    given its strongest form, so that a model which beats it really does.

    Parameters
    ----------
    rna
        Raw counts of all genes, (n, G).
    genes
        Canonical symbols of the coding genes of each of the P antibodies; may be empty.
    measured
        (n, P) CLR-transformed measurement, by which the best of several genes is chosen.
    """
    n_cells, n_antibodies = measured.shape
    values = np.full((n_cells, n_antibodies), np.nan)
    chosen = [""] * n_antibodies
    symbols = sorted({gene for group in genes for gene in group})
    if not symbols:
        return CognateMrna(values, tuple(chosen))
    aligned = align_genes(rna, symbols, strict=False)
    size = size_factors(rna.counts)[:, None]
    # A few dozen columns: the dense array is cells x coding genes, never cells x all genes.
    expression = np.log1p(TARGET_SUM * aligned.counts.toarray() / size)
    expression[~aligned.measured[aligned.pattern]] = np.nan
    column = {symbol: i for i, symbol in enumerate(symbols)}
    known = np.atleast_1d(aligned.measured.any(axis=0))
    for p, group in enumerate(genes):
        candidates = [gene for gene in group if known[column[gene]]]
        if not candidates:
            continue
        x = expression[:, [column[gene] for gene in candidates]]
        r = pearson(x, np.repeat(measured[:, [p]], len(candidates), axis=1))
        best = int(np.argmax(np.where(np.isfinite(r), r, -np.inf)))
        values[:, p] = x[:, best]
        chosen[p] = candidates[best]
    return CognateMrna(values, tuple(chosen))
