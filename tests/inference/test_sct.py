"""Levels and embeddings of the sCT architecture over all cells, bag by bag."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core.data.align import AlignedRna
from sclinguist_core.errors import InputError
from sclinguist_core.inference import sct
from sclinguist_core.inference.impute_methods import Imputer
from sclinguist_core.inference.progress import Progress, finish
from sclinguist_core.inference.sct import SctImputer, sct_bags, sct_embed, sct_levels
from sclinguist_core.model.sct import SctModel, level_probabilities
from sclinguist_core.model.sct_checkpoint import sct_checkpoint
from sclinguist_core.model.sct_config import SctConfig
from sclinguist_core.model.sct_tokens import sct_tokens

CONFIG = SctConfig(
    n_cells=4, n_genes=64, token_width=4, stem_width=4, n_halvings=3, width=16, n_layers=1,
    n_heads=2, feed_forward_width=16,
)  # fmt: skip
N, V = 10, 60


@pytest.fixture
def checkpoint():
    torch.manual_seed(0)
    genes = pd.DataFrame({"symbol": [f"G{i}" for i in range(V)], "reference_share": 1 / V})
    return sct_checkpoint(SctModel(CONFIG).eval(), name="m", genes=genes, card="")


@pytest.fixture
def rna():
    counts = np.random.default_rng(0).poisson(1.0, (N, V)).astype(np.float32)
    return AlignedRna(
        counts=sparse.csr_matrix(counts), measured=np.ones((1, V), bool), pattern=np.zeros(N, int)
    )


@pytest.fixture
def hidden():
    drawn = np.random.default_rng(1).random((N, V)) < 0.2
    drawn[3] = False
    return sparse.csr_matrix(drawn)


@pytest.mark.parametrize(("n", "n_bags"), [(0, 0), (1, 1), (3, 1), (4, 1), (10, 3), (13, 4)])
def test_every_cell_is_in_one_bag(n, n_bags):
    positions = np.random.default_rng(0).random((n, 2))
    for given in (None, positions):
        bags = sct_bags(n, 4, given)
        assert bags.shape == (n_bags, 4)
        assert sorted(bags.ravel()[:n]) == list(range(n))
        assert all(len(set(bag)) == min(n, 4) for bag in bags)


def test_bags_are_patches_of_a_section():
    x, y = np.meshgrid(np.arange(16.0), np.arange(16.0))
    positions = np.column_stack([x.ravel(), y.ravel()])
    order = np.random.default_rng(0).permutation(256)
    bags = sct_bags(256, 16, positions[order])
    extent = np.ptp(positions[order][bags], axis=1)
    assert np.abs(extent - 3).max() == 0  # squares of 4 x 4
    random = sct_bags(256, 16)
    assert np.ptp(positions[order][random], axis=1).mean() > 8
    assert not np.array_equal(random, sct_bags(256, 16, seed=1))


def test_levels_are_those_of_each_bag(checkpoint, rna, hidden):
    steps = sct_levels(checkpoint, rna, hidden, device="cpu")
    said = finish(steps)
    assert said.probability.shape == (hidden.nnz, 5)
    np.testing.assert_allclose(said.probability.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(said.level, said.probability.argmax(axis=1))
    # By hand, bag by bag.
    mask = hidden.toarray()
    expected = np.zeros((N, V, 5), np.float32)
    bags = sct_bags(N, 4)
    for number, rows in enumerate(bags):
        tokens = sct_tokens(rna.take(rows), CONFIG, checkpoint.gene_share, mask[rows])
        with torch.no_grad():
            logits = checkpoint.model(torch.from_numpy(tokens)[None])
        own = np.arange(4) + 4 * number < N
        expected[rows[own]] = level_probabilities(logits)[0, own, :V].numpy()
    np.testing.assert_allclose(said.probability, expected[mask], rtol=1e-4, atol=1e-6)
    row = np.nonzero(mask)[0]
    visible = np.log1p(1e4 * normalise(rna.counts.toarray() * ~mask))
    low = np.where(visible > 0, visible, np.inf).min(axis=1)[row]
    high = visible.max(axis=1)[row]
    middle = low[:, None] + (high - low)[:, None] * np.array([0.125, 0.375, 0.625, 0.875])
    value = (said.probability[:, 1:] * middle).sum(axis=1)
    np.testing.assert_allclose(said.value, value, rtol=1e-4)


def normalise(counts):
    return counts / counts.sum(axis=1, keepdims=True)


def test_hidden_counts_are_not_looked_at(checkpoint, rna, hidden):
    said = finish(sct_levels(checkpoint, rna, hidden, device="cpu"))
    counts = rna.counts.toarray()
    counts[hidden.toarray()] = 77
    other = AlignedRna(counts=sparse.csr_matrix(counts), measured=rna.measured, pattern=rna.pattern)
    imputer: Imputer = SctImputer(checkpoint, device="cpu")
    again = finish(imputer.estimate(other, hidden))
    np.testing.assert_array_equal(said.probability, again.probability)
    np.testing.assert_array_equal(said.value, again.value)


def test_passes_of_several_bags_say_the_same(checkpoint, rna, hidden, monkeypatch):
    together = list(sct_levels(checkpoint, rna, hidden, device="cpu"))
    assert together == [Progress(12, 12, "imputing")]
    said = finish(sct_levels(checkpoint, rna, hidden, device="cpu"))
    embedded = finish(sct_embed(checkpoint, rna, device="cpu"))
    monkeypatch.setattr(sct, "POSITIONS", 1)
    one_by_one = list(sct_levels(checkpoint, rna, hidden, device="cpu"))
    assert one_by_one == [Progress(done, 12, "imputing") for done in (4, 8, 12)]
    alone = finish(sct_levels(checkpoint, rna, hidden, device="cpu"))
    np.testing.assert_allclose(said.probability, alone.probability, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        embedded, finish(sct_embed(checkpoint, rna, device="cpu")), rtol=1e-4, atol=1e-5
    )


def test_bags_without_hidden_entries_are_not_run(checkpoint, rna):
    mask = np.zeros((N, V), bool)
    mask[sct_bags(N, 4)[1, 2], [5, 9]] = True
    steps = list(sct_levels(checkpoint, rna, sparse.csr_matrix(mask), device="cpu"))
    assert steps == [Progress(4, 4, "imputing")]
    nothing = finish(sct_levels(checkpoint, rna, sparse.csr_matrix((N, V), dtype=bool)))
    assert nothing.probability.shape == (0, 5)


def test_embeddings_are_those_of_each_bag(checkpoint, rna):
    steps = sct_embed(checkpoint, rna, device="cpu")
    assert next(steps) == Progress(10, 10, "embedding")
    embedded = finish(sct_embed(checkpoint, rna, device="cpu"))
    assert embedded.shape == (N, 16)
    assert embedded.dtype == np.float32
    rows = sct_bags(N, 4)[1]
    tokens = torch.from_numpy(sct_tokens(rna.take(rows), CONFIG, checkpoint.gene_share))
    with torch.no_grad():
        expected = checkpoint.model.embed(tokens[None])[0].numpy()
    np.testing.assert_allclose(embedded[rows], expected, rtol=1e-4, atol=1e-5)


def test_other_architectures_are_refused(rna, hidden):
    with pytest.raises(InputError, match="its architecture is translator, expected sct"):
        next(sct_levels(tiny_checkpoint(), rna, hidden))
