"""What a run was made with: versions, state of the code, fingerprints of the data."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import sclinguist_core

_PACKAGES = (
    "torch", "pytorch-lightning", "numpy", "scipy", "pandas", "anndata", "scikit-learn",
    "safetensors",
)  # fmt: skip
HASH_WHOLE = 64 * 2**20
"""Files up to this many bytes are hashed whole."""
_HEAD = 2**20


def versions() -> dict[str, str]:
    """Version of this package, of Python and of what decides the numbers."""
    found = {"napari-sclinguist": sclinguist_core.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def created_with() -> dict[str, str]:
    """Versions that a checkpoint names."""
    named = ("napari-sclinguist", "torch", "python")
    return {name: version for name, version in versions().items() if name in named}


def git_state() -> dict[str, Any] | None:
    """Commit of the source checkout, and whether it was changed; None outside a checkout."""
    folder = Path(sclinguist_core.__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    # An installation inside somebody else's repository is no checkout of this package.
    if commit is None or _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def fingerprint(path: Path) -> dict[str, Any]:
    """Identify a file or folder.

    Returns
    -------
    dict
        ``method`` says how: ``sha256`` of the whole file (up to 64 MiB), ``size+mtime+sha256 of
        first MiB`` for a larger one, ``sha256 of names and sizes`` for a folder.
    """
    if path.is_dir():
        digest, total = hashlib.sha256(), 0
        for file in sorted(path.rglob("*")):
            if file.is_file():
                size = file.stat().st_size
                total += size
                digest.update(f"{file.relative_to(path).as_posix()}\t{size}\n".encode())
        return {
            "method": "sha256 of names and sizes", "size": total, "sha256": digest.hexdigest(),
        }  # fmt: skip
    status = path.stat()
    with path.open("rb") as data:
        if status.st_size <= HASH_WHOLE:
            digest = hashlib.file_digest(data, "sha256")
            return {"method": "sha256", "size": status.st_size, "sha256": digest.hexdigest()}
        head = hashlib.sha256(data.read(_HEAD))
    return {
        "method": "size+mtime+sha256 of first MiB",
        "size": status.st_size,
        "mtime": int(status.st_mtime),
        "sha256": head.hexdigest(),
    }


def record(paths: Iterable[Path | str], **more: Any) -> dict[str, Any]:
    """Everything that ``run.json`` says, with `more` entries.

    Parameters
    ----------
    paths
        Data; what is missing is left for the reader to complain about.
    """
    found = [Path(path) for path in paths]
    return {
        "command": sys.argv,
        "versions": versions(),
        "git": git_state(),
        "platform": platform.platform(terse=True),
        "data": {str(path): fingerprint(path) for path in found if path.exists()},
        **more,
    }
