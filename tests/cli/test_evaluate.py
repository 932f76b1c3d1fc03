"""``sclinguist evaluate`` and ``benchmark``: what they print, write and refuse."""

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from evaluation.made_up import add_prediction, make_cells
from sclinguist_core.cli.benchmark import benchmark
from sclinguist_core.cli.evaluate import evaluate
from sclinguist_core.errors import InputError


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(evaluate)
    app.command()(benchmark)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def pred(tmp_path):
    path = tmp_path / "pred.h5ad"
    add_prediction(make_cells()).write_h5ad(path)
    return path


def test_evaluate_prints_the_table_and_writes_the_report(run, pred, tmp_path):
    answer = run("evaluate", pred, "-o", tmp_path / "out")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("Mean per-protein Pearson against CLR over 7 antibodies: 0.")
    model = next(line for line in lines if line.startswith("model "))
    summary = pd.read_csv(tmp_path / "out" / "summary.csv", index_col="method")
    assert f" {summary.loc['model', 'pearson_clr']:.2f} " in model
    assert any(line.startswith("cognate mRNA ") for line in lines)
    assert "1 isotype control is not evaluated." in lines
    assert lines[-1] == str(tmp_path / "out" / "report.html")
    assert (tmp_path / "out" / "report.html").stat().st_size > 50_000


def test_the_default_folder_is_named_after_the_file(run, pred, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = run("evaluate", "pred.h5ad")
    assert answer.exit_code == 0, answer.output
    assert (tmp_path / "pred_evaluation" / "per_protein.csv").is_file()


def test_evaluate_takes_truth_and_training_files(run, tmp_path):
    table = add_prediction(make_cells())
    train = make_cells(400, seed=3)
    train.write_h5ad(tmp_path / "train.h5ad")
    truth = table.copy()
    truth.write_h5ad(tmp_path / "truth.h5ad")
    del table.obsm["protein"]
    table.write_h5ad(tmp_path / "pred.h5ad")
    options = ("--truth", tmp_path / "truth.h5ad", "--train", tmp_path / "train.h5ad")
    answer = run("evaluate", tmp_path / "pred.h5ad", *options, "-o", tmp_path / "out")
    assert answer.exit_code == 0, answer.output
    assert "kernel ridge" in answer.stdout
    assert "Trained baselines learnt from train (400 cells)." in answer.stdout
    assert len(pd.read_csv(tmp_path / "out" / "summary.csv")) == 9


def test_a_file_without_predictions_is_refused_and_nothing_is_written(run, tmp_path):
    path = tmp_path / "bare.h5ad"
    make_cells(50).write_h5ad(path)
    answer = run("evaluate", path, "-o", tmp_path / "out")
    assert isinstance(answer.exception, InputError)
    assert "holds no predictions" in str(answer.exception)
    assert not (tmp_path / "out").exists()


def test_benchmark_refuses_before_it_works(run, pred, tmp_path):
    answer = run("benchmark", "--train", pred, "--test", pred)
    assert isinstance(answer.exception, InputError)
    assert "both --train and --test" in str(answer.exception)
    answer = run("benchmark", "--train", pred, "--test", pred, "-o", tmp_path / "no" / "b.csv")
    assert "in a folder that exists" in str(answer.exception)
    answer = run("benchmark", "--train", pred, "--test", pred, "-o", tmp_path / "b.txt")
    assert "the name of a .csv file" in str(answer.exception)


def test_benchmark_prints_and_writes_tables_and_plot(run, tmp_path):
    for name, seed in (("train", 1), ("test", 2)):
        table = make_cells(150, seed=seed)
        table.obsm["X_other"] = table.obsm["hidden"]
        table.write_h5ad(tmp_path / f"{name}.h5ad")
    answer = run(
        "benchmark", "--train", tmp_path / "train.h5ad", "--test", tmp_path / "test.h5ad",
        "--model", "none", "--embedding", "X_other", "--no-trees", "--no-totalvi",
        "--depth", "0.5", "--repeats", "1", "--resamples", "20", "-o", tmp_path / "b.csv",
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
