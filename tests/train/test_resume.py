"""Runs that are killed, stopped, shared: they learn what an undisturbed run learns."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import small_runs
from sclinguist_core.train.run_folder import RunFolder
from sclinguist_core.train.state import read_state

SCRIPT = Path(small_runs.__file__)


def start(folder, *options, script=SCRIPT):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), *map(str, options)],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def wait_for_step(folder, step, process):
    """Wait until a run has reported a step; it may be some steps further by then."""
    path = RunFolder(folder).metrics_path
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()[1]
        if path.is_file() and path.read_text().count("\n") > step:
            return
        time.sleep(0.005)
    raise TimeoutError(f"no step {step} in {path}")


def steps_and_losses(folder):
    table = pd.read_csv(RunFolder(folder).metrics_path)
    return table.drop(columns="cells_per_second")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    small_runs.train(folder)
    return folder


def test_killed_and_continued_is_bit_for_bit_the_same(undisturbed, tmp_path):
    step = random.SystemRandom().randrange(1, 20)
    killed = start(tmp_path)
    wait_for_step(tmp_path, step, killed)
    time.sleep(random.SystemRandom().random() * 0.02)  # anywhere in a step, or in a write
    killed.kill()
    killed.communicate()
    assert RunFolder(tmp_path).last_step() < small_runs.FIT.steps, f"killed too late ({step})"
    finish(start(tmp_path, "--resume"))
    ours, theirs = (RunFolder(f).state_path for f in (tmp_path, undisturbed))
    mine, yours = load_file(ours), load_file(theirs)
    assert mine.keys() == yours.keys()
    assert [k for k in mine if not torch.equal(mine[k], yours[k])] == [], f"killed after {step}"
    with safe_open(ours, "pt") as one, safe_open(theirs, "pt") as other:
        assert one.metadata() == other.metadata()
    pd.testing.assert_frame_equal(
        steps_and_losses(tmp_path), steps_and_losses(undisturbed), check_exact=True
    )


def test_two_processes_learn_what_one_learns(tmp_path):
    """Three chunks and two processes: one takes two, and the loss is still that of the whole."""
    config = replace(small_runs.FIT, steps=10, sets_per_step=3)
    model = small_runs.network(replace(small_runs.CONFIG, dropout=0.0))
    torch.set_num_threads(1)
    small_runs.train(tmp_path, model=model, config=config)
    shared = tmp_path / "shared"
    shared.mkdir()
    script = tmp_path / "three_chunks.py"
    script.write_text(
        f"import sys\nfrom dataclasses import replace\nsys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "import small_runs\nif __name__ == '__main__':\n"
        "    small_runs.FIT = replace(small_runs.FIT, sets_per_step=3)\n    small_runs.main()\n"
    )
    finish(
        start(shared, "--devices", 2, "--strategy", "ddp", "--accumulate", 2, "--steps", 10,
              "--dropout", 0, script=script)
    )  # fmt: skip
    one, two = steps_and_losses(tmp_path), steps_and_losses(shared)
    pd.testing.assert_frame_equal(one, two, rtol=1e-4)
    states = [read_state(RunFolder(f).state_path) for f in (tmp_path, shared)]
    for name, weight in states[0]["state_dict"].items():
        torch.testing.assert_close(weight, states[1]["state_dict"][name], rtol=1e-3, atol=1e-3)


def test_sigterm_finishes_the_step_and_saves(tmp_path):
    run = start(tmp_path, "--steps", 2_000)
    wait_for_step(tmp_path, 3, run)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=60)
    assert "TrainingInterrupted: stopped at step" in errors
    last = int(pd.read_csv(RunFolder(tmp_path).metrics_path)["step"].iloc[-1])
    assert RunFolder(tmp_path).last_step() == last
    assert last < 2_000
