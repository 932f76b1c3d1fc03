"""Error factors from sets that measure different proteins."""

from __future__ import annotations

import numpy as np

from sclinguist_core.evaluation.conditioning import ErrorCorrelation, fit_factors

NAMES = [f"P{i}" for i in range(12)]


def test_pairs_that_no_set_measures_together_are_told_by_what_they_share():
    rng = np.random.default_rng(0)
    loadings = np.where(np.arange(12)[:, None] % 2 == [0, 1], 0.8, 0.0)
    truth = loadings @ loadings.T + 0.36 * np.eye(12)
    sets = []
    # P0 and P11 are never measured together.
    for panel in [np.arange(0, 8), np.arange(4, 12)] * 5:
        rows = rng.multivariate_normal(np.zeros(12), truth, 4000)[:, panel]
        sets.append(ErrorCorrelation([NAMES[i] for i in panel], np.corrcoef(rows.T), 60.0))
    found = fit_factors(sets, [*NAMES, "unmeasured"], n_factors=3)
    assert found.known.tolist() == [True] * 12 + [False]
    among = found.among(np.arange(13))
    np.testing.assert_allclose(np.diag(among), 1.0, atol=1e-5)
    assert np.linalg.eigvalsh(among).min() > 0
    off = ~np.eye(12, dtype=bool)
    assert np.abs(among[:12, :12] - truth)[off].max() < 0.2
    assert among[0, 10] > 0.4 > 0.2 > abs(among[0, 11])
