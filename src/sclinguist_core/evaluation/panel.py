"""What a panel of an overlay shows: features, their colours, and how they are drawn.

Shapes: n spots, bins or cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sclinguist_core.evaluation.colouring import Channel, blend, colour_limits, fade, shade
from sclinguist_core.evaluation.metrics import standardise

SEQUENTIAL = "magma"
"""Default colour map: perceptually uniform, readable with colour-vision deficiency and in grey."""
DIVERGING = "RdBu_r"
"""For differences: white is zero, red more, blue less."""

_INK = {"white": "#1c2430", "black": "#e6e9ee"}
_NO_VALUE = "#d5d9df"

Bounds = tuple[float, float, float, float]
"""Left, right, top, bottom in full-resolution pixels; y grows downwards."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A feature in a panel.

    Attributes
    ----------
    values
        (n,) one number a spot; NaN is drawn in `Style.unknown`. None makes a panel that says
        ``missing``.
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
    threshold
        Least value that counts as positive; spots below it are not coloured.
    certainty
        (n,) 0 to 1: spots are the fainter the less is known of them, see
        :func:`~sclinguist_core.evaluation.colouring.certainty`.
    """

    values: npt.ArrayLike | None
    title: str
    unit: str = ""
    diverging: bool = False
    limits: tuple[float, float] | None = None
    cmap: str | None = None
    missing: str = "not available"
    threshold: float | None = None
    certainty: npt.ArrayLike | None = None

    @property
    def colormap(self) -> str:
        """Name of the colour map that is used."""
        return self.cmap or (DIVERGING if self.diverging else SEQUENTIAL)

    def channel(self) -> Channel:
        """Values, limits and threshold, as the colours are made from them."""
        values = np.asarray(self.values, dtype=np.float32)
        limits = self.limits or colour_limits(values, diverging=self.diverging)
        return Channel(values=values, limits=limits, threshold=self.threshold)


Panel = Feature | Sequence[Feature]
"""What one panel shows: a feature in its colour map, or up to three that are added up in
`CHANNEL_COLOURS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How spots and tissue are drawn.

    Attributes
    ----------
    size
        Of the spots, relative to their true diameter.
    opacity
        Of the spots, 0 to 1.
    tissue
        Opacity of the tissue image in its own colours, 0 to 1; None makes it pale and grey, so
        that colour belongs to the values alone.
    unknown
        Colour of spots without a value; None leaves them out.
    background
        ``"white"`` or ``"black"``.
    """

    size: float = 1.0
    opacity: float = 1.0
    tissue: float | None = None
    unknown: str | None = _NO_VALUE
    background: Literal["white", "black"] = "white"

    @property
    def ink(self) -> str:
        """Colour of text."""
        return _INK[self.background]


REPORT = Style()
"""Opaque spots over pale tissue on white."""


def features_of(panel: Panel) -> list[Feature]:
    """List the features of a panel, one or several."""
    return [panel] if isinstance(panel, Feature) else list(panel)


def difference(first: Feature, second: Feature) -> Feature:
    """How two features differ: z-score of the first minus that of the second, 0 where they agree.

    Raw values of two scales (a prediction, a log-ratio, mRNA) cannot be subtracted. The scores are
    over the rows of the section in which both are known; the others are NaN.
    """
    a, b = (np.asarray(side.values, dtype=np.float64) for side in (first, second))
    known = np.isfinite(a) & np.isfinite(b)
    x, y = (standardise(np.where(known, side, np.nan)[:, None]) for side in (a, b))
    return Feature(
        values=(x - y).ravel().astype(np.float32),
        title="difference",
        unit="difference of z-scores, first − second",
        diverging=True,
    )


def panel_colours(panel: Panel, style: Style = REPORT) -> np.ndarray:
    """Colours of the spots of a panel, uint8 RGBA, shape (n, 4); opacity is not in them.

    Raises
    ------
    ValueError
        If there are more features than colours to add up.
    """
    features = features_of(panel)
    channels = [feature.channel() for feature in features]
    colours = shade(channels[0], features[0].colormap) if len(features) == 1 else blend(channels)
    known = [np.asarray(f.certainty) for f in features if f.certainty is not None]
    if known:
        colours = fade(colours, np.min(known, axis=0))
    if style.unknown is not None:
        from matplotlib.colors import to_rgba

        unknown = ~np.any([np.isfinite(channel.values) for channel in channels], axis=0)
        colours[unknown] = np.multiply(to_rgba(style.unknown), 255).astype(np.uint8)
    return colours
