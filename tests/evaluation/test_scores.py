"""Scores with intervals: paired over cells, and on the same proteins."""

import numpy as np
import pytest

from sclinguist_core.evaluation import metrics
from sclinguist_core.evaluation.scores import Truth, score


@pytest.fixture(scope="module")
def noisy():
    rng = np.random.default_rng(0)
    clr = rng.normal(size=(400, 5))
    truth = Truth(
        antibodies=list("abcde"), proteins=list("ABCDE"), clr=clr, raw=np.exp(clr + 2).round()
    )
    shared = rng.normal(size=clr.shape)
    predictions = {
        "model": clr + shared,
        "close": clr + shared + 0.3 * rng.normal(size=clr.shape),
        "poor": rng.normal(size=clr.shape),
    }
    predictions["partial"] = np.where(np.arange(5) < 2, predictions["poor"], np.nan)
    return predictions, truth


def test_bootstrap_agrees_with_the_analytic_interval(noisy):
    predictions, truth = noisy
    draws = metrics.bootstrap_mean_pearson(predictions, truth.clr, n_resamples=800)["model"]
    mean, low, high = metrics.mean_pearson_interval(predictions["model"], truth.clr)
    assert draws.mean() == pytest.approx(mean, abs=0.003)
    np.testing.assert_allclose(np.percentile(draws, [2.5, 97.5]), [low, high], atol=0.006)


def test_bootstrap_weights_cells_like_drawing_them():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 30, 2))
    x[3, 0] = np.nan
    times = rng.multinomial(30, np.full(30, 1 / 30), size=4).astype(float)
    got = metrics._weighted_pearson(metrics.standardise(x), metrics.standardise(y), times)
    for weights, row in zip(times, got, strict=True):
        drawn = np.repeat(np.arange(30), weights.astype(int))
        np.testing.assert_allclose(row, metrics.pearson(x[drawn], y[drawn]), atol=1e-10)


def test_leads_are_paired(noisy):
    predictions, truth = noisy
    summary, per_protein = score(predictions, truth, reference="model", n_resamples=400)
    table = summary.set_index("method")
    close = table.loc["close"]
    assert close["lead"] == pytest.approx(table.loc["model", "pearson_clr"] - close["pearson_clr"])
    # The two share most of their error, so their difference is far surer than either figure.
    assert 0 < close["lead_low"] < close["lead"] < close["lead_high"]
    assert close["lead_high"] - close["lead_low"] < 0.6 * (
        close["pearson_clr_high"] - close["pearson_clr_low"]
    )
    assert np.isnan(table.loc["model", "lead"])
    assert table.loc["poor", "n_lead"] == 5
    assert len(per_protein) == 4 * 5


def test_a_lead_is_over_the_proteins_that_both_have(noisy):
    predictions, truth = noisy
    table = score(predictions, truth, reference="model", n_resamples=100)[0].set_index("method")
    assert table.loc["partial", "n_proteins"] == 2
    r = {name: metrics.pearson(x, truth.clr)[:2] for name, x in predictions.items()}
    assert table.loc["partial", "lead"] == pytest.approx((r["model"] - r["poor"]).mean())


def test_log1p_figures_may_come_from_another_fit(noisy):
    predictions, truth = noisy
    logged = {"poor": np.log1p(truth.raw)}
    table = score(predictions, truth, log1p=logged, n_resamples=10)[0].set_index("method")
    assert table.loc["poor", "pearson_log1p"] == pytest.approx(1)
    assert table.loc["poor", "pearson_clr"] < 0.2


def test_undefined_predictions_have_no_figure(noisy):
    _, truth = noisy
    table = score({"mean": np.zeros(truth.clr.shape)}, truth, n_resamples=20)[0]
    assert table["n_proteins"][0] == 0
    assert table[["pearson_clr", "pearson_clr_low", "pearson_clr_high"]].isna().all(axis=None)
