"""Moran's I against its formula, on graphs that can be drawn by hand."""

import numpy as np
import pandas as pd
import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import spatial
from sclinguist_core.evaluation.spatial import (
    columns_by_known_rows,
    morans_i,
    morans_i_over,
    neighbour_graph,
)


def hexagons(n_rows=12, n_columns=10):
    """Visium's lattice: rows shifted by half a pitch in turn, 100 apart."""
    row, column = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return np.column_stack([100.0 * column + 50.0 * (row % 2), row * 50.0 * np.sqrt(3.0)])


def by_hand(weights, values):
    """The formula, with weights of each row summing to 1 where there are any."""
    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    z = values - values.mean()
    return len(z) / weights.sum() * (z @ weights @ z) / (z @ z)


def within(positions, distance):
    away = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    return ((away > 0) & (away < distance)).astype(float)


def test_neighbours_on_the_lattice_are_the_ring_around_a_spot():
    positions = hexagons()
    graph = neighbour_graph(positions, lattice=True)
    np.testing.assert_array_equal(graph.toarray(), within(positions, 110))
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    assert degrees.max() == 6
    assert degrees.min() == 2  # a corner
    # The lattice is recognised at any scale and angle.
    turned = positions @ np.array([[0.8, -0.6], [0.6, 0.8]]) * 0.01 + 7
    assert (neighbour_graph(turned, lattice=True) != graph).nnz == 0


def test_neighbours_elsewhere_are_the_six_nearest():
    positions = np.random.default_rng(0).uniform(size=(40, 2))
    graph = neighbour_graph(positions, lattice=False).toarray()
    away = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(away, np.inf)
    nearest = np.argsort(away, axis=1)[:, :6]
    for row in range(40):
        assert set(np.flatnonzero(graph[row])) == set(nearest[row])


@pytest.mark.parametrize("lattice", [True, False])
def test_morans_i_is_its_formula(lattice):
    rng = np.random.default_rng(1)
    positions = hexagons() if lattice else rng.uniform(size=(120, 2)) * 1000
    x, y = positions.T
    values = np.column_stack([x, np.sin(y / 90), rng.normal(size=120), 5 + 1e4 * (x > 400)])
    weights = neighbour_graph(positions, lattice=lattice).toarray().astype(float)
    expected = [by_hand(weights, column) for column in values.T]
    found = morans_i(positions, values, lattice=lattice)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float64
    assert found[0] > 0.7
    assert abs(found[2]) < 0.15
    frame = pd.DataFrame(values.astype(np.float32), columns=list("dcba"))
    np.testing.assert_allclose(morans_i(positions, frame, lattice=lattice), expected, rtol=1e-4)


def test_alternating_rows_are_negative():
    row = np.repeat(np.arange(12), 10)
    assert morans_i(hexagons(), (row % 2.0)[:, None], lattice=True)[0] < -0.3


def test_missing_values_are_left_out_with_their_spots():
    rng = np.random.default_rng(2)
    positions = hexagons()
    values = rng.normal(size=(120, 4)) + positions[:, :1] / 300
    values[7] = np.nan  # a spot without reads
    values[30:50, 2] = np.nan
    expected = []
    for column in values.T:
        known = np.isfinite(column)
        weights = within(positions, 110)[np.ix_(known, known)]
        expected.append(by_hand(weights, column[known]))
    np.testing.assert_allclose(morans_i(positions, values, lattice=True), expected, rtol=1e-6)


def test_what_has_no_pattern_to_speak_of_is_nan():
    positions = hexagons()
    values = np.tile(positions[:, :1], (1, 5))
    values[:, 1] = 0.1  # constant
    values[:, 2] = 0.1 * (1 + 1e-14 * np.arange(120))  # constant but for rounding
    values[2:, 3] = np.nan  # two spots
    values[:, 4] = np.nan
    found = morans_i(positions, values, lattice=True)
    assert np.isfinite(found).tolist() == [True, False, False, False, False]
    apart = np.full((120, 1), np.nan)
    apart[[0, 29, 55, 99]] = [[1.0], [2.0], [3.0], [5.0]]  # no two are neighbours
    assert np.isnan(morans_i(positions, apart, lattice=True)).all()
    few = morans_i(positions[:6], values[:6, :1], lattice=True)
    assert np.isnan(few).all()
    assert neighbour_graph(positions[:6], lattice=False).nnz == 0
    assert morans_i(positions, np.empty((120, 0)), lattice=True).shape == (0,)


def test_blocks_of_features_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(3)
    positions, values = hexagons(), rng.normal(size=(120, 11))
    whole = morans_i(positions, values, lattice=True)
    monkeypatch.setattr(spatial, "BLOCK_VALUES", 120 * 3)
    np.testing.assert_allclose(morans_i(positions, values, lattice=True), whole, rtol=1e-9)


def test_neighbours_are_found_once_for_features_that_come_in_blocks():
    rng = np.random.default_rng(4)
    positions, values = hexagons(), rng.normal(size=(120, 6))
    values[:9, 4] = np.nan
    graph = neighbour_graph(positions, lattice=True)
    halves = [morans_i_over(graph, half) for half in (values[:, :3], values[:, 3:])]
    np.testing.assert_array_equal(np.concatenate(halves), morans_i(positions, values, lattice=True))
    with pytest.raises(InputError, match=r"values: found shape \(119, 6\).*120 positions"):
        morans_i_over(graph, values[1:])


def test_columns_are_grouped_by_their_gaps():
    values = np.zeros((9, 4))
    values[8, 1] = values[8, 3] = np.nan
    groups = columns_by_known_rows(values)
    assert [columns.tolist() for _, columns in groups] == [[0, 2], [1, 3]]
    assert groups[0][0].all()
    assert groups[1][0].tolist() == [True] * 8 + [False]


@pytest.mark.parametrize(
    ("positions", "values", "message"),
    [
        (np.zeros((5, 3)), np.zeros((5, 1)), r"positions: found shape \(5, 3\)"),
        (np.full((5, 2), np.nan), np.zeros((5, 1)), "not finite"),
        (np.zeros((5, 2)), np.zeros((4, 1)), r"values: found shape \(4, 1\).*5 positions"),
        (np.zeros((5, 2)), np.zeros(5), r"values: found shape \(5,\)"),
    ],
)
def test_input_of_another_shape(positions, values, message):
    with pytest.raises(InputError, match=message):
        morans_i(positions, values, lattice=True)
