"""Paired cells in the normalisation that the published scLinguist was trained with, and its loss.

RNA: counts per 10,000 and ``log1p``; a gene that a data set did not measure is 0 there, as the
architecture knows no missing gene. Protein: min-max of every cell's antibody counts to [1e-8, 1];
an antibody that was not measured is NaN and enters no loss.

Shapes: n cells, G genes, P proteins, B cells of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.preprocess import log1p_cp10k, protein_minmax
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.vocabulary.genes import resolve_genes

if TYPE_CHECKING:
    from torch import Tensor


def known_symbols(rna: RnaCounts) -> list[str]:
    """Canonical symbols of the genes of a data set, sorted; unknown names are left out."""
    found = resolve_genes(list(rna.names), ids=None if rna.ids is None else list(rna.ids))
    return sorted(set(found.symbols) - {""})


def published_expression(rna: RnaCounts, symbols: Sequence[str]) -> sparse.csr_matrix:
    """``log1p`` CP10k over all known genes of a data set, then the chosen ones.

    Parameters
    ----------
    rna
        Raw counts.
    symbols
        Genes of the model in its order, canonical, length G.

    Returns
    -------
    CSR float32, shape (n, G); genes that were not measured are 0.
    """
    others = sorted(set(known_symbols(rna)) - set(symbols))
    aligned = align_genes(rna, [*symbols, *others], strict=False)
    return sparse.csr_matrix(log1p_cp10k(aligned.counts)[:, : len(symbols)])


def variable_genes(
    rnas: Sequence[RnaCounts], n_genes: int, measured: Sequence[str] | None = None
) -> list[str]:
    """Choose the genes that vary most within data sets.

    Parameters
    ----------
    rnas
        Data sets; one that did not measure a gene adds nothing to its variation.
    n_genes
        How many at most.
    measured
        Choose among these; among all when None.

    Returns
    -------
    Canonical symbols, sorted by name: the order in which the architecture gets them.
    """
    universe = {symbol for rna in rnas for symbol in known_symbols(rna)}
    symbols = sorted(universe if measured is None else universe & set(measured))
    scatter = np.zeros(len(symbols))
    for rna in rnas:
        x = published_expression(rna, symbols)
        mean = np.asarray(x.mean(axis=0), np.float64).ravel()
        squares = np.asarray(x.multiply(x).sum(axis=0), np.float64).ravel()
        scatter += squares - x.shape[0] * mean**2
    best = np.argsort(-scatter, kind="stable")[:n_genes]
    return [symbols[i] for i in np.sort(best)]


def published_targets(
    protein: pd.DataFrame, panel: pd.DataFrame, proteins: Sequence[str]
) -> np.ndarray:
    """Min-max of each cell's panel, on a model's proteins.

    Parameters
    ----------
    protein
        Raw antibody counts, one column an antibody; NaN = not measured.
    panel
        What each antibody is: columns ``canonical`` and ``isotype``, same order.
    proteins
        Canonical names, length P.

    Returns
    -------
    float32, shape (n, P), NaN where not measured. Isotype controls take no part; several antibodies
    of one protein are averaged.
    """
    names = panel["canonical"].to_numpy(str)
    used = ~panel["isotype"].to_numpy(bool) & (names != "")
    scaled = protein_minmax(protein.to_numpy(np.float64)[:, used])
    table = pd.DataFrame(scaled, columns=names[used]).T.groupby(level=0).mean().T
    return table.reindex(columns=list(proteins)).to_numpy(np.float32)


def published_error(predicted_BP: Tensor, target_BP: Tensor) -> Tensor:
    """Mean squared error: over the measured proteins of a cell, then over cells.

    As in the published code, so that a cell of a wide panel counts no more than another. NaN
    targets are not measured; a cell without a single one is left out.
    """
    measured_BP = target_BP.isfinite()
    error_BP = (predicted_BP - target_BP.nan_to_num()).square() * measured_BP
    n_measured_B = measured_BP.sum(dim=1)
    per_cell_B = error_BP.sum(dim=1) / n_measured_B.clamp(min=1)
    return per_cell_B.sum() / (n_measured_B > 0).sum().clamp(min=1)
