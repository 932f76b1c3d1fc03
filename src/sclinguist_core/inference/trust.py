"""What a section itself tells about how far its predictions can be trusted.

No measured protein is needed: a prediction that changes when half of the reads are taken away rests
on noise, and one that does not vary over the section says nothing about it.

Shapes: n rows, P proteins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.numbers import as_numbers
from sclinguist_core.model.calibration import ContextCalibration, fisher, implied_r

DEFAULT_INTERVAL = 1.645
"""Half-width of a 90 % interval in predicted standard deviations, where nothing was calibrated."""

SAMPLE_ROWS = 400
"""Rows on which reliability is measured."""
MANY_ROWS = 16_384
"""Of more rows than this the spread of predictions is estimated from some of them."""
SPREAD_ROWS = 4_096
"""As many, evenly spaced: a standard deviation is then known to about one per cent."""
MIN_ROWS = 50
"""A section with fewer rows tells nothing about itself; the reference's figures stand then."""
SPOT_UNIT = "SD of reference spots (CLR)"
"""Spots are mixtures: they differ less than cells do, and around another average."""
STRANGE = 0.99
"""Rows beyond this out-of-distribution score are counted in a warning."""

Run = Callable[[AlignedRna], tuple[np.ndarray, np.ndarray]]
"""Mean and standard deviation of the network for aligned rows, each shape (n, P)."""


def sample_rows(n_rows: int) -> np.ndarray:
    """Evenly spaced rows, at most `SAMPLE_ROWS`: the same in every run."""
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, SAMPLE_ROWS)).astype(np.int64))


def spread_rows(n_rows: int) -> slice | np.ndarray:
    """Rows over which the spread of predictions is taken: all, or `SPREAD_ROWS` of many."""
    if n_rows <= MANY_ROWS:
        return slice(None)
    return np.linspace(0, n_rows - 1, SPREAD_ROWS).astype(np.int64)


def halves(aligned: AlignedRna, *, seed: int = 0) -> tuple[AlignedRna, AlignedRna]:
    """Deal the reads of every row at random into two rows of half the depth."""
    rng = np.random.default_rng(seed)
    counts = aligned.counts
    first = counts.copy()
    first.data = rng.binomial(np.rint(counts.data).astype(np.int64), 0.5).astype(np.float32)
    second = sparse.csr_matrix(counts - first)
    parts = []
    for half in (first, second):
        half.eliminate_zeros()
        half.sort_indices()
        parts.append(replace(aligned, counts=half))
    return parts[0], parts[1]


def reliability(aligned: AlignedRna, run: Run) -> np.ndarray:
    """Fisher z of the correlation between predictions from two halves of the reads, shape (P,)."""
    first, second = halves(aligned)
    return fisher(column_correlation(run(first)[0], run(second)[0]))


