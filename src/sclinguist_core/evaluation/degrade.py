"""A query made poorer, as new data are: a small gene panel, or less depth.

Shapes: n cells, G genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.vocabulary.genes import resolve_genes

EXPRESSED_SHARE = 0.01
"""A panel is drawn from the genes that at least this share of the cells express."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Degradation:
    """What is taken from a query.

    Attributes
    ----------
    n_genes
        Number of genes that are left, drawn at random; None leaves all.
    depth
        Share of the molecules that are left, above 0 and at most 1.
    seed
        Of the draw.
    """

    n_genes: int | None = None
    depth: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_genes is not None and self.n_genes < 1:
            raise InputError(f"genes: found {self.n_genes}, expected at least 1")
        if not 0 < self.depth <= 1:
            raise InputError(f"depth: found {self.depth:g}, expected above 0 and at most 1")

    @property
    def label(self) -> str:
        """What the query is after it, in words; without the seed."""
        parts = [] if self.n_genes is None else [f"{self.n_genes:,} genes"]
        parts += [] if self.depth == 1 else [f"{self.depth:.0%} depth"]
        return ", ".join(parts) or "full"

    def apply(self, rna: RnaCounts) -> RnaCounts:
        """Return a poorer copy; the input itself where there is nothing to take.

        Genes outside the panel are gone, not zero. Known human or mouse genes that at least 1 %
        of the cells express are eligible: nobody puts a silent gene on a panel.
        """
        rng = np.random.default_rng(self.seed)
        if self.n_genes is not None:
            rna = _panel(rna, self.n_genes, rng)
        if self.depth < 1:
            counts = rna.counts.copy()
            whole = np.rint(counts.data).astype(np.int64)
            counts.data = rng.binomial(whole, self.depth).astype(np.float32)
            counts.eliminate_zeros()
            rna = RnaCounts(counts, rna.names, rna.ids, rna.measured)
        return rna


def _panel(rna: RnaCounts, n_genes: int, rng: np.random.Generator) -> RnaCounts:
    ids = None if rna.ids is None else list(rna.ids)
    known = resolve_genes(list(rna.names), ids=ids).symbols != ""
    n_cells, n_all = rna.counts.shape
    expressed = np.bincount(rna.counts.indices, minlength=n_all) >= EXPRESSED_SHARE * n_cells
    eligible = np.flatnonzero(known & expressed)
    if len(eligible) <= n_genes:
        return rna
    genes = np.sort(rng.choice(eligible, n_genes, replace=False))
    return RnaCounts(
        counts=sparse.csr_matrix(rna.counts[:, genes]),
        names=rna.names[genes],
        ids=None if rna.ids is None else rna.ids[genes],
        measured=None if rna.measured is None else rna.measured[:, genes],
    )
