"""Colour bars and scale bars of overlays."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.colouring import CHANNEL_COLOURS
from sclinguist_core.evaluation.panel import Bounds, Feature, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable


def colour_scales(features: Sequence[Feature]) -> list[ScalarMappable]:
    """Map values to the colours of each feature's bar: its colour map, or black to its own."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize

    maps: list[Colormap]
    if len(features) == 1:
        maps = [mpl.colormaps[features[0].colormap]]
    else:
        maps = [
            LinearSegmentedColormap.from_list(colour, ["black", colour])
            for colour in CHANNEL_COLOURS[: len(features)]
        ]
    return [
        ScalarMappable(Normalize(*feature.channel().limits), cmap)
        for feature, cmap in zip(features, maps, strict=True)
    ]


def colour_bar(
    bar_ax: Axes, mappable: ScalarMappable, feature: Feature, label: str, style: Style
) -> None:
    """Draw a colour bar, with what one must know to read the colours, into axes of its own."""
    from matplotlib.colorbar import Colorbar
    from matplotlib.ticker import MaxNLocator

    values = np.asarray(feature.values, dtype=np.float64)
    values = values[np.isfinite(values)]
    low, high = mappable.get_clim()
    # Below a threshold nothing is coloured, so that no arrow points there.
    below = feature.threshold is None and bool(values.size and values.min() < low)
    above = bool(values.size and values.max() > high)
    extend: Literal["neither", "min", "max", "both"] = "neither"
    if below or above:
        extend = "both" if below and above else ("min" if below else "max")
    inches = bar_ax.bbox.width / bar_ax.figure.dpi
    ticks = MaxNLocator(4 if inches > 1.5 else 2)
    bar = Colorbar(bar_ax, mappable, orientation="horizontal", extend=extend, ticks=ticks)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2, colors=style.ink)
    if feature.threshold is not None and low < feature.threshold < high:
        # What is not coloured has no colour in the bar either.
        bar.ax.axvspan(low, feature.threshold, color=style.background, alpha=0.8, lw=0)
        bar.ax.axvline(feature.threshold, color=style.ink, lw=1.2)
    notes = [label] if label else []
    if feature.threshold is not None:
        notes.append(f"coloured from {feature.threshold:.3g}")
    if feature.certainty is not None:
        notes.append("faint where the model is unsure")
    if notes:
        width = max(int(16 * inches), 8)
        lines = textwrap.wrap("; ".join(notes), width, max_lines=2, placeholder=" …")
        bar.ax.set_xlabel(
            "\n".join(lines),
            fontsize=8,
            color=style.ink,
            labelpad=1,
            linespacing=1.05,
            parse_math=False,
        )


def scale_bar_length(width_in_microns: float) -> float:
    """Choose a round length (1, 2 or 5 times a power of ten, in µm), about a fifth of the width."""
    target = width_in_microns / 5
    power = 10 ** np.floor(np.log10(target))
    return float(max(step * power for step in (1, 2, 5) if step * power <= target))


def scale_bar(ax: Axes, section: Section, bounds: Bounds, style: Style) -> None:
    """Only where the size of a pixel is known: a guessed scale bar is worse than none."""
    if not section.microns_per_pixel:
        return
    from matplotlib.patheffects import withStroke

    left, right, top, bottom = bounds
    length = scale_bar_length((right - left) * section.microns_per_pixel)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    start, y = left + 0.03 * (right - left), bottom - 0.03 * (bottom - top)
    has_tissue = section.image is not None and (style.tissue is None or style.tissue >= 0.5)
    on_dark = style.background == "black" and not has_tissue
    line, around = ("white", "black") if on_dark else ("black", "white")
    halo = [withStroke(linewidth=4, foreground=around)]
    end = start + length / section.microns_per_pixel
    ax.plot([start, end], [y, y], color=line, lw=2.2, path_effects=halo, solid_capstyle="butt")
    ax.annotate(
        text,
        ((start + end) / 2, y),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8.5,
        color=line,
        path_effects=halo,
    )
