"""Train, save, load, predict, evaluate: the whole path in seconds, on synthetic cells."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import yaml

import sclinguist_core as scl
from synthetic import paired_cells


def call(entry, *arguments, cwd):
    code = f"from {entry} import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Folder with two training sets, a test set, a recipe, and the checkpoint trained from it."""
    folder = tmp_path_factory.mktemp("run")
    for seed, name in enumerate(["one", "two", "new"]):
        paired_cells(250, seed=seed, name=name).write_h5ad(folder / f"{name}.h5ad")
    recipe = {
        "name": "tiny",
        "paired": ["one.h5ad", "two.h5ad", "new.h5ad"],
        "model": {"gene_dim": 16, "width": 16, "n_latents": 4, "n_heads": 2, "n_layers": 1,
                  "dropout": 0.0},
        "fit": {"steps": 60, "batch_size": 64, "sets_per_step": 2, "learning_rate": 0.01,
                "ema": 0.9},
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    done = call("sclinguist_core.train.cli", "post-pretrain", "tiny.yaml", "-o", "tiny",
                "--hold-out", "new", "--device", "cpu", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_training_writes_a_checkpoint_that_names_its_data(work):
    checkpoint = work / "tiny" / "checkpoint"
    assert sorted(p.name for p in checkpoint.iterdir()) == [
        "card.md", "config.json", "genes.tsv", "model.safetensors", "proteins.tsv",
    ]  # fmt: skip
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["training_datasets"] == ["one", "two"]


def test_prediction_on_unseen_cells_beats_the_trivial(work):
    predicted = call(
        "sclinguist_core.cli", "predict", "new.h5ad", "-o", "out.h5ad", "--model", "tiny", cwd=work
    )
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.strip() == "out.h5ad"
    result = scl.evaluate(work / "out.h5ad").summary
    assert result.loc["model", "pearson_clr"] > 0.8
    assert result.loc["model", "pearson_clr"] > result.loc["total count", "pearson_clr"] + 0.5
    assert result.loc["model", "rmse"] < 0.8


def test_evaluate_writes_its_tables(work):
    call("sclinguist_core.cli", "predict", "new.h5ad", "-o", "p.h5ad", "--model", "tiny", cwd=work)
    done = call("sclinguist_core.cli", "evaluate", "p.h5ad", "-o", "report", cwd=work)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(work / "report" / "per_protein.csv")
    assert set(table["canonical"]) == {"CD3", "CD19", "CD14", "CD56", "CD4"}
    assert (work / "report" / "report.html").stat().st_size > 10_000


def test_ctrl_c_leaves_nothing_behind(work):
    code = """
import signal, time
# Shells have programs in the background ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from sclinguist_core.inference.runner import TranslatorRunner

def interrupted(*_):
    signal.raise_signal(signal.SIGINT)
    time.sleep(3)  # beside other threads Python may take a moment to notice

TranslatorRunner._forward = interrupted
from sclinguist_core.cli import main
main()
"""
    before = sorted(p.name for p in work.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", "new.h5ad", "-o", "never.h5ad", "--model", "tiny"],
        cwd=work, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in work.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "nothing.h5ad", "-o", "x.h5ad"), "nothing.h5ad"),
        (("predict", "new.h5ad", "-o", "x.csv"), "expected .h5ad or .zarr"),
        (("predict", "new.h5ad", "-o", "no/such/x.h5ad"), "does not exist"),
        (("predict", "new.h5ad", "-o", "new.h5ad"), "is an input"),
        (("predict", "new.h5ad", "-o", "x.h5ad", "--model", "gone"), "gone"),
        (("predict", "new.h5ad", "-o", "x.h5ad", "--layer", "raw_counts"), "raw_counts"),
        (("predict", "new.h5ad", "-o", "x.h5ad", "--model", "tiny", "--proteins", "foobar"),
         "foobar"),
        (("evaluate", "new.h5ad"), "sclinguist predict"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_writes_nothing(work, arguments, message):
    before = sorted(p.name for p in work.iterdir())
    done = call("sclinguist_core.cli", *arguments, cwd=work)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in work.iterdir()) == before


def test_a_hold_out_that_is_not_there_is_refused(work):
    done = call("sclinguist_core.train.cli", "post-pretrain", "tiny.yaml", "-o", "never",
                "--hold-out", "malt", cwd=work)  # fmt: skip
    assert done.returncode == 1
    assert "expected one of one, two, new" in done.stderr
    assert not (work / "never").exists()
