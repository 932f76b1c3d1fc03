"""Fit the reference of the out-of-distribution score on training data.

Profiles are the mean expression of groups of training cells that a model predicts alike. The
levels are the surprise of training rows as they are met in use: cells and pseudo-spots, some of
them thinned to a tenth of their reads, some with most of their genes removed.

Shapes: n rows, V genes, K profiles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.inference.predict import translate
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.familiarity import Familiarity, surprise
from sclinguist_core.train.augment import pseudo_spots, single_cells, thin
from sclinguist_core.train.corpus import PairedDataset

N_PROFILES = 12
CELLS_PER_SET = 500
ROWS_PER_BATCH = 64
BATCHES_PER_SET = 8
SPOT_CELLS = (2, 15)
MIN_DEPTH = 0.1
MIN_GENES = 0.1
PRIOR_CELLS = 5.0
"""Cells' worth of the reference transcriptome that every profile starts from."""
_NOT_COUNTED = re.compile(r"MT-|MTRNR|RP[LS]\d|RPLP|RPSA|MALAT1|NEAT1|HB[ABDEGMQZ]\d?$")


def fit_familiarity(
    checkpoint: Checkpoint, datasets: Sequence[PairedDataset], *, seed: int = 0
) -> Familiarity:
    """Fit profiles and levels on data sets that the checkpoint was trained on.

    Parameters
    ----------
    checkpoint
        Its predictions group the cells.
    datasets
        Aligned to the checkpoint's genes; each counts the same in the levels.
    seed
        Of the rows that are drawn.
    """
    rng = np.random.default_rng(seed)
    profiles = _profiles(checkpoint, datasets, rng)
    values = []
    for data in datasets:
        for batch in range(BATCHES_PER_SET):
            aligned = varied_rows(data, ROWS_PER_BATCH, rng, spots=batch % 2 == 1)
            values.append(surprise(profiles, aligned.counts, aligned.measured, aligned.pattern))
    found = np.concatenate(values)
    levels = np.quantile(found[np.isfinite(found)], np.linspace(0.0, 1.0, 201))
    return Familiarity(profiles=profiles, levels=levels)


def _profiles(
    checkpoint: Checkpoint, datasets: Sequence[PairedDataset], rng: np.random.Generator
) -> np.ndarray:
    """Mean share of reads of each gene in groups of cells, float32, shape (K, V)."""
    from sklearn.cluster import KMeans

    parts, predicted = [], []
    for data in datasets:
        n = min(CELLS_PER_SET, data.n_obs)
        part = data.rna.take(np.sort(rng.choice(data.n_obs, n, replace=False)))
        part = part.take(np.flatnonzero(np.diff(part.counts.indptr)))
        parts.append(part)
        predicted.append(translate(checkpoint, part)[0])
    everything = np.concatenate(predicted)
    everything = (everything - everything.mean(axis=0)) / np.maximum(everything.std(axis=0), 1e-3)
    n_groups = min(N_PROFILES, len(everything))
    group = KMeans(n_groups, n_init=3, random_state=0).fit_predict(everything)
    share = checkpoint.gene_share
    reads = np.zeros((n_groups, len(share)))
    cells = np.zeros_like(reads)
    start = 0
    for part in parts:
        own = group[start : start + part.n_obs]
        start += part.n_obs
        total = np.asarray(part.counts.sum(axis=1)).ravel()
        # A cell of a small panel has reads of that part of the transcriptome alone.
        per_read = part.shares(share) / np.maximum(total, 1.0)
        pick = sparse.csr_matrix(
            (per_read, (own, np.arange(part.n_obs))), shape=(n_groups, part.n_obs)
        )
        reads += (pick @ part.counts).toarray()
        patterns = np.zeros((n_groups, len(part.measured)))
        np.add.at(patterns, (own, part.pattern), 1.0)
        cells += patterns @ part.measured
    profiles = (reads + PRIOR_CELLS * share) / (cells + PRIOR_CELLS)
    counted = [_NOT_COUNTED.match(symbol) is None for symbol in checkpoint.symbols]
    profiles *= np.array(counted)
    return (profiles / profiles.sum(axis=1, keepdims=True)).astype(np.float32)


def varied_rows(
    data: PairedDataset, n_rows: int, rng: np.random.Generator, *, spots: bool
) -> AlignedRna:
    """Draw cells or pseudo-spots: half of the rows thinned, half of the calls on fewer genes."""
    rna = data.rna
    pattern = int(rng.choice(rna.pattern))
    pool = np.flatnonzero(rna.pattern == pattern)
    measured = rna.measured[pattern].copy()
    depth = np.where(
        rng.random(n_rows) < 0.5, np.exp(rng.uniform(np.log(MIN_DEPTH), 0.0, n_rows)), 1.0
    )
    if spots:
        mix = pseudo_spots(pool, data.groups, n_rows, SPOT_CELLS, rng)
        depth /= np.sqrt(np.asarray(mix.sum(axis=1)).ravel())
    else:
        mix = single_cells(pool, n_rows, rna.n_obs, rng)
    counts = sparse.csr_matrix(mix @ rna.counts)
    if rng.random() < 0.5:
        measured &= rng.random(len(measured)) < rng.uniform(MIN_GENES, 1.0)
        counts = sparse.csr_matrix(counts.multiply(measured[None].astype(np.float32)))
        counts.eliminate_zeros()
    counts = thin(counts, depth, rng)
    counts.sort_indices()
    return AlignedRna(counts=counts, measured=measured[None], pattern=np.zeros(n_rows, np.int64))
