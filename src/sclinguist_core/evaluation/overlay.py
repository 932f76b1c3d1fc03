"""Features over the histology: spots at their true size, in the colours that the window shows.

Figures are matplotlib ``Figure`` objects made without pyplot, so nothing global (backend, open
windows, style) changes and worker threads may draw.

Positions and sizes are in full-resolution pixels, the section's own coordinates; the image is
placed below them by its scale. Shapes: n spots, bins or cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sclinguist_core.data.section import Section
from sclinguist_core.errors import visible
from sclinguist_core.evaluation.legends import (
    colour_bar,
    colour_scales,
    scale_bar,
    scale_bar_length,
)
from sclinguist_core.evaluation.panel import (
    REPORT,
    Bounds,
    Feature,
    Panel,
    Style,
    difference,
    features_of,
    panel_colours,
)
from sclinguist_core.evaluation.spots import draw_spots
from sclinguist_core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

__all__ = [
    "Bounds",
    "Feature",
    "Panel",
    "Style",
    "difference",
    "draw",
    "histology_figure",
    "montage_figure",
    "overlay_figure",
    "panel_colours",
    "save_figure",
    "scale_bar_length",
    "tissue_bounds",
]

# Space in inches: between panels and around all of them, above and below each, for a title of all.
GAP, MARGIN = 0.12, 0.08
_TITLE, _BAR, _HEAD = 0.3, 0.64, 0.24
_SMALLEST_FONT = 6.0


def tissue_bounds(section: Section) -> Bounds:
    """Box around the spots with a small margin: left, right, top, bottom (y grows downwards)."""
    positions = section.positions
    low, high = positions.min(axis=0), positions.max(axis=0)
    margin = 1.5 * section.drawn_diameter + 0.01 * float((high - low).max())
    return low[0] - margin, high[0] + margin, low[1] - margin, high[1] + margin


def overlay_figure(
    section: Section,
    features: Sequence[Panel] | Feature,
    *,
    width: float = 4.0,
    columns: int = 4,
    title: str = "",
    bounds: Bounds | None = None,
    style: Style = REPORT,
) -> Figure:
    """Draw features over the histology, side by side in panels.

    Parameters
    ----------
    section
        Spots, positions and image; without an image the spots stand on the background.
    features
        One a panel, such as predicted, measured and cognate mRNA. A tuple or list of two or three
        makes one panel in which they are added up, each in its own colour.
    width
        Width of a panel in inches; the height follows from the tissue.
    columns
        Panels in a row.
    title
        Above all panels.
    bounds
        What is shown, in full-resolution pixels; by default :func:`tissue_bounds`.
    style
        How spots and tissue are drawn.

    Raises
    ------
    InputError
        If the section has no positions.
    ValueError
        If values do not have one number a spot.
    """
    from matplotlib.figure import Figure

    panels: list[Panel] = [features] if isinstance(features, Feature) else list(features)
    bounds = bounds or tissue_bounds(section)
    left, right, top, bottom = bounds
    n_columns = max(min(columns, len(panels)), 1)
    n_rows = -(-len(panels) // n_columns)
    # Laid out by hand, in inches: panels align whether or not they have a colour bar or a label.
    tissue = width * (bottom - top) / (right - left)
    cell_width, cell_height = width + GAP, _TITLE + tissue + _BAR
    head = _HEAD if title else 0.0
    total_width = cell_width * n_columns - GAP + 2 * MARGIN
    total_height = cell_height * n_rows + head + MARGIN
    figure = Figure(figsize=(total_width, total_height), facecolor=style.background)

    def axes(x: float, y: float, wide: float, high: float) -> Axes:
        """Axes at a place in inches from the lower left corner."""
        return figure.add_axes(
            (x / total_width, y / total_height, wide / total_width, high / total_height)
        )

    if title:
        title, size = _fitting(title, total_width - 2 * MARGIN, 12.0)
        figure.text(
            MARGIN / total_width,
            1 - MARGIN / total_height,
            title,
            fontsize=size,
            fontweight="bold",
            color=style.ink,
            va="top",
            parse_math=False,
        )
    titles = [_fitting(_title(panel), width, 11.0) for panel in panels]
    title_size = min((size for _, size in titles), default=11.0)
    for i, panel in enumerate(panels):
        row, column = divmod(i, n_columns)
        x, y = MARGIN + column * cell_width, (n_rows - 1 - row) * cell_height + MARGIN
        ax = axes(x, y + _BAR, width, tissue)
        scales = draw(ax, section, panel, bounds=bounds, style=style)
        ax.set_title(titles[i][0], loc="left", fontsize=title_size, parse_math=False)
        shown = features_of(panel)
        share = 0.8 * width / max(len(scales), 1)
        for j, (scale, feature) in enumerate(zip(scales, shown, strict=False)):
            inset = 0.0 if len(scales) == 1 else 0.08 * share
            bar_x = x + 0.1 * width + j * share + inset
            bar_ax = axes(bar_x, y + _BAR - 0.14, share - 2 * inset, 0.07)
            label = feature.unit if len(scales) == 1 else feature.title
            colour_bar(bar_ax, scale, feature, label, style)
        if i == 0:
            scale_bar(ax, section, bounds, style)
    return figure


def histology_figure(section: Section, *, width: float = 6.0) -> Figure:
    """Draw the stained section alone, cropped to the tissue, with a scale bar."""
    from matplotlib.figure import Figure

    bounds = tissue_bounds(section)
    left, right, top, bottom = bounds
    figure = Figure(figsize=(width, width * (bottom - top) / (right - left)), layout="constrained")
    ax = figure.subplots()
    _draw_image(ax, section, bounds, 1.0)
    _frame(ax, bounds)
    scale_bar(ax, section, bounds, REPORT)
    return figure


def montage_figure(
    section: Section, values: pd.DataFrame, *, unit: str, columns: int = 5, width: float = 2.3
) -> Figure:
    """Draw many features as small panels, one for each column of ``values`` (n, features)."""
    features = [Feature(values=values[name], title=str(name), unit=unit) for name in values]
    return overlay_figure(section, features, width=width, columns=columns)


def draw(
    ax: Axes,
    section: Section,
    panel: Panel,
    *,
    bounds: Bounds | None = None,
    style: Style = REPORT,
) -> list[ScalarMappable]:
    """Draw a panel into given axes; returns what the colour bars need, nothing without values.

    Parameters
    ----------
    ax
        Where.
    section, panel, bounds, style
        As for :func:`overlay_figure`.
    """
    features = features_of(panel)
    bounds = bounds or tissue_bounds(section)
    _draw_image(ax, section, bounds, style.tissue)
    _frame(ax, bounds)
    ax.set_title(
        _title(panel),
        fontsize=11,
        color=style.ink,
        loc="left",
        parse_math=False,
    )
    missing = next((feature.missing for feature in features if feature.values is None), None)
    if missing is not None:
        ax.text(
            0.5,
            0.5,
            missing,
            transform=ax.transAxes,
            ha="center",
            va="center",
            fontsize=10,
            color=REPORT.ink,
            bbox={"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.5"},
            parse_math=False,
        )
        return []
    for feature in features:
        shape = np.asarray(feature.values).shape
        if shape != (section.n_obs,):
            raise ValueError(
                f"values of '{feature.title}' have shape {shape}, expected ({section.n_obs},)"
            )
    colours = panel_colours(panel, style)
    draw_spots(ax, section, colours, bounds, style)
    return colour_scales(features)


def save_figure(
    figure: Figure,
    path: str | Path,
    *,
    dpi: int = 200,
    format: Literal["png", "svg", "pdf"] | None = None,
) -> Path:
    """Write a figure as PNG, SVG or PDF (by the suffix); complete or not at all.

    Parameters
    ----------
    figure, path
        What and where.
    dpi
        Dots per inch of the PNG, and of the images inside an SVG or PDF.
    format
        Overrides the suffix.
    """
    path = Path(path)
    kind = format or path.suffix.lstrip(".").lower() or "png"
    show_all(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi, facecolor=figure.get_facecolor())
    return path


def show_all(figure: Figure) -> None:
    """Write out characters in texts that do not show: some cannot be drawn, or are no XML."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        lines = text.get_text().split("\n")
        text.set_text("\n".join(map(visible, lines)))


