"""Type-to-find: a protein or gene under every name that people know it by."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache

_NOT_IN_NAMES = re.compile(r"[^0-9a-zα-ω+]")
_NUMBER = re.compile(r"[0-9]+")
_BETWEEN = re.compile(r"[,;\t\r\n\u2028\u2029]+")
_SEPARATOR = "|"


def fold(text: str) -> str:
    """Spell a name as it is compared: small letters and digits alone (``"PD-1"`` is ``"pd1"``)."""
    return _NOT_IN_NAMES.sub("", text.casefold())


def search_text(names: Iterable[str]) -> str:
    """Join folded names between bars, the entry's own name first: ``"|cd279|pd1|pdcd1|"``."""
    folded = dict.fromkeys(filter(None, map(fold, names)))
    return _SEPARATOR + "".join(name + _SEPARATOR for name in folded)


def names_in(text: str) -> list[str]:
    """Folded names that a search text was made of."""
    return text.strip(_SEPARATOR).split(_SEPARATOR)


def match_rank(query: str, text: str) -> int | None:
    """How well a folded query meets a search text: 0 is best, None is not at all.

    Its own name exactly (0), another name exactly (1), the beginning of its own name (2), of
    another name (3), anywhere (4).
    """
    if query not in text:
        return None
    own = _SEPARATOR + query
    if text.startswith(own):
        return 0 if text.startswith(own + _SEPARATOR) else 2
    if own + _SEPARATOR in text:
        return 1
    return 3 if own in text else 4


def natural(name: str) -> str:
    """Key that sorts CD2 before CD10."""
    return _NUMBER.sub(lambda number: number[0].zfill(8), name.casefold())


def split_list(text: str) -> list[str]:
    """Names in a pasted list, apart by commas, semicolons, tabs or new lines; each once."""
    return list(dict.fromkeys(filter(None, (name.strip() for name in _BETWEEN.split(text)))))


@cache
def protein_names() -> dict[str, tuple[str, ...]]:
    """Canonical name, coding genes and aliases of every protein of the vocabulary."""
    from sclinguist_core.vocabulary.proteins import list_proteins

    table = list_proteins()
    columns = zip(table.index, table["genes"], table["aliases"], strict=True)
    return {
        name: tuple(filter(None, (name, *genes.split(";"), *aliases.split("|"))))
        for name, genes, aliases in columns
    }


@cache
def coding_genes() -> dict[str, tuple[str, ...]]:
    """Coding genes of every protein; empty for glycans."""
    from sclinguist_core.vocabulary.proteins import list_proteins

    table = list_proteins()
    return {
        name: tuple(filter(None, genes.split(";")))
        for name, genes in zip(table.index, table["genes"], strict=True)
    }


@cache
def gene_names() -> dict[str, tuple[str, ...]]:
    """Other names of genes: former symbols, aliases, and the proteins that they code for."""
    from sclinguist_core.vocabulary.genes import other_names

    found = defaultdict(list, {symbol: list(names) for symbol, names in other_names().items()})
    for protein, genes in coding_genes().items():
        for gene in genes:
            # Short names of a complex (CD3 for CD3E) help; those of its other chains would not.
            names = protein_names()[protein] if len(genes) == 1 else (protein,)
            found[gene] += names
    return {symbol: tuple(dict.fromkeys(names)) for symbol, names in found.items()}
