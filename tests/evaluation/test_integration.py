"""Scores of integration move the way that their names say."""

import sys
from types import ModuleType

import numpy as np
import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import integration
from sclinguist_core.evaluation.integration import DIRECTIONS, integration_scores

OWN = ["silhouette_label", "silhouette_batch", "label_purity", "cross_batch_purity", "batch_mixing"]


@pytest.fixture(autouse=True)
def without_scib(monkeypatch):
    monkeypatch.setattr(integration, "scib_installed", lambda: False)


def cells(*, batch_shift=0.0, type_shift=10.0, n=240, seed=0):
    rng = np.random.default_rng(seed)
    batch = np.array(["one", "two"])[np.arange(n) % 2]
    types = np.array(["T", "B", "NK"])[np.arange(n) // 2 % 3]
    values = rng.normal(size=(n, 4))
    values[:, 0] += batch_shift * (batch == "two")
    values[:, 1] += type_shift * (types == "B")
    values[:, 2] += type_shift * (types == "NK")
    return values.astype(np.float32), batch, types


def test_mixed_data_sets_of_separate_types_score_high():
    scores = integration_scores(*cells())
    assert list(scores.index) == list(DIRECTIONS)
    assert scores["label_purity"] == 1.0
    assert scores["cross_batch_purity"] == 1.0
    assert scores["silhouette_label"] > 0.8
    assert scores["silhouette_batch"] > 0.9
    assert scores["batch_mixing"] == pytest.approx(1.0, abs=0.15)
    assert scores[["ilisi", "clisi", "kbet"]].isna().all()


def test_data_sets_that_stand_apart_score_low_in_mixing_alone():
    together, apart = integration_scores(*cells()), integration_scores(*cells(batch_shift=30.0))
    assert apart["batch_mixing"] == 0.0
    assert apart["silhouette_batch"] < 0.3 < together["silhouette_batch"]
    assert apart["label_purity"] > 0.99


def test_types_that_are_one_blob_score_low_in_separation_alone():
    scores = integration_scores(*cells(type_shift=0.0))
    assert scores["silhouette_label"] < 0.55
    assert scores["label_purity"] == pytest.approx(1 / 3, abs=0.1)
    assert scores["batch_mixing"] == pytest.approx(1.0, abs=0.15)


def test_a_type_that_lies_where_another_data_set_has_another_one_is_found():
    values, batch, types = cells()
    swapped = types.copy()
    second = batch == "two"
    swapped[second] = np.select(
        [types[second] == "B", types[second] == "NK"], ["NK", "B"], default="T"
    )
    scores = integration_scores(values, batch, swapped)
    assert scores["cross_batch_purity"] == pytest.approx(1 / 3, abs=0.05)


def test_rows_without_place_or_label_are_left_out():
    values, batch, types = cells()
    types = types.astype(object)
    worse = values.copy()
    worse[:20] = np.nan
    types[20:40] = None
    left = integration_scores(worse, batch, types)
    by_hand = integration_scores(values[40:], batch[40:], types[40:])
    np.testing.assert_allclose(left[OWN].astype(float), by_hand[OWN].astype(float), rtol=1e-6)


def test_a_large_table_is_sampled_always_alike(monkeypatch):
    monkeypatch.setattr(integration, "MAX_CELLS", 120)
    first, again = (integration_scores(*cells(), seed=1) for _ in range(2))
    assert first.equals(again)
    assert not first.equals(integration_scores(*cells(), seed=2))


def test_scib_metrics_gets_neighbours_with_the_cell_itself(monkeypatch):
    """A stand-in for scib-metrics, which tests do not need to install."""
    seen = {}

    class NeighborsResults:
        def __init__(self, indices, distances):
            seen["indices"] = indices
            assert indices.shape == distances.shape

    scib, nearest = ModuleType("scib_metrics"), ModuleType("scib_metrics.nearest_neighbors")
    nearest.NeighborsResults = NeighborsResults
    scib.kbet = lambda near, batches: (0.25, None, None)
    scib.ilisi_knn = lambda near, batches: 0.5
    scib.clisi_knn = lambda near, labels: 0.75
    monkeypatch.setitem(sys.modules, "scib_metrics", scib)
    monkeypatch.setitem(sys.modules, "scib_metrics.nearest_neighbors", nearest)
    monkeypatch.setattr(integration, "scib_installed", lambda: True)
    scores = integration_scores(*cells())
    assert scores[["ilisi", "clisi", "kbet"]].tolist() == [0.5, 0.75, 0.25]
    assert seen["indices"].shape == (240, 90)
    assert (seen["indices"][:, 0] == np.arange(240)).all()


def test_what_cannot_be_scored_is_refused():
    values, batch, types = cells()
    with pytest.raises(InputError, match="found 1 data sets among the labelled cells"):
        integration_scores(values, np.full(240, "one"), types)
    with pytest.raises(InputError, match="found 1 cell types among the labelled cells"):
        integration_scores(values, batch, np.full(240, "T"))
    with pytest.raises(InputError, match="found 40 labelled cells, expected more than 90"):
        integration_scores(values[:40], batch[:40], types[:40])
