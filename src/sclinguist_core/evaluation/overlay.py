"""One feature a picture: spots at their true size over the histology.

Figures are matplotlib ``Figure`` objects made without pyplot, so nothing global (backend, open
windows, style) changes and worker threads may draw.

Positions and sizes are in full-resolution pixels, the section's own coordinates; the image is
placed below them by its scale.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from sclinguist_core.data.section import Section
from sclinguist_core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

SEQUENTIAL = "magma"
"""Default colour map: perceptually uniform, readable with colour-vision deficiency and in grey."""
DIVERGING = "RdBu_r"
"""For differences: white is zero, red more, blue less."""

# Space around a panel, in inches.
_GAP, _TITLE, _BAR = 0.12, 0.3, 0.64

_INK = "#1c2430"
_NO_VALUE = "#d5d9df"
_RASTER_FROM = 20_000
_BINNED_FROM = 150_000


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What one panel shows.

    Attributes
    ----------
    values
        (n,) one number a spot; NaN is drawn grey. None makes a panel that says ``missing``.
    title, unit
        Above the panel, and at its colour bar.
    diverging
        Symmetric limits around 0 and a diverging colour map.
    limits
        Ends of the colour map; by default :func:`colour_limits` of the values.
    cmap
        Name of a matplotlib colour map; by default chosen by ``diverging``.
    missing
        Why there are no values.
    """

    values: npt.ArrayLike | None
    title: str
    unit: str = ""
    diverging: bool = False
    limits: tuple[float, float] | None = None
    cmap: str | None = None
    missing: str = "not available"


