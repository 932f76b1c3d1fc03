"""``sclinguist impute``: what it writes, prints and refuses."""

import anndata as ad
import pandas as pd
import pytest
from typer.testing import CliRunner

from imputation_model import checkpoint_with_components
from sclinguist_core.cli import app
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import save_checkpoint
from synthetic import paired_cells


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(checkpoint_with_components(), tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = paired_cells(240, seed=2)
    cells[:, cells.var_names != "CD19"].write_h5ad("cells.h5ad")

    def invoke(*arguments, source="cells.h5ad"):
        words = ["impute", source, "--model", folder, *arguments]
        return CliRunner().invoke(app, [str(word) for word in words])

    return invoke


def test_it_writes_the_table_and_says_how_well_it_goes(run):
    answer = run("--genes", "CD3E,CD19", "--levels", "-o", "imputed.h5ad")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == "imputed.h5ad\n"
    assert "2 genes for 240 cells (1 measured, 1 not), model small" in answer.stderr
    assert "Pearson here: CD3E 0." in answer.stderr
    assert "Not measured here, so untested: CD19." in answer.stderr
    table = ad.read_h5ad("imputed.h5ad")
    assert table.obsm["sclinguist_imputed"].columns.tolist() == ["CD19"]
    assert table.obsm["sclinguist_imputed_level"].columns.tolist() == ["CD19"]
    assert table.var_names[table.var["sclinguist_imputed"]].tolist() == ["CD3E"]


def test_evaluate_prints_the_table_and_writes_it(run):
    answer = run("--evaluate", "--context", "nearest", "-o", "scores.csv")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[-1] == "scores.csv"
    table = pd.read_csv("scores.csv", index_col="method")
    assert table.index[-1] == "model, nearest context"
    row = next(line for line in lines if line.startswith("model  "))
    assert row.split()[1] == f"{table.loc['model', 'mcc']:.3f}"
    assert "hidden 20 % of all measured entries of 240 cells" in answer.stderr


def test_evaluate_needs_no_file(run, tmp_path):
    answer = run("--evaluate")
    assert answer.exit_code == 0, answer.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.h5ad"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--genes", "CD3E"], "--output: found none"),
        (["--genes", "CD3E", "--all", "-o", "x.h5ad"], "--genes and --all: found both"),
        (["--genes", "CD3E", "-o", "x.csv"], "expected .h5ad or .zarr"),
        (["--genes", "CD3E", "-o", "cells.h5ad"], "is an input"),
        (["--evaluate", "-o", "x.h5ad"], "expected .csv"),
        (["--evaluate", "--genes", "CD3E"], "--evaluate: found together with --genes"),
        (["--evaluate", "-o", "nowhere/x.csv"], "does not exist"),
        (["--genes", "nonsense", "-o", "x.h5ad"], "not a known gene"),
    ],
)
def test_what_makes_no_sense_is_refused(run, tmp_path, arguments, message):
    answer = run(*arguments)
    assert answer.exit_code != 0
    assert isinstance(answer.exception, InputError)
    assert message in str(answer.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.h5ad"]


def test_help_has_an_example(run):
    answer = CliRunner().invoke(app, ["impute", "--help"])
    assert answer.exit_code == 0
    assert "Example: sclinguist impute pbmc.h5ad --genes" in " ".join(answer.stdout.split())