def _title(panel: Panel) -> str:
    return " + ".join(feature.title for feature in features_of(panel))


def _fitting(text: str, inches: float, size: float) -> tuple[str, float]:
    """Make a line of text fit a width: a smaller font, down to 6 points, then fewer letters."""
    of_letter = 0.58 / 72  # width of a usual letter in inches, for a point of font size
    size = max(min(size, inches / (of_letter * max(len(text), 1))), _SMALLEST_FONT)
    most = int(inches / (of_letter * size))
    return (text if len(text) <= most else text[: max(most - 1, 0)].rstrip() + "…"), size


def _draw_image(ax: Axes, section: Section, bounds: Bounds, opacity: float | None) -> None:
    """Histology below the shown box; without opacity it is faded to pale grey."""
    image = section.image
    if image is None or opacity == 0:
        return
    # Only the part that is shown is drawn: a full slide would cost time and file size.
    scale, pixels = image.scale, image.pixels
    left, right, top, bottom = (round(edge * scale) for edge in bounds)
    rows = slice(max(top, 0), min(bottom, pixels.shape[0]))
    cols = slice(max(left, 0), min(right, pixels.shape[1]))
    part = pixels[rows, cols]
    if part.size == 0:
        return
    if opacity is None:
        grey = part.astype(np.float32).mean(axis=2, keepdims=True)
        pale = 255 - 0.45 * (255 - (0.8 * grey + 0.2 * part))
        part = pale.astype(np.uint8)
    extent = (
        cols.start / scale,
        (cols.start + part.shape[1]) / scale,
        (rows.start + part.shape[0]) / scale,
        rows.start / scale,
    )
    ax.imshow(part, extent=extent, interpolation="antialiased", alpha=opacity)


def _frame(ax: Axes, bounds: Bounds) -> None:
    left, right, top, bottom = bounds
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_aspect("equal")
    ax.set_axis_off()
