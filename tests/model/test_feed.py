"""Cells come to the network as the model was trained to read them."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.batches import pad_rows
from sclinguist_core.data.preprocess import RNA_NORMALIZATIONS
from sclinguist_core.inference.runner import make_runner
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.model.feed import Cells

CPU = torch.device("cpu")
N, V = 30, 40


@pytest.fixture
def rna():
    """Two panels; a row without reads among the others."""
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.6, (N, V)).astype(np.float32)
    measured = np.ones((2, V), bool)
    measured[1, ::3] = False
    pattern = rng.integers(0, 2, N)
    dense *= measured[pattern]
    dense[4] = 0
    return AlignedRna(counts=sparse.csr_matrix(dense), measured=measured, pattern=pattern)


def test_the_chosen_rows_are_padded_to_the_longest():
    expression = sparse.csr_matrix(np.array([[0, 1.5, 0], [2.0, 0, 3.0], [0, 0, 0]], np.float32))
    cells = Cells(values=expression, pattern=np.array([0, 1, 1]))
    tokens = cells.tokens(np.array([1, 2]), CPU)
    assert tokens.genes.tolist() == [[0, 2], [-1, -1]]
    assert tokens.values.tolist() == [[2.0, 3.0], [0.0, 0.0]]
    assert tokens.pattern.tolist() == [1, 1]


@pytest.mark.parametrize("normalization", sorted(RNA_NORMALIZATIONS))
def test_tokens_are_normalised_expression(rna, normalization):
    share = np.random.default_rng(1).dirichlet(np.ones(V))
    expression = rna.expression(share, normalization)
    scale = rna.scale(share, normalization)
    rows = np.array([7, 4, 0, 29])
    genes, values = pad_rows(expression[rows])
    for cells in (
        Cells(values=rna.counts, pattern=rna.pattern, scale=scale),
        Cells(values=expression, pattern=rna.pattern),
    ):
        tokens = cells.tokens(rows, CPU)
        assert tokens.n_obs == 4
        np.testing.assert_array_equal(tokens.genes, genes)
        np.testing.assert_array_equal(tokens.pattern, rna.pattern[rows])
        np.testing.assert_allclose(tokens.values, values, rtol=1e-6)
        np.testing.assert_array_equal(cells.lengths, np.diff(rna.counts.indptr))


def test_the_two_normalisations_differ_where_genes_are_missing(rna):
    share = np.full(V, 1 / V)
    measured, plain = (rna.scale(share, name) for name in ("log1p_cp10k_measured", "log1p_cp10k"))
    assert (measured[rna.pattern == 0] == plain[rna.pattern == 0]).all()
    panel = (rna.pattern == 1) & (np.diff(rna.counts.indptr) > 0)
    np.testing.assert_allclose(measured[panel] / plain[panel], rna.measured[1].mean(), rtol=1e-6)


def test_only_rows_without_reads(rna):
    cells = Cells(values=rna.counts, pattern=rna.pattern, scale=rna.scale(np.full(V, 1 / V)))
    tokens = cells.tokens(np.array([4]), CPU)
    assert tokens.genes.tolist() == [[-1]]
    assert tokens.values.tolist() == [[0.0]]


def test_half_precision_hardly_changes_predictions():
    """What a card computes in bfloat16, here on a processor: a tenth of the error at most."""
    checkpoint = load_checkpoint()
    genes = len(checkpoint.genes)
    rng = np.random.default_rng(0)
    counts = rng.poisson(3_000 * checkpoint.gene_share * rng.gamma(2, 0.5, (24, genes)))
    rna = AlignedRna(
        counts=sparse.csr_matrix(counts.astype(np.float32)),
        measured=np.ones((1, genes), bool),
        pattern=np.zeros(24, np.int64),
    )
    runner = make_runner(checkpoint, CPU, np.arange(len(checkpoint.proteins)))
    whole, error = runner.run_all(rna)
    runner.half = True
    half, _ = runner.run_all(rna)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - whole).mean() < 0.01
    assert np.abs(half - whole).max() < 0.1 * error.mean()
    # Differences that somebody asks for are not rounded away.
    changed = runner.run_expression(runner.expression(rna), rna.measured, rna.pattern)
    for rows, outputs in changed:
        np.testing.assert_allclose(outputs.mean, whole[rows], atol=1e-5)
