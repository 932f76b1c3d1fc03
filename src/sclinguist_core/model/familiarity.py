"""How strange a cell or spot is to a model: an out-of-distribution score from its reads.

A row's reads are explained as a mixture of expression profiles of the training cells; what the best
mixture leaves unexplained is its *surprise*: the mean negative log-likelihood of a read, less what
rows of that very mixture have on average,

    - sum_g q_g log m_g  +  sum_g m_g log m_g,        m = sum_k w_k profile_k,

with q the row's share of reads in each gene and the weights w fitted to the row by
expectation-maximisation (the mixture of unigrams, Hofmann 1999). It is a mean over reads, so depth
does not move it; profiles are renormalised over the measured genes, so a small panel does not; a
spot of many cells is a mixture as good as a cell. Tissue and species that were not in training
read genes that no profile has.

The score is the share of training rows (cells and pseudo-spots, thinned and with genes removed)
that are less surprising: 0.95 means stranger than 95 % of what the model was trained on.

Shapes: n rows, V genes, K profiles, N genes that a row reads.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sclinguist_core.data.batches import bucketed_rows
from sclinguist_core.errors import InputError
from sclinguist_core.model.feed import Cells
from sclinguist_core.model.tensor_file import read_tensors, writing_tensors
from sclinguist_core.model.workers import Workers

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

FILE = "familiarity.safetensors"
MIN_READS = 20
"""Rows with fewer counted reads get no score (NaN)."""
_STEPS = 10
_BLOCK_ROWS = 64
_CARD_ROWS = 1_024
_CARD_VALUES = 2**28
"""Profiles of the genes that the rows of a batch read, on a card: a gigabyte of them."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Familiarity:
    """What the out-of-distribution score has to know of the training data.

    Attributes
    ----------
    profiles
        Share of reads in each gene for every profile, float32, shape (K, V); rows sum to 1. A gene
        that is 0 in all of them is not counted (ribosomal, mitochondrial, haemoglobin: how much of
        them is read depends on the preparation more than on the cell).
    levels
        Surprise of the training rows at evenly spaced quantiles from 0 to 1, ascending, in nats
        a read.
    """

    profiles: np.ndarray
    levels: np.ndarray

    def score(
        self,
        counts: sparse.csr_matrix,
        measured: np.ndarray,
        pattern: np.ndarray,
        device: torch.device | None = None,
    ) -> np.ndarray:
        """Share of training rows that are less strange than each row.

        Parameters
        ----------
        counts
            Raw counts over the model's genes, CSR, shape (n, V).
        measured
            Which genes were measured, bool, one row a measurement pattern, shape (M, V).
        pattern
            Row of `measured` for each row of `counts`, shape (n,).
        device
            Where to compute; the processor by default.

        Returns
        -------
        float32, shape (n,), from 0 to 1; NaN for rows with fewer than 20 counted reads.
        """
        values = surprise(self.profiles, counts, measured, pattern, device)
        quantile = np.linspace(0.0, 1.0, len(self.levels))
        scored = np.interp(values, self.levels, quantile)
        return np.where(np.isfinite(values), scored, np.nan).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write ``familiarity.safetensors`` (log shares as float16, -inf where not counted)."""
        from safetensors.numpy import save_file

        with np.errstate(divide="ignore"):
            log_profiles = np.log(self.profiles).astype(np.float16)
        tensors = {"log_profiles": log_profiles, "levels": self.levels.astype(np.float32)}
        with writing_tensors():
            save_file(tensors, folder / FILE)


def read_familiarity(folder: Path, n_genes: int) -> Familiarity | None:
    """Read ``familiarity.safetensors`` of a checkpoint folder; None where there is none.

    Raises
    ------
    InputError
        If the file is damaged or does not fit the model's genes.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    tensors = read_tensors(path)
    log_profiles, levels = tensors.get("log_profiles"), tensors.get("levels")
    if (
        log_profiles is None
        or levels is None
        or log_profiles.shape[1:] != (n_genes,)
        or not _usable(log_profiles, levels)
    ):
        raise InputError(
            f"{path}: expected log_profiles over {n_genes} genes and finite levels, found "
            f"{ {name: tensor.shape for name, tensor in tensors.items()} }; install or train the "
            "checkpoint again"
        )
    profiles = np.exp(log_profiles.astype(np.float32))
    return Familiarity(
        profiles=profiles / profiles.sum(axis=1, keepdims=True),
        levels=np.maximum.accumulate(levels.astype(np.float64)),
    )


def _usable(log_profiles: np.ndarray, levels: np.ndarray) -> bool:
    """Whether profiles are logarithms of shares, some gene in each, and levels are numbers."""
    if log_profiles.dtype.kind != "f" or not log_profiles.size or levels.shape < (2,):
        return False
    # NaN is not below 1; -inf stands for a share of 0.
    shares = (log_profiles < 1).all() and np.isfinite(log_profiles.max(axis=1)).all()
    return bool(shares and levels.ndim == 1 and np.isfinite(levels).all())


