"""From one name to one protein, or to an error that says which names come close."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import NamedTuple

from sclinguist_core.errors import InputError
from sclinguist_core.vocabulary._antibody_names import (
    MAX_LENGTH,
    isotype_control,
    name_key,
    strip_product,
    strip_reagent,
)
from sclinguist_core.vocabulary._gene_index import gene_index
from sclinguist_core.vocabulary._protein_index import Protein, protein_index

_BRACKETS = re.compile(
    r"^(?P<outer>[^()\[\]]*)[(\[](?P<inner>[^()\[\]]*)[)\]](?P<rest>[^()\[\]]*)$"
)
_NUMBERED = re.compile(r"(?P<base>.*[^\s._-])[\s._-](?P<number>\d{1,2})")
_SEPARATOR = re.compile(r"[\s._/|,;+:-]+")
_LIST_SEPARATOR = re.compile(r"\s*[,;/|]\s*")
_CD = re.compile(r"CD\d+", re.IGNORECASE)
_MAX_SPLITS = 10


class UnknownProteinError(InputError):
    """No protein goes by this name; ``nearest`` holds canonical names that come close."""

    def __init__(self, message: str, nearest: list[str]) -> None:
        super().__init__(message)
        self.nearest = nearest


class AmbiguousProteinError(InputError):
    """Several proteins go by this name; ``candidates`` holds their canonical names."""

    def __init__(self, message: str, candidates: list[str]) -> None:
        super().__init__(message)
        self.candidates = candidates


class Match(NamedTuple):
    """What a name leads to: one canonical name, several (ambiguous), or none."""

    names: tuple[str, ...]
    clone: str = ""

    @property
    def name(self) -> str:
        """The canonical name if there is exactly one, else ``""``."""
        return self.names[0] if len(self.names) == 1 else ""


_NOTHING = Match(())


def resolve_protein(name: str) -> Protein:
    """Return the protein that a name of an antibody, protein or gene means.

    Parameters
    ----------
    name
        A name as studies write it (``PD-1 (CD279)``, ``cd4.1``, ``HLA.DR``, ``CD3_TotalSeqB``),
        an isotype control, or the exact symbol of a human gene.

    Returns
    -------
    Protein
        Resolving its ``name`` gives the same protein again.

    Raises
    ------
    UnknownProteinError
        If no protein goes by this name.
    AmbiguousProteinError
        If several do.
    """
    match = match_protein(name)
    if match.name:
        return protein_by_name(match.name)
    shown = _shorten(name)
    if match.names:
        candidates = list(match.names)
        raise AmbiguousProteinError(
            f"The protein name {shown} is ambiguous; it may mean {_either(candidates)}.", candidates
        )
    near = nearest_names(name) if isinstance(name, str) else []
    hint = f"the nearest known names are {', '.join(near)}" if near else "nothing comes close"
    raise UnknownProteinError(
        f"No protein is known by the name {shown}; {hint} (`sclinguist proteins` lists all).", near
    )


def find_protein(name: str) -> Protein | None:
    """Return what `resolve_protein` does, but None where it raises: thousands of names a second."""
    match = match_protein(name)
    return protein_by_name(match.name) if match.name else None


def find_product(name: str) -> Protein | None:
    """Return what `find_protein` does, but an exact gene symbol beats another protein's alias.

    Antibodies are called ``MIB1`` after a clone against Ki-67; where genes are spoken of, it is
    the gene MIB1. A locus (``IGK``), which has no Ensembl id, stays what antibodies call it.
    """
    found = find_protein(name)
    if gene_index().ids.get(name) and (found is None or name not in found.genes):
        return Protein(name, (name,), "protein", "by gene symbol")
    return found


def protein_by_name(name: str) -> Protein:
    """Return the protein of a canonical name that `match_protein` gave."""
    known = protein_index().proteins.get(name)
    if known:
        return known
    if isotype_control(name) == name:
        return Protein(name, (), "isotype", "isotype control, measures unspecific binding")
    return Protein(name, (name,), "protein", "by gene symbol")


def match_protein(name: str) -> Match:
    """Look a name up without raising; see `resolve_protein`."""
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_LENGTH:
        return _NOTHING
    whole = _lookup(name)
    if whole.names:
        return whole
    for text in (strip_product(name), strip_reagent(name)):  # the first still names the host
        control = isotype_control(text)
        if control:
            return Match((control,))
    text = strip_reagent(name)
    return _lookup(text) if text != name and _lookup(text).names else _analyse(text)


def nearest_names(name: str, n: int = 3) -> list[str]:
    """Return up to ``n`` canonical names whose names are spelled most like this one."""
    index = protein_index()
    key = name_key(name[:40])
    for cutoff in (0.6, 0.3):
        close = difflib.get_close_matches(key, list(index.names), n=2 * n, cutoff=cutoff)
        if close:
            break
    found = dict.fromkeys(target for match in close for target in index.names[match])
    return list(found)[:n]


def _lookup(text: str) -> Match:
    """Find a name as a whole: among the names of proteins, then among gene symbols."""
    found = protein_index().names.get(name_key(text))
    if found:
        return Match(found)
    text = text.strip()
    return Match((text,)) if text in gene_index().approved else _NOTHING


def _analyse(text: str) -> Match:
    """Read a name that is not known as a whole: brackets, numbers, clones, two names in one."""
    brackets = _BRACKETS.match(text)
    if brackets:
        outer = strip_reagent(f"{brackets['outer']} {brackets['rest']}")
        return _reconcile(_analyse_plain(outer), brackets["inner"])
    return _analyse_plain(text)


def _analyse_plain(text: str) -> Match:
    found = _lookup(text)
    return found if found.names else _numbered(text) or _two_in_one(text)


def _numbered(text: str) -> Match | None:
    """Read ``CD4.2`` as the second antibody against CD4."""
    found = _NUMBERED.fullmatch(text)
    if not found:
        return None
    match = _lookup(found["base"])
    # the number after a family's name is a member's (Galectin-1) unless a CD number came before
    usable = match.name or (match.names and _CD.fullmatch(found["base"]))
    return match._replace(clone=found["number"]) if usable else None


def _two_in_one(text: str) -> Match:
    """Read ``CD197-CCR7`` (one protein twice) and ``CD3_UCHT1`` (protein and clone)."""
    conflict: tuple[str, ...] = ()
    for left, right, separator in _splits(text):
        first = _lookup(left)
        first = first if first.names else _numbered(left) or _NOTHING
        if not first.name:
            continue
        if name_key(right) in protein_index().clones:
            return first._replace(clone=right)
        second = _lookup(right)
        if second.name == first.name or first.name in second.names:
            return first
        if second.name and separator.strip() in ("/", ",", "|", "+", ";"):
            conflict = (first.name, second.name)
    return Match(conflict)


def _splits(text: str) -> Iterator[tuple[str, str, str]]:
    for number, found in enumerate(_SEPARATOR.finditer(text)):
        if number >= _MAX_SPLITS:
            return
        if text[: found.start()] and text[found.end() :]:
            yield text[: found.start()], text[found.end() :], found.group()


def _reconcile(outer: Match, inner: str) -> Match:
    """Join what stands before brackets with what stands in them, often a synonym or a clone."""
    if outer.name and name_key(inner) in protein_index().clones:
        return outer._replace(clone=inner)
    parts = [part for part in _LIST_SEPARATOR.split(inner)[:_MAX_SPLITS] if part]
    found = [match for match in map(_analyse_plain, [inner, *parts]) if match.name]
    names = tuple(dict.fromkeys(match.name for match in found))
    if outer.name in names or not names:
        return outer
    if not outer.name:
        return Match(names)
    known = protein_index().proteins
    listed = tuple(name for name in names if name in known)
    if outer.name in known and not listed:
        return outer  # the brackets hold another gene's symbol: KLRG1 (MAFA)
    return Match((outer.name, *names))


def _shorten(name: object) -> str:
    if isinstance(name, str) and len(name) > 40:
        return f"{name[:40] + '...'!r} ({len(name)} characters)"
    return repr(name)[:60]


def _either(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
