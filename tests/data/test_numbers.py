"""Texts that are numbers, whatever they say."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclinguist_core.data.numbers import SAFE_PRECISION, as_numbers
from sclinguist_core.data.readers.mtx import read_mtx
from sclinguist_core.errors import InputError

CRASHES = "32.599991e3099999999994"
"""Ends the process in ``pandas.to_numeric``, and in ``pandas.read_csv`` by default."""


def test_numbers_of_every_kind():
    column = pd.Series(
        ["1", " 2.5 ", "1e400", "-inf", "", "x", None, pd.NA, True, 3, CRASHES, b"4"]
    )
    expected = [1, 2.5, np.inf, -np.inf, np.nan, np.nan, np.nan, np.nan, 1, 3, np.inf, 4]
    np.testing.assert_array_equal(as_numbers(column), expected)
    assert as_numbers(pd.Series([10**400, 1], dtype=object)).tolist() == [np.inf, 1]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2], dtype="int32"),
        pd.Series(["1", "2"], dtype="category"),
        pd.Series(["1", "2"], dtype="string"),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series(["1", "2"]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_columns_of_every_type(column):
    numbers = as_numbers(column)
    assert numbers.dtype == np.float64
    assert numbers.tolist() == [1, 2]


@given(st.from_regex(r"-?[0-9]{1,30}(\.[0-9]{0,30})?(e[+-]?[0-9]{1,25})?", fullmatch=True))
def test_nothing_that_looks_like_a_number_ends_the_process(text):
    assert as_numbers(pd.Series([text]))[0] == float(text)
    read = pd.read_csv(io.StringIO(f"a\n{text}"), float_precision=SAFE_PRECISION, dtype=object)
    assert len(read) == 1
    inferred = pd.read_csv(io.StringIO(f"a\n{text}"), float_precision=SAFE_PRECISION)
    assert len(inferred) == 1


def test_such_a_number_among_counts_is_refused(tmp_path):
    path = tmp_path / "matrix.mtx"
    path.write_text(f"%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 {CRASHES}\n")
    with pytest.raises(InputError, match=r"matrix\.mtx"):
        read_mtx(path)
