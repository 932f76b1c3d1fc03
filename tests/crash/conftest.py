"""What is common to the tests of failing disks and of kills."""

import gc

import pytest


@pytest.fixture(autouse=True)
def _collected():
    """What was left half-written complains when it is collected: here, and not in another test."""
    yield
    gc.collect()
