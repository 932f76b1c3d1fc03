"""From features to values and levels, and what is hidden to learn it."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import matthews_corrcoef

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.levels import level_mcc
from sclinguist_core.errors import InputError
from sclinguist_core.inference import impute_calibration as module
from sclinguist_core.inference.impute_calibration import (
    Calibrator,
    describe_entries,
    entries_of,
    hide_entries,
    matching_bias,
    truth,
)
from sclinguist_core.inference.impute_scores import entry_pearson

N, V = 40, 60


@pytest.fixture
def rna():
    rng = np.random.default_rng(0)
    measured = np.array([np.arange(V) % 5 > 0, np.ones(V, bool)])
    pattern = np.arange(N) % 2
    counts = rng.poisson(0.7, (N, V)) * measured[pattern]
    return AlignedRna(
        counts=sparse.csr_matrix(counts.astype(np.float32)), measured=measured, pattern=pattern
    )


def test_a_share_of_the_measured_entries_is_hidden_zeros_among_them(rna):
    visible, hidden = hide_entries(rna, 0.25, np.random.default_rng(1))
    dense = hidden.toarray()
    assert not dense[~rna.measured[rna.pattern]].any()
    assert dense.sum() / rna.measured[rna.pattern].sum() == pytest.approx(0.25, abs=0.02)
    whole = rna.counts.toarray()
    assert 0.4 < (whole[dense] == 0).mean() < 0.6
    np.testing.assert_array_equal(visible.counts.toarray(), np.where(dense, 0, whole))
    assert (visible.counts.data > 0).all()


def test_entries_that_are_hidden_already_are_not_drawn_again(rna):
    _, first = hide_entries(rna, 0.5, np.random.default_rng(1))
    _, second = hide_entries(rna, 0.5, np.random.default_rng(2), hidden=first, rows=np.arange(9))
    assert first.multiply(second).nnz == 0
    assert np.flatnonzero(np.diff(second.indptr)).tolist() == list(range(9))


def test_the_truth_comes_in_the_order_of_the_entries(rna):
    _, hidden = hide_entries(rna, 0.3, np.random.default_rng(1))
    value, level = truth(rna.counts, hidden)
    np.testing.assert_array_equal(value, rna.counts.toarray()[hidden.toarray()])
    assert ((level == 0) == (value == 0)).all()
    assert set(level.tolist()) <= {0, 1, 2, 3, 4}


def test_entries_of_some_rows_are_a_part_of_all(rna):
    _, hidden = hide_entries(rna, 0.3, np.random.default_rng(1))
    rows = np.arange(N) % 3 == 0
    kept = entries_of(hidden, rows).toarray()
    np.testing.assert_array_equal(kept, hidden.toarray() & rows[:, None])


def test_entries_are_described_block_by_block(rna, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    _, hidden = hide_entries(rna, 0.3, np.random.default_rng(1), rows=np.arange(3, N, 2))

    def describe(rows, genes):
        return np.stack(np.broadcast_arrays(rows[:, None], genes[None]), axis=-1)

    found = np.full((hidden.nnz, 2), -1)
    for part, features in describe_entries(describe, hidden):
        found[part] = features
    np.testing.assert_array_equal(found, np.argwhere(hidden.toarray()))


@pytest.fixture(scope="module")
def known():
    """Entries whose value and level follow one feature; the other is noise."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6000, 2))
    score = features[:, 0] + 0.5 * rng.normal(size=6000)
    level = np.digitize(score, [1.0, 1.7, 2.2])  # no entry has level 4
    return features, np.where(level > 0, score, 0.0), level


def test_weights_find_values_and_levels_of_other_entries(known):
    features, value, level = (part[:4000] for part in known)
    fitted = Calibrator.fit(features, value, level)
    said = fitted.predict(known[0][4000:])
    assert np.corrcoef(said.value, known[1][4000:])[0, 1] > 0.75
    assert (said.value >= 0).all()
    np.testing.assert_allclose(said.probability.sum(axis=1), 1.0, rtol=1e-5)
    assert (said.probability[:, 4] == 0).all()
    plain = matthews_corrcoef(known[2][4000:], said.probability.argmax(axis=1))
    assert matthews_corrcoef(known[2][4000:], said.level) > plain - 0.02
    called = np.bincount(said.level, minlength=5) / 2000
    occur = np.bincount(known[2][4000:], minlength=5) / 2000
    np.testing.assert_allclose(called, occur, atol=0.03)


def test_two_levels_are_enough(known):
    features, value, level = known
    said = Calibrator.fit(features, value, np.where(level > 0, 2, 0)).predict(features)
    assert set(said.level.tolist()) == {0, 2}
    np.testing.assert_allclose(said.probability[:, [0, 2]].sum(axis=1), 1.0, rtol=1e-5)


def test_one_level_teaches_nothing(known):
    features, value, _ = known
    with pytest.raises(InputError, match="all have the same level"):
        Calibrator.fit(features, value, np.zeros(len(value), int))


def test_levels_are_called_as_often_as_they_occur():
    rng = np.random.default_rng(0)
    log_p = np.log(rng.dirichlet([20, 3, 1, 0.5, 0.5], 5000) + 1e-9)
    counts = np.array([4000, 700, 200, 100, 0])
    called = (log_p + matching_bias(log_p, counts)).argmax(axis=1)
    np.testing.assert_allclose(np.bincount(called, minlength=5), counts, atol=25)


def test_scores_of_groups_are_those_of_their_entries():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4, 500)
    level, called = rng.integers(0, 5, 500), rng.integers(0, 5, 500)
    called = np.where(rng.random(500) < 0.6, level, called)
    called[group == 3] = 0  # always the same: undefined
    value, said = level + rng.normal(size=500), called + rng.normal(size=500)
    said[group == 2] = 1.0
    mcc, r = level_mcc(level, called, group, 4), entry_pearson(value, said, group, 4)
    for g in range(3):
        expected = matthews_corrcoef(level[group == g], called[group == g])
        assert mcc[g] == pytest.approx(expected)
    for g in (0, 1, 3):
        expected = np.corrcoef(value[group == g], said[group == g])[0, 1]
        assert r[g] == pytest.approx(expected)
    assert np.isnan(mcc[3])
    assert np.isnan(r[2])
    assert level_mcc(level, called)[0] == pytest.approx(matthews_corrcoef(level, called))
