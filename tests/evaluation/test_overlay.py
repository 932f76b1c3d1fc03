"""Pictures: the right place, the right size, the right colours."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection

from evaluation.made_up import add_positions, make_cells, read_png
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import overlay
from sclinguist_core.evaluation.inputs import as_section


@pytest.fixture
def section():
    return as_section(add_positions(make_cells(100)))


def test_limits_are_percentiles_that_ignore_outliers_and_gaps():
    values = np.concatenate([np.linspace(0, 1, 1001), [50.0, np.nan, np.inf]])
    low, high = overlay.colour_limits(values)
    assert (low, high) == pytest.approx((0.01, 0.99), abs=0.01)


def test_a_sparse_feature_is_not_black():
    values = np.zeros(1000)
    values[:8] = [1, 2, 3, 4, 5, 6, 7, 8]  # the 99th percentile is 0
    low, high = overlay.colour_limits(values)
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
    assert overlay.colour_limits(values) == expected


def test_differences_are_centred_on_zero():
    low, high = overlay.colour_limits(np.linspace(-1, 3, 100), diverging=True)
    assert low == -high
    assert high == pytest.approx(3, abs=0.1)
    assert overlay.colour_limits([], diverging=True) == (-1, 1)
    assert overlay.colour_limits([0, 0], diverging=True) == (-1, 1)


@pytest.mark.parametrize(
    ("width", "length"), [(6500, 1000), (900, 100), (11000, 2000), (55, 10), (2600, 500)]
)
def test_scale_bars_are_round(width, length):
    assert overlay.scale_bar_length(width) == length


def test_spots_stand_at_their_place_in_their_size(section):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    overlay.draw(ax, section, overlay.Feature(values=np.arange(100.0), title="CD3"))
    (spots,) = (c for c in ax.collections if isinstance(c, EllipseCollection))
    np.testing.assert_allclose(spots.get_offsets(), section.positions)
    np.testing.assert_allclose(spots._widths * 2, section.drawn_diameter)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # y grows downwards, as in the image
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    assert (right - left, bottom - top) == image.get_array().shape[1::-1]


def test_png_shows_values_over_faded_tissue(section, tmp_path):
    values = np.where(np.arange(100) < 50, 0.0, 1.0)
    figure = overlay.overlay_figure(section, overlay.Feature(values=values, title="CD3"))
    path = overlay.save_figure(figure, tmp_path / "cd3.png", dpi=60)
    pixels = read_png(path).reshape(-1, 3).astype(int)
    magma_low, magma_high = (0, 0, 4), (252, 253, 191)
    for colour in (magma_low, magma_high):
        share = (np.abs(pixels - colour).max(axis=1) < 6).mean()
        assert 0.03 < share < 0.4, f"{colour}: {share}"
    tissue = np.abs(pixels - (234, 228, 231)).max(axis=1) < 8
    assert tissue.mean() > 0.1
    assert [p.name for p in tmp_path.iterdir()] == ["cd3.png"]


def test_svg_has_text_and_no_mathematics_from_names(section, tmp_path):
    feature = overlay.Feature(values=np.ones(100), title="CD3 $\\frac$ <b>", unit="$x^$")
    path = overlay.save_figure(overlay.overlay_figure(section, feature), tmp_path / "a.svg")
    text = path.read_text("utf-8")
    assert text.startswith("<?xml")
    assert "</svg>" in text


def test_panels_stand_side_by_side_also_without_values(section):
    figure = overlay.overlay_figure(
        section,
        [
            overlay.Feature(values=np.arange(100.0), title="predicted", unit="SD"),
            overlay.Feature(values=np.arange(100.0), title="difference", diverging=True),
            overlay.Feature(values=None, title="mRNA", missing="no coding gene"),
        ],
    )
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == ["predicted", "difference", "mRNA"]
    assert len({round(ax.get_position().y0, 6) for ax in panels}) == 1
    assert len(figure.axes) == 5  # three panels, two colour bars
    assert "no coding gene" in [t.get_text() for t in panels[2].texts]
    assert panels[1].collections[0].get_cmap().name == "RdBu_r"


def test_unknown_values_are_grey(section, tmp_path):
    figure = overlay.overlay_figure(section, overlay.Feature(values=np.full(100, np.nan), title=""))
    pixels = read_png(overlay.save_figure(figure, tmp_path / "a.png", dpi=50)).reshape(-1, 3)
    grey = np.abs(pixels.astype(int) - (213, 217, 223)).max(axis=1) < 4
    assert grey.mean() > 0.08


def test_scale_bar_only_where_the_pixel_size_is_known(section):
    from dataclasses import replace

    feature = overlay.Feature(values=np.arange(100.0), title="CD3")
    known = overlay.overlay_figure(section, feature)
    assert [t.get_text() for t in known.axes[0].texts] == ["100 µm"]
    unknown = overlay.overlay_figure(replace(section, microns_per_pixel=None), feature)
    assert len(unknown.axes[0].texts) == 0


def test_cells_without_a_diameter_do_not_overlap(section):
    from dataclasses import replace

    assert replace(
        section, spot_diameter=None, microns_per_pixel=None
    ).drawn_diameter == pytest.approx(0.9 * 30)


def test_many_cells_are_drawn_as_a_map(section, monkeypatch):
    monkeypatch.setattr(overlay, "_BINNED_FROM", 50)
    figure = overlay.overlay_figure(
        section, overlay.Feature(values=np.arange(100.0), title="CD3", limits=(0, 99))
    )
    ax = figure.axes[0]
    assert len(ax.collections) == 0
    shown = ax.images[-1].get_array().compressed()
    assert sorted(shown) == list(range(100))


def test_montage_has_a_panel_a_column(section):
    frame = pd.DataFrame(np.random.default_rng(0).random((100, 7)), columns=list("abcdefg"))
    figure = overlay.montage_figure(section, frame, unit="SD", columns=3)
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert titles == list("abcdefg")


def test_dissociated_cells_and_wrong_lengths_are_refused(section):
    with pytest.raises(InputError, match="no positions"):
        overlay.overlay_figure(
            as_section(make_cells(20)), overlay.Feature(values=np.ones(20), title="CD3")
        )
    with pytest.raises(ValueError, match=r"'CD3' have shape \(3,\), expected \(100,\)"):
        overlay.overlay_figure(section, overlay.Feature(values=np.ones(3), title="CD3"))


def test_a_failed_save_leaves_nothing(section, tmp_path):
    figure = overlay.overlay_figure(section, overlay.Feature(values=np.ones(100), title="CD3"))
    with pytest.raises(ValueError, match="not supported"):
        overlay.save_figure(figure, tmp_path / "a.xyz")
    assert list(tmp_path.iterdir()) == []
