"""Random weights: which are drawn anew, and that rankings fall apart."""

import pytest
import torch

from inference.explained import small_checkpoint
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.evaluation.randomisation import PARTS, randomisation_iter, randomised
from sclinguist_core.inference.explain import explain_iter
from sclinguist_core.inference.progress import finish
from synthetic import paired_cells


@pytest.fixture(scope="module")
def cells():
    return paired_cells(60)


@pytest.fixture(scope="module")
def checkpoint(cells):
    return small_checkpoint(cells)


def changed(one, other) -> set[str]:
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    return {name for name in ours if not torch.equal(ours[name], theirs[name])}


def test_parts_are_drawn_anew_from_the_proteins_to_the_genes(checkpoint):
    before = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    readout, middle, every = (changed(checkpoint, randomised(checkpoint, n)) for n in (1, 2, 3))
    assert {"protein_embedding", "decoder.head.weight", "state_heads.weight"} <= readout
    assert "state_heads.perceptrons.0.query_to_readout.weight" in readout
    assert {"latents", "layers.0.qkv.weight", "state_heads.perceptrons.0.up.weight"} <= middle
    assert not middle & {"gene_embedding", "state.loadings"}
    assert {"gene_embedding", "state.loadings", "reader.query.weight"} <= every
    assert readout < middle < every
    # All but tensors of zeros, whose noise is none, and the statistics of the state.
    zeros = {name for name, tensor in before.items() if not tensor.any()}
    assert set(before) - every == zeros | {"state.center", "state.scale"}
    after = checkpoint.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_noise_has_the_size_of_what_it_replaces_and_repeats(checkpoint):
    one, same, other = (randomised(checkpoint, 3, seed=seed) for seed in (1, 1, 2))
    assert not changed(one, same)
    assert "gene_embedding" in changed(one, other)
    was, now = (c.model.state_dict()["gene_embedding"] for c in (checkpoint, one))
    assert abs(now.square().mean() / was.square().mean() - 1) < 0.15
    correlation = torch.corrcoef(torch.stack([was.ravel(), now.ravel()]))[0, 1]
    assert abs(correlation) < 0.05


def test_rankings_fall_apart_with_random_weights(cells, checkpoint):
    section = as_section(cells)
    options = {"model": checkpoint, "device": "cpu"}
    explained = finish(explain_iter(section, ["CD3", "CD19"], steps=4, **options))
    steps = randomisation_iter(section, explained, max_rows=40, **options)
    progress = []
    while True:
        try:
            progress.append(next(steps))
        except StopIteration as end:
            table = end.value
            break
    assert progress[-1].done == progress[-1].total == 3 * 40
    assert table["protein"].tolist() == ["CD3", "CD19"] * 3
    assert list(dict.fromkeys(table["redrawn"])) == list(PARTS)
    assert table["rank_correlation"].between(-0.9, 0.9).all()
    assert table["jaccard"].lt(0.5).all()
