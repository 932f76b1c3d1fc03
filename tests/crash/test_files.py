"""Files and folders appear whole; what killed writers have left goes when the name is used."""

import errno
import os
import subprocess
import sys

import pytest

from crash.failing_disk import failing_at
from sclinguist_core import files, locks
from sclinguist_core.files import (
    holder,
    remove_all_leftovers,
    remove_leftovers,
    replace_folder,
    replacing,
    sync,
)
from sclinguist_core.locks import Locked, NoLocks, locked, remove_stale

not_windows = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and fork")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_at_the_end(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with replacing(path) as new:
        assert new.suffix == ".csv"
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["table.csv"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError, GeneratorExit])
def test_an_exception_leaves_the_older_file(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write():
        with replacing(path) as new:
            new.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["table.csv"]


@pytest.mark.parametrize(
    "name", ["x" * 250 + ".csv", "ü" * 120 + ".csv", "\U0001f9ec" * 60 + ".csv"]
)
def test_names_as_long_as_the_disk_takes(tmp_path, name):
    with replacing(tmp_path / name) as new:
        new.write_text("new")
    assert names(tmp_path) == [name]


@not_windows
def test_a_link_keeps_leading_to_its_file(tmp_path):
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    with replacing(link) as new:
        new.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


# --- what killed writers have left --------------------------------------------------------------


KILLED = """
import os, signal, sys
from pathlib import Path
from sclinguist_core.files import holder, replacing
path = Path(sys.argv[1])
with replacing(path) as new:
    new.write_text("half")
    print("ready", flush=True)
    sys.stdin.read() if sys.argv[2] == "wait" else os.kill(os.getpid(), signal.SIGKILL)
"""


def writer(path, end):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@not_windows
def test_a_killed_writer_is_cleared_away_and_a_living_one_is_not(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with writer(path, "die") as dead:
        dead.wait()
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    with writer(path, "wait") as living:
        assert living.stdout.readline() == b"ready\n"
        assert len(names(tmp_path)) == 2  # it has cleared the other away
        with replacing(path) as new:
            new.write_text("new")
        assert len(names(tmp_path)) == 2
        living.stdin.close()
        assert living.wait() == 0
    assert path.read_text() == "half"  # whoever is done last
    assert names(tmp_path) == ["table.csv"]


def leave(tmp_path, name, content="half"):
    """What a killed writer leaves."""
    folder = tmp_path / f".{name}.abc.part"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / name).write_text(content)
    return folder


def test_only_leftovers_of_the_same_name_are_cleared_away(tmp_path):
    mine, other = leave(tmp_path, "a.csv"), leave(tmp_path, "b.csv")
    (tmp_path / ".a.csv.notes").mkdir()
    (tmp_path / ".a.csv.x.part").write_text("a file of somebody else")
    remove_leftovers(tmp_path / "a.csv")
    assert not mine.exists()
    assert other.exists()
    assert names(tmp_path) == [".a.csv.notes", ".a.csv.x.part", ".b.csv.abc.part"]


def test_folders_of_strangers_and_of_the_living_stay(tmp_path):
    folder(tmp_path / ".mine.part", "years of work")
    folder(tmp_path / ".yours.part" / "old", "years of work")
    (tmp_path / ".yours.part" / "thesis").touch()
    left = leave(tmp_path, "a.csv")
    with replacing(tmp_path / "b.csv") as new:
        new.write_text("new")
        remove_all_leftovers(tmp_path)
        assert new.read_text() == "new"
    assert not left.exists()
    remove_leftovers(tmp_path / "mine")
    assert (tmp_path / ".mine.part" / "inside").read_text() == "years of work"
    assert (tmp_path / ".yours.part" / "old" / "inside").read_text() == "years of work"
    assert names(tmp_path) == [".mine.part", ".yours.part", "b.csv"]


@not_windows
def test_leftovers_are_removed_under_their_lock(tmp_path, monkeypatch):
    """Let go of first, another process could take the folder for its own meanwhile."""
    left, held, real = leave(tmp_path, "a.csv"), [], files.shutil.rmtree

    def rmtree(path, **keywords):
        try:
            with locked(path / ".lock"):
                held.append(False)
        except Locked:
            held.append(True)
        real(path, **keywords)

    monkeypatch.setattr(files.shutil, "rmtree", rmtree)
    remove_leftovers(tmp_path / "a.csv")
    assert held == [True]
    assert not left.exists()


@not_windows
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_rights_are_those_of_the_older_file_or_of_any_new_one(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        for name in ("new.csv", "old.csv"):
            path = tmp_path / name
            if name == "old.csv":
                path.touch()
                path.chmod(0o440)
            with replacing(path) as new:
                new.write_text("new")
                new.chmod(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "new.csv").stat().st_mode & 0o777 == mode
    assert (tmp_path / "old.csv").stat().st_mode & 0o777 == 0o440


@not_windows
def test_a_link_with_such_a_name_is_not_followed(tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    (tmp_path / ".a.csv.x.part").symlink_to(thesis)
    remove_leftovers(tmp_path / "a.csv")
    assert (thesis / "chapter.txt").read_text() == "years of work"


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path):
    remove_leftovers(tmp_path / "missing" / "a.csv")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "missing" / "a.csv"):
        pass


def test_a_writer_whose_folder_was_taken_away_makes_another(tmp_path, monkeypatch):
    """Between making it and locking it, another process may take it for a dead one's."""
    real, taken = locks._acquire, []

    def late(path):
        if not taken:
            taken.append(path.parent)
            path.parent.rmdir()
        return real(path)

    monkeypatch.setattr(locks, "_acquire", late)
    with replacing(tmp_path / "a.csv") as new:
        new.write_text("new")
    assert len(taken) == 1
    assert names(tmp_path) == ["a.csv"]


def test_where_there_are_no_locks_nothing_is_cleared_away(tmp_path, monkeypatch):
    stray = leave(tmp_path, "a.csv")

    def no_locks(handle):
        raise NoLocks(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock", no_locks)
    with replacing(tmp_path / "a.csv") as new:
        new.write_text("new")
    assert (tmp_path / "a.csv").read_text() == "new"
    assert stray.exists()
    assert len(names(tmp_path)) == 2


# --- folders ------------------------------------------------------------------------------------


@pytest.fixture(params=["swapped", "one after the other"])
def way(request, monkeypatch):
    """In one step, as on Linux and macOS, or in two, as elsewhere."""
    if request.param == "swapped":
        if sys.platform not in ("linux", "darwin"):
            pytest.skip("this system cannot swap names")
    else:
        monkeypatch.setattr(files, "_swap", lambda *_: False)
    return request.param


def folder(path, content):
    path.mkdir(parents=True)
    (path / "inside").write_text(content)
    return path


def test_a_folder_takes_the_place_of_another(tmp_path, way):
    final = folder(tmp_path / "model", "old")
    with holder(final) as spare:
        replace_folder(folder(spare / "model", "new"), final)
    assert (final / "inside").read_text() == "new"
    assert names(tmp_path) == ["model"]


def test_a_folder_comes_to_a_free_name(tmp_path, way):
    replace_folder(folder(tmp_path / "new", "new"), tmp_path / "model")
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("is_done", [False, True])
def test_ctrl_c_at_any_call_keeps_one_of_the_folders(tmp_path, monkeypatch, is_done):
    """Also where it comes just as a call returns."""
    monkeypatch.setattr(files, "_swap", lambda *_: False)
    for at in range(1, 8):
        base = tmp_path / str(at)
        final = folder(base / "model", "old")
        try:
            with holder(final) as spare:
                new = folder(spare / "model", "new")
                with failing_at(at, KeyboardInterrupt(), is_done=is_done) as disk:
                    replace_folder(new, final)
        except KeyboardInterrupt:
            pass
        remove_leftovers(final)
        assert (final / "inside").read_text() in ("old", "new")
        assert names(base) == ["model"]
    assert disk.calls < 7 or not disk.has_failed  # every call had its turn


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs a system that swaps")
def test_there_is_no_moment_without_the_folder(tmp_path, monkeypatch):
    """Neither name is ever taken away: nothing is renamed but in one swap."""
    final = folder(tmp_path / "model", "old")
    monkeypatch.setattr(os, "replace", None)
    replace_folder(folder(tmp_path / "new", "new"), final)
    assert (final / "inside").read_text() == "new"


def test_killed_between_two_names_the_old_folder_comes_back(tmp_path):
    folder(tmp_path / ".model.abc.part" / "old" / "model", "old")
    assert not (tmp_path / "model").exists()
    with holder(tmp_path / "model"):
        assert (tmp_path / "model" / "inside").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_whatever_was_to_be_replaced_comes_back(tmp_path):
    folder(tmp_path / ".a.zarr.abc.part" / "old" / "a.zarr", "old")
    leave(tmp_path, "b.zarr")
    (tmp_path / ".c.part").write_text("a file of somebody else")
    remove_all_leftovers(tmp_path)
    assert (tmp_path / "a.zarr" / "inside").read_text() == "old"
    assert names(tmp_path) == [".c.part", "a.zarr"]


def test_what_was_written_meanwhile_stays(tmp_path):
    folder(tmp_path / ".model.abc.part" / "old" / "model", "old")
    folder(tmp_path / "model", "newer")
    remove_leftovers(tmp_path / "model")
    assert (tmp_path / "model" / "inside").read_text() == "newer"
    assert names(tmp_path) == ["model"]


# --- the disk and locks -------------------------------------------------------------------------


@not_windows
def test_everything_is_brought_to_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}") if sys.platform == "linux" else "")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    tree = folder(tmp_path / "tree", "x")
    folder(tree / "deep", "y")
    sync(tree)
    if sys.platform == "linux":
        assert set(synced) == {
            str(tree), str(tree / "inside"), str(tree / "deep"), str(tree / "deep" / "inside"),
        }  # fmt: skip
    assert len(synced) == 4
    synced.clear()
    with replacing(tmp_path / "a.csv", durable=False) as new:
        new.write_text("new")
    assert synced == []
    with replacing(tmp_path / "a.csv") as new:
        new.write_text("new")
    assert len(synced) == 2  # the file, and the name


@pytest.mark.parametrize(
    ("code", "passes"), [(errno.EINVAL, True), (errno.EIO, False), (errno.ENOSPC, False)]
)
def test_a_disk_that_cannot_be_asked_and_one_that_fails(tmp_path, monkeypatch, code, passes):
    path = tmp_path / "a.csv"
    path.write_text("old")

    def fsync(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    if passes:
        with replacing(path) as new:
            new.write_text("new")
    else:
        with pytest.raises(OSError, match=os.strerror(code)), replacing(path) as new:
            new.write_text("new")
    assert path.read_text() == ("new" if passes else "old")
    assert names(tmp_path) == ["a.csv"]


def test_the_file_of_a_lock_goes_when_nobody_holds_it(tmp_path):
    path = tmp_path / "lock"
    remove_stale(path)
    with locked(path):
        remove_stale(path)
        assert path.exists()
    path.touch()
    remove_stale(path)
    assert names(tmp_path) == []


def test_a_lock_whose_file_cannot_be_removed_is_still_let_go(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError))
        with locked(path), pytest.raises(Locked), locked(path):
            pass
    with locked(path):
        assert path.exists()
    assert not path.exists()
