"""A benchmark on paper: CSV, Markdown, and a plot."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclinguist_core.errors import visible
from sclinguist_core.evaluation import baselines
from sclinguist_core.evaluation.learners import DESCRIPTIONS
from sclinguist_core.evaluation.methods import MODEL
from sclinguist_core.evaluation.overlay import save_figure
from sclinguist_core.evaluation.results import Benchmark
from sclinguist_core.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1c2430"
MUTED = "#7b8696"
ACCENT = "#0f766e"
DIGITS = 3
MARKERS = "sD^vPX<>"
"""Of the grey curves, which greys alone would not tell apart."""
UNTRAINED = {
    baselines.PROTEIN_MEAN: "the same for every cell, so that it has no correlation",
    baselines.TOTAL_COUNT: "all measured antibodies of the cell added up; it sees the answers",
    baselines.COGNATE_MRNA: "the genes that code for the protein",
}
"""What each baseline without training is, in words for a table."""
_SHOWN_PROTEINS = 200


def write_benchmark(result: Benchmark, output: Path) -> list[Path]:
    """Write everything beside `output`, a name that ends in .csv.

    Returns
    -------
    list of Path
        ``NAME.csv`` (a row a task, input and method), ``NAME_per_protein.csv``,
        ``NAME_losses.csv`` (if poorer inputs were tried), ``NAME.md``, ``NAME.png``, ``NAME.svg``.
    """
    written = []
    tables = {"": result.summary, "_per_protein": result.per_protein}
    losses = result.losses()
    if len(losses):
        tables["_losses"] = losses
    for suffix, table in tables.items():
        path = output.with_name(f"{output.stem}{suffix}.csv")
        with replacing(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f")
        written.append(path)
    path = output.with_suffix(".md")
    with replacing(path) as temporary:
        temporary.write_text(markdown_report(result), encoding="utf-8")
    written.append(path)
    figure = benchmark_figure(result)
    written += [
        save_figure(figure, output.with_suffix(suffix), dpi=150) for suffix in (".png", ".svg")
    ]
    return written


def markdown_report(result: Benchmark) -> str:
    """Tables, proteins and notes in Markdown."""
    parts = [
        "# Benchmark\n",
        "Mean over proteins of the Pearson correlation across cells with the CLR measurement; in "
        "brackets its 95 % bootstrap interval over cells (where one table column is one task).\n",
        markdown_table(_with_intervals(result)),
    ]
    headline = result.headline()
    if headline:
        parts.append("\nThe model beside the best baseline, with the 95 % interval of a paired "
                     "bootstrap over cells, or the spread over draws:\n")  # fmt: skip
        parts += [f"- {as_markdown(sentence)}" for sentence in headline]
    losses = result.losses()
    if len(losses):
        parts.append("\n## Poorer inputs\n\nLoss against the full input; mean over draws.\n")
        parts.append(markdown_table(loss_table(losses).reset_index()))
    parts.append("\n## Pearson against log1p counts\n")
    parts.append("These rise with the depth of a cell: total count shows how far that goes.\n")
    parts.append(markdown_table(result.table("pearson_log1p").reset_index()))
    parts.append("\n## Proteins\n")
    for dataset in result.datasets:
        names = result.proteins(dataset)
        shown = ", ".join(map(as_markdown, names[:_SHOWN_PROTEINS]))
        parts.append(f"- {as_markdown(dataset)} ({len(names)}): {shown}")
    parts.append("\n## Methods\n")
    methods = list(dict.fromkeys(result.summary["method"]))
    known = {**UNTRAINED, **DESCRIPTIONS}
    parts += [f"- {name}: {known[name]}" for name in methods if name in known]
    if result.warnings:
        parts.append("\n## Notes\n")
        parts += [f"- {as_markdown(sentence)}" for sentence in result.warnings]
    return "\n".join(parts) + "\n"


def loss_table(losses: pd.DataFrame) -> pd.DataFrame:
    """Loss of each method (rows) on each input, mean over data sets (columns); smallest first."""
    if losses.empty:
        return pd.DataFrame()
    wide = losses.groupby(["method", "input"], sort=False)["loss"].mean().unstack()
    full = losses.groupby(["method", "input"], sort=False)["poorer"].mean().unstack()
    joined = wide.add_prefix("loss, ").join(full.add_prefix("r, "))
    joined.columns.name = None
    return joined.sort_values(joined.columns[0])


def _with_intervals(result: Benchmark) -> pd.DataFrame:
    table = result.table()
    low, high = result.table("pearson_clr_low"), result.table("pearson_clr_high")
    n_tasks = result.summary[result.summary["input"] == "full"].groupby(["dataset", "part"]).size()
    n_methods = result.summary[result.summary["input"] == "full"].groupby("method").size().max()
    single = len(n_tasks) == n_methods
    out = pd.DataFrame({"method": table.index})
    for column in table:
        cells = []
        for name in table.index:
            value = table.loc[name, column]
            text = number(value)
            if single and column != "mean" and np.isfinite(value):
                bounds = low.loc[name, column], high.loc[name, column]
                if np.isfinite(bounds).all():
                    text += f" ({number(bounds[0], 2)} to {number(bounds[1], 2)})"
            cells.append(text)
        out[column] = cells
    return out


def markdown_table(table: pd.DataFrame) -> str:
    """Lay out a table in Markdown; figures with three digits, undefined ones as dashes."""
    heads = [as_markdown(str(name)) for name in table.columns]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in table.itertuples(index=False):
        cells = [number(v) if isinstance(v, float) else as_markdown(str(v)) for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_markdown(text: str) -> str:
    """Escape what would be a tag, a link, code or the end of a cell."""
    escaped = escape(visible(text), quote=False)
    return re.sub(r"([|\[\]`\\])", r"\\\1", escaped)


def number(value: float, digits: int = DIGITS) -> str:
    """Format a figure; a dash where it is undefined."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def benchmark_figure(result: Benchmark, *, methods: Sequence[str] | None = None) -> Figure:
    """Draw the headline of each method with its interval, a panel a data set.

    With few-shot results: a curve over the number of cells, a panel a data set, bars being the
    standard deviation over draws.
    """
    summary = result.summary[result.summary["input"] == "full"]
    if summary["part"].str.fullmatch(r"\d+ cells").all():
        return _curves(summary)
    return _dots(summary, methods)


