"""``sclinguist evaluate``: what it prints, writes and refuses."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from evaluation.made_up import add_prediction, make_cells
from sclinguist_core.cli import app
from sclinguist_core.errors import InputError


@pytest.fixture
def run():
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
