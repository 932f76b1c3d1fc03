"""When ``sclinguist predict`` streams, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from inference import streaming
from sclinguist_core.cli import app
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError
from sclinguist_core.inference import stream, stream_choice
from sclinguist_core.inference.stream_choice import streams
from sclinguist_core.model.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    checkpoint = streaming.calibrated_checkpoint(streaming.table())
    return save_checkpoint(checkpoint, tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def source(tmp_path):
    return write_table(streaming.table(120), tmp_path / "cells.h5ad")


def run(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_a_streamed_command_says_what_any_other_says(source, model, tmp_path):
    output = tmp_path / "out.zarr"
    done = run(source, "-o", output, "--model", model, "--stream")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(output)
    assert "cells: 5 proteins for 120 cells, from " in done.stderr
    assert "Trust in this section, proteins:" in done.stderr
    assert "Note: 1 of 120 cells have no counts" in done.stderr
    found = streaming.read(output)
    expected = streaming.whole(source, tmp_path / "whole.zarr", model=model)
    streaming.assert_same_results(found, expected)


@pytest.mark.parametrize("option", ["--stream", "--no-stream"])
def test_results_only(source, model, tmp_path, option):
    output = tmp_path / "out.h5ad"
    done = run(source, "-o", output, "--model", model, option, "--results-only")
    assert done.exit_code == 0, done.output
    found = streaming.read(output)
    assert found.X is None
    assert not found.layers
    assert found.obsm["protein_predicted"].shape == (120, 5)
    assert found.uns["note"] == "ünïcode"


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--given", "measured"], "--given"), (["--context", "nearest"], "--context")],
)
def test_what_needs_all_rows_is_not_streamed(source, model, tmp_path, options, named):
    done = run(source, "-o", tmp_path / "out.h5ad", "--model", model, "--stream", *options)
    assert isinstance(done.exception, InputError)
    assert f"{named} needs all rows in memory" in str(done.exception)
    assert not streams(source, None, whole=[named])
    assert not (tmp_path / "out.h5ad").exists()


def test_large_tables_are_streamed_by_themselves(source, monkeypatch):
    assert not streams(source, None)
    monkeypatch.setattr(stream_choice, "STREAM_ROWS", 119)
    assert streams(source, None)
    assert not streams(source, False)


def test_tables_larger_than_memory_are_streamed(source, monkeypatch):
    memory = type("memory", (), {"available": 2_000_000})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    # 120 x 400 counts, some 13,000 stored ones, twice; and 32 bytes a predicted value.
    assert not streams(source, None, n_proteins=5)
    assert streams(source, None, n_proteins=500)


def test_counts_by_column_are_read_whole_where_they_fit(tmp_path, monkeypatch):
    path = write_table(streaming.table(120, kind="csc"), tmp_path / "cells.zarr")
    monkeypatch.setattr(stream_choice, "STREAM_ROWS", 50)
    assert not streams(path, None)
    memory = type("memory", (), {"available": 5_000_000})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert streams(path, None, n_proteins=5_000)


def test_sections_are_never_streamed_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_choice, "STREAM_ROWS", 0)
    folder = tmp_path / "outs"
    (folder / "spatial").mkdir(parents=True)
    (folder / "filtered_feature_bc_matrix.h5").write_bytes(b"")
    assert not streams(folder, None)
    assert not streams(tmp_path / "nowhere.h5ad", None)
    (tmp_path / "damaged.h5ad").write_bytes(b"no HDF5")
    assert not streams(tmp_path / "damaged.h5ad", None)


def test_several_processes_stream_whatever_the_size(source, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert streams(source, None)
    with pytest.raises(InputError, match="several processes were started"):
        streams(source, False)
    with pytest.raises(InputError, match=r"--given needs all rows.*start one process"):
        streams(source, None, whole=["--given"])


INTERRUPTED = """
import os, signal
from sclinguist_core.cli import main
from sclinguist_core.inference import stream, stream_work
stream.BLOCK_VALUES = 3_000
write = stream_work.WorkFolder.write
def interrupted(self, block, *given):
    write(self, block, *given)
    if block == 1:
        os.kill(os.getpid(), signal.SIGINT)
stream_work.WorkFolder.write = interrupted
main()
"""


def test_ctrl_c_says_how_to_go_on(source, model, tmp_path, monkeypatch, caplog):
    output = tmp_path / "out.h5ad"
    options = [str(source), "-o", str(output), "--model", str(model), "--stream"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERRUPTED, "predict", *options],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 130
    assert "the same command goes on from there" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
    monkeypatch.setattr(stream, "BLOCK_VALUES", 3_000)
    again = run(*options)
    assert again.exit_code == 0, again.output
    assert "going on at row" in caplog.text
    assert np.isfinite(streaming.read(output).obsm["protein_predicted"].to_numpy()[5:]).all()
