"""``sclinguist download``, from a server on this machine that stands for the publisher."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from file_server import FileServer, publish_section
from sclinguist_core.cli import app
from sclinguist_core.data.readers import open_section
from sclinguist_core.resources import sample_section_path

PREFIX = "CytAssist_FFPE_Protein_Expression_Human_Tonsil"
COUNTS = f"{PREFIX}_filtered_feature_bc_matrix.h5"
COMMAND = [sys.executable, "-c", "from sclinguist_core.cli import main; main()", "download"]
RUNNER = CliRunner()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    """Has the simulated section under the names, and in the layout, of the real one."""
    server = FileServer()
    publish_section(server, sample_section_path(), PREFIX)
    monkeypatch.setenv("SCLINGUIST_MIRROR", server.url)
    monkeypatch.setenv("SCLINGUIST_CACHE", str(tmp_path / "cache"))
    yield server
    server.close()


def test_the_folder_is_printed_alone(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "datasets" / "human-tonsil"
    for _ in range(2):  # the second time it is only checked
        result = RUNNER.invoke(app, ["download", "human-tonsil"])
        assert result.exit_code == 0
        assert result.stdout == f"{folder}\n"
        assert "CC BY 4.0" in result.stderr
    assert len(server.ranges_asked(COUNTS)) == 1
    assert open_section(folder).name == PREFIX


def test_a_folder_may_be_named(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "study" / "tonsil"
    result = RUNNER.invoke(app, ["download", "human-tonsil", "-o", str(folder)])
    assert result.stdout == f"{folder}\n"
    assert [path.name for path in folder.parent.iterdir()] == ["tonsil"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("arguments", [[], ["--list"]])
def test_list_tells_what_is_there(server: FileServer, arguments: list[str]) -> None:
    before = RUNNER.invoke(app, ["download", *arguments])
    assert before.exit_code == 0
    (line,) = before.stdout.splitlines()
    name, title, licence, state, page = line.split("\t")
    assert (name, licence, state) == ("human-tonsil", "CC BY 4.0", "not downloaded")
    assert title == "Human tonsil (10x Genomics, real)"
    assert page.startswith("https://www.10xgenomics.com/datasets/")
    assert server.asked == []
    folder = RUNNER.invoke(app, ["download", "human-tonsil"]).stdout.strip()
    assert RUNNER.invoke(app, ["download", *arguments]).stdout.split("\t")[3] == folder


def test_a_folder_without_a_name_is_a_mistake(server: FileServer) -> None:
    assert RUNNER.invoke(app, ["download", "-o", "somewhere"]).exit_code == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [("human-tonsil", "check the internet connection"), ("tonsil", "did you mean human-tonsil?")],
)
def test_refusal_is_one_sentence_and_status_1(server: FileServer, name: str, said: str) -> None:
    server.close()
    done = subprocess.run([*COMMAND, name], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("Error: ")
    assert said in sentence
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_keeps_what_has_come(server: FileServer, tmp_path: Path) -> None:
    server.files[COUNTS].stalls_after = 300_000
    part = tmp_path / "cache" / "datasets" / ".human-tonsil.download" / f"{COUNTS}.part"
    process = subprocess.Popen(
        [*COMMAND, "human-tonsil"],
        stdout=subprocess.PIPE,
        # Shells have programs in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (part.exists() and part.stat().st_size == 300_000):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == b""
    assert process.returncode == 130
    server.files[COUNTS].stalls_after = None
    assert RUNNER.invoke(app, ["download", "human-tonsil"]).exit_code == 0
    assert server.ranges_asked(COUNTS) == [None, "bytes=300000-"]
