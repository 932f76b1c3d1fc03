"""Where the files that come with the package lie: sample section, checkpoints, cache folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from sclinguist_core.errors import InputError

CACHE_VARIABLE = "SCLINGUIST_CACHE"
"""Environment variable that moves the cache folder."""

_PACKAGE = Path(__file__).resolve().parent
_SAMPLE = Path("sample_data", "tonsil_simulated", "outs")


def sample_section_path() -> Path:
    """Find the simulated tonsil-like section that comes with the package.

    Returns
    -------
    Path
        A Space Ranger ``outs`` folder: inside the package when it was installed from a wheel,
        beside ``src/`` in a source checkout. The section is simulated; results on it show how
        the tools work and say nothing about accuracy.

    Raises
    ------
    InputError
        If neither place holds the section.
    """
    in_wheel = _PACKAGE / _SAMPLE
    in_checkout = _PACKAGE.parents[1] / _SAMPLE
    for folder in (in_wheel, in_checkout):
        if (folder / "spatial").is_dir():
            return folder
    raise InputError(
        f"The sample section is missing: neither {in_wheel} nor {in_checkout} holds a "
        "Space Ranger section; install napari-sclinguist again, or run "
        "`python sample_data/make_section.py` in a source checkout."
    )


def checkpoints_dir() -> Path:
    """Return the folder of the checkpoints that are installed with the package."""
    return _PACKAGE / "checkpoints"


def bundled_checkpoint() -> Path:
    """Return the folder of the checkpoint that is used unless another one is named.

    Raises
    ------
    InputError
        If the folder holds no weights.
    """
    folder = checkpoints_dir() / "bundled"
    if not (folder / "model.safetensors").is_file():
        raise InputError(
            f"The bundled checkpoint is missing: {folder} holds no model.safetensors; install "
            "napari-sclinguist again, or name a checkpoint folder with --model."
        )
    return folder


def cache_dir() -> Path:
    """Return the folder for downloaded sections and weights.

    It is the platform's user cache folder unless ``SCLINGUIST_CACHE`` names another. The folder
    is not created here: whoever writes into it does so.
    """
    chosen = os.environ.get(CACHE_VARIABLE, "").strip()
    if chosen:
        return Path(chosen).expanduser()
    return Path(platformdirs.user_cache_dir("napari-sclinguist", appauthor=False))
