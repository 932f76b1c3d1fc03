"""Servers that mean harm: what comes is bounded, checked, and written in one place.

`tests/data/test_download.py` has the addresses that are taken, checksums, and continued files.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
import unicodedata
from dataclasses import replace

import pytest

from file_server import H5_BEGIN, FileServer, Served, made_up_dataset, tar_gz
from sclinguist_core.data.datasets import datasets
from sclinguist_core.data.download import download_iter
from sclinguist_core.data.http_file import Patience, fetch_iter
from sclinguist_core.data.unpack import unpack_iter
from sclinguist_core.errors import InputError
from security.raw_server import RawServer

IMPATIENT = Patience(timeout=5.0, attempts=2, pause=0.0)
CONTENT = H5_BEGIN + bytes(5_000)
SPATIAL = {"spatial/tissue.png": b"x" * 100}


def fetch(url, target, max_bytes=10_000, **more):
    for _ in fetch_iter(url, target, max_bytes=max_bytes, patience=IMPATIENT, **more):
        pass


def refusal(*arguments, **more):
    with pytest.raises(InputError) as refused:
        fetch(*arguments, **more)
    sentence = str(refused.value)
    assert sentence.isprintable()
    assert sentence.endswith(".")
    return sentence


@pytest.fixture
def server():
    server = FileServer()
    yield server
    server.close()


# --- what comes is bounded -----------------------------------------------------------------------


def test_a_server_that_sends_for_ever_is_stopped(tmp_path):
    def answer(_):
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"4000\r\n" + bytes(0x4000) + b"\r\n"

    with RawServer(answer) as server:
        assert "expected at most 0.1 MB" in refusal(
            f"{server.url}/a", tmp_path / "a", max_bytes=100_000
        )
    assert server.sent < 50_000_000  # what waits in the buffers of the connection
    assert os.listdir(tmp_path) == []


def test_a_head_that_never_ends_is_stopped(tmp_path):
    def answer(_):
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            yield b"X: " + b"x" * 1_000 + b"\r\n"

    with RawServer(answer) as server:
        assert "the connection broke off" in refusal(f"{server.url}/a", tmp_path / "a")
        assert server.sent < 50_000_000
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("length", "found"),
    [
        ("1" + "0" * 15, "expected at most"),
        ("9" * 5_000, "without its length"),
        ("²", "without its length"),
        ("-1", "without its length"),
        ("0x10", "without its length"),
        ("1_000", "without its length"),
        ("+5", "without its length"),
    ],
)
def test_a_length_that_cannot_be(tmp_path, length, found):
    def answer(_):
        yield f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
        yield CONTENT

    with RawServer(answer) as server:
        assert found in refusal(f"{server.url}/a", tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_a_length_beyond_every_disk_is_no_matter_of_space(tmp_path, server):
    server.files["counts.h5"] = Served(CONTENT, claims=10**15)
    server.files["spatial.tar.gz"] = Served(tar_gz(SPATIAL))
    with pytest.raises(InputError, match=r"expected at most 10\.0 MB: this is not the file"):
        for _ in download_iter(made_up_dataset(server), tmp_path / "set", patience=IMPATIENT):
            pass
    assert os.listdir(tmp_path) == []


def test_redirects_in_a_circle_are_given_up(tmp_path, server):
    server.files["a"] = Served(b"", redirect=f"{server.url}/b")
    server.files["b"] = Served(b"", redirect=f"{server.url}/a")
    assert "refused by the server (status 302)" in refusal(f"{server.url}/a", tmp_path / "a")
    assert len(server.asked) <= 12


# --- where it leads ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "data:text/plain,x",
        "http://example.org/a",
        "//example.org/a",
        "http://127.0.0.1@example.org/a",
        "http://127.0.0.1.example.org/a",
        "http:///etc/passwd",
        "https://",
        "https://a..b/",
        "https://" + "a" * 300 + "/",
        "https://[::1/",
        "http://127.0.0.1:99999/",
        "javascript:alert(1)",
    ],
)
def test_redirects_to_elsewhere_are_not_followed(tmp_path, server, target):
    server.files["a"] = Served(b"", redirect=target)
    refusal(f"{server.url}/a", tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "header",
    [
        "Location: http://127.0.0.1\r\n x",
        'ETag: "v1"\r\n folded',
        'ETag: "v\x001"',
        'ETag: "' + "v" * 10_000 + '"',
        "Last-Modified: yesterday\r\n\tfolded",
    ],
)
def test_headers_are_not_sent_back_blindly(tmp_path, header):
    """An answer breaks off; the next request continues it without the server's odd version."""
    answers = iter([CONTENT[:2_000], CONTENT])

    def answer(request):
        body = next(answers, CONTENT)
        yield f"HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
        yield body

    with RawServer(answer) as server:
        fetch(f"{server.url}/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert all(b"folded" not in request and b"\0" not in request for request in server.requests)
    assert not any(b"Range" in request for request in server.requests)


def test_a_mirror_has_to_be_encrypted(monkeypatch):
    for address in ("http://mirror.example.org", "ftp://mirror.example.org", "file:///srv"):
        monkeypatch.setenv("SCLINGUIST_MIRROR", address)
        with pytest.raises(InputError, match="expected an address that begins with https"):
            datasets()


# --- what is there already -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\x80\x04pickle",
        b"[]",
        b'{"url": "URL", "validator": 5, "total": null}',
        b'{"url": "URL", "validator": ["x"], "total": 5}',
        b'{"url": "URL", "validator": "\\"v1\\"\\r\\nHost: evil", "total": null}',
        b'{"url": "URL", "validator": "\\"v1\\"", "total": "many"}',
        b'{"url": "URL", "validator": "\\"v1\\"", "total": -1}',
        b'{"url": "URL", "validator": "\\"v1\\"", "total": true}',
        b'{"url": "URL", "validator": "\\"v1\\"", "total": null, "more": 1}',
    ],
)
def test_a_damaged_note_starts_over(tmp_path, server, note):
    server.files["a"] = Served(CONTENT)
    url = f"{server.url}/a"
    (tmp_path / "a.part").write_bytes(b"other bytes")
    (tmp_path / "a.part.json").write_bytes(note.replace(b"URL", url.encode()))
    fetch(url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges_asked("a") == [None]
    assert os.listdir(tmp_path) == ["a"]


def test_a_part_of_other_bytes_is_found_out(tmp_path, server):
    """Where the publisher gives a checksum, a part that was changed meanwhile is not completed."""
    server.files["counts.h5"] = Served(CONTENT, drops_after=[2_000])
    server.files["spatial.tar.gz"] = Served(tar_gz(SPATIAL))
    folder = tmp_path / "set"
    known = {"counts": {"sha256": hashlib.sha256(CONTENT).hexdigest()}}

    def download(patience):
        for _ in download_iter(made_up_dataset(server, **known), folder, patience=patience):
            pass

    with pytest.raises(InputError, match="ended after"):
        download(replace(IMPATIENT, attempts=1))
    part = tmp_path / ".set.download" / "counts.h5.part"
    part.write_bytes(H5_BEGIN + b"\xff" * (2_000 - len(H5_BEGIN)))
    with pytest.raises(InputError, match=r"expected .* which was published"):
        download(IMPATIENT)
    assert not folder.exists()
    download(IMPATIENT)  # anew
    assert (folder / "counts.h5").read_bytes() == CONTENT


def test_everything_lies_in_one_folder(tmp_path, server, monkeypatch):
    """Whatever names the server gives, the cache folder gets the names of the data set."""
    inside = tmp_path / "cache"
    monkeypatch.setenv("SCLINGUIST_CACHE", str(inside))
    monkeypatch.chdir(tmp_path)

    def answer(request):
        path = request.split()[1].decode()
        body = CONTENT if path.endswith(".h5") else tar_gz(SPATIAL)
        yield (
            "HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename=../../evil\r\n"
            f"Content-Location: /../evil\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        if request.startswith(b"GET"):
            yield body

    with RawServer(answer) as raw:
        dataset = made_up_dataset(raw)
        for _ in download_iter(dataset, patience=IMPATIENT):
            pass
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    root = "cache/datasets/made-up"
    assert written == {
        f"{root}/counts.h5", f"{root}/download.json", f"{root}/spatial/tissue.png",
    }  # fmt: skip
    assert json.loads((inside / "datasets" / "made-up" / "download.json").read_text())


# --- archives ------------------------------------------------------------------------------------


def unpack(tmp_path, content, max_bytes=10_000_000):
    archive, folder = tmp_path / "archive.tar.gz", tmp_path / "unpacked"
    archive.write_bytes(content)
    folder.mkdir()
    for _ in unpack_iter(archive, folder, wanted="spatial", max_bytes=max_bytes):
        pass
    return folder


def member(name, kind=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info


def packed(*members):
    """An archive of (member, content) pairs; what the header says need not be true."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize(
    "names",
    [
        ["spatial/a.png", "spatial/A.png"],
        ["spatial/a.png", "spatial/./a.png"],
        ["spatial/a.png", "spatial//a.png"],
        ["spatial/\u00e9.png", "spatial/e\u0301.png"],
        ["spatial/ß.png", "spatial/ss.png"],
        ["spatial/a.png", "SPATIAL/a.png"],
        ["spatial/x/a", "spatial/X/a"],
    ],
)
def test_two_names_for_one_file(tmp_path, names):
    """On some disks the second would take the place of the first."""
    assert len({unicodedata.normalize("NFC", name) for name in names}) <= 2
    content = packed(*((member(name), b"x") for name in names))
    with pytest.raises(InputError, match=r"twice|not in spatial"):
        unpack(tmp_path, content)


@pytest.mark.parametrize(
    "name",
    [
        "spatial/CON",
        "spatial/nul.txt",
        "spatial/com1.png",
        "spatial/a.",
        "spatial/a ",
        "spatial/a\x1b[2J",
        "spatial/a\nb",
        "spatial/\u202egnp.exe",
        "spatial/a<b",
        "spatial/a|b",
        "spatial/a*",
    ],
)
def test_names_that_mean_something_else(tmp_path, name):
    with pytest.raises(InputError, match=r"leads out|no name of a file") as refused:
        unpack(tmp_path, packed((member(name), b"x")))
    assert str(refused.value).isprintable()


KINDS = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "contiguous file of another system": b"V",
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_no_file(tmp_path, kind):
    info = member("spatial/a", kind, linkname="/etc/passwd", devmajor=1, devminor=5)
    with pytest.raises(InputError, match=r"archive\.tar\.gz"):
        unpack(tmp_path, packed((info, b"")))
    assert not any(p.is_symlink() or p.is_char_device() for p in tmp_path.rglob("*"))


def test_modes_and_owners_are_not_taken_over(tmp_path):
    info = member("spatial/a", mode=0o6777, uid=0, gid=0)
    folder = unpack(tmp_path, packed((info, b"#!/bin/sh\n")))
    assert (folder / "spatial" / "a").stat().st_mode & 0o7111 == 0


def test_a_bomb_stops_before_it_fills_the_disk(tmp_path):
    """1 GB of zeros in 1 MB: what is unpacked before it is refused stays under the bound."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=9) as archive:
        info = member("spatial/a", size=1_000_000_000)
        archive.addfile(info, _Zeros(info.size))
    assert len(content.getvalue()) < 2_000_000
    with pytest.raises(InputError, match=r"unpacks to more than 10\.0 MB"):
        unpack(tmp_path, content.getvalue())
    assert sum(p.stat().st_size for p in (tmp_path / "unpacked").rglob("*")) < 10_500_000


def test_many_small_files_that_are_a_bomb_together(tmp_path):
    members = [(member(f"spatial/{i}"), bytes(100_000)) for i in range(200)]
    with pytest.raises(InputError, match="unpacks to more than 10"):
        unpack(tmp_path, packed(*members))


@pytest.mark.parametrize("size", [-1, -(10**12)])
def test_a_size_below_zero(tmp_path, size):
    """Sizes are counted together: one below zero would make room for others."""
    info = member("spatial/a", size=0)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
    block[148:156] = b"        "
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    raw = bytes(block) + packed_plain((member("spatial/b"), bytes(20_000_000)))
    with pytest.raises(InputError, match=r"archive\.tar\.gz"):
        unpack(tmp_path, gzip.compress(raw, 1))
    assert sum(p.stat().st_size for p in (tmp_path / "unpacked").rglob("*")) < 10_500_000


def packed_plain(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class _Zeros(io.RawIOBase):
    """So many zeros, without holding them."""

    def __init__(self, size):
        self.left = size

    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)
