"""The RNA that the trained baselines see, for a query that measured certain genes.

Every training set keeps its own genes. For a query, all sets are narrowed to the genes that the
query measured; size factors are those of the genes that remain, corrected by the share of a
reference transcriptome that they carry, so that a set of 500 and a set of 18,000 genes show the
same value for the same gene. Then ``log1p`` CP10k is standardised by the mean and standard
deviation of the sets that measured the gene, clipped at ±5, and **a gene that was not measured is
0 after that**: missing, not "not expressed". So nothing is lost when one training set has a small
panel, as it is when all sets are cut to the genes that they share.

Memory: RNA stays sparse; 2,048 rows at a time are dense.

Shapes: n cells, V genes of all training sets, F genes kept for a query, D data sets, K patterns of
what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.gene_statistics import (
    cells_measuring,
    expression_moments,
    gene_universe,
    reference_share,
)
from sclinguist_core.data.preprocess import protein_clr, protein_log1p_z
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.metrics import standardise

CLIP = 5.0
CHUNK = 2_048
MAX_GENES = 4_000
MIN_SHARED_GENES = 200


@dataclass(frozen=True)
class PairedCells:
    """Cells with RNA and measured protein, to learn from.

    Attributes
    ----------
    name
        Name of the data set.
    rna
        Raw counts, (n, G).
    protein
        Raw antibody counts, (n, P) DataFrame; NaN = not measured.
    panel
        What each antibody is: :func:`sclinguist_core.vocabulary.proteins.resolve_panel`.
    """

    name: str
    rna: RnaCounts
    protein: pd.DataFrame
    panel: pd.DataFrame

    @property
    def n_proteins(self) -> int:
        """Number of known antibodies that are not isotype controls."""
        return int((~self.panel["isotype"].to_numpy(bool) & (self.panel["canonical"] != "")).sum())

    def targets(self, scale: str = "clr") -> pd.DataFrame:
        """z-scored over this data set, columns canonical; several antibodies are averaged.

        Parameters
        ----------
        scale
            ``"clr"`` (centred over the cell's whole panel without isotype controls) or
            ``"log1p"``.
        """
        isotype = self.panel["isotype"].to_numpy(bool)
        transform = {"clr": protein_clr, "log1p": protein_log1p_z}[scale]
        z = standardise(transform(self.protein, isotype).to_numpy())
        table = pd.DataFrame(z, columns=self.panel["canonical"].to_numpy(str))
        table = table.loc[:, ~isotype & (table.columns != "")]
        return table.T.groupby(level=0).mean().T


@dataclass(frozen=True)
class Rna:
    """Standardised expression of one data set, given out in dense chunks.

    Attributes
    ----------
    expression
        ``log1p`` CP10k, CSR float32, (n, F).
    measured, pattern
        Which genes were measured, bool (K, F), and the row of it that holds for each cell, (n,).
    mean, sd
        Training mean and standard deviation, float32 (F,).
    """

    expression: sparse.csr_matrix
    measured: np.ndarray
    pattern: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    @property
    def n(self) -> int:
        """Number of cells."""
        return int(self.expression.shape[0])

    def rows(self, rows: np.ndarray | slice) -> np.ndarray:
        """Dense float32 of the chosen rows; a gene not measured in a cell is 0, the mean."""
        z = self.expression[rows].toarray()
        z -= self.mean
        z /= self.sd
        np.clip(z, -CLIP, CLIP, out=z)
        if not self.measured.all():
            z[~self.measured[self.pattern[rows]]] = 0.0
        return z

    def chunks(self) -> Iterator[np.ndarray]:
        """Give out all rows, 2,048 at a time."""
        for start in range(0, self.n, CHUNK):
            yield self.rows(slice(start, start + CHUNK))

    def take(self, cells: np.ndarray) -> Rna:
        """Return the chosen cells."""
        return Rna(self.expression[cells], self.measured, self.pattern[cells], self.mean, self.sd)

    def narrowed(self, columns: np.ndarray) -> Rna:
        """Return the chosen genes."""
        return Rna(
            sparse.csr_matrix(self.expression[:, columns]),
            self.measured[:, columns],
            self.pattern,
            self.mean[columns],
            self.sd[columns],
        )


@dataclass(frozen=True, kw_only=True)
class TrainingSets:
    """Paired data sets on the genes of all of them.

    Attributes
    ----------
    names
        Of the D data sets.
    symbols
        The V genes that at least 20 cells of all sets together express.
    share
        Reference expression of the genes, float64 (V,), sums to 1.
    aligned
        Raw counts of each set over the V genes.
    cells
        The data sets as given.
    """

    names: tuple[str, ...]
    symbols: list[str]
    share: np.ndarray
    aligned: list[AlignedRna]
    cells: list[PairedCells]

    @classmethod
    def prepare(
        cls, train: Sequence[PairedCells], rna_only: Sequence[RnaCounts] = ()
    ) -> TrainingSets:
        """Align the sets; ``rna_only`` cells help to estimate the reference transcriptome."""
        genes = gene_universe([*(data.rna for data in train), *rna_only])
        symbols = genes["symbol"].tolist()
        aligned = [align_genes(d.rna, symbols, source=d.name, strict=False) for d in train]
        others = [align_genes(rna, symbols, strict=False) for rna in rna_only]
        return cls(
            names=tuple(data.name for data in train),
            symbols=symbols,
            share=reference_share([*aligned, *others], len(symbols)),
            aligned=aligned,
            cells=list(train),
        )

    def targets(self, proteins: Sequence[str], scale: str = "clr") -> list[np.ndarray]:
        """Targets of each set, float32 (n, P); NaN = not measured."""
        return [
            data.targets(scale).reindex(columns=list(proteins)).to_numpy(np.float32)
            for data in self.cells
        ]

    def without(self, position: int) -> TrainingSets:
        """Leave one set out; genes and reference expression stay."""
        kept = [d for d in range(len(self.names)) if d != position]
        return replace(
            self,
            names=tuple(self.names[d] for d in kept),
            aligned=[self.aligned[d] for d in kept],
            cells=[self.cells[d] for d in kept],
        )

    def sampled(self, n_cells: int, seed: int) -> TrainingSets:
        """Keep at most so many cells of each set."""
        rng = np.random.default_rng(seed)
        rows = [np.sort(rng.permutation(rna.n_obs)[:n_cells]) for rna in self.aligned]
        return replace(
            self,
            aligned=[rna.take(r) for rna, r in zip(self.aligned, rows, strict=True)],
            cells=[
                replace(data, rna=take_rna(data.rna, r), protein=data.protein.iloc[r])
                for data, r in zip(self.cells, rows, strict=True)
            ],
        )

    def align(self, rna: RnaCounts) -> AlignedRna:
        """Bring a query onto the same genes."""
        return align_genes(rna, self.symbols, strict=False)

    def space(
        self,
        measured: np.ndarray,
        *,
        sets: Sequence[int] | None = None,
        shared: bool = False,
        max_genes: int = MAX_GENES,
    ) -> FeatureSpace:
        """Features for a query that measured these of the V genes, bool (V,).

        Parameters
        ----------
        measured
            Genes of the query.
        sets
            Data sets by which genes are chosen and standardised; all of them by default.
        shared
            Keep only genes that every one of `sets` measured.
        max_genes
            Most genes to keep: those that vary most, a gene that few cells measured counting less.

        Raises
        ------
        InputError
            If fewer than 200 genes remain.
        """
        chosen = list(range(len(self.names))) if sets is None else list(sets)
        has = np.array([measured_genes(self.aligned[d]) for d in chosen])
        genes = np.flatnonzero(measured & has.any(axis=0))
        if len(genes) < MIN_SHARED_GENES:
            raise InputError(
                f"train: the training files and the prediction share {len(genes)} genes, expected "
                f"at least {MIN_SHARED_GENES}; give training files that measured the same genes"
            )
        share = self.share[genes]
        narrowed = [_narrow(rna, genes) for rna in self.aligned]
        mean, sd = expression_moments([narrowed[d] for d in chosen], share)
        n_cells = sum(narrowed[d].n_obs for d in chosen)
        covered = np.sum([cells_measuring(narrowed[d]) for d in chosen], axis=0) / n_cells
        # A gene that few cells measured is a poor feature, however much it varies in them.
        worth = sd**2 * covered
        if shared:
            worth[~has[:, genes].all(axis=0)] = 0.0
        columns = np.sort(np.argsort(-worth, kind="stable")[:max_genes])
        columns = columns[worth[columns] > 0]
        space = FeatureSpace(
            genes=genes,
            columns=columns,
            share=share,
            mean=mean[columns].astype(np.float32),
            sd=sd[columns].astype(np.float32),
            parts=[],
        )
        space.parts.extend(space.standardise(rna) for rna in narrowed)
        return space


@dataclass(frozen=True, kw_only=True)
class FeatureSpace:
    """The F genes that a query and the training sets have in common, standardised.

    Attributes
    ----------
    genes
        Genes (of the V) that both sides measured; size factors are over these.
    columns
        The F of them that are features, at most 4,000, most variable first to be taken.
    share
        Reference expression of `genes`.
    mean, sd
        Training mean and standard deviation, float32 (F,).
    parts
        The training sets.
    """

    genes: np.ndarray
    columns: np.ndarray
    share: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    parts: list[Rna]

    def of(self, query: AlignedRna) -> Rna:
        """Standardise a query that was aligned by :meth:`TrainingSets.align`."""
        return self.standardise(_narrow(query, self.genes))

    def standardise(self, narrowed: AlignedRna) -> Rna:
        """Normalise counts over `genes` and keep the features."""
        return Rna(
            expression=sparse.csr_matrix(narrowed.expression(self.share)[:, self.columns]),
            measured=narrowed.measured[:, self.columns],
            pattern=narrowed.pattern,
            mean=self.mean,
            sd=self.sd,
        )


def measured_genes(rna: AlignedRna) -> np.ndarray:
    """Which genes any of the cells measured, bool (V,)."""
    return np.asarray(rna.measured.any(axis=0))


def take_rna(rna: RnaCounts, rows: np.ndarray) -> RnaCounts:
    """Raw RNA counts of the chosen cells (int64 rows)."""
    return RnaCounts(
        counts=rna.counts[rows],
        names=rna.names,
        ids=rna.ids,
        measured=None if rna.measured is None else rna.measured[rows],
    )


def _narrow(rna: AlignedRna, genes: np.ndarray) -> AlignedRna:
    return AlignedRna(
        counts=sparse.csr_matrix(rna.counts[:, genes]),
        measured=rna.measured[:, genes],
        pattern=rna.pattern,
    )
