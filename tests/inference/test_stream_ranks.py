"""Several processes share the rows of a streamed prediction."""

from __future__ import annotations

import shutil
import signal

import pytest
import torch

from inference import streaming
from inference.streaming import BLOCK_VALUES, child, n_blocks, read, table
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError
from sclinguist_core.inference import ranks, stream, stream_blocks, stream_work
from sclinguist_core.inference.progress import finish
from sclinguist_core.inference.ranks import Rank, device_of, find_rank, share_threads
from sclinguist_core.inference.stream import predict_to_iter

N_ROWS = 250


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return streaming.saved_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_table(table(N_ROWS), tmp_path_factory.mktemp("in") / "cells.zarr")


@pytest.fixture(scope="module")
def alone(source, model, tmp_path_factory):
    """What one process gives."""
    output = tmp_path_factory.mktemp("alone") / "out.zarr"
    return streaming.predicted_alone(source, output, model)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(stream, "BLOCK_VALUES", BLOCK_VALUES)


def begin(source, output, model, count=2):
    """Let the first process make the work folder, and stop it before its first block."""
    steps = predict_to_iter(source, output, model=model, rank=Rank(index=0, count=count))
    work = output.with_name(f"{output.name}.partial")
    while not (work / "journal.json").exists():
        next(steps)
    steps.close()
    assert not list(work.glob("block-*"))
    return work


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.slept = 0.0

    def monotonic(self):
        return self.slept

    perf_counter = monotonic

    def sleep(self, seconds):
        self.slept += seconds


def slurm(index, count):
    return {
        "SLURM_PROCID": str(index),
        "SLURM_NTASKS": str(count),
        "SLURM_STEP_ID": "0",
        "SLURM_LOCALID": str(index),
    }


def test_torchrun(source, model, alone, tmp_path):
    output = tmp_path / "out.zarr"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = child(source, output, model, module=launch)
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert printed.count(str(output)) == 2
    streaming.assert_same_results(read(output), alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["child.py", "out.zarr"]


def test_slurm_killed_and_started_with_another_number(source, model, alone, tmp_path):
    output = tmp_path / "out.zarr"
    work = tmp_path / "out.zarr.partial"
    # Three processes, each killed after its first block; the job then has two.
    first = [
        child(source, output, model, moment="after", number=1, environment=slurm(index, 3))
        for index in range(3)
    ]
    for process in first:
        process.communicate(timeout=240)
        assert process.returncode == -signal.SIGKILL
    blocks = sorted(path.name for path in work.glob("block-*.f32"))
    assert blocks == [f"block-{number:06d}.f32" for number in range(3)]
    second = [child(source, output, model, environment=slurm(index, 2)) for index in range(2)]
    for process in second:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    streaming.assert_same_results(read(output), alone)
    assert not work.exists()


def test_the_first_does_what_a_dead_one_left(source, model, alone, tmp_path):
    output = tmp_path / "out.zarr"
    begin(source, output, model)
    dying = child(source, output, model, moment="after", number=1, environment=slurm(1, 2))
    dying.communicate(timeout=120)
    assert dying.returncode == -signal.SIGKILL
    first = child(source, output, model, environment=slurm(0, 2), patience=0.5)
    _, errors = first.communicate(timeout=240)
    assert first.returncode == 0, errors
    streaming.assert_same_results(read(output), alone)


def test_each_does_its_own_share(source, model, tmp_path, monkeypatch):
    output = tmp_path / "out.zarr"
    begin(source, output, model, 3)
    steps = predict_to_iter(source, output, model=model, rank=Rank(index=1, count=3, local_count=1))
    done = finish(steps)
    assert done.info == {}
    assert not output.exists()
    blocks = sorted((tmp_path / "out.zarr.partial").glob("block-*.f32"))
    expected = range(1, n_blocks(source), 3)
    assert [path.name for path in blocks] == [f"block-{block:06d}.f32" for block in expected]


def test_a_damaged_block_of_another_process_is_done_again(source, model, alone, tmp_path):
    output = tmp_path / "out.zarr"
    begin(source, output, model)
    other = Rank(index=1, count=2)
    finish(predict_to_iter(source, output, model=model, rank=other))
    block = tmp_path / "out.zarr.partial" / "block-000001.f32"
    content = bytearray(block.read_bytes())
    content[-1] ^= 1
    block.write_bytes(content)
    finish(predict_to_iter(source, output, model=model, rank=Rank(index=0, count=2)))
    streaming.assert_same_results(read(output), alone)


def test_the_first_waits_once_for_a_dead_one(source, model, alone, tmp_path, monkeypatch):
    output, clock = tmp_path / "out.zarr", Clock()
    monkeypatch.setattr(stream_blocks, "time", clock)
    finish(predict_to_iter(source, output, model=model, rank=Rank(index=0, count=2)))
    assert n_blocks(source) // 2 >= 2  # blocks of the dead one
    assert stream_blocks.PATIENCE < clock.slept < stream_blocks.PATIENCE + 1
    streaming.assert_same_results(read(output), alone)


def test_a_slow_one_skips_what_the_first_has_done_meanwhile(source, model, tmp_path, monkeypatch):
    """The first does the last block of a slow process, which is in its first one."""
    output = tmp_path / "out.zarr"
    begin(source, output, model)
    slow = predict_to_iter(source, output, model=model, rank=Rank(index=1, count=2))
    streaming.reach(slow, "predicting")
    monkeypatch.setattr(stream_blocks, "time", Clock())
    first = predict_to_iter(source, output, model=model, rank=Rank(index=0, count=2))
    last = n_blocks(source) - (n_blocks(source) % 2) - 1
    while not (tmp_path / f"out.zarr.partial/block-{last:06d}.f32").exists():
        next(first)
    first.close()
    written, write = [], stream_work.WorkFolder.write
    monkeypatch.setattr(
        stream_work.WorkFolder,
        "write",
        lambda self, block, *rest: (written.append(block), write(self, block, *rest)),
    )
    assert finish(slow).info == {}
    assert written
    assert last not in written


def test_a_slow_one_ends_well_when_the_first_has_finished(
    source, model, alone, tmp_path, monkeypatch
):
    output = tmp_path / "out.zarr"
    begin(source, output, model)
    slow = predict_to_iter(source, output, model=model, rank=Rank(index=1, count=2))
    streaming.reach(slow, "predicting")
    monkeypatch.setattr(stream_blocks, "time", Clock())
    finish(predict_to_iter(source, output, model=model, rank=Rank(index=0, count=2)))
    assert finish(slow).info == {}
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]
    streaming.assert_same_results(read(output), alone)


