"""Plots of an evaluation: a protein on the tissue, scatters, dot plot, histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sclinguist_core.errors import visible
from sclinguist_core.evaluation import baselines, overlay
from sclinguist_core.evaluation.evaluate import MODEL, Evaluation
from sclinguist_core.evaluation.inputs import observations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1c2430"
MUTED = "#7b8696"
ACCENT = "#0f766e"
_GRID = "#e6e9ee"
_HEXBIN_FROM = 1_000
# Marker and colour of each baseline; shapes differ so that colour is not the only cue.
_MARKS = {
    baselines.TOTAL_COUNT: ("x", "#b0b7c3"),
    baselines.COGNATE_MRNA: ("D", "#d97706"),
    "kNN": ("v", "#8b93a1"),
    "ridge": ("^", "#8b93a1"),
    "kernel ridge": ("s", "#8b93a1"),
    "MLP": ("P", "#8b93a1"),
    "mean of four": ("o", "#7c3aed"),
}


def comparison_figure(result: Evaluation, antibody: str, *, width: float = 3.6) -> Figure:
    """Draw predicted, measured and cognate mRNA of one antibody side by side on the tissue.

    Parameters
    ----------
    result
        Of a section with positions.
    antibody
        The study's name, as in ``result.per_protein``.
    width
        Width of a panel in inches.
    """
    row = result.per_protein.set_index("antibody").loc[antibody]
    gene = str(row["cognate_gene"])
    panels = [
        overlay.Feature(
            values=result.predicted[antibody],
            title=f"{row['canonical']} predicted",
            unit=str(result.provenance.get("unit") or "standard deviations"),
        ),
        overlay.Feature(values=result.measured[antibody], title="measured", unit="CLR"),
        overlay.Feature(
            values=result.cognate[antibody] if gene else None,
            title=f"mRNA of {gene}" if gene else "mRNA",
            unit="log1p CP10k",
            missing="coding gene not measured" if row["genes"] else "no coding gene",
        ),
    ]
    return overlay.overlay_figure(result.section, panels, width=width)


def _plain(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#c3c9d3")
    ax.tick_params(labelsize=8, colors=MUTED, length=2)


def scatter_figure(
    result: Evaluation, *, max_proteins: int = 40, columns: int = 6, width: float = 1.75
) -> Figure:
    """Predicted against measured, one small panel an antibody, best predicted first.

    More than 1,000 cells are drawn as hexagons coloured by the logarithm of their number, so that
    overlapping points do not mislead.
    """
    from matplotlib.figure import Figure

    table = result.per_protein.head(max_proteins)
    columns = max(min(columns, len(table)), 1)
    rows = -(-len(table) // columns)
    figure = Figure(figsize=(width * columns, (width + 0.22) * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(table) :]:
        ax.set_axis_off()
    for ax, (_, row) in zip(axes, table.iterrows(), strict=False):
        x = result.predicted[row["antibody"]].to_numpy()
        y = result.measured[row["antibody"]].to_numpy()
        known = np.isfinite(x) & np.isfinite(y)
        _plain(ax)
        _points(ax, x[known], y[known])
        ax.set_box_aspect(1)
        ax.tick_params(labelsize=6.5)
        ax.locator_params(nbins=4)
        r = f"r = {row['r_clr']:.2f}" if np.isfinite(row["r_clr"]) else "r undefined"
        ax.set_title(f"{row['canonical']}  {r}", fontsize=8.5, color=INK, parse_math=False)
    figure.supxlabel("predicted", fontsize=9, color=MUTED)
    figure.supylabel("measured (CLR)", fontsize=9, color=MUTED)
    return figure


def _points(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    if len(x) == 0:
        ax.text(0.5, 0.5, "no values", transform=ax.transAxes, ha="center", fontsize=8, color=MUTED)
        return
    # A few extreme cells must not squeeze the cloud; they are clipped to the frame.
    (x_low, x_high), (y_low, y_high) = (_reach(v) for v in (x, y))
    x, y = np.clip(x, x_low, x_high), np.clip(y, y_low, y_high)
    if len(x) >= _HEXBIN_FROM:
        extent = (x_low, x_high, y_low, y_high)
        ax.hexbin(x, y, gridsize=32, bins="log", cmap="viridis", extent=extent, mincnt=1, lw=0.1)
    else:
        ax.scatter(x, y, s=4, color=ACCENT, alpha=0.45, linewidths=0)
    ax.set_xlim(x_low, x_high)
    ax.set_ylim(y_low, y_high)


def _reach(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [0.2, 99.8])
    margin = 0.05 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def dot_figure(result: Evaluation, *, max_proteins: int = 60) -> Figure:
    """Correlation of the model and of every baseline, one row an antibody."""
    from matplotlib.figure import Figure

    table = result.per_protein.head(max_proteins)[::-1]
    y = np.arange(len(table))
    figure = Figure(figsize=(9.4, 0.27 * len(table) + 1.1), layout="constrained")
    ax = figure.subplots()
    _plain(ax)
    ax.grid(axis="x", color=_GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.axvline(0, color="#9aa3b2", lw=0.9)
    for method, (marker, colour) in _MARKS.items():
        column = f"r_clr_{method.replace(' ', '_').lower()}"
        if column in table:
            size = 24 if marker == "x" else 20
            ax.scatter(table[column], y, marker=marker, s=size, color=colour, lw=1.1, label=method)
    ax.scatter(table["r_clr"], y, s=46, color=ACCENT, zorder=3, label=MODEL)
    ax.set_yticks(y, list(map(visible, table["canonical"])), parse_math=False)
    ax.tick_params(axis="y", labelsize=8.5, colors=INK, length=0)
    ax.set_ylim(-0.7, len(table) - 0.3)
    ax.set_xlabel(
        f"Pearson correlation across {observations(result.section)}, against CLR",
        fontsize=9,
        color=MUTED,
    )
    ax.spines["left"].set_visible(False)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        labels[::-1],
        loc="outside upper center",
        ncols=min(len(labels), 8),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    return figure


def per_cell_figure(result: Evaluation) -> Figure:
    """Histogram of the per-cell correlation, with its median."""
    from matplotlib.figure import Figure

    values = result.per_cell["pearson"].to_numpy()
    values = values[np.isfinite(values)]
    figure = Figure(figsize=(5.2, 2.6), layout="constrained")
    ax = figure.subplots()
    _plain(ax)
    ax.hist(values, bins=40, range=(-1, 1), color=ACCENT, alpha=0.85)
    if values.size:
        median = float(np.median(values))
        ax.axvline(median, color=INK, lw=1.2)
        ax.text(
            median - 0.02,
            0.97,
            f"median {median:.2f}",
            transform=ax.get_xaxis_transform(),
            ha="right",
            va="top",
            fontsize=9,
            color=INK,
        )
    ax.set_xlim(-1, 1)
    ax.set_xlabel("Pearson correlation across proteins", fontsize=9, color=MUTED)
    ax.set_ylabel(observations(result.section), fontsize=9, color=MUTED)
    return figure
