"""Fit how the errors of proteins go together, from data sets that were held out.

Panels differ: most pairs of proteins are measured together in one set or in none. A factor model
is fitted by expectation-maximisation (Rubin & Thayer 1982) in which a set tells only of the
proteins that it measures; it needs no more of a set than the correlations of its errors.

Shapes: n rows, P proteins, A proteins of a set, K factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from sclinguist_core.data.preprocess import standardize
from sclinguist_core.evaluation.calibration import fit_context
from sclinguist_core.evaluation.held_out import HeldOut
from sclinguist_core.model.calibration import CONTEXTS
from sclinguist_core.model.conditioning import Conditioning, ErrorFactors

N_FACTORS = 16
_STEPS = 60
_RIDGE = 1.0
"""Draws loadings to 0: what one set of average weight tells."""
_MIN_NOISE = 0.05


class ErrorCorrelation(NamedTuple):
    """Correlations of a set's errors, shape (A, A), of which proteins (names), and its weight."""

    names: list[str]
    correlation: np.ndarray
    weight: float


def error_correlation(
    record: HeldOut, others: Sequence[HeldOut], agreement: pd.Series
) -> ErrorCorrelation:
    """Correlate the errors of a set, predicted as one that nobody has seen.

    Predictions are calibrated on the other sets. The measurement, standardised over the set, is
    brought to the spread that truth is expected to have there.
    """
    calibration, _ = fit_context(others, agreement, list(record.names))
    expected_r = calibration.expected_r(record.implied, record.reliability, record.spread)
    column = record.column
    value, std, _, _ = calibration.take(column).apply(record.mean, record.std, expected_r[column])
    spread = np.sqrt(np.nanvar(value, axis=0) + np.nanmean(std**2, axis=0))
    error = standardize(record.target) * spread - value
    # Several antibodies against one protein count as one measurement.
    names = list(dict.fromkeys(record.proteins.tolist()))
    antibody = pd.Index(names).get_indexer(record.proteins)
    mean = np.column_stack([error[:, antibody == j].mean(axis=1) for j in range(len(names))])
    mean = standardize(mean[np.isfinite(mean).all(axis=1)])
    return ErrorCorrelation(names, mean.T @ mean / len(mean), len(mean) ** 0.5)


def fit_factors(
    sets: Sequence[ErrorCorrelation], names: Sequence[str], n_factors: int = N_FACTORS
) -> ErrorFactors:
    """Fit the factor model.

    Parameters
    ----------
    sets
        Error correlations of held-out sets.
    names
        The P proteins of the model; those that no set measures get loadings of 0.
    n_factors
        K.
    """
    position = {name: i for i, name in enumerate(names)}
    average = np.mean([one.weight for one in sets])
    parts = []
    for one in sets:
        kept = [j for j, name in enumerate(one.names) if name in position]
        index = np.array([position[one.names[j]] for j in kept], np.int64)
        parts.append((index, one.correlation[np.ix_(kept, kept)], one.weight / average))
    n = len(names)
    loadings: np.ndarray = np.random.default_rng(0).normal(0.0, 0.3, (n, n_factors))
    noise: np.ndarray = np.full(n, 0.8)
    eye = np.eye(n_factors)
    for _ in range(_STEPS):
        error_by_factor = np.zeros((n, n_factors))
        factor_by_factor = np.zeros((n, n_factors, n_factors))
        error_by_error, weights = np.zeros(n), np.zeros(n)
        for index, correlation, weight in parts:
            scaled = loadings[index] / noise[index, None]
            spread = np.linalg.inv(eye + loadings[index].T @ scaled)
            read = spread @ scaled.T  # (K, A): factors of a row from its errors
            crossed = read @ correlation
            error_by_factor[index] += weight * crossed.T
            factor_by_factor[index] += weight * (spread + crossed @ read.T)
            error_by_error[index] += weight * np.diag(correlation)
            weights[index] += weight
        loadings = np.linalg.solve(factor_by_factor + _RIDGE * eye, error_by_factor[..., None])
        loadings = loadings[..., 0]
        explained = 2.0 * (loadings * error_by_factor).sum(axis=1) - np.einsum(
            "pk,pkl,pl->p", loadings, factor_by_factor, loadings
        )
        noise = (error_by_error - explained) / np.maximum(weights, 1e-12)
        noise = np.where(weights > 0, np.maximum(noise, _MIN_NOISE), 1.0)
    size = np.sqrt((loadings**2).sum(axis=1) + noise)
    return ErrorFactors(
        loadings=(loadings / size[:, None]).astype(np.float32),
        noise=(noise / size**2).astype(np.float32),
    )


def fit_conditioning(
    records: Sequence[HeldOut], agreement: pd.Series, names: Sequence[str]
) -> Conditioning:
    """Fit the factors for cells and for spots.

    Parameters
    ----------
    records
        Held-out sets, as `sclinguist_core.evaluation.held_out.collect` returns them.
    agreement
        Of networks that were trained on different sets, by protein.
    names
        Proteins of the model.
    """
    found = {}
    for context in CONTEXTS:
        own = [record for record in records if record.context == context]
        sets = [
            error_correlation(record, [r for r in own if r.dataset != record.dataset], agreement)
            for record in own
        ]
        found[context] = fit_factors(sets, names)
    return found
