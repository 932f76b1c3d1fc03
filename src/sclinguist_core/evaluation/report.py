"""One self-contained HTML page (and CSV tables) that shows an evaluation.

The page needs no network: pictures are embedded, styles and the few lines of script are inline,
and a content security policy forbids anything else. Every name from the data is escaped, and what
does not show in it is written out.
"""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError, visible
from sclinguist_core.evaluation import baselines, figures, inputs, learners, overlay
from sclinguist_core.evaluation.evaluate import MODEL, Evaluation
from sclinguist_core.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HTML_NAME = "report.html"

WELL_KNOWN = ("CD3", "CD19", "CD4", "CD8", "CD14", "CD20", "CD279", "CD45RA", "HLA-DR", "CD68")
"""Proteins that a reader looks for first."""

_MAX_OVERLAYS = 9
_MAX_OVERLAY_BYTES = 5_500_000
"""Keeps the page under 8 MB, so that it can be sent by mail."""
_DESCRIPTIONS = {
    MODEL: "the predictions of this file",
    **baselines.DESCRIPTIONS,
    **learners.DESCRIPTIONS,
}


@dataclass(frozen=True)
class ReportFiles:
    """Where a report was written."""

    html: Path
    per_protein: Path
    per_cell: Path
    summary: Path


def write_report(
    result: Evaluation, folder: str | Path, *, title: str | None = None, overlays: bool = True
) -> ReportFiles:
    """Write ``report.html``, ``per_protein.csv``, ``per_cell.csv`` and ``summary.csv``.

    Each file is written under a temporary name and then renamed, the page last: whoever sees the
    page sees complete tables beside it.

    Parameters
    ----------
    result
        What :func:`sclinguist_core.evaluation.evaluate.evaluate` returned.
    folder
        Created if absent; files of the same names are replaced, others stay.
    title
        Heading of the page; by default the name of the section.
    overlays
        Draw proteins on the tissue (the largest part of page and time).

    Raises
    ------
    InputError
        If the folder is a file or cannot be written to.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = render(result, title=title, overlays=overlays)
        paths = ReportFiles(
            html=folder / HTML_NAME,
            per_protein=folder / "per_protein.csv",
            per_cell=folder / "per_cell.csv",
            summary=folder / "summary.csv",
        )
        write_text(paths.per_protein, result.per_protein.to_csv(index=False))
        write_text(paths.per_cell, result.per_cell.to_csv(index=False))
        write_text(paths.summary, result.summary.to_csv())
        write_text(paths.html, page)
    except OSError as error:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise InputError(
            f"{folder}: cannot write the report there ({error.strerror or error}), expected a "
            "folder that can be created or written to; give another one with -o FOLDER"
        ) from error
    return paths


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def render(result: Evaluation, *, title: str | None = None, overlays: bool = True) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _number
    template = files("sclinguist_core.evaluation").joinpath("templates/report.html.j2")
    section = result.section
    noun = inputs.observations(section)
    spatial = section.is_spatial and len(result.predicted) == section.n_obs
    many = len(result.per_protein) > 0
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title or section.name,
        result=result,
        noun=noun,
        compared=_compared(result, noun),
        summary=_summary_rows(result.summary),
        proteins=_protein_rows(result),
        shown_baselines=[
            name for name in result.summary.index if name not in {MODEL, baselines.PROTEIN_MEAN}
        ],
        histology=(
            embed(overlay.histology_figure(section), dpi=90)
            if overlays and spatial and section.image is not None
            else None
        ),
        overlays=_overlays(result) if overlays and spatial else [],
        spatial=spatial,
        dots=embed(figures.dot_figure(result), dpi=110) if many else None,
        scatters=embed(figures.scatter_figure(result), dpi=110) if many else None,
        per_cell=embed(figures.per_cell_figure(result), dpi=110),
        provenance=_provenance(result),
        trained=any(name in result.summary.index for name in learners.LEARNERS),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def embed(figure: Figure, *, dpi: int) -> str:
    """Return a figure as a ``data:`` address holding a PNG."""
    from PIL import Image

    overlay.show_all(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    # Colours in steps of 8: half the size, and no eye sees it (white and black stay exact).
    pixels = np.asarray(Image.open(buffer).convert("RGB"))
    stepped = np.minimum((pixels.astype(np.uint16) + 4) // 8 * 8, 255).astype(np.uint8)
    small = io.BytesIO()
    Image.fromarray(stepped).save(small, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode("ascii")


def _number(value: Any, digits: int = 2) -> str:
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    # A true minus sign; and no "-0.00".
    return text.replace("-", "\N{MINUS SIGN}") if float(text) != 0 else text.lstrip("-")


def _compared(result: Evaluation, noun: str) -> str:
    n, p = len(result.predicted), len(result.per_protein)
    model = result.provenance.get("model")
    by = f" of model {model}" if model else ""
    return (
        f"Predictions{by} against the measured protein of the same {n:,} {noun}, "
        f"{p} antibodies, each protein by itself across all {noun}."
    )


def _summary_rows(summary: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for name, row in summary.iterrows():
        cells: dict[str, Any] = {str(key): value for key, value in row.items()}
        cells["method"] = name
        for column in ("n_proteins", "better_than_model"):
            cells[column] = int(row[column])
        cells["description"] = _DESCRIPTIONS.get(str(name), "")
        cells["is_model"] = name == MODEL
        cells["fewer"] = 0 < row["n_proteins"] < summary.loc[MODEL, "n_proteins"]
        rows.append(cells)
    return rows


def _protein_rows(result: Evaluation) -> list[dict[str, Any]]:
    shown = [n for n in result.summary.index if n not in {MODEL, baselines.PROTEIN_MEAN}]
    rows: list[dict[str, Any]] = []
    for record in result.per_protein.to_dict("records"):
        row: dict[str, Any] = {str(key): value for key, value in record.items()}
        row["baselines"] = [row[f"r_clr_{name.replace(' ', '_').lower()}"] for name in shown]
        rows.append(row)
    return rows


def choose_proteins(per_protein: pd.DataFrame) -> list[tuple[str, str]]:
    """Antibodies to draw on the tissue, with why: best, median, worst, then the well known.

    Returns
    -------
    list of (antibody, reason)
        At most nine, none twice.
    """
    defined = per_protein[np.isfinite(per_protein["r_clr"])]
    chosen: dict[str, str] = {}
    if len(defined):
        for place, reason in (
            (0, "best predicted"),
            (len(defined) // 2, "in the middle"),
            (len(defined) - 1, "worst predicted"),
        ):
            chosen.setdefault(str(defined["antibody"].iloc[place]), reason)
    for name in WELL_KNOWN:
        for antibody in per_protein.loc[per_protein["canonical"] == name, "antibody"]:
            chosen.setdefault(str(antibody), "well known")
    return list(chosen.items())[:_MAX_OVERLAYS]


def _overlays(result: Evaluation) -> list[dict[str, Any]]:
    rows = result.per_protein.set_index("antibody")
    drawn: list[dict[str, Any]] = []
    size = 0
    for antibody, reason in choose_proteins(result.per_protein):
        row = rows.loc[antibody]
        figure = figures.comparison_figure(result, antibody)
        picture = embed(figure, dpi=100)
        size += len(picture)
        if size > _MAX_OVERLAY_BYTES:
            break
        drawn.append(
            {
                "name": row["canonical"],
                "antibody": antibody,
                "reason": reason,
                "r": row["r_clr"],
                "r_mrna": row.get("r_clr_cognate_mrna", np.nan),
                "picture": picture,
            }
        )
    return drawn


def _provenance(result: Evaluation) -> list[tuple[str, str]]:
    rows = [("evaluated file", inputs.label(result.section))]
    for key, value in result.provenance.items():
        if isinstance(value, Mapping | pd.DataFrame | pd.Series):
            continue
        if isinstance(value, list | tuple | np.ndarray):
            value = ", ".join(str(item) for item in list(value)[:20])
        rows.append((str(key).replace("_", " "), str(value)))
    return rows