def colour_limits(
    values: npt.ArrayLike,
    *,
    percentiles: tuple[float, float] = (1.0, 99.0),
    diverging: bool = False,
) -> tuple[float, float]:
    """Robust ends of a colour map.

    The 1st and 99th percentile, so that single bright spots do not darken the rest. Where most
    spots share the lowest value (a gene that few express), the upper end is the 95th percentile
    of the *others*: the few are seen instead of an all-black section.

    Returns
    -------
    low, high
        With low < high, also for constant or absent values.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    x = x[np.isfinite(x)]
    if x.size == 0:
        return (-1.0, 1.0) if diverging else (0.0, 1.0)
    if diverging:
        reach = float(np.percentile(np.abs(x), percentiles[1])) or float(np.abs(x).max()) or 1.0
        return -reach, reach
    low, high = (float(v) for v in np.percentile(x, percentiles))
    floor = float(x.min())
    others = x[x > floor]
    if others.size and others.size < 0.5 * x.size:
        low, high = floor, float(np.percentile(others, 95))
    if not high > low:
        high = float(x.max())
    return (low, high) if high > low else (low, low + 1.0)


def tissue_bounds(section: Section) -> tuple[float, float, float, float]:
    """Box around the spots with a small margin: left, right, top, bottom (y grows downwards)."""
    positions = section.positions
    low, high = positions.min(axis=0), positions.max(axis=0)
    margin = 1.5 * section.drawn_diameter + 0.01 * float((high - low).max())
    return low[0] - margin, high[0] + margin, low[1] - margin, high[1] + margin


def overlay_figure(
    section: Section, features: Sequence[Feature] | Feature, *, width: float = 4.0, columns: int = 4
) -> Figure:
    """Draw features side by side over the histology, one panel each.

    Parameters
    ----------
    section
        Spots, positions and image; without an image the spots stand on white.
    features
        One a panel, such as predicted, measured and cognate mRNA.
    width
        Width of a panel in inches; the height follows from the tissue.
    columns
        Panels in a row.

    Raises
    ------
    InputError
        If the section has no positions.
    """
    from matplotlib.figure import Figure

    features = [features] if isinstance(features, Feature) else list(features)
    left, right, top, bottom = tissue_bounds(section)
    n_columns = max(min(columns, len(features)), 1)
    n_rows = -(-len(features) // n_columns)
    # Laid out by hand, in inches: panels align whether or not they have a colour bar or a label.
    tissue = width * (bottom - top) / (right - left)
    cell_width, cell_height = width + _GAP, _TITLE + tissue + _BAR
    total_width, total_height = cell_width * n_columns - _GAP, cell_height * n_rows
    figure = Figure(figsize=(total_width, total_height))
    for i, feature in enumerate(features):
        row, column = divmod(i, n_columns)
        x, y = column * cell_width, total_height - (row + 1) * cell_height
        ax = figure.add_axes(
            (
                x / total_width,
                (y + _BAR) / total_height,
                width / total_width,
                tissue / total_height,
            )
        )
        mappable = draw(ax, section, feature)
        if mappable is not None:
            bar_ax = figure.add_axes(
                (
                    (x + 0.1 * width) / total_width,
                    (y + _BAR - 0.14) / total_height,
                    0.8 * width / total_width,
                    0.07 / total_height,
                )
            )
            _colour_bar(bar_ax, mappable, feature)
        if i == 0:
            _scale_bar(ax, section)
    return figure


def histology_figure(section: Section, *, width: float = 6.0) -> Figure:
    """Draw the stained section alone, cropped to the tissue, with a scale bar."""
    from matplotlib.figure import Figure

    left, right, top, bottom = tissue_bounds(section)
    figure = Figure(figsize=(width, width * (bottom - top) / (right - left)), layout="constrained")
    ax = figure.subplots()
    _draw_image(ax, section)
    _frame(ax, section)
    _scale_bar(ax, section)
    return figure


def montage_figure(
    section: Section, values: pd.DataFrame, *, unit: str, columns: int = 5, width: float = 2.3
) -> Figure:
    """Draw many features as small panels, one for each column of ``values`` (n, features)."""
    features = [Feature(values=values[name], title=str(name), unit=unit) for name in values]
    return overlay_figure(section, features, width=width, columns=columns)


def draw(ax: Axes, section: Section, feature: Feature) -> ScalarMappable | None:
    """Draw one feature into given axes; returns what a colour bar needs, None without values."""
    has_values = feature.values is not None
    _draw_image(ax, section, faded=True)
    _frame(ax, section)
    ax.set_title(feature.title, fontsize=11, color=_INK, loc="left", parse_math=False)
    if not has_values:
        ax.text(
            0.5,
            0.5,
            feature.missing,
            transform=ax.transAxes,
            ha="center",
            va="center",
            fontsize=10,
            color=_INK,
            bbox={"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.5"},
            parse_math=False,
        )
        return None
    values = np.asarray(feature.values, dtype=np.float64)
    if values.shape != (section.n_obs,):
        raise ValueError(
            f"values of '{feature.title}' have shape {values.shape}, expected ({section.n_obs},)"
        )
    limits = feature.limits or colour_limits(values, diverging=feature.diverging)
    cmap = feature.cmap or (DIVERGING if feature.diverging else SEQUENTIAL)
    return _draw_spots(ax, section, values, limits, cmap)


def save_figure(
    figure: Figure, path: str | Path, *, dpi: int = 200, format: Literal["png", "svg"] | None = None
) -> Path:
    """Write a figure as PNG or SVG (by the suffix); complete or not at all.

    Parameters
    ----------
    figure, path
        What and where.
    dpi
        Dots per inch of the PNG, and of the images inside an SVG.
    format
        Overrides the suffix.
    """
    path = Path(path)
    kind = format or path.suffix.lstrip(".").lower() or "png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi, facecolor="white")
    return path


def _draw_image(ax: Axes, section: Section, *, faded: bool = False) -> None:
    """Histology below the tissue's box; faded to pale grey so that colour belongs to the values."""
    image = section.image
    if image is None:
        return
    # Only the part under the tissue is drawn: a full slide would cost time and file size.
    scale, pixels = image.scale, image.pixels
    left, right, top, bottom = (round(edge * scale) for edge in tissue_bounds(section))
    rows = slice(max(top, 0), min(bottom, pixels.shape[0]))
    cols = slice(max(left, 0), min(right, pixels.shape[1]))
    part = pixels[rows, cols]
    if part.size == 0:
        return
    if faded:
        grey = part.astype(np.float32).mean(axis=2, keepdims=True)
        pale = 255 - 0.45 * (255 - (0.8 * grey + 0.2 * part))
        part = pale.astype(np.uint8)
    extent = (
        cols.start / scale,
        (cols.start + part.shape[1]) / scale,
        (rows.start + part.shape[0]) / scale,
        rows.start / scale,
    )
    ax.imshow(part, extent=extent, interpolation="antialiased")


def _frame(ax: Axes, section: Section) -> None:
    left, right, top, bottom = tissue_bounds(section)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_aspect("equal")
    ax.set_axis_off()


