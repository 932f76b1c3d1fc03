"""Pretraining on RNA alone: hide genes of a cell, and predict them from the others.

A hidden gene counts as *not measured*: it is no token, it enters no linear read, and the size
factor is that of the visible genes. It is then asked for as a protein is, by a query to the same
decoder. Two things are predicted: the value (``log1p`` CP10k, of the whole cell) and its level
among the cell's genes: 0 not expressed, 1 to 4 equal bins of the values that the cell expresses
(the levels of sCellTransformer). Genes that the data set did not measure are never hidden and
never asked for.

Shapes: B cells, V genes, Q hidden genes of a cell, nnz expressed genes of all cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.batches import PADDING, pad_rows
from sclinguist_core.data.levels import expression_levels
from sclinguist_core.data.preprocess import log1p_cp10k
from sclinguist_core.model.translator import Tables, Translator
from sclinguist_core.train.augment import Augmentation, thin
from sclinguist_core.train.chunks import ByConfig, Chunk, dropout_seed, generator
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.masking import Masking
from sclinguist_core.train.objectives import Objective, level_error_sum, robust_error_sum
from sclinguist_core.train.stream import StreamedRna


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedRna:
    """Cells with some of their genes hidden.

    Attributes
    ----------
    expression
        What the network sees: ``log1p`` CP10k of the visible genes, CSR, shape (B, V).
    measured
        Genes that count as measured before hiding, bool, shape (V,).
    hidden
        Genes hidden, int64, -1 where padded, shape (B, Q).
    value, level
        What they are: float32 (NaN where padded) and int64 (-1 where padded), shape (B, Q).
    """

    expression: sparse.csr_matrix
    measured: np.ndarray
    hidden: np.ndarray
    value: np.ndarray
    level: np.ndarray


def mask_genes(
    counts: sparse.csr_matrix,
    measured: np.ndarray,
    gene_share: np.ndarray,
    rate: float,
    rng: np.random.Generator,
) -> MaskedRna:
    """Hide genes of each cell.

    Parameters
    ----------
    counts
        Raw counts of measured genes, CSR with sorted indices, shape (B, V).
    measured
        Genes that count as measured, bool, shape (V,).
    gene_share
        Reference expression of the genes, shape (V,).
    rate
        Share of the expressed genes to hide; a tenth of it for the others.
    rng
        The only source of randomness.
    """
    n_rows = counts.shape[0]
    share = float(measured @ gene_share)
    whole = log1p_cp10k(counts, share)
    row = np.repeat(np.arange(n_rows), np.diff(counts.indptr))
    hide = rng.random(counts.nnz) < rate
    n_hidden = np.bincount(row[hide], minlength=n_rows)
    zero_row, zero_gene = _hidden_zeros(counts, row, measured, n_hidden, rate / 10, rng)
    hidden_row = np.concatenate([row[hide], zero_row])
    hidden_gene = np.concatenate([counts.indices[hide], zero_gene])
    n_zeros = len(zero_row)
    value = np.concatenate([whole.data[hide], np.zeros(n_zeros, np.float32)])
    level = np.concatenate([expression_levels(whole)[hide], np.zeros(n_zeros, np.int64)])

    visible = counts.copy()
    visible.data = np.where(hide, 0.0, counts.data).astype(np.float32)
    visible.eliminate_zeros()
    hidden_share = np.bincount(hidden_row, weights=gene_share[hidden_gene], minlength=n_rows)
    order = np.argsort(hidden_row, kind="stable")
    rows = hidden_row[order]
    column = np.arange(len(rows)) - np.searchsorted(rows, rows)
    width = int(column.max(initial=0)) + 1

    def padded(values: np.ndarray, fill: float) -> np.ndarray:
        out = np.full((n_rows, width), fill, values.dtype)
        out[rows, column] = values[order]
        return out

    return MaskedRna(
        expression=log1p_cp10k(visible, share - hidden_share),
        measured=measured,
        hidden=padded(hidden_gene.astype(np.int64), PADDING),
        value=padded(value.astype(np.float32), np.nan),
        level=padded(level, -1),
    )


def _hidden_zeros(
    counts: sparse.csr_matrix,
    row: np.ndarray,
    measured: np.ndarray,
    n_most: np.ndarray,
    rate: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw measured genes that a cell does not express: cells and genes, at most `n_most` each."""
    n_rows, n_genes = counts.shape
    candidates = np.flatnonzero(measured)
    n_zero = len(candidates) - np.diff(counts.indptr)
    n_drawn = np.minimum(np.rint(rate * n_zero).astype(np.int64), n_most)
    rows = np.repeat(np.arange(n_rows), n_drawn)
    genes = candidates[rng.integers(0, max(len(candidates), 1), len(rows))]
    # Hits on expressed genes, and genes hit twice, fall out: a few per cent.
    keys = np.setdiff1d(rows * n_genes + genes, row * n_genes + counts.indices)
    return keys // n_genes, keys % n_genes


