"""One canonical name for every protein that antibodies measure.

The CD number where the target has one (CD8, CD279), else the common name (HLA-DR, TIGIT); never a
slash. Sources: HGNC (CD numbers, symbols, aliases), BioLegend's TotalSeq lists by way of AbNames,
and ``tables/curated_proteins.tsv`` for what needed a decision; each row there says why.
"""

from __future__ import annotations

import pandas as pd

from sclinguist_core.vocabulary._panel import resolve_panel
from sclinguist_core.vocabulary._protein_index import Protein, protein_index
from sclinguist_core.vocabulary._protein_lookup import (
    AmbiguousProteinError,
    UnknownProteinError,
    find_product,
    find_protein,
    resolve_protein,
)

__all__ = [
    "AmbiguousProteinError",
    "Protein",
    "UnknownProteinError",
    "find_product",
    "find_protein",
    "list_proteins",
    "resolve_panel",
    "resolve_protein",
]


def list_proteins() -> pd.DataFrame:
    """Return every protein of the vocabulary.

    Returns
    -------
    DataFrame
        Index ``canonical``; columns ``genes`` (joined by ``;``), ``kind``, ``note`` and
        ``aliases`` (joined by ``|``), sorted so that CD2 stands before CD10.
    """
    index = protein_index()
    proteins = sorted(index.proteins.values(), key=lambda protein: _natural(protein.name))
    return pd.DataFrame(
        {
            "genes": [";".join(protein.genes) for protein in proteins],
            "kind": [protein.kind for protein in proteins],
            "note": [protein.note for protein in proteins],
            "aliases": ["|".join(index.aliases[protein.name]) for protein in proteins],
        },
        index=pd.Index([protein.name for protein in proteins], name="canonical", dtype=object),
        dtype=object,
    )


def _natural(name: str) -> tuple[bool, int, str]:
    digits = "".join(letter if letter.isdigit() else " " for letter in name[2:]).split()
    is_cd = name.startswith("CD") and name[2:3].isdigit()
    return not is_cd, int(digits[0]) if is_cd else 0, name.casefold()