def _draw_spots(
    ax: Axes, section: Section, values: np.ndarray, limits: tuple[float, float], cmap: str
) -> ScalarMappable:
    import matplotlib as mpl
    from matplotlib.collections import Collection, EllipseCollection, PolyCollection
    from matplotlib.colors import Normalize

    colours = mpl.colormaps[cmap].with_extremes(bad=_NO_VALUE)
    norm = Normalize(*limits)
    positions, size = section.positions, section.drawn_diameter
    if len(positions) > _BINNED_FROM:
        return _draw_binned(ax, section, values, norm, colours)
    collection: Collection
    if section.assay == "visium_hd":
        corners = 0.5 * size * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        collection = PolyCollection(list(positions[:, None, :] + corners), edgecolors="none")
    else:
        diameters = np.full(len(positions), size)
        collection = EllipseCollection(
            diameters,
            diameters,
            np.zeros(len(positions)),
            offsets=positions,
            offset_transform=ax.transData,
            units="xy",
            edgecolors="none",
        )
    collection.set_array(np.ma.masked_invalid(values))
    collection.set_cmap(colours)
    collection.set_norm(norm)
    collection.set_rasterized(len(positions) > _RASTER_FROM)
    ax.add_collection(collection, autolim=False)
    return collection


def _draw_binned(
    ax: Axes, section: Section, values: np.ndarray, norm: Any, colours: Any, n_bins: int = 700
) -> ScalarMappable:
    """Mean of the cells in each small square: drawing a million circles helps nobody."""
    left, right, top, bottom = tissue_bounds(section)
    side = max(right - left, bottom - top) / n_bins
    n_x, n_y = int((right - left) / side) + 1, int((bottom - top) / side) + 1
    positions = section.positions
    index = ((positions[:, 1] - top) // side).astype(int) * n_x
    index += ((positions[:, 0] - left) // side).astype(int)
    known = np.isfinite(values)
    count = np.bincount(index[known], minlength=n_x * n_y)[: n_x * n_y]
    total = np.bincount(index[known], weights=values[known], minlength=n_x * n_y)[: n_x * n_y]
    mean = np.ma.masked_array(total / np.maximum(count, 1), count == 0).reshape(n_y, n_x)
    extent = (left, left + n_x * side, top + n_y * side, top)
    empty_is_clear = colours.with_extremes(bad=(0, 0, 0, 0))
    return ax.imshow(mean, extent=extent, cmap=empty_is_clear, norm=norm, interpolation="nearest")


def _colour_bar(bar_ax: Axes, mappable: ScalarMappable, feature: Feature) -> None:
    from matplotlib.colorbar import Colorbar
    from matplotlib.ticker import MaxNLocator

    values = np.asarray(feature.values, dtype=np.float64)
    values = values[np.isfinite(values)]
    low, high = mappable.get_clim()
    below = bool(values.size and values.min() < low)
    above = bool(values.size and values.max() > high)
    extend: Literal["neither", "min", "max", "both"] = "neither"
    if below or above:
        extend = "both" if below and above else ("min" if below else "max")
    bar = Colorbar(bar_ax, mappable, orientation="horizontal", extend=extend, ticks=MaxNLocator(4))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2, colors=_INK)
    if feature.unit:
        inches = bar_ax.bbox.width / bar_ax.figure.dpi
        lines = textwrap.wrap(feature.unit, max(int(16 * inches), 8), max_lines=2, placeholder=" …")
        bar.ax.set_xlabel(
            "\n".join(lines), fontsize=8, color=_INK, labelpad=1, linespacing=1.05, parse_math=False
        )


def scale_bar_length(width_in_microns: float) -> float:
    """Choose a round length (1, 2 or 5 times a power of ten, in µm), about a fifth of the width."""
    target = width_in_microns / 5
    power = 10 ** np.floor(np.log10(target))
    return float(max(step * power for step in (1, 2, 5) if step * power <= target))


def _scale_bar(ax: Axes, section: Section) -> None:
    """Only where the size of a pixel is known: a guessed scale bar is worse than none."""
    if not section.microns_per_pixel:
        return
    from matplotlib.patheffects import withStroke

    left, right, top, bottom = tissue_bounds(section)
    length = scale_bar_length((right - left) * section.microns_per_pixel)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    start, y = left + 0.03 * (right - left), bottom - 0.03 * (bottom - top)
    halo = [withStroke(linewidth=4, foreground="white")]
    end = start + length / section.microns_per_pixel
    ax.plot([start, end], [y, y], color="black", lw=2.2, path_effects=halo, solid_capstyle="butt")
    ax.annotate(
        text,
        ((start + end) / 2, y),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8.5,
        color="black",
        path_effects=halo,
    )
