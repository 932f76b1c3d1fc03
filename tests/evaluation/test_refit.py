"""A recipe is trained on the cells of a task, and on nothing that holds the test cells."""

import pytest

from evaluation.made_up import make_cells
from sclinguist_core.evaluation.refit import refit
from sclinguist_core.evaluation.tasks import open_cells
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train import stages
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.recipe import Recipe
from sclinguist_core.train.sources import DataEntry

RECIPE = Recipe(
    name="tiny",
    paired=(DataEntry(path="own.h5ad"),),
    rna=(
        DataEntry(path="same-name.h5ad", name="PBMC_1k"),
        DataEntry(path="same-cells.h5ad", same_cells_as=("pbmc1k",)),
        DataEntry(
            path="batches.h5ad", batch_key="b", same_cells_as={"first": "pbmc-1k", "second": "x"}
        ),
        DataEntry(path="other.h5ad"),
    ),
    protein=(DataEntry(path="antibodies.csv", same_cells_as=("pbmc1k",)),),
    validate=(DataEntry(path="validation.h5ad"),),
    hold_out=("own",),
    init={"rna": "stage-1"},
    model=TranslatorConfig(gene_dim=8, width=8, n_latents=2, n_heads=2, n_layers=1),
    fit=FitConfig(steps=10, batch_size=16, sets_per_step=1),
)


def test_no_trace_of_the_test_set_is_left(monkeypatch):
    seen = {}

    def spy(recipe):
        from anndata import read_h5ad

        seen["recipe"] = recipe
        seen["cells"] = [read_h5ad(entry.path).n_obs for entry in recipe.paired]
        return "checkpoint"

    monkeypatch.setattr(stages, "post_pretrain", spy)
    train = [open_cells(make_cells(n, seed=n)) for n in (30, 40)]
    assert refit(RECIPE, train, hold_out=["pbmc1k"]) == "checkpoint"
    used = seen["recipe"]
    assert seen["cells"] == [30, 40]
    assert [entry.name for entry in used.paired] == ["AnnData-0", "AnnData-1"]
    assert [entry.name for entry in used.rna] == ["other"]
    assert used.protein == used.validate == used.hold_out == ()
    assert used.init == {}
    assert used.fit == RECIPE.fit


def test_a_checkpoint_of_the_training_cells_comes_back():
    from dataclasses import replace

    train = [open_cells(make_cells(60, seed=1))]
    checkpoint = refit(replace(RECIPE, rna=(), protein=()), train)
    assert checkpoint.info.training_datasets == ("AnnData-0",)
    assert set(checkpoint.protein_names) == {
        "CD3", "CD4", "CD8", "CD19", "CD14", "CD279", "CD15",
    }  # fmt: skip
    assert checkpoint.info.name == "tiny"


@pytest.mark.parametrize("name", ["pbmc1k", "PBMC 1k"])
def test_names_are_compared_by_letters_and_digits(name, monkeypatch):
    monkeypatch.setattr(stages, "post_pretrain", lambda recipe: recipe)
    used = refit(RECIPE, [open_cells(make_cells(30))], hold_out=[name])
    assert [entry.name for entry in used.rna] == ["other"]
