"""``sclinguist-train`` as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.train import cli
from sclinguist_core.train.run_folder import RunFolder
from synthetic import paired_cells

FAST = ("fit.steps=10", "fit.batch_size=16", "trainer.log_every=5", "trainer.save_every=10")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the program in this process; return exit status, standard output and error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sclinguist-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_three_stages_of_the_tiny_recipe(call, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = request.config.rootpath / "training" / "tiny.yaml"
    for stage, folder in (("pretrain-rna", "run-rna"), ("pretrain-protein", "run-protein")):
        status, out, err = call(stage, recipe, "-o", folder, *FAST)
        assert (status, out) == (0, f"{folder}/checkpoint\n")
        assert err.splitlines()[-1].startswith(f"{stage}: 10 steps, 320 cells, ")
    status, out, err = call(
        "post-pretrain", recipe, "-o", "run", *FAST, "init.rna=run-rna", "init.protein=run-protein"
    )
    assert (status, out) == (0, "run/checkpoint\n")
    assert err.splitlines()[-1].startswith("post-pretrain: 10 steps, 320 cells, error 0.")
    model = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert model.info.stage == "post-pretrain"
    assert len(model.proteins) == 28
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert str(tmp_path / "run-rna") in record["data"]  # what it started from is data too
    assert record["command"][1] == "post-pretrain"
    # A stage that starts from others is another network than one from scratch.
    errors = pd.read_csv(tmp_path / "run" / "metrics.csv")["error"]
    assert errors.iloc[-1] < errors.iloc[0]


@pytest.fixture
def recipe(tmp_path):
    paired_cells(80, 250).write_h5ad(tmp_path / "cells.h5ad")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: small\npaired: [cells.h5ad]\n"
        "model: {gene_dim: 8, width: 8, n_latents: 2, n_heads: 2, n_layers: 1}\n"
        "fit: {steps: 10, batch_size: 16, sets_per_step: 2}\n"
        "trainer: {accelerator: cpu, log_every: 5, save_every: 1}\n"
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["post-pretrain", "none.yaml"], "none.yaml: no such recipe, expected a YAML file."),
        (["pretrain-rna", "RECIPE", "fit.step=5"], "unknown key 'step'; did you mean 'steps'"),
        (["post-pretrain", "RECIPE", "--hold-out", "x"], "hold-out 'x': not in the recipe"),
        (["post-pretrain", "RECIPE", "paired=[gone.h5ad]"], "gone.h5ad"),
        (["post-pretrain", "RECIPE", "init.rna=gone"], "gone"),
        (["pretrain-rna", "RECIPE", "model.n_heads=3"], "expected a divisor of width (8)"),
        (["post-pretrain", "RECIPE", "-o", "RECIPE"], "is a file, expected a folder"),
        (["post-pretrain", "RECIPE", "--device", "gpu"], "gpu"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(call, recipe, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(*(recipe if a == "RECIPE" else a for a in arguments))
    assert (status, out) == (1, "")
    (error,) = [line for line in err.splitlines() if line.strip()]
    assert error.startswith("Error: ")
    assert message in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad", "recipe.yaml"]


def test_help_loads_nothing_heavy():
    code = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from sclinguist_core.train.cli import app\n"
        "for arguments in ([], ['pretrain-rna'], ['finetune']):\n"
        "    result = CliRunner().invoke(app, [*arguments, '--help'])\n"
        "    assert result.exit_code == 0 and 'Usage' in result.output, result.output\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.partition(".")[0] for name in json.loads(answer.stdout)}
    assert "typer" in loaded
    assert not loaded & {"torch", "pytorch_lightning", "numpy", "pandas", "anndata", "yaml"}


def test_a_signal_saves_and_slurm_starts_the_job_again(recipe, tmp_path, call):
    """SLURM warns with SIGUSR1; the job asks for itself and ends; it goes on where it was."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    program.chmod(0o755)
    run = RunFolder(tmp_path / "run")
    arguments = ["post-pretrain", str(recipe), "-o", str(run.path), "fit.steps=100000"]
    environment = os.environ | {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "42", "SLURM_NTASKS": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    code = "from sclinguist_core.train.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until = time.monotonic() + 240
    while not run.metrics_path.is_file() and time.monotonic() < until:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGUSR1, err
    last = run.last_step()
    assert 5 <= last < 100_000
    assert err.splitlines()[-1] == (
        f"stopped at step {last}; everything is saved, and SLURM starts the job again."
    )
    assert (tmp_path / "asked").read_text() == "requeue 42\n"
    assert out == ""
    assert not run.checkpoint_path.exists()
    status, _, err = call(*arguments)
    assert status == 1
    assert "holds a run already; add --resume" in err
