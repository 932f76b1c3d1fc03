from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

import small_runs
from sclinguist_core.data.levels import expression_levels
from sclinguist_core.train.augment import Augmentation
from sclinguist_core.train.heldout import HeldOutLoss
from sclinguist_core.train.masked_rna import (
    RnaChunks,
    RnaObjective,
    mask_genes,
)
from sclinguist_core.train.masking import Masking
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.trainer import run_objective

N_CELLS, N_GENES = 200, 60
SHARE = np.full(N_GENES, 1 / N_GENES)
MEASURED = np.arange(N_GENES) % 6 > 0


@pytest.fixture
def counts():
    rng = np.random.default_rng(1)
    found = rng.poisson(rng.gamma(0.6, 2.0, N_GENES), (N_CELLS, N_GENES)) * MEASURED
    return sparse.csr_matrix(found.astype(np.float32))


def mask(counts, rate=0.3):
    return mask_genes(counts, MEASURED, SHARE, rate, np.random.default_rng(2))


def test_hidden_genes_are_not_seen_and_keep_their_value(counts):
    masked = mask(counts)
    whole = counts.toarray() / counts.toarray().sum(1, keepdims=True) * 1e4 * MEASURED.mean()
    row, column = np.nonzero(masked.hidden >= 0)
    gene = masked.hidden[row, column]
    assert np.all(np.asarray(masked.expression[row, gene]) == 0)
    np.testing.assert_allclose(
        masked.value[row, column], np.log1p(whole[row, gene]), rtol=1e-4, atol=1e-5
    )
    assert np.isnan(masked.value[masked.hidden < 0]).all()
    assert (masked.level[masked.hidden < 0] == -1).all()
    # What is expressed and not hidden is seen.
    expressed = (masked.value > 0).sum(axis=1)
    assert (np.diff(masked.expression.indptr) + expressed == np.diff(counts.indptr)).all()
    assert expressed.sum() / counts.nnz == pytest.approx(0.3, abs=0.02)


def test_size_factors_are_those_of_the_visible_genes(counts):
    """However much a hidden gene is expressed, nothing that is seen changes."""
    masked = mask(counts)
    hidden = np.zeros(counts.shape, bool)
    row, column = np.nonzero(masked.hidden >= 0)
    hidden[row, masked.hidden[row, column]] = True
    other = counts.copy()
    other.data = np.where(hidden[counts.nonzero()], 7 * counts.data, counts.data)
    again = mask(other)
    np.testing.assert_array_equal(again.hidden, masked.hidden)
    np.testing.assert_array_equal(again.expression.toarray(), masked.expression.toarray())
    shown = masked.measured & ~hidden
    total = np.expm1(masked.expression.toarray()).sum(axis=1)
    np.testing.assert_allclose(total, 1e4 * (shown @ SHARE), rtol=1e-4)


def test_what_was_not_measured_is_never_asked_for(counts):
    masked = mask(counts)
    assert MEASURED[masked.hidden[masked.hidden >= 0]].all()
    zeros = ((masked.value == 0) & (masked.hidden >= 0)).sum(axis=1)
    assert zeros.sum() > 0
    assert (zeros <= (masked.value > 0).sum(axis=1)).all()
    for genes in masked.hidden:
        kept = genes[genes >= 0]
        assert len(np.unique(kept)) == len(kept)


def test_levels_are_equal_bins_between_the_extremes_of_a_cell():
    cells = sparse.csr_matrix(
        np.array([[1.0, 2.9, 3.1, 5.1, 9.0], [0, 0, 0, 0, 0], [4.0, 0, 4.0, 0, 0]], np.float32)
    )
    assert expression_levels(cells).tolist() == [1, 1, 2, 3, 4, 1, 1]


def test_a_cell_without_counts_hides_nothing():
    masked = mask(sparse.csr_matrix((3, N_GENES), dtype=np.float32))
    assert (masked.hidden == -1).all()
    assert masked.expression.nnz == 0


def chunks(masking, seed=0, **augmentation):
    sets = [small_runs.paired_set(name, i).rna for i, name in enumerate("ab")]
    config = replace(small_runs.FIT, seed=seed, learning_rate=0.02, steps=25)
    return RnaChunks(sets, small_runs.SHARE, config, Augmentation(**augmentation), masking)


def test_chunks_are_pure_and_ask_for_no_more_than_allowed():
    masking = Masking(max_genes=3)
    one, again = (chunks(masking, max_tokens=5).chunk(2, 1) for _ in range(2))
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor.nan_to_num(), again.tensors[name].nan_to_num()), name
    assert one.tensors["asked"].shape[1] == 3
    assert one.tensors["attended_genes"].shape[1] == 5
    asked, target, level = (one.tensors[name] for name in ("asked", "target", "level"))
    assert one.counts == (float((asked >= 0).sum()),) * 2
    assert torch.equal(torch.isfinite(target), asked >= 0)
    assert torch.equal(level >= 0, asked >= 0)
    assert torch.equal(level == 0, target == 0)
    assert all(set(a[a >= 0].tolist()) <= set(h.tolist())
               for a, h in zip(asked, one.tensors["hidden"], strict=True))  # fmt: skip


def test_hidden_genes_are_learned_on_new_cells():
    model = small_runs.network(replace(small_runs.CONFIG, gene_output=True))
    masking, plain = Masking(), {"gene_dropout": 0, "thinning": 0}
    source = chunks(masking, **plain)
    new = replace(source, datasets=[small_runs.paired_set("new", 9).rna])
    objective = RnaObjective(model, masking)
    with torch.no_grad():
        before = HeldOutLoss({"new": new})(objective.eval())["new"]
    result = run_objective(
        objective, source, source.config, TrainerConfig(accelerator="cpu"),
        validation=HeldOutLoss({"new": new}),
    )  # fmt: skip
    assert before < 0
    assert result.score > 0.5 * before
