"""The sCT architecture through the trainer, tiny."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from typer.testing import CliRunner

from evaluation.made_up import add_positions, make_cells
from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.readers import open_section
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.model.sct import SctModel
from sclinguist_core.model.sct_config import MASK, PAD, SctConfig
from sclinguist_core.train import callbacks
from sclinguist_core.train.cli import app
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.recipe import read_recipe
from sclinguist_core.train.sct_stage import (
    HeldOutLevels,
    SctCells,
    SctChunks,
    SctObjective,
    guesses,
    matthews,
)

RECIPE = """
name: tiny
architecture: sct
paired: [first.h5ad]
rna: [second.h5ad]
validate: [third.h5ad]
model: {n_cells: 4, n_genes: 448, n_halvings: 4, token_width: 4, stem_width: 4, width: 16,
        n_layers: 1, n_heads: 2, feed_forward_width: 16}
fit: {steps: 12, batch_size: 8, sets_per_step: 2, learning_rate: 0.01}
masking: {gene_rate: 0.2}
trainer: {accelerator: cpu, validate_every: 6, save_every: 6, log_every: 6}
"""
TINY = SctConfig(
    n_cells=4, n_genes=64, token_width=4, stem_width=4, n_halvings=3, width=16, n_layers=1,
    n_heads=2, feed_forward_width=16,
)  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    for number, name in enumerate(("first", "second", "third")):
        make_cells(60, seed=number).write_h5ad(tmp_path / f"{name}.h5ad")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def train(recipe, output, *more):
    result = CliRunner().invoke(app, ["pretrain-rna", str(recipe), "-o", str(output), *more])
    assert result.exit_code == 0, result.output
    return output / "checkpoint"


def test_a_recipe_trains_it(recipe, tmp_path):
    folder = train(recipe, tmp_path / "run", "model.width=32")
    made = load_checkpoint(folder)
    assert isinstance(made.model, SctModel)
    assert (made.model.config.n_genes, made.model.config.width) == (448, 32)
    assert made.info.training_datasets == ("first", "second")
    assert made.info.stage == "pretrain-rna"
    assert len(made.genes) == 400  # fewer than positions: the last ones are never measured
    assert made.symbols == sorted(made.symbols)
    best = load_checkpoint(tmp_path / "run" / "best")
    scores = pd.read_csv(tmp_path / "run" / "heldout.csv")
    assert f"{scores['step'][scores['score'].argmax()]} steps" in made.card
    assert scores["dataset"].tolist() == ["third", "third"]
    assert f"{scores['score'].max():.4f}" in best.card
    assert read_recipe(tmp_path / "run" / "recipe.yaml").model == made.model.config
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert metrics["level"].iloc[-1] < metrics["level"].iloc[0]


def test_more_genes_than_positions_leaves_the_most_variable(recipe, tmp_path):
    folder = train(recipe, tmp_path / "run", "model.n_genes=64", "fit.steps=10")
    kept = load_checkpoint(folder).genes
    assert len(kept) == 64
    every = load_checkpoint(train(recipe, tmp_path / "all", "fit.steps=10")).genes
    assert kept["std"].mean() > 1.2 * every["std"].mean()


def test_a_run_continues_bit_for_bit(recipe, tmp_path):
    whole = load_checkpoint(train(recipe, tmp_path / "whole"))
    # An interrupted run is one whose state stands at step 6: save_every says so.
    part = tmp_path / "part"
    original = callbacks.RunKeeper.on_train_batch_end

    class Killed(Exception):
        pass

    def killed(self, trainer, module, *rest):
        original(self, trainer, module, *rest)
        if module.step == 7:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.RunKeeper, "on_train_batch_end", killed)
        result = CliRunner().invoke(app, ["pretrain-rna", str(recipe), "-o", str(part)])
        assert isinstance(result.exception, Killed)
    resumed = load_checkpoint(train(recipe, part, "--resume"))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert whole.digest == resumed.digest


def made_up_set(n=30, n_genes=60, measured=None):
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(1.0, (n, n_genes)).astype(np.float32))
    patterns = np.ones((1, n_genes), bool) if measured is None else measured
    pattern = np.arange(n) % len(patterns)
    counts = sparse.csr_matrix(counts.multiply(patterns[pattern]), dtype=np.float32)
    rna = AlignedRna(counts=counts, measured=patterns, pattern=pattern)
    return SctCells(name="made up", rna=rna, tree=None)


def test_chunks_hide_what_was_measured_and_ask_for_no_more():
    measured = np.ones((2, 60), bool)
    measured[1, :40] = False
    cells = made_up_set(measured=measured)
    fit = FitConfig(batch_size=8, sets_per_step=2)
    chunks = SctChunks([cells], np.full(60, 1 / 60), TINY, fit, 0.15)
    drawn = [chunks.chunk(step, 0) for step in range(200)]
    tokens, level = (
        torch.stack([chunk.tensors[name] for chunk in drawn]) for name in ("tokens", "level")
    )
    assert tokens.shape == level.shape == (200, 2, 4, 64)
    assert torch.equal(tokens == MASK, level >= 0)
    assert (tokens[..., 60:] == PAD).all()
    n_measured = (tokens != PAD).sum().item()
    assert n_measured == pytest.approx(200 * 8 * 40, rel=0.05)  # half the cells measure 20 of 60
    assert (level >= 0).sum().item() == pytest.approx(0.15 * n_measured, rel=0.05)
    # Expressed or not alike: Poisson counts of mean 1 are zero in 37 % of genes.
    hidden = level[level >= 0]
    assert (hidden == 0).float().mean().item() == pytest.approx(np.exp(-1), abs=0.02)
    assert set(hidden.tolist()) == {0, 1, 2, 3, 4}
    assert [chunk.counts[0] for chunk in drawn] == (level >= 0).sum(dim=(1, 2, 3)).tolist()
    again = chunks.chunk(7, 0)
    assert torch.equal(again.tensors["tokens"], drawn[7].tensors["tokens"])
    assert again.n_rows == 8


def test_bags_are_neighbours_on_a_section(tmp_path):
    cells = add_positions(make_cells(100))
    cells.write_h5ad(tmp_path / "section.h5ad")
    section = open_section(tmp_path / "section.h5ad")
    drawn = SctCells.of(section, list(section.table.var_names))
    rng = np.random.default_rng(0)
    for _ in range(20):
        bag = drawn.bag(9, rng)
        assert len(set(bag)) == 9
        spread = section.positions[bag].max(axis=0) - section.positions[bag].min(axis=0)
        assert spread.max() <= 150  # of a grid of 300
    loose = SctCells.of(
        open_section(write(tmp_path, make_cells(100))), drawn.rna.resolution.symbols
    )
    assert np.mean([np.ptp(loose.bag(9, rng)) for _ in range(50)]) > 60
    few = SctCells.of(open_section(write(tmp_path, make_cells(3))), drawn.rna.resolution.symbols)
    assert set(few.bag(9, rng)) <= {0, 1, 2}


def write(folder, cells):
    path = folder / f"cells{len(cells)}.h5ad"
    cells.write_h5ad(path)
    return path


def test_the_error_of_a_step_is_that_of_its_hidden_genes():
    chunks = SctChunks(
        [made_up_set()], np.full(60, 1 / 60), TINY, FitConfig(batch_size=8, sets_per_step=2), 0.3
    )
    torch.manual_seed(0)
    objective = SctObjective(SctModel(TINY))
    drawn = [chunks.chunk(3, number) for number in range(2)]
    total = objective(drawn)
    expected = 0.0
    for chunk in drawn:
        log_p = objective.network(chunk.tensors["tokens"]).detach().log_softmax(dim=-1)
        for bag, cell, gene in np.argwhere(chunk.tensors["level"].numpy() >= 0):
            expected -= float(log_p[bag, cell, gene, int(chunk.tensors["level"][bag, cell, gene])])
    assert total.item() == pytest.approx(expected, rel=1e-4)
    total.sum().backward()
    assert all(p.grad is not None for p in objective.parameters())
    level, guess = guesses(objective.network, drawn)
    assert len(level) == len(guess) == sum(chunk.counts[0] for chunk in drawn)
    assert set(np.unique(np.concatenate([level, guess]))) <= set(range(5))
    scores = HeldOutLevels({"set": chunks})(objective)
    fixed = [chunks.chunk(0, n) for n in range(2)]
    assert scores == {"set": matthews(*guesses(objective.network, fixed))}


def test_a_constant_guess_has_learnt_nothing():
    level = np.array([0, 2, 0, 3])
    assert matthews(level, level) == pytest.approx(1.0)
    assert matthews(level, np.zeros(4, np.int64)) == 0.0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("fit.batch_size=6", "multiple of the 4 cells"),
        ("model.n_genes=450", "set it to 464"),
        ("model.n_cell=2", "did you mean 'n_cells'"),
        ("init.rna=.", "leave it out"),
    ],
)
def test_what_cannot_be_trained_is_said(recipe, tmp_path, override, said):
    result = CliRunner().invoke(
        app, ["pretrain-rna", str(recipe), "-o", str(tmp_path / "run"), override]
    )
    assert result.exit_code == 1
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", ["post-pretrain", "pretrain-protein"])
def test_other_stages_refuse_it(recipe, tmp_path, stage):
    result = CliRunner().invoke(app, [stage, str(recipe), "-o", str(tmp_path / "run")])
    assert isinstance(result.exception, InputError)
    assert "use pretrain-rna" in str(result.exception)


@pytest.mark.parametrize("name", ["sct", "sct_tiny"])
def test_the_recipes(monkeypatch, tmp_path, name):
    monkeypatch.setenv("SCLINGUIST_DATA", str(tmp_path))
    path = Path(__file__).resolve().parents[2] / "training" / f"{name}.yaml"
    wanted = read_recipe(path)
    assert wanted.fit.batch_size % wanted.model.n_cells == 0
    assert wanted.masking.gene_rate == 0.15
    assert not any("malt" in entry.path for entry in wanted.entries())
    if name == "sct":
        assert wanted.model == SctConfig(recompute=True)
