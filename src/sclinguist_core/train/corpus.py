"""Paired cells for training: RNA on the model's genes, antibodies on the model's proteins.

Shapes: n cells, V genes, P proteins of the model, A antibodies of a data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.gene_statistics import GeneStatistics, gene_statistics, universe_of
from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.section import Section
from sclinguist_core.data.store.reader import StoredCells
from sclinguist_core.errors import InputError
from sclinguist_core.train.mixing import pseudo_spots
from sclinguist_core.vocabulary.proteins import list_proteins

if TYPE_CHECKING:
    from sklearn.cluster import MiniBatchKMeans

N_CELL_GROUPS = 12
SPOT_CELLS = (2, 15)
"""Fewest and most cells of a pseudo-spot."""
N_REFERENCE_SPOTS = 2_000
"""Pseudo-spots that centre and scale of a set's spots are taken from."""

__all__ = [
    "GeneStatistics",
    "PairedDataset",
    "gene_statistics",
    "gene_universe",
    "paired_dataset",
    "protein_universe",
]


@dataclass(frozen=True, slots=True)
class Standard:
    """Mean and standard deviation of each antibody over a set, shape (A,)."""

    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Standard:
        """Mean and standard deviation of the columns of (n, A); NaN = not measured."""
        return cls(np.nanmean(values, axis=0), np.maximum(np.nanstd(values, axis=0), 1e-3))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Standardise (m, A)."""
        return (values - self.center) / self.scale


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
        Raw counts, float32, shape (n, A + O); NaN = not measured. First the A antibodies that map
        to a protein of the model, then O others, which only take part in the centre of the CLR.
        Isotype controls are not among them.
    protein
        The model's protein of each antibody, int64, shape (A,). Two antibodies may share one.
    clr, log1p
        Of the per-cell CLR, and of ``log1p`` counts, over the set's cells: a target of 1 means one
        standard deviation above the study's mean.
    spot_clr, spot_log1p
        The same of its pseudo-spots. The logarithm of a sum is no sum of logarithms: on spots the
        rare proteins lie higher, and all vary less.
    groups
        Coarse cell group by surface protein, int64, shape (n,): what pseudo-spots mix.
    """

    name: str
    rna: AlignedRna
    antibodies: np.ndarray
    protein: np.ndarray
    clr: Standard
    log1p: Standard
    spot_clr: Standard
    spot_log1p: Standard
    groups: np.ndarray

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.antibodies)

    def targets(
        self, antibodies: np.ndarray, *, spots: bool = False, log1p: bool = False
    ) -> np.ndarray:
        """Standardised CLR, shape (m, A).

        Parameters
        ----------
        antibodies
            Counts of any cells or, with `spots`, of sums of several cells, in this panel's order,
            shape (m, A + O).
        spots
            Standardise as pseudo-spots.
        log1p
            ``log1p`` counts, which rise with the depth of a cell, in place of the CLR.
        """
        n_known = len(self.protein)
        if log1p:
            standard = self.spot_log1p if spots else self.log1p
            return standard(np.log1p(antibodies[:, :n_known]))
        standard = self.spot_clr if spots else self.clr
        return standard(protein_clr(antibodies)[:, :n_known])


def gene_universe(sections: Sequence[Section | StoredCells]) -> pd.DataFrame:
    """Genes that the sections express; see `sclinguist_core.data.gene_statistics.gene_universe`."""
    return universe_of(map(_expressing_cells, sections))


def _expressing_cells(
    section: Section | StoredCells,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Names, ids and expressing cells of each gene."""
    if isinstance(section, StoredCells):
        return section.names, section.ids, section.n_cells
    rna = section.rna()
    return rna.names, rna.ids, np.bincount(rna.counts.indices, minlength=rna.counts.shape[1])


def protein_universe(sections: Sequence[Section | StoredCells]) -> pd.DataFrame:
    """Proteins that the sections measure: columns ``name``, ``genes``, ``kind``; sorted by name."""
    names: set[str] = set()
    for section in sections:
        if isinstance(section, StoredCells):
            panel = section.panel
        else:
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
    antibodies = known_antibodies(section.table.uns["protein_panel"], proteins, section.name)
    known = antibodies.known
    values = np.asarray(counts[antibodies.columns], np.float32)
    clr = protein_clr(values)[:, : len(known)]
    groups = fit_cell_groups(clr).labels_.astype(np.int64)
    rng = np.random.default_rng(0)
    mix = pseudo_spots(np.arange(len(values)), groups, N_REFERENCE_SPOTS, SPOT_CELLS, rng)
    spots = mix @ values
    n_known = len(known)
    return PairedDataset(
        name=section.name,
        rna=align_genes(section.rna(), genes, source=section.name),
        antibodies=values,
        protein=antibodies.protein,
        clr=Standard.of(clr),
        log1p=Standard.of(np.log1p(values[:, :n_known])),
        spot_clr=Standard.of(protein_clr(spots)[:, :n_known]),
        spot_log1p=Standard.of(np.log1p(spots[:, :n_known])),
        groups=groups,
    )


@dataclass(frozen=True, slots=True)
class KnownAntibodies:
    """Antibodies of a data set, as `PairedDataset` has them.

    Attributes
    ----------
    known, others
        Those that map to a protein of the model, and those that only take part in the CLR.
    protein
        The model's protein of each known one, int64, shape (A,).
    """

    known: list[str]
    others: list[str]
    protein: np.ndarray

    @property
    def columns(self) -> list[str]:
        """All of them, in order."""
        return self.known + self.others


def known_antibodies(panel: pd.DataFrame, proteins: Sequence[str], source: str) -> KnownAntibodies:
    """Tell which antibodies of a panel map to the model's proteins.

    Raises
    ------
    InputError
        If fewer than two do.
    """
    position = {name: i for i, name in enumerate(proteins)}
    columns = [
        (antibody, position[row.canonical])
        for antibody, row in zip(panel.index, panel.itertuples(), strict=True)
        if row.status == "resolved" and row.canonical in position
    ]
    if len(columns) < 2:
        raise InputError(
            f"{source}: expected at least two known antibodies, found {len(columns)}; "
            "see `sclinguist proteins resolve`"
        )
    known = [antibody for antibody, _ in columns]
    return KnownAntibodies(
        known=known,
        others=[n for n in panel.index[~panel["isotype"].to_numpy(bool)] if n not in known],
        protein=np.array([index for _, index in columns], np.int64),
    )


def fit_cell_groups(clr: np.ndarray) -> MiniBatchKMeans:
    """Cluster cells by their surface protein (k-means); `clr` has shape (n, A)."""
    from sklearn.cluster import MiniBatchKMeans

    n_groups = max(1, min(N_CELL_GROUPS, len(clr) // 20))
    return MiniBatchKMeans(n_groups, n_init=3, random_state=0).fit(np.nan_to_num(clr))
