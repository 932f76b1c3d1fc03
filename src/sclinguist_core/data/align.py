"""From the genes of a file to the genes of a model.

The one rule that matters most for accuracy is kept here: a gene that was not measured is missing,
never zero. `AlignedRna` therefore carries, beside the counts, *which* genes were measured.

Shapes: n cells or spots, V genes of the model, K measurement patterns (1 for ordinary data).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sclinguist_core.data.preprocess import RNA_NORMALIZATIONS, normalized
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.vocabulary.genes import GeneResolution, resolve_genes

MIN_RESOLVED_GENES = 200
MIN_RESOLVED_SHARE = 0.30
FEW_GENES = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignedRna:
    """Raw counts over a model's genes, with what was measured.

    Attributes
    ----------
    counts
        Raw counts, CSR float32, shape (n, V).
    measured
        Which genes were measured, bool, shape (K, V).
    pattern
        Row of `measured` that holds for each cell, int64, shape (n,).
    resolution
        How each name of the file was understood; None when the file was aligned by symbol alone.
    """

    counts: sparse.csr_matrix
    measured: np.ndarray
    pattern: np.ndarray
    resolution: GeneResolution | None = None

    @property
    def n_obs(self) -> int:
        """Number of cells or spots."""
        return int(self.counts.shape[0])

    @property
    def n_measured(self) -> int:
        """Number of the model's genes that at least one cell measured."""
        return int(self.measured.any(axis=0).sum())

    def parts(self) -> Iterator[AlignedRna]:
        """Give out all cells a part at a time: here, where all are in memory, in one."""
        yield self

    def take(self, rows: np.ndarray) -> AlignedRna:
        """Return the chosen cells (indices or a mask), sharing the patterns."""
        return AlignedRna(
            counts=self.counts[rows],
            measured=self.measured,
            pattern=self.pattern[rows],
            resolution=self.resolution,
        )

    def without(self, hidden: sparse.csr_matrix) -> AlignedRna:
        """Take the counts of some entries away, True in a CSR matrix of shape (n, V).

        Their genes stay among the measured ones.
        """
        counts = sparse.csr_matrix(self.counts - self.counts.multiply(hidden), dtype=np.float32)
        counts.eliminate_zeros()
        counts.sort_indices()
        return AlignedRna(
            counts=counts,
            measured=self.measured,
            pattern=self.pattern,
            resolution=self.resolution,
        )

    def shares(self, gene_share: np.ndarray) -> np.ndarray:
        """Fraction of reference expression that each cell's measured genes carry, shape (n,).

        `gene_share` is the reference expression of the V genes, summing to 1.
        """
        return (self.measured @ gene_share)[self.pattern]

    def expression(
        self, gene_share: np.ndarray, normalization: str = "log1p_cp10k_measured"
    ) -> sparse.csr_matrix:
        """Normalised expression, CSR float32, shape (n, V).

        `normalization` is a name in `sclinguist_core.data.preprocess.RNA_NORMALIZATIONS`.
        """
        return normalized(self.counts, self.shares(gene_share), normalization)

    def scale(
        self, gene_share: np.ndarray, normalization: str = "log1p_cp10k_measured"
    ) -> np.ndarray:
        """Give what counts are multiplied by before ``log1p``, float32, shape (n,)."""
        return RNA_NORMALIZATIONS[normalization](self.counts, self.shares(gene_share))


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneAligner:
    """How the genes of a file map onto the genes of a model; reused for every chunk of rows.

    Attributes
    ----------
    move
        Selection matrix, CSR of ones, shape (G, V): a file's gene to the model's gene. Several
        genes of the file may go to one of the model, whose counts are then summed.
    resolution
        How each name of the file was understood.
    """

    move: sparse.csr_matrix
    resolution: GeneResolution

    @property
    def n_found(self) -> int:
        """Number of the model's genes that the file has."""
        return len(np.unique(self.move.indices))

    def not_found(self, symbols: Sequence[str]) -> list[str]:
        """Those of the model's genes, given in its order, that the file does not have."""
        found = np.zeros(self.move.shape[1], bool)
        found[self.move.indices] = True
        return [symbol for symbol, known in zip(symbols, found, strict=True) if not known]

    def apply(
        self, counts: sparse.csr_matrix, measured: sparse.csr_matrix | np.ndarray | None = None
    ) -> AlignedRna:
        """Align raw counts, shape (n, G), with a per-cell mask of what was measured, if any."""
        aligned = sparse.csr_matrix(counts @ self.move, dtype=np.float32)
        # Zeros that a file stores are no expressed genes.
        aligned.eliminate_zeros()
        aligned.sort_indices()
        if measured is None:
            mask = np.zeros((1, self.move.shape[1]), bool)
            mask[0, self.move.indices] = True
            pattern = np.zeros(counts.shape[0], np.int64)
        else:
            rows, pattern = _patterns(measured)
            mask = (rows.astype(np.float32) @ self.move).toarray() > 0
            # A count where nothing was measured is a slip of the file, not an expressed gene.
            of_entry = np.repeat(pattern, np.diff(aligned.indptr))
            aligned.data[~mask[of_entry, aligned.indices]] = 0.0
            aligned.eliminate_zeros()
        return AlignedRna(
            counts=aligned, measured=mask, pattern=pattern, resolution=self.resolution
        )


