"""Paired cells for training: RNA on the model's genes, antibodies on the model's proteins.

Shapes: n cells, V genes, P proteins of the model, A antibodies of a data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.preprocess import log1p_cp10k, protein_clr
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.vocabulary.genes import resolve_genes
from sclinguist_core.vocabulary.proteins import list_proteins

MIN_CELLS_EXPRESSING = 20
N_CELL_GROUPS = 12
WHOLE_TRANSCRIPTOME = 9_000
"""Data sets that measure at least this many of the genes define the reference expression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDataset:
    """One study's cells, aligned.

    Attributes
    ----------
    name
        Name of the data set.
    rna
        Counts over the model's genes.
    antibodies
        Raw counts of the antibodies that map to a protein of the model, float32, shape (n, A);
        NaN = not measured. Isotype controls and unresolved antibodies are not among them.
    protein
        The model's protein of each antibody, int64, shape (A,). Two antibodies may share one.
    center, scale
        Mean and standard deviation of the per-cell CLR over the set's cells, shape (A,): a
        target of 1 means one standard deviation above the study's mean.
    groups
        Coarse cell group by surface protein, int64, shape (n,): what pseudo-spots mix.
    """

    name: str
    rna: AlignedRna
    antibodies: np.ndarray
    protein: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    groups: np.ndarray

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.antibodies)

    def targets(self, antibodies: np.ndarray) -> np.ndarray:
        """Standardised CLR of antibody counts (any cells of this panel), shape (m, A)."""
        return (protein_clr(antibodies) - self.center) / self.scale


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


def gene_universe(sections: Sequence[Section]) -> pd.DataFrame:
    """Genes that the sections express: columns ``symbol`` and ``ensembl_id``, sorted by symbol.

    A gene enters when at least 20 cells of all sections together express it.
    """
    cells: dict[str, int] = {}
    ids: dict[str, str] = {}
    for section in sections:
        rna = section.rna()
        table = resolve_genes(list(rna.names), ids=None if rna.ids is None else list(rna.ids)).table
        n_cells = np.bincount(rna.counts.indices, minlength=rna.counts.shape[1])
        for symbol, gene_id, n in zip(table["symbol"], table["ensembl_id"], n_cells, strict=True):
            if symbol:
                cells[symbol] = cells.get(symbol, 0) + int(n)
                ids.setdefault(symbol, gene_id)
    symbols = sorted(symbol for symbol, n in cells.items() if n >= MIN_CELLS_EXPRESSING)
    return pd.DataFrame({"symbol": symbols, "ensembl_id": [ids[s] for s in symbols]})


def gene_statistics(genes: pd.DataFrame, aligned: Sequence[AlignedRna]) -> GeneStatistics:
    """Compute reference expression, mean and standard deviation of each gene over data sets.

    The reference comes from the sets that measure (nearly) the whole transcriptome; each counts
    the same. Means and variances weight each set by the square root of its cells.
    """
    share = _reference_share(aligned, len(genes))
    weight = np.zeros(len(genes))
    first = np.zeros(len(genes))
    second = np.zeros(len(genes))
    for rna in aligned:
        expression = rna.expression(share)
        n_cells = _cells_measuring(rna)
        w = np.sqrt(rna.n_obs) * (n_cells > 0)
        total = np.asarray(expression.sum(axis=0)).ravel()
        squares = np.asarray(expression.multiply(expression).sum(axis=0)).ravel()
        first += w * total / np.maximum(n_cells, 1)
        second += w * squares / np.maximum(n_cells, 1)
        weight += w
    weight = np.maximum(weight, 1e-12)
    mean = first / weight
    std = np.sqrt(np.maximum(second / weight - mean**2, 0.0))
    table = genes.assign(reference_share=share, mean=mean, std=std)
    return GeneStatistics(table=table)


def _cells_measuring(rna: AlignedRna) -> np.ndarray:
    """Cells that measured each gene, shape (V,)."""
    per_pattern = np.bincount(rna.pattern, minlength=len(rna.measured))
    return per_pattern @ rna.measured.astype(np.float64)


def _reference_share(aligned: Sequence[AlignedRna], n_genes: int) -> np.ndarray:
    total = np.zeros(n_genes)
    weight = np.zeros(n_genes)
    broad = [rna for rna in aligned if rna.n_measured >= WHOLE_TRANSCRIPTOME]
    if not broad:
        # Small corpora: the broadest set is the best reference at hand.
        broad = [max(aligned, key=lambda rna: rna.n_measured)]
    for rna in broad:
        fraction = log1p_cp10k(rna.counts)
        fraction.data = np.expm1(fraction.data)
        measured = _cells_measuring(rna)
        total += np.asarray(fraction.sum(axis=0)).ravel() / np.maximum(measured, 1)
        weight += measured > 0
    share = np.divide(total, weight, out=np.zeros(n_genes), where=weight > 0)
    # Genes outside every reference set count little but not nothing.
    share = np.maximum(share, share[share > 0].min())
    return share / share.sum()


def protein_universe(sections: Sequence[Section]) -> pd.DataFrame:
    """Proteins that the sections measure: columns ``name``, ``genes``, ``kind``; sorted by name."""
    names: set[str] = set()
    for section in sections:
        panel = section.table.uns["protein_panel"]
        names |= set(panel.loc[panel["status"] == "resolved", "canonical"])
    known = list_proteins()
    found = known.loc[sorted(names)]
    return pd.DataFrame(
        {"name": found.index, "genes": found["genes"].to_numpy(), "kind": found["kind"].to_numpy()}
    )


def paired_dataset(
    section: Section, genes: Sequence[str], proteins: Sequence[str]
) -> PairedDataset:
    """Align a section that has both RNA and antibodies.

    Raises
    ------
    InputError
        If RNA or proteins are missing, or fewer than two antibodies are known.
    """
    if not (section.has_rna and section.has_protein):
        raise InputError(
            f"{section.name}: expected RNA and measured proteins of the same cells, found "
            f"{'no RNA' if not section.has_rna else 'no measured protein'}"
        )
    counts: pd.DataFrame = section.table.obsm["protein"]
    panel: pd.DataFrame = section.table.uns["protein_panel"]
    position = {name: i for i, name in enumerate(proteins)}
    columns = [
        (antibody, position[row.canonical])
        for antibody, row in zip(panel.index, panel.itertuples(), strict=True)
        if row.status == "resolved" and row.canonical in position
    ]
    if len(columns) < 2:
        raise InputError(
            f"{section.name}: expected at least two known antibodies, found {len(columns)}; "
            "see `sclinguist proteins resolve`"
        )
    values = np.asarray(counts[[antibody for antibody, _ in columns]], np.float32)
    clr = protein_clr(values)
    return PairedDataset(
        name=section.name,
        rna=align_genes(section.rna(), genes, source=section.name),
        antibodies=values,
        protein=np.array([index for _, index in columns], np.int64),
        center=np.nanmean(clr, axis=0),
        scale=np.maximum(np.nanstd(clr, axis=0), 1e-3),
        groups=_cell_groups(np.nan_to_num(clr)),
    )


def _cell_groups(clr: np.ndarray) -> np.ndarray:
    """Cluster cells by their surface protein (k-means), int64, shape (n,)."""
    from sklearn.cluster import MiniBatchKMeans

    n_groups = max(1, min(N_CELL_GROUPS, len(clr) // 20))
    return MiniBatchKMeans(n_groups, n_init=3, random_state=0).fit_predict(clr).astype(np.int64)
