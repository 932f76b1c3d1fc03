"""Calibration: from what a network says to what may be believed.

A network that was trained on some data sets is too bold on others. What it gains and loses there is
measured on data sets that were held out (`sclinguist_core.evaluation.calibration` does the fitting)
and kept beside the weights in ``calibration.json``, once for cells and once for spots:

- the *slope* by which predictions of each protein shrink (for spots also the *offset*: the mixture
  of many cells has another average and a smaller spread, and a spot's prediction is given in
  standard deviations of reference spots);
- the *expected correlation* of each protein with a measurement of this section. It rests on the
  results of held-out sets, on the agreement of networks that were trained on different sets, and on
  two things that the section itself tells without any protein: whether two halves of its reads
  give the same prediction (reliability), and how large the network itself holds its error to be;
- *intervals*: quantiles of the error as a function of where a prediction lies in the protein's
  usual range, of the expected correlation, and of the network's own standard deviation
  (quantile regression, Koenker & Bassett 1978). They are asymmetric, since measured proteins are
  skewed: high values are missed by more.

Shapes: n rows, P proteins, F features.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sclinguist_core.errors import InputError
from sclinguist_core.reading import read_json

FILE = "calibration.json"
FORMAT_VERSION = 1
CONTEXTS = ("cells", "spots")
COVERAGE = 0.9
NOT_HERE = "not verifiable here"
LABELS = ("well", "fairly", "poorly", "untested", NOT_HERE)
WELL_R, FAIRLY_R = 0.7, 0.4
"""A protein is well, or fairly, predicted where its correlation is at least this."""
NARROW = 0.5
"""Predictions that vary less than this share of their usual range: the section lacks the cells."""
_PER_PROTEIN = (
    "slope",
    "offset",
    "center",
    "spread",
    "observed",
    "evidence",
    "agreement",
    "implied",
    "reliability",
)
OBSERVED = 0.55
"""Least mean correlation over held-out sets of a protein that is labelled "well"."""
_KNOTS = (-1.0, 0.0, 1.0, 2.0)
_RANGE = (-2.5, 4.0)
_MIN_REACH = 0.05


def fisher(r: np.ndarray | float) -> np.ndarray:
    """Fisher's z of a correlation, clipped to ±0.99; effects on it are about additive."""
    return np.arctanh(np.clip(np.asarray(r, np.float64), -0.99, 0.99))


