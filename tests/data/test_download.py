"""Download of a data set from a server on this machine, with everything that goes wrong."""

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import textwrap
import time
from collections import namedtuple
from dataclasses import replace
from itertools import count

import pytest

from file_server import H5_BEGIN, FileServer, Served, made_up_dataset, publish_section, tar_gz
from sclinguist_core import locks
from sclinguist_core.data.datasets import datasets, find_dataset
from sclinguist_core.data.download import download_iter, downloaded
from sclinguist_core.data.http_file import Patience, fetch_iter
from sclinguist_core.data.readers import open_section
from sclinguist_core.errors import InputError
from sclinguist_core.locks import Locked, NoLocks, locked
from sclinguist_core.resources import sample_section_path

IMPATIENT = Patience(timeout=20.0, attempts=3, pause=0.0)
COUNTS = H5_BEGIN + random.Random(0).randbytes(3_000_000)
SPATIAL = {
    "spatial/scalefactors_json.json": b"{}",
    "spatial/tissue_hires_image.png": random.Random(1).randbytes(200_000),
}
HALF = 1_500_000


@pytest.fixture
def server():
    server = FileServer()
    server.files["counts.h5"] = Served(COUNTS)
    server.files["spatial.tar.gz"] = Served(tar_gz(SPATIAL))
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sets" / "made-up"


def run(dataset, folder, patience=IMPATIENT):
    """Download to the end; gives the folder and what was reported."""
    steps, reports = download_iter(dataset, folder, patience=patience), []
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            return end.value, reports


