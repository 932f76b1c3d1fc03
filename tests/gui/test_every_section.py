"""Every kind of section in the real data opens in a window, in the right place."""

from pathlib import Path

import numpy as np
import pytest

from napari_sclinguist.docking import open_dock

pytestmark = [pytest.mark.gui, pytest.mark.data]

SECTIONS = {
    "human_ducts_rna": (1, "spots", False),
    "human_ducts_rna/outs": (1, "spots", False),
    "human_ducts_rna/outs/spatial/tissue_positions_list.csv": (1, "spots", False),
    "human_ducts_rna/outs/filtered_feature_bc_matrix/matrix.mtx.gz": (1, "spots", False),
    "lymph_node_protein/lymph_node_A1_adt.h5ad": (1, "spots", True),
    "mouse_embryo_rna": (1, "spots", True),
    "tonsil_composite": (1, "spots", True),
    "tonsil_composite/outs/filtered_feature_bc_matrix.h5": (1, "spots", True),
    "reader_fixtures/visium_hd_visiumio": (1, "bins", True),
    "reader_fixtures/visium_scanpy/1.0.0": (1, "spots", True),
    "reader_fixtures/visium_visiumio": (2, "spots", True),
    "reader_fixtures/xenium_small": (1, "cells", True),
}


@pytest.mark.parametrize("place", SECTIONS)
def test_it_opens_with_tissue_spots_and_a_coloured_feature(
    place, test_data, make_napari_viewer, qtbot
):
    number, noun, scaled = SECTIONS[place]
    viewer = make_napari_viewer()
    viewer.open(test_data / "spatial" / Path(place), plugin="napari-sclinguist")
    dock = open_dock(viewer)
    assert dock.messages.message is None
    assert len(dock.workspace.sections) == number
    for opened in dock.workspace.sections:
        assert opened.noun == noun
        colours = opened.spots.face_color
        assert len(colours) == opened.section.n_obs
        np.testing.assert_allclose(colours, opened.picture.colours / 255, atol=1e-6)
        values = opened.catalogue.values(opened.view.keys[0])
        assert (len(np.unique(colours, axis=0)) > 1) == (len(np.unique(values)) > 1)
        if opened.image_layer is not None:
            lower, upper = opened.image_layer.extent.world
            inside = (opened.spots.data_to_world(opened.spots.data[0]) >= lower).all()
            assert inside
            assert (opened.spots.data_to_world(opened.spots.data[-1]) <= upper).all()
    assert viewer.canvas.overlays.scale_bar.visible is scaled
    dock.workspace.close()
