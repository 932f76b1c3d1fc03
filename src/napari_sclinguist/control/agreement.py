"""How two features of a section agree: what is compared with what, figures, difference.

Shapes: n spots, bins or cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sclinguist.control import names
from napari_sclinguist.control.entries import Kind
from sclinguist_core.evaluation import panel
from sclinguist_core.evaluation.metrics import pearson, rmse_z, spearman
from sclinguist_core.evaluation.panel import Feature

if TYPE_CHECKING:
    from napari_sclinguist.control.catalogue import Catalogue
    from napari_sclinguist.control.entries import Entry


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two features to compare, by their keys.

    Attributes
    ----------
    a
        The first, such as a predicted protein.
    b
        The second, such as its measurement; "" where there is nothing to compare with yet.
    """

    a: str
    b: str = ""

    def __contains__(self, key: str) -> bool:
        return bool(key) and key in (self.a, self.b)

    @property
    def complete(self) -> bool:
        """Whether both sides are chosen."""
        return bool(self.a and self.b)

    def swapped(self) -> Pair:
        """Exchange the two sides; a pair without a second one stays as it is."""
        return Pair(a=self.b, b=self.a) if self.b else self


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How two features agree over a section.

    Attributes
    ----------
    r, rho
        Pearson and Spearman correlation; NaN where undefined.
    rmse
        Root mean square difference of the z-scores (each feature in standard deviations of its
        own values within the section): 0 for the same pattern, 1.41 for unrelated ones.
    n
        Rows in which both are known.
    """

    r: float
    rho: float
    rmse: float
    n: int


def agreement(a: np.ndarray, b: np.ndarray) -> Agreement:
    """Compare two features, each (n,) float; rows with a NaN on either side are left out."""
    x, y = a[:, None], b[:, None]
    return Agreement(
        r=float(pearson(x, y)[0]),
        rho=float(spearman(x, y)[0]),
        rmse=float(rmse_z(x, y)[0]),
        n=int((np.isfinite(a) & np.isfinite(b)).sum()),
    )


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """z-score of `a` minus that of `b`, within the rows where both are known.

    Returns
    -------
    (n,) float32; NaN where either is unknown, and everywhere if either is constant.
    """
    return np.asarray(panel.difference(*(Feature(values=side, title="") for side in (a, b))).values)


def default_pair(catalogue: Catalogue, key: str) -> Pair:
    """Pair of a feature and what it is best compared with.

    A prediction stands first and a measurement second; mRNA takes the place of either where it is
    missing, and stays where it is the feature asked for.

    Raises
    ------
    KeyError
        If the section has no such feature.
    """
    entry = catalogue.entry(key)
    for protein in _proteins_of(entry):
        same = dataclasses.replace(entry, protein=protein)
        predicted, measured, gene = (
            catalogue.partner(same, kind) for kind in (Kind.PREDICTED, Kind.MEASURED, Kind.GENE)
        )
        if entry.kind in {Kind.UNCERTAINTY, Kind.CHANGE}:
            found = (entry, predicted)
        elif entry.kind is Kind.GENE:
            found = (entry, measured) if measured else (predicted, entry)
        elif entry.kind is Kind.MEASURED:
            found = (predicted or gene, entry)
        else:
            found = (entry, measured or gene)
        if None not in found:
            return Pair(a=found[0].key, b=found[1].key)
    return Pair(a=key)


def _proteins_of(entry: Entry) -> Iterator[str]:
    """Yield the protein of a feature; for a gene every protein that it helps to code for."""
    if entry.protein:
        yield entry.protein
    if entry.kind is Kind.GENE:
        for protein, genes in names.coding_genes().items():
            if entry.name in genes and protein != entry.protein:
                yield protein
