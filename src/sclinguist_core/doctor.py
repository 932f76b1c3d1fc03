"""Examination of this machine: is it fit for prediction, and for the window.

Everything that could fail badly (a broken torch, a graphics driver that kills its process) is
tried in a subprocess with a time limit, so that the examination always ends with a report.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from sclinguist_core import __version__, resources
from sclinguist_core.accelerator import INSTALL_CUDA_TORCH, nvidia_cards
from sclinguist_core.errors import InputError

DISTRIBUTION = "napari-sclinguist"
REINSTALL = f"pip install --force-reinstall {DISTRIBUTION}"
INSTALL_APP = f'pip install "{DISTRIBUTION}[app]"'

_PYTHON_RANGE = ((3, 11), (3, 14))
_MEMORY_WANTED = 4 * 1024**3
_DISK_WANTED = 2 * 1024**3
_QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
_LIBRARIES = ("anndata", "h5py", "scipy", "spatialdata", "zarr")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What was found about one thing.

    Attributes
    ----------
    name
        What was looked at.
    status
        ``"ok"``; ``"note"`` (works, but worth knowing); ``"problem"`` (something is broken).
    found
        What was found.
    remedy
        What to do about it; always there for a problem.
    required
        Whether prediction from the command line needs it.
    """

    name: str
    status: Literal["ok", "note", "problem"]
    found: str
    remedy: str = ""
    required: bool = False


def examine() -> list[Check]:
    """Make all checks.

    Returns
    -------
    list of Check
        In the order in which they read best, the ones that prediction needs first.
    """
    checks: list[Callable[[], list[Check]]] = [
        _python,
        _package,
        _libraries,
        _torch_and_gpu,
        _memory,
        _files,
        _cache,
        _window,
    ]
    with ThreadPoolExecutor(max_workers=4) as pool:  # the slow ones wait for subprocesses
        return [check for found in pool.map(lambda make: make(), checks) for check in found]


def fit_for_prediction(checks: list[Check]) -> bool:
    """Whether nothing that command-line prediction needs is broken."""
    return not any(check.required and check.status == "problem" for check in checks)


def _python() -> list[Check]:
    found = f"{platform.python_version()} ({sys.executable}), {platform.platform(terse=True)}"
    lowest, beyond = _PYTHON_RANGE
    if lowest <= sys.version_info[:2] < beyond:
        return [Check(name="Python", status="ok", found=found, required=True)]
    remedy = "make a virtual environment with Python 3.11, 3.12 or 3.13"
    return [Check(name="Python", status="problem", found=found, remedy=remedy, required=True)]


def _package() -> list[Check]:
    installed = _version(DISTRIBUTION)
    found = f"{__version__} ({Path(resources.__file__).parent})"
    if installed == __version__:
        return [Check(name=DISTRIBUTION, status="ok", found=found)]
    found += ", not installed" if installed is None else f", installed as {installed}"
    remedy = "pip install -e . in the source checkout"
    return [Check(name=DISTRIBUTION, status="note", found=found, remedy=remedy)]


def _libraries() -> list[Check]:
    """Import what reads sections; versions alone would not show a broken installation."""
    result = _probe(_LIBRARY_PROBE, *_LIBRARIES, timeout=180)
    broken = result.get("broken", {}) if "error" not in result else {"import": result["error"]}
    if not broken:
        found = ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
        return [Check(name="Readers", status="ok", found=found, required=True)]
    found = "; ".join(f"{name}: {reason}" for name, reason in broken.items())
    return [Check(name="Readers", status="problem", found=found, remedy=REINSTALL, required=True)]


def _torch_and_gpu() -> list[Check]:
    result = _probe(_TORCH_PROBE, timeout=120)
    if "error" in result:
        return [
            Check(
                name="PyTorch",
                status="problem",
                found=result["error"],
                remedy="pip install --force-reinstall torch",
                required=True,
            )
        ]
    build = f"CUDA {result['cuda']}" if result["cuda"] else "no CUDA"
    found = f"{result['version']} (built for {build}), {result['threads']} CPU threads"
    torch_check = Check(name="PyTorch", status="ok", found=found, required=True)
    return [torch_check, _gpu(result, _nvidia_driver())]


def _gpu(torch_found: dict[str, Any], driver: str) -> Check:
    """Judge the accelerator; prediction also runs on the CPU, so nothing here is required."""
    devices = ", ".join(torch_found["devices"])
    if torch_found["failure"]:
        return Check(
            name="GPU",
            status="problem",
            found=f"{devices or 'CUDA device'}: {torch_found['failure']}",
            remedy="predict with --device cpu, or install a PyTorch that supports this GPU",
        )
    if devices:
        suffix = f"; driver {driver}" if driver else ""
        return Check(name="GPU", status="ok", found=devices + suffix)
    if driver and not torch_found["cuda"]:
        return Check(
            name="GPU",
            status="note",
            found=f"{driver} is there, but this PyTorch is built without CUDA",
            remedy=INSTALL_CUDA_TORCH,
        )
    if driver:
        return Check(
            name="GPU",
            status="problem",
            found=f"{driver} is there, but PyTorch cannot use it",
            remedy=f"update the NVIDIA driver to one that supports CUDA {torch_found['cuda']}",
        )
    return Check(name="GPU", status="note", found="none; prediction runs on the CPU")


def _nvidia_driver() -> str:
    """Name and driver version of the GPUs that nvidia-smi sees, or an empty string."""
    return "; ".join(f"{card.name}, {card.driver}" for card in nvidia_cards())