def _dots(summary: pd.DataFrame, methods: Sequence[str] | None) -> Figure:
    from matplotlib.figure import Figure

    over = summary.groupby("method")["pearson_clr"].mean()
    order = list(methods) if methods is not None else list(over.sort_values().index)
    order = [name for name in order if np.isfinite(over.get(name, np.nan))]
    datasets = list(dict.fromkeys(summary["dataset"]))
    columns = min(len(datasets), 3)
    rows = -(-len(datasets) // columns)
    height = 0.26 * len(order) + 0.9
    figure = Figure(figsize=(3.4 * columns + 1.2, height * rows + 0.2), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for ax in axes[len(datasets) :]:
        ax.set_axis_off()
    for ax, dataset in zip(axes, datasets, strict=False):
        part = summary[summary["dataset"] == dataset].groupby("method")
        mean = part[["pearson_clr", "pearson_clr_low", "pearson_clr_high"]].mean().reindex(order)
        for y, name in enumerate(order):
            value, low, high = mean.loc[name]
            if not np.isfinite(value):
                continue
            colour = ACCENT if name == MODEL else MUTED
            ax.plot([low, high], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
            ax.plot([value], [y], marker="o", ms=6 if name == MODEL else 4, color=colour)
        ax.set_title(dataset, fontsize=9.5, color=INK, parse_math=False)
        ax.set_yticks(range(len(order)), order)
        _plain(ax)
    figure.supxlabel("mean per-protein Pearson against CLR", fontsize=9, color=MUTED)
    return figure


def _curves(summary: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    summary = summary.assign(cells=summary["part"].str.split().str[0].astype(int))
    datasets = list(dict.fromkeys(summary["dataset"]))
    figure = Figure(figsize=(3.6 * len(datasets) + 1.8, 3.2), layout="constrained")
    axes = figure.subplots(1, len(datasets), squeeze=False).ravel()
    names = list(dict.fromkeys(summary["method"]))
    names = [name for name in names if name not in {"protein mean", "total count"}]
    shades = np.linspace(0.25, 0.8, max(len(names), 2))
    for ax, dataset in zip(axes, datasets, strict=True):
        for shade, marker, name in zip(shades, itertools.cycle(MARKERS), names, strict=False):
            rows = summary[(summary["dataset"] == dataset) & (summary["method"] == name)]
            by_size = rows.groupby("cells")["pearson_clr"]
            mean, sd = by_size.mean(), by_size.std(ddof=1).fillna(0.0)
            ours = name == MODEL
            ax.errorbar(
                mean.index,
                mean,
                yerr=sd,
                color=ACCENT if ours else str(shade),
                lw=2 if ours else 1.1,
                marker="o" if ours else marker,
                ms=4,
                capsize=2,
                label=name,
                zorder=3 if ours else 2,
            )
        ax.set_xscale("log")
        sizes = sorted(summary["cells"].unique())
        ax.set_xticks(sizes, [str(n) for n in sizes], minor=False)
        ax.set_xticks([], minor=True)
        ax.set_title(dataset, fontsize=9.5, color=INK, parse_math=False)
        ax.set_xlabel("cells with measured protein", fontsize=9, color=MUTED)
        _plain(ax)
    axes[0].set_ylabel("mean per-protein Pearson (CLR)", fontsize=9, color=MUTED)
    axes[-1].legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _plain(ax: object) -> None:
    from matplotlib.axes import Axes

    assert isinstance(ax, Axes)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#c3c9d3")
    ax.grid(axis="x", color="#e6e9ee", lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, colors=INK, length=2)
