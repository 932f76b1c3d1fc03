"""Which layer carries how many rows, and that all of them show the same."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from napari.layers import Layer
from scipy import sparse

from napari_sclinguist import carriers
from napari_sclinguist.carriers.bins import BinsCarrier, find_grid
from napari_sclinguist.carriers.cell_levels import CellTable, LookupLevel, MeanLevel
from napari_sclinguist.carriers.cells import CellsCarrier, paint_discs
from napari_sclinguist.carriers.points import PointsCarrier
from napari_sclinguist.control.catalogue import Catalogue
from napari_sclinguist.control.view import View, picture
from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.colouring import lookup_table


def make_section(positions, obs=None, **arguments):
    """A section whose gene A counts its rows: 0, 1, 2, ..."""
    n = len(positions)
    counts = sparse.csr_matrix(np.column_stack([np.arange(n), np.ones(n)]).astype(np.float32))
    table = ad.AnnData(
        counts,
        obs=pd.DataFrame({} if obs is None else obs, index=[f"row{i}" for i in range(n)]),
        var=pd.DataFrame({"feature_types": "Gene Expression"}, index=["A", "B"]),
    )
    table.obs["number"] = np.arange(n, dtype=np.float32)
    table.obsm["spatial"] = np.asarray(positions, np.float64)
    return Section(name="made up", table=table, microns_per_pixel=0.5, **arguments)


@pytest.fixture
def bins():
    """Bins of 8 px on a lattice of 6 x 5 that is turned by ten degrees, two of them missing."""
    row, column = (axis.ravel() for axis in np.meshgrid(np.arange(6), np.arange(5), indexing="ij"))
    there = ~((row == 2) & (column < 2))
    row, column = row[there] + 100, column[there] + 40
    turn = np.deg2rad(10)
    x = 8 * (np.cos(turn) * column - np.sin(turn) * row)
    y = 8 * (np.sin(turn) * column + np.cos(turn) * row)
    obs = {"array_row": row, "array_col": column}
    positions = np.column_stack([x, y])
    return make_section(positions, obs, assay="visium_hd", spot_diameter=8.0)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2) * 20.0
    return make_section(grid + rng.uniform(-3, 3, grid.shape), assay="xenium", spot_diameter=10.0)


def number_view(**choices):
    return View(keys=("column:number",), **choices)


@pytest.fixture
def few_points(monkeypatch):
    monkeypatch.setattr(carriers, "MAX_POINTS", 10)


def test_the_carrier_follows_the_number_of_rows(bins, cells, few_points, section):
    assert isinstance(carriers.choose_carrier(bins), BinsCarrier)
    assert isinstance(carriers.choose_carrier(cells), CellsCarrier)
    assert isinstance(carriers.choose_carrier(section), PointsCarrier)


def test_bins_up_to_some_thousand_are_points(bins):
    assert isinstance(carriers.choose_carrier(bins), PointsCarrier)


def test_bins_lie_where_their_positions_are(bins):
    carrier = BinsCarrier(bins, find_grid(bins))
    layer = Layer.create(*carrier.layer_data(picture(Catalogue(bins), number_view())))
    assert np.isnan(layer.data).sum() == 2
    for row in (0, 7, 27):
        x, y = bins.positions[row]
        place = np.rint(layer.world_to_data((y * 0.5, x * 0.5))).astype(int)
        assert layer.data[tuple(place)] == row
        assert carrier.row_at(x, y) == row
    assert carrier.row_at(*(bins.positions.min(axis=0) - 100)) is None
    # the middle of the missing bins, between their neighbours in the column
    missing = bins.positions[[5, 13]].mean(axis=0)
    assert carrier.row_at(*missing) is None


def test_positions_that_follow_no_lattice_have_none(bins, cells):
    assert find_grid(cells) is None
    bins.table.obsm["spatial"][3] += 5.0
    assert find_grid(bins) is None


def test_two_bins_in_one_place_are_no_lattice(bins):
    bins.table.obs.iloc[1, :2] = bins.table.obs.iloc[0, :2]
    assert find_grid(bins) is None


def test_bins_switch_in_place(bins):
    carrier = BinsCarrier(bins, find_grid(bins))
    catalogue = Catalogue(bins)
    layer = Layer.create(*carrier.layer_data(picture(catalogue, number_view())))
    view = View(keys=("mRNA:A",), colormap="magma", opacity=0.5)
    shown = picture(catalogue, view)
    carrier.update(layer, shown)
    np.testing.assert_array_equal(
        layer.data[carrier.grid.rows, carrier.grid.columns], catalogue.values("mRNA:A")
    )
    assert layer.colormap.name == "matplotlib magma"
    assert layer.opacity == 0.5
    assert tuple(layer.contrast_limits) == pytest.approx(shown.channels[0].limits)


def test_bins_show_blended_colours(bins):
    carrier = BinsCarrier(bins, find_grid(bins))
    shown = picture(Catalogue(bins), View(keys=("column:number", "mRNA:A")))
    layer = Layer.create(*carrier.plain_layer_data(shown))
    np.testing.assert_array_equal(
        layer.data[carrier.grid.rows, carrier.grid.columns], shown.colours
    )
    assert (layer.data[2, :2] == 0).all()


def test_discs_are_round_and_the_nearest_centre_wins():
    labels = paint_discs(np.array([[10.0, 10.0], [10.0, 16.0]]), 9.0, (21, 30))
    assert labels[10, 10] == 1
    assert labels[10, 16] == 2
    assert labels[10, 12] == 1
    assert labels[10, 14] == 2
    assert labels[6, 6] == 0  # the corner of the square around the disc
    assert labels[10, 6] == 1
    assert labels[10, 5] == 0


def test_discs_at_the_edge_are_cut():
    labels = paint_discs(np.array([[0.0, 0.0]]), 5.0, (4, 4))
    assert labels[0].tolist() == [1, 1, 1, 0]


def test_a_level_is_looked_up_where_it_is_asked():
    labels = np.array([[0, 1], [2, 0]], np.int32)
    table = CellTable(2)
    level = LookupLevel(labels, table)
    assert np.isnan(level).all()
    table.write(np.array([5.0, 7.0]))
    assert (level.shape, level.ndim, level.size) == ((2, 2), 2, 4)
    assert level[0:1, 1:2].tolist() == [[5.0]]
    np.testing.assert_array_equal(np.asarray(level), [[np.nan, 5.0], [7.0, np.nan]])
    table = CellTable(2, colours=True)
    table.write(np.arange(8, dtype=np.uint8).reshape(2, 4))
    colours = LookupLevel(labels, table)
    assert colours.shape == (2, 2, 4)
    assert colours[1:2, 0:1, :3].tolist() == [[[4, 5, 6]]]
    assert np.asarray(colours)[0, 0].tolist() == [0, 0, 0, 0]


def test_from_afar_a_pixel_shows_the_mean_of_its_cells():
    # Three cells in the first pixel, two in the second, of which one reaches into the third.
    labels = np.array([[1, 4, 5, 0]], np.int32)
    table = CellTable(5)
    level = MeanLevel(labels, np.array([0, 0, 0, 1, 1]), table)
    table.write(np.array([1.0, 2.0, 6.0, 4.0, 8.0]))
    np.testing.assert_allclose(np.asarray(level), [[3.0, 6.0, 8.0, np.nan]])
    table.write(np.array([1.0, np.nan, 6.0, np.nan, np.nan]))  # unknown ones do not count
    np.testing.assert_allclose(np.asarray(level), [[3.5, np.nan, np.nan, np.nan]])
    assert level[0:1, 0:1].tolist() == [[3.5]]


def test_from_afar_colours_count_by_their_opacity():
    labels = np.array([[1, 4, 5, 0]], np.int32)
    table = CellTable(5, colours=True)
    level = MeanLevel(labels, np.array([0, 0, 0, 1, 1]), table)
    red, green, none = (200, 0, 0, 100), (0, 100, 0, 200), (9, 9, 9, 0)
    table.write(np.array([red, green, none, none, green], np.uint8))
    # 200 · 100 / 300 and 100 · 200 / 300, rounded; opacity (100 + 200 + 0) / 3.
    expected = [[67, 67, 0, 100], [0, 100, 0, 100], list(green), [0, 0, 0, 0]]
    assert np.asarray(level)[0].tolist() == expected
    table.write(np.zeros((5, 4), np.uint8))
    assert not np.asarray(level).any()


def test_cells_lie_where_their_positions_are_and_switch_in_place(cells):
    carrier = CellsCarrier(cells)
    catalogue = Catalogue(cells)
    layer = Layer.create(*carrier.layer_data(picture(catalogue, number_view())))
    for row in (0, 9, 63):
        x, y = cells.positions[row]
        place = np.rint(layer.world_to_data((y * 0.5, x * 0.5))).astype(int)
        assert np.asarray(layer.data[0])[tuple(place)] == row
        assert carrier.row_at(x, y) == row
    assert carrier.row_at(-500.0, -500.0) is None
    levels = list(layer.data)
    carrier.update(layer, picture(catalogue, View(keys=("mRNA:A",))))
    assert [a is b for a, b in zip(levels, layer.data, strict=True)] == [True] * len(levels)
    # what is drawn follows, also where napari keeps the smallest level of a pyramid
    drawn = layer._slice.image.raw
    np.testing.assert_array_equal(drawn, np.asarray(layer.data[layer.data_level]))
    row, column = np.argwhere(carrier.levels[0] == 10)[0]
    assert layer.data[0][row, column] == catalogue.values("mRNA:A")[9]


def test_coarse_levels_of_cells_are_means(monkeypatch, cells):
    monkeypatch.setattr("napari_sclinguist.carriers.cells._SMALLEST_LEVEL", 4)
    carrier = CellsCarrier(cells)
    catalogue = Catalogue(cells)
    shown = picture(catalogue, number_view())
    levels, arguments, kind = carrier.layer_data(shown)
    kinds = [type(level) for level in levels]
    first = kinds.index(MeanLevel)
    assert first > 0
    assert kinds == [LookupLevel] * first + [MeanLevel] * (len(kinds) - first)
    # Of the smallest one every pixel holds several cells: their sum stays that of all cells.
    coarse = levels[-1]
    counts = np.bincount(coarse.places, minlength=coarse.size).reshape(coarse.shape)
    assert counts.max() > 4
    layer = Layer.create(levels, arguments, kind)
    for key in ("column:number", "mRNA:A"):
        carrier.update(layer, picture(catalogue, View(keys=(key,))))
        total = (np.nan_to_num(np.asarray(layer.data[-1])) * counts).sum()
        assert total == pytest.approx(catalogue.values(key).sum(), rel=1e-5)


def test_many_cells_stay_within_the_largest_image(monkeypatch, cells):
    monkeypatch.setattr("napari_sclinguist.carriers.cells._MAX_SIDE", 60)
    carrier = CellsCarrier(cells)
    assert max(carrier.levels[0].shape) <= 61
    assert len(np.unique(carrier.levels[0])) == 65  # every cell still has a pixel, and the glass


def test_points_take_colours_size_and_colour_bar(section):
    catalogue = Catalogue(section)
    carrier = PointsCarrier(section)
    layer = Layer.create(*carrier.layer_data(picture(catalogue, View(keys=("column:score",)))))
    view = View(keys=("column:score",), colormap="magma", size=2.0, opacity=0.3)
    view = view.with_limits("column:score", (0.5, 3.5))
    carrier.update(layer, picture(catalogue, view))
    np.testing.assert_allclose(layer.face_color[[0, 3]], lookup_table("magma")[[0, 255]] / 255)
    assert layer.size[0] == 2 * section.drawn_diameter
    assert layer.opacity == 0.3
    assert layer.face_colorbar.visible
    assert tuple(layer.face_contrast_limits) == (0.5, 3.5)
    blended = picture(catalogue, View(keys=("column:score", "mRNA:CD19")))
    carrier.update(layer, blended)
    assert not layer.face_colorbar.visible
    np.testing.assert_allclose(layer.face_color, blended.colours / 255, atol=1e-6)


def test_the_row_under_a_position_is_found_within_its_disc(section):
    carrier = PointsCarrier(section)
    x, y = section.positions[2]
    assert carrier.row_at(x + 50, y) == 2  # 110 px wide
    assert carrier.row_at(x + 60, y) is None
