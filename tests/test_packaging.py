"""What is installed, and what is written about it, agree."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import typer
import yaml
from npe2 import PluginManifest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sclinguist_core

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == sclinguist_core.__version__
    assert newest is not None
    assert newest.group(1) == sclinguist_core.__version__
    assert metadata.version("napari-sclinguist") == sclinguist_core.__version__


def test_every_direct_dependency_is_pinned_to_what_it_allows():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        canonicalize_name(name): Version(version)
        for name, separator, version in (line.partition("==") for line in lines)
        if separator
    }
    extras = PROJECT["optional-dependencies"].values()
    wanted = [Requirement(text) for group in (PROJECT["dependencies"], *extras) for text in group]
    names = {canonicalize_name(requirement.name) for requirement in wanted}
    assert names - pins.keys() == set()
    refused = [str(r) for r in wanted if pins[canonicalize_name(r.name)] not in r.specifier]
    assert refused == []


def test_torch_is_pinned_without_a_build():
    """A bare ``torch`` may fetch gigabytes; a pinned ``+cpu`` would rule out every GPU."""
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_manifest_is_valid():
    manifest = PluginManifest.from_file(ROOT / "src/napari_sclinguist/napari.yaml")
    manifest.validate_imports()
    assert manifest.name == "napari-sclinguist"
    (reader,) = manifest.contributions.readers
    assert reader.accepts_directories
    assert {"*.h5ad", "*.h5", "*.zarr", "*scalefactors_json.json"} <= set(reader.filename_patterns)
    simulated, real = manifest.contributions.sample_data
    assert "simulated" in simulated.display_name
    assert "download" in real.display_name
    (widget,) = manifest.contributions.widgets  # `napari -w napari-sclinguist` needs exactly one
    assert widget.display_name == "Protein from RNA"


def test_entry_points_load():
    installed = metadata.distribution("napari-sclinguist").entry_points
    assert {entry.name for entry in installed} == {
        *PROJECT["scripts"],
        "napari-sclinguist",
    }
    for entry in installed.select(group="console_scripts"):
        assert callable(entry.load())


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name
)
def test_commands_that_are_written_about_exist(path):
    from sclinguist_core.cli import app

    code = " ".join(re.findall(r"```.*?```|`[^`]+`", path.read_text(), re.DOTALL))
    named = set(re.findall(r"(?<![\w-])sclinguist ([a-z][a-z-]+)", code))
    assert named - typer.main.get_command(app).commands.keys() == set()


def test_the_readme_lists_every_command():
    from sclinguist_core.cli import app

    text = (ROOT / "README.md").read_text()
    listed = set(re.findall(r"^\| `sclinguist ([a-z-]+)", text, re.MULTILINE))
    assert listed == typer.main.get_command(app).commands.keys()


def test_every_page_of_the_site_is_in_its_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages == set(re.findall(r"[\w/-]+\.md", text))


def test_make_targets_that_are_written_about_exist():
    offered = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        named = set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE))
        assert named - offered == set(), page.name


def test_continuous_integration_runs_the_test_command():
    assert "make test" in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("exec make test")


def test_wheel_holds_the_sample_the_checkpoint_and_the_manifest(tmp_path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "-o",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sample = "sclinguist_core/sample_data/tonsil_simulated/outs"
    assert f"{sample}/filtered_feature_bc_matrix.h5" in names
    assert f"{sample}/spatial/tissue_positions.csv" in names
    assert "sclinguist_core/checkpoints/bundled/model.safetensors" in names
    assert {"napari_sclinguist/napari.yaml", "sclinguist_core/py.typed"} <= names
    assert not any("tests" in Path(name).parts for name in names)


def test_the_readme_shows_its_picture_and_figures():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)\)", text)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
    figures = text.split("<!-- figures:start -->")[1].split("<!-- figures:end -->")[0]
    assert "cognate mRNA" in figures
    assert "ridge" in figures
