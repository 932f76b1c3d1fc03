"""Look-up of gene names, and what files do to gene names.

The tables are read on first use and kept; looking a name up is then a dictionary access.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property

from sclinguist_core.vocabulary._tables import read_table

AMBIGUOUS = "?"
"""Stands for the symbol where a name means several genes."""

_HUMAN_PREFIX = re.compile(r"(?:GRCh3[78]|hg(?:19|38))[_-]+(?=.)", re.IGNORECASE)
_MOUSE_PREFIX = re.compile(r"(?:GRCm3[89]|mm(?:9|10|39))[_-]+(?=.)", re.IGNORECASE)
_ENSEMBL_ID = re.compile(r"ENS(?:MUS)?G\d{11}(?:\.\d+)?(?:_PAR_Y)?")
_UNIQUE_SUFFIX = re.compile(r"(.+)[-.]\d{1,3}")
_SEPARATORS = str.maketrans({".": "-", "_": "-", " ": "-"})
_DATE = re.compile(
    r"(?:0?(?P<n1>\d{1,2})[-/ ](?P<m1>mar|sep|dec)[a-z]*"
    r"|(?P<m2>mar|sep|dec)[a-z]*[-/ ]0?(?P<n2>\d{1,2})"
    r"|\d{4}-(?P<m3>03|09|12)-(?P<n3>\d{2})(?: 00:00:00)?)",
    re.IGNORECASE,
)
_DATE_FAMILIES = {
    "mar": ("MARCH", "MARC"),
    "03": ("MARCH", "MARC"),
    "sep": ("SEPT", "SEP"),
    "09": ("SEPT", "SEP"),
    "dec": ("DEC",),
    "12": ("DEC",),
}


@dataclass(frozen=True)
class Ortholog:
    """The human counterpart of a mouse gene and the number of sources that name it."""

    symbol: str
    n_sources: int


class GeneIndex:
    """All gene tables as dictionaries, each built when first asked for."""

    @cached_property
    def ids(self) -> dict[str, str]:
        """Ensembl id of every canonical symbol (``""`` where none is known)."""
        return {row[0]: row[1] for row in self._genes}

    @cached_property
    def symbols_by_id(self) -> dict[str, str]:
        """Canonical symbol of every human Ensembl id, earlier ids of a gene included."""
        symbols = {row[1]: row[0] for row in self._genes if row[1]}
        for symbol, _, others, _ in self._genes:
            if others:
                symbols.update((other, symbol) for other in others.split(","))
        return symbols

    @cached_property
    def approved(self) -> frozenset[str]:
        """Symbols that HGNC lists (protein-coding genes, immunoglobulin and T-cell receptor)."""
        return frozenset(row[0] for row in self._genes if row[3] == "hgnc")

    @cached_property
    def previous(self) -> dict[str, str]:
        """Canonical symbol of each former symbol, `AMBIGUOUS` where it meant several genes."""
        return self._other_names("previous")

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Canonical symbol of each alias, `AMBIGUOUS` where several genes carry it."""
        return self._other_names("alias")

    @cached_property
    def mouse_symbols(self) -> dict[str, Ortholog]:
        """Human ortholog of each mouse symbol."""
        return {row[0]: self._ortholog(row) for row in self._orthologs}

    @cached_property
    def mouse_ids(self) -> dict[str, Ortholog]:
        """Human ortholog of each mouse Ensembl id."""
        return {row[1]: self._ortholog(row) for row in self._orthologs}

    @cached_property
    def folded(self) -> dict[str, str]:
        """Canonical symbol by `fold`-ed name; better kinds of names hide worse ones."""
        folded: dict[str, str] = {}
        symbols = {symbol: symbol for symbol in self.ids}
        for table in (symbols, self.previous, self.aliases):
            level: dict[str, str] = {}
            for name, symbol in table.items():
                key = fold(name)
                known = level.setdefault(key, symbol)
                if known != symbol:
                    level[key] = AMBIGUOUS
            for key, symbol in level.items():
                folded.setdefault(key, symbol)
        return folded

    @cached_property
    def _genes(self) -> list[list[str]]:
        return read_table("genes.tsv.gz")

    @cached_property
    def _orthologs(self) -> list[list[str]]:
        return read_table("orthologs.tsv.gz")

    @cached_property
    def _names(self) -> list[list[str]]:
        return read_table("gene_names.tsv.gz")

    def _other_names(self, kind: str) -> dict[str, str]:
        return {
            name: AMBIGUOUS if "|" in symbols else symbols
            for name, of_kind, symbols in self._names
            if of_kind == kind
        }

    @staticmethod
    def _ortholog(row: list[str]) -> Ortholog:
        return Ortholog(AMBIGUOUS if "|" in row[2] else row[2], int(row[3]))


@cache
def gene_index() -> GeneIndex:
    """Return the one index of this process."""
    return GeneIndex()


def fold(name: str) -> str:
    """Fold letter case and the separators that R and file names change (``HLA.DRA``)."""
    return name.translate(_SEPARATORS).casefold()


def bare_id(name: str) -> str:
    """Return the Ensembl id in ``name`` without its version, or ``""``.

    ``ENSG00000010610.9``, ``ENSG00000010610_CD4`` and ``CD4|ENSG00000010610`` all hold one.
    """
    if "ENS" not in name or len(name) > 100:
        return ""
    found = _ENSEMBL_ID.search(name)
    return found.group().split("_")[0].split(".")[0] if found else ""


def without_id(name: str) -> str:
    """Return what is left of a name that holds an Ensembl id (often the symbol)."""
    return _ENSEMBL_ID.sub("", name, count=1).strip(" _|:;-()")


def genome_prefix(name: str) -> tuple[str, str]:
    """Split ``GRCh38_CD4`` into ``("human", "CD4")``; ``("", name)`` without such a prefix."""
    for species, pattern in (("human", _HUMAN_PREFIX), ("mouse", _MOUSE_PREFIX)):
        found = pattern.match(name)
        if found:
            return species, name[found.end() :]
    return "", name


def without_unique_suffix(name: str) -> str:
    """Return ``FOO`` for ``FOO-1`` (AnnData's way of uniqueness) and ``FOO.1`` (R's), or ``""``."""
    found = _UNIQUE_SUFFIX.fullmatch(name)
    return found.group(1) if found else ""


def spreadsheet_date(name: str) -> list[str]:
    """Return the gene symbols that a spreadsheet may have turned into this date.

    ``2-Sep`` was SEPT2 and ``3-Mar`` MARCH3, but ``1-Mar`` was MARCH1 or MARC1.
    """
    if not name[:1].isdigit() and name[:3].casefold() not in _DATE_FAMILIES:
        return []
    found = _DATE.fullmatch(name)
    if not found:
        return []
    month, number = next(
        (found[f"m{i}"].casefold(), int(found[f"n{i}"])) for i in (1, 2, 3) if found[f"m{i}"]
    )
    index = gene_index()
    spelled = [f"{family}{number}" for family in _DATE_FAMILIES[month]]
    current = {index.previous.get(name, name) for name in spelled}
    return sorted(name for name in current if name in index.ids)
