"""Calibration on made-up held-out sets whose truth is known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import calibration as module
from sclinguist_core.evaluation.calibration import (
    evidence,
    fit_calibration,
    fit_context,
    fit_quantile,
    fit_slopes,
    protein_effects,
    well_from,
)
from sclinguist_core.evaluation.held_out import HeldOut, read_held_out
from sclinguist_core.model.calibration import fisher

N_PROTEINS = 30
NAMES = np.array([f"P{i}" for i in range(N_PROTEINS)])
TRUE_R = np.linspace(0.05, 0.9, N_PROTEINS)
BOLD = 1.5
"""The made-up network spreads its predictions this much too far."""


def made_up(dataset, seed, *, context="cells", n=400, measured=25, shift=0.0):
    """Predictions x and targets y with known correlation; y is r x / BOLD plus noise."""
    rng = np.random.default_rng(seed)
    r = np.clip(TRUE_R + shift, 0, 0.95)
    signal = rng.normal(size=(n, N_PROTEINS))
    y = r * signal + np.sqrt(1 - r**2) * rng.normal(size=signal.shape)
    x = BOLD * r * signal
    spread = x.std(axis=0)
    error = np.sqrt(1 - r**2)
    column = np.sort(rng.choice(N_PROTEINS - 2, measured, replace=False))  # two are never tested
    noise = 0.1 * rng.normal(size=(2, N_PROTEINS))
    return HeldOut(
        dataset=dataset,
        context=context,
        names=NAMES,
        column=column,
        mean=x[:, column].astype(np.float32),
        std=np.tile(error, (n, 1))[:, column].astype(np.float32),
        target=y[:, column].astype(np.float32),
        center=x.mean(axis=0),
        spread=spread,
        implied=fisher(spread / np.hypot(spread, error)) + noise[0],
        reliability=fisher(r) + noise[1],
    )


@pytest.fixture(scope="module")
def records():
    return [made_up(f"set{i}", i) for i in range(5)]


@pytest.fixture(scope="module")
def agreement():
    return pd.Series(fisher(np.sqrt(TRUE_R)), index=NAMES)


@pytest.fixture(scope="module")
def fitted(records, agreement):
    return fit_context(records, agreement, NAMES)


def test_evidence_is_the_correlation_of_each_set(records):
    table = evidence(records)
    assert len(table) == 5 * 25
    first = table[(table["dataset"] == "set0")].set_index("protein")
    truth = dict(zip(NAMES, TRUE_R, strict=True))
    error = first["r"] - [truth[name] for name in first.index]
    assert error.abs().max() < 0.2
    assert error.abs().mean() < 0.06


def test_a_protein_of_hard_sets_is_not_taken_for_a_bad_one():
    easy, hard = 0.8, 0.4
    rows = [("A", "easy", easy), ("B", "easy", easy), ("B", "hard", hard), ("C", "hard", hard)]
    rows += [(f"X{i}", s, r) for i in range(20) for s, r in (("easy", easy), ("hard", hard))]
    table = pd.DataFrame(rows, columns=["protein", "dataset", "r"])
    effects = protein_effects(table)
    # Seen raw, A is twice as good as C; both are average for the sets that measured them.
    assert effects["A"] - effects["C"] < 0.5 * (fisher(easy) - fisher(hard))
    assert effects["A"] >= effects["B"] >= effects["C"]


def test_slopes_shrink_what_is_too_bold(records, agreement):
    slopes = fit_slopes(evidence(records), agreement)
    implied = pd.Series(np.mean([record.implied for record in records], axis=0), index=NAMES)
    slope = slopes.of(agreement, implied, NAMES)
    np.testing.assert_allclose(slope[TRUE_R > 0.4], 1 / BOLD, atol=0.08)
    # Never tested: the prior is all there is.
    np.testing.assert_allclose(slope[-2:], 1 / BOLD, atol=0.12)


def test_quantile_regression_finds_the_quantile():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(20_000), rng.uniform(0, 2, 20_000)])
    y = x[:, 1] * rng.exponential(1.0, 20_000)
    weight = np.ones(len(y))
    b = fit_quantile(x, y, weight, np.full(len(y), 0.9), smooth=0.01)
    np.testing.assert_allclose(b, [0.0, np.log(10.0)], atol=0.12)
    assert (y <= x @ b).mean() == pytest.approx(0.9, abs=0.01)


def test_intervals_cover_a_set_that_calibrated_nothing(fitted):
    calibration, _ = fitted
    fresh = made_up("fresh", 99, n=1_500)
    expected_r = calibration.expected_r(fresh.implied, fresh.reliability, fresh.spread)
    mean, std, low, high = calibration.take(fresh.column).apply(
        fresh.mean, fresh.std, expected_r[fresh.column]
    )
    inside = (fresh.target >= low) & (fresh.target <= high)
    assert 0.86 < inside.mean() < 0.95
    assert inside.mean(axis=0).min() > 0.8
    top = fresh.target >= np.quantile(fresh.target, 0.9, axis=0)
    assert inside[top].mean() > 0.78
    width = (high - low).mean(axis=0) / 3.29
    good = TRUE_R[fresh.column] > 0.8
    assert width[good].mean() < 0.7
    assert width[TRUE_R[fresh.column] < 0.2].mean() > 0.9
    assert (low < mean).all()
    assert (mean < high).all()
    error = np.sqrt(((fresh.target - mean) ** 2).mean(axis=0))
    np.testing.assert_allclose(std.mean(axis=0), error, rtol=0.25)


def test_expected_correlation_comes_near_the_true_one(fitted):
    calibration, table = fitted
    fresh = made_up("fresh", 7)
    expected_r = calibration.expected_r(fresh.implied, fresh.reliability, fresh.spread)
    assert np.abs(expected_r - TRUE_R).mean() < 0.12
    assert np.corrcoef(table["expected_r"], table["r"])[0, 1] > 0.9


def test_labels(fitted):
    calibration = dataclasses.replace(fitted[0], observed=np.full(N_PROTEINS, 0.8))
    calibration.observed[4] = 0.5
    expected_r = np.full(N_PROTEINS, calibration.well + 0.01)
    expected_r[0], expected_r[1] = 0.1, calibration.fairly + 0.01
    labels = calibration.labels(expected_r)
    assert labels[:3] == ["poorly", "fairly", "well"]
    assert labels[4] == "fairly"  # nothing that was held out bears "well" out
    assert labels[-2:] == ["untested", "untested"]
    spread = calibration.spread.copy()
    spread[[0, 1, 2, -1]] *= 0.1
    here = calibration.labels(expected_r, spread)
    assert here[:4] == ["poorly", "not verifiable here", "not verifiable here", "well"]
    assert here[-1] == "untested"


def test_noise_in_the_section_lowers_what_is_expected(fitted):
    calibration, _ = fitted
    usual = calibration.expected_r()
    noisy = calibration.expected_r(calibration.implied, calibration.reliability - 1.0)
    assert (noisy <= usual).all()
    assert noisy.mean() < usual.mean() - 0.05


def test_the_threshold_keeps_its_promise():
    r = np.r_[np.full(50, 0.8), np.full(50, 0.5)]
    table = pd.DataFrame({"expected_r": np.linspace(0.9, 0.3, 100), "r": r, "observed": 0.7})
    limit = well_from(table)
    labelled = table["expected_r"] >= limit
    assert (table["r"][labelled] >= module.WELL_R).mean() >= module.WELL_PRECISION
    assert labelled.sum() == int(50 / module.WELL_PRECISION)  # one more would be too many
    assert well_from(table.assign(r=0.1)) == 0.99
    assert well_from(table.assign(observed=0.5)) == 0.99


def test_both_contexts_and_the_columns_of_proteins_tsv(records, agreement):
    spots = [dataclasses.replace(r, context="spots", center=r.center + 1) for r in records]
    calibration, columns = fit_calibration([*records, *spots], agreement, NAMES)
    assert set(calibration) == {"cells", "spots"}
    assert (calibration["cells"].offset == 0).all()
    np.testing.assert_allclose(calibration["spots"].offset, calibration["spots"].center)
    assert columns["trust_cells"].iloc[-1] == "untested"
    assert columns["sets_cells"].iloc[-1] == 0
    assert np.isnan(columns["r_spots"].iloc[-1])
    assert columns["sets_cells"].max() == 5


def test_too_few_sets_are_refused(records, agreement):
    with pytest.raises(ValueError, match="at least three"):
        fit_context(records[:2], agreement, NAMES)


def test_records_survive_the_cache(records, tmp_path):
    path = tmp_path / "set0.npz"
    records[0].save(path)
    again = read_held_out(path)
    assert (again.dataset, again.context) == ("set0", "cells")
    np.testing.assert_array_equal(again.target, records[0].target)
    np.testing.assert_array_equal(again.proteins, records[0].proteins)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="expected held-out predictions"):
        read_held_out(path)
