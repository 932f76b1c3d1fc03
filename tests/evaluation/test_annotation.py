"""Scores of annotated cell types, against figures worked out by hand."""

import numpy as np
import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.annotation import score_annotation

TRUTH = np.array(["a", "a", "a", "b", "b", "new", "new", None], object)
BEST = np.array(["a", "a", "b", "b", "b", "a", "b", "a"], object)
ASSIGNED = np.array([True, True, True, True, False, False, True, True])


def test_scores_by_hand():
    scores = score_annotation(TRUTH, BEST, ASSIGNED, ["a", "b"])
    summary = scores.summary
    assert summary["cells"] == 5
    assert summary["accuracy"] == pytest.approx(4 / 5)
    # a: 2 of 3 found, nothing else called so; b: both found, one a called so.
    assert summary["macro_f1"] == pytest.approx((0.8 + 0.8) / 2)
    assert summary["coverage"] == pytest.approx(4 / 5)
    assert summary["accuracy_assigned"] == pytest.approx(3 / 4)
    assert (summary["new_cells"], summary["new_rejected"]) == (2, 0.5)
    assert np.isnan(summary["calibration_error"])
    of_b = scores.per_class.loc["b"]
    assert (of_b["cells"], of_b["coverage"], of_b["recall"]) == (2, 0.5, 0.5)
    # Of three cells called b one is b, one is an a, one is of a type that the reference lacks.
    assert of_b["precision"] == pytest.approx(1 / 3)
    assert of_b["recall_assigned"] == 1.0
    assert scores.per_class.loc["a", "recall"] == pytest.approx(2 / 3)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    truth = np.array(["a"] * 10 + ["b"] * 10, object)
    best = np.array(["a"] * 20, object)
    everything = np.ones(20, bool)
    sure = score_annotation(truth, best, everything, ["a", "b"], np.full(20, 0.95))
    assert sure.summary["calibration_error"] == pytest.approx(0.45)
    honest = score_annotation(truth, best, everything, ["a", "b"], np.full(20, 0.5))
    assert honest.summary["calibration_error"] == pytest.approx(0.0)


def test_a_truth_in_other_words_is_refused():
    with pytest.raises(InputError, match=r"none of its labels \(a, b, new\) is one of.*\(T, B\)"):
        score_annotation(TRUTH, BEST, ASSIGNED, ["T", "B"])
