"""One current human symbol for every gene name that a file may hold.

Sources: HGNC (approved, previous and alias symbols), the 10x Genomics reference GRCh38-2020-A and
HCOP (mouse orthologs); ``training/build_vocabulary.py`` makes the tables from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.vocabulary._gene_index import (
    AMBIGUOUS,
    GeneIndex,
    Ortholog,
    bare_id,
    fold,
    gene_index,
    genome_prefix,
    spreadsheet_date,
    without_id,
    without_unique_suffix,
)

Species = Literal["human", "mouse"]

STATUSES = (
    "exact",
    "id",
    "previous",
    "alias",
    "case",
    "ortholog",
    "duplicate",
    "ambiguous",
    "missing",
)
"""Every value of the column ``status``, the surest way of recognition first."""

_LONGEST_NAME = 100
_HOW = {
    "previous": "by former symbols",
    "alias": "by aliases",
    "case": "despite changed spelling",
    "duplicate": "beside another row of the same gene",
}
_RANK = {status: rank for rank, status in enumerate(STATUSES)}


class _Hit(NamedTuple):
    """How one name was read; the lower ``rank`` keeps a symbol that several rows claim."""

    symbol: str
    status: str
    rank: float


_MISSING = _Hit("", "missing", 99)
_SEVERAL = _Hit("", "ambiguous", 99)


@dataclass(frozen=True)
class GeneResolution:
    """The genes of a file under their current symbols.

    Attributes
    ----------
    table
        One row an input name, in order. Columns: ``name`` (as given), ``symbol`` (canonical human
        symbol, ``""`` if none), ``ensembl_id`` (of that symbol, ``""`` if none), ``status``:

        - ``exact``: the name is the current symbol,
        - ``id``: found by its Ensembl id,
        - ``previous``: a former symbol (HGNC, or the one of the 10x Genomics reference),
        - ``alias``: another name that only this gene carries,
        - ``case``: differs in letter case or in separators, or is a date made by a spreadsheet,
        - ``ortholog``: the human counterpart of a mouse gene,
        - ``duplicate``: the symbol belongs to a better row; counts are to be added to that row,
        - ``ambiguous``: means several genes, left out,
        - ``missing``: not known.
    species
        What the names were read as.
    """

    table: pd.DataFrame
    species: Species

    @property
    def symbols(self) -> np.ndarray:
        """Canonical symbols, dtype object, ``""`` where not resolved."""
        return self.table["symbol"].to_numpy(dtype=object)

    @property
    def counts(self) -> dict[str, int]:
        """Number of names of each status that occurs, the surest first."""
        found = self.table["status"].value_counts()
        return {status: int(found[status]) for status in STATUSES if status in found}

    @property
    def n_resolved(self) -> int:
        """Number of names that lead to a symbol, duplicates included."""
        return int((self.table["symbol"] != "").sum())

    def summary(self) -> str:
        """Describe the result in one sentence."""
        counts = self.counts
        how = [f"{counts[status]:,} {text}" for status, text in _HOW.items() if status in counts]
        lost = [
            f"{counts[status]:,} {status}"
            for status in ("ambiguous", "missing")
            if status in counts
        ]
        what = "mouse genes mapped to human orthologs" if self.species == "mouse" else "genes"
        text = f"{self.n_resolved:,} of {len(self.table):,} {what}"
        if self.species == "human":
            text += " recognised"
        if how:
            text += f" ({', '.join(how)})"
        return f"{text}; {', '.join(lost)}." if lost else f"{text}."


def gene_table() -> pd.DataFrame:
    """Return every gene of the vocabulary: index ``symbol``, column ``ensembl_id``."""
    ids = gene_index().ids
    index = pd.Index(list(ids), name="symbol", dtype=object)
    return pd.DataFrame({"ensembl_id": list(ids.values())}, index=index, dtype=object)


def resolve_genes(
    names: Iterable[str],
    *,
    ids: Iterable[str] | None = None,
    species: Literal["auto", "human", "mouse"] = "auto",
) -> GeneResolution:
    """Translate gene names of any usual kind into current human symbols.

    Ensembl ids (with or without version) are preferred to symbols. Of symbols an approved one beats
    a former one, which beats an alias. Names with a genome prefix (``GRCh38_CD4``), changed
    letter case or separators (``cd3e``, ``HLA.DRA``), suffixes that made them unique
    (``MATR3-1``) or spreadsheet dates (``2-Sep``) are understood. Mouse genes become the human
    ortholog that most sources support, or of equally supported ones the one of the same name; other
    ties are ambiguous. A mouse gene without a listed ortholog is taken for the human gene of the
    same name in capitals.

    When several rows lead to one symbol, the surest keeps it (of mouse genes the one with the most
    sources, then the first) and the others are ``duplicate``. An alias of a gene that is also
    present under its own symbol is ``ambiguous``: an annotation lists no gene twice, so the alias
    is more likely the name of another locus.

    Parameters
    ----------
    names
        Gene names, one a feature.
    ids
        Ensembl ids of the same features, if the file has them; unknown or empty ones fall back
        to the name.
    species
        ``"auto"`` decides by the names as a whole.

    Returns
    -------
    GeneResolution
        As many rows as names, in their order.

    Raises
    ------
    InputError
        If ``ids`` and ``names`` differ in length or ``species`` is not one of the three.
    """
    given = ["" if name is None else str(name) for name in names]
    given_ids = [""] * len(given) if ids is None else [_text_id(value) for value in ids]
    if len(given_ids) != len(given):
        raise InputError(
            f"resolve_genes got {len(given_ids)} ids for {len(given)} names; "
            "give one id for each name or none at all."
        )
    if species not in ("auto", "human", "mouse"):
        raise InputError(
            f"resolve_genes got species={species!r}; expected 'auto', 'human' or 'mouse'."
        )
    index = gene_index()
    prefixes, bare = _without_prefixes(given)
    read_as = _detect_species(index, bare, given_ids, prefixes) if species == "auto" else species
    if read_as == "human":
        hits = _resolve_human(index, bare, given_ids)
    else:
        hits = [_resolve_mouse(index, *pair) for pair in zip(bare, given_ids, strict=True)]
    other = "mouse" if read_as == "human" else "human"
    # in a mix of two genomes the cells of the other species are not ours
    hits = [
        _MISSING if prefix == other else hit for prefix, hit in zip(prefixes, hits, strict=True)
    ]
    hits = _settle_duplicates(hits)
    symbols = [hit.symbol for hit in hits]
    table = pd.DataFrame(
        {
            "name": given,
            "symbol": symbols,
            "ensembl_id": [index.ids.get(symbol, "") for symbol in symbols],
            "status": [hit.status for hit in hits],
        },
        dtype=object,
    )
    return GeneResolution(table, read_as)


def _text_id(value: object) -> str:
    return bare_id(value) if isinstance(value, str) else ""


def _without_prefixes(names: list[str]) -> tuple[list[str], list[str]]:
    pairs = [genome_prefix(name) for name in names]
    return [species for species, _ in pairs], [name.strip() for _, name in pairs]


def _detect_species(
    index: GeneIndex, names: list[str], ids: list[str], prefixes: list[str]
) -> Species:
    """Count what is exactly a human name and what is exactly a mouse name; human wins ties.

    Mouse symbols are written Cd4 and human ones CD4, so a table of either kind decides by itself.
    """
    human = mouse = 0
    for name, ensembl, prefix in zip(names, ids, prefixes, strict=True):
        known = ensembl or bare_id(name)
        if known or prefix:
            is_mouse = known.startswith("ENSMUSG") or prefix == "mouse"
            mouse += is_mouse
            human += not is_mouse
        elif name in index.ids:
            human += 1
        elif name in index.mouse_symbols:
            mouse += 1
    return "mouse" if mouse > human else "human"


def _resolve_human(index: GeneIndex, names: list[str], ids: list[str]) -> list[_Hit]:
    present = set(names)
    by_id, symbols = index.symbols_by_id, index.ids
    hits = []
    for name, ensembl in zip(names, ids, strict=True):
        symbol = by_id.get(ensembl, "") if ensembl else ""
        if symbol:
            hits.append(_hit(symbol, "exact" if name == symbol else "id"))
        elif name in symbols:
            hits.append(_hit(name, "exact"))
        else:
            hits.append(_human_by_other_name(index, name, present))
    return hits


def _human_by_other_name(index: GeneIndex, name: str, present: set[str]) -> _Hit:
    if len(name) > _LONGEST_NAME:
        return _MISSING
    ensembl = bare_id(name)
    if ensembl:
        symbol = index.symbols_by_id.get(ensembl, "")
        rest = without_id(name)
        return _hit(symbol or (rest if rest in index.ids else ""), "id")
    for status, table in (("previous", index.previous), ("alias", index.aliases)):
        if name in table:
            return _hit(table[name], status)
    dates = spreadsheet_date(name)
    if dates:
        return _hit(dates[0], "case") if len(dates) == 1 else _SEVERAL
    folded = index.folded.get(fold(name), "")
    if folded:
        return _hit(folded, "case")
    base = without_unique_suffix(name)
    if base in index.ids or (base in present and base in index.previous):
        # a copy of its base; where the file has dropped that one, it stands for it
        symbol = base if base in index.ids else index.previous[base]
        return _hit(symbol, "duplicate" if base in present else "alias")
    return _MISSING


def _resolve_mouse(index: GeneIndex, name: str, ensembl: str) -> _Hit:
    if len(name) > _LONGEST_NAME:
        return _MISSING
    ensembl = ensembl or bare_id(name)
    found = index.mouse_ids.get(ensembl) or index.mouse_symbols.get(name)
    if found is None and ensembl and ensembl in name:
        found = index.mouse_symbols.get(without_id(name))
    if found is None:
        # both nomenclatures give a gene and its ortholog one name, in capitals for human
        upper = name.upper()
        symbol = upper if upper in index.approved else index.previous.get(upper, "")
        found = Ortholog(symbol, 0) if symbol else None
    if found is None:
        base = without_unique_suffix(name)
        found = index.mouse_symbols.get(base) if base else None
    if found is None:
        return _MISSING
    hit = _hit(found.symbol, "ortholog")
    return hit if not hit.symbol else hit._replace(rank=hit.rank - found.n_sources / 100)


def _hit(symbol: str, status: str) -> _Hit:
    if symbol == AMBIGUOUS:
        return _SEVERAL
    return _Hit(symbol, status, _RANK[status]) if symbol else _MISSING


def _settle_duplicates(hits: list[_Hit]) -> list[_Hit]:
    best: dict[str, int] = {}
    for position, hit in enumerate(hits):
        if hit.symbol and hit.rank < hits[best.setdefault(hit.symbol, position)].rank:
            best[hit.symbol] = position
    settled = []
    for position, hit in enumerate(hits):
        winner = best.get(hit.symbol, position)
        if winner == position:
            # a copy whose original went to another gene is itself the only row
            settled.append(hit._replace(status="alias") if hit.status == "duplicate" else hit)
        elif hit.status == "alias" and hits[winner].status in ("exact", "id"):
            settled.append(_SEVERAL)
        else:
            settled.append(hit._replace(status="duplicate"))
    return settled


def other_names() -> dict[str, tuple[str, ...]]:
    """Former symbols and aliases of each gene, for looking genes up while typing.

    Returns
    -------
    dict
        Canonical symbol to its other names; those that mean several genes are left out.
    """
    index = gene_index()
    found: dict[str, list[str]] = {}
    for table in (index.previous, index.aliases):
        for name, symbol in table.items():
            if symbol != AMBIGUOUS:
                found.setdefault(symbol, []).append(name)
    return {symbol: tuple(names) for symbol, names in found.items()}
