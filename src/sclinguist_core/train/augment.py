"""Training batches that look like data which the model has not seen.

What a new data set changes is known: how deep it is, which genes it measures, and whether a row is
one cell or a spot of several. Each of the three is drawn at random for every batch.

Shapes: n cells of a set, B cells of a batch, V genes, A antibodies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sclinguist_core.data.batches import pad_rows
from sclinguist_core.data.preprocess import log1p_cp10k
from sclinguist_core.train.corpus import PairedDataset
from sclinguist_core.train.mixing import pseudo_spots, single_cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How batches are varied.

    Attributes
    ----------
    spots
        Share of batches in which every row is a pseudo-spot: a sum of `spot_cells` cells.
    spot_cells
        Fewest and most cells in a pseudo-spot.
    gene_dropout
        Share of batches in which only a random part of the genes counts as measured.
    min_genes
        Smallest part of the genes that is kept then.
    thinning
        Share of rows whose counts are thinned binomially.
    min_depth
        Smallest part of the counts that is kept then (log-uniform up to 1).
    max_tokens
        Tokens of a cell that the attentive read sees in training (a random subset).
    """

    spots: float = 0.3
    spot_cells: tuple[int, int] = (2, 15)
    gene_dropout: float = 0.5
    min_genes: float = 0.05
    thinning: float = 0.5
    min_depth: float = 0.2
    max_tokens: int = 256

    def __post_init__(self) -> None:
        for name in ("spots", "gene_dropout", "thinning"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, found {getattr(self, name)}")
        for name in ("min_genes", "min_depth"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"{name}: expected above 0, at most 1, found {getattr(self, name)}"
                )
        if len(np.atleast_1d(self.spot_cells)) != 2 or any(
            type(number) is not int for number in self.spot_cells
        ):
            raise ValueError(f"spot_cells: expected two whole numbers, found {self.spot_cells!r}")
        low, high = self.spot_cells
        if not 1 <= low <= high:
            raise ValueError(f"spot_cells: expected 1 <= fewest <= most, found {self.spot_cells}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens: expected at least 1, found {self.max_tokens}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingBatch:
    """One step's rows of one data set.

    Attributes
    ----------
    genes, values
        Expressed genes, int64, shape (B, T), -1 where padded, and their normalised expression,
        float32.
    measured
        Genes that count as measured in all rows, bool, shape (V,).
    attended
        Subset of the tokens for the attentive read: genes and values, shape (B, T').
    protein
        Protein of each antibody, shape (A,).
    target, log_target
        Standardised CLR and standardised ``log1p`` counts, float32, shape (B, A).
    """

    genes: np.ndarray
    values: np.ndarray
    measured: np.ndarray
    attended: tuple[np.ndarray, np.ndarray]
    protein: np.ndarray
    target: np.ndarray
    log_target: np.ndarray


def thin(
    counts: sparse.csr_matrix, keep: np.ndarray, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Keep each molecule with its row's probability; `keep` has shape (B,)."""
    probability = np.repeat(keep, np.diff(counts.indptr))
    thinned = counts.copy()
    thinned.data = rng.binomial(np.rint(counts.data).astype(np.int64), probability).astype(
        np.float32
    )
    thinned.eliminate_zeros()
    return thinned


def _token_subset(
    genes: np.ndarray, values: np.ndarray, max_tokens: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `max_tokens` random tokens a row; rows keep their padding at the end."""
    if genes.shape[1] <= max_tokens:
        return genes, values
    order = rng.random(genes.shape, dtype=np.float32)
    order[genes < 0] = 2.0
    chosen = np.argpartition(order, max_tokens - 1, axis=1)[:, :max_tokens]
    return np.take_along_axis(genes, chosen, 1), np.take_along_axis(values, chosen, 1)


def draw_batch(
    dataset: PairedDataset,
    gene_share: np.ndarray,
    n_rows: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
    rows: np.ndarray | None = None,
) -> TrainingBatch:
    """Draw rows of one data set, augmented.

    Parameters
    ----------
    dataset
        Where from.
    gene_share
        Reference expression of the model's genes, shape (V,).
    n_rows
        B.
    augmentation
        How to vary.
    rng
        The only source of randomness.
    rows
        Cells that are drawn where rows are single cells, in place of any; spots are made of any.
    """
    rna = dataset.rna
    n_rows = min(n_rows, dataset.n_obs) if rows is None else len(rows)
    # Cells of different measurement patterns cannot be summed: draw one pattern a batch.
    pattern = int(rng.choice(rna.pattern))
    pool = np.flatnonzero(rna.pattern == pattern)
    is_spots = rng.random() < augmentation.spots
    if is_spots:
        mix = pseudo_spots(pool, dataset.groups, n_rows, augmentation.spot_cells, rng)
    else:
        mix = single_cells(pool if rows is None else rows, n_rows, rna.n_obs, rng)
    counts = sparse.csr_matrix(mix @ rna.counts)
    # The antibodies of a spot are counted together: its target is the CLR of the sum.
    antibodies = mix @ dataset.antibodies
    target = dataset.targets(antibodies, spots=is_spots)
    log_target = dataset.targets(antibodies, spots=is_spots, log1p=True)
    measured = rna.measured[pattern].copy()
    if rng.random() < augmentation.gene_dropout:
        # From all genes to a small panel, more often the former.
        keep = augmentation.min_genes ** (rng.random() ** 2)
        measured &= rng.random(len(measured)) < keep
        counts = sparse.csr_matrix(counts.multiply(measured[None].astype(np.float32)))
        counts.eliminate_zeros()
    keep_depth = np.where(
        rng.random(n_rows) < augmentation.thinning,
        np.exp(rng.uniform(np.log(augmentation.min_depth), 0.0, n_rows)),
        1.0,
    )
    if is_spots:
        # Spots are deeper than cells, but not in proportion to the cells that they hold.
        keep_depth /= np.sqrt(np.asarray(mix.sum(axis=1)).ravel())
    counts = thin(counts, keep_depth, rng)
    counts.sort_indices()
    expression = log1p_cp10k(counts, float(measured @ gene_share))
    genes, values = pad_rows(expression)
    return TrainingBatch(
        genes=genes,
        values=values,
        measured=measured,
        attended=_token_subset(genes, values, augmentation.max_tokens, rng),
        protein=dataset.protein,
        target=target.astype(np.float32),
        log_target=log_target.astype(np.float32),
    )