def surprise(
    profiles: np.ndarray,
    counts: sparse.csr_matrix,
    measured: np.ndarray,
    pattern: np.ndarray,
    device: torch.device | None = None,
) -> np.ndarray:
    """Unexplained log-likelihood a read of every row, float64, shape (n,); see the module.

    Arguments are those of `Familiarity.score`; NaN for rows with fewer than 20 counted reads.
    """
    result = np.full(counts.shape[0], np.nan)
    counted = profiles.any(axis=0)
    for index in np.unique(pattern):
        genes = np.flatnonzero(measured[index] & counted)
        if not len(genes):
            continue
        panel = profiles[:, genes].astype(np.float32)
        panel /= panel.sum(axis=1, keepdims=True)
        rows = np.flatnonzero(pattern == index)
        reads = sparse.csr_matrix(counts[rows][:, genes], dtype=np.float32)
        reads.eliminate_zeros()
        enough = np.asarray(reads.sum(axis=1)).ravel() >= MIN_READS
        rows, reads = rows[enough], reads[enough]
        result[rows] = _excess_on(device, panel, reads)
    return result


def _excess_on(
    device: torch.device | None, panel: np.ndarray, reads: sparse.csr_matrix
) -> np.ndarray:
    import torch

    if device is not None and device.type != "cpu":
        try:
            return excess_in_batches(panel, reads, device)
        except torch.OutOfMemoryError:
            logger.warning(
                "%s: no memory for the out-of-distribution score, which the processor computes",
                device,
            )
    return _excess(panel, reads)


def _excess(panel: np.ndarray, reads: sparse.csr_matrix) -> np.ndarray:
    """Surprise of rows that all have reads, on profiles of just the measured genes."""
    import torch

    genes_VK = np.ascontiguousarray(panel.T)
    n_rows = reads.shape[0]
    blocks = [
        slice(start, min(start + _BLOCK_ROWS, n_rows)) for start in range(0, n_rows, _BLOCK_ROWS)
    ]
    with Workers(min(torch.get_num_threads(), len(blocks))) as workers:
        parts = workers.map(lambda rows: _excess_of_block(genes_VK, reads, rows), blocks)
    return np.concatenate([np.zeros(0), *parts])


def _excess_of_block(genes_VK: np.ndarray, reads: sparse.csr_matrix, rows: slice) -> np.ndarray:
    bounds = reads.indptr[rows.start : rows.stop + 1]
    weights_BK = np.empty((len(bounds) - 1, genes_VK.shape[1]), np.float32)
    cross_B = np.empty(len(weights_BK))
    # Row by row: a row's profiles stay in the cache over all steps.
    for row, (start, stop) in enumerate(pairwise(bounds)):
        share_N = reads.data[start:stop] / reads.data[start:stop].sum()
        likelihood_NK = genes_VK[reads.indices[start:stop]]
        w_K = np.full(len(weights_BK[row]), 1.0 / len(weights_BK[row]), np.float32)
        for _ in range(_STEPS):
            ratio_N = likelihood_NK @ w_K
            np.maximum(ratio_N, _TINY, out=ratio_N)
            np.divide(share_N, ratio_N, out=ratio_N)
            w_K *= ratio_N @ likelihood_NK
            w_K /= w_K.sum()
        weights_BK[row] = w_K
        cross_B[row] = -(share_N @ np.log(np.maximum(likelihood_NK @ w_K, _TINY)))
    mixture_BV = weights_BK @ genes_VK.T
    mixture_BV *= np.log(np.maximum(mixture_BV, _TINY))
    return cross_B + mixture_BV.sum(axis=1)


def excess_in_batches(
    panel: np.ndarray, reads: sparse.csr_matrix, device: torch.device
) -> np.ndarray:
    """Surprise of rows that all have reads, many of them at a time: what suits a card.

    Parameters
    ----------
    panel
        Profiles over N measured genes, float32, shape (K, N).
    reads
        Counts of these genes, CSR float32, shape (n, N).
    device
        Where to compute.

    Returns
    -------
    float64, shape (n,); what the processor computes row by row, to within rounding of float32.
    """
    import torch

    genes_NK = torch.from_numpy(np.ascontiguousarray(panel.T)).to(device)
    cells = Cells(values=reads, pattern=np.zeros(reads.shape[0], np.int64))
    result = np.empty(reads.shape[0])
    for rows in bucketed_rows(cells.lengths, _CARD_ROWS, _CARD_VALUES // len(panel)):
        with torch.inference_mode():
            tokens = cells.tokens(rows, device)
            share_BT = tokens.values / tokens.values.sum(dim=1, keepdim=True)
            likelihood_BTK = genes_NK[tokens.genes.clamp(min=0)]
            w_BK = genes_NK.new_full((len(rows), len(panel)), 1.0 / len(panel))
            for _ in range(_STEPS):
                ratio_BT = share_BT / _explained(likelihood_BTK, w_BK)
                w_BK = w_BK * torch.bmm(ratio_BT[:, None], likelihood_BTK)[:, 0]
                w_BK = w_BK / w_BK.sum(dim=1, keepdim=True)
            cross_B = -(share_BT * _explained(likelihood_BTK, w_BK).log()).sum(dim=1)
            mixture_BN = w_BK @ genes_NK.T
            expected_B = (mixture_BN * mixture_BN.clamp(min=_TINY).log()).sum(dim=1)
            result[rows] = (cross_B + expected_B).cpu().numpy()
    return result


def _explained(likelihood_BTK: torch.Tensor, w_BK: torch.Tensor) -> torch.Tensor:
    """Share of reads that a mixture gives each token's gene, above 0, shape (B, T)."""
    return (likelihood_BTK @ w_BK[..., None])[..., 0].clamp(min=_TINY)
