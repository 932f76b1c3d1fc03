"""A section as layer data; no window is needed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from napari_sclinguist.features import default_features, find_feature
from napari_sclinguist.layers import contrast_limits, section_layers
from sclinguist_core.errors import InputError


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
    assert spots["face_color"] == "total counts"
    assert spots["features"]["total counts"].tolist() == [4, 2, 3, 0]


def test_the_most_variable_predicted_protein_is_shown(predicted_section):
    (_, spots, _) = section_layers(predicted_section)[1]
    assert spots["face_color"] == "CD19 (predicted)"
    assert list(spots["features"]) == ["CD19 (predicted)", "CD20 (predicted)", "total counts"]
    state = spots["metadata"]["sclinguist"]
    assert state["role"] == "spots"
    assert state["unit"] == "sd of the training reference"
    assert state["section"] is predicted_section


def test_a_feature_can_be_chosen(predicted_section):
    (_, spots, _) = section_layers(predicted_section, "CD3")[1]
    assert spots["face_color"] == "CD3 (predicted)"
    assert spots["features"].shape == (4, 3)


def test_genes_are_log_cp10k_and_an_empty_spot_has_no_value(section):
    gene = find_feature(section, "MS4A1")
    assert gene.label == "MS4A1 (mRNA)"
    np.testing.assert_allclose(gene.values[:3], np.log1p([10_000, 5_000, 0]), rtol=1e-6)
    assert np.isnan(gene.values[3])


def test_obs_columns_are_features(section):
    assert find_feature(section, "score").values.tolist() == [0.5, 1.5, 2.5, 3.5]


def test_measured_proteins_are_found_by_any_name_as_clr(section):
    counts = pd.DataFrame(
        {"CD19.1": [10, 1, 0, 0], "IgG1": [1, 1, 1, 1], "CD3E.1": [0, 5, 9, 0]},
        index=section.table.obs_names,
    )
    section.table.obsm["protein"] = counts
    section.table.uns["protein_panel"] = pd.DataFrame(
        {"canonical": ["CD19", "", "CD3"], "isotype": [False, True, False]}, index=counts.columns
    )
    feature = find_feature(section, "CD19")
    assert feature.label == "CD19.1 (measured)"
    logs = np.log1p(counts)
    expected = logs["CD19.1"] - logs[["CD19.1", "CD3E.1"]].mean(axis=1)
    np.testing.assert_allclose(feature.values, expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_feature_is_refused_with_the_nearest(predicted_section):
    with pytest.raises(InputError, match=r"Feature 'CD91' is not in section 'small'.*CD19"):
        find_feature(predicted_section, "CD91")


def test_at_most_three_feature_columns(predicted_section):
    assert len(default_features(predicted_section)) == 3


def test_cells_without_positions_are_refused(section):
    del section.table.obsm["spatial"]
    with pytest.raises(InputError, match="without positions"):
        section_layers(section)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(101, dtype=float), (1.0, 99.0)),
        (np.array([2.0, 2.0]), (2.0, 3.0)),
        (np.array([np.nan]), (0.0, 1.0)),
    ],
)
def test_contrast_limits_leave_out_extremes_and_are_never_empty(values, expected):
    assert contrast_limits(values) == pytest.approx(expected)