def implied_r(sd: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Correlation that the network implies: spread of predictions against its own error.

    Parameters
    ----------
    sd
        Standard deviation of the predictions over the rows, shape (P,).
    error
        Root mean square of the predicted standard deviations, shape (P,).
    """
    return sd / np.sqrt(np.maximum(sd**2 + error**2, 1e-12))


def relative_spread(spread: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Log of how far predictions vary over the rows against what is usual, shape (P,).

    Clipped to ±1.5; 0 where one of them is not known.
    """
    ratio = np.log(np.maximum(spread, 1e-6) / np.maximum(usual, 1e-6))
    return np.nan_to_num(np.clip(ratio, -1.5, 1.5))


def interval_features(
    position: np.ndarray, expected_r: np.ndarray, std: np.ndarray
) -> list[np.ndarray]:
    """Basis of the error quantiles; arrays of one shape (or that broadcast) in, list of F out.

    Parameters
    ----------
    position
        (Prediction - centre) / spread of the protein's usual range.
    expected_r
        Expected correlation of the protein.
    std
        Standard deviation that the network predicts.
    """
    t = np.clip(position, *_RANGE)
    shape = [t, *(np.maximum(t - knot, 0.0) for knot in _KNOTS)]
    size = np.log(np.maximum(std, 1e-3))
    r = expected_r
    return [np.ones_like(t), *shape, r, r * r, *(x * r for x in shape), size, size * r, size * t]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ContextCalibration:
    """Calibration for cells, or for spots.

    Attributes
    ----------
    slope, offset
        The calibrated prediction is slope * (prediction - offset), shape (P,).
    center, spread
        Mean and standard deviation of the predictions over reference data, shape (P,).
    observed
        Mean correlation over the held-out sets that measure it, shape (P,); NaN for untested
        proteins.
    evidence
        Fisher z of the correlation that held-out sets have shown, adjusted for how hard each of
        them is and shrunk by how few they are, shape (P,); NaN for untested proteins.
    agreement
        Fisher z of the correlation between networks trained on different sets, shape (P,).
    implied, reliability
        Fisher z of `implied_r` and of the correlation between predictions from two halves of the
        reads, as reference data have them, shape (P,).
    tested, untested
        Coefficients of the expected correlation (Fisher z): constant, agreement, implied,
        reliability, `relative_spread`; and, for tested proteins, evidence.
    lower, upper
        Coefficients of `interval_features` for the error quantiles.
    width_per_std
        Width of the interval over the standard deviation of the error.
    well, fairly
        Expected correlations from which a protein bears the label.
    """

    slope: np.ndarray
    offset: np.ndarray
    center: np.ndarray
    spread: np.ndarray
    observed: np.ndarray
    evidence: np.ndarray
    agreement: np.ndarray
    implied: np.ndarray
    reliability: np.ndarray
    tested: np.ndarray
    untested: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    width_per_std: float
    well: float
    fairly: float

    def take(self, proteins: np.ndarray) -> ContextCalibration:
        """Return the calibration of the chosen proteins (indices)."""
        return dataclasses.replace(
            self, **{name: getattr(self, name)[proteins] for name in _PER_PROTEIN}
        )

    def expected_r(
        self,
        implied: np.ndarray | None = None,
        reliability: np.ndarray | None = None,
        spread: np.ndarray | None = None,
    ) -> np.ndarray:
        """Correlation to be expected of each protein, shape (P,), from 0 to 0.99.

        Parameters
        ----------
        implied, reliability
            Fisher z of what this section says of each protein, shape (P,); the reference's where
            None or NaN.
        spread
            Standard deviation of the network's predictions over the section, shape (P,).
        """
        section = [
            own if seen is None else np.where(np.isfinite(seen), seen, own)
            for own, seen in ((self.implied, implied), (self.reliability, reliability))
        ]
        spread = self.spread if spread is None else spread
        features = [
            np.ones_like(self.slope),
            self.agreement,
            *section,
            relative_spread(spread, self.spread),
        ]
        z = np.tensordot(self.untested, np.nan_to_num(features), 1)
        known = np.isfinite(self.evidence)
        with_evidence = [*features, np.where(known, self.evidence, 0.0)]
        z = np.where(known, np.tensordot(self.tested, np.nan_to_num(with_evidence), 1), z)
        return np.clip(np.tanh(z), 0.0, 0.99)

    def labels(self, expected_r: np.ndarray, spread: np.ndarray | None = None) -> list[str]:
        """Trust label of each protein.

        Parameters
        ----------
        expected_r
            From `expected_r`, shape (P,).
        spread
            Standard deviation of the network's predictions over the section, shape (P,), if it is
            known. A protein whose predictions hardly vary here cannot be told right from wrong:
            the cells that carry it are absent, or the network does not see them.
        """
        well = (expected_r >= self.well) & (self.observed >= OBSERVED)
        label = np.select([well, expected_r >= self.fairly], ["well", "fairly"], "poorly")
        label = label.astype(object)
        if spread is not None:
            label[(spread < NARROW * self.spread) & (label != "poorly")] = NOT_HERE
        label[~np.isfinite(self.evidence)] = "untested"
        return [str(name) for name in label]

    def apply(
        self, mean: np.ndarray, std: np.ndarray, expected_r: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Calibrate what the network says.

        Parameters
        ----------
        mean, std
            Of the network, float32, shape (n, P).
        expected_r
            From `expected_r`, shape (P,).

        Returns
        -------
        Mean, standard deviation of the error, lower and upper end of the 90 % interval, float32,
        shape (n, P). NaN stays NaN.
        """
        value = ((mean - self.offset) * self.slope).astype(np.float32)
        spread, low, high = np.empty_like(value), np.empty_like(value), np.empty_like(value)
        for j in range(mean.shape[1]):
            position = (mean[:, j] - self.center[j]) / self.spread[j]
            r = np.full_like(position, expected_r[j])
            features = np.array(interval_features(position, r, std[:, j]))
            low[:, j] = value[:, j] + np.minimum(np.tensordot(self.lower, features, 1), -_MIN_REACH)
            high[:, j] = value[:, j] + np.maximum(np.tensordot(self.upper, features, 1), _MIN_REACH)
            spread[:, j] = (high[:, j] - low[:, j]) / self.width_per_std
        return value, spread, low, high


Calibration = dict[str, ContextCalibration]
"""Calibration by context: ``"cells"``, ``"spots"``."""


def extended(calibration: Calibration | None, n_proteins: int) -> Calibration | None:
    """Make room for proteins that were added to a model: untested, with the average slope."""
    if calibration is None:
        return None
    grown = {}
    for context, values in calibration.items():
        n_new = n_proteins - len(values.slope)
        fill = {"slope": float(np.mean(values.slope)), "offset": 0.0, "center": 0.0, "spread": 1.0}
        parts: dict[str, Any] = {
            name: np.append(getattr(values, name), np.full(n_new, fill.get(name, np.nan)))
            for name in _PER_PROTEIN
        }
        grown[context] = dataclasses.replace(values, **parts)
    return grown


def write_calibration(calibration: Calibration, folder: Path) -> None:
    """Write ``calibration.json``; NaN becomes null."""
    contexts = {}
    for context, values in calibration.items():
        record: dict[str, Any] = {}
        for field in dataclasses.fields(values):
            value = getattr(values, field.name)
            if isinstance(value, np.ndarray):
                value = [None if not np.isfinite(x) else float(f"{x:.6g}") for x in value]
            record[field.name] = value
        contexts[context] = record
    content = {"format_version": FORMAT_VERSION, "coverage": COVERAGE, "contexts": contexts}
    (folder / FILE).write_text(json.dumps(content) + "\n", "utf-8")


def read_calibration(folder: Path, n_proteins: int) -> Calibration | None:
    """Read ``calibration.json`` of a checkpoint folder; None where there is none.

    Raises
    ------
    InputError
        If the file is damaged, of another format, or does not fit the model's proteins.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    content = read_json(path, remedy="install or train the checkpoint again")
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {content['format_version']!r}")
        calibration = {name: _context(values) for name, values in content["contexts"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: expected a calibration of format version {FORMAT_VERSION}, found something "
            f"else ({error}); install or train the checkpoint again"
        ) from error
    for context, values in calibration.items():
        sizes = {len(getattr(values, name)) for name in _PER_PROTEIN}
        if context not in CONTEXTS or sizes != {n_proteins}:
            raise InputError(
                f"{path}: expected {n_proteins} proteins for {' and '.join(CONTEXTS)}, found "
                f"{sorted(sizes)} for {context!r}; install or train the checkpoint again"
            )
    return calibration


def _context(record: dict[str, Any]) -> ContextCalibration:
    expected = {field.name for field in dataclasses.fields(ContextCalibration)}
    if set(record) != expected:
        raise ValueError(f"keys {sorted(set(record) ^ expected)}")
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(ContextCalibration):
        value = record[field.name]
        if isinstance(value, list) != (field.type == "np.ndarray"):
            raise ValueError(f"{field.name}: {type(value).__name__}")
        fields[field.name] = (
            np.array([np.nan if x is None else x for x in value], np.float64)
            if isinstance(value, list)
            else float(value)
        )
    n_interval = len(interval_features(np.zeros(1), np.zeros(1), np.ones(1)))
    for names, size in ((("tested",), 6), (("untested",), 5), (("lower", "upper"), n_interval)):
        for name in names:
            if fields[name].shape != (size,):
                raise ValueError(f"{name}: shape {fields[name].shape}")
    return ContextCalibration(**fields)
