"""Everything that a section can be coloured by: one list, one search, one way to the values.

Shapes: n spots, bins or cells; F features of a kind.
"""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_sclinguist.control import names
from napari_sclinguist.control.entries import KIND_ORDER, Entry, Feature, Kind
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse

    from sclinguist_core.data.section import RnaCounts, Section

PREDICTED_KEY = "protein_predicted"
SPREAD_KEY = "protein_predicted_std"
OOD_KEY = "sclinguist_ood"
TOTAL_COUNTS = "total counts"
_TITLES = {OOD_KEY: "unfamiliar to the model"}
"""What people read for columns of ``obs`` that are ours."""

_ROWS_FOR_CHOICE = 5_000
"""Evenly spaced rows that tell well enough which protein varies most."""
_CACHED_FEATURES = 32
_LARGEST_COLUMN_COPY = 200_000_000
"""Non-zero counts up to which a column-wise copy is kept, so that genes are found at once."""


class Catalogue:
    """The features of one section.

    Parameters
    ----------
    section
        Whose table is read; call `refresh` after predictions were attached to it.

    Attributes
    ----------
    entries
        All features by kind, predicted proteins first, and by name within a kind; columns of
        ``obs`` come last, in the order of the table.
    """

    def __init__(self, section: Section) -> None:
        self.section = section
        self.changes: pd.DataFrame | None = None
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._generation = 0
        self._searchable: tuple[list[Entry], list[str]] = ([], [])
        self._named: tuple[list[Entry], dict[str, list[int]]] = ([], {})
        self.entries: list[Entry] = []
        self.refresh()

    def refresh(self) -> None:
        """List the features anew, after predictions came or went."""
        with self._lock:
            self._cache.clear()
            self._generation += 1
        by_key = {entry.key: entry for entry in self._list()}
        of_kind: dict[Kind, list[Entry]] = {}
        for entry in by_key.values():
            of_kind.setdefault(entry.kind, []).append(entry)
        # Whole ones are put in place: threads may be reading meanwhile.
        self._by_key, self._of_kind = by_key, of_kind
        self.entries = list(by_key.values())

    def set_changes(self, changes: pd.DataFrame | None) -> None:
        """Offer changes of proteins after a pseudo-knockout, shape (n, P); None removes them."""
        self.changes = changes
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def entry(self, key: str) -> Entry:
        """Return the feature of a key.

        Raises
        ------
        KeyError
            If there is none.
        """
        return self._by_key[key]

    @property
    def kinds(self) -> list[Kind]:
        """Kinds that the section has, in the order of `Kind`."""
        return sorted(self._of_kind, key=KIND_ORDER.__getitem__)

    def of_kind(self, kind: Kind) -> list[Entry]:
        """All features of one kind."""
        return list(self._of_kind.get(kind, ()))

    def values(self, key: str) -> np.ndarray:
        """(n,) float32, read-only; NaN where unknown.

        Raises
        ------
        KeyError
            If there is no such feature.
        """
        with self._lock:
            found = self._cache.get(key)
            if found is not None:
                self._cache.move_to_end(key)
                return found
            generation = self._generation
        values = self._read(self._by_key[key])
        values.setflags(write=False)
        with self._lock:
            if generation != self._generation:
                return values  # read while the table changed: for this once
            self._cache[key] = values
            while len(self._cache) > _CACHED_FEATURES:
                self._cache.popitem(last=False)
        return values

    def feature(self, key: str) -> Feature:
        """Return a feature with its values; see `values`."""
        return Feature(entry=self._by_key[key], values=self.values(key))

    def table(self, kind: Kind) -> pd.DataFrame | None:
        """Values of all proteins of a kind, (n, F), columns by name; None for other kinds."""
        if kind is Kind.PREDICTED:
            return self._predicted
        if kind is Kind.MEASURED:
            return self._measured if self.section.has_protein else None
        if kind is Kind.UNCERTAINTY:
            spread = self.section.table.obsm.get(SPREAD_KEY)
            return spread if isinstance(spread, pd.DataFrame) else None
        return self.changes if kind is Kind.CHANGE else None

    def log_counts(self, genes: Iterable[str]) -> sparse.csc_matrix:
        """log1p CP10k of genes, float32, shape (n, F).

        Rows without any molecule hold zeros here; they have no value (see `has_molecules`).
        """
        from scipy import sparse

        genes = list(genes)
        places = [self._places[gene] for gene in genes]
        counts = sparse.csc_matrix(self._columns[:, np.concatenate(places)], dtype=np.float64)
        if any(len(of_gene) > 1 for of_gene in places):
            # A gene of several rows in the file: its counts are added up.
            gene_of = np.repeat(np.arange(len(genes)), [len(of_gene) for of_gene in places])
            ones = np.ones(len(gene_of))
            counts = counts @ sparse.csc_matrix((ones, (np.arange(len(gene_of)), gene_of)))
        with np.errstate(divide="ignore"):
            counts.data = np.log1p(10_000.0 / self._totals[counts.indices] * counts.data)
        return counts.astype(np.float32)

    @property
    def has_molecules(self) -> np.ndarray:
        """(n,) bool: rows with any RNA, in which genes have values."""
        return self._totals > 0

    def spread(self, entry: Entry) -> np.ndarray | None:
        """Return the predicted error of a predicted protein, SD, (n,); None for other features."""
        column = self._spread_column(entry)
        return None if column is None else _float32(column)

    def spread_at(self, entry: Entry, row: int) -> float | None:
        """Return the same of one row, which takes no time whatever the size of the section."""
        column = self._spread_column(entry)
        return None if column is None else float(column.iat[row])

    @property
    def ood(self) -> np.ndarray | None:
        """Out-of-distribution score, float32, shape (n,); None where there is none."""
        obs = self.section.table.obs
        return _float32(obs[OOD_KEY]) if OOD_KEY in obs else None

    # --- looking up -------------------------------------------------------------------------

    def find(self, name: str) -> Entry:
        """Find what a name stands for: its key, or any name of a protein, gene or column.

        Raises
        ------
        InputError
            If the section has nothing of this name; the message lists the nearest ones.
        """
        if name in self._by_key:
            return self._by_key[name]
        found = self.search(name, exact=True)
        if found:
            return found[0]
        nearest = self.nearest(name)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "choose one of its features."
        raise InputError(
            f"Feature '{name}' is not in section '{self.section.name}': no predicted or measured "
            f"protein, gene or numeric obs column has this name; {hint}"
        )

    def nearest(self, name: str, n: int = 3) -> list[str]:
        """Names of features that come close to a name that none has, the closest first.

        It takes up to a second with all genes: not for the thread of the window.
        """
        query = names.fold(name)
        entries, texts = self._with_texts()
        named = self._with_names()
        found = []
        for close in difflib.get_close_matches(query, named, n=10 * n, cutoff=0.5):
            likeness = difflib.SequenceMatcher(None, close, query).ratio()
            for place in named[close]:
                # What is read in the list comes before an alias that is as close.
                own = names.match_rank(close, texts[place]) == 0
                found.append((-likeness * (1.0 if own else 0.85), place))
        titles = (entries[place].title or entries[place].name for _, place in sorted(found))
        return list(dict.fromkeys(titles))[:n]

    def other_names(self, entry: Entry) -> tuple[str, ...]:
        """Return what else a protein or gene is called; empty for columns."""
        return _other_names(entry.kind is Kind.GENE, entry.name, entry.protein)

    def search(
        self, text: str, kinds: Iterable[Kind] | None = None, *, exact: bool = False
    ) -> list[Entry]:
        """Features whose names meet a text, the best match first; all of them for no text.

        Parameters
        ----------
        text
            Part of any name of a protein or gene: ``"PD-1"``, ``"CD279"`` and ``"PDCD1"`` find
            the same.
        kinds
            Kinds to search; all by default.
        exact
            Only whole names.
        """
        wanted = set(Kind if kinds is None else kinds)
        query = names.fold(text)
        if not query:
            return [entry for entry in self.entries if entry.kind in wanted]
        entries, texts = self._with_texts()
        if exact:
            places = self._with_names().get(query, [])
        else:  # most texts are ruled out by this alone
            places = [place for place, text in enumerate(texts) if query in text]
        hits = [place for place in places if entries[place].kind in wanted]
        if not hits:
            canonical = _canonical_protein(text)  # such as "PD-1 (CD279)"
            return [
                entry
                for entry in self.entries
                if canonical and entry.protein == canonical and entry.kind in wanted
            ]
        ranks = np.array([names.match_rank(query, texts[place]) for place in hits])
        kinds = [KIND_ORDER[entries[place].kind] for place in hits]
        lengths = [len(entries[place].name) for place in hits]
        # Any whole name of a protein finds it, its prediction first: PDCD1 as well as PD-1.
        order = np.lexsort((lengths, ranks, kinds, np.maximum(ranks, 1)))
        return [entries[hits[place]] for place in order]

    def partner(self, entry: Entry, kind: Kind) -> Entry | None:
        """Find the same protein as another kind: its measurement, its prediction or its mRNA."""
        if entry.kind is kind:
            return entry
        if kind is Kind.GENE:
            genes = names.coding_genes().get(entry.protein, ())
            keys = (f"{Kind.GENE}:{gene}" for gene in genes)
            return next((self._by_key[key] for key in keys if key in self._by_key), None)
        protein = entry.protein
        if not protein:
            return None
        return next((e for e in self._of_kind.get(kind, ()) if e.protein == protein), None)

    def default_keys(self) -> list[str]:
        """Choose what is shown first: predicted proteins that vary most, or counts."""
        predicted = self._predicted
        if predicted.shape[1]:
            # Predictions are in standard deviations of a reference, so that spreads compare.
            trusted = [
                entry.name
                for entry in self.of_kind(Kind.PREDICTED)
                if entry.trust in {"well", "fairly"}
            ]
            some = predicted.iloc[:: max(1, len(predicted) // _ROWS_FOR_CHOICE)]
            best = some[trusted or list(some)].std().sort_values(ascending=False)
            return [f"{Kind.PREDICTED}:{name}" for name in best.index[:3]]
        if self._has_rna:
            return [f"{Kind.COLUMN}:{TOTAL_COUNTS}"]
        if self.section.has_protein:
            most = self.section.table.obsm["protein"].sum().idxmax()
            return [f"{Kind.MEASURED}:{most}"]
        return [entry.key for entry in self.entries[:1]]

    def prepare(self) -> None:
        """Do the slow part of the first search and the first gene; for a worker thread."""
        self._with_names()
        _canonical_protein("PD-1 (CD279)")
        if self._has_rna:
            _ = self._columns
        if self.section.has_protein:
            _ = self._measured

    # --- what there is ----------------------------------------------------------------------

    def _list(self) -> Iterator[Entry]:
        table = self.section.table
        info = table.uns.get("sclinguist", {})
        unit = str(info.get("unit", ""))
        trust, expected = info.get("trust", {}), info.get("expected_r", {})
        for name in _sorted(self._predicted.columns):
            yield Entry(
                kind=Kind.PREDICTED,
                name=name,
                unit=unit,
                protein=name,
                trust=str(trust.get(name, "")),
                expected_r=float(expected.get(name, np.nan)),
            )
        if self.section.has_protein:
            measured = self._list_measured()
            yield from sorted(measured, key=lambda e: names.natural(e.title or e.name))
        if self._has_rna:
            yield from self._genes
        spread = table.obsm.get(SPREAD_KEY)
        if isinstance(spread, pd.DataFrame):
            for name in _sorted(spread.columns):
                yield Entry(kind=Kind.UNCERTAINTY, name=name, unit=f"SD, {unit}", protein=name)
        if self.changes is not None:
            for name in _sorted(self.changes.columns):
                yield Entry(kind=Kind.CHANGE, name=name, unit=unit, protein=name)
        if self._has_rna:
            yield Entry(kind=Kind.COLUMN, name=TOTAL_COUNTS, unit="RNA molecules")
        for name, column in table.obs.items():
            if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
                yield Entry(kind=Kind.COLUMN, name=str(name), title=_TITLES.get(str(name), ""))

    def _list_measured(self) -> Iterator[Entry]:
        counts = self.section.table.obsm["protein"]
        panel = self._panel
        against = [
            "" if panel is None else str(panel["canonical"].get(antibody, ""))
            for antibody in counts.columns
        ]
        for antibody, protein in zip(counts.columns, against, strict=True):
            yield Entry(
                kind=Kind.MEASURED,
                name=str(antibody),
                # Two antibodies against one protein are told apart by the study's names.
                title=protein if against.count(protein) == 1 else "",
                unit="centred log-ratio",
                protein=protein,
            )

    @cached_property
    def _genes(self) -> list[Entry]:
        protein_of = {g: p for p, genes in names.coding_genes().items() for g in genes[:1]}
        return [
            Entry(kind=Kind.GENE, name=g, unit="log1p CP10k", protein=protein_of.get(g, ""))
            for g in _sorted(self._places)
        ]

    def _with_texts(self) -> tuple[list[Entry], list[str]]:
        """Entries and the text that each is found by; of one moment, whichever thread asks."""
        entries = self.entries
        found = self._searchable
        if found[0] is not entries:
            texts = [_text(e.kind is Kind.GENE, e.title, e.name, e.protein) for e in entries]
            found = self._searchable = (entries, texts)
        return found

    def _with_names(self) -> dict[str, list[int]]:
        """Places in `entries` by whole folded name."""
        entries, texts = self._with_texts()
        found = self._named
        if found[0] is not entries:
            named: dict[str, list[int]] = {}
            for place, text in enumerate(texts):
                for name in names.names_in(text):
                    named.setdefault(name, []).append(place)
            found = self._named = (entries, named)
        return found[1]

    @property
    def _predicted(self) -> pd.DataFrame:
        table = self.section.table
        found = table.obsm.get(PREDICTED_KEY)
        return found if isinstance(found, pd.DataFrame) else pd.DataFrame(index=table.obs_names)

    def _spread_column(self, entry: Entry) -> pd.Series | None:
        table = self.section.table.obsm.get(SPREAD_KEY)
        if entry.kind is not Kind.PREDICTED or not isinstance(table, pd.DataFrame):
            return None
        return table.get(entry.name)

    @property
    def _panel(self) -> pd.DataFrame | None:
        panel = self.section.table.uns.get("protein_panel")
        return panel if isinstance(panel, pd.DataFrame) and "canonical" in panel else None

    # --- values -----------------------------------------------------------------------------

    def _read(self, entry: Entry) -> np.ndarray:
        table = self.section.table
        table_of_kind = self.table(entry.kind)
        if table_of_kind is not None:
            return _float32(table_of_kind[entry.name])
        if entry.kind is Kind.GENE:
            return self._gene(entry.name)
        if entry.name == TOTAL_COUNTS and TOTAL_COUNTS not in table.obs:
            return _float32(self._totals)
        return _float32(table.obs[entry.name])

    @cached_property
    def _has_rna(self) -> bool:
        return self.section.has_rna

    @cached_property
    def _rna(self) -> RnaCounts:
        return self.section.rna()

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        """Where the counts of each gene are; several for a symbol of several rows in the file."""
        places: dict[str, list[int]] = {}
        for place, gene in enumerate(map(str, self._rna.names)):
            places.setdefault(gene, []).append(place)
        return {gene: np.array(found) for gene, found in places.items()}

    @cached_property
    def _columns(self) -> sparse.spmatrix:
        counts = self._rna.counts
        return counts.tocsc() if counts.nnz <= _LARGEST_COLUMN_COPY else counts

    @cached_property
    def _totals(self) -> np.ndarray:
        return np.asarray(self._rna.counts.sum(axis=1), dtype=np.float64).ravel()

    @cached_property
    def _measured(self) -> pd.DataFrame:
        from sclinguist_core.data.preprocess import isotype_mask, protein_clr

        table = self.section.table
        clr = protein_clr(table.obsm["protein"], isotype_mask(table))
        return clr.set_axis([str(name) for name in clr.columns], axis=1)

    def _gene(self, gene: str) -> np.ndarray:
        values = self.log_counts([gene]).toarray().ravel()
        values[~self.has_molecules] = np.nan
        return values


def _sorted(found: Iterable[object]) -> list[str]:
    return sorted(map(str, found), key=names.natural)


@cache
def _other_names(is_gene: bool, name: str, protein: str) -> tuple[str, ...]:
    if is_gene:
        found = names.gene_names().get(name, ())
    else:
        found = names.protein_names().get(protein, (protein,)) if protein else ()
    return tuple(one for one in found if one != name)


@cache
def _text(is_gene: bool, title: str, name: str, protein: str) -> str:
    # Kept: the list is made anew after every prediction, and sections share most of their genes.
    return names.search_text((title or name, name, *_other_names(is_gene, name, protein)))


def _canonical_protein(name: str) -> str:
    from sclinguist_core.vocabulary.proteins import resolve_protein

    try:
        return resolve_protein(name).name
    except InputError:  # not a protein, or several
        return ""


def _float32(values: object) -> np.ndarray:
    # A copy, since it is made read-only and must not lock the table.
    return np.array(values, dtype=np.float32)
