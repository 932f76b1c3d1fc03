"""Genes by the names that a user gives.

Shapes: K genes.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.inference.prepare import Prepared
from sclinguist_core.vocabulary.genes import resolve_genes
from sclinguist_core.vocabulary.proteins import resolve_protein


def find_genes(
    prepared: Prepared, genes: Sequence[str], *, measured_only: bool = True
) -> np.ndarray:
    """Positions of the named genes in the model, int64, shape (K,), each once.

    Parameters
    ----------
    prepared
        Model and section.
    genes
        Names in any spelling.
    measured_only
        Refuse genes that the section did not measure.

    Raises
    ------
    InputError
        If a name is not known, or the gene is not in the model or may not be asked for.
    """
    symbols = prepared.checkpoint.symbols
    position = {symbol: i for i, symbol in enumerate(symbols)}
    allowed = set(range(len(symbols)))
    if measured_only:
        allowed = set(prepared.aligner.move.indices.tolist())
    found: dict[int, None] = {}
    for given in [genes] if isinstance(genes, str) else genes:
        read = resolve_genes([given]).table.iloc[0]
        symbol = read["symbol"]
        if position.get(symbol) in allowed:
            found[position[symbol]] = None
            continue
        if read["status"] == "ambiguous":
            what = "may mean several genes, expected the symbol of one"
        elif not symbol:
            of = "of this section" if measured_only else "that the model reads"
            what = f"not a known gene, expected one {of}"
        elif symbol not in position:
            what = f"the model does not read {symbol}, expected a gene that it reads"
        else:
            what = f"{symbol} was not measured in {prepared.section.name}, expected one that was"
        near = ", ".join(_nearest(str(given), [symbols[i] for i in sorted(allowed)]))
        raise InputError(f"gene {str(given)[:40]!r}: {what}; the nearest names are {near}.")
    if not found:
        raise InputError("genes: found an empty list, expected at least one name.")
    return np.array(list(found), np.int64)


def _nearest(name: str, symbols: list[str]) -> list[str]:
    """Suggest symbols: the genes of the protein of that name, or else what is spelled alike."""
    with contextlib.suppress(InputError):
        coding = [gene for gene in resolve_protein(name).genes if gene in symbols]
        if coding:
            return coding
    return difflib.get_close_matches(name.upper()[:40], symbols, n=3, cutoff=0.0)
