"""What readers are guarded by: the other process that looks through HDF5, the bound on gzip."""

from __future__ import annotations

import gzip
import json
import sys
import time
import tracemalloc

import h5py
import numpy as np
import pytest
import typer
from PIL import Image

from sclinguist_core.console import Commands, run_app
from sclinguist_core.data.readers import hdf5, hdf5_walk, images
from sclinguist_core.data.readers.hdf5 import check_hdf5
from sclinguist_core.data.readers.images import read_image, to_rgb8
from sclinguist_core.data.readers.zarr_check import check_zarr
from sclinguist_core.errors import InputError
from sclinguist_core.reading import ALWAYS_UNPACKED, _left_in_groups, opened, read_json, reading


@pytest.fixture
def walker(monkeypatch, tmp_path):
    """Put another program in the place of the one that looks through files."""

    def use(program: str) -> hdf5._Walker:
        path = tmp_path / "program.py"
        path.write_text(program)
        monkeypatch.setattr(hdf5, "PROGRAM", path)
        other = hdf5._Walker()
        monkeypatch.setattr(hdf5, "_WALKER", other)
        return other

    return use


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as group:
        group["numbers"] = np.arange(1000.0)
        group.create_group("more")["names"] = ["a", "b"]
    return path


def test_hdf5_is_looked_through(file):
    assert check_hdf5(file) == ["more", "numbers"]
    assert hdf5_walk.answer(str(file)) == {"bytes": {"more": 18, "numbers": 8000}}


def test_a_library_that_hangs_is_stopped(walker, file, monkeypatch):
    monkeypatch.setattr(hdf5, "SECONDS", 0.3)
    other = walker("import time\ntime.sleep(60)\n")
    start = time.monotonic()
    with pytest.raises(InputError, match="did not come to an end"):
        check_hdf5(file)
    assert time.monotonic() - start < 30
    assert other._process is None


