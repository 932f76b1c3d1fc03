"""The window's picture as a figure: drawn by matplotlib, the same with and without a window."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sclinguist.carriers import world_scale
from napari_sclinguist.control.agreement import default_pair
from napari_sclinguist.control.jobs import Report
from napari_sclinguist.control.view import limits_of
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_sclinguist.control.catalogue import Catalogue
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.view import View
    from sclinguist_core.data.section import Section
    from sclinguist_core.evaluation.overlay import Bounds, Feature, Panel, Style

FORMATS = ("png", "svg", "pdf")
DPIS = (150, 300, 600)
MOST_PIXELS = 300_000_000
_CM = 2.54


class Content(StrEnum):
    """What the panels of a figure show."""

    SCREEN = "as on screen"
    EACH = "each feature by itself"
    COMPARISON = "two features and their difference"


class Area(StrEnum):
    """Which part of the section is drawn."""

    TISSUE = "whole tissue"
    IN_VIEW = "what is in view"


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureOptions:
    """How a figure is wanted.

    Attributes
    ----------
    content, area
        What is drawn.
    width
        Of the whole figure, in cm.
    dpi
        Dots per inch; in SVG and PDF of the images alone.
    background
        ``"white"`` for paper, ``"black"`` as on the dark screen.
    title
        Above the panels; "" for none.
    """

    content: Content = Content.SCREEN
    area: Area = Area.TISSUE
    width: float = 16.0
    dpi: int = 300
    background: Literal["white", "black"] = "white"
    title: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A figure, worked out so far that it can be drawn here or written down as a script.

    Attributes
    ----------
    view
        Limits, thresholds, colours.
    panels
        Keys of the features in each panel.
    difference
        Whether a last panel shows the difference of the first two.
    bounds
        Part that is drawn, in full-resolution pixels; None for the whole tissue.
    panel_width
        In inches.
    style, title, dpi
        As in `FigureOptions`.
    """

    view: View
    panels: tuple[tuple[str, ...], ...]
    difference: bool
    bounds: Bounds | None
    panel_width: float
    style: Style
    title: str
    dpi: int

    @property
    def keys(self) -> tuple[str, ...]:
        """All features, each once."""
        return tuple(dict.fromkeys(key for panel in self.panels for key in panel))


def plan_figure(opened: OpenSection, options: FigureOptions) -> Plan:
    """Work out what a figure of the present view shows.

    Raises
    ------
    InputError
        If the view shows nothing, there is nothing to compare with, or the picture would be
        too large.
    """
    from sclinguist_core.evaluation.overlay import GAP, MARGIN, Style, tissue_bounds

    view, section = opened.view, opened.section
    if not view.keys:
        raise InputError(f"Nothing of '{opened.name}' is shown: choose a feature in Explore first.")
    compared = options.content is Content.COMPARISON
    if compared:
        panels = tuple((key,) for key in compared_keys(opened))
        # As the Compare tab shows them.
        view = replace(view, thresholds={}, fade=False)
    elif options.content is Content.EACH:
        panels = tuple((key,) for key in view.keys)
    else:
        panels = (view.keys,)
    n_panels = len(panels) + compared
    total = options.width / _CM - 2 * MARGIN
    bounds = None if options.area is Area.TISSUE else bounds_in_view(opened)
    left, right, top, bottom = bounds or tissue_bounds(section)
    width = (total + GAP) / n_panels - GAP
    pixels = total * options.dpi * (width * (bottom - top) / (right - left) + 1.3) * options.dpi
    if pixels > MOST_PIXELS:
        raise InputError(
            f"The figure would have {pixels / 1e6:,.0f} million pixels, expected at most "
            f"{MOST_PIXELS / 1e6:,.0f}: choose a smaller width or fewer dots per inch."
        )
    style = Style(
        size=view.size,
        opacity=view.opacity,
        tissue=view.tissue,
        unknown=None,
        background=options.background,
    )
    return Plan(
        view=view,
        panels=panels,
        difference=compared,
        bounds=bounds,
        panel_width=round(width, 4),
        style=style,
        title=_honest_title(options.title, section),
        dpi=options.dpi,
    )


def _honest_title(title: str, section: Section) -> str:
    """Call simulated data so: they are labelled wherever they are shown."""
    if not section.table.uns.get("simulated") or "simulated" in title.lower():
        return title
    return f"{title} (simulated data)".strip()


def compared_keys(opened: OpenSection) -> tuple[str, str]:
    """Find the two features to compare: those shown, or the shown one and its counterpart.

    Raises
    ------
    InputError
        If the shown feature has no counterpart.
    """
    keys = opened.view.keys
    if len(keys) > 1:
        return keys[0], keys[1]
    pair = default_pair(opened.catalogue, keys[0])
    if not pair.complete:
        label = opened.catalogue.entry(keys[0]).label
        raise InputError(
            f"{label} has nothing to be compared with in '{opened.name}': show two features in "
            "Explore, then export again."
        )
    return pair.a, pair.b