def spread_and_implied(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spread of predictions over the rows, and Fisher z of the correlation implied, shape (P,)."""
    known = np.isfinite(mean).all(axis=1)
    if not known.any():
        nothing = np.full(mean.shape[1], np.nan)
        return nothing, nothing
    spread = mean[known].std(axis=0, dtype=np.float64)
    error = np.sqrt(np.mean(std[known].astype(np.float64) ** 2, axis=0))
    return spread, fisher(implied_r(spread, error))


def strange_rows_warning(score: np.ndarray, noun: str) -> str | None:
    """Sentence for a section with many rows unlike the training data; None where there are few."""
    known = score[np.isfinite(score)]
    if not len(known):
        return None
    share = float((known > STRANGE).mean())
    if share <= 0.1:
        return None
    return (
        f"{share:.0%} of the {noun} are stranger to the model than {STRANGE:.0%} of its training "
        "data (obs['sclinguist_ood']): trust its values there less."
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Judged:
    """Calibrated predictions of a section, and how far to trust them.

    Attributes
    ----------
    mean, std, low, high
        Prediction, standard deviation of its error, 90 % interval; float32, shape (n, P).
    labels
        Trust label of each protein in this section; None where nothing is known.
    expected_r
        Correlation to be expected of each protein, shape (P,); None where nothing is known.
    unit
        Unit of the values where it is not the network's own.
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    labels: list[str] | None = None
    expected_r: np.ndarray | None = None
    unit: str | None = None

    def take(self, proteins: np.ndarray) -> Judged:
        """Return the chosen proteins (indices)."""
        return replace(
            self,
            mean=self.mean[:, proteins],
            std=self.std[:, proteins],
            low=self.low[:, proteins],
            high=self.high[:, proteins],
            labels=None if self.labels is None else [self.labels[i] for i in proteins],
            expected_r=None if self.expected_r is None else self.expected_r[proteins],
        )


def beside(one: Judged, other: Judged) -> Judged:
    """Join predictions of the same rows; what one side does not know is untested, or NaN."""
    labels = [part.labels or ["untested"] * part.mean.shape[1] for part in (one, other)]
    expected_r = [
        np.full(part.mean.shape[1], np.nan) if part.expected_r is None else part.expected_r
        for part in (one, other)
    ]
    return Judged(
        mean=np.hstack([one.mean, other.mean]),
        std=np.hstack([one.std, other.std]),
        low=np.hstack([one.low, other.low]),
        high=np.hstack([one.high, other.high]),
        labels=labels[0] + labels[1],
        expected_r=np.concatenate(expected_r),
        unit=one.unit or other.unit,
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Verdict:
    """How far to trust the predictions of a section, and how each of them is calibrated.

    What a section tells is known from a part of its rows; the rest can then be calibrated row by
    row and protein by protein, in any order.

    Attributes
    ----------
    calibration
        Of the P proteins, for the section's context; None where ``proteins.tsv`` has to do.
    table
        Rows of ``proteins.tsv`` for the P proteins.
    context
        What the rows are.
    expected_r, labels
        See `Judged`; None without a calibration.
    """

    calibration: ContextCalibration | None
    table: pd.DataFrame
    context: str
    expected_r: np.ndarray | None = None
    labels: list[str] | None = None

    def take(self, proteins: np.ndarray) -> Verdict:
        """Return the chosen proteins (indices)."""
        return replace(
            self,
            calibration=None if self.calibration is None else self.calibration.take(proteins),
            table=self.table.iloc[proteins],
            expected_r=None if self.expected_r is None else self.expected_r[proteins],
            labels=None if self.labels is None else [self.labels[i] for i in proteins],
        )

    def apply(self, mean: np.ndarray, std: np.ndarray) -> Judged:
        """Calibrate what the network says of some rows, each shape (n, P)."""
        if self.calibration is None:
            judged = uncalibrated(self.table, mean, std, self.context)
        else:
            assert self.expected_r is not None
            value, error, low, high = self.calibration.apply(mean, std, self.expected_r)
            judged = Judged(
                mean=value,
                std=error,
                low=low,
                high=high,
                labels=self.labels,
                expected_r=self.expected_r,
                unit=calibrated_unit(self.context),
            )
        return with_fine_tuning(judged, self.table, mean, std, self.context)


def verdict(
    calibration: ContextCalibration | None,
    table: pd.DataFrame,
    mean: np.ndarray,
    std: np.ndarray,
    seen: np.ndarray | None,
    context: str,
) -> Verdict:
    """Work out how far to trust each protein by what the section shows.

    Parameters
    ----------
    calibration, table, context
        See `Verdict`.
    mean, std
        Of the network, for `spread_rows` of the section, shape (n, P).
    seen
        `reliability` in this section, shape (P,); None when it has too few rows to tell. Labels
        are then those of the reference.
    """
    if calibration is None:
        return Verdict(calibration=None, table=table, context=context)
    if seen is None:
        expected_r, spread = calibration.expected_r(), None
    else:
        spread, implied = spread_and_implied(mean, std)
        expected_r = calibration.expected_r(implied, seen, spread)
    return Verdict(
        calibration=calibration,
        table=table,
        context=context,
        expected_r=expected_r,
        labels=calibration.labels(expected_r, spread),
    )


def judge(
    calibration: ContextCalibration,
    mean: np.ndarray,
    std: np.ndarray,
    seen: np.ndarray | None,
    context: str = "cells",
) -> Judged:
    """Calibrate predictions, and label the proteins by what the section shows.

    Parameters
    ----------
    calibration
        Of the P proteins, for the section's context.
    mean, std
        Of the network, shape (n, P).
    seen
        See `verdict`.
    """
    rows = spread_rows(len(mean))
    nothing_tuned = pd.DataFrame(index=range(mean.shape[1]))
    found = verdict(calibration, nothing_tuned, mean[rows], std[rows], seen, context)
    return found.apply(mean, std)


def calibrated_unit(context: str) -> str | None:
    """Name the unit of calibrated values; None where it is the network's own."""
    return SPOT_UNIT if context == "spots" else None


def slope(table: pd.DataFrame, calibration: ContextCalibration | None = None) -> np.ndarray:
    """How far a value moves where the network's mean moves by one, float64, shape (P,).

    Values are linear in what the network says, whatever the section: a difference of values is
    this times a difference of means.

    Parameters
    ----------
    table
        Rows of ``proteins.tsv`` for the P proteins.
    calibration
        Of the same proteins, for the section's context; None where there is none.
    """
    own = table["slope"].to_numpy(np.float64) if "slope" in table else np.ones(len(table))
    return own if calibration is None else np.where(_fine_tuned(table), own, calibration.slope)


def _fine_tuned(table: pd.DataFrame) -> np.ndarray:
    """Which proteins were fine-tuned, in whichever context, bool, shape (P,)."""
    if "fine_tuned" not in table:
        return np.zeros(len(table), bool)
    return table["fine_tuned"].isin(("cells", "spots")).to_numpy()


def with_fine_tuning(
    judged: Judged, table: pd.DataFrame, mean: np.ndarray, std: np.ndarray, context: str
) -> Judged:
    """Judge fine-tuned proteins by the cross-validation of fine-tuning instead.

    Parameters
    ----------
    judged
        By the calibration of the model that was fine-tuned.
    table
        Rows of ``proteins.tsv`` for the P proteins. Fine-tuned are those whose column
        ``fine_tuned`` names a context, ``cells`` or ``spots``; in the other context their trust
        is untested, and their expected correlation NaN.
    mean, std
        Of the network, shape (n, P).
    context
        What the rows are.
    """
    if "fine_tuned" not in table:
        return judged
    tuned = _fine_tuned(table)
    own = uncalibrated(table, mean, std)
    labels, expected_r = judged.labels, judged.expected_r
    if labels is not None:
        found = zip(tuned, table["fine_tuned"], table["trust"].astype(str), labels, strict=True)
        labels = [
            (label if where == context else "untested") if is_tuned else former
            for is_tuned, where, label, former in found
        ]
    if expected_r is not None:
        cross_validated = as_numbers(table["heldout_r"])
        here = (table["fine_tuned"] == context).to_numpy()
        cross_validated = np.where(here, np.maximum(cross_validated, 0.0), np.nan)
        expected_r = np.where(tuned, cross_validated, expected_r)
    return Judged(
        mean=np.where(tuned, own.mean, judged.mean),
        std=np.where(tuned, (own.high - own.low) / (2 * DEFAULT_INTERVAL), judged.std),
        low=np.where(tuned, own.low, judged.low),
        high=np.where(tuned, own.high, judged.high),
        labels=labels,
        expected_r=expected_r,
        unit=judged.unit,
    )


def uncalibrated(
    table: pd.DataFrame, mean: np.ndarray, std: np.ndarray, context: str = "cells"
) -> Judged:
    """Use what ``proteins.tsv`` says where a checkpoint has no ``calibration.json``.

    Columns ``slope``, ``interval`` (half-width in predicted standard deviations), and
    ``trust_cells``, ``trust_spots`` or ``trust``; each may be absent.
    """
    # On unseen data predictions are too bold; the slope was measured there.
    value = mean * slope(table).astype(np.float32)
    half_width = np.full(len(table), DEFAULT_INTERVAL, np.float32)
    if "interval" in table:
        half_width = table["interval"].to_numpy(np.float32)
    reach = std * half_width
    label = next((name for name in (f"trust_{context}", "trust") if name in table), None)
    return Judged(
        mean=value,
        std=std,
        low=value - reach,
        high=value + reach,
        labels=None if label is None else table[label].astype(str).tolist(),
    )
