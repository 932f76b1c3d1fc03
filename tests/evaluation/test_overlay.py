"""Pictures: the right place, the right size, the right colours."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection

from evaluation.made_up import add_positions, make_cells, read_png
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import overlay, spots
from sclinguist_core.evaluation.colouring import Channel, blend, fade, shade
from sclinguist_core.evaluation.inputs import as_section


@pytest.fixture
def section():
    return as_section(add_positions(make_cells(100)))


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
    zero, high = panels[1].collections[0].get_facecolor()[[0, 99], :3]
    assert zero.min() > 0.95  # white in the middle of blue and red
    assert high[0] > 2 * high[2]


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


def test_many_cells_are_painted_into_an_image(section, monkeypatch):
    monkeypatch.setattr(spots, "_PAINTED_FROM", 50)
    feature = overlay.Feature(values=np.arange(100.0), title="CD3", limits=(0, 99))
    figure = overlay.overlay_figure(section, feature, style=overlay.Style(opacity=0.5))
    ax = figure.axes[0]
    assert len(ax.collections) == 0
    painted = ax.images[-1]
    shown = painted.get_array()
    shown = shown[shown[..., 3] > 0]
    expected = overlay.panel_colours(feature)
    assert {tuple(colour) for colour in shown} == {tuple(colour) for colour in expected}
    assert painted.get_alpha() == 0.5
    left, right, top, bottom = overlay.tissue_bounds(section)
    assert painted.get_extent() == [left, right, bottom, top]


def test_painted_discs_are_round_and_the_nearest_centre_wins():
    red, blue = (255, 0, 0, 255), (0, 0, 255, 255)
    positions = np.array([[10.0, 10.0], [16.0, 10.0]])
    image = spots.paint(positions, np.array([red, blue], np.uint8), 10.0, (0, 40, 0, 20))
    assert image.shape == (10, 20, 4)  # half a pixel a unit: five pixels across a disc
    assert image[5, 5].tolist() == list(red)
    assert image[5, 8].tolist() == list(blue)
    assert image[5, 7].tolist() == list(blue)
    assert image[3, 3, 3] == 0  # a corner of the square around the disc
    assert image[:, 12:, 3].max() == 0


@pytest.mark.parametrize("pitch", [1.0, 1.7, 8.0])
def test_painted_squares_leave_no_gaps(pitch, monkeypatch):
    monkeypatch.setattr(spots, "_PAINTED_SIDE", 120)
    rows, columns = (axis.ravel() for axis in np.mgrid[:60, :60])
    positions = np.column_stack([columns, rows]) * pitch + 3.3
    colours = np.full((3600, 4), 255, np.uint8)
    side = 60 * pitch
    edges = (3.3 - pitch / 2, 3.3 + side - pitch / 2)
    image = spots.paint(positions, colours, pitch, (*edges, *edges), squares=True)
    assert (image[..., 3] == 255).all()


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


def test_colours_are_those_of_the_window():
    values, others = np.linspace(-1, 1, 100), np.linspace(2, 0, 100)
    certainty = np.linspace(0, 1, 100)
    one = overlay.Feature(
        values=values, title="CD3", limits=(-0.5, 0.8), threshold=0.1, cmap="cividis"
    )
    two = overlay.Feature(values=others, title="CD4", limits=(0.0, 2.0), certainty=certainty)
    style = overlay.Style(unknown=None)
    channels = [
        Channel(values=values, limits=(-0.5, 0.8), threshold=0.1),
        Channel(values=others, limits=(0.0, 2.0)),
    ]
    np.testing.assert_array_equal(overlay.panel_colours(one, style), shade(channels[0], "cividis"))
    np.testing.assert_array_equal(
        overlay.panel_colours([one, two], style), fade(blend(channels), certainty)
    )


def test_spots_without_a_colour_are_not_in_the_file(section):
    values = np.arange(100.0)
    values[:10] = np.nan
    feature = overlay.Feature(values=values, title="CD3", threshold=50.0)
    figure = overlay.overlay_figure(section, feature, style=overlay.Style(unknown=None))
    (drawn,) = figure.axes[0].collections
    np.testing.assert_array_equal(drawn.get_offsets(), section.positions[50:])
    figure = overlay.overlay_figure(section, feature)
    assert len(figure.axes[0].collections[0].get_offsets()) == 60  # and ten grey ones


def test_a_part_of_the_section_is_drawn_alone(section):
    left, right, top, bottom = overlay.tissue_bounds(section)
    bounds = (left, (left + right) / 2, top, (top + bottom) / 3)
    feature = overlay.Feature(values=np.arange(100.0), title="CD3")
    figure = overlay.overlay_figure(section, feature, width=3.0, bounds=bounds)
    ax = figure.axes[0]
    assert (ax.get_xlim(), ax.get_ylim()) == (bounds[:2], bounds[:1:-1])
    offsets = ax.collections[0].get_offsets()
    assert 0 < len(offsets) < 50
    assert (offsets[:, 0] < bounds[1] + section.drawn_diameter).all()
    assert ax.images[0].get_extent()[1] <= bounds[1] + 1
    inches = ax.get_position().bounds[2] * figure.get_figwidth()
    assert inches == pytest.approx(3.0)


def test_tissue_is_pale_or_in_its_own_colours(section):
    feature = overlay.Feature(values=np.arange(100.0), title="CD3")
    pale = overlay.overlay_figure(section, feature).axes[0].images[0]
    style = overlay.Style(tissue=0.4)
    own = overlay.overlay_figure(section, feature, style=style).axes[0].images[0]
    assert pale.get_alpha() is None
    assert own.get_alpha() == 0.4
    assert np.asarray(pale.get_array()).mean() > np.asarray(own.get_array()).mean()
    none = overlay.overlay_figure(section, feature, style=overlay.Style(tissue=0.0))
    assert len(none.axes[0].images) == 0


def test_a_difference_is_one_of_z_scores(section):
    rng = np.random.default_rng(0)
    a, b = rng.normal(5, 2, 100), rng.normal(-1, 0.1, 100)
    a[3] = np.nan
    feature = overlay.difference(
        overlay.Feature(values=a, title="A"), overlay.Feature(values=b, title="B")
    )
    known = np.isfinite(a)
    x, y = ((side - side[known].mean()) / side[known].std() for side in (a, b))
    np.testing.assert_allclose(feature.values, x - y, rtol=1e-5, atol=1e-6)
    assert np.isnan(feature.values[3])
    assert feature.diverging


def test_a_title_fits_the_figure(section):
    feature = overlay.Feature(values=np.arange(100.0), title="CD3 " * 30)
    figure = overlay.overlay_figure(section, feature, width=3.0, title="A section " * 8)
    figure.canvas.draw()
    (title,) = figure.texts
    edge = figure.bbox.width
    assert title.get_window_extent().x1 <= edge
    short = overlay.overlay_figure(section, feature, title="A section").texts[0]
    assert short.get_fontsize() > title.get_fontsize()


def test_more_features_than_colours_are_refused(section):
    features = [overlay.Feature(values=np.arange(100.0), title=str(i)) for i in range(4)]
    with pytest.raises(ValueError, match="found 4, expected at most 3"):
        overlay.overlay_figure(section, [features])
