"""Stages from files to checkpoints, and their run folders, on synthetic cells."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml

from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train.augment import Augmentation
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.launch import train_stage
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.recipe import Recipe
from sclinguist_core.train.sources import DataEntry
from sclinguist_core.train.stages import post_pretrain
from synthetic import paired_cells


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Set `a` alone measures CD56; set `c` is scored."""
    folder = tmp_path_factory.mktemp("data")
    entries = []
    for i, name in enumerate("abc"):
        cells = paired_cells(100, 250, seed=i, name=name)
        if name != "a":
            cells.obsm["protein"] = cells.obsm["protein"].drop(columns="CD56")
        cells.write_h5ad(folder / f"{name}.h5ad")
        entries.append(DataEntry(path=str(folder / f"{name}.h5ad")))
    return Recipe(
        name="small",
        paired=tuple(entries[:2]),
        validate=tuple(entries[2:]),
        model=TranslatorConfig(gene_dim=8, width=8, n_latents=2, n_heads=2, n_layers=1),
        fit=FitConfig(steps=10, batch_size=16, sets_per_step=2, ema=0.5),
        augmentation=Augmentation(max_tokens=32),
        trainer=TrainerConfig(accelerator="cpu", log_every=5, validate_every=5, save_every=5),
    )


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_stage("post-pretrain", recipe, folder) == folder / "checkpoint"
    return folder


def test_the_folder_says_what_was_done(run, recipe):
    found = {path.name for path in run.iterdir()}
    assert found >= {
        "recipe.yaml", "run.json", "metrics.csv", "heldout.csv", "state", "best", "checkpoint",
    }  # fmt: skip
    resolved = yaml.safe_load((run / "recipe.yaml").read_text())
    assert resolved["fit"]["steps"] == 10
    assert resolved["fit"]["weight_decay"] == recipe.fit.weight_decay  # defaults are written out
    record = json.loads((run / "run.json").read_text())
    assert record["stage"] == "post-pretrain"
    assert record["global_batch"] == 32
    assert set(record["data"]) == {entry.path for entry in recipe.entries()}
    assert all(len(print_["sha256"]) == 64 for print_ in record["data"].values())
    assert record["versions"]["torch"] == torch.__version__
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics["step"].tolist() == [5, 10]
    assert (metrics["cells_per_second"] > 0).all()
    heldout = pd.read_csv(run / "heldout.csv")
    assert heldout["dataset"].tolist() == ["c", "c"]
    assert heldout["score"].tolist() == metrics["heldout"].tolist()


def test_the_model_has_the_best_weights_and_says_so(run):
    final, best = load_checkpoint(run / "checkpoint"), load_checkpoint(run / "best")
    for (name, weight), other in zip(
        final.model.state_dict().items(), best.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(weight, other, rtol=0, atol=0, msg=name)
    assert final.info.training_datasets == ("a", "b")
    score = pd.read_csv(run / "heldout.csv")["score"].max()
    assert f"Held-out score: {score:.4f} (c)" in final.card
    assert "Trained on 200 cells of a, b" in final.card


def test_a_used_folder_needs_resume_and_the_same_recipe(run, recipe):
    with pytest.raises(InputError, match="add --resume to continue it"):
        train_stage("post-pretrain", recipe, run)
    other = replace(recipe, fit=replace(recipe.fit, steps=20))
    with pytest.raises(InputError, match=r"another recipe \(fit differ\)"):
        train_stage("post-pretrain", other, run, resume=True)
    with pytest.raises(InputError, match=r"another recipe \(hold_out differ\)"):
        train_stage("post-pretrain", recipe, run, resume=True, hold_out=["a"])
    with pytest.raises(InputError, match="holds a run of post-pretrain"):
        train_stage("pretrain-rna", recipe, run, resume=True)


def test_resuming_a_finished_run_gives_the_same_model(run, recipe):
    def files():
        return {
            path.relative_to(run): path.read_bytes()
            for name in ("checkpoint", "metrics.csv", "heldout.csv", "state", "recipe.yaml")
            for path in ([run / name] if (run / name).is_file() else (run / name).iterdir())
        }

    before = files()
    train_stage("post-pretrain", recipe, run, resume=True)
    assert files() == before


def test_a_set_that_is_held_out_leaves_no_trace(recipe):
    checkpoint = post_pretrain(recipe, hold_out=["a"])
    assert checkpoint.info.training_datasets == ("b",)
    assert checkpoint.protein_names == ["CD14", "CD19", "CD3", "CD4"]
    alone = post_pretrain(replace(recipe, paired=recipe.paired[1:]))
    pd.testing.assert_frame_equal(checkpoint.genes, alone.genes)
    for name, weight in checkpoint.model.state_dict().items():
        torch.testing.assert_close(weight, alone.model.state_dict()[name], rtol=0, atol=0)


def test_refused_input_leaves_no_folder(recipe, tmp_path):
    missing = replace(recipe, paired=(DataEntry(path=str(tmp_path / "none.h5ad")),))
    for stage, message in (("post-pretrain", r"none\.h5ad"), ("pretrain-rna", r"none\.h5ad")):
        with pytest.raises(InputError, match=message):
            train_stage(stage, missing, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="no data set is left to train on"):
        train_stage("post-pretrain", recipe, tmp_path / "run", hold_out=["a", "b"])
    assert not (tmp_path / "run").exists()


def test_pretraining_needs_its_own_modality(recipe, tmp_path):
    table = paired_cells(40).obsm["protein"]
    table.to_csv(tmp_path / "adt.csv")
    alone = replace(
        recipe, paired=(), validate=(), protein=(DataEntry(path=str(tmp_path / "adt.csv")),)
    )
    with pytest.raises(InputError, match="pretrain-rna: no data set with RNA"):
        train_stage("pretrain-rna", alone, tmp_path / "run")
    folder = train_stage("pretrain-protein", alone, tmp_path / "run")
    assert load_checkpoint(folder).info.training_datasets == ("adt",)
