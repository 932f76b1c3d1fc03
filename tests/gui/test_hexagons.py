"""Points counted in hexagons: the same counts as matplotlib's, whatever the points."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from napari_sclinguist.control.hexagons import ACROSS, count_hexagons


def test_counts_are_those_of_matplotlib():
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(size=20_000), np.nan, 0.0]
    y = np.r_[rng.gamma(2, size=20_000), 1.0, np.nan]
    found = count_hexagons(x, y)
    axes = Figure().add_subplot()
    drawn = axes.hexbin(x[:-2], y[:-2], gridsize=ACROSS, mincnt=1, extent=found.extent)
    assert found.counts.sum() == 20_000
    expected, centres = np.asarray(drawn.get_offsets()), np.c_[found.x, found.y]
    order, other = (np.lexsort(places.round(6).T) for places in (centres, expected))
    np.testing.assert_array_equal(found.counts[order], np.asarray(drawn.get_array())[other])
    np.testing.assert_allclose(centres[order], expected[other], atol=1e-6)
    # Drawn from the counts, every hexagon is where it would be if drawn from the points.
    again = axes.hexbin(
        found.x, found.y, C=found.counts, reduce_C_function=np.sum, gridsize=ACROSS,
        extent=found.extent,
    )  # fmt: skip
    np.testing.assert_array_equal(again.get_array(), drawn.get_array())


@pytest.mark.parametrize(
    ("x", "y", "counts"),
    [
        ([], [], []),
        ([np.nan], [1.0], []),
        ([2.0, 2.0], [3.0, 3.0], [2]),
        ([0.0, 1.0], [5.0, 5.0], [1, 1]),
    ],
)
def test_few_or_equal_points(x, y, counts):
    found = count_hexagons(np.array(x), np.array(y))
    assert found.counts.tolist() == counts
    left, right, bottom, top = found.extent
    assert right > left
    assert top > bottom
