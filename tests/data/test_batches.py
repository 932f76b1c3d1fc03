import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from sclinguist_core.data.batches import bucketed_rows, pad_rows


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
                  elements=st.sampled_from([0.0, 0.0, 1.0, 2.5])))  # fmt: skip
def test_padding_loses_and_adds_nothing(dense):
    expression = sparse.csr_matrix(dense)
    genes, values = pad_rows(expression)
    rebuilt = np.zeros_like(dense)
    rows, columns = np.nonzero(genes >= 0)
    rebuilt[rows, genes[rows, columns]] = values[rows, columns]
    np.testing.assert_array_equal(rebuilt, dense)
    assert (values[genes < 0] == 0).all()


@given(
    st.lists(st.integers(0, 50), max_size=60),
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(1, 200)),
)
def test_buckets_hold_every_row_once_and_keep_to_their_limits(lengths, batch_size, max_tokens):
    lengths = np.array(lengths, np.int64)
    batches = list(bucketed_rows(lengths, batch_size, max_tokens))
    assert sorted(np.concatenate([*batches, []]).astype(int)) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) <= batch_size
        if max_tokens is not None and len(rows) > 1:
            assert len(rows) * lengths[rows].max() <= max_tokens
    longest = [lengths[rows].max() for rows in batches]
    assert longest == sorted(longest, reverse=True)


def test_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="batch_size"):
        next(bucketed_rows(np.array([1]), 0))
