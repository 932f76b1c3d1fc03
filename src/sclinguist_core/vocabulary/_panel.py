"""A study's panel of antibodies under canonical names, read as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from sclinguist_core.vocabulary._antibody_names import strip_reagent
from sclinguist_core.vocabulary._protein_index import protein_index
from sclinguist_core.vocabulary._protein_lookup import Match, match_protein, protein_by_name

_PTPRC_COPY = re.compile(r"PTPRC[-._]1", re.IGNORECASE)
_PTPRC_SECOND = re.compile(r"PTPRC[-._]2", re.IGNORECASE)
_CD_THEN_ONE = re.compile(r"(CD\d{1,3})1")


def resolve_panel(antibodies: Iterable[str]) -> pd.DataFrame:
    """Translate a panel's antibody names into canonical protein names; never raises for odd names.

    Two things are only visible in a panel as a whole. A CytAssist panel whose ids lost their
    suffixes holds ``PTPRC`` and ``PTPRC-1``: these are CD45RA and CD45RO. And where several names
    are CD numbers that do not exist (``CD341``, ``CD381``), the ``1`` that made them unique beside
    the genes CD34 and CD38 lost its separator: ``CD331`` of the same panel is CD33 and not FGFR1,
    ``CD41`` is CD4 and not ITGA2B (GSE143363, where ``CD41`` and ``CD71`` are high on T cells).

    Parameters
    ----------
    antibodies
        The study's own names.

    Returns
    -------
    DataFrame
        Index ``antibody`` (the names as given); columns ``canonical`` (``""`` if unresolved),
        ``clone``, ``genes`` (joined by ``;``), ``isotype`` (bool), ``kind``, ``status``
        (``resolved``, ``isotype``, ``ambiguous`` or ``unknown``) and ``note``.
    """
    names = list(antibodies)
    context = _read_in_context([name for name in names if isinstance(name, str)])
    index = pd.Index(names, name="antibody", dtype=object)
    columns = ["canonical", "clone", "genes", "isotype", "kind", "status", "note"]
    rows = [_row(name, context) for name in names]
    table = pd.DataFrame(rows, index=index, columns=columns, dtype=object)
    return table.astype({"isotype": bool})


def _row(
    name: str, context: dict[str, tuple[str, str]]
) -> tuple[str, str, str, bool, str, str, str]:
    in_context = context.get(name) if isinstance(name, str) else None
    match = Match((in_context[0],)) if in_context else match_protein(name)
    if not match.name:
        status = "ambiguous" if match.names else "unknown"
        note = f"may mean {', '.join(match.names)}" if match.names else ""
        return "", match.clone, "", False, "", status, note
    protein = protein_by_name(match.name)
    isotype = protein.kind == "isotype"
    note = "; ".join(filter(None, (protein.note, in_context[1] if in_context else "")))
    return (
        protein.name,
        match.clone,
        ";".join(protein.genes),
        isotype,
        protein.kind,
        "isotype" if isotype else "resolved",
        note,
    )


def _read_in_context(names: list[str]) -> dict[str, tuple[str, str]]:
    """Return canonical name and note of the names whose meaning depends on their neighbours."""
    cores = {name: strip_reagent(name) for name in names if len(name) < 100}
    return _ptprc_isoforms(cores) | _lost_separators(cores)


def _ptprc_isoforms(cores: dict[str, str]) -> dict[str, tuple[str, str]]:
    bare = [name for name, core in cores.items() if core.upper() == "PTPRC"]
    copy = [name for name, core in cores.items() if _PTPRC_COPY.fullmatch(core)]
    if not bare or not copy or any(_PTPRC_SECOND.fullmatch(core) for core in cores.values()):
        return {}
    note = "read by the panel: PTPRC and its copy are CD45RA and CD45RO of the CytAssist panel"
    return {bare[0]: ("CD45RA", note), copy[0]: ("CD45RO", note)}


def _lost_separators(cores: dict[str, str]) -> dict[str, tuple[str, str]]:
    proteins = protein_index().proteins
    present = set(cores.values())
    bases = {}
    for name, core in cores.items():
        found = _CD_THEN_ONE.fullmatch(core)
        # only a gene of the very same name is a reason to make the antibody's name unique
        base = proteins.get(found[1]) if found and found[1] not in present else None
        if base and base.genes == (base.name,):
            bases[name] = base.name
    if sum(not match_protein(cores[name]).names for name in bases) < 2:
        return {}
    return {
        name: (base, f"read by the panel: {base} with the 1 that told it from the gene {base}")
        for name, base in bases.items()
    }