def refusal(dataset, folder, patience=IMPATIENT):
    """The sentence with which a download ends; nothing appears under the final name."""
    with pytest.raises(InputError) as caught:
        run(dataset, folder, patience)
    assert not folder.exists()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def until(condition):
    """Wait for another process."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def part_of(folder):
    return folder.parent / f".{folder.name}.download" / "counts.h5.part"


def leave_half(server, folder, **manners):
    """A download whose connection ended in the middle of the first file."""
    server.files["counts.h5"] = Served(COUNTS, drops_after=[HALF], **manners)
    refusal(made_up_dataset(server), folder, replace(IMPATIENT, attempts=1))
    assert part_of(folder).stat().st_size == HALF
    server.asked.clear()


def check(folder, beside=()):
    """Everything has come, and nothing else lies in it or beside it."""
    assert (folder / "counts.h5").read_bytes() == COUNTS
    for name, content in SPATIAL.items():
        assert (folder / name).read_bytes() == content
    assert {p.name for p in folder.iterdir()} == {"counts.h5", "spatial", "download.json"}
    assert {p.name for p in folder.parent.iterdir()} - {*beside} == {folder.name}


# --- all goes well -------------------------------------------------------------------------------


def test_the_folder_appears_complete(server, folder):
    path, reports = run(made_up_dataset(server), folder)
    assert path == folder
    check(folder)
    total = len(COUNTS) + len(server.files["spatial.tar.gz"].content)
    assert {report.total for report in reports if report.phase == "downloading"} == {total}
    assert max(report.done for report in reports) == total
    phases = list(dict.fromkeys(report.phase for report in reports))
    assert phases == ["checking", "connecting", "downloading", "unpacking"]
    record = json.loads((folder / "download.json").read_text())
    assert record["licence"] == "none"
    assert record["sources"][f"{server.url}/counts.h5"]["bytes"] == len(COUNTS)
    assert set(record["sha256"]) == {"counts.h5", *SPATIAL}


def test_what_is_there_is_not_fetched_again(server, folder):
    run(made_up_dataset(server), folder)
    server.asked.clear()
    path, reports = run(made_up_dataset(server), folder)
    assert path == folder == downloaded(made_up_dataset(server), folder)
    assert [report.phase for report in reports] == ["checking"]
    assert server.asked == []


def test_an_empty_folder_may_be_there(server, folder):
    folder.mkdir(parents=True)
    assert downloaded(made_up_dataset(server), folder) is None
    run(made_up_dataset(server), folder)
    check(folder)


@pytest.mark.parametrize("change", [b"other", None])
def test_a_file_that_changed_is_named(server, folder, change):
    run(made_up_dataset(server), folder)
    path = folder / "spatial" / "scalefactors_json.json"
    path.unlink() if change is None else path.write_bytes(change)
    for ask in (run, downloaded):
        with pytest.raises(InputError, match=r"scalefactors_json.json' is missing or not as"):
            ask(made_up_dataset(server), folder)


def test_files_that_the_user_adds_do_not_matter(server, folder):
    run(made_up_dataset(server), folder)
    (folder / "predicted.h5ad").write_bytes(b"own")
    assert downloaded(made_up_dataset(server), folder) == folder


def test_a_folder_of_other_things_is_left_alone(server, folder):
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("own")
    with pytest.raises(InputError, match="not made by a download of made-up"):
        run(made_up_dataset(server), folder)
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]
    assert server.asked == []


def test_a_published_checksum_is_compared(server, folder):
    assert "expected 000000" in refusal(
        made_up_dataset(server, counts={"sha256": "0" * 64}), folder
    )
    digest = hashlib.sha256(COUNTS).hexdigest().upper()
    run(made_up_dataset(server, counts={"sha256": digest}), folder)
    check(folder)
    assert server.ranges_asked("counts.h5") == [None, None]


def test_the_section_of_the_publisher_opens(server, folder):
    """Same layout as the real one: a prefix before the counts, the rest in an archive."""
    prefix = "CytAssist_FFPE_Protein_Expression_Human_Tonsil"
    publish_section(server, sample_section_path(), prefix)
    (dataset,) = (d for d in datasets() if d.name == "human-tonsil")
    files = tuple(replace(file, url=f"{server.url}/{file.name}") for file in dataset.files)
    path, _ = run(replace(dataset, files=files), folder)
    section, original = open_section(path), open_section(sample_section_path())
    assert section.name == prefix
    assert section.assay == "visium"
    assert section.n_obs == original.n_obs
    assert section.has_protein
    assert section.image is not None


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "manners", [{}, {"etag": 'W/"v1"', "last_modified": "Wed, 01 Nov 2023 10:00:00 GMT"}]
)
def test_a_partial_file_is_continued(server, folder, manners):
    leave_half(server, folder, **manners)
    _, reports = run(made_up_dataset(server), folder)
    check(folder)
    assert server.ranges_asked("counts.h5") == [f"bytes={HALF}-"]
    assert next(r for r in reports if r.phase == "downloading").done >= HALF


def test_a_dropped_connection_is_continued_in_the_same_call(server, folder):
    server.files["counts.h5"].drops_after = [1_100_000, 5, 1_100_000]
    run(made_up_dataset(server), folder)
    check(folder)
    assert server.ranges_asked("counts.h5") == [
        None,
        "bytes=1100000-",
        "bytes=1100005-",
        "bytes=2200005-",
    ]


def test_connections_that_bring_little_are_given_up(server, folder):
    server.files["counts.h5"].drops_after = [10] * 9
    sentence = refusal(made_up_dataset(server), folder)
    assert f"ended after 30 of {len(COUNTS):,} bytes" in sentence
    assert "kept" in sentence
    assert len(server.ranges_asked("counts.h5")) == IMPATIENT.attempts


@pytest.mark.parametrize("manners", [{"ranges": False}, {"etag": None}])
def test_without_ranges_or_versions_it_starts_over(server, folder, manners):
    leave_half(server, folder, **manners)
    run(made_up_dataset(server), folder)
    check(folder)


@pytest.mark.parametrize("blind", [False, True])
def test_another_version_starts_over(server, folder, blind):
    """Also if the server continues a file that is not the same any more."""
    leave_half(server, folder)
    server.files["counts.h5"] = Served(COUNTS, etag='"v2"', blind_ranges=blind)
    part_of(folder).write_bytes(b"x" * HALF)  # of the old version
    run(made_up_dataset(server), folder)
    check(folder)
    expected = [f"bytes={HALF}-", None] if blind else [f"bytes={HALF}-"]
    assert server.ranges_asked("counts.h5") == expected


def test_a_continuation_at_another_place_starts_over(server, folder):
    leave_half(server, folder, shifted=1)
    run(made_up_dataset(server), folder)
    check(folder)
    assert server.ranges_asked("counts.h5") == [f"bytes={HALF}-", None]


def test_another_address_starts_over(server, folder):
    leave_half(server, folder)
    note = part_of(folder).with_name("counts.h5.part.json")
    note.write_text(note.read_text().replace(server.url, "http://127.0.0.1:1"))
    run(made_up_dataset(server), folder)
    assert server.ranges_asked("counts.h5") == [None]


def test_more_than_the_server_has_starts_over(server, folder):
    """The server answers 416: the range lies behind the end."""
    leave_half(server, folder)
    note = part_of(folder).with_name("counts.h5.part.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"total": None}))
    with part_of(folder).open("ab") as file:
        file.write(b"x" * len(COUNTS))
    run(made_up_dataset(server), folder)
    check(folder)
    assert [r is None for r in server.ranges_asked("counts.h5")] == [False, True]


def test_a_complete_part_needs_no_server(server, folder):
    leave_half(server, folder)
    part_of(folder).write_bytes(COUNTS)
    run(made_up_dataset(server), folder)
    check(folder)
    assert server.ranges_asked("counts.h5") == []


def test_cancelling_keeps_what_has_come(server, folder):
    server.files["counts.h5"].stalls_after = HALF
    steps = download_iter(made_up_dataset(server), folder, patience=IMPATIENT)
    reports = [next(steps)]
    # A server that says nothing does not keep the generator from being closed.
    while [r.done for r in reports[-3:]] != [HALF] * 3:
        reports.append(next(steps))
    steps.close()
    assert not folder.exists()
    assert part_of(folder).stat().st_size == HALF
    server.files["counts.h5"].stalls_after = None
    run(made_up_dataset(server), folder)
    check(folder)
    assert server.ranges_asked("counts.h5") == [None, f"bytes={HALF}-"]


def test_reports_come_five_times_a_second(server, folder):
    moments = count(step=0.01)
    steps = download_iter(
        made_up_dataset(server), folder, patience=IMPATIENT, clock=lambda: next(moments)
    )
    reports = list(steps)
    chunks = next(moments) * 100
    assert len(reports) <= chunks * 0.01 / 0.2 + 5


# --- what is refused -----------------------------------------------------------------------------


def test_a_passing_failure_of_the_server_is_waited_for(server, folder):
    server.files["counts.h5"].statuses = [503, 429]
    run(made_up_dataset(server), folder)
    check(folder)


def test_a_lasting_failure_is_given_up(server, folder):
    server.files["counts.h5"].statuses = [503] * 9
    assert "status 503" in refusal(made_up_dataset(server), folder)
    assert server.files["counts.h5"].statuses == [503] * (9 - IMPATIENT.attempts)


def test_a_missing_file_is_not_asked_for_twice(server, folder):
    del server.files["counts.h5"]
    assert "status 404" in refusal(made_up_dataset(server), folder)
    assert server.ranges_asked("counts.h5") == [None]


def test_no_server_is_said_at_once(server, folder):
    dataset = made_up_dataset(server)
    server.close()
    sentence = refusal(dataset, folder)
    assert "check the internet connection" in sentence
    assert list(folder.parent.iterdir()) == []


def test_a_name_that_nobody_knows(folder, server):
    dataset = made_up_dataset(server, counts={"url": "https://sclinguist.invalid/counts.h5"})
    assert "sclinguist.invalid cannot be looked up" in refusal(dataset, folder)


def test_a_server_that_says_nothing_is_given_up(server, folder):
    server.files["counts.h5"].stalls_after = 100
    patience = Patience(timeout=1.0, attempts=2, pause=0.0)
    assert "no answer within 1 seconds" in refusal(made_up_dataset(server), folder, patience)
    assert part_of(folder).stat().st_size == 200  # 100 of each attempt


@pytest.mark.parametrize("claims", [len(COUNTS) + 1000, len(COUNTS) - 1000])
def test_a_length_that_is_not_true(server, folder, claims):
    server.files["counts.h5"].claims = claims
    dataset = made_up_dataset(server, counts={"sha256": "0" * 64})
    sentence = refusal(dataset, folder)
    assert ("ended after" if claims > len(COUNTS) else "SHA-256") in sentence


@pytest.mark.parametrize("manners", [{}, {"chunked": True}, {"head": False}])
def test_a_larger_file_than_expected_is_refused(server, folder, manners):
    server.files["counts.h5"] = Served(COUNTS, **manners)
    dataset = made_up_dataset(server, counts={"max_bytes": 2_000_000})
    assert "expected at most 2.0 MB" in refusal(dataset, folder)
    assert not part_of(folder).exists()


def test_chunks_without_a_length_are_accepted(server, folder):
    server.files["counts.h5"].chunked = True
    _, reports = run(made_up_dataset(server), folder)
    check(folder)
    assert reports[-1].total is None


def test_neither_chunks_nor_a_length_is_refused(server, folder):
    server.files["counts.h5"].no_length = True
    assert "without its length" in refusal(made_up_dataset(server), folder)


def test_a_web_page_in_place_of_the_file_is_refused(server, folder):
    server.files["counts.h5"] = Served(b"<html>Please log in</html>")
    assert "sent something else" in refusal(made_up_dataset(server), folder)
    assert not part_of(folder).exists()


def test_a_redirect_is_followed_but_not_out_of_encryption(server, folder):
    server.files["moved.h5"] = server.files.pop("counts.h5")
    server.files["counts.h5"] = Served(b"", redirect=f"{server.url}/moved.h5")
    run(made_up_dataset(server), folder)
    check(folder)
    server.files["counts.h5"] = Served(b"", redirect="http://example.org/counts.h5")
    other = folder.with_name("other")
    assert "found no encryption" in refusal(made_up_dataset(server), other)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.h5",
        "ftp://127.0.0.1/a.h5",
        "file:///etc/passwd",
        "http://127.0.0.1.x/a",
    ],
)
def test_only_encrypted_addresses_are_taken(server, tmp_path, url):
    with pytest.raises(InputError, match="expected an address that begins with https"):
        made_up_dataset(server, counts={"url": url})
    with pytest.raises(InputError, match="expected an address that begins with https"):
        next(fetch_iter(url, tmp_path / "a", max_bytes=1))


def test_a_server_without_encryption_under_https_is_refused(server, folder):
    url = server.url.replace("http:", "https:") + "/counts.h5"
    assert "ssl" in refusal(made_up_dataset(server, counts={"url": url}), folder).lower()


def test_a_full_disk_is_said_before_anything_is_fetched(server, folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - HALF, HALF))
    sentence = refusal(made_up_dataset(server), folder)
    assert "1.5 MB free, expected 3.4 MB" in sentence
    assert {method for method, *_ in server.asked} == {"HEAD"}


def test_a_second_download_is_refused_while_the_first_runs(server, folder):
    server.files["counts.h5"].stalls_after = 100
    first = download_iter(made_up_dataset(server), folder, patience=IMPATIENT)
    while next(first).phase != "downloading":
        pass
    assert "is being downloaded already" in refusal(made_up_dataset(server), folder)
    first.close()
    server.files["counts.h5"].stalls_after = None
    run(made_up_dataset(server), folder)
    check(folder)


def test_a_drive_without_locks_takes_a_download(server, folder, monkeypatch):
    def no_locks(handle):
        raise NoLocks(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock", no_locks)
    run(made_up_dataset(server), folder)
    check(folder)


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path):
    path = tmp_path / "lock"
    with locked(path), pytest.raises(Locked), locked(path):
        pass
    with locked(path):
        assert path.exists()
    assert not path.exists()


# --- hostile archives ----------------------------------------------------------------------------


def member(name, kind=tarfile.REGTYPE, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def long_header():
    """A member whose header alone unpacks to 30 MB."""
    info = member("spatial/a")
    info.pax_headers = {"comment": "x" * 30_000_000}
    return info


@pytest.mark.parametrize(
    ("archive", "found"),
    [
        (tar_gz({"spatial/a": b"", "../evil": b"x"}), "leads out"),
        (tar_gz({"spatial/../../evil": b"x"}), "leads out"),
        (tar_gz({"/tmp/evil": b"x"}), "leads out"),
        (tar_gz({"spatial/..\\evil": b"x"}), "leads out"),
        (tar_gz({"spatial/C:evil": b"x"}), "leads out"),
        (tar_gz({"spatial/a": b"", "counts.h5": b"x"}), "not in spatial/"),
        (tar_gz({"download.json": b"{}"}), "not in spatial/"),
        (tar_gz({}, member("spatial/a", tarfile.SYMTYPE, "/etc/passwd")), "link or a device"),
        (tar_gz({}, member("spatial", tarfile.SYMTYPE, "..")), "link or a device"),
        (tar_gz({}, member("spatial/a", tarfile.LNKTYPE, "counts.h5")), "link or a device"),
        (tar_gz({}, member("spatial/a", tarfile.FIFOTYPE)), "link or a device"),
        (tar_gz({"spatial/a": bytes(20_000_000)}), "unpacks to more than 10.0 MB"),
        (tar_gz({}, long_header()), "unpacks to more than it says"),
        (tar_gz({f"spatial/{i}": b"" for i in range(1001)}), "more than 1,000 files"),
        (tar_gz({"spatial/a": b"x"}, member("spatial/a")), "twice"),
        (tar_gz({"spatial/a": b"x", "spatial/a/b": b"x"}), "damaged"),
        (tar_gz({"spatial": b"x"}), "holds no folder spatial/"),
        (tar_gz({}), "holds no folder spatial/"),
        (tar_gz(SPATIAL)[:1000], "damaged"),
        (tar_gz(SPATIAL)[:-8] + bytes(8), "damaged"),
        (b"\x1f\x8b" + bytes(100), "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # an archive tells the second
)
def test_a_hostile_or_damaged_archive_is_refused(server, folder, archive, found):
    server.files["spatial.tar.gz"] = Served(archive)
    before = set(folder.parents[1].rglob("*"))
    assert found in refusal(made_up_dataset(server), folder)
    new = set(folder.parents[1].rglob("*")) - before
    assert not any(p.is_symlink() or "evil" in p.name for p in new)
    assert all(p == folder.parent or folder.parent in p.parents for p in new)
    # It is not kept: the next call fetches a better one, and only that.
    server.files["spatial.tar.gz"] = Served(tar_gz(SPATIAL), etag='"v2"')
    server.asked.clear()
    run(made_up_dataset(server), folder)
    check(folder)
    assert server.ranges_asked("counts.h5") == []


# --- killed --------------------------------------------------------------------------------------

DOWNLOAD = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from file_server import made_up_dataset
    from sclinguist_core.data.download import download_iter

    class Server:
        url = {url!r}

    def download(folder):
        for _ in download_iter(made_up_dataset(Server), Path(folder)):
            pass
"""


