"""Predictions of known quality, with and without positions."""

from __future__ import annotations

import pytest
from anndata import AnnData

from evaluation.made_up import add_positions, add_prediction, make_cells


@pytest.fixture
def predicted() -> AnnData:
    return add_prediction(make_cells())


@pytest.fixture
def predicted_section() -> AnnData:
    return add_positions(add_prediction(make_cells()))
