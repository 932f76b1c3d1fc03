"""Levels of expression: four equal bins between the extremes of each cell."""

import numpy as np
from scipy import sparse

from sclinguist_core.data.levels import expression_levels, extremes

CELLS = sparse.csr_matrix(
    np.array([[1.0, 1.9, 2.1, 3.1, 5.0], [0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 2.0, 0.0]])
)


def test_bins_are_equally_wide_between_the_extremes():
    # From 1 to 5: edges at 2, 3 and 4. A cell with one value only has it at level 1.
    assert expression_levels(CELLS).tolist() == [1, 1, 2, 3, 4, 1, 1]


def test_extremes_of_an_empty_cell_are_zero():
    low, high = extremes(CELLS)
    assert low.tolist() == [1.0, 0.0, 2.0]
    assert high.tolist() == [5.0, 0.0, 2.0]


def test_levels_do_not_depend_on_the_scale():
    assert expression_levels(CELLS * 7.0).tolist() == expression_levels(CELLS).tolist()
