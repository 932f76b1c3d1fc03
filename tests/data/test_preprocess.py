import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sclinguist_core.data.preprocess import (
    isotype_mask,
    log1p_cp10k,
    protein_clr,
    protein_isotype_corrected,
    protein_log1p_z,
    protein_minmax,
    size_factors,
    standardize,
)

COUNTS = np.array([[0.0, 3.0, 100.0], [7.0, 7.0, 7.0]])


def test_log1p_cp10k_is_log_of_counts_per_ten_thousand():
    counts = sparse.csr_matrix(np.array([[1, 0, 3], [0, 0, 0]], np.float32))
    result = log1p_cp10k(counts)
    np.testing.assert_allclose(result.toarray(), np.log1p([[2500, 0, 7500], [0, 0, 0]]), rtol=1e-6)
    assert counts[0, 0] == 1
    assert result.nnz == 2


def test_a_small_panel_is_not_inflated():
    whole = sparse.csr_matrix(np.array([[10, 20, 70]], np.float32))
    panel = whole[:, :2]
    values = log1p_cp10k(panel, share=0.3)
    np.testing.assert_allclose(values.toarray(), log1p_cp10k(whole).toarray()[:, :2], rtol=1e-6)


def test_empty_cells_have_size_one():
    assert size_factors(sparse.csr_matrix((2, 3), dtype=np.float32)).tolist() == [1.0, 1.0]


def test_clr_by_hand():
    logged = np.log1p(COUNTS)
    np.testing.assert_allclose(
        protein_clr(COUNTS), logged - logged.mean(axis=1, keepdims=True), rtol=1e-5, atol=1e-7
    )


def test_isotypes_do_not_enter_the_centre():
    clr = protein_clr(COUNTS, np.array([False, False, True]))
    np.testing.assert_allclose(clr[:, :2].sum(axis=1), 0, atol=1e-6)
    assert clr[0, 2] > 0


def test_not_measured_stays_not_measured():
    clr = protein_clr(np.array([[1.0, np.nan, 5.0], [np.nan, np.nan, np.nan]]))
    assert np.isnan(clr).tolist() == [[False, True, False], [True, True, True]]
    assert clr[0, 0] == pytest.approx(-clr[0, 2])


@given(st.integers(2, 50))
def test_total_count_does_not_move_clr_of_large_counts(factor):
    counts = np.array([[1000.0, 5000.0, 20000.0]])
    np.testing.assert_allclose(protein_clr(counts * factor), protein_clr(counts), atol=2e-3)


def test_frames_keep_their_labels():
    frame = pd.DataFrame(COUNTS, index=["a", "b"], columns=["CD3", "CD4", "CD8"])
    for function in (protein_clr, protein_log1p_z, protein_minmax):
        result = function(frame)
        assert result.index.tolist() == ["a", "b"]
        assert result.columns.tolist() == ["CD3", "CD4", "CD8"]
        assert (result.dtypes == np.float32).all()


def test_standardize_handles_constant_and_missing_values():
    z = standardize(np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]]))
    np.testing.assert_allclose(z[:2, 0], [-1, 1])
    np.testing.assert_allclose(z[:, 1], 0)
    assert np.isnan(z[2, 0])


def test_minmax_spans_the_cell():
    scaled = protein_minmax(COUNTS)
    assert scaled[0, 0] == pytest.approx(1e-8)
    assert scaled[0, 2] == pytest.approx(1.0)
    assert np.isfinite(scaled[1]).all()


def test_isotype_correction_subtracts_the_background():
    corrected = protein_isotype_corrected(COUNTS, np.array([False, True, False]))
    assert corrected[0, 2] == pytest.approx(np.log1p(100) - np.log1p(3), rel=1e-5)
    with pytest.raises(ValueError, match="no isotype control"):
        protein_isotype_corrected(COUNTS, np.zeros(3, bool))


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="negative"):
        protein_clr(np.array([[-1.0, 2.0]]))


def test_isotype_controls_are_found_by_name_whatever_the_order_of_the_panel():
    table = AnnData(obs=pd.DataFrame(index=["a", "b"]))
    table.obsm["protein"] = pd.DataFrame(1.0, table.obs_names, columns=["CD3", "IgG", "new"])
    assert isotype_mask(table) is None
    table.uns["protein_panel"] = pd.DataFrame({"clone": ""}, index=["CD3", "IgG"])
    assert isotype_mask(table) is None
    table.uns["protein_panel"] = pd.DataFrame({"isotype": [True, False]}, index=["IgG", "CD3"])
    mask = isotype_mask(table)
    assert mask.dtype == bool
    assert mask.tolist() == [False, True, False]
