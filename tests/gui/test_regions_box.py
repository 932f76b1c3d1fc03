"""Regions and groups in a real window."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gui.compared_section import make_section
from napari_sclinguist.control.regions import REGIONS_KEY
from napari_sclinguist.widgets.group_figures import p_texts
from napari_sclinguist.widgets.regions_box import RegionsBox
from sclinguist_core.data.regions import write_geojson

pytestmark = pytest.mark.gui

_ROOM = 370
"""What is left of a panel of 388 pixels beside its scroll bar."""


@pytest.fixture
def box(dock, qtbot):
    box = RegionsBox(dock.workspace)
    qtbot.addWidget(box)
    box.show()
    return box


@pytest.fixture
def opened(box, add_section):
    return add_section(make_section(64))


@pytest.fixture
def drawn(box, opened):
    """Two regions of 16 spots each, in opposite corners."""
    box.draw.click()
    layer = box.groups.drawing.layer
    layer.add(corners(0, 0, 400), shape_type="polygon")
    layer.add(corners(400, 400, 400), shape_type="rectangle")
    return box


def name_for_files(monkeypatch, path, kind):
    """Answer the dialog for files to write; returns a list of what it will have proposed."""
    from qtpy.QtWidgets import QFileDialog

    asked = []

    def answer(parent, title, proposed, *_, **__):
        asked.append(Path(proposed))
        return str(path), kind

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    return asked


def corners(left, top, side):
    """Rows and columns of a square."""
    ends = (left, left + side), (top, top + side)
    (x0, x1), (y0, y1) = ends
    return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]], float)


def listed(box):
    rows = [box.list.topLevelItem(i) for i in range(box.list.topLevelItemCount())]
    return [(row.text(0), row.text(1)) for row in rows]


def choose(box, name):
    row = [name for name, _ in listed(box)].index(name)
    box.list.setCurrentItem(box.list.topLevelItem(row))


def wait_for_answer(box, qtbot):
    qtbot.waitUntil(lambda: not box.comparing.working, timeout=60_000)


def test_without_a_section_nothing_can_be_pressed(box, dock, opened):
    assert box.isEnabled()
    dock.viewer.layers.clear()
    assert not box.isEnabled()


def test_drawing_lists_regions_with_colour_and_size(box, dock, opened):
    assert not box.list.isVisible()
    assert "Draw a region" in box.note.text()
    box.draw.click()
    layer = dock.viewer.layers.selection.active
    assert layer.name == "compared regions"
    assert layer.mode == "add_polygon"
    assert box.draw.isChecked()
    assert "double click" in box.help.text()
    layer.add(corners(0, 0, 400), shape_type="polygon")
    assert listed(box) == [("region 1", "16 spots")]
    colour = box.list.topLevelItem(0).icon(0).pixmap(14, 14).toImage().pixelColor(7, 7)
    np.testing.assert_allclose(colour.getRgbF()[:3], layer.edge_color[0, :3], atol=0.01)
    box.tool.setCurrentText("Ellipse")
    box.tool.activated.emit(box.tool.currentIndex())
    assert layer.mode == "add_ellipse"
    box.draw.click()
    assert layer.mode == "pan_zoom"
    assert not box.draw.isChecked()
    assert not box.help.isVisible()


def test_the_button_follows_naparis_own_tools(drawn, dock, opened):
    layer = drawn.groups.drawing.layer
    layer.mode = "select"
    assert not drawn.draw.isChecked()
    layer.mode = "add_rectangle"
    assert drawn.draw.isChecked()
    assert drawn.tool.currentText() == "Rectangle"
    dock.viewer.layers.selection.active = opened.spots
    assert not drawn.draw.isChecked()


def test_overlap_is_said(drawn):
    assert not drawn.note.isVisible()
    drawn.groups.drawing.layer.add(corners(300, 300, 200), shape_type="ellipse")
    assert drawn.note.text() == "2 spots lie in several regions; the last one drawn counts."


def test_a_region_is_renamed_selected_and_deleted(drawn, opened):
    assert not drawn.select.isEnabled()
    choose(drawn, "region 2")
    drawn.rename.click()
    assert drawn.list.state() == drawn.list.State.EditingState
    drawn.list.currentItem().setText(0, "follicle")
    assert drawn.groups.drawing.layer.features["name"].tolist() == ["region 1", "follicle"]
    assert listed(drawn) == [("region 1", "16 spots"), ("follicle", "16 spots")]
    assert drawn.list.name == "follicle"
    drawn.select.click()
    x, y = opened.section.positions.T
    np.testing.assert_array_equal(opened.selected, (x > 400) & (y > 400))
    drawn.delete.click()
    assert listed(drawn) == [("region 1", "16 spots")]
    assert len(drawn.groups.drawing.layer.data) == 1
    assert not drawn.delete.isEnabled()


def test_an_empty_name_is_put_back(drawn):
    choose(drawn, "region 1")
    drawn.list.currentItem().setText(0, "  ")
    assert listed(drawn)[0] == ("region 1", "16 spots")


def test_columns_are_groups_that_cannot_be_renamed(drawn, opened):
    opened.section.table.obs["zone"] = np.where(np.arange(64) < 40, "inner", "outer")
    opened.contents_changed.emit()
    place = drawn.grouping.findText("zone (column)")
    drawn.grouping.setCurrentIndex(place)
    drawn.grouping.activated.emit(place)
    assert listed(drawn) == [("inner", "40 spots"), ("outer", "24 spots")]
    choose(drawn, "outer")
    assert drawn.select.isEnabled()
    assert not drawn.rename.isEnabled()
    assert not drawn.delete.isEnabled()
    assert not drawn.export.isEnabled()


def test_keeping_groups_marks_the_section(drawn, dock, opened):
    drawn.keep.click()
    assert opened.dirty
    assert opened.section.table.obs["sclinguist_kept"].notna().sum() == 32
    assert "sclinguist_kept" in dock.messages.text.text()
    assert "sclinguist_kept" in drawn.keep.toolTip()
    assert drawn.grouping.findText("sclinguist_kept (column)") > 0


def test_means_in_a_table_that_shows_what_is_clicked(drawn, opened, qtbot):
    assert drawn.figures.kind.currentText() == "Predicted proteins"
    assert not drawn.figures.table.isVisible()
    drawn.figures.button.click()
    wait_for_answer(drawn, qtbot)
    table = drawn.figures.table
    assert [column.title for column in table.frame_model.columns] == [
        "Feature",
        "region 1",
        "region 2",
    ]
    x, y = opened.section.positions.T
    predicted = opened.section.table.obsm["protein_predicted"]
    expected = predicted[(x < 400) & (y < 400)].mean()
    shown = dict(zip(table.shown("feature"), table.shown("mean in region 1"), strict=True))
    assert shown == {name: f"{v:.2f}".replace("-", "−") for name, v in expected.items()}
    table.selectRow(3)
    assert opened.view.keys == (f"predicted:{table.shown('feature')[3]}",)
    opened.show("predicted:CD45")
    marked = table.currentIndex().row()
    assert table.shown("feature")[marked] == "CD45"


def test_one_group_against_another(drawn, opened, qtbot):
    figures = drawn.figures
    assert not figures.reference.isVisible()
    figures.kind.setCurrentText("Measured proteins")
    figures.group.setCurrentText("region 2")
    figures.group.activated.emit(2)
    assert [figures.reference.itemText(i) for i in range(figures.reference.count())] == [
        "all other groups",
        "region 1",
    ]
    figures.button.click()
    wait_for_answer(drawn, qtbot)
    answer = drawn.comparing.answer
    assert (answer.question.group, answer.question.reference) == ("region 2", None)
    assert figures.table.shown("feature") == answer.table["feature"].tolist()
    assert figures.caution.isVisible()
    figures.table.sort_by("p_adjusted", descending=True)
    last = answer.table.loc[answer.table["p_adjusted"].idxmax()]
    assert figures.table.shown("feature")[0] == last["feature"]
    assert figures.table.shown("p_adjusted")[0] == f"{last['p_adjusted']:.3f}"


def test_an_outdated_table_goes(drawn, qtbot):
    drawn.figures.button.click()
    wait_for_answer(drawn, qtbot)
    assert drawn.figures.table.isVisible()
    drawn.groups.drawing.layer.add(corners(0, 400, 400), shape_type="rectangle")
    assert not drawn.figures.table.isVisible()
    assert not drawn.figures.export.isVisible()


def test_p_values_sort_as_numbers():
    found = p_texts(pd.Series([0.04, 1e-5, 0.0, np.nan, 0.5, 2.2e-16]))
    assert [str(text) for text in found] == ["0.040", "1e−5", "< 1e−300", "nan", "0.500", "2e−16"]
    assert np.argsort(found.codes[found.codes >= 0]).tolist() == [2, 4, 1, 0, 3]


def test_saved_regions_are_offered(box, add_section, drawn):
    text = drawn.groups.opened.section.table.uns[REGIONS_KEY]
    assert not box.saved.isVisible()
    again = make_section(64)
    again.table.uns[REGIONS_KEY] = text
    add_section(again)
    assert box.saved.isVisible()
    assert not box.list.isVisible()
    box.saved.click()
    assert not box.saved.isVisible()
    assert listed(box) == [("region 1", "16 spots"), ("region 2", "16 spots")]


def test_regions_and_categories_are_imported(box, opened, qtbot, tmp_path, monkeypatch):
    from qtpy.QtWidgets import QFileDialog, QInputDialog

    from sclinguist_core.data.regions import Region

    path = write_geojson([Region("a", (corners(0, 0, 400)[:, ::-1],))], tmp_path / "r.geojson")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    box.import_pixels.trigger()
    qtbot.waitUntil(lambda: listed(box) == [("a", "16 spots")])
    saved_as = tmp_path / "out"  # as Qt's own dialog gives it
    asked = name_for_files(monkeypatch, saved_as, "GeoJSON (*.geojson *.json)")
    box.export.click()
    (proposed,) = asked
    assert proposed.parent == Path.home()
    assert proposed.name.startswith("compared_regions")
    assert '"name": "a"' in saved_as.with_suffix(".geojson").read_text()
    table = pd.DataFrame(
        {"Graph": ["x", "y"] * 32, "Other": ["z"] * 64},
        index=pd.Index(opened.section.table.obs_names, name="Barcode"),
    )
    csv = tmp_path / "clusters.csv"
    table.to_csv(csv)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(csv), ""))
    monkeypatch.setattr(QInputDialog, "getItem", lambda *_: ("Graph", True))
    box.import_categories.trigger()
    qtbot.waitUntil(lambda: listed(box) == [("x", "32 spots"), ("y", "32 spots")])
    assert box.grouping.currentText() == "Graph (imported)"


def test_a_table_is_exported(drawn, qtbot, tmp_path, monkeypatch):
    drawn.figures.button.click()
    wait_for_answer(drawn, qtbot)
    asked = name_for_files(monkeypatch, tmp_path / "means", "CSV (*.csv)")
    drawn.figures.export.click()
    (proposed,) = asked
    assert proposed.parent == Path.home()
    assert proposed.name.startswith("predicted_groups")
    assert list(pd.read_csv(tmp_path / "means.csv")) == [
        "feature",
        "mean in region 1",
        "mean in region 2",
        "kind",
    ]


def test_it_fits_into_the_dock(drawn, opened, qtbot):
    drawn.groups.rename("region 1", "a region of a very long name " * 4)
    drawn.figures.button.click()
    wait_for_answer(drawn, qtbot)
    assert drawn.minimumSizeHint().width() <= _ROOM
