"""Small sections whose places are known, and a window for the tests that need one."""

import os
import sys
import threading
import time
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclinguist_core.data.section import Section, SectionImage


def pytest_collection_modifyitems(items):
    """Without a display Qt ends the process, so the tests of the window are skipped."""
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY"):
        return
    reason = "no display: run under `xvfb-run -a`, or `make test`"
    for item in items:
        if item.get_closest_marker("gui"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def section():
    """Four spots on a 40 x 60 px image of a quarter of the full resolution, 0.5 µm a pixel.

    Spot 0 lies on the one dark pixel of the image: row 10, column 30.
    """
    positions = np.array([[121.5, 41.5], [20.0, 20.0], [200.0, 20.0], [20.0, 140.0]])
    counts = sparse.csr_matrix(np.array([[0, 4], [1, 1], [3, 0], [0, 0]], dtype=np.float32))
    table = ad.AnnData(
        counts,
        obs=pd.DataFrame({"score": [0.5, 1.5, 2.5, 3.5]}, index=list("abcd")),
        var=pd.DataFrame({"feature_types": "Gene Expression"}, index=["CD19", "MS4A1"]),
    )
    table.obsm["spatial"] = positions
    pixels = np.full((40, 60, 3), 255, dtype=np.uint8)
    pixels[10, 30] = 0
    return Section(
        name="small",
        table=table,
        images={"hires": SectionImage(pixels, 0.25, "hires")},
        spot_diameter=130.0,
        microns_per_pixel=0.5,
        assay="visium",
    )


@pytest.fixture
def predicted_section(section):
    """The same section with three predicted proteins; CD19 varies most."""
    section.table.obsm["protein_predicted"] = pd.DataFrame(
        {"CD3": [0.0, 0.1, 0.0, 0.1], "CD19": [-2.0, 0, 1, 2], "CD20": [-1.0, 0, 0, 1]},
        index=section.table.obs_names,
    )
    section.table.uns["sclinguist"] = {"unit": "sd of the training reference"}
    return section


@pytest.fixture(scope="session")
def sample_rows():
    """Every tenth spot of the sample section: quick to predict, still tissue-like."""
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.resources import sample_section_path

    section = open_section(sample_section_path(), name="tonsil (simulated)")
    return replace(section, table=section.table[::10].copy())


@pytest.fixture
def sample_part(sample_rows):
    """A small section of its own for each test: predictions are attached to tables."""
    return replace(sample_rows, table=sample_rows.table.copy())


@pytest.fixture
def dock(make_napari_viewer, request):
    """The dock in a window; its work is ended before the window is."""
    from napari_sclinguist.docking import open_dock

    viewer = make_napari_viewer(show=True)
    dock = open_dock(viewer)
    yield dock
    for opened in dock.workspace.sections:
        opened.set_dirty(False)
    dock.workspace.close()
    wait_for_threads()
    # napari looks for viewers that are left over before pytest lets go of a test's arguments.
    request.node.funcargs.clear()


@pytest.fixture
def add_section(dock):
    """A function that adds a section to the window; returns it as the workspace holds it."""
    from napari.layers import Layer

    from napari_sclinguist.layers import section_layers

    def add(section):
        for data in section_layers(section):
            dock.viewer.add_layer(Layer.create(*data))
        return dock.workspace.active

    return add


def wait_for_threads(seconds=60):
    """Let jobs end, and hear their last word."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while any(thread.name == "sclinguist-job" for thread in threading.enumerate()):
        assert time.monotonic() < end, "a job does not end"
        QApplication.processEvents()
        time.sleep(0.01)
    QApplication.processEvents()