def _memory() -> list[Check]:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{_gib(memory.available)} free of {_gib(memory.total)}"
    if memory.available >= _MEMORY_WANTED:
        return [Check(name="Memory", status="ok", found=found)]
    remedy = f"close other programs: a section may need {_gib(_MEMORY_WANTED)}"
    return [Check(name="Memory", status="note", found=found, remedy=remedy)]


def _files() -> list[Check]:
    """Check the bundled checkpoint, which prediction needs, and the sample, which `demo` needs."""
    checks = []
    for name, find, required in (
        ("Bundled checkpoint", resources.bundled_checkpoint, True),
        ("Sample section", resources.sample_section_path, False),
    ):
        try:
            check = Check(name=name, status="ok", found=str(find()), required=required)
        except InputError as error:  # "what was found; what to do"
            found, _, remedy = str(error).partition("; ")
            check = Check(
                name=name, status="problem", found=found, remedy=remedy, required=required
            )
        checks.append(check)
    return checks


def _cache() -> list[Check]:
    """Check the folder for downloads; the bundled checkpoint works without it."""
    folder = resources.cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = f"set {resources.CACHE_VARIABLE} to a folder that you may write to"
        found = f"cannot write to {folder}: {error.strerror or error}"
        return [Check(name="Cache folder", status="problem", found=found, remedy=remedy)]
    found = f"{folder}, {_gib(free)} free"
    if free >= _DISK_WANTED:
        return [Check(name="Cache folder", status="ok", found=found)]
    remedy = f"free some space, or set {resources.CACHE_VARIABLE} to a folder on another disk"
    return [Check(name="Cache folder", status="note", found=found, remedy=remedy)]


def _window() -> list[Check]:
    """Check napari, the Qt binding and OpenGL: only the window needs them."""
    napari = _version("napari")
    if napari is None:
        found = "not installed; the command line works without it"
        return [Check(name="napari", status="note", found=found, remedy=INSTALL_APP)]
    plugins = {entry.name for entry in metadata.entry_points(group="napari.manifest")}
    if DISTRIBUTION in plugins:
        checks = [Check(name="napari", status="ok", found=f"{napari}; plugin registered")]
    else:
        found = f"{napari}; this plugin is not registered"
        checks = [Check(name="napari", status="problem", found=found, remedy=REINSTALL)]
    bindings = [(name, version) for name in _QT_BINDINGS if (version := _version(name))]
    if not bindings:
        found = "none, so that napari opens no window"
        return [*checks, Check(name="Qt", status="problem", found=found, remedy=INSTALL_APP)]
    found = ", ".join(" ".join(binding) for binding in bindings)
    if len(bindings) > 1:
        remedy = "keep one Qt binding and uninstall the others, should napari fail to start"
        checks.append(Check(name="Qt", status="note", found=found, remedy=remedy))
    else:
        checks.append(Check(name="Qt", status="ok", found=found))
    return [*checks, _opengl()]


def _opengl() -> Check:
    if sys.platform.startswith("linux") and not has_display():
        return Check(name="OpenGL", status="note", found="not tested: there is no display")
    result = _probe(_OPENGL_PROBE, timeout=60)
    if "error" in result:
        return Check(
            name="OpenGL",
            status="problem",
            found=result["error"],
            remedy="install the graphics driver (on Debian without a GPU: libgl1-mesa-dri libegl1)",
        )
    found = f"{result['version']}, {result['renderer']}"
    if "llvmpipe" in found or "softpipe" in found:
        return Check(
            name="OpenGL",
            status="note",
            found=f"{found}: drawn in software, which is slow for large sections",
        )
    return Check(name="OpenGL", status="ok", found=found)


def has_display() -> bool:
    """Whether a display server is named (X11 or Wayland); only Linux needs one to be."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _probe(code: str, *arguments: str, timeout: float) -> dict[str, Any]:
    """Run a program that prints one JSON object last; a failure is told under ``"error"``."""
    try:
        answer = subprocess.run(  # noqa: S603 - this interpreter, and programs of this file
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout:.0f} seconds"}
    except OSError as error:
        return {"error": f"cannot be started: {error}"}
    if answer.returncode != 0:
        said = answer.stderr.strip().splitlines()
        reason = said[-1] if said else "no message"
        return {"error": f"failed with status {answer.returncode}: {reason}"}
    try:
        result = json.loads(answer.stdout.strip().splitlines()[-1])
    except (json.JSONDecodeError, IndexError):
        return {"error": "gave no readable answer"}
    return dict(result)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _gib(size: float) -> str:
    return f"{size / 1024**3:.1f} GiB"


_LIBRARY_PROBE = """
import importlib, json, sys
broken = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        broken[name] = f"{type(error).__name__}: {error}"
print(json.dumps({"broken": broken}))
"""

# One small product on each device: a GPU that PyTorch lists may still lack compiled kernels.
_TORCH_PROBE = """
import json
import torch
devices, failure = [], ""
try:
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"{properties.name} ({properties.total_memory / 1024**3:.0f} GiB)")
        side = torch.ones(8, 8, device=f"cuda:{index}")
        assert float((side @ side).sum()) == 512.0
    if torch.backends.mps.is_available():
        devices.append("Apple GPU (MPS)")
except Exception as error:
    failure = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda,
                  "threads": torch.get_num_threads(), "devices": devices, "failure": failure}))
"""

_OPENGL_PROBE = """
import json
from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext
application = QGuiApplication([])
surface = QOffscreenSurface()
surface.create()
context = QOpenGLContext()
if not context.create() or not context.makeCurrent(surface):
    raise SystemExit("no OpenGL context can be made")
from OpenGL.GL import GL_RENDERER, GL_VERSION, glGetString
print(json.dumps({"version": "OpenGL " + glGetString(GL_VERSION).decode(),
                  "renderer": glGetString(GL_RENDERER).decode()}))
"""
