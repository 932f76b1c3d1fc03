import numpy as np
import pytest
from scipy import sparse

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError

MODEL = ["CD3E", "CD19", "MS4A1", "PTPRC"]


def rna(names, values, measured=None, ids=None):
    return RnaCounts(
        sparse.csr_matrix(np.array(values, np.float32)),
        np.array(names, dtype=object),
        ids,
        measured,
    )


def test_genes_are_moved_and_the_rest_is_missing():
    aligned = align_genes(
        rna(["PTPRC", "CD3E", "ACTB"], [[1, 2, 3], [0, 5, 0]]), MODEL, strict=False
    )
    assert aligned.counts.toarray().tolist() == [[2, 0, 0, 1], [5, 0, 0, 0]]
    assert aligned.measured.tolist() == [[True, False, False, True]]
    assert aligned.n_measured == 2


def test_rows_of_one_gene_are_summed():
    aligned = align_genes(rna(["CD3E", "ENSG00000198851"], [[1, 2]]), MODEL, strict=False)
    assert aligned.counts[0, 0] == 3


def test_zeros_that_are_stored_are_no_expression():
    counts = rna(["CD3E", "CD19"], [[1, 1], [1, 1]])
    counts.counts.data[1:] = 0
    aligned = align_genes(counts, MODEL, strict=False)
    assert np.diff(aligned.counts.indptr).tolist() == [1, 0]


def test_cells_may_differ_in_what_was_measured():
    mask = sparse.csr_matrix(np.array([[1, 0], [1, 1], [1, 0]], bool))
    aligned = align_genes(
        rna(["CD3E", "CD19"], [[1, 0], [0, 2], [3, 0]], measured=mask), MODEL, strict=False
    )
    assert aligned.pattern.tolist() == [0, 1, 0]
    assert aligned.measured.tolist() == [[True, False, False, False], [True, True, False, False]]


def test_a_count_where_nothing_was_measured_is_dropped():
    mask = np.array([[True, False]])
    aligned = align_genes(rna(["CD3E", "CD19"], [[2, 5]], measured=mask), MODEL, strict=False)
    assert aligned.counts.toarray().tolist() == [[2, 0, 0, 0]]


def test_share_follows_what_was_measured():
    aligned = align_genes(rna(["CD3E", "CD19"], [[1, 1]]), MODEL, strict=False)
    share = np.array([0.1, 0.2, 0.3, 0.4])
    assert aligned.shares(share).tolist() == pytest.approx([0.3])
    assert aligned.expression(share).data == pytest.approx(np.log1p(1e4 / (2 / 0.3)))


def test_foreign_names_are_refused_with_counts():
    with pytest.raises(InputError, match=r"0 of 300 gene names.*peak_0, peak_1, peak_2"):
        align_genes(rna([f"peak_{i}" for i in range(300)], [[1] * 300]), MODEL, source="peaks.h5ad")
