"""Bags of cells: the right neighbours, weights that sum to one, odd input."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.inference import bag
from sclinguist_core.inference.bag import bag_weights, check_context


@pytest.fixture
def places():
    return np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)


def by_hand(places, k):
    distance = ((places[:, None].astype(float) - places[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return [set(row[:k].tolist()) for row in np.argsort(distance, axis=1)]


@pytest.mark.parametrize("context", ["spatial", "nearest"])
def test_the_nearest_rows_weigh_the_same(places, context):
    given = places[:, :2] if context == "spatial" else places
    weights = bag_weights(given, given, context, n_neighbours=4)
    assert weights.shape == (60, 60)
    assert weights.dtype == np.float32
    assert weights.has_sorted_indices
    assert [set(row.indices.tolist()) for row in weights] == by_hand(given, 4)
    np.testing.assert_array_equal(weights.data, np.float32(0.25))


def test_a_row_counts_itself_only_where_asked_for(places):
    weights = bag_weights(None, places, "nearest", n_neighbours=3, include_self=True)
    assert (weights.diagonal() == np.float32(0.25)).all()
    assert (bag_weights(None, places, "nearest", n_neighbours=3).diagonal() == 0).all()


def test_without_context_a_row_is_its_own(places):
    values = places.astype(np.float64)
    np.testing.assert_array_equal(bag_weights(None, places, "none") @ values, values)
    assert bag_weights(places[:, :2], None, "none").shape == (60, 60)


def test_identical_rows_are_neighbours_and_never_themselves():
    weights = bag_weights(np.zeros((30, 2)), np.zeros((30, 3)), "spatial", n_neighbours=4)
    assert (weights.diagonal() == 0).all()
    assert (np.diff(weights.indptr) == 4).all()
    weights = bag_weights(None, np.zeros((30, 3)), "nearest", n_neighbours=4)
    assert (weights.diagonal() == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)


@pytest.mark.parametrize("n", [0, 1, 2, 4])
@pytest.mark.parametrize("context", ["spatial", "nearest"])
def test_few_rows_share_what_there_is(n, context):
    places = np.arange(2.0 * n).reshape(n, 2)
    weights = bag_weights(places, places, context)
    expected = np.eye(n) if n < 2 else (1 - np.eye(n)) / (n - 1)
    np.testing.assert_allclose(weights.toarray(), expected, rtol=1e-6)


@pytest.mark.parametrize("context", ["spatial", "nearest"])
def test_rows_that_stand_nowhere_keep_to_themselves(places, context):
    places[7] = np.nan
    weights = bag_weights(places[:, :2], places, context, n_neighbours=6).toarray()
    assert weights[7, 7] == 1.0
    assert weights[:, 7].sum() == 1.0
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)


def test_many_rows_are_searched_approximately(places, monkeypatch):
    class Descent:
        """Stands in for the real search, which compiles for a minute; exact, rows not first."""

        def __init__(self, rows, n_neighbors, random_state):
            assert random_state == 0
            distance = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
            self.neighbor_graph = (np.argsort(distance, axis=1)[:, :n_neighbors], None)

    # In place of the module, too: importing it takes half a minute.
    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=Descent))
    exact = bag_weights(None, places, "nearest", n_neighbours=5)
    monkeypatch.setattr(bag, "EXACT_ROWS", 50)
    assert (exact != bag_weights(None, places, "nearest", n_neighbours=5)).nnz == 0


def test_what_is_missing_is_said(places):
    with pytest.raises(InputError, match=r"no positions on a tissue.*choose 'nearest'"):
        bag_weights(None, places, "spatial")
    with pytest.raises(InputError, match="expected an embedding"):
        bag_weights(places[:, :2], None, "nearest")
    with pytest.raises(InputError, match="expected positions or an embedding"):
        bag_weights(None, None, "none")
    with pytest.raises(InputError, match="expected one of none, spatial, nearest"):
        bag_weights(None, places, "neighbours")
    with pytest.raises(InputError, match="at least 1"):
        bag_weights(None, places, "nearest", n_neighbours=0)


def test_a_context_is_checked_by_one_rule():
    for context in ("none", "nearest"):
        check_context(context, is_spatial=False)
    check_context("spatial")
    with pytest.raises(InputError, match="'spatial': cells has no positions on a tissue"):
        check_context("spatial", name="cells", is_spatial=False)
    with pytest.raises(InputError, match="context 'near': expected one of none, spatial, nearest"):
        check_context("near")
    with pytest.raises(InputError, match="neighbours 0: expected at least 1"):
        check_context("none", 0)
