"""From values to colours."""

import numpy as np
import pytest

from sclinguist_core.evaluation.colouring import (
    CHANNEL_COLOURS,
    COLORMAPS,
    DIVERGING_COLORMAPS,
    Channel,
    blend,
    certainty,
    colour_limits,
    fade,
    lookup_table,
    shade,
)


def test_limits_are_percentiles_that_ignore_outliers_and_gaps():
    values = np.concatenate([np.linspace(0, 1, 1001), [50.0, np.nan, np.inf]])
    low, high = colour_limits(values)
    assert (low, high) == pytest.approx((0.01, 0.99), abs=0.01)


def test_a_sparse_feature_is_not_black():
    values = np.zeros(1000)
    values[:8] = [1, 2, 3, 4, 5, 6, 7, 8]  # the 99th percentile is 0
    low, high = colour_limits(values)
    assert low == 0
    assert 6 < high < 8


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (0, 1)),
        ([np.nan], (0, 1)),
        ([3, 3, 3], (3, 4)),
        ([0, 0, 0, 0, 2], (0, 2)),
    ],
)
def test_limits_of_degenerate_values(values, expected):
    assert colour_limits(values) == expected


def test_differences_are_centred_on_zero():
    low, high = colour_limits(np.linspace(-1, 3, 100), diverging=True)
    assert low == -high
    assert high == pytest.approx(3, abs=0.1)
    assert colour_limits([], diverging=True) == (-1, 1)
    assert colour_limits([0, 0], diverging=True) == (-1, 1)


def channel(values, limits=(0.0, 1.0), threshold=None):
    return Channel(values=np.array(values, np.float32), limits=limits, threshold=threshold)


def test_ends_of_the_range_are_ends_of_the_colour_map_and_unknown_is_clear():
    colours = shade(channel([-5, 0, 1, 9, np.nan]), "viridis")
    table = lookup_table("viridis")
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(colours[[0, 1]], table[[0, 0]])
    np.testing.assert_array_equal(colours[[2, 3]], table[[255, 255]])
    assert colours[4].tolist() == [0, 0, 0, 0]


def test_below_the_threshold_is_not_coloured():
    one = channel([0.2, 0.5, 0.9, np.nan], threshold=0.5)
    assert one.positive().tolist() == [False, True, True, False]
    assert shade(one, "magma")[:, 3].tolist() == [0, 255, 255, 0]


def test_features_add_up_in_their_own_colours():
    both = blend([channel([1, 0, 1, np.nan]), channel([0, 1, 1, np.nan])], ["#ff0000", "#0000ff"])
    assert both.tolist() == [[255, 0, 0, 255], [0, 0, 255, 255], [255, 0, 255, 255], [0, 0, 0, 0]]


def test_all_colours_of_channels_together_are_white():
    assert blend([channel([1.0])] * 3)[0].min() >= 210


def test_a_fourth_feature_has_no_colour():
    with pytest.raises(ValueError, match="found 4, expected at most 3"):
        blend([channel([1.0])] * (len(CHANNEL_COLOURS) + 1))


def test_a_threshold_removes_a_feature_from_the_sum():
    assert blend([channel([0.4], threshold=0.5)], ["#ffffff"])[0].tolist() == [0, 0, 0, 255]


def test_fading_lowers_opacity_alone():
    colours = np.full((3, 4), 200, np.uint8)
    faded = fade(colours, np.array([1.0, 0.5, np.nan]))
    assert faded[:, 3].tolist() == [200, 100, 0]
    assert (faded[:, :3] == 200).all()
    assert (colours == 200).all()


def test_certainty_falls_with_strangeness_and_with_the_predicted_error():
    ood = np.array([0.0, 0.9, 0.95, 1.0, np.nan], np.float32)
    known = certainty(ood, None)
    assert known[0] == known[1] == 1
    assert 0 < known[2] < 1
    assert known[3] == known[4] == 0
    spread = certainty(None, np.array([1.0, 1.0, 1.0, 5.0]))
    assert spread.tolist() == pytest.approx([1, 1, 1, 1 / 3])
    with pytest.raises(ValueError, match="neither"):
        certainty(None, None)


def test_every_offered_colour_map_exists_and_unknown_ones_are_named():
    for name in (*COLORMAPS, *DIVERGING_COLORMAPS):
        assert lookup_table(name).shape == (256, 4)
    with pytest.raises(ValueError, match=r"'rainbowish'.*viridis"):
        lookup_table("rainbowish")
