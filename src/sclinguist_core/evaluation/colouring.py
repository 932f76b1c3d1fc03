"""From values to colours: the same in the window, in exported figures and in reports.

Shapes: n spots, bins or cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

COLORMAPS = ("viridis", "magma", "cividis", "inferno", "plasma", "turbo", "Greys", "Reds")
"""Sequential colour maps that are offered; the first five are perceptually uniform."""
COLOUR_BLIND_SAFE = frozenset(
    {"viridis", "magma", "cividis", "inferno", "plasma", "Greys", "PuOr_r"}
)
DIVERGING_COLORMAPS = ("RdBu_r", "PuOr_r")
"""For differences and changes: the middle is zero."""
CHANNEL_COLOURS = ("#1fd13a", "#ff2bd0", "#2b62ff")
"""Colours of up to three features at once. Green and magenta are told apart with a colour-vision
deficiency, too, and add up to white; blue gives them cyan and pink."""

_PERCENTILES = (1.0, 99.0)
_ROWS_FOR_LIMITS = 50_000


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Channel:
    """One feature in a picture.

    Attributes
    ----------
    values
        (n,) float; NaN where unknown.
    limits
        Values at the two ends of the colours.
    threshold
        Rows below it count as negative and are not coloured; None for no threshold.
    """

    values: np.ndarray
    limits: tuple[float, float]
    threshold: float | None = None

    def strength(self) -> np.ndarray:
        """Place between the limits, 0 to 1, float32, shape (n,); NaN where unknown."""
        low, high = self.limits
        scale = 1.0 / (high - low) if high > low else 1.0
        strength = np.clip((np.asarray(self.values, np.float32) - low) * scale, 0.0, 1.0)
        if self.threshold is not None:
            strength[self.values < self.threshold] = 0.0
        return strength

    def positive(self) -> np.ndarray:
        """(n,) bool: at or above the threshold; all known rows where there is none."""
        known = np.isfinite(self.values)
        return known if self.threshold is None else known & (self.values >= self.threshold)


def colour_limits(
    values: npt.ArrayLike,
    *,
    percentiles: tuple[float, float] = _PERCENTILES,
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
    x = np.asarray(values).ravel()
    # Of a large section, evenly spaced rows tell the percentiles as well, in a tenth of the time.
    x = x[:: max(1, x.size // _ROWS_FOR_LIMITS)]
    x = x[np.isfinite(x)]
    if x.size == 0:
        return (-1.0, 1.0) if diverging else (0.0, 1.0)
    if diverging:
        size = np.abs(x)
        reach = float(np.percentile(size, percentiles[1])) or float(size.max()) or 1.0
        return -reach, reach
    low, high = (float(v) for v in np.percentile(x, percentiles))
    floor = float(x.min())
    others = x[x > floor]
    if others.size and others.size < 0.5 * x.size:
        low, high = floor, float(np.percentile(others, 95))
    if not high > low:
        high = float(x.max())
    return (low, high) if high > low else (low, low + 1.0)


@cache
def lookup_table(colormap: str) -> np.ndarray:
    """(256, 4) uint8 RGBA of a matplotlib colour map; read-only.

    Raises
    ------
    ValueError
        If matplotlib has no colour map of this name.
    """
    import matplotlib as mpl

    try:
        table = mpl.colormaps[colormap](np.arange(256), bytes=True)
    except KeyError:
        raise ValueError(
            f"colormap {colormap!r}: matplotlib has none of this name; expected one such as "
            f"{', '.join(COLORMAPS)}."
        ) from None
    table.setflags(write=False)
    return table


def shade(channel: Channel, colormap: str) -> np.ndarray:
    """Colours of one feature, uint8 RGBA, shape (n, 4); transparent where unknown or negative."""
    strength = channel.strength()
    shown = channel.positive()
    # A table of 32-bit colours is gathered several times faster than one of four bytes each.
    packed = lookup_table(colormap).view(np.uint32).ravel()
    with np.errstate(invalid="ignore"):
        index = (strength * 255.0 + 0.5).astype(np.uint8)
    colours = np.where(shown, packed[index], np.uint32(0))
    return colours.view(np.uint8).reshape(-1, 4)


def blend(channels: Sequence[Channel], colours: Sequence[str] = CHANNEL_COLOURS) -> np.ndarray:
    """Add up features, each in its own colour, on black: uint8 RGBA, shape (n, 4).

    Rows without any known value are transparent.

    Raises
    ------
    ValueError
        If there are more features than colours.
    """
    from matplotlib.colors import to_rgb

    if len(channels) > len(colours):
        raise ValueError(f"channels: found {len(channels)}, expected at most {len(colours)}.")
    total = np.zeros((len(channels[0].values), 3), np.float32)
    known = np.zeros(len(total), bool)
    for channel, colour in zip(channels, colours, strict=False):
        strength = channel.strength()
        known |= np.isfinite(strength)
        total += np.nan_to_num(strength)[:, None] * np.asarray(to_rgb(colour), np.float32)
    out = np.zeros((len(total), 4), np.uint8)
    out[:, :3] = np.minimum(total, 1.0) * 255.0 + 0.5
    out[:, 3] = np.where(known, 255, 0)
    return out


def fade(colours: np.ndarray, certainty: np.ndarray) -> np.ndarray:
    """Multiply the opacity of uint8 RGBA colours (n, 4) by a certainty of 0 to 1, shape (n,)."""
    faded = colours.copy()
    faded[:, 3] = colours[:, 3] * np.clip(np.nan_to_num(certainty), 0.0, 1.0)
    return faded


def certainty(ood: np.ndarray | None, spread: np.ndarray | None) -> np.ndarray:
    """How well the model knows each row, 0 to 1, float32, shape (n,).

    Full up to the 90th percentile of strangeness in the training data, none from the 99.9th on;
    and down to a third where the predicted error of the shown protein is several times its usual
    size in this section.

    Parameters
    ----------
    ood
        Out-of-distribution score, 0 to 1, shape (n,); None where the model cannot tell.
    spread
        Standard deviation of the predicted error of the shown protein, shape (n,); None for
        features that carry no such error.

    Raises
    ------
    ValueError
        If both are None.
    """
    parts = []
    if ood is not None:
        parts.append(1.0 - _ramp(ood, 0.9, 0.999))
    if spread is not None:
        usual = np.nanmedian(spread) if np.isfinite(spread).any() else 1.0
        parts.append(1.0 - _ramp(spread / max(float(usual), 1e-12), 1.25, 3.0) * (2 / 3))
    if not parts:
        raise ValueError("certainty: found neither an out-of-distribution score nor errors.")
    return np.prod(parts, axis=0, dtype=np.float32)


def _ramp(values: np.ndarray, start: float, end: float) -> np.ndarray:
    # Unknown is not known well: NaN counts as the far end.
    ramp = np.clip((np.asarray(values, np.float32) - start) / (end - start), 0.0, 1.0)
    return np.where(np.isfinite(ramp), ramp, 1.0)
