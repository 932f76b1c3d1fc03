"""Counts are found by their values: in X, a layer or raw, and refused where there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sclinguist_core.data.counts import counts_at, find_counts
from sclinguist_core.errors import InputError


@pytest.fixture
def counts():
    return np.random.default_rng(1).poisson(1.5, (30, 20)).astype(np.float32)


def log_normalised(counts):
    return np.log1p(counts / np.maximum(counts.sum(1, keepdims=True), 1) * 1e4)


def table(x, **kwargs):
    n, g = x.shape
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n)])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(g)])
    return AnnData(x, obs=obs, var=var, **kwargs)


@pytest.mark.parametrize(
    "convert", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint16])
def test_counts_in_x(counts, convert, dtype):
    found = find_counts(table(convert(counts.astype(dtype))))
    assert found.where == "X"
    assert found.warnings == ()
    assert found.matrix.format == "csr"
    assert found.matrix.dtype == np.float32
    np.testing.assert_array_equal(found.matrix.toarray(), counts)


def test_float32_csr_is_not_copied(counts):
    adata = table(sparse.csr_matrix(counts))
    assert find_counts(adata).matrix is adata.X


@pytest.mark.parametrize("name", ["counts", "raw_counts", "my_own"])
def test_layer_of_a_normalised_table(counts, name):
    adata = table(log_normalised(counts), layers={name: sparse.csr_matrix(counts)})
    found = find_counts(adata, source="a.h5ad")
    assert found.where == f"layers/{name}"
    np.testing.assert_array_equal(found.matrix.toarray(), counts)
    (warning,) = found.warnings
    assert "'a.h5ad'" in warning
    assert f"taken from layers/{name}" in warning
    assert "log-normalised" in warning


def test_raw_of_a_normalised_table(counts):
    adata = table(counts)
    adata.raw = adata
    adata = adata[:, :5].copy()
    adata.X = log_normalised(adata.X)
    found = find_counts(adata)
    assert found.where == "raw"
    assert found.matrix.shape == (30, 20)


def test_named_layer_before_raw_before_other_layers(counts):
    adata = table(log_normalised(counts), layers={"other": counts, "umi": counts})
    adata.raw = table(counts)
    assert find_counts(adata).where == "layers/umi"
    del adata.layers["umi"]
    assert find_counts(adata).where == "raw"
    adata.raw = None
    assert find_counts(adata).where == "layers/other"


def test_own_layers_are_not_taken_for_counts(counts):
    adata = table(
        log_normalised(counts),
        layers={"measured": counts > 0, "sclinguist_imputed": np.ones_like(counts)},
    )
    with pytest.raises(InputError, match="No raw counts"):
        find_counts(adata)


def test_binary_x_gives_way_to_counts(counts):
    binary = (counts > 0).astype(np.float32)
    assert find_counts(table(binary)).where == "X"
    assert find_counts(table(binary, layers={"counts": counts})).where == "layers/counts"


def test_scaled_x_gives_way_to_counts(counts):
    adata = table(counts - counts.mean(0), layers={"counts": counts})
    found = find_counts(adata)
    assert found.where == "layers/counts"
    assert "negative values" in found.warnings[0]


def test_chosen_layer(counts):
    adata = table(counts, layers={"spliced": counts * 2, "lognorm": log_normalised(counts)})
    for name in ("spliced", "layers/spliced"):
        np.testing.assert_array_equal(find_counts(adata, name).matrix.toarray(), counts * 2)
    assert find_counts(adata, "X").where == "X"
    with pytest.raises(InputError, match="Layer 'lognorm' of the table holds fractional values"):
        find_counts(adata, "lognorm")
    with pytest.raises(InputError, match=r"No layer 'conts'.*: lognorm, spliced \(besides X\)"):
        find_counts(adata, "conts")
    with pytest.raises(InputError, match="No layer 'raw'"):
        find_counts(adata, "raw")


def test_refusal_says_what_was_found_and_what_to_do(counts):
    x = log_normalised(counts)
    with pytest.raises(InputError) as error:
        find_counts(table(x), source="section.h5ad")
    text = str(error.value)
    assert "'section.h5ad'" in text
    assert f"maximum {x.max():.3g}" in text
    assert "expected non-negative whole numbers" in text
    assert "--layer" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.nan, "1 values that are NaN"),
        (np.inf, "1 values that are NaN or infinite"),
        (-1.0, "negative values"),
    ],
)
def test_values_that_are_no_counts(counts, value, found):
    counts[3, 4] = value
    with pytest.raises(InputError, match=found):
        find_counts(table(counts))


def test_cp10k_is_not_taken_for_counts(counts):
    with pytest.raises(InputError, match="normalised, or corrected as by SoupX"):
        find_counts(table(counts / counts.sum(1, keepdims=True) * 1e4))


def test_float_noise_is_rounded(counts):
    noisy = counts * np.float32(1 - 1e-6)
    adata = table(sparse.csr_matrix(noisy))
    found = find_counts(adata)
    np.testing.assert_array_equal(found.matrix.toarray(), counts)
    assert "float noise" in found.warnings[0]
    np.testing.assert_array_equal(adata.X.toarray(), noisy)


def test_estimated_counts_are_rounded_with_a_warning(counts):
    estimated = counts.copy()
    estimated[:5] += np.where(estimated[:5] > 0, np.float32(0.3), 0)
    estimated[6, 0] = 0.25
    found = find_counts(table(estimated))
    expected = counts.copy()
    expected[6, 0] = 0
    np.testing.assert_array_equal(found.matrix.toarray(), expected)
    assert "alevin" in found.warnings[0]
    assert np.all(found.matrix.data >= 1)


def test_only_genes_are_judged(counts):
    counts[:, 15:] = log_normalised(counts)[:, 15:] - 1
    adata = table(counts)
    with pytest.raises(InputError):
        find_counts(adata, "X")
    adata.var["feature_types"] = ["Gene Expression"] * 15 + ["Antibody Capture"] * 5
    assert find_counts(adata).where == "X"


def test_empty_and_missing_matrices():
    assert find_counts(table(sparse.csr_matrix((4, 3), dtype=np.float32))).matrix.nnz == 0
    adata = AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["b"]))
    with pytest.raises(InputError, match="it has no matrix"):
        find_counts(adata)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 100_000), min_size=3, max_size=3), min_size=1, max_size=6))
def test_whole_numbers_are_always_counts(rows):
    counts = np.array(rows, dtype=np.float32)
    adata = table(sparse.csr_matrix(counts))
    found = find_counts(adata)
    np.testing.assert_array_equal(found.matrix.toarray(), counts)
    np.testing.assert_array_equal(counts_at(adata, found.where).toarray(), counts)