def chosen_columns(filled: np.ndarray, n_most: int, rng: np.random.Generator) -> np.ndarray:
    """Columns of at most `n_most` random filled entries of each row; padding stays at the end."""
    if filled.shape[1] <= n_most:
        return np.broadcast_to(np.arange(filled.shape[1]), filled.shape)
    order = rng.random(filled.shape, dtype=np.float32)
    order[~filled] = 2.0
    return np.argpartition(order, n_most - 1, axis=1)[:, :n_most]


@dataclass(frozen=True)
class RnaChunks(ByConfig):
    """Chunks of cells with hidden genes.

    Attributes
    ----------
    datasets
        RNA on the model's genes.
    gene_share
        Reference expression of the genes, shape (V,).
    config, augmentation, masking
        How. Pseudo-spots are not drawn: without proteins there are no cell groups to mix.
    """

    datasets: Sequence[AlignedRna | StreamedRna]
    gene_share: np.ndarray
    config: FitConfig
    augmentation: Augmentation
    masking: Masking

    def chunk(self, step: int, number: int) -> Chunk:
        """Draw one chunk."""
        rna, rows = self.drawn(step, number)
        rng = generator(self.config.seed, step, number)
        masked = self._draw(rna, rows, rng)
        genes, values = pad_rows(masked.expression)
        seen = chosen_columns(genes >= 0, self.augmentation.max_tokens, rng)
        asked = chosen_columns(masked.hidden >= 0, self.masking.max_genes, rng)
        arrays = {
            "genes": genes,
            "values": values,
            "attended_genes": np.take_along_axis(genes, seen, 1),
            "attended_values": np.take_along_axis(values, seen, 1),
            "measured": masked.measured[None],
            "hidden": masked.hidden,
            "asked": np.take_along_axis(masked.hidden, asked, 1),
            "target": np.take_along_axis(masked.value, asked, 1),
            "level": np.take_along_axis(masked.level, asked, 1),
        }
        n_asked = float((arrays["asked"] >= 0).sum())
        return Chunk(
            tensors={k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in arrays.items()},
            counts=(n_asked, n_asked),
            n_rows=len(genes),
            seed=dropout_seed(self.config.seed, step, number),
        )

    def _draw(
        self, rna: AlignedRna, rows: np.ndarray | None, rng: np.random.Generator
    ) -> MaskedRna:
        pattern = int(rng.choice(rna.pattern))
        pool = np.flatnonzero(rna.pattern == pattern) if rows is None else rows
        n_rows = min(self.config.batch_size, rna.n_obs) if rows is None else len(rows)
        counts = rna.counts[rng.choice(pool, n_rows, replace=n_rows > len(pool))]
        vary = self.augmentation
        measured = rna.measured[pattern].copy()
        if rng.random() < vary.gene_dropout:
            measured &= rng.random(len(measured)) < rng.uniform(vary.min_genes, 1.0)
            counts = sparse.csr_matrix(counts.multiply(measured[None].astype(np.float32)))
        keep = np.exp(rng.uniform(np.log(vary.min_depth), 0.0, n_rows))
        counts = thin(counts, np.where(rng.random(n_rows) < vary.thinning, keep, 1.0), rng)
        counts.sort_indices()
        return mask_genes(counts, measured, self.gene_share, self.masking.gene_rate, rng)


class RnaObjective(Objective):
    """Value and level of hidden genes (needs ``gene_output``)."""

    terms = ("error", "level")

    def __init__(self, model: Translator, masking: Masking) -> None:
        super().__init__(model, (1.0, masking.level_weight))

    def sums(self, chunk: Chunk, tables: Tables) -> Tensor:
        """Sum of the two terms."""
        t = chunk.tensors
        cells = torch.zeros(len(t["genes"]), dtype=torch.int64, device=t["genes"].device)
        panel = self.model.panels(t["measured"], tables).of(cells)
        panel = self.model.hide(panel, t["hidden"], tables)
        value, level = self.model.reconstruct(
            t["genes"],
            t["values"],
            panel,
            tables,
            t["asked"],
            attended=(t["attended_genes"], t["attended_values"]),
        )
        return torch.stack(
            (
                robust_error_sum(value.float(), t["target"]),
                level_error_sum(level.float(), t["level"]),
            )
        )
