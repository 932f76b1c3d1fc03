"""The architecture: a file imports only from floors below its own."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sclinguist_core

SRC = Path(sclinguist_core.__file__).parents[1]
FLOORS = {
    "sclinguist_core.errors": 0,
    "sclinguist_core.console": 0,
    "sclinguist_core.files": 0,
    "sclinguist_core.locks": 0,
    "sclinguist_core.reading": 0,
    "sclinguist_core.resources": 0,
    "sclinguist_core.accelerator": 0,
    "sclinguist_core.doctor": 0,
    "sclinguist_core.vocabulary": 1,
    "sclinguist_core.data": 2,
    "sclinguist_core.model": 3,
    "sclinguist_core.train": 4,
    "sclinguist_core.inference": 4,
    "sclinguist_core.evaluation": 5,
    "sclinguist_core.cli": 6,
    "napari_sclinguist": 6,
}
# `sclinguist demo --napari` opens the window: the one place where a face knows the other.
ALLOWED = {("sclinguist_core.cli", "napari_sclinguist")}
WINDOW = {"napari", "qtpy", "superqt", "magicgui", "vispy", "PyQt5", "PyQt6", "PySide2", "PySide6"}
HEAVY = {"torch", "scanpy", "squidpy", "spatialdata", "pytorch_lightning", "sklearn", "matplotlib"}

FILES = sorted(
    path
    for package in ("sclinguist_core", "napari_sclinguist")
    for path in (SRC / package).rglob("*.py")
)


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Full names of everything that a file imports, also inside its functions."""
    is_package = path.name == "__init__.py"
    here = module_name(path).split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = here[: len(here) - node.level + is_package]
                base = ".".join([*up, base] if base else up)
            if base == "sclinguist_core":  # a submodule, or a lazily exported name
                for alias in node.names:
                    yield sclinguist_core._EXPORTS.get(alias.name, f"{base}.{alias.name}")
            else:
                yield base


def part_of(module: str) -> str | None:
    """The entry of FLOORS that a module belongs to; None for what is not ours."""
    top, _, rest = module.partition(".")
    if top == "napari_sclinguist":
        return top
    if top != "sclinguist_core" or not rest or rest.startswith("__"):
        return None  # `sclinguist_core` itself exports lazily and has __version__
    return f"{top}.{rest.partition('.')[0]}"


# The package's own __init__ stands on no floor: it exports lazily from all of them.
ON_A_FLOOR = [path for path in FILES if part_of(module_name(path)) is not None]


@pytest.mark.parametrize("path", ON_A_FLOOR, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_come_from_lower_floors(path):
    own = part_of(module_name(path))
    assert own in FLOORS, f"give {own} a floor"
    allowed = {part for part in FLOORS if part == own or (own, part) in ALLOWED}
    allowed |= {part for part, floor in FLOORS.items() if floor < FLOORS[own] or floor == 0}
    ours = {module: part_of(module) for module in imported(path)}
    assert {module for module, part in ours.items() if part not in {*allowed, None}} == set()


@pytest.mark.parametrize(
    "path", [path for path in FILES if "sclinguist_core" in path.parts], ids=lambda path: path.name
)
def test_core_knows_no_window(path):
    assert {module.partition(".")[0] for module in imported(path)} & WINDOW == set()


def loaded_after(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.partition(".")[0] for name in json.loads(answer.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "statement",
    [
        "import sclinguist_core",
        "import sclinguist_core.errors, sclinguist_core.resources, sclinguist_core.doctor",
        "import napari_sclinguist.reader, napari_sclinguist.sample, napari_sclinguist.launch",
    ],
)
def test_a_light_import_stays_light(statement):
    loaded = loaded_after(statement)
    assert "sclinguist_core" in loaded
    assert loaded & (HEAVY | WINDOW | {"anndata", "pandas", "numpy"}) == set()


def test_layers_need_neither_qt_nor_torch():
    assert loaded_after("import napari_sclinguist.layers") & (HEAVY | WINDOW) == set()


def test_every_lazy_export_exists():
    for name in sclinguist_core.__all__:
        assert getattr(sclinguist_core, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = sclinguist_core.no_such_name
