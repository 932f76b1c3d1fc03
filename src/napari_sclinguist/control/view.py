"""How a section is coloured: a value that is replaced, never changed; and the picture it gives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sclinguist_core.evaluation.colouring import (
    CHANNEL_COLOURS,
    COLORMAPS,
    DIVERGING_COLORMAPS,
    Channel,
    blend,
    certainty,
    colour_limits,
    fade,
    shade,
)

if TYPE_CHECKING:
    from napari_sclinguist.control.catalogue import Catalogue
    from napari_sclinguist.control.entries import Entry

MAX_CHANNELS = len(CHANNEL_COLOURS)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What is shown of a section, and how.

    Attributes
    ----------
    keys
        Keys of one to three features; several are added up in `CHANNEL_COLOURS`.
    limits
        Values at the ends of the colours, by key; those of `colour_limits` where not set.
    thresholds
        Least value that counts as positive, by key.
    colormap, diverging_colormap
        Colours of a single feature; the second for changes and differences.
    opacity
        Of the spots, 0 to 1.
    size
        Of the spots, relative to their true diameter.
    tissue
        Opacity of the tissue image, 0 to 1: less of it lets the colours stand out.
    fade
        Let rows fade that the model does not know.
    """

    keys: tuple[str, ...] = ()
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    colormap: str = COLORMAPS[0]
    diverging_colormap: str = DIVERGING_COLORMAPS[0]
    opacity: float = 0.9
    size: float = 1.0
    tissue: float = 1.0
    fade: bool = False

    def __post_init__(self) -> None:
        if len(self.keys) > MAX_CHANNELS:
            raise ValueError(f"keys: found {len(self.keys)}, expected at most {MAX_CHANNELS}.")

    def showing(self, *keys: str) -> View:
        """Return the same view of other features."""
        return replace(self, keys=keys)

    def with_limits(self, key: str, limits: tuple[float, float] | None) -> View:
        """Other limits of a feature; None goes back to the default ones."""
        rest = {name: value for name, value in self.limits.items() if name != key}
        return replace(self, limits=rest if limits is None else {**rest, key: limits})

    def with_threshold(self, key: str, threshold: float | None) -> View:
        """Another threshold of a feature; None takes it away."""
        rest = {name: value for name, value in self.thresholds.items() if name != key}
        return replace(self, thresholds=rest if threshold is None else {**rest, key: threshold})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``uns`` of a saved table."""
        return {
            "keys": list(self.keys),
            "limits": {key: list(value) for key, value in self.limits.items()},
            "thresholds": dict(self.thresholds),
            "colormap": self.colormap,
            "diverging_colormap": self.diverging_colormap,
            "opacity": self.opacity,
            "size": self.size,
            "tissue": self.tissue,
            "fade": self.fade,
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> View:
        """Read what `to_dict` gave; what is missing or damaged takes its default."""
        view = cls()
        try:
            return cls(
                keys=tuple(map(str, saved.get("keys", ())))[:MAX_CHANNELS],
                limits={
                    str(key): (float(low), float(high))
                    for key, (low, high) in dict(saved.get("limits", {})).items()
                },
                thresholds={
                    str(key): float(value)
                    for key, value in dict(saved.get("thresholds", {})).items()
                },
                colormap=_known(saved.get("colormap"), COLORMAPS),
                diverging_colormap=_known(saved.get("diverging_colormap"), DIVERGING_COLORMAPS),
                opacity=float(np.clip(float(saved.get("opacity", view.opacity)), 0.0, 1.0)),
                size=float(np.clip(float(saved.get("size", view.size)), 0.1, 10.0)),
                tissue=float(np.clip(float(saved.get("tissue", view.tissue)), 0.0, 1.0)),
                fade=bool(saved.get("fade", view.fade)),
            )
        except (TypeError, ValueError):
            return view


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """What a view looks like: handed to the layers.

    Attributes
    ----------
    entries
        Features shown.
    channels
        Their values, limits and thresholds.
    colormap
        Colour map of a single feature; None where several are added up.
    certainty
        (n,) float32, 0 to 1, by which the rows fade; None where they do not.
    opacity, size
        See `View`.
    """

    entries: tuple[Entry, ...]
    channels: tuple[Channel, ...]
    colormap: str | None
    certainty: np.ndarray | None
    opacity: float
    size: float

    @cached_property
    def colours(self) -> np.ndarray:
        """(n, 4) uint8 RGBA of the rows; worked out when first asked for."""
        if self.colormap is None:
            colours = blend(self.channels)
        else:
            colours = shade(self.channels[0], self.colormap)
        return colours if self.certainty is None else fade(colours, self.certainty)

    @property
    def scalar(self) -> bool:
        """Whether the colours follow from one feature and its colour map alone.

        A layer may then map the values itself: nothing fades, no threshold cuts.
        """
        one = self.colormap is not None and self.channels[0].threshold is None
        return one and self.certainty is None

    @property
    def title(self) -> str:
        """Names of the features; the unit of a single one in a second line."""
        labels = " + ".join(entry.label for entry in self.entries)
        unit = self.entries[0].unit if len(self.entries) == 1 else ""
        return f"{labels}\n{unit}" if unit else labels


def limits_of(catalogue: Catalogue, view: View, key: str) -> tuple[float, float]:
    """Limits that a view gives to a feature: the chosen ones, or robust ones of its values."""
    chosen = view.limits.get(key)
    if chosen is not None:
        return chosen
    diverging = catalogue.entry(key).diverging
    return colour_limits(catalogue.values(key), diverging=diverging)


def picture(catalogue: Catalogue, view: View) -> Picture:
    """Work out the colours of a view.

    Raises
    ------
    KeyError
        If the section has no such feature.
    ValueError
        If the view shows nothing.
    """
    if not view.keys:
        raise ValueError("keys: the view shows no feature, expected at least one.")
    entries = tuple(catalogue.entry(key) for key in view.keys)
    channels = tuple(
        Channel(
            values=catalogue.values(key),
            limits=limits_of(catalogue, view, key),
            threshold=view.thresholds.get(key),
        )
        for key in view.keys
    )
    colormap = None
    if len(channels) == 1:
        colormap = view.diverging_colormap if entries[0].diverging else view.colormap
    return Picture(
        entries=entries,
        channels=channels,
        colormap=colormap,
        certainty=_certainty(catalogue, entries) if view.fade else None,
        opacity=view.opacity,
        size=view.size,
    )


def _certainty(catalogue: Catalogue, entries: tuple[Entry, ...]) -> np.ndarray | None:
    """Least certainty of the predicted features shown; measured ones do not fade."""
    found = []
    for entry in entries:
        spread = catalogue.spread(entry)
        if spread is not None:
            found.append(certainty(catalogue.ood, spread))
    return np.min(found, axis=0) if found else None


def _known(name: object, offered: tuple[str, ...]) -> str:
    return name if isinstance(name, str) and name in offered else offered[0]
