"""A section as layer data; no window is needed."""

from dataclasses import replace

import numpy as np
import pytest

from napari_sclinguist.control.view import View
from napari_sclinguist.layers import pyramid, section_layers
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.colouring import lookup_table


def test_image_and_spots_share_their_scale_and_units(section):
    (pixels, image, image_type), (points, spots, points_type) = section_layers(section)
    assert (image_type, points_type) == ("image", "points")
    assert pixels.shape == (40, 60, 3)
    assert image["scale"] == (2.0, 2.0)  # 4 full-resolution pixels of 0.5 µm
    assert spots["scale"] == (0.5, 0.5)
    assert image["units"] == spots["units"] == ("µm", "µm")
    np.testing.assert_array_equal(points, section.positions[:, ::-1])


def test_a_spot_lies_on_the_pixel_below_it(section):
    (pixels, image, _), (points, spots, _) = section_layers(section)
    world = points[0] * spots["scale"]
    row, column = (world - image["translate"]) / image["scale"]
    assert (row, column) == pytest.approx((10.0, 30.0))
    assert pixels[10, 30].max() == 0


def test_spots_of_visium_are_drawn_55_um_wide(section):
    (_, spots, _) = section_layers(section)[1]
    assert spots["size"] * spots["scale"][0] == pytest.approx(55.0)


def test_bins_are_squares_of_their_own_size(section):
    bins = replace(section, assay="visium_hd", spot_diameter=16.0)
    (_, spots, _) = section_layers(bins)[1]
    assert (spots["size"], spots["symbol"]) == (16.0, "square")


def test_without_a_diameter_neighbours_do_not_overlap(section):
    cells = replace(section, assay="xenium", spot_diameter=None)
    assert 0 < cells.drawn_diameter < np.hypot(101.5, 21.5)


def test_without_pixel_size_the_world_is_in_pixels_and_no_layer_has_units(section):
    layers = section_layers(replace(section, microns_per_pixel=None))
    assert [arguments["scale"] for _, arguments, _ in layers] == [(4.0, 4.0), (1.0, 1.0)]
    assert not any("units" in arguments for _, arguments, _ in layers)


def test_without_image_the_spots_come_alone(section):
    layers = section_layers(replace(section, images={}))
    assert [layer_type for _, _, layer_type in layers] == ["points"]


def test_rna_alone_is_coloured_by_total_counts(section):
    (_, spots, _) = section_layers(section)[1]
    state = spots["metadata"]["sclinguist"]
    assert state["view"].keys == ("column:total counts",)
    assert state["role"] == "spots"
    assert state["section"] is section
    table = lookup_table("viridis")
    np.testing.assert_allclose(spots["face_color"][[0, 3]], table[[255, 0]] / 255)


def test_the_most_variable_predicted_protein_is_shown(predicted_section):
    (_, spots, _) = section_layers(predicted_section)[1]
    assert spots["metadata"]["sclinguist"]["view"].keys == ("predicted:CD19",)


def test_a_feature_can_be_chosen(predicted_section):
    (_, spots, _) = section_layers(predicted_section, "CD3")[1]
    assert spots["metadata"]["sclinguist"]["view"].keys == ("predicted:CD3",)


def test_a_saved_view_returns_without_the_features_that_are_gone(predicted_section):
    view = View(keys=("predicted:CD20", "predicted:CD999"), colormap="magma", opacity=0.5)
    predicted_section.table.uns["sclinguist_view"] = view.to_dict()
    (_, spots, _) = section_layers(predicted_section)[1]
    restored = spots["metadata"]["sclinguist"]["view"]
    assert restored.keys == ("predicted:CD20",)
    assert (restored.colormap, spots["opacity"]) == ("magma", 0.5)


def test_a_large_image_is_a_pyramid_of_means(section):
    pixels = np.zeros((3001, 2500, 3), np.uint8)
    pixels[:2, :2, 0] = [[10, 20], [30, 43]]
    levels = pyramid(pixels)
    assert [level.shape for level in levels] == [(3001, 2500, 3), (1500, 1250, 3)]
    assert levels[1][0, 0].tolist() == [26, 0, 0]
    assert pyramid(pixels[:2000, :2000])[0].shape == (2000, 2000, 3)


def test_cells_without_positions_are_refused(section):
    del section.table.obsm["spatial"]
    with pytest.raises(InputError, match="without positions"):
        section_layers(section)