def test_a_folder_that_somebody_removes_is_told(source, model, tmp_path):
    output = tmp_path / "out.zarr"
    work = begin(source, output, model)
    for index in (1, 0):
        work.mkdir(exist_ok=True)
        begin(source, output, model)
        rank = Rank(index=index, count=2)
        steps = predict_to_iter(source, output, model=model, rank=rank)
        streaming.reach(steps, "predicting")
        shutil.rmtree(work)
        with pytest.raises(InputError, match="was removed while blocks were written there"):
            finish(steps)
        assert list(tmp_path.iterdir()) == []


def test_one_that_comes_late_makes_no_folder(source, model, tmp_path, monkeypatch):
    output, late, clock = tmp_path / "out.zarr", Rank(index=1, count=2), Clock()
    monkeypatch.setattr(stream_blocks, "time", clock)
    steps = predict_to_iter(source, output, model=model, rank=late)
    streaming.reach(steps, "waiting for the first process")
    assert list(tmp_path.iterdir()) == []
    # Finished while it waits: nothing is left for it.
    finish(predict_to_iter(source, output, model=model, rank=Rank()))
    slept = clock.slept
    assert finish(steps).info == {}
    assert clock.slept <= slept + 1
    # Finished before it began: an older output looks the same, so it waits for a while.
    slept = clock.slept
    assert finish(predict_to_iter(source, output, model=model, rank=late)).info == {}
    assert stream_blocks.PATIENCE < clock.slept - slept < stream_blocks.PATIENCE + 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Rank()),
        (
            {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            Rank(index=3, count=8, local=1, local_count=2),
        ),
        (
            {**slurm(5, 8), "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
            Rank(index=5, count=8, local=1, local_count=4),
        ),
        # A batch script without srun is one process, whatever it may start.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}, Rank()),
    ],
)
def test_the_environment_tells_the_number(environment, expected):
    assert find_rank(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "expected a number from 0 to 1"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one': expected a whole number"),
    ],
)
def test_numbers_that_make_no_sense(environment, message):
    with pytest.raises(InputError, match=message):
        find_rank(environment)


def test_devices_and_threads_are_shared(monkeypatch):
    rank = Rank(index=5, count=8, local=1, local_count=4)
    assert device_of(rank, "cpu") == "cpu"
    assert device_of(Rank(), "auto") == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert device_of(rank, "auto") == "cuda:1"
    assert device_of(rank, "cuda:2") == "cuda:2"
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.setattr(ranks.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    share_threads(rank)
    share_threads(Rank())
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    share_threads(rank)
    assert seen == [4, 6]
