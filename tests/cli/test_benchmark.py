"""``sclinguist benchmark``: what it prints, writes and refuses."""

import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from evaluation.made_up import make_cells
from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core.cli import app, main
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import totalvi
from sclinguist_core.model.checkpoint import save_checkpoint

QUICK = ("--no-trees", "--no-totalvi", "--resamples", "20", "--device", "cpu")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


@pytest.fixture
def files(tmp_path):
    """Training and test cells with an embedding and two donors."""
    for name, seed in (("train", 1), ("test", 2)):
        table = make_cells(150, seed=seed)
        table.obsm["X_other"] = table.obsm["hidden"]
        table.obs["donor"] = np.where(np.arange(150) < 90, "one", "two")
        table.write_h5ad(tmp_path / f"{name}.h5ad")
    return "--train", tmp_path / "train.h5ad", "--test", tmp_path / "test.h5ad"


@pytest.fixture
def model(tmp_path):
    save_checkpoint(tiny_checkpoint(without=("CD19",)), tmp_path / "tiny")
    return "--model", tmp_path / "tiny"


def test_tables_and_plots_are_printed_and_written(run, files, tmp_path):
    answer = run(
        *files, *QUICK, "--model", "none", "--embedding", "X_other",
        "--depth", "0.5", "--repeats", "1", "-o", tmp_path / "b.csv",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("test, 7 proteins: CD3, CD4, CD8, CD19, CD14, CD279, CD15")
    summary = pd.read_csv(tmp_path / "b.csv").query("input == 'full'").set_index("method")
    shown = next(line for line in lines if line.startswith("ridge on X_other "))
    assert f" {summary.loc['ridge on X_other', 'pearson_clr']:.3f} " in shown
    assert any("loss, 50% depth" in line for line in lines)
    assert lines[-6:] == [
        str(tmp_path / name)
        for name in ("b.csv", "b_per_protein.csv", "b_losses.csv", "b.md", "b.png", "b.svg")
    ]
    assert (tmp_path / "b.png").stat().st_size > 5_000
    text = (tmp_path / "b.md").read_text("utf-8")
    assert "- total count: all measured antibodies of the cell" in text
    assert "- kernel ridge: " in text


def test_the_model_is_put_beside_the_best_baseline(run, files, model, tmp_path):
    answer = run(*files, *model, *QUICK)
    assert answer.exit_code == 0, answer.output
    assert "test, 6 proteins:" not in answer.stdout
    assert "test, 5 proteins: CD3, CD4, CD8, CD14, CD279" in answer.stdout  # not CD19, not CD15
    table = pd.read_csv(tmp_path / "benchmark.csv").set_index("method")
    best = table["pearson_clr"].drop("model").idxmax()
    assert f"test: model {table.loc['model', 'pearson_clr']:.3f}, best baseline ({best})" in (
        answer.stdout
    )


def test_few_shot_gives_a_curve(run, files, tmp_path):
    answer = run(
        *files, *QUICK, "--model", "none", "--split", "few-shot", "--cells", "50", "--cells", "20",
        "--draws", "1",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert "test, 20 cells  test, 50 cells" in answer.stdout
    table = pd.read_csv(tmp_path / "benchmark.csv")
    assert table["part"].unique().tolist() == ["20 cells", "50 cells"]


def test_splits_within_a_file_need_no_training_file(run, files, tmp_path):
    for split, parts in (("random", 1), ("donor", 2)):
        answer = run(
            *files[2:], *QUICK, "--model", "none", "--split", split, "--donor-key", "donor"
        )
        assert answer.exit_code == 0, answer.output
        assert pd.read_csv(tmp_path / "benchmark.csv")["part"].nunique() == parts


def test_unseen_proteins_are_asked_of_the_model_alone(run, files, model, tmp_path):
    answer = run(*files, *model, *QUICK, "--split", "protein")
    assert answer.exit_code == 0, answer.output
    assert "test, 1 proteins: CD19" in answer.stdout
    methods = set(pd.read_csv(tmp_path / "benchmark.csv")["method"])
    assert methods == {"model", "cognate mRNA", "total count", "protein mean"}


def test_totalvi_that_is_not_there_is_one_sentence(run, files, monkeypatch):
    monkeypatch.setattr(totalvi, "is_installed", lambda: False)
    options = [option for option in QUICK if option != "--no-totalvi"]
    answer = run(*files, *options, "--model", "none")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.count("Note: ") == 1
    assert "Note: totalVI is left out: scvi-tools is not installed" in answer.stdout


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--split", "tissue"), "split 'tissue': expected one of dataset, donor"),
        (("-o", "no/b.csv"), "in a folder that exists"),
        (("-o", "b.txt"), "the name of a .csv file"),
        (("--split", "donor", "--donor-key", "patient"), "'patient' is not in obs"),
        (("--embedding", "X_scGPT"), "no obsm['X_scGPT']"),
        (("--depth", "0"), "depth: found 0"),
        (("--genes", "0"), "genes: found 0"),
        (("--resamples", "0"), "n_resamples: expected at least 1"),
        (("--split", "protein"), "the protein split needs a model"),
        (("--split", "few-shot", "--cells", "500"), "expected at least twice the 500"),
        (("--split", "few-shot", "--cells", "0"), "cells: found 0, expected at least"),
        (("--train", "absent.h5ad"), "absent.h5ad"),
        (("--recipe", "absent.yaml"), "absent.yaml: no such recipe"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(run, files, options, found, tmp_path):
    answer = run(*files, *QUICK, "--model", "none", *options)
    assert isinstance(answer.exception, InputError), answer.output
    sentence = str(answer.exception)
    assert found in sentence
    assert "\n" not in sentence
    assert not list(tmp_path.glob("*.csv"))


def test_the_same_file_twice_exits_with_1(files, monkeypatch, capsys):
    test = str(files[3])
    monkeypatch.setattr(sys, "argv", ["sclinguist", "benchmark", "--train", test, "--test", test])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert "test.h5ad is given to both --train and --test" in error
    assert error.count("\n") == 1
