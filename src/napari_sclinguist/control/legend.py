"""What stands in the legend: colours, limits and threshold of each feature that is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sclinguist.control.distribution import (
    Distribution,
    describe_positive,
    distribution,
    suggest_threshold,
)
from napari_sclinguist.control.entries import Entry, Kind
from sclinguist_core.evaluation.colouring import CHANNEL_COLOURS, colour_limits, lookup_table

if TYPE_CHECKING:
    from napari_sclinguist.control.exploring import Exploring
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.view import View

SAME_PROTEIN = (Kind.PREDICTED, Kind.MEASURED, Kind.GENE)
"""Kinds between which the legend offers to switch."""
TRUST_WORDS = {
    "well": "well predicted",
    "fairly": "fairly predicted",
    "poorly": "poorly predicted",
    "untested": "untested",
    "not verifiable here": "not verifiable here",
}
TRUST_TIPS = {
    "well": "Predictions of this protein agreed well with measurements that the model had not seen",
    "fairly": "Predictions of this protein agreed fairly with measurements that the model had not "
    "seen",
    "poorly": "Predictions of this protein agreed poorly with measurements that the model had not "
    "seen",
    "untested": "No measurement was there to compare predictions of this protein with",
    "not verifiable here": "This section seems to lack the cells that carry this protein",
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LegendItem:
    """A feature that is shown.

    Attributes
    ----------
    entry
        What it is.
    colour
        Its colour where several features are added up; "" for a single one.
    table
        (256, 4) uint8 RGBA: the colours between its limits.
    values
        (n,) float32; NaN where unknown.
    distribution
        Of the values.
    limits
        Values at the two ends of the colours.
    chosen
        Whether somebody chose the limits.
    threshold
        Least positive value, or None.
    positive
        How many rows are positive, "" without a threshold.
    others
        The same protein as other kinds.
    """

    entry: Entry
    colour: str
    table: np.ndarray
    values: np.ndarray
    distribution: Distribution
    limits: tuple[float, float]
    chosen: bool
    threshold: float | None
    positive: str
    others: tuple[Entry, ...]

    @property
    def trust(self) -> str:
        """What is known about a predicted protein in this section; "" for other kinds."""
        parts = [TRUST_WORDS.get(self.entry.trust, self.entry.trust)]
        if np.isfinite(self.entry.expected_r):
            parts.append(f"expected r {self.entry.expected_r:.2f}")
        return ", ".join(filter(None, parts))


class Legend:
    """Legend of the section that is explored, and what can be changed in it.

    Parameters
    ----------
    exploring
        Whose section it is about.
    """

    def __init__(self, exploring: Exploring) -> None:
        self.exploring = exploring
        self._known: dict[str, tuple[np.ndarray, tuple[float, float]]] = {}

    @property
    def opened(self) -> OpenSection | None:
        """The section that it is about."""
        return self.exploring.opened

    @property
    def view(self) -> View | None:
        """What is shown, and how; None without a section."""
        return None if self.opened is None else self.opened.view

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Features that are shown."""
        if self.opened is None:
            return ()
        # Between a prediction's arrival and its picture the old features may be gone.
        catalogue = self.opened.catalogue
        return tuple(catalogue.entry(key) for key in self.opened.view.keys if key in catalogue)

    def items(self) -> tuple[LegendItem, ...]:
        """One for each feature that is shown."""
        opened, entries = self.opened, self.entries
        if opened is None:
            return ()
        colours = CHANNEL_COLOURS if len(entries) > 1 else ("",)
        return tuple(
            self._item(opened, entry.key, colour)
            for entry, colour in zip(entries, colours, strict=False)
        )

    @property
    def can_fade(self) -> bool:
        """Whether a predicted feature with a known error is shown."""
        opened = self.opened
        return opened is not None and any(
            opened.catalogue.spread(entry) is not None for entry in self.entries
        )

    @property
    def has_tissue(self) -> bool:
        """Whether there is a tissue image."""
        return self.opened is not None and self.opened.image_layer is not None

    def restyle(self, **changes: Any) -> None:
        """Change fields of the view, such as ``opacity``."""
        if self.view is not None:
            self._set(replace(self.view, **changes))

    def set_limits(self, key: str, limits: tuple[float, float] | None) -> None:
        """Choose the values at the ends of the colours; None goes back to the percentiles.

        A feature whose natural middle is zero keeps it there: the end that moved more decides.
        """
        if self.view is None or self.opened is None or key not in self.opened.catalogue:
            return
        if limits is not None:
            low, high = min(limits), max(limits)
            if self.opened.catalogue.entry(key).diverging:
                before = self.view.limits.get(key) or self._default_limits(self.opened, key)
                low_moved = abs(low - before[0]) > abs(high - before[1])
                reach = abs(low if low_moved else high)
                low, high = -reach, reach
            limits = (low, high)
        self._set(self.view.with_limits(key, limits))

    def set_threshold(self, key: str, threshold: float | None) -> None:
        """Choose where positive begins; None takes the threshold away."""
        if self.view is not None:
            self._set(self.view.with_threshold(key, threshold))

    def propose_threshold(self, key: str) -> None:
        """Set a threshold where the values fall into two groups."""
        if self.opened is not None and key in self.opened.catalogue:
            self.set_threshold(key, suggest_threshold(self.opened.catalogue.values(key)))

    def _set(self, view: View) -> None:
        if self.opened is None or not view.keys:
            return
        try:
            self.opened.set_view(view)
        except Exception as error:  # a damaged column must not take the window down
            self.exploring.workspace.report(error, "Colouring the section")

    def _item(self, opened: OpenSection, key: str, colour: str) -> LegendItem:
        catalogue, view = opened.catalogue, opened.view
        entry, values = catalogue.entry(key), catalogue.values(key)
        default = self._default_limits(opened, key)
        limits = view.limits.get(key, default)
        threshold = view.thresholds.get(key)
        ends = [*default, *limits] if threshold is None else [*default, *limits, threshold]
        if colour:
            table = ramp_to(colour)
        else:
            table = lookup_table(view.diverging_colormap if entry.diverging else view.colormap)
        partners = (catalogue.partner(entry, kind) for kind in SAME_PROTEIN)
        positive = ""
        if threshold is not None:
            positive = describe_positive(values, threshold, opened.noun)
        return LegendItem(
            entry=entry,
            colour=colour,
            table=table,
            values=values,
            distribution=distribution(values, (min(ends), max(ends))),
            limits=limits,
            chosen=key in view.limits,
            threshold=threshold,
            positive=positive,
            others=tuple(one for one in partners if one is not None and one.key != key),
        )

    def _default_limits(self, opened: OpenSection, key: str) -> tuple[float, float]:
        """Percentiles of the values; kept while they are shown, since legends follow a drag."""
        values = opened.catalogue.values(key)
        known = self._known.get(key)
        if known is None or known[0] is not values:
            diverging = opened.catalogue.entry(key).diverging
            known = (values, colour_limits(values, diverging=diverging))
            shown = {one: self._known[one] for one in opened.view.keys if one in self._known}
            self._known = shown | {key: known}
        return known[1]


@cache
def ramp_to(colour: str) -> np.ndarray:
    """(256, 4) uint8 RGBA from black to a colour: one channel of several."""
    from matplotlib.colors import to_rgba

    strength = np.linspace(0.0, 255.0, 256)[:, None]
    table = np.hstack([strength * to_rgba(colour)[:3], np.full((256, 1), 255.0)])
    return np.rint(table).astype(np.uint8)
