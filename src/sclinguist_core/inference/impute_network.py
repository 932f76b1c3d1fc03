"""Genes of a section by a network that was trained to guess hidden ones.

What is asked for has to be hidden, and what is hidden tells nothing of the rest. So entries are
asked for in turns, no more of a cell at once than training hid.

Shapes: n cells or spots, V genes of the model, K imputed genes.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.inference.impute_methods import KnownEntries
from sclinguist_core.inference.impute_scores import Figures, Found
from sclinguist_core.inference.progress import Progress
from sclinguist_core.inference.sct import SctImputer

MOST_HIDDEN = 0.15
"""Share of a cell's genes that is hidden at once, as in training."""


def impute_by_network(
    imputer: SctImputer, rna: AlignedRna, chosen: np.ndarray
) -> Generator[Progress, None, Found]:
    """Impute chosen genes of all rows; yields progress.

    Parameters
    ----------
    imputer
        The network.
    rna
        Counts over its genes; every row has some.
    chosen
        Genes to impute, int64, shape (K,).
    """
    n, n_genes = rna.counts.shape
    rng = np.random.default_rng(imputer.seed)
    nothing = sparse.csr_matrix(rna.counts.shape, dtype=bool)
    share = imputer.checkpoint.gene_share
    known = KnownEntries.draw(rna, nothing, share, 1.0, rng, share=MOST_HIDDEN)
    said = yield from imputer.estimate(known.visible, known.hidden)
    figures = Figures.of_entries(
        known.value, known.level, said.value, said.level, known.hidden.indices, n_genes
    )
    n_turns = math.ceil(len(chosen) / (MOST_HIDDEN * n_genes))
    turn = rng.integers(n_turns, size=(n, len(chosen)), dtype=np.int8)
    order = np.argsort(chosen)
    value = np.empty((n, len(chosen)), np.float32)
    level = np.empty(value.shape, np.int8)
    for number in range(n_turns):
        row, place = np.nonzero(turn[:, order] == number)
        indptr = np.searchsorted(row, np.arange(n + 1))
        hidden = sparse.csr_matrix(
            (np.ones(len(row), bool), chosen[order][place], indptr), shape=rna.counts.shape
        )
        said = yield from imputer.estimate(rna, hidden)
        value[row, order[place]] = said.value
        level[row, order[place]] = said.level
    return Found(value=value, level=level, figures=figures)
