"""The published architecture through the trainer, tiny."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from evaluation.made_up import make_cells
from sclinguist_core.data.readers import open_section
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import load_checkpoint, save_checkpoint
from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_checkpoint import hyena_checkpoint
from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.train import callbacks
from sclinguist_core.train.cli import app
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.hyena_stage import HyenaChunks, HyenaObjective, PublishedCells
from sclinguist_core.train.recipe import read_recipe

RECIPE = """
name: tiny
architecture: hyena
paired: [first.h5ad, second.h5ad]
validate: [third.h5ad]
model: {n_genes: 450, n_proteins: 12, width: 4, filter_width: 8}
fit: {steps: 12, batch_size: 16, sets_per_step: 2, learning_rate: 0.01}
trainer: {accelerator: cpu, validate_every: 6, save_every: 6, log_every: 6}
"""


@pytest.fixture
def recipe(tmp_path):
    for number, name in enumerate(("first", "second", "third")):
        cells = make_cells(60, seed=number)
        if name == "second":
            del cells.obsm["protein"]["CD4"]
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def train(recipe, output, *more):
    result = CliRunner().invoke(app, ["post-pretrain", str(recipe), "-o", str(output), *more])
    assert result.exit_code == 0, result.output
    return output / "checkpoint"


def test_a_recipe_trains_it(recipe, tmp_path):
    folder = train(recipe, tmp_path / "run", "model.width=6")
    model = load_checkpoint(folder).model
    assert (model.config.n_genes, model.config.width) == (450, 6)
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "hyena"
    assert config["training_datasets"] == ["first", "second"]
    genes = (folder / "genes.tsv").read_text().splitlines()
    assert len(genes) == 401  # fewer than positions: the last ones stay empty
    names = [line.split("\t")[0] for line in (folder / "proteins.tsv").read_text().splitlines()]
    assert names == ["name", "CD14", "CD15", "CD19", "CD279", "CD3", "CD4", "CD8"]
    assert load_checkpoint(tmp_path / "run" / "best").info.model == model.config
    assert read_recipe(tmp_path / "run" / "recipe.yaml").model == model.config


def test_a_run_continues_bit_for_bit(recipe, tmp_path):
    whole = load_checkpoint(train(recipe, tmp_path / "whole")).model
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
        result = CliRunner().invoke(app, ["post-pretrain", str(recipe), "-o", str(part)])
        assert isinstance(result.exception, Killed)
    resumed = load_checkpoint(train(recipe, part, "--resume")).model
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def cells_of(path, genes=300):
    section = open_section(path)
    symbols = list(section.table.var_names[:genes])
    return PublishedCells.of(section, symbols, ["CD19", "CD3", "CD4"])


def test_the_error_of_a_step_is_that_of_its_cells(recipe, tmp_path):
    sets = [cells_of(tmp_path / "first.h5ad"), cells_of(tmp_path / "second.h5ad")]
    sets[0].target[:30] = np.nan
    chunks = HyenaChunks(sets, 320, FitConfig(batch_size=25, sets_per_step=2))
    torch.manual_seed(0)
    model = HyenaTranslator(HyenaConfig(n_genes=320, n_proteins=5, width=4)).eval()
    drawn = [chunks.chunk(3, number) for number in range(2)]
    assert {chunk.tensors["x"].shape for chunk in drawn} == {(25, 320)}
    assert all(chunk.tensors["x"][:, 300:].abs().sum() == 0 for chunk in drawn)
    total = HyenaObjective(model, np.arange(3))(drawn)
    expected = 0.0
    for chunk in drawn:
        predicted = model(chunk.tensors["x"])[:, :3].detach()
        error = (predicted - chunk.tensors["target"]).square()
        per_cell = error.nanmean(dim=1)
        expected += float(per_cell.nansum())
        assert chunk.counts == (float(per_cell.isfinite().sum()),)
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert total.shape == (1,)
    again = chunks.chunk(3, 1)
    assert torch.equal(again.tensors["x"], drawn[1].tensors["x"])
    assert again.seed == drawn[1].seed


def test_expression_is_of_the_genes_of_the_model(recipe, tmp_path):
    cells = cells_of(tmp_path / "first.h5ad", genes=50)
    np.testing.assert_allclose(np.expm1(cells.expression.toarray()).sum(axis=1), 1e4, rtol=1e-4)
    assert cells.target.shape == cells.clr.shape == (60, 3)
    assert 0 <= cells.target.min() < cells.target.max() <= 1
    np.testing.assert_allclose(cells.clr.std(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("architecture=hyenna", "expected one of translator, hyena"),
        ("model.n_layer=2", "did you mean 'n_layers'"),
        ("model.n_proteins=3", "7 proteins"),
        ("init.rna=.", "not a checkpoint"),
    ],
)
def test_what_cannot_be_trained_is_said(recipe, tmp_path, override, said):
    result = CliRunner().invoke(
        app, ["post-pretrain", str(recipe), "-o", str(tmp_path / "run"), override]
    )
    assert result.exit_code == 1
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)


def test_other_stages_refuse_it(recipe, tmp_path):
    result = CliRunner().invoke(app, ["pretrain-rna", str(recipe), "-o", str(tmp_path / "run")])
    assert "use post-pretrain" in str(result.exception)


def test_the_recipe_at_published_sizes(monkeypatch, tmp_path):
    monkeypatch.setenv("SCLINGUIST_DATA", str(tmp_path))
    path = Path(__file__).resolve().parents[2] / "training" / "sclinguist.yaml"
    wanted = read_recipe(path)
    assert wanted.model == HyenaConfig()
    assert wanted.model.bridge_sizes == (19_202, 11_110, 6_427)
    assert not any("malt" in entry.path for entry in wanted.entries())


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    model = HyenaTranslator(HyenaConfig(n_genes=3, n_proteins=2, width=2))
    genes = pd.DataFrame({"symbol": ["A", "B"], "ensembl_id": ""}).assign(
        reference_share=0.5, mean=0.0, std=1.0
    )
    proteins = pd.DataFrame({"name": ["CD3"], "genes": ["CD3E"], "kind": ["protein"]})
    tables = {"genes": genes, "proteins": proteins}
    folder = save_checkpoint(hyena_checkpoint(model, name="m", card="", **tables), tmp_path / "m")
    x = torch.rand(2, 3)
    # Not in half precision, whatever the default is: filters are made from fine positions.
    assert torch.equal(load_checkpoint(folder).model(x), model.eval()(x))
    config = json.loads((folder / "config.json").read_text())
    for change, said in (
        ({"architecture": "translator"}, "unknown key"),
        ({"model": {**config["model"], "width": 3}}, "do not fit"),
        ({"model": 3}, "'model' section"),
        ({"model": {**config["model"], "rna_normalization": "counts"}}, "trained on 'log1p_cp10k'"),
        ({"model": {**config["model"], "protein_normalization": "clr"}}, "trained on 'minmax'"),
        ({"model": {**config["model"], "parts": ["decoder", "encoder"]}}, "in this order"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=said):
            load_checkpoint(folder)
    too_many = pd.concat([genes, genes])
    with pytest.raises(ValueError, match="at most 3 and 2"):
        hyena_checkpoint(model, name="m", card="", genes=too_many, proteins=proteins)
