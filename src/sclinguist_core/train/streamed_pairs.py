"""Paired cells of a store, and one way to open a data set whether it is stored or in memory.

Shapes: n cells, w cells of a window, V genes, A antibodies of the data set that the model knows, O
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.section import Section
from sclinguist_core.data.store.reader import StoredCells
from sclinguist_core.errors import InputError
from sclinguist_core.train.corpus import (
    PairedDataset,
    fit_cell_groups,
    known_antibodies,
    paired_dataset,
)
from sclinguist_core.train.stream import Stream, StreamedRna

SAMPLE_CELLS = 20_000
"""Cells of a stored data set that its centre, scale and cell groups are taken from, and that the
closed-form regression learns from. A store is shuffled: the first cells are a random sample."""


class StreamedPairs(Stream[PairedDataset]):
    """Paired cells of a stored data set; `PairedDataset`, a window at a time.

    Parameters
    ----------
    cells
        The data set.
    genes, proteins
        The model's, by name.

    Raises
    ------
    InputError
        If proteins are missing, or fewer than two antibodies are known.
    """

    def __init__(self, cells: StoredCells, genes: Sequence[str], proteins: Sequence[str]) -> None:
        super().__init__(cells)
        if not cells.has_protein:
            raise InputError(
                f"{cells.name}: expected RNA and measured proteins of the same cells, found no "
                "measured protein"
            )
        self._names = (tuple(genes), tuple(proteins))
        self._rna = StreamedRna(cells, genes)
        antibodies = known_antibodies(cells.panel, proteins, cells.name)
        self._columns = cells.panel.index.get_indexer(antibodies.columns)
        sample = self.sample()
        self._like = replace(sample, rna=sample.rna.take(np.zeros(0, np.int64)))
        self._groups = fit_cell_groups(self._clr(sample.antibodies))

    def _read_from(self, cells: StoredCells) -> None:
        super()._read_from(cells)
        self._rna.cells = cells

    def sample(self) -> PairedDataset:
        """Read the first cells, a random sample of all, as a data set in memory."""
        section = self.cells.section(0, min(self.n_obs, SAMPLE_CELLS))
        return paired_dataset(section, *self._names)

    def load(self, runs: Sequence[tuple[int, int]]) -> PairedDataset:
        """Read runs of rows, in the order given."""
        blocks = [self.cells.proteins(start, stop) for start, stop in runs]
        antibodies = np.concatenate(blocks)[:, self._columns]
        return replace(
            self._like,
            rna=self._rna.load(runs),
            antibodies=antibodies,
            groups=self._groups.predict(np.nan_to_num(self._clr(antibodies))).astype(np.int64),
        )

    def _clr(self, antibodies: np.ndarray) -> np.ndarray:
        return protein_clr(antibodies)[:, : len(self._like.protein)]


def aligned_rna(section: Section | StoredCells, symbols: Sequence[str]) -> AlignedRna | StreamedRna:
    """RNA of a data set over a model's genes, in memory or, from a store, as a stream."""
    if isinstance(section, StoredCells):
        return StreamedRna(section, symbols)
    return align_genes(section.rna(), symbols, source=section.name)


def paired_cells(
    section: Section | StoredCells, genes: Sequence[str], proteins: Sequence[str]
) -> PairedDataset | StreamedPairs:
    """Paired cells of a data set, in memory or, from a store, as a stream."""
    if isinstance(section, StoredCells):
        return StreamedPairs(section, genes, proteins)
    return paired_dataset(section, genes, proteins)


def in_memory(data: PairedDataset | StreamedPairs) -> PairedDataset:
    """All cells of a data set that is in memory, a sample of a stream."""
    return data.sample() if isinstance(data, StreamedPairs) else data
