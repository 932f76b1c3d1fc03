"""A web server on this machine with good and bad manners, and data sets that lie on it."""

from __future__ import annotations

import io
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sclinguist_core.data.datasets import Dataset, RemoteFile

H5_BEGIN = b"\x89HDF\r\n\x1a\n"


@dataclass
class Served:
    """A file, and how the server behaves when it is asked for."""

    content: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = None
    ranges: bool = True
    blind_ranges: bool = False  # continues without looking at If-Range
    shifted: int = 0  # continues so many bytes too early
    head: bool = True  # answers HEAD
    chunked: bool = False
    no_length: bool = False
    claims: int | None = None  # Content-Length that is not true
    statuses: list[int] = field(default_factory=list)  # of the next answers, instead of the file
    drops_after: list[int] = field(default_factory=list)  # bytes of the next answers, then the end
    stalls_after: int | None = None  # bytes, then nothing more until `FileServer.go_on`
    redirect: str | None = None


class FileServer:
    """Serves `files` by name, and writes down what it is asked: method, path, Range, If-Range."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str, str | None, str | None]] = []
        self.go_on = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def ranges_asked(self, name: str) -> list[str | None]:
        """Range of every GET of a file, in order."""
        return [r for method, path, r, _ in self.asked if (method, path) == ("GET", f"/{name}")]

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    owner: FileServer

    def handle_error(self, request, client_address) -> None:
        """Clients hang up here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        owner = self.server.owner
        asked_range, if_range = self.headers["Range"], self.headers["If-Range"]
        owner.asked.append((self.command, self.path, asked_range, if_range))
        self.close_connection = True
        served = owner.files.get(self.path.lstrip("/"))
        if served is None or not (with_body or served.head):
            self._status(404 if served is None else 405)
        elif served.redirect is not None:
            self._status(302, Location=served.redirect)
        elif with_body and served.statuses:
            self._status(served.statuses.pop(0))
        else:
            self._send(served, asked_range, if_range, with_body)

    def _status(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, served, asked_range, if_range, with_body) -> None:
        content, start = served.content, 0
        same = served.blind_ranges or if_range in {None, served.etag, served.last_modified}
        if asked_range is not None and served.ranges and same:
            start = int(asked_range.removeprefix("bytes=").removesuffix("-")) - served.shifted
            if start >= len(content):
                self._status(416, **{"Content-Range": f"bytes */{len(content)}"})
                return
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {start}-{len(content) - 1}/{served.claims or len(content)}"
            )
        else:
            self.send_response(200)
        if served.etag is not None:
            self.send_header("ETag", served.etag)
        if served.last_modified is not None:
            self.send_header("Last-Modified", served.last_modified)
        if served.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not served.no_length:
            self.send_header("Content-Length", str((served.claims or len(content)) - start))
        self.end_headers()
        if with_body:
            self._send_body(served, content[start:])

    def _send_body(self, served: Served, body: bytes) -> None:
        stop = served.drops_after.pop(0) if served.drops_after else len(body)
        if served.stalls_after is not None:
            self._write(served, body[: served.stalls_after])
            self.server.owner.go_on.wait()
            return
        self._write(served, body[:stop])
        if served.chunked and stop >= len(body):
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, served: Served, data: bytes) -> None:
        if served.chunked:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        else:
            self.wfile.write(data)
        self.wfile.flush()


def tar_gz(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """Pack files into a ``.tar.gz``; `extra` are members without content, such as links."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return packed.getvalue()


def publish_section(server: FileServer, outs: Path, prefix: str) -> None:
    """Put a Space Ranger folder on the server as 10x Genomics publishes it."""
    counts = "filtered_feature_bc_matrix.h5"
    spatial = {
        f"spatial/{path.name}": path.read_bytes() for path in sorted((outs / "spatial").iterdir())
    }
    server.files[f"{prefix}_{counts}"] = Served((outs / counts).read_bytes())
    server.files[f"{prefix}_spatial.tar.gz"] = Served(tar_gz(spatial))


def made_up_dataset(server: FileServer, **files: dict) -> Dataset:
    """A data set of the files ``counts.h5`` and ``spatial.tar.gz``; `files` overrides fields."""
    counts = {
        "url": f"{server.url}/counts.h5",
        "max_bytes": 10_000_000,
        "begins_with": H5_BEGIN,
    }
    spatial = {
        "url": f"{server.url}/spatial.tar.gz",
        "max_bytes": 10_000_000,
        "begins_with": b"\x1f\x8b",
        "unpacks": "spatial",
        "max_unpacked_bytes": 10_000_000,
    }
    return Dataset(
        name="made-up",
        title="Made up",
        licence="none",
        page="https://example.org",
        files=(
            RemoteFile(**counts | files.get("counts", {})),
            RemoteFile(**spatial | files.get("spatial", {})),
        ),
    )
