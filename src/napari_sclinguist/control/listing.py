"""Which features are listed, and in which order: an answer for every query, without any state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from napari_sclinguist.control import names
from napari_sclinguist.control.catalogue import Catalogue
from napari_sclinguist.control.entries import TRUST_ORDER, Entry, Kind


class Order(StrEnum):
    """What the list is sorted by."""

    MATCH = "match"
    TRUST = "trust"
    PATTERN = "pattern"
    VARIANCE = "variance"
    MEAN = "mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What is asked of the list.

    Attributes
    ----------
    text
        Part of a name; or several names, apart by commas, tabs or new lines.
    kinds
        Kinds to show; all of them if empty.
    starred
        Show favourites alone.
    order
        What to sort by.
    """

    text: str = ""
    kinds: frozenset[Kind] = frozenset()
    starred: bool = False
    order: Order = Order.MATCH

    def shows(self, kind: Kind) -> bool:
        """Whether features of a kind are asked for."""
        return not self.kinds or kind in self.kinds


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """What the list shows.

    Attributes
    ----------
    entries
        Features, in the order of the list.
    counts
        How many features of each kind that the section has meet the text.
    starred
        How many of them are favourites.
    figures
        What the list is sorted by, by key; None where it is not sorted by a figure, and while
        figures are being worked out.
    working
        Whether they are.
    missing
        Names of a pasted list that the section does not have.
    """

    entries: tuple[Entry, ...] = ()
    counts: Mapping[Kind, int] = field(default_factory=dict)
    starred: int = 0
    figures: Mapping[str, float] | None = None
    working: bool = False
    missing: tuple[str, ...] = ()

    def row_of(self, key: str) -> int | None:
        """Row of a feature; None where it is not listed."""
        return self._rows.get(key)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {entry.key: row for row, entry in enumerate(self.entries)}


def list_features(
    catalogue: Catalogue,
    query: Query,
    starred: Collection[str] = frozenset(),
    figures: Mapping[str, float] | None = None,
) -> Listing:
    """Find and sort the features of a section.

    Parameters
    ----------
    catalogue
        Features of the section.
    query
        What is asked for.
    starred
        Keys of favourites.
    figures
        What to sort by, by key, the highest first; without them the order is that of the names.
    """
    pasted = _pasted_names(catalogue, query.text)
    missing: tuple[str, ...] = ()
    if pasted:
        found, counts, missing = _find_pasted(catalogue, query, pasted)
    else:
        hits = catalogue.search(query.text)
        counts = Counter(entry.kind for entry in hits)
        found = [entry for entry in hits if query.shows(entry.kind)] if query.kinds else hits
    favourites = [entry for entry in found if entry.key in starred] if starred else []
    if query.starred:
        found = favourites
    if query.order is Order.TRUST:
        found = sorted(found, key=_by_trust)
    elif figures is not None:
        found = sorted(found, key=lambda entry: _highest_first(figures.get(entry.key)))
    return Listing(
        entries=tuple(found),
        counts={kind: counts[kind] for kind in catalogue.kinds},
        starred=len(favourites),
        figures=figures,
        missing=missing,
    )


def _pasted_names(catalogue: Catalogue, text: str) -> list[str]:
    """Names of a list; none for a single name, even one with a comma such as HLA-A,B,C."""
    several = names.split_list(text)
    if len(several) < 2 or catalogue.search(text, exact=True):
        return []
    return several


def _find_pasted(
    catalogue: Catalogue, query: Query, pasted: list[str]
) -> tuple[list[Entry], Counter[Kind], tuple[str, ...]]:
    """One entry for each name, of the first kind that is asked for; each once."""
    found: dict[str, Entry] = {}
    counts: Counter[Kind] = Counter()
    missing = []
    for name in pasted:
        hits = catalogue.search(name, exact=True)
        counts.update({entry.kind for entry in hits})
        shown = next((entry for entry in hits if query.shows(entry.kind)), None)
        if shown is not None:
            found[shown.key] = shown
        elif not hits:
            missing.append(name)
    return list(found.values()), counts, tuple(missing)


def _by_trust(entry: Entry) -> tuple[int, float]:
    label = entry.trust if entry.trust in TRUST_ORDER else ""
    return TRUST_ORDER.index(label), _highest_first(entry.expected_r)


def _highest_first(figure: float | None) -> float:
    # NaN compares with nothing: unknown figures go last.
    return float("inf") if figure is None or figure != figure else -figure


def also_called(catalogue: Catalogue, entry: Entry, text: str) -> str:
    """Name to read beside a feature's own: the one that was typed, else its gene or protein."""
    query, own = names.fold(text), entry.title or entry.name
    others = catalogue.other_names(entry)
    if query and query not in names.fold(own):
        for name in others:
            if query in names.fold(name):
                return name
    if entry.kind is Kind.GENE:
        return entry.protein if entry.protein != own else ""
    genes = names.coding_genes().get(entry.protein, ())
    return genes[0] if len(genes) == 1 and genes[0] != own else ""
