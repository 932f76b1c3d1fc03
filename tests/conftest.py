"""What all tests share: real data if there is any, and a machine that tests leave as it was."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Before anything imports napari, matplotlib or pooch: they read these once, at import.
_HOME = Path(tempfile.mkdtemp(prefix="sclinguist-tests-"))
os.environ.update(
    HOME=str(_HOME),
    USERPROFILE=str(_HOME),
    XDG_CONFIG_HOME=str(_HOME / "config"),
    XDG_CACHE_HOME=str(_HOME / "cache"),
    XDG_DATA_HOME=str(_HOME / "share"),
    MPLCONFIGDIR=str(_HOME / "matplotlib"),
    MPLBACKEND="Agg",
    NAPARI_CONFIG=str(_HOME / "napari.yaml"),
)


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real data sets; skips where they are absent."""
    folder = Path(os.environ.get("SCLINGUIST_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data are not at '{folder}' (set SCLINGUIST_TEST_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    """Same random numbers in every run, in whichever order tests run."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries use the global generator
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
