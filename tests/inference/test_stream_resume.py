"""A streamed prediction that was killed, or met something bad, loses nothing and shows no half."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from inference import streaming
from inference.streaming import BLOCK_VALUES, child, n_blocks, read, table
from sclinguist_core.data import backed_section
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError
from sclinguist_core.inference import stream, stream_work
from sclinguist_core.inference.stream import predict_to
from sclinguist_core.model.checkpoint import save_checkpoint

N_ROWS = 250


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return streaming.saved_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_table(table(N_ROWS), tmp_path_factory.mktemp("in") / "cells.h5ad")


@pytest.fixture(scope="module")
def unbroken(source, model, tmp_path_factory):
    """What a process gives that nobody killed."""
    output = tmp_path_factory.mktemp("unbroken") / "out.h5ad"
    return streaming.predicted_alone(source, output, model)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(stream, "BLOCK_VALUES", BLOCK_VALUES)


def assert_equal(found, expected):
    """Equal to the last bit."""
    for key in expected.obsm:
        np.testing.assert_array_equal(np.asarray(found.obsm[key]), np.asarray(expected.obsm[key]))
    np.testing.assert_array_equal(found.obs["sclinguist_ood"], expected.obs["sclinguist_ood"])
    one, other = dict(found.uns["sclinguist"]), dict(expected.uns["sclinguist"])
    for key in ("trust", "expected_r", "input", "model_digest"):
        assert one[key] == other[key]
    assert (found.X != expected.X).nnz == 0


def assert_killed(source, output, model, moment, number=0):
    """Let a process kill itself; returns how many blocks there are then."""
    process = child(source, output, model, moment=moment, number=number)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == -signal.SIGKILL, errors
    return len(list(output.with_name(f"{output.name}.partial").glob("block-*.f32")))


def assert_goes_on(source, output, model, unbroken):
    """The same call takes up the blocks that are there, and leaves nothing but the whole output."""
    process = child(source, output, model)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "going on at row" in errors
    assert_equal(read(output), unbroken)
    names = sorted(entry.name for entry in output.parent.iterdir())
    assert names == ["child.py", output.name]


def test_killed_in_the_midst_of_blocks_and_resumed(source, model, unbroken, tmp_path):
    output = tmp_path / "out.h5ad"
    assert n_blocks(source) >= 5
    assert assert_killed(source, output, model, "after", 2) == 2
    assert assert_killed(source, output, model, "before", 1) == 3
    assert not output.exists()
    assert_goes_on(source, output, model, unbroken)


def test_killed_while_the_table_is_written_and_resumed(source, model, unbroken, tmp_path):
    output = tmp_path / "out.zarr"
    last = n_blocks(source)
    assert assert_killed(source, output, model, "writing") == last
    assert not output.exists()
    # There is no output, then a whole one.
    assert assert_killed(source, output, model, "finishing") == last
    assert_equal(read(output), unbroken)
    assert_goes_on(source, output, model, unbroken)


def stop_after(n, monkeypatch):
    """Let a prediction end by Ctrl-C when `n` blocks are done."""
    write, seen = stream_work.WorkFolder.write, []

    def interrupted(self, *given):
        write(self, *given)
        seen.append(given[0])
        if len(seen) == n:
            raise KeyboardInterrupt

    monkeypatch.setattr(stream_work.WorkFolder, "write", interrupted)
    return seen


def test_done_blocks_are_not_done_again(source, model, unbroken, tmp_path, monkeypatch):
    output = tmp_path / "out.h5ad"
    with monkeypatch.context() as patch:
        first = stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            predict_to(source, output, model=model)
    with monkeypatch.context() as patch:
        second = stop_after(1_000, patch)
        predict_to(source, output, model=model)
    assert first == [0, 1, 2]
    assert second == list(range(3, n_blocks(source)))
    streaming.assert_same_results(read(output), unbroken)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_block_is_done_again(source, model, unbroken, tmp_path, monkeypatch, damage):
    output = tmp_path / "out.h5ad"
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            predict_to(source, output, model=model)
    block = tmp_path / "out.h5ad.partial" / "block-000001.f32"
    content = bytearray(block.read_bytes())
    if damage == "flip":
        content[-100] ^= 1
    elif damage == "cut":
        del content[-4:]
    elif damage == "empty":
        content.clear()
    else:
        content = bytearray(block.with_name("block-000002.f32").read_bytes())
    block.write_bytes(content)
    with monkeypatch.context() as patch:
        done = stop_after(1_000, patch)
        predict_to(source, output, model=model)
    assert done == [1, *range(4, n_blocks(source))]
    streaming.assert_same_results(read(output), unbroken)


def interrupted_run(source, output, model, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            predict_to(source, output, model=model)


def test_another_input_model_or_choice_is_refused(model, tmp_path, monkeypatch):
    source = write_table(table(N_ROWS), tmp_path / "cells.h5ad")
    output = tmp_path / "out.h5ad"
    interrupted_run(source, output, model, monkeypatch)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out.h5ad.partial").iterdir()}
    with pytest.raises(InputError, match=r"differs in proteins.*remove that folder"):
        predict_to(source, output, model=model, proteins=["CD3", "CD4", "CD19", "CD14"])
    checkpoint = streaming.calibrated_checkpoint(table())
    checkpoint.translator.cognate_gain.data.fill_(3.0)
    other = save_checkpoint(checkpoint, tmp_path / "other")
    with pytest.raises(InputError, match=r"differs in model digest \(was .*, is .*\), expected"):
        predict_to(source, output, model=other)
    with h5py.File(source, "a") as file:
        file["X"]["data"][5] += 1
    with pytest.raises(InputError, match="differs in input"):
        predict_to(source, output, model=model)
    after = {path.name: path.read_bytes() for path in (tmp_path / "out.h5ad.partial").iterdir()}
    assert after == before
    assert not output.exists()


def test_a_folder_of_somebody_else_is_left_alone(source, model, tmp_path):
    folder = tmp_path / "out.h5ad.partial"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files without a journal"):
        predict_to(source, tmp_path / "out.h5ad", model=model)
    for damaged in ("{", "[1]", "null"):
        (folder / "journal.json").write_text(damaged)
        with pytest.raises(InputError, match="a journal that cannot be read"):
            predict_to(source, tmp_path / "out.h5ad", model=model)
    assert (folder / "mine.txt").read_text() == "mine"


def test_the_work_lies_where_a_link_leads_to(source, model, unbroken, tmp_path, monkeypatch):
    """A table takes its name in one step on its own disk alone."""
    far, link = tmp_path / "far", tmp_path / "near" / "out.h5ad"
    far.mkdir()
    link.parent.mkdir()
    link.symlink_to(far / "table.h5ad")
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            predict_to(source, link, model=model)
    assert [path.name for path in far.iterdir()] == ["table.h5ad.partial"]
    asked = []
    usage = stream.shutil.disk_usage
    monkeypatch.setattr(stream.shutil, "disk_usage", lambda at: (asked.append(at), usage(at))[1])
    (far / "table.h5ad.partial").rename(tmp_path / "away")
    assert predict_to(source, link, model=model) == link
    assert asked == [far]
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*.h5ad*")) == ["out.h5ad", "table.h5ad"]
    streaming.assert_same_results(read(link), unbroken)


def work_folder(folder, n_blocks):
    return stream_work.WorkFolder(
        folder / "out.h5ad", {"input": "x"}, np.arange(n_blocks + 1), ("mean",), 1, with_ood=False
    )


def test_what_is_there_is_listed_once(tmp_path, monkeypatch):
    work = work_folder(tmp_path, 20_000)
    work.create()
    for name in ("000003.f32", "019999.f32", "020000.f32", "000004.f32.m.1.tmp", "abc.f32"):
        (work.path / f"block-{name}").touch()
    made = []
    monkeypatch.setattr(type(work), "file", lambda _, block: made.append(block))
    assert np.flatnonzero(work.present()).tolist() == [3, 19_999]
    assert made == []  # no name was made of a number for each


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell which processes live")
def test_what_killed_processes_were_writing_goes(tmp_path):
    work = work_folder(tmp_path, 3)
    work.create()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = stream_work.platform.node()
    dead = f"block-000000.f32.{here}.{ended.pid}.tmp"
    others = [f"block-000001.f32.{here}.{os.getpid()}.tmp", f"block-2.f32.{here}x.{ended.pid}.tmp"]
    for name in (dead, *others):
        (work.path / name).touch()
    with work.held(0):
        assert sorted(path.name for path in work.path.glob("*.tmp")) == others


def test_the_journal_is_the_last_to_go(tmp_path, monkeypatch):
    work = work_folder(tmp_path, 3)
    work.create()
    (work.path / "worker-1.lock").touch()
    work.file(0).touch()
    left = []
    monkeypatch.setattr(
        stream_work.shutil,
        "rmtree",
        lambda path, **_: left.append(sorted(one.name for one in path.iterdir())),
    )
    monkeypatch.setattr(stream_work.time, "sleep", lambda _: None)
    work.remove()
    assert left[0] == ["journal.json"]


def test_two_processes_do_not_do_the_same_work(source, model, tmp_path, monkeypatch):
    output = tmp_path / "out.h5ad"
    steps = stream.predict_to_iter(source, output, model=model)
    streaming.reach(steps, "predicting")
    with pytest.raises(InputError, match="another process is at work"):
        predict_to(source, output, model=model)
    for _ in steps:
        pass
    assert output.exists()


@pytest.mark.parametrize(
    ("value", "bad", "named"),
    [
        (-1.0, range(171, 174), "171 to 173"),
        (np.nan, range(171, 174), "171 to 173"),
        # Some fractions among whole numbers are rounded, as in memory; a block of them is not.
        (0.5, range(120, 230), r"\d+ to \d+"),
    ],
)
def test_a_late_block_without_counts(model, tmp_path, unbroken, monkeypatch, value, bad, named):
    source, output = tmp_path / "cells.h5ad", tmp_path / "out.h5ad"
    table(N_ROWS).write_h5ad(source)
    times = os.stat(source)
    with h5py.File(source, "a") as file:
        indptr, data = file["X"]["indptr"][:], file["X"]["data"]
        good = data[:]
        data[indptr[bad.start] : indptr[bad.stop]] = value
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    # The rows by which the file is judged and known are others.
    monkeypatch.setattr(backed_section, "_SAMPLE_BLOCKS", 2)
    monkeypatch.setattr(backed_section, "_SAMPLE_VALUES", 500)
    monkeypatch.setattr(backed_section, "_SAMPLE_ROWS", 2)
    with pytest.raises(InputError, match=f"in rows {named} .of 250, counted from 0") as caught:
        predict_to(source, output, model=model)
    assert str(caught.value).count(". ") == 0
    assert not output.exists()
    n_done = len(list((tmp_path / "out.h5ad.partial").glob("block-*.f32")))
    assert 1 <= n_done < n_blocks(source)
    # Where it was the disk's fault and the file is as it should be, what was done is used.
    with h5py.File(source, "a") as file:
        file["X"]["data"][:] = good
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = stop_after(1_000, monkeypatch)
    predict_to(source, output, model=model)
    assert len(done) == n_blocks(source) - n_done
    streaming.assert_same_results(read(output), unbroken)


def test_too_small_a_disk_is_found_out_beforehand(source, model, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 100_000})()
    monkeypatch.setattr(stream.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"GB of disk there, 0\.0 GB are free.*--results-only"):
        predict_to(source, tmp_path / "out.h5ad", model=model)
    assert list(tmp_path.iterdir()) == []


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_with_blocks(source, model, unbroken, tmp_path, monkeypatch):
    output = tmp_path / "out.zarr"
    sync, seen = stream_work.sync, []

    def sometimes_full(path):
        seen.append(path)
        sync(path) if len(seen) < 3 else full()

    with monkeypatch.context() as patch:
        patch.setattr(stream_work, "sync", sometimes_full)
        with pytest.raises(InputError, match=r"No space left.*what was done before is kept"):
            predict_to(source, output, model=model)
    names = sorted(path.name for path in (tmp_path / "out.zarr.partial").iterdir())
    assert names == ["block-000000.f32", "block-000001.f32", "journal.json"]
    predict_to(source, output, model=model)
    streaming.assert_same_results(read(output), unbroken)


def test_a_disk_that_fills_up_with_the_output(source, model, unbroken, tmp_path, monkeypatch):
    from sclinguist_core.inference import stream_merge

    output = write_table(table(20), tmp_path / "out.h5ad")
    former = output.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(stream_merge.PartWriter, "add_uns", full)
        with pytest.raises(InputError, match=r"No space left.*predictions are kept in"):
            predict_to(source, output, model=model)
    assert output.read_bytes() == former
    with monkeypatch.context() as patch:
        done = stop_after(1_000, patch)
        predict_to(source, output, model=model)
    assert done == []
    streaming.assert_same_results(read(output), unbroken)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_disk_that_takes_no_more_in_the_midst_of_writing(
    source, model, unbroken, tmp_path, suffix
):
    # The system refuses to let a file grow beyond this: blocks are smaller, the output is not.
    output = tmp_path / f"out.{suffix}"
    limit = 60_000 if suffix == "h5ad" else 2_900
    process = child(source, output, model, moment="small files", number=limit)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "InputError: Writing" in errors
    assert "Traceback" not in errors
    assert not output.exists()
    predict_to(source, output, model=model)
    streaming.assert_same_results(read(output), unbroken)


def test_the_journal_says_of_what_it_is(source, model, tmp_path, monkeypatch):
    interrupted_run(source, tmp_path / "out.h5ad", model, monkeypatch)
    journal = json.loads((tmp_path / "out.h5ad.partial" / "journal.json").read_text())
    assert journal["input"]["shape"] == [N_ROWS, 400]
    assert journal["input"]["name"] == Path(source).name
    assert journal["proteins"] == ["CD14", "CD19", "CD3", "CD4", "CD56"]
    assert len(journal["model digest"]) >= 12