def bounds_in_view(opened: OpenSection) -> Bounds:
    """Part of a section that the camera sees, cut to the tissue and its image.

    Raises
    ------
    InputError
        If nothing of the section is in view.
    """
    from sclinguist_core.evaluation.overlay import tissue_bounds

    viewer, section = opened.viewer, opened.section
    camera = viewer.scene.camera
    height, width = np.array(viewer.canvas.viewbox_size(viewer.layers)) / camera.zoom
    y, x = camera.center[-2:]
    seen = np.array([x - width / 2, x + width / 2, y - height / 2, y + height / 2])
    left, right, top, bottom = seen / world_scale(section)
    there = np.array(tissue_bounds(section))
    if section.image is not None:
        rows, columns = np.array(section.image.shape) / section.image.scale
        there = np.array(
            [min(there[0], 0), max(there[1], columns), min(there[2], 0), max(there[3], rows)]
        )
    left, right = max(left, there[0]), min(right, there[1])
    top, bottom = max(top, there[2]), min(bottom, there[3])
    if not (left < right and top < bottom):
        raise InputError(
            f"Nothing of '{opened.name}' is in view: move it into the window, or export the whole "
            "tissue."
        )
    return tuple(round(float(edge), 2) for edge in (left, right, top, bottom))


def feature_of(catalogue: Catalogue, view: View, key: str) -> Feature:
    """Give a feature the limits, threshold and colours that it has in a view."""
    from sclinguist_core.evaluation.colouring import certainty
    from sclinguist_core.evaluation.overlay import Feature

    entry = catalogue.entry(key)
    spread = catalogue.spread(entry) if view.fade else None
    return Feature(
        values=catalogue.values(key),
        title=entry.label,
        unit=entry.unit,
        diverging=entry.diverging,
        limits=limits_of(catalogue, view, key),
        cmap=view.diverging_colormap if entry.diverging else view.colormap,
        threshold=view.thresholds.get(key),
        certainty=None if spread is None else certainty(catalogue.ood, spread),
    )


def draw_figure(opened: OpenSection, plan: Plan) -> Figure:
    """Draw a planned figure; for any thread."""
    from sclinguist_core.evaluation.overlay import difference, overlay_figure

    features = {key: feature_of(opened.catalogue, plan.view, key) for key in plan.keys}
    panels: list[Panel] = [
        features[keys[0]] if len(keys) == 1 else [features[key] for key in keys]
        for keys in plan.panels
    ]
    if plan.difference:
        first, second = (features[keys[0]] for keys in plan.panels)
        between = difference(first, second)
        panels.append(replace(between, cmap=plan.view.diverging_colormap))
    return overlay_figure(
        opened.section,
        panels,
        width=plan.panel_width,
        title=plan.title,
        bounds=plan.bounds,
        style=plan.style,
    )


def figure_steps(
    opened: OpenSection, plan: Plan, path: str | os.PathLike[str]
) -> Generator[Report, None, Path]:
    """Draw a figure and write it, completely or not at all; a job.

    Raises
    ------
    InputError
        If the suffix is not one of `FORMATS`, or the file cannot be written.
    """
    from sclinguist_core.evaluation.overlay import save_figure

    target = check_target(path, FORMATS)
    total = opened.section.n_obs
    yield Report(phase="drawing", done=0, total=total)
    figure = draw_figure(opened, plan)
    yield Report(phase="writing", done=0, total=total)
    with writing_to(target):
        return save_figure(figure, target, dpi=plan.dpi)


def check_target(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """Refuse a file that could not be written, before work is spent on its content.

    Raises
    ------
    InputError
        If the suffix is another, the folder does not exist, or is not ours to write to.
    """
    target = Path(path).expanduser()
    if target.suffix.lower().lstrip(".") not in suffixes:
        known = ", ".join(f".{suffix}" for suffix in suffixes)
        raise InputError(
            f"Cannot write '{target}': its suffix is '{target.suffix}', expected one of {known}; "
            "change the name."
        )
    if not target.parent.is_dir():
        raise InputError(
            f"Cannot write '{target}': the folder '{target.parent}' does not exist; make it first."
        )
    if target.is_dir():
        raise InputError(f"Cannot write '{target}': it is a folder; choose another name.")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"Cannot write into '{target.parent}': choose another folder.")
    return target


@contextmanager
def writing_to(target: Path) -> Iterator[None]:
    """Say in one sentence why a file could not be written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"Writing '{target}' failed ({error.strerror or error}): nothing was changed; check "
            "the space and the rights there."
        ) from error
