"""``sclinguist doctor``: a report whatever is broken, and an exit status that means something."""

import json

import pytest
import typer
from typer.testing import CliRunner

from sclinguist_core import doctor, resources
from sclinguist_core.cli.doctor import doctor as command
from sclinguist_core.doctor import Check, examine, fit_for_prediction
from sclinguist_core.errors import InputError


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(command)
    return lambda *arguments: CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})


def test_every_thing_is_examined_and_every_problem_has_a_remedy():
    checks = examine()
    names = [check.name for check in checks]
    assert names[:5] == ["Python", "napari-sclinguist", "Readers", "PyTorch", "GPU"]
    assert {"Memory", "Bundled checkpoint", "Sample section", "Cache folder", "napari"} <= {*names}
    by_name = {check.name: check for check in checks}
    for name in ("Python", "Readers", "PyTorch"):
        assert (by_name[name].status, by_name[name].required) == ("ok", True)
    assert "anndata" in by_name["Readers"].found
    assert [c.name for c in checks if c.status == "problem" and not c.remedy] == []


FINE = Check(name="Python", status="ok", found="3.12.1", required=True)
NO_WINDOW = Check(name="Qt", status="problem", found="none", remedy="pip install [app]")
BROKEN = Check(
    name="PyTorch", status="problem", found="DLL missing", remedy="reinstall", required=True
)


@pytest.mark.parametrize(
    ("checks", "fit", "exit_code"),
    [([FINE], True, 0), ([FINE, NO_WINDOW], True, 0), ([FINE, BROKEN], False, 1)],
)
def test_exit_status_is_about_prediction_alone(monkeypatch, run, checks, fit, exit_code):
    monkeypatch.setattr(doctor, "examine", lambda: checks)
    assert fit_for_prediction(checks) is fit
    table = run()
    assert table.exit_code == exit_code
    for check in checks:
        assert check.found in table.stdout
        assert check.remedy in table.stdout
    report = json.loads(run("--json").stdout)
    assert report["fit_for_prediction"] is fit
    assert [check["name"] for check in report["checks"]] == [check.name for check in checks]


def test_a_probe_that_crashes_hangs_or_babbles_is_told(monkeypatch):
    assert "status" in doctor._probe("import os; os.abort()", timeout=30)["error"]
    assert doctor._probe("raise ValueError('no driver')", timeout=30)["error"].endswith("no driver")
    assert "0 seconds" in doctor._probe("import time; time.sleep(60)", timeout=0.3)["error"]
    assert doctor._probe("print('hello')", timeout=30)["error"] == "gave no readable answer"
    assert doctor._probe("print('noise\\n{\"a\": 1}')", timeout=30) == {"a": 1}


CPU_BUILD = {"version": "2.13.0", "cuda": None, "threads": 8, "devices": [], "failure": ""}
CUDA_BUILD = CPU_BUILD | {"cuda": "12.8"}
H100 = CUDA_BUILD | {"devices": ["NVIDIA H100 (80 GiB)"]}


@pytest.mark.parametrize(
    ("found", "driver", "status", "words"),
    [
        (CPU_BUILD, "", "note", "runs on the CPU"),
        (CPU_BUILD, "NVIDIA H100, 570.1", "note", "without CUDA"),
        (CUDA_BUILD, "NVIDIA H100, 470.1", "problem", "cannot use it"),
        (H100, "NVIDIA H100, 570.1", "ok", "driver NVIDIA H100, 570.1"),
        (H100 | {"failure": "no kernel image"}, "", "problem", "no kernel image"),
    ],
)
def test_the_gpu_is_never_required(found, driver, status, words):
    check = doctor._gpu(found, driver)
    assert check.status == status
    assert words in check.found
    assert not check.required
    assert bool(check.remedy) is (status == "problem" or "without CUDA" in words)


def test_a_broken_torch_is_a_problem(monkeypatch):
    monkeypatch.setattr(
        doctor, "_probe", lambda *_, **__: {"error": "failed with status -6: abort"}
    )
    (check,) = doctor._torch_and_gpu()
    assert (check.status, check.required) == ("problem", True)
    assert "abort" in check.found


def test_without_a_display_opengl_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    check = doctor._opengl()
    assert check.status == "note"
    assert "no display" in check.found


@pytest.mark.gui
def test_opengl_is_tried_where_there_is_a_display():
    if not doctor.has_display():
        pytest.skip("no display: run under `xvfb-run -a`, or `make test`")
    check = doctor._opengl()
    assert check.status in {"ok", "note"}
    assert check.found.startswith("OpenGL ")


def test_a_cache_that_cannot_be_written_names_the_variable(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCLINGUIST_CACHE", str(tmp_path / "file" / "cache"))
    (check,) = doctor._cache()
    assert check.status == "problem"
    assert str(tmp_path) in check.found
    assert "SCLINGUIST_CACHE" in check.remedy


def test_the_cache_follows_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("SCLINGUIST_CACHE", str(tmp_path / "here"))
    assert resources.cache_dir() == tmp_path / "here"
    assert not (tmp_path / "here").exists()
    monkeypatch.delenv("SCLINGUIST_CACHE")
    assert resources.cache_dir().name == "napari-sclinguist"


def test_the_sample_section_is_a_space_ranger_folder():
    outs = resources.sample_section_path()
    assert outs.name == "outs"
    assert (outs / "filtered_feature_bc_matrix.h5").stat().st_size > 100_000
    assert (outs / "spatial" / "scalefactors_json.json").is_file()


def test_missing_files_are_told_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "src" / "sclinguist_core")
    with pytest.raises(InputError, match=r"sample section is missing.*; install"):
        resources.sample_section_path()
    with pytest.raises(InputError, match=r"holds no model\.safetensors; install"):
        resources.bundled_checkpoint()
    checkpoint, sample = doctor._files()
    assert (checkpoint.status, checkpoint.required) == ("problem", True)
    assert (sample.status, sample.required) == ("problem", False)
    assert checkpoint.remedy.startswith("install napari-sclinguist again")
