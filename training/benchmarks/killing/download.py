"""``sclinguist download``, which asks for the rest of what it has."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from killing.case import Case, checksum, program
from killing.child import Child
from sclinguist_core.data.download_record import RECORD


class DownloadCase(Case):
    """``sclinguist download`` of the sample section from a web server on this machine."""

    operation = "download"
    name = "section with images"
    dataset = "human-tonsil"
    server: Child | None = None

    def measure(self, *, once: bool = False) -> None:
        """Start the server first; it sends as slowly as a fast network."""
        self.folder.mkdir(parents=True)
        self.asked = self.folder / "asked.txt"
        address = self.folder / "address.txt"
        parent = os.getpid()
        self.server = Child(
            lambda: serve_sample(address, self.asked, parent), self.folder, self.folder / "web.log"
        )
        if self.server.wait(address.exists):
            raise RuntimeError((self.folder / "web.log").read_text())
        self.url = address.read_text()
        super().measure(once=once)

    def close(self) -> None:
        """Stop the server."""
        if self.server is not None:
            self.server.kill()

    def target(self, trial: Path) -> Path:
        """Name the section's folder."""
        return trial / "tonsil"

    def run(self, trial: Path) -> None:
        """Run the command."""
        from sclinguist_core.cli import main

        self.asked.write_text("")
        os.environ["SCLINGUIST_MIRROR"] = self.url
        program(main, "sclinguist", "download", self.dataset, "-o", self.target(trial))

    def content(self, path: Path) -> str:
        """Read everything in the folder, and open it."""
        from sclinguist_core.data.readers import open_section

        return f"{checksum(path)} {open_section(path).n_obs}"

    def look(self, trial: Path, before: str | None) -> dict[str, Any]:
        """Also which files are there, and how much of which others."""
        found = super().look(trial, before)
        staging = trial / f".{self.target(trial).name}.download"
        found["parts"] = {
            note.name.removesuffix(".part.json"): {
                "size": note.with_suffix("").stat().st_size,
                "total": json.loads(note.read_text())["total"],
            }
            for note in staging.glob("*.part.json")
            if not note.name.startswith(".") and note.with_suffix("").exists()
        }
        found["whole"] = [
            path.name
            for path in staging.glob("[!.]*")
            if path.is_file() and ".part" not in path.suffixes and path.name != RECORD
        ]
        return found

    def resumed(self, found: dict[str, Any]) -> bool | None:
        """Find that of a file nothing but the rest was asked for."""
        wanted: dict[str, list[str]] = {name: [] for name in found["whole"]}
        for name, part in found["parts"].items():
            if part["size"]:
                is_whole = part["size"] == part["total"]
                wanted[name] = [] if is_whole else [f"bytes={part['size']}-"]
        lines = self.asked.read_text().splitlines()
        for name, ranges in wanted.items():
            asked = [line.split()[1] for line in lines if name in line]
            assert asked == ranges, f"{name}: asked for {asked}, expected {ranges}"
        return True if wanted else None


def serve_sample(address: Path, asked: Path, parent: int) -> None:
    """Serve the sample section under the names of the publisher until the parent has gone."""
    import file_server
    from sclinguist_core.resources import sample_section_path

    class Paced(file_server._Handler):
        def _write(self, served: Any, data: bytes) -> None:
            for start in range(0, len(data), 131_072):
                super()._write(served, data[start : start + 131_072])
                time.sleep(0.006)

        def do_GET(self) -> None:
            with asked.open("a") as file:
                file.write(f"{self.path} {self.headers['Range'] or 'all'}\n")
            super().do_GET()

    file_server._Handler = Paced
    server = file_server.FileServer()
    server._server.RequestHandlerClass = Paced
    prefix = "CytAssist_FFPE_Protein_Expression_Human_Tonsil"
    file_server.publish_section(server, sample_section_path(), prefix)
    address.with_suffix(".new").write_text(server.url)
    address.with_suffix(".new").rename(address)
    while os.getppid() == parent:
        time.sleep(0.2)