def program(server, body):
    tests = os.path.dirname(os.path.dirname(__file__))
    text = textwrap.dedent(DOWNLOAD).format(tests=tests, url=server.url) + textwrap.dedent(body)
    return [sys.executable, "-c", text]


def test_kill_in_the_middle_of_a_file(server, folder):
    server.files["counts.h5"].stalls_after = HALF
    process = subprocess.Popen(program(server, f"download({str(folder)!r})"))
    until(lambda: part_of(folder).exists() and part_of(folder).stat().st_size == HALF)
    process.kill()
    process.wait()
    server.files["counts.h5"].stalls_after = None
    run(made_up_dataset(server), folder)
    check(folder)
    assert server.ranges_asked("counts.h5") == [None, f"bytes={HALF}-"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
def test_kill_at_any_moment(server, tmp_path):
    """Killed at its n-th touch of the disk, for every n; the next call always ends well."""
    body = """
        import os, signal

        def killed_at(n, folder):
            touched = 0
            def watch(event, arguments):
                nonlocal touched
                if event in EVENTS and any(str(tmp) in str(a) for a in arguments[:2]):
                    touched += 1
                    if touched == n:
                        os.kill(os.getpid(), signal.SIGKILL)
            sys.addaudithook(watch)
            download(folder)

        tmp = {tmp!r}
        EVENTS = {{"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}}
        n, ended = 0, False
        while not ended:
            n += 1
            folder = f"{{tmp}}/{{n}}/made-up"
            child = os.fork()
            if child == 0:
                killed_at(n, folder)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            assert status in {{0, signal.SIGKILL}}, status
            ended = status == 0
            download(folder)
        print(n)
    """
    done = subprocess.run(
        program(server, body.format(tmp=str(tmp_path))),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == ""
    moments = int(done.stdout)
    assert moments > 20
    for moment in range(1, moments + 1):
        # Killed before the very last touch, the empty file of the lock is left, held by nobody.
        check(tmp_path / str(moment) / "made-up", beside={".made-up.lock"})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits files as Linux does")
def test_a_disk_that_fills_up_in_the_middle(server, folder):
    body = f"""
        import resource
        from sclinguist_core.errors import InputError
        resource.setrlimit(resource.RLIMIT_FSIZE, ({HALF}, {HALF}))
        try:
            download({str(folder)!r})
        except InputError as error:
            print(error)
    """
    done = subprocess.run(program(server, body), capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "counts.h5.part' cannot be written" in done.stdout
    assert not folder.exists()
    assert part_of(folder).stat().st_size == HALF
    run(made_up_dataset(server), folder)
    check(folder)
    assert server.ranges_asked("counts.h5")[-1] == f"bytes={HALF}-"


# --- the registry --------------------------------------------------------------------------------


def test_the_registry_knows_the_tonsil(monkeypatch, tmp_path):
    monkeypatch.setenv("SCLINGUIST_CACHE", str(tmp_path))
    dataset = find_dataset("human-tonsil")
    assert dataset.folder == tmp_path / "datasets" / "human-tonsil"
    assert dataset.licence == "CC BY 4.0"
    assert all(file.url.startswith("https://cf.10xgenomics.com/") for file in dataset.files)
    assert [file.unpacks for file in dataset.files] == [None, "spatial"]


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(InputError, match="did you mean human-tonsil"):
        find_dataset("Human_Tonsil")


def test_a_mirror_takes_the_place_of_the_publisher(monkeypatch):
    monkeypatch.setenv("SCLINGUIST_MIRROR", "https://mirror.example.org/sections/")
    names = [file.name for file in find_dataset("human-tonsil").files]
    assert [file.url for file in find_dataset("human-tonsil").files] == [
        f"https://mirror.example.org/sections/{name}" for name in names
    ]
    monkeypatch.setenv("SCLINGUIST_MIRROR", "http://mirror.example.org")
    with pytest.raises(InputError, match="found no encryption"):
        datasets()
