"""How the values of a feature are spread: for the histogram of its legend and for thresholds.

Shapes: n spots, bins or cells; B bars of a histogram.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BARS = 60
_MOST_VALUES = 200_000
"""Values that a histogram is made of at most: it looks the same, and takes a moment."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Distribution:
    """A histogram.

    Attributes
    ----------
    edges
        (B + 1,) float64, ascending. Values beyond the ends count in the outermost bars.
    counts
        (B,) int64.
    """

    edges: np.ndarray
    counts: np.ndarray

    @property
    def heights(self) -> np.ndarray:
        """Heights of the bars, 0 to 1, shape (B,): square roots, so that rare values are seen.

        A bar that holds most values, such as the zeros of a gene, is cut off for the same reason.
        """
        tallest = self.counts.max(initial=0)
        others = np.delete(self.counts, np.argmax(self.counts)).max(initial=0)
        if tallest > self.counts.sum() / 2 and others:
            tallest = min(tallest, 2 * others)
        return np.sqrt(np.minimum(self.counts / max(tallest, 1), 1.0))

    @property
    def reach(self) -> tuple[float, float]:
        """Values at the two ends."""
        return float(self.edges[0]), float(self.edges[-1])


def distribution(values: np.ndarray, limits: tuple[float, float]) -> Distribution:
    """Count values in bars over their range, of which single extreme values take no more than half.

    Parameters
    ----------
    values
        (n,) float; NaN where unknown.
    limits
        Ends of the colours; the histogram reaches over both of them.
    """
    known = values[np.isfinite(values)]
    if len(known) > _MOST_VALUES:
        known = known[:: len(known) // _MOST_VALUES + 1]
    low, high = min(limits), max(limits)
    if len(known):
        bulk = high - low
        low = max(float(known.min()), low - bulk / 2) if known.min() < low else low
        high = min(float(known.max()), high + bulk / 2) if known.max() > high else high
    if not high > low:
        high = low + 1.0
    counts, edges = np.histogram(np.clip(known, low, high), bins=_BARS, range=(low, high))
    return Distribution(edges=edges, counts=counts)


def count_positive(values: np.ndarray, threshold: float) -> tuple[int, int]:
    """Rows at or above a threshold, and rows with a known value."""
    known = np.isfinite(values)
    return int((values[known] >= threshold).sum()), int(known.sum())


def describe_positive(values: np.ndarray, threshold: float, noun: str) -> str:
    """Say how many rows are positive: ``"412 of 3,094 spots (13 %)"``."""
    positive, known = count_positive(values, threshold)
    share = f" ({100 * positive / known:.0f} %)" if known else ""
    return f"{positive:,} of {known:,} {noun}{share}"


def suggest_threshold(values: np.ndarray) -> float:
    """Propose where positive begins: the split of two groups that differ most.

    The criterion is Otsu's (IEEE Transactions on Systems, Man, and Cybernetics 9:62, 1979), on the
    values between the 0.5th and 99.5th percentile. Where more than half of the values are the
    lowest one, such as zero counts of a gene, positive is whatever is above it.
    """
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return 0.0
    above = known[known > known.min()]
    if len(above) < len(known) / 2:
        return float(above.min()) if len(above) else float(known.min())
    low, high = np.percentile(known, (0.5, 99.5))
    if not high > low:
        return float(high)
    counts, edges = np.histogram(known, bins=256, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    over = counts.sum() - below
    sum_below = np.cumsum(counts * centres)[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):  # a split off the end separates nothing
        gap = sum_below / below - ((counts * centres).sum() - sum_below) / over
    between = np.nan_to_num(below * over * gap**2)
    return float(edges[1:-1][np.argmax(between)])


def decimals(limits: tuple[float, float]) -> int:
    """Decimals with which values between limits are written: about three digits that count."""
    span = abs(limits[1] - limits[0])
    if not np.isfinite(span) or span == 0:
        return 2
    return int(np.clip(2 - np.floor(np.log10(span)), 0, 6))
