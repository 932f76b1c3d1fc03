"""The window's picture as a Python script that draws it again without a window."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sclinguist.control.catalogue import OOD_KEY, PREDICTED_KEY, SPREAD_KEY, TOTAL_COUNTS
from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.saving import file_stem, has_predictions
from napari_sclinguist.control.view import limits_of
from sclinguist_core import __version__
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.control.entries import Entry
    from napari_sclinguist.control.export import Plan
    from napari_sclinguist.control.open_section import OpenSection
    from sclinguist_core.data.section import Section

_OVERLAY = "sclinguist_core.evaluation.overlay"

_GENE = '''
rna = section.rna()
totals = np.asarray(rna.counts.sum(axis=1), dtype=np.float64).ravel()


def log1p_cp10k(gene):
    """Counts per 10,000 of a gene on a log scale; NaN where nothing was counted."""
    counts = rna.counts[:, np.flatnonzero(rna.names == gene)].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.log1p(10_000 * np.asarray(counts, dtype=np.float64).ravel() / totals)

'''
_MEASURED = """
measured = protein_clr(table.obsm["protein"], isotype_mask(table))
"""


def python_script(
    opened: OpenSection, plan: Plan, *, saved: Path | None = None, models: Sequence[str] = ()
) -> str:
    """Write a script that draws a planned figure with the package's public functions.

    Parameters
    ----------
    opened
        The section.
    plan
        What the figure shows, from `napari_sclinguist.control.export.plan_figure`.
    saved
        File that holds the section with its predictions; without one they are predicted anew.
    models
        Folders in which the model of the predictions is looked for, besides the bundled one.

    Raises
    ------
    InputError
        If the section was opened from nothing that a script could open, or the figure shows what
        only the window holds.
    """
    entries = [opened.catalogue.entry(key) for key in plan.keys]
    for entry in entries:
        if entry.kind is Kind.CHANGE:
            raise InputError(
                f"{entry.label} is held by this window alone, so no script can show it: choose "
                "another feature, then copy again."
            )
    source = saved or opened.section.source
    if source is None or not source.exists():
        raise InputError(
            f"Section '{opened.name}' is in no file that a script could open: save it first, then "
            "copy again."
        )
    names = _variables(entries)
    features = [_feature(opened, plan, entry, name) for entry, name in names.items()]
    parts = [
        _head(opened, entries),
        _imports(opened, plan, entries),
        "",
        *_opening(opened.section, source, saved is not None),
        *_table(opened, entries, models, predicted=saved is None),
        *([_MEASURED.rstrip()] if _any(entries, Kind.MEASURED) else []),
        *([_GENE.rstrip() + "\n"] if _needs_rna(opened, entries) else []),
        "",
        *features,
        "",
        *_figure(plan, {entry.key: name for entry, name in names.items()}),
        f"save_figure(figure, {_text(file_stem(opened.name) + '.png')}, dpi={plan.dpi})",
    ]
    return "\n".join(parts) + "\n"


def _head(opened: OpenSection, entries: list[Entry]) -> str:
    shown = ", ".join(entry.label for entry in entries)
    text = f"{shown} on {opened.name}, as in napari-sclinguist {__version__}."
    return f'"""{text}"""\n'.replace("\\", "/")


def _imports(opened: OpenSection, plan: Plan, entries: list[Entry]) -> str:
    from_overlay = ["Feature", "Style", "overlay_figure", "save_figure"]
    lines = []
    if plan.difference and plan.view.diverging_colormap != _default_diverging():
        lines += ["from dataclasses import replace", ""]
    if _needs_rna(opened, entries):
        lines += ["import numpy as np", ""]
    lines.append("import sclinguist_core as scl")
    if _any(entries, Kind.MEASURED):
        lines.append("from sclinguist_core.data.preprocess import isotype_mask, protein_clr")
    if any(_fades(opened, plan, entry) for entry in entries):
        lines.append("from sclinguist_core.evaluation.colouring import certainty")
    if plan.difference:
        from_overlay.insert(2, "difference")
    return "\n".join([*lines, f"from {_OVERLAY} import {', '.join(from_overlay)}"])


def _opening(section: Section, source: Path, is_saved: bool) -> list[str]:
    path = _text(str(source))
    if is_saved or not _holds_several(section):
        return [f"section = scl.open_section({path})"]
    return [
        f"sections = {{one.name: one for one in scl.open_sections({path})}}",
        f"section = sections[{_text(section.name)}]",
    ]


def _table(
    opened: OpenSection, entries: list[Entry], models: Sequence[str], *, predicted: bool
) -> list[str]:
    needed = list(dict.fromkeys(e.name for e in entries if e.kind in _OF_A_PREDICTION))
    needs_score = any(e.kind is Kind.COLUMN and e.name == OOD_KEY for e in entries)
    must_predict = predicted and has_predictions(opened.section) and (needed or needs_score)
    if not must_predict:
        return ["table = section.table"]
    arguments = ["section"]
    model = _model(opened, models)
    if model is not None:
        arguments.append(f"model={_text(model)}")
    if needed:
        arguments.append(f"proteins=[{', '.join(map(_text, needed))}]")
    comment = "  # leave `proteins` out to predict all" if needed else ""
    return [f"table = scl.predict({', '.join(arguments)}){comment}"]


_OF_A_PREDICTION = (Kind.PREDICTED, Kind.UNCERTAINTY)


def _model(opened: OpenSection, models: Sequence[str]) -> str | None:
    """Find the model that predicted; None where it is the bundled one, which needs no name."""
    from sclinguist_core.model.checkpoint import checkpoint_folder, read_info

    wanted = opened.section.table.uns.get("sclinguist", {}).get("model")
    for model in ("bundled", *models):
        try:
            found = read_info(checkpoint_folder(model)).name
        except InputError:  # a folder that is no model any more
            continue
        if wanted is None or found == wanted:
            return None if model == "bundled" else model
    return f"path/to/{wanted}"


def _feature(opened: OpenSection, plan: Plan, entry: Entry, name: str) -> str:
    view = plan.view
    low, high = limits_of(opened.catalogue, view, entry.key)
    arguments = {
        "values": _values(opened, entry),
        "title": _text(entry.label),
        "unit": _text(entry.unit) if entry.unit else None,
        "limits": f"({float(low)!r}, {float(high)!r})",
        "cmap": _text(view.colormap),
    }
    if entry.key in view.thresholds:
        arguments["threshold"] = repr(float(view.thresholds[entry.key]))
    if _fades(opened, plan, entry):
        score = "None" if opened.catalogue.ood is None else f"table.obs[{_text(OOD_KEY)}]"
        arguments["certainty"] = (
            f"certainty({score}, table.obsm[{_text(SPREAD_KEY)}][{_text(entry.name)}])"
        )
    return _call(f"{name} = Feature", arguments)


def _values(opened: OpenSection, entry: Entry) -> str:
    name = _text(entry.name)
    if entry.kind is Kind.PREDICTED:
        return f"table.obsm[{_text(PREDICTED_KEY)}][{name}]"
    if entry.kind is Kind.UNCERTAINTY:
        return f"table.obsm[{_text(SPREAD_KEY)}][{name}]"
    if entry.kind is Kind.MEASURED:
        return f"measured[{name}]"
    if entry.kind is Kind.GENE:
        return f"log1p_cp10k({name})"
    return "totals" if _is_total(opened, entry) else f"table.obs[{name}]"


def _figure(plan: Plan, names: dict[str, str]) -> Iterator[str]:
    panels = []
    for keys in plan.panels:
        inside = ", ".join(names[key] for key in keys)
        panels.append(inside if len(keys) == 1 else f"({inside})")
    if plan.difference:
        between = f"difference({panels[0]}, {panels[1]})"
        if plan.view.diverging_colormap != _default_diverging():
            between = f"replace({between}, cmap={_text(plan.view.diverging_colormap)})"
        panels.append(between)
    style = plan.style
    looks = [
        f"size={style.size!r}",
        f"opacity={style.opacity!r}",
        f"tissue={style.tissue!r}",
        f"unknown={style.unknown!r}",
        *([f"background={_text(style.background)}"] if style.background != "white" else []),
    ]
    arguments = {
        "": "section",
        " ": f"[{', '.join(panels)}]",
        "width": repr(plan.panel_width),
        "title": _text(plan.title) if plan.title else None,
        "bounds": None if plan.bounds is None else repr(plan.bounds),
        "style": f"Style({', '.join(looks)})",
    }
    yield _call("figure = overlay_figure", arguments)


def _call(start: str, arguments: dict[str, str | None]) -> str:
    """Write a call with an argument a line; those without a value are left out."""
    lines = [
        f"    {f'{name}=' if name.strip() else ''}{value},"
        for name, value in arguments.items()
        if value is not None
    ]
    return "\n".join([f"{start}(", *lines, ")"])


def _variables(entries: list[Entry]) -> dict[Entry, str]:
    taken: dict[Entry, str] = {}
    for entry in entries:
        name = re.sub(r"\W+", "_", entry.label.lower(), flags=re.ASCII).strip("_")
        name = name if name and not name[0].isdigit() else f"feature_{name}"
        number, unique = 2, name
        while unique in taken.values() or unique in _RESERVED:
            unique, number = f"{name}_{number}", number + 1
        taken[entry] = unique
    return taken


_RESERVED = {"section", "sections", "table", "measured", "rna", "totals", "figure"}


def _any(entries: list[Entry], kind: Kind) -> bool:
    return any(entry.kind is kind for entry in entries)


def _needs_rna(opened: OpenSection, entries: list[Entry]) -> bool:
    return _any(entries, Kind.GENE) or any(_is_total(opened, entry) for entry in entries)


def _is_total(opened: OpenSection, entry: Entry) -> bool:
    """Whether these are our own sums, not a column of that name."""
    is_total = entry.kind is Kind.COLUMN and entry.name == TOTAL_COUNTS
    return is_total and TOTAL_COUNTS not in opened.section.table.obs


def _fades(opened: OpenSection, plan: Plan, entry: Entry) -> bool:
    return plan.view.fade and opened.catalogue.spread(entry) is not None


def _default_diverging() -> str:
    from sclinguist_core.evaluation.panel import DIVERGING

    return DIVERGING


def _holds_several(section: Section) -> bool:
    """Whether the file of a section holds other sections too, so that one has to be chosen."""
    attributes = section.table.uns.get("spatialdata_attrs") or {}
    if not isinstance(attributes.get("region", ""), str):
        return len(attributes["region"]) > 1
    source = section.source
    if source is None or source.suffix.lower() != ".h5ad":
        return False
    import h5py

    with h5py.File(source, "r") as file:
        return len(file.get("uns/spatial", ())) > 1


def _text(value: Any) -> str:
    """Write a string as Python code, in double quotes."""
    return json.dumps(str(value), ensure_ascii=False)
