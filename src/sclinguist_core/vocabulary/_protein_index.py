"""The proteins of the vocabulary and every name that leads to one of them."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property

from sclinguist_core.vocabulary._antibody_names import name_key
from sclinguist_core.vocabulary._tables import read_table

_LETTERED_CD = re.compile(r"(CD\d+)[a-z]\w*")


@dataclass(frozen=True)
class Protein:
    """What an antibody is directed against.

    Attributes
    ----------
    name
        Canonical name: the CD number where there is one, else the common name; never a slash.
    genes
        Canonical symbols of the coding genes; empty for glycans, reagents and controls.
    kind
        ``protein``, ``isoform`` (one form of a gene's product), ``complex`` (several genes),
        ``glycan``, ``reagent`` or ``isotype`` (a control).
    note
        What a reader should know about it, or ``""``.
    """

    name: str
    genes: tuple[str, ...]
    kind: str
    note: str = ""


class ProteinIndex:
    """Curated and listed proteins with their names, surer names first."""

    @cached_property
    def proteins(self) -> dict[str, Protein]:
        """All proteins by canonical name: the curated ones, then the genes with a CD number."""
        found = {
            name: Protein(name, tuple(filter(None, genes.split(";"))), kind, note)
            for name, genes, kind, _, note, _ in self._curated
        }
        for name, gene, _, _ in self._listed:
            found.setdefault(name, Protein(name, (gene,), "protein"))
        return found

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """Other names that lead to each protein, as people write them, genes included."""
        found: dict[str, list[str]] = {name: [] for name in self.proteins}
        for level in self._levels[1:]:
            for alias, name in level:
                if alias not in (name, *found[name]) and self.names[name_key(alias)] == (name,):
                    found[name].append(alias)
        return found

    @cached_property
    def names(self) -> dict[str, tuple[str, ...]]:
        """Canonical names by the `name_key` of any name; several where it is ambiguous."""
        found: dict[str, tuple[str, ...]] = {}
        for names, candidates, _ in read_table("ambiguous_proteins.tsv"):
            for name in names.split("|"):
                found[name_key(name)] = tuple(candidates.split("|"))
        for number, level in enumerate(self._levels):
            here: dict[str, set[str]] = defaultdict(set)
            for alias, name in level:
                here[name_key(alias)].add(name)
            for key, targets in here.items():
                found.setdefault(key, tuple(sorted(targets)))
            if number == 1:
                # before HGNC's aliases, which give CD158 or CD66 to one gene of several
                for stem, lettered in self._lettered().items():
                    found.setdefault(name_key(stem), tuple(lettered))
        found.pop("", None)
        return found

    @cached_property
    def clones(self) -> frozenset[str]:
        """Keys of antibody clones (UCHT1, EH12.2H7)."""
        return frozenset(name_key(row[0]) for row in read_table("clones.tsv.gz"))

    @cached_property
    def _curated(self) -> list[list[str]]:
        return read_table("curated_proteins.tsv")

    @cached_property
    def _listed(self) -> list[list[str]]:
        return read_table("targets.tsv.gz")

    @cached_property
    def _levels(self) -> list[list[tuple[str, str]]]:
        """Pairs (name, canonical name): canonical, curated, gene symbols, HGNC's other names."""
        canonical = [(name, name) for name in self.proteins]
        curated = [(alias, row[0]) for row in self._curated for alias in row[3].split("|") if alias]
        symbols = [(gene, name) for name, gene, _, _ in self._listed]
        others = [
            (alias, name)
            for name, _, aliases, _ in self._listed
            for alias in aliases.split("|")
            if len(name_key(alias)) > 2
        ]
        return [canonical, curated, symbols, others]

    def _lettered(self) -> dict[str, list[str]]:
        """Targets with a lettered CD number, by the bare number."""
        stems: dict[str, list[str]] = defaultdict(list)
        for name in self.proteins:
            found = _LETTERED_CD.fullmatch(name)
            if found:
                stems[found[1]].append(name)
        return {stem: sorted(names) for stem, names in stems.items()}


@cache
def protein_index() -> ProteinIndex:
    """Return the one index of this process."""
    return ProteinIndex()
