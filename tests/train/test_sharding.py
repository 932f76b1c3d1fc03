"""FSDP on two CPU processes; its savings show on GPUs only, its arithmetic here too."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import small_runs
from sclinguist_core.errors import InputError
from sclinguist_core.train.run_folder import RunFolder
from sclinguist_core.train.state import read_state


def sharded(folder, *options):
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, str(Path(small_runs.__file__)), str(folder),
         "--devices", "2", "--strategy", "fsdp", "--dropout", "0", *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip


def test_a_sharded_network_learns_what_a_whole_one_learns(tmp_path):
    """Its state is that of one process: either can continue the other's run."""
    done = sharded(tmp_path / "two", "--steps", "10")
    assert done.returncode == 0, done.stderr
    (tmp_path / "one").mkdir()
    small_runs.train(
        tmp_path / "one",
        model=small_runs.network(replace(small_runs.CONFIG, dropout=0.0)),
        config=replace(small_runs.FIT, steps=10),
    )
    one, two = (RunFolder(tmp_path / name) for name in ("one", "two"))
    pd.testing.assert_frame_equal(
        *(pd.read_csv(run.metrics_path).drop(columns="cells_per_second") for run in (one, two)),
        rtol=1e-4,
    )  # fmt: skip
    ours, theirs = read_state(one.state_path), read_state(two.state_path)
    for name, weight in ours["state_dict"].items():
        torch.testing.assert_close(weight, theirs["state_dict"][name], rtol=1e-3, atol=1e-3)
    for mine, yours in zip(ours["optimizer_states"], theirs["optimizer_states"], strict=True):
        assert mine["state"].keys() == yours["state"].keys()
        for number, values in mine["state"].items():
            assert values["exp_avg"].shape == yours["state"][number]["exp_avg"].shape


def test_what_cannot_be_shared_evenly_is_refused():
    class Three:
        world_size = 3

    from sclinguist_core.train.chunks import PairedChunks
    from sclinguist_core.train.module import TrainingModule
    from sclinguist_core.train.objectives import PairedObjective
    from sclinguist_core.train.options import TrainerConfig
    from sclinguist_core.train.signals import StopRequest

    objective = PairedObjective(small_runs.network(), 0.2)
    objective.unshard = lambda: None  # what a sharded network has
    module = TrainingModule(
        objective, PairedChunks([], small_runs.SHARE, small_runs.FIT, None), small_runs.FIT,
        TrainerConfig(), StopRequest(),
    )  # fmt: skip
    module._trainer = Three()
    with pytest.raises(InputError, match="4 chunks a step for 3 processes, expected a multiple"):
        module.on_fit_start()
