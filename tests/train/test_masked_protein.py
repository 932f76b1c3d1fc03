from dataclasses import replace

import numpy as np
import pytest
import torch

import small_runs
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.train.heldout import HeldOutLoss
from sclinguist_core.train.masked_protein import (
    ProteinChunks,
    ProteinDataset,
    ProteinObjective,
    mask_proteins,
    protein_dataset,
)
from sclinguist_core.train.masking import Masking
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.trainer import run_objective
from synthetic import paired_cells

PROTEIN = np.array([3, 0, 2, 0, 1])  # two antibodies of protein 0
SCALE = np.array([1.0, 2.0, 0.5, 1.5, 1.0], np.float32)


@pytest.fixture
def abundance():
    values = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32)
    values[:50, 2] = np.nan
    return values


def mask(abundance, rate=0.4):
    return mask_proteins(abundance, SCALE, PROTEIN, rate, np.random.default_rng(1))


def test_some_are_hidden_and_two_proteins_stay(abundance):
    for rate in (0.01, 0.4, 0.99):
        _, target = mask(abundance[50:], rate)
        hidden = np.isfinite(target)
        np.testing.assert_array_equal(hidden[:, 1], hidden[:, 3])  # one protein, hidden together
        n_hidden = hidden[:, [0, 1, 2, 4]].sum(axis=1)
        assert n_hidden.min() == 1 if rate < 0.9 else 2
        assert n_hidden.max() <= 2
    np.testing.assert_array_equal(target[hidden], abundance[50:][hidden])


def test_the_visible_tell_nothing_of_the_hidden(abundance):
    visible, target = mask(abundance)
    assert not (np.isfinite(visible) & np.isfinite(target)).any()
    centre = np.nansum(visible * SCALE, axis=1)
    np.testing.assert_allclose(centre, 0, atol=1e-5)
    other = np.where(np.isfinite(target), 9.0, abundance)
    np.testing.assert_array_equal(mask(other)[0], visible)


def test_what_was_not_measured_is_neither_seen_nor_asked_for(abundance):
    visible, target = mask(abundance)
    assert np.isnan(visible[:50, 2]).all()
    assert np.isnan(target[:50, 2]).all()


def test_a_study_is_standardised_and_isotypes_stay_out():
    names = ["CD14", "CD19", "CD3", "CD4", "CD56"]
    data = protein_dataset(as_section(paired_cells(300)), names)
    assert sorted(data.protein) == [0, 1, 2, 3, 4]
    assert data.abundance.dtype == np.float32
    np.testing.assert_allclose(data.abundance.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(data.abundance.std(axis=0), 1, atol=1e-4)


def test_two_proteins_are_too_few():
    with pytest.raises(InputError, match="2 known proteins, expected at least 3"):
        protein_dataset(as_section(paired_cells(60)), ["CD3", "CD19"])


def source(seed=0, n_cells=200):
    """Four proteins, of which one says what the other three are."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(n_cells, 1))
    values = state * [1.0, -1.0, 1.0, -1.0] + 0.2 * rng.normal(size=(n_cells, 4))
    values[: n_cells // 4, 1] = np.nan
    data = ProteinDataset(
        name=f"set{seed}", abundance=values.astype(np.float32), scale=np.ones(4, np.float32),
        protein=np.arange(4),
    )  # fmt: skip
    config = replace(small_runs.FIT, steps=25, learning_rate=0.02)
    return ProteinChunks([data], config, Masking())


def test_chunks_count_what_is_asked_for():
    chunk, again = source().chunk(3, 1), source().chunk(3, 1)
    t = chunk.tensors
    assert all(torch.equal(t[k].nan_to_num(), again.tensors[k].nan_to_num()) for k in t)
    assert chunk.counts[0] == pytest.approx(torch.isfinite(t["target"]).sum().item() / 2)
    assert (t["values"][t["visible"] < 0] == 0).all()
    assert not (torch.isfinite(t["target"]) & (t["visible"] >= 0)).any()


def test_hidden_proteins_are_learned_on_new_cells():
    model = small_runs.network(replace(small_runs.CONFIG, protein_input=True))
    objective = ProteinObjective(model, 0.2)
    held_out = HeldOutLoss({"new": source(seed=5)})
    with torch.no_grad():
        before = held_out(objective.eval())["new"]
    result = run_objective(
        objective, source(), source().config, TrainerConfig(accelerator="cpu"), validation=held_out
    )
    assert result.score > 0.5 * before
