import json
import os
import re

import pytest
import torch

import sclinguist_core
from sclinguist_core.train import provenance
from sclinguist_core.train.provenance import fingerprint, git_state, record, versions


def test_versions_are_those_that_are_installed():
    found = versions()
    assert found["napari-sclinguist"] == sclinguist_core.__version__
    assert found["torch"] == torch.__version__
    assert {"python", "numpy", "anndata", "pytorch-lightning"} <= found.keys()


def test_git_state_of_a_checkout(request):
    if not (request.config.rootpath / ".git").exists():
        pytest.skip("not a checkout")
    state = git_state()
    assert re.fullmatch(r"[0-9a-f]{40}", state["commit"])
    assert isinstance(state["changed"], bool)


def test_outside_of_a_checkout_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sclinguist_core, "__file__", str(tmp_path / "__init__.py"))
    assert git_state() is None


def test_a_file_is_known_by_its_content(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    assert fingerprint(path) == {
        "method": "sha256",
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }


def test_of_a_large_file_the_beginning_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "HASH_WHOLE", 2)
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    os.utime(path, (1_000, 1_000))
    before = fingerprint(path)
    assert (before["size"], before["mtime"]) == (3, 1_000)
    assert before["method"] == "size+mtime+sha256 of first MiB"
    path.write_bytes(b"abd")
    os.utime(path, (1_000, 1_000))
    assert fingerprint(path)["sha256"] != before["sha256"]


def test_a_folder_is_known_by_names_and_sizes(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a").write_bytes(b"12")
    before = fingerprint(tmp_path)
    assert before["size"] == 2
    (tmp_path / "inside" / "a").rename(tmp_path / "inside" / "b")
    after = fingerprint(tmp_path)
    assert after["size"] == 2
    assert after["sha256"] != before["sha256"]


def test_the_record_is_json_and_leaves_out_what_is_missing(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    found = record([tmp_path / "a", tmp_path / "gone"], stage="post-pretrain")
    assert json.loads(json.dumps(found)) == found
    assert list(found["data"]) == [str(tmp_path / "a")]
    assert found["stage"] == "post-pretrain"
    assert found["command"]