def test_a_library_that_crashes_takes_nothing_with_it(walker, file):
    other = walker("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    for _ in range(2):
        with pytest.raises(InputError, match="crashed over it"):
            check_hdf5(file)
    assert other._process is None


def many_texts(path, n_texts, length):
    """Write texts that are all one and the same in the file."""
    with h5py.File(path, "w") as group:
        text = h5py.string_dtype()
        array = group.create_dataset("names", shape=(n_texts,), chunks=(n_texts,), dtype=text)
        array[0] = "x" * length
        pointer = array.id.read_direct_chunk((0,))[1][:16]
        array.id.write_direct_chunk((0,), pointer * n_texts)
    return path


def test_texts_that_are_one_text(tmp_path):
    path = many_texts(tmp_path / "a.h5", 5_000, 10**5)
    assert path.stat().st_size < 10**6  # and 500 MB when it is read
    with pytest.raises(InputError, match="more text in /names than there is in the file"):
        check_hdf5(path)
    honest = many_texts(tmp_path / "b.h5", 5_000, 10)
    assert hdf5_walk.answer(str(honest)) == {"bytes": {"names": 5_000 * (8 + 10)}}


def test_without_memory_a_file_is_refused(tmp_path, monkeypatch):
    path = many_texts(tmp_path / "a.h5", 10, 10)

    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(h5py.Dataset, "__getitem__", no_memory)
    found = hdf5_walk.answer(str(path))
    assert found == {"refused": "holds values that take gigabytes when they are read (/names)"}


def test_there_is_progress_within_a_dataset(tmp_path):
    beats = []
    with h5py.File(tmp_path / "a.h5", "w") as group:
        group["names"] = ["x"] * 50_000
    hdf5_walk.answer(str(tmp_path / "a.h5"), lambda: beats.append(1))
    assert len(beats) > 10


def test_progress_is_patience(walker, file, monkeypatch):
    monkeypatch.setattr(hdf5, "SECONDS", 1.0)
    other = walker(
        "import sys, time\n"
        "for line in sys.stdin:\n"
        "    for _ in range(4):\n"
        "        time.sleep(0.5)\n"
        "        print(flush=True)\n"
        '    print(\'{"bytes": {"slow": 1}}\', flush=True)\n'
    )
    assert check_hdf5(file) == ["slow"]
    other.stop()


def test_without_another_process_it_is_done_here(file, monkeypatch):
    monkeypatch.setattr(hdf5.subprocess, "Popen", _no_process)
    monkeypatch.setattr(hdf5, "_WALKER", hdf5._Walker())
    assert check_hdf5(file) == ["more", "numbers"]


def _no_process(*_, **__):
    raise OSError("no process")


def test_what_is_not_read_whole_may_be_large(file):
    with h5py.File(file, "a") as group:
        group.create_dataset("X/data", shape=(10**12,), chunks=(10**4,), dtype="f4")
    with pytest.raises(InputError, match=r"states that it holds 3,725\.3 GiB"):
        check_hdf5(file)
    assert check_hdf5(file, not_whole=("X",)) == ["X", "more", "numbers"]


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_gzip_is_unpacked_up_to_a_bound(tmp_path, factor):
    path = tmp_path / "a.tsv.gz"
    content = b"a\n" * int(factor * ALWAYS_UNPACKED / 2)
    path.write_bytes(gzip.compress(content, 9))
    with opened(path) as stream:
        if factor < 1:
            assert stream.read() == content
        else:
            with pytest.raises(InputError, match="200 times its size"):
                stream.read()


@pytest.mark.parametrize(
    "harm", [lambda data: data[: len(data) // 2], lambda data: data[:-8] + bytes(8)]
)
def test_gzip_that_is_damaged_is_so_whoever_reads_it(tmp_path, harm):
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(harm(gzip.compress(np.random.default_rng(0).bytes(10**5))))
    with pytest.raises(InputError, match="cannot be unpacked"), opened(path) as stream:
        stream.read()


def test_a_file_that_ends_too_early_is_no_abort(monkeypatch, capsys):
    app = typer.Typer(cls=Commands)

    @app.command()
    def read() -> None:
        raise EOFError("the end")

    app.command(name="other")(print)
    monkeypatch.setattr("sys.argv", ["program", "read"])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: A file ends too early (the end), expected")
    assert "Aborted" not in said


def test_memory_of_control_groups(tmp_path):
    """The least of all groups that a process lies in, on both kinds of systems."""

    def write(folder, **files):
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name.replace("_", ".", 1)).write_text(text)

    root = tmp_path / "cgroup"
    stat = "anon 5\ninactive_file 30\ntotal_inactive_file 40\n"
    write(root / "a" / "b", memory_max="max", memory_current="70", memory_stat=stat)
    write(root / "memory" / "c", memory_limit_in_bytes="90", memory_usage_in_bytes="50",
          memory_stat=stat)  # fmt: skip
    for name, text in {"max": "100\n", "current": "80\n", "stat": stat}.items():
        (root / "a" / f"memory.{name}").write_text(text)
    memberships = tmp_path / "memberships"
    memberships.write_text("0::/a/b\n")
    assert min(_left_in_groups(memberships, root)) == 50
    memberships.write_text("3:cpu:/c\n2:pids,memory:/c\n")
    assert min(_left_in_groups(memberships, root)) == 80
    for text in ("0::/\n", "0::/gone\n", "", "odd"):
        memberships.write_text(text)
        assert _left_in_groups(memberships, root) == [sys.maxsize]
    assert _left_in_groups(tmp_path / "missing", root) == [sys.maxsize]


def test_images_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    Image.fromarray(pixels).save(path)
    assert read_image(path)[[0, -1], [0, -1]].tolist() == [[0] * 3, [255] * 3]
    with monkeypatch.context() as patch:
        patch.setattr("sclinguist_core.reading.free_memory", lambda: 16 * 600 - 1)
        with pytest.raises(InputError, match="states that it holds"):
            read_image(path)
    with monkeypatch.context() as patch:
        patch.setattr(images, "MAX_BYTES", 100)
        with pytest.raises(InputError, match="is longer than 0 MB"):
            read_image(path)
    packed = tmp_path / "b.png.gz"
    packed.write_bytes(gzip.compress(path.read_bytes())[:-20])
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(packed)


def test_grey_images_of_16_bits_take_as_much_memory_as_is_asked_for():
    """Per pixel: what came in, one channel that is stretched, and three bytes."""
    pixels = np.arange(10**6, dtype=np.uint16).reshape(1000, 1000) // 16 * 15
    tracemalloc.start()
    try:
        out = to_rgb8(pixels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert out.shape == (1000, 1000, 3)
    assert peak < 14 * 10**6


def test_packed_data_are_read_whatever_their_size(tmp_path):
    path = tmp_path / "a.bin.gz"
    content = np.random.default_rng(0).bytes(2 * 10**6)
    path.write_bytes(gzip.compress(content))
    with opened(path) as stream:
        assert stream.read() == content


def test_reading_names_file_kind_cause_and_remedy(tmp_path):
    with pytest.raises(InputError) as error, reading(tmp_path, "a map", remedy="draw it anew"):
        raise LookupError("no north.\nIt is lost.")
    assert str(error.value) == (
        f"'{tmp_path}' cannot be read as a map (no north): it is damaged or not complete; draw it "
        "anew."
    )
    with pytest.raises(InputError, match=r"^our own$"), reading(tmp_path, "a map"):
        raise InputError("our own")
    with pytest.raises(InputError, match="needs more memory"), reading(tmp_path, "a map"):
        raise MemoryError


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, "1" * 5000, '"\ud800"'])
def test_json_that_is_none(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    if text.startswith('"'):
        assert len(read_json(path)) == 1
        return
    with pytest.raises(InputError, match=r"a\.json' cannot be read as JSON"):
        read_json(path)


@pytest.mark.parametrize(("shape", "chunks"), [([12, 240], 1), ([240, 1], 0)])
def test_a_sparse_matrix_without_its_chunks(tmp_path, shape, chunks):
    """Zeros are rightly left out only where they can be all that there is."""
    array = {
        "zarr_format": 3, "node_type": "array", "shape": [20], "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10]}},
    }  # fmt: skip
    for name in ("data", "indices"):
        (tmp_path / "X" / name / "c").mkdir(parents=True)
        (tmp_path / "X" / name / "zarr.json").write_text(json.dumps(array))
        (tmp_path / "X" / name / "c" / "0").write_bytes(b"x")
    attributes = {"encoding-type": "csr_matrix", "shape": shape}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (tmp_path / "X" / "zarr.json").write_text(json.dumps(group))
    if chunks:
        with pytest.raises(InputError, match="has 1 of its 2 chunks"):
            check_zarr(tmp_path)
    else:
        check_zarr(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X"]
