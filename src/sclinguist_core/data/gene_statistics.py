"""What a model has to know of genes: which there are, how much they are expressed, how they vary.

A reference transcriptome is estimated from the data sets that measure (nearly) all of it; the share
of it that a panel carries corrects the panel's size factors
(:func:`sclinguist_core.data.preprocess.size_factors`). Training and the baselines of the evaluation
use the same figures.

Shapes: n cells, V genes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.preprocess import log1p_cp10k
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.vocabulary.genes import resolve_genes

MIN_CELLS_EXPRESSING = 20
WHOLE_TRANSCRIPTOME = 9_000
"""Data sets that measure at least this many of the genes define the reference expression."""


class Cells(Protocol):
    """Cells over a model's genes, in memory (`AlignedRna`) or read a part at a time."""

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        ...

    @property
    def n_measured(self) -> int:
        """Number of the model's genes that were measured."""
        ...

    def parts(self) -> Iterator[AlignedRna]:
        """Give out the cells, or a sample of them, a part at a time."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneStatistics:
    """What a model has to know of its genes.

    Attributes
    ----------
    table
        DataFrame with one row a gene: ``symbol``, ``ensembl_id``, ``reference_share`` (expression
        in the reference transcriptome; sums to 1), ``mean`` and ``std`` of ``log1p`` CP10k.
    """

    table: pd.DataFrame

    @property
    def symbols(self) -> list[str]:
        """Canonical symbols, length V."""
        return self.table["symbol"].tolist()

    @property
    def share(self) -> np.ndarray:
        """Reference expression, shape (V,)."""
        return self.table["reference_share"].to_numpy(np.float64)


def gene_universe(rnas: Sequence[RnaCounts]) -> pd.DataFrame:
    """Genes that the data sets express: columns ``symbol`` and ``ensembl_id``, sorted by symbol.

    A gene enters when at least 20 cells of all data sets together express it.
    """
    return universe_of(
        (rna.names, rna.ids, np.bincount(rna.counts.indices, minlength=rna.counts.shape[1]))
        for rna in rnas
    )


def universe_of(
    data_sets: Iterable[tuple[np.ndarray, np.ndarray | None, np.ndarray]],
) -> pd.DataFrame:
    """Do as `gene_universe`, from names, ids (or None) and expressing cells of each set's genes."""
    cells: dict[str, int] = {}
    ids: dict[str, str] = {}
    for names, given, n_cells in data_sets:
        table = resolve_genes(list(names), ids=None if given is None else list(given)).table
        for symbol, gene_id, n in zip(table["symbol"], table["ensembl_id"], n_cells, strict=True):
            if symbol:
                cells[symbol] = cells.get(symbol, 0) + int(n)
                ids.setdefault(symbol, gene_id)
    symbols = sorted(symbol for symbol, n in cells.items() if n >= MIN_CELLS_EXPRESSING)
    return pd.DataFrame({"symbol": symbols, "ensembl_id": [ids[s] for s in symbols]})


def gene_statistics(genes: pd.DataFrame, aligned: Sequence[Cells]) -> GeneStatistics:
    """Compute reference expression, mean and standard deviation of each gene over data sets.

    The reference comes from the sets that measure (nearly) the whole transcriptome; each counts
    the same. Means and variances weight each set by the square root of its cells.
    """
    share = reference_share(aligned, len(genes))
    mean, std = expression_moments(aligned, share)
    return GeneStatistics(table=genes.assign(reference_share=share, mean=mean, std=std))


def expression_moments(
    aligned: Sequence[Cells], share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of ``log1p`` CP10k of each gene, float64, shapes (V,).

    Only cells that measured a gene count for it; each data set has the weight of the square root
    of its cells. A gene that nobody measured gets 0 and 0.

    Parameters
    ----------
    aligned
        Data sets over the same V genes.
    share
        Reference expression of the genes, shape (V,).
    """
    weight = np.zeros(len(share))
    first = np.zeros(len(share))
    second = np.zeros(len(share))
    for rna in aligned:
        n_cells, total, squares = np.zeros((3, len(share)))
        for part in rna.parts():
            expression = part.expression(share)
            n_cells += cells_measuring(part)
            total += np.asarray(expression.sum(axis=0)).ravel()
            squares += np.asarray(expression.multiply(expression).sum(axis=0)).ravel()
        w = np.sqrt(rna.n_obs) * (n_cells > 0)
        first += w * total / np.maximum(n_cells, 1)
        second += w * squares / np.maximum(n_cells, 1)
        weight += w
    weight = np.maximum(weight, 1e-12)
    mean = first / weight
    return mean, np.sqrt(np.maximum(second / weight - mean**2, 0.0))


def cells_measuring(rna: AlignedRna) -> np.ndarray:
    """Cells that measured each gene, shape (V,)."""
    per_pattern = np.bincount(rna.pattern, minlength=len(rna.measured))
    return per_pattern @ rna.measured.astype(np.float64)


def reference_share(aligned: Sequence[Cells], n_genes: int) -> np.ndarray:
    """Share of each gene in a whole transcriptome, float64, shape (V,), sums to 1."""
    total = np.zeros(n_genes)
    weight = np.zeros(n_genes)
    broad = [rna for rna in aligned if rna.n_measured >= WHOLE_TRANSCRIPTOME]
    if not broad:
        # Small corpora: the broadest set is the best reference at hand.
        broad = [max(aligned, key=lambda rna: rna.n_measured)]
    for rna in broad:
        measured, fractions = np.zeros((2, n_genes))
        for part in rna.parts():
            fraction = log1p_cp10k(part.counts)
            fraction.data = np.expm1(fraction.data)
            measured += cells_measuring(part)
            fractions += np.asarray(fraction.sum(axis=0)).ravel()
        total += fractions / np.maximum(measured, 1)
        weight += measured > 0
    share = np.divide(total, weight, out=np.zeros(n_genes), where=weight > 0)
    # Genes outside every reference set count little but not nothing.
    share = np.maximum(share, share[share > 0].min())
    return share / share.sum()
