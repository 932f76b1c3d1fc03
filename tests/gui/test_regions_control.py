"""Regions and groups without a window: shapes to rows, names, files, comparisons."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from napari.utils._test_utils import read_only_mouse_event
from napari.utils.interactions import (
    mouse_double_click_callbacks,
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from scipy import stats

from gui.at_once import workspace_of
from gui.compared_section import make_section
from napari_sclinguist.control import group_comparison, groupings, region_groups
from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.group_comparison import GroupComparing, GroupQuestion
from napari_sclinguist.control.groups import save_group
from napari_sclinguist.control.region_drawing import COLOURS, RegionDrawing
from napari_sclinguist.control.region_groups import RegionGroups
from napari_sclinguist.control.regions import (
    REGIONS_KEY,
    drawn_regions,
    from_text,
    from_uns,
    label_rows,
    outline_of,
    parts_of,
    regions_layer,
    to_text,
)
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.regions import Region, inside, read_geojson, write_geojson
from sclinguist_core.data.write import section_table, write_table
from sclinguist_core.errors import InputError

# Spots of `make_section` lie on a lattice of 8 x 8: x and y are 50, 150, … 750.


def box(left, top, right, bottom):
    """Corners as napari has them: rows and columns."""
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]], float)


def square(name, left, top, side, hole=None):
    outlines = [box(left, top, left + side, top + side)[:, ::-1]]
    if hole is not None:
        x, y, inner = hole
        outlines.append(box(x, y, x + inner, y + inner)[:, ::-1])
    return Region(name, tuple(outlines))


@pytest.fixture
def section():
    return make_section(64)


@pytest.fixture
def workspace(section):
    return workspace_of(section)


@pytest.fixture
def opened(workspace):
    return workspace.active


@pytest.fixture
def groups(workspace):
    return RegionGroups(workspace)


@pytest.fixture
def drawn(groups):
    """Two regions: 16 spots at the upper left, 16 at the lower right."""
    groups.drawing.draw("Rectangle")
    layer = groups.drawing.layer
    layer.add(box(0, 0, 400, 400), shape_type="rectangle")
    layer.add(box(400, 400, 800, 800), shape_type="rectangle")
    return groups


def within(section, left, top, right, bottom):
    x, y = section.positions.T
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def rows_of(groups, name):
    return groups.labels.within(name)


# --- shapes ---------------------------------------------------------------------------------


def test_a_drawn_rectangle_holds_the_spots_within_it(groups, section):
    groups.drawing.draw("Rectangle")
    groups.drawing.layer.add(box(100, 200, 500, 400), shape_type="rectangle")
    (region,) = drawn_regions(groups.opened)
    assert region.polygons[0][:, 0].min() == 100  # x, although napari's first axis is y
    np.testing.assert_array_equal(rows_of(groups, "region 1"), within(section, 100, 200, 500, 400))
    assert rows_of(groups, "region 1").sum() == 8


def test_an_ellipse_is_its_outline_and_not_the_box_around_it(groups, section):
    groups.drawing.draw("Ellipse")
    groups.drawing.layer.add(box(100, 200, 700, 600), shape_type="ellipse")
    x, y = section.positions.T
    expected = ((x - 400) / 300) ** 2 + ((y - 400) / 200) ** 2 < 1
    np.testing.assert_array_equal(rows_of(groups, "region 1"), expected)
    assert expected.sum() < within(section, 100, 200, 700, 600).sum()


def test_a_turned_ellipse_is_turned():
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    corners = np.array([[-2, -1], [-2, 1], [2, 1], [2, -1]]) @ turn.T
    outline = outline_of(corners, "ellipse")[:, ::-1] @ turn
    np.testing.assert_allclose((outline[:, 0] / 2) ** 2 + outline[:, 1] ** 2, 1, atol=1e-12)


@pytest.mark.parametrize("kind", ["polygon", "path"])
def test_freehand_outlines_hold_what_they_enclose(groups, section, kind):
    groups.drawing.draw("Freehand")
    groups.drawing.layer.add(np.array([[0, 0], [0, 800], [800, 0]]), shape_type=kind)
    x, y = section.positions.T
    away = np.abs(x + y - 800) > 1e-6  # those on the outline fall on either side
    np.testing.assert_array_equal(rows_of(groups, "region 1")[away], (x + y < 800)[away])


@pytest.mark.parametrize(
    ("points", "kind"),
    [
        ([[0, 0], [5, 5]], "line"),
        ([[0, 0], [5, 5], [0, 0]], "polygon"),
        ([[1, 1]] * 4, "ellipse"),
        ([[0, 0], [5, 5], [9, 9], [2, 2]], "polygon"),  # freehand, to and fro
        ([[0, 0], [0, 5], [0, 5], [0, 0]], "ellipse"),
    ],
)
def test_what_encloses_nothing_is_no_region(points, kind):
    assert outline_of(np.array(points), kind) is None


def test_a_bow_tie_encloses_two_triangles_whose_signed_areas_cancel():
    tie = np.array([[0, 0], [10, 10], [10, 0], [0, 10]])
    np.testing.assert_array_equal(outline_of(tie, "polygon"), tie[:, ::-1])


def test_a_drag_to_and_fro_leaves_the_other_regions_readable(drawn, section):
    drawn.drawing.layer.add(np.array([[0, 0], [50, 50], [90, 90]]), shape_type="polygon")
    assert [one.name for one in drawn.groups()] == ["region 1", "region 2"]
    again = RegionGroups(workspace_of(replace(section, table=section.table.copy())))
    again.draw("Polygon")
    assert [(one.name, one.n_rows) for one in again.groups()] == [
        ("region 1", 16),
        ("region 2", 16),
    ]


def test_a_region_that_encloses_nothing_is_left_out_of_the_text_and_on_reading():
    flat = Region("flat", (np.array([[0.0, 0.0], [5, 5], [9, 9]]),))
    text = to_text([flat, square("a", 0, 0, 10)])
    assert [one["properties"]["name"] for one in json.loads(text)["features"]] == ["a"]
    empty = {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": []},
        "properties": {"name": "flat"},
    }
    content = json.loads(text)
    content["features"].insert(0, empty)
    assert [one.name for one in from_text(json.dumps(content), "x")] == ["a"]


def test_edges_on_a_section_of_one_spot_can_be_seen(section):
    alone = replace(section, table=section.table[:1].copy())
    groups = RegionGroups(workspace_of(alone))
    groups.draw("Rectangle")
    assert groups.drawing.layer.current_edge_width > 0
    groups.drawing.layer.add(box(0, 0, 100, 100), shape_type="rectangle")
    assert groups.drawing.layer.edge_width[0] == pytest.approx(0.005 * alone.drawn_diameter)


def test_where_regions_overlap_the_last_one_wins_and_it_is_counted(groups, section):
    groups.drawing.draw("Rectangle")
    layer = groups.drawing.layer
    layer.add(box(0, 0, 400, 400), shape_type="rectangle")
    layer.add(box(300, 300, 600, 600), shape_type="rectangle")
    first, second = within(section, 0, 0, 400, 400), within(section, 300, 300, 600, 600)
    np.testing.assert_array_equal(rows_of(groups, "region 2"), second)
    np.testing.assert_array_equal(rows_of(groups, "region 1"), first & ~second)
    assert groups.labels.n_overlapping == (first & second).sum() == 1
    assert [one.n_rows for one in groups.groups()] == [15, 9]


def test_the_layer_lies_where_the_spots_lie(groups, opened, section):
    groups.drawing.draw("Polygon")
    layer = regions_layer(opened)
    np.testing.assert_array_equal(layer.scale, opened.spots.scale)
    assert layer.units == opened.spots.units
    assert layer.name == "compared regions"
    assert layer.mode == "add_polygon"
    assert layer.metadata["sclinguist"] == {"section": section, "role": "regions"}
    assert opened.viewer.layers.selection.active is layer
    groups.draw("")
    assert layer.mode == "pan_zoom"
    groups.draw("Ellipse")
    assert groups.drawing.layer is layer
    assert groups.drawing.tool == "Ellipse"
    assert [one.name for one in opened.viewer.layers].count("compared regions") == 1


def test_drawing_needs_one_picture(groups, opened):
    opened.viewer.canvas.grid.enabled = True
    groups.draw("Polygon")
    assert not opened.viewer.canvas.grid.enabled


# --- names ----------------------------------------------------------------------------------


def test_names_follow_their_shapes(drawn):
    drawing = drawn.drawing
    drawing.layer.add(box(0, 400, 400, 800), shape_type="ellipse")
    drawing.rename("region 2", "  follicle ")
    assert drawing.layer.features["name"].tolist() == ["region 1", "follicle", "region 3"]
    assert list(drawing.colours.items()) == [
        ("region 1", COLOURS[0]),
        ("follicle", COLOURS[1]),
        ("region 3", COLOURS[2]),
    ]
    drawing.remove("region 1")
    assert [one.name for one in drawn.groups()] == ["follicle", "region 3"]
    assert [one.colour for one in drawn.groups()] == [COLOURS[1], COLOURS[2]]
    drawing.layer.add(box(0, 0, 100, 100), shape_type="rectangle")
    assert drawing.layer.features["name"].tolist() == ["follicle", "region 3", "region 1"]
    assert drawing.colours["region 1"] == COLOURS[0]


def test_a_region_of_two_shapes_is_one_group(drawn, section):
    drawn.rename("region 2", "region 1")
    (group,) = drawn.groups()
    assert (group.name, group.n_rows) == ("region 1", 32)
    expected = within(section, 0, 0, 400, 400) | within(section, 400, 400, 800, 800)
    np.testing.assert_array_equal(rows_of(drawn, "region 1"), expected)
    assert drawn.labels.n_overlapping == 0


def test_an_empty_name_is_not_taken(drawn):
    drawn.rename("region 1", "   ")
    assert [one.name for one in drawn.groups()] == ["region 1", "region 2"]


def test_a_copied_shape_belongs_to_the_same_region(drawn):
    layer = drawn.drawing.layer
    layer.selected_data = {0}
    layer._copy_data()
    layer._paste_data()
    assert layer.features["name"].tolist() == ["region 1", "region 2", "region 1"]
    assert sorted(one.name for one in drawn.groups()) == ["region 1", "region 2"]


def event(kind, x, y):
    return read_only_mouse_event(type=kind, position=(y * 0.5, x * 0.5), pos=np.array([y, x]))


def click(layer, x, y):
    mouse_move_callbacks(layer, event("mouse_move", x, y))
    mouse_press_callbacks(layer, event("mouse_press", x, y))
    mouse_release_callbacks(layer, event("mouse_release", x, y))


def test_a_polygon_clicked_on_the_canvas_becomes_a_region(groups, section):
    groups.draw("Polygon")
    layer = groups.drawing.layer
    for x, y in ((10, 10), (390, 10), (390, 390), (10, 390)):
        click(layer, x, y)
        assert groups.groups() == []  # not before it is finished
    mouse_double_click_callbacks(layer, event("mouse_double_click", 10, 390))
    (group,) = groups.groups()
    assert (group.name, group.n_rows) == ("region 1", 16)
    np.testing.assert_array_equal(rows_of(groups, "region 1"), within(section, 0, 0, 400, 400))


@pytest.mark.parametrize("how", ["by a double click", "by putting the tool away"])
def test_a_drawing_that_is_given_up_leaves_nothing(drawn, how):
    drawn.draw("Polygon")
    layer = drawn.drawing.layer
    click(layer, 10, 10)
    click(layer, 390, 10)
    if how == "by a double click":
        mouse_double_click_callbacks(layer, event("mouse_double_click", 390, 10))
    drawn.draw("")
    assert layer.features["name"].tolist() == ["region 1", "region 2"]
    assert len(layer.data) == 2
    layer.add(box(0, 400, 300, 700), shape_type="rectangle")
    assert layer.features["name"].tolist() == ["region 1", "region 2", "region 3"]


# --- kept with the table --------------------------------------------------------------------


def test_regions_with_holes_come_back_as_they_were(groups, section):
    region = square("ring", 100, 100, 600, hole=(300, 300, 200))
    groups.drawing.add([region])
    layer = groups.drawing.layer
    assert layer.features["hole"].tolist() == [False, True]
    expected = within(section, 100, 100, 700, 700) & ~within(section, 300, 300, 500, 500)
    assert expected.sum() == 32
    np.testing.assert_array_equal(rows_of(groups, "ring"), expected)
    (back,) = from_uns(groups.opened)
    assert back.name == "ring"
    np.testing.assert_array_equal(inside(back, section.positions), expected)
    content = json.loads(section.table.uns[REGIONS_KEY])
    assert [len(polygon) for polygon in content["features"][0]["geometry"]["coordinates"]] == [2]


def test_parts_of_an_island_in_a_hole(section):
    sides = ((0, 800), (200, 400), (300, 200))
    nested = tuple(square("a", start, start, side).polygons[0] for start, side in sides)
    region = Region("a", nested)
    assert [part.hole for part in parts_of(region)].count(True) == 1
    (back,) = from_text(to_text([region]), "here")
    np.testing.assert_array_equal(
        inside(back, section.positions), inside(region, section.positions)
    )


def test_a_self_crossing_outline_stays_what_it_is(groups, section):
    bow_tie = Region("a", (np.array([[0, 0], [800, 800], [800, 0], [0, 800.0]]),))
    groups.drawing.add([bow_tie])
    x, y = section.positions.T
    expected = np.abs(y - 400) < np.abs(x - 400)
    away = np.abs(np.abs(y - 400) - np.abs(x - 400)) > 1
    np.testing.assert_array_equal(rows_of(groups, "a")[away], expected[away])


def test_regions_return_when_a_saved_file_is_opened(drawn, section, tmp_path):
    drawn.rename("region 1", "follicle")
    drawn.keep()
    assert drawn.opened.dirty
    path = write_table(section_table(section), tmp_path / "saved.h5ad")
    again = open_section(path)
    kept = again.table.obs["sclinguist_kept"]
    assert kept.value_counts().to_dict() == {"follicle": 16, "region 2": 16}
    workspace = workspace_of(again)
    groups = RegionGroups(workspace)
    assert groups.drawing.has_saved
    assert groups.groups() == []
    groups.show_saved()
    assert not groups.drawing.has_saved
    assert [(one.name, one.n_rows) for one in groups.groups()] == [
        ("follicle", 16),
        ("region 2", 16),
    ]
    np.testing.assert_array_equal(rows_of(groups, "follicle"), (kept == "follicle").to_numpy())


def test_drawing_does_not_overwrite_saved_regions(drawn):
    opened = drawn.opened
    opened.viewer.layers.remove(drawn.drawing.layer)
    assert drawn.drawing.has_saved
    assert drawn.groups() == []
    drawn.draw("Polygon")
    assert [one.name for one in drawn.groups()] == ["region 1", "region 2"]
    assert len(from_uns(opened)) == 2


def test_imported_regions_are_added_to_saved_ones(drawn):
    drawn.opened.viewer.layers.remove(drawn.drawing.layer)
    drawn.drawing.add([square("new", 0, 500, 200)])
    assert [one.name for one in drawn.groups()] == ["region 1", "region 2", "new"]


def test_saved_regions_that_cannot_be_read_are_said_and_not_overwritten(workspace, groups):
    uns = workspace.active.section.table.uns
    uns[REGIONS_KEY] = "{}"
    groups.draw("Polygon")
    assert "uns['sclinguist_regions'] of 'compared' cannot be read" in workspace.heard[-1]
    assert uns[REGIONS_KEY] == "{}"
    assert regions_layer(workspace.active) is None


def test_without_regions_nothing_is_kept(drawn):
    drawn.remove("region 1")
    drawn.remove("region 2")
    assert REGIONS_KEY not in drawn.opened.section.table.uns
    assert drawn.groups() == []


# --- files ----------------------------------------------------------------------------------


def test_geojson_comes_and_goes(workspace, groups, section, tmp_path):
    path = write_geojson([square("a", 0, 0, 400), square("b", 400, 0, 300)], tmp_path / "r.geojson")
    groups.import_regions(path)
    assert [(one.name, one.n_rows) for one in groups.groups()] == [("a", 16), ("b", 9)]
    assert workspace.heard == []
    written = tmp_path / "out.geojson"
    groups.export_regions(written)
    labels, _ = label_rows(read_geojson(written), section.positions)
    assert labels.equals(groups.labels.of_rows)
    groups.export_regions(tmp_path / "nowhere" / "out.geojson")
    assert "Cannot write" in workspace.heard[-1]


def test_geojson_in_microns_is_scaled(groups, tmp_path):
    # 0.5 µm a pixel: a square of 200 µm is one of 400 pixels
    path = write_geojson([square("a", 0, 0, 200)], tmp_path / "r.geojson")
    groups.import_regions(path, microns=True)
    assert [one.n_rows for one in groups.groups()] == [16]


def test_regions_beside_the_section_offer_to_be_read_otherwise(workspace, groups, tmp_path):
    messages = []
    workspace.message.connect(messages.append)
    path = write_geojson([square("a", 400, 400, 300)], tmp_path / "far.geojson")
    groups.import_regions(path, microns=True)  # beyond the last spot
    assert groups.groups() == []
    assert messages[-1].text == (
        "The regions of 'far.geojson', read in µm, hold no spots; check that they belong to this "
        "section."
    )
    assert messages[-1].action.label == "Read as pixels"
    messages[-1].action.run()
    assert [one.n_rows for one in groups.groups()] == [9]


def test_without_the_size_of_a_pixel_microns_are_not_offered(section, tmp_path):
    workspace = workspace_of(replace(section, microns_per_pixel=None))
    messages = []
    workspace.message.connect(messages.append)
    path = write_geojson([square("a", 5000, 5000, 300)], tmp_path / "far.geojson")
    RegionGroups(workspace).import_regions(path)
    assert messages[-1].action is None


def test_files_that_are_no_regions_are_refused(workspace, groups, tmp_path, monkeypatch):
    path = tmp_path / "r.geojson"
    path.write_text("nonsense")
    groups.import_regions(path)
    assert "is not JSON" in workspace.heard[-1]
    monkeypatch.setattr(region_groups, "MOST_REGIONS", 2)
    write_geojson([square(name, 0, 0, 400) for name in "abc"], path)
    groups.import_regions(path)
    assert "holds 3 regions, expected at most 2" in workspace.heard[-1]
    assert groups.groups() == []


def loupe_file(path, section, **columns):
    table = pd.DataFrame(columns, index=pd.Index(section.table.obs_names, name="Barcode"))
    table.to_csv(path)
    return path


def test_loupe_categories_become_groups(groups, section, tmp_path):
    clusters = np.where(np.arange(64) < 20, "Cluster 2", "Cluster 10")
    path = loupe_file(tmp_path / "c.csv", section, Graph=clusters)
    groups.import_categories(path, lambda columns: pytest.fail("asked about one column"))
    assert groups.title == "Graph (imported)"
    assert [(one.name, one.n_rows) for one in groups.groups()] == [
        ("Cluster 2", 20),
        ("Cluster 10", 44),
    ]
    np.testing.assert_array_equal(rows_of(groups, "Cluster 2"), np.arange(64) < 20)


def test_of_several_categories_one_is_chosen(workspace, groups, section, tmp_path):
    path = loupe_file(tmp_path / "c.csv", section, a=["x"] * 64, b=["y"] * 64)
    asked = []
    groups.import_categories(path, lambda columns: asked.append(columns))  # given up
    assert asked == [["a", "b"]]
    assert groups.is_drawn
    groups.import_categories(path, lambda columns: "b")
    assert [one.name for one in groups.groups()] == ["y"]
    other = loupe_file(tmp_path / "d.csv", section, a=["x"] * 64)
    other.write_text(other.read_text().replace("spot", "place"))
    groups.import_categories(other, lambda columns: None)
    assert "0 of 64 barcodes" in workspace.heard[-1]


# --- groupings ------------------------------------------------------------------------------


def test_columns_with_groups_are_offered(opened, groups):
    obs = opened.section.table.obs
    obs["cluster"] = pd.Categorical(np.arange(64) % 3)
    obs["layer"] = np.where(np.arange(64) < 10, "top", "rest")
    obs["inside"] = np.arange(64) < 5
    obs["score"] = np.arange(64.0)
    obs["number"] = np.arange(64) % 2
    obs["barcode"] = [f"x{i}" for i in range(64)]
    obs["unknown"] = pd.Categorical([None] * 64)
    found = {one.key: one.names for one in groups.groupings()}
    assert found == {
        "drawn": (),
        "column:cluster": ("0", "1", "2"),
        "column:layer": ("rest", "top"),
        "column:inside": ("False", "True"),
    }
    groups.choose("column:cluster")
    assert [(one.name, one.n_rows) for one in groups.groups()] == [("0", 22), ("1", 21), ("2", 21)]
    groups.choose("column:inside")
    np.testing.assert_array_equal(rows_of(groups, "True"), np.arange(64) < 5)
    del obs["inside"]
    opened.contents_changed.emit()
    assert groups.is_drawn


def test_the_selection_is_a_group(opened, groups):
    opened.select(np.arange(64) < 7)
    groups.choose("selected")
    assert [(one.name, one.n_rows) for one in groups.groups()] == [
        ("selected", 7),
        ("not selected", 57),
    ]
    opened.select(np.arange(64) < 9)
    assert groups.groups()[0].n_rows == 9
    opened.select(None)
    assert groups.is_drawn


def test_groups_that_are_gone_or_empty_are_said(opened):
    with pytest.raises(InputError, match="No region is drawn in 'compared'"):
        groupings.labels_of(opened, "drawn")
    with pytest.raises(InputError, match="No spots of 'compared' are selected"):
        groupings.labels_of(opened, "selected")
    with pytest.raises(InputError, match="has no groups 'cluster' any more"):
        groupings.labels_of(opened, "column:cluster")
    opened.section.table.obs["cluster"] = pd.Categorical(["a"] * 64, categories=["a", "b"])
    with pytest.raises(InputError, match="Group 'b' of 'compared' holds no spots"):
        groupings.rows_of(opened, "column:cluster", "b")()


def test_selecting_and_keeping_a_group(drawn, opened, section):
    drawn.select("region 2")
    np.testing.assert_array_equal(opened.selected, within(section, 400, 400, 800, 800))
    heard = []
    opened.contents_changed.connect(lambda: heard.append("contents"))
    drawn.keep()
    kept = section.table.obs["sclinguist_kept"]
    assert isinstance(kept.dtype, pd.CategoricalDtype)
    np.testing.assert_array_equal(kept == "region 1", within(section, 0, 0, 400, 400))
    assert kept.isna().sum() == 32
    assert opened.dirty
    assert heard == ["contents"]
    drawn.choose("column:sclinguist_kept")
    assert [one.n_rows for one in drawn.groups()] == [16, 16]


def test_kept_groups_and_groups_saved_by_name_leave_each_other_alone(drawn, opened, section):
    opened.select(np.arange(64) < 3)
    save_group(opened, "follicle")
    drawn.keep()
    drawn.remove("region 1")
    drawn.keep()
    obs = section.table.obs
    assert obs["sclinguist_group"].value_counts().to_dict() == {"follicle": 3}
    assert obs["sclinguist_kept"].value_counts().to_dict() == {"region 2": 16}


def test_every_section_has_its_own_regions(workspace, drawn):
    first = workspace.active
    other = replace(make_section(64, seed=1), name="other")
    second = workspace_of_more(workspace, other)
    assert drawn.opened is second
    assert drawn.groups() == []
    drawn.draw("Rectangle")
    drawn.drawing.layer.add(box(0, 0, 200, 200), shape_type="rectangle")
    assert [one.n_rows for one in drawn.groups()] == [4]
    workspace.activate(first)
    assert [one.n_rows for one in drawn.groups()] == [16, 16]
    workspace.viewer.layers.remove(first.spots)
    assert drawn.opened is second
    assert [one.n_rows for one in drawn.groups()] == [4]
    workspace.viewer.layers.clear()
    assert drawn.opened is None
    assert drawn.groups() == []
    assert drawn.groupings() == []


def workspace_of_more(workspace, section):
    from napari.layers import Layer

    from napari_sclinguist.layers import section_layers

    for data in section_layers(section):
        workspace.viewer.add_layer(Layer.create(*data))
    return workspace.active


def test_many_rows_are_labelled_beside_the_window(drawn, monkeypatch):
    started = []
    monkeypatch.setattr(region_groups, "MAX_POINTS", 10)
    in_background = drawn.workspace.in_background
    monkeypatch.setattr(
        drawn.workspace,
        "in_background",
        lambda title, *rest, **of: (started.append(title), in_background(title, *rest, **of)),
    )
    drawn.rename("region 1", "a")
    assert set(started) == {"Counting groups"}
    assert [(one.name, one.n_rows) for one in drawn.groups()] == [("a", 16), ("region 2", 16)]


def test_a_closed_drawing_hears_nothing_more(drawn):
    drawing, layer = drawn.drawing, drawn.drawing.layer
    heard = []
    drawing.changed.connect(lambda: heard.append(1))
    drawn.close()
    layer.add(box(0, 0, 100, 100), shape_type="rectangle")
    assert heard == []
    assert RegionDrawing(drawn.opened).layer is layer


# --- comparing ------------------------------------------------------------------------------


def result_of(generator):
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def answered(groups, question):
    comparing = GroupComparing(groups)
    comparing.ask(question)
    assert not comparing.working
    return comparing


def test_means_are_those_of_numpy(drawn, section):
    answer = answered(drawn, GroupQuestion(kind=Kind.PREDICTED)).answer
    predicted = section.table.obsm["protein_predicted"]
    table = answer.table.set_index("feature")
    for name in ("region 1", "region 2"):
        expected = predicted[rows_of(drawn, name)].mean()
        np.testing.assert_allclose(table[f"mean in {name}"], expected[table.index], rtol=1e-5)
    assert answer.sizes == {"region 1": 16, "region 2": 16}
    spread = (table["mean in region 1"] - table["mean in region 2"]).abs()
    assert spread.is_monotonic_decreasing
    assert table["key"]["CD3"] == "predicted:CD3"


@pytest.mark.parametrize("kind", [Kind.PREDICTED, Kind.MEASURED, Kind.GENE])
def test_differences_are_those_of_scipy(drawn, kind):
    question = GroupQuestion(kind=kind, group="region 1", reference="region 2")
    table = answered(drawn, question).answer.table.set_index("key")
    catalogue = drawn.opened.catalogue
    ours, theirs = rows_of(drawn, "region 1"), rows_of(drawn, "region 2")
    assert sorted(table.index) == sorted(entry.key for entry in catalogue.of_kind(kind))
    for key, row in table.iterrows():
        values = catalogue.values(key)
        test = stats.mannwhitneyu(values[ours], values[theirs], method="asymptotic")
        assert row["p_value"] == pytest.approx(test.pvalue)
        assert row["auc"] == pytest.approx(test.statistic / ours.sum() / theirs.sum())
        assert row["mean"] == pytest.approx(values[ours].mean(), rel=1e-5)
        assert row["mean_reference"] == pytest.approx(values[theirs].mean(), rel=1e-5)
    adjusted = stats.false_discovery_control(table["p_value"])
    np.testing.assert_allclose(table["p_adjusted"], adjusted)
    assert table["p_adjusted"].is_monotonic_increasing


def test_the_rest_is_all_other_groups(drawn):
    question = GroupQuestion(kind=Kind.PREDICTED, group="region 1", reference=None)
    rest = answered(drawn, question).answer.table
    named = answered(drawn, replace(question, reference="region 2")).answer.table
    pd.testing.assert_frame_equal(rest, named)  # spots outside of regions count for nothing


def test_a_group_may_be_called_rest(drawn):
    drawn.drawing.layer.add(box(0, 400, 400, 800), shape_type="rectangle")
    drawn.rename("region 2", "rest")
    question = GroupQuestion(kind=Kind.PREDICTED, group="region 1", reference="rest")
    answer = answered(drawn, question).answer
    table = answer.table.set_index("feature")
    predicted = drawn.opened.section.table.obsm["protein_predicted"]
    expected = predicted[rows_of(drawn, "rest")].mean()
    np.testing.assert_allclose(table["mean_reference"], expected[table.index], rtol=1e-5)


def test_a_feature_may_be_called_n(drawn, opened, section):
    predicted = section.table.obsm["protein_predicted"]
    section.table.obsm["protein_predicted"] = predicted.rename(columns={"CD3": "n"})
    opened.catalogue.refresh()
    table = answered(drawn, GroupQuestion(kind=Kind.PREDICTED)).answer.table.set_index("feature")
    expected = predicted["CD3"][rows_of(drawn, "region 1")].mean()
    assert table.loc["n", "mean in region 1"] == pytest.approx(expected, rel=1e-5)


def test_blocks_of_columns_give_the_same(drawn, monkeypatch):
    questions = (
        GroupQuestion(kind=Kind.GENE),
        GroupQuestion(kind=Kind.GENE, group="region 2"),
    )
    whole = [answered(drawn, one).answer.table for one in questions]
    monkeypatch.setattr(group_comparison, "_VALUES_AT_ONCE", 2 * 64)
    parts = [answered(drawn, one).answer.table for one in questions]
    for one, other in zip(whole, parts, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_of_genes_the_most_variable_are_compared(drawn, monkeypatch):
    monkeypatch.setattr(group_comparison, "MOST_VARIABLE_GENES", 2)
    table = answered(drawn, GroupQuestion(kind=Kind.GENE)).answer.table
    catalogue = drawn.opened.catalogue
    genes = [entry.name for entry in catalogue.of_kind(Kind.GENE)]
    variance = {gene: catalogue.values(f"mRNA:{gene}").var() for gene in genes}
    assert set(table["feature"]) == set(sorted(genes, key=variance.get)[-2:])


def test_a_group_that_is_too_small_is_said(workspace, drawn):
    drawn.drawing.layer.add(box(0, 700, 100, 800), shape_type="rectangle")
    comparing = answered(drawn, GroupQuestion(kind=Kind.PREDICTED, group="region 3"))
    assert comparing.answer is None
    assert "group 'region 3': found 1 rows with values" in workspace.heard[-1]


def test_regions_beside_the_spots_are_no_groups(workspace, groups):
    groups.drawing.add([square("far", 5000, 5000, 100)])
    assert [one.n_rows for one in groups.groups()] == [0]
    assert answered(groups, GroupQuestion(kind=Kind.PREDICTED)).answer is None
    assert "no row of 'compared' lies in any group" in workspace.heard[-1]


def test_an_answer_goes_when_its_groups_or_predictions_do(drawn, opened):
    comparing = answered(drawn, GroupQuestion(kind=Kind.PREDICTED))
    opened.contents_changed.emit()  # of something else
    opened.select(np.arange(64) < 5)
    assert comparing.answer is not None
    drawn.drawing.layer.data = [*drawn.drawing.layer.data[:1], box(500, 500, 800, 800)]
    assert comparing.answer is None
    comparing.ask(GroupQuestion(kind=Kind.PREDICTED))
    assert comparing.answer is not None
    predicted = opened.section.table.obsm["protein_predicted"]
    opened.section.table.obsm["protein_predicted"] = predicted + 1
    opened.contents_changed.emit()
    assert comparing.answer is None


def test_an_answer_to_former_groups_is_dropped(drawn, monkeypatch):
    comparing = GroupComparing(drawn)
    waiting = []
    monkeypatch.setattr(drawn.workspace, "in_background", lambda *job, **_: waiting.append(job))
    comparing.ask(GroupQuestion(kind=Kind.PREDICTED))
    assert comparing.working
    drawn.remove("region 1")
    assert not comparing.working
    (_, steps, take) = waiting[0]
    take(result_of(steps()))
    assert comparing.answer is None


def test_an_answer_is_shown_and_written(drawn, opened, tmp_path):
    question = GroupQuestion(kind=Kind.MEASURED, group="region 1", reference="region 2")
    comparing = answered(drawn, question)
    comparing.show(1)
    assert opened.view.keys == (comparing.answer.table["key"][1],)
    comparing.export(tmp_path / "out.csv")
    written = pd.read_csv(tmp_path / "out.csv")
    expected = comparing.answer.table.drop(columns="key")
    pd.testing.assert_frame_equal(written[list(expected)], expected, rtol=1e-5)
    assert set(written["group"]) == {"region 1"}
    assert set(written["reference"]) == {"region 2"}
    assert set(written["kind"]) == {"measured"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"]
    answered(drawn, replace(question, reference=None)).export(tmp_path / "rest.csv")
    assert set(pd.read_csv(tmp_path / "rest.csv")["reference"]) == {"all other groups"}
    comparing.export(tmp_path / "nowhere" / "out.csv")
    assert "Writing" in drawn.workspace.heard[-1]


def test_a_group_may_be_called_like_a_column(drawn):
    drawn.rename("region 1", "feature")
    table = answered(drawn, GroupQuestion(kind=Kind.PREDICTED)).answer.table
    assert sorted(table) == ["feature", "key", "mean in feature", "mean in region 2"]