def gene_aligner(
    names: np.ndarray,
    ids: np.ndarray | None,
    symbols: Sequence[str],
    *,
    source: str = "input",
    strict: bool = True,
) -> GeneAligner:
    """Work out how a file's genes map onto a model's genes.

    Parameters
    ----------
    names, ids
        Gene names and (where known) Ensembl ids of the file, shape (G,).
    symbols
        The model's genes, canonical symbols, length V.
    source
        Name of the input, for the error message.
    strict
        Refuse inputs that are hardly RNA of this species: fewer than 200 genes resolved, or
        under 30 % of the input's own names.

    Raises
    ------
    InputError
        If too few genes are known.
    """
    resolution = resolve_genes(list(names), ids=None if ids is None else list(ids))
    n_names = len(resolution.symbols)
    resolved = resolution.symbols != ""
    n_resolved = int(resolved.sum())
    if strict and (n_resolved < MIN_RESOLVED_GENES or n_resolved < MIN_RESOLVED_SHARE * n_names):
        examples = ", ".join(map(str, names[~resolved][:3])) or "none"
        raise InputError(
            f"{source}: {n_resolved} of {n_names} gene names are known human or mouse genes (not "
            f"known: {examples}), expected at least {MIN_RESOLVED_GENES} and "
            f"{MIN_RESOLVED_SHARE:.0%} of the names; give gene symbols or Ensembl ids as names."
        )
    position = {symbol: i for i, symbol in enumerate(symbols)}
    # A model may know a gene without a symbol by its Ensembl id.
    by_id = [str(given).partition(".")[0] for given in (names if ids is None else ids)]
    target = np.array(
        [position.get(s or i, -1) for s, i in zip(resolution.symbols, by_id, strict=True)],
        dtype=np.int64,
    )
    known = np.flatnonzero(target >= 0)
    move = sparse.csr_matrix(
        (np.ones(len(known), np.float32), (known, target[known])), shape=(n_names, len(symbols))
    )
    return GeneAligner(move=move, resolution=resolution)


def align_genes(
    rna: RnaCounts, symbols: Sequence[str], *, source: str = "input", strict: bool = True
) -> AlignedRna:
    """Bring all counts of a section onto a model's genes; see `gene_aligner`."""
    aligner = gene_aligner(rna.names, rna.ids, symbols, source=source, strict=strict)
    return aligner.apply(rna.counts, rna.measured)


def _patterns(mask: sparse.csr_matrix | np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Distinct rows of a per-cell mask, CSR (K, G), and the row of each cell, shape (n,)."""
    mask = sparse.csr_matrix(mask, dtype=bool)
    mask.eliminate_zeros()
    mask.sort_indices()
    seen: dict[bytes, int] = {}
    pattern = np.empty(mask.shape[0], np.int64)
    first: list[int] = []
    for row in range(mask.shape[0]):
        key = mask.indices[mask.indptr[row] : mask.indptr[row + 1]].tobytes()
        if key not in seen:
            seen[key] = len(first)
            first.append(row)
        pattern[row] = seen[key]
    return mask[first], pattern
