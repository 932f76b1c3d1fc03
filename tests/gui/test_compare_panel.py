"""The Compare tab in the window."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backend_bases import MouseEvent
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QFocusEvent, QPalette
from qtpy.QtWidgets import QApplication, QFileDialog

from gui.compared_section import make_section
from napari_sclinguist.control.agreement import Pair, agreement
from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.hexagons import count_hexagons
from napari_sclinguist.widgets import scatter_plot
from napari_sclinguist.widgets.data_frame_table import Column, TableView, as_text
from napari_sclinguist.widgets.feature_picker import FeaturePicker
from napari_sclinguist.widgets.scatter_plot import ScatterPlot

pytestmark = pytest.mark.gui

CD19 = Pair(a="predicted:CD19", b="measured:CD19")


@pytest.fixture
def opened(dock, add_section):
    opened = add_section(make_section())
    opened.show("predicted:CD19")
    return opened


@pytest.fixture
def panel(dock, opened, qtbot):
    panel = dock.open_tab("Compare")
    qtbot.waitUntil(lambda: panel.comparing.proteins is not None, timeout=60_000)
    settle(panel, qtbot)
    return panel


def settle(panel, qtbot):
    qtbot.waitUntil(lambda: not panel._later.isActive(), timeout=60_000)


def test_without_a_section_there_is_one_sentence(dock):
    panel = dock.open_tab("Compare")
    assert panel.hint.text() == "Open a section to compare its proteins."
    assert panel.hint.isVisible()
    assert not panel.content.isVisible()


def test_the_shown_protein_is_compared_with_its_measurement(panel, opened):
    assert (panel.picker_a.text(), panel.picker_b.text()) == ("CD19 (predicted)", "CD19 (measured)")
    catalogue = opened.catalogue
    found = agreement(catalogue.values(CD19.a), catalogue.values(CD19.b))
    shown = {key: label.text() for key, label in panel.figures.values.items()}
    assert shown == {
        "r": f"{found.r:.2f}",
        "rho": f"{found.rho:.2f}",
        "rmse": f"{found.rmse:.2f}",
        "n": "60",
    }
    assert panel.trust.text() == "CD19: well predicted; expected r 0.83."
    assert "z-scores within this section" in panel.scale.text()
    assert not panel.hint.isVisible()


def test_everything_fits_into_the_dock(panel, dock):
    bar = dock.tabs.currentWidget().verticalScrollBar().sizeHint().width()
    assert panel.minimumSizeHint().width() + bar <= 388
    assert panel.proteins.table.horizontalScrollBar().maximum() == 0


def test_mean_and_variance_come_with_a_wider_dock(panel):
    table = panel.proteins.table
    names = [column.name for column in table.frame_model.columns]
    table.setFixedWidth(350)
    assert [name for i, name in enumerate(names) if table.isColumnHidden(i)] == ["mean", "variance"]
    table.setFixedWidth(600)
    assert not any(table.isColumnHidden(i) for i in range(len(names)))


def test_swapping_exchanges_the_sides(panel, qtbot):
    panel.swap.click()
    settle(panel, qtbot)
    assert panel.comparing.pair == CD19.swapped()
    assert panel.picker_a.text() == "CD19 (measured)"
    np.testing.assert_array_equal(
        panel.scatter.a.values, panel.comparing.opened.catalogue.values(CD19.b)
    )


# --- choosing -------------------------------------------------------------------------------------


def test_a_feature_is_found_under_any_of_its_names(panel, opened, qtbot):
    picker = panel.picker_a
    picker.setFocus()
    picker.selectAll()
    qtbot.keyClicks(picker, "MS4A1")
    assert picker.offers[0].key == "predicted:CD20"
    qtbot.keyClick(picker, Qt.Key.Key_Return)
    settle(panel, qtbot)
    assert panel.comparing.pair.a == "predicted:CD20"
    assert picker.text() == "CD20 (predicted)"
    assert opened.view.keys == ("predicted:CD20",)


def test_what_is_in_the_list_can_be_clicked(panel, qtbot):
    picker = panel.picker_b
    picker.setFocus()
    picker.selectAll()
    qtbot.keyClicks(picker, "MKI67")
    popup = picker.completer().popup()
    qtbot.waitUntil(popup.isVisible)
    place = popup.visualRect(popup.model().index(0, 0)).center()
    qtbot.mouseClick(popup.viewport(), Qt.MouseButton.LeftButton, pos=place)
    settle(panel, qtbot)
    assert panel.comparing.pair == Pair(a="predicted:CD19", b="mRNA:MKI67")
    assert picker.text() == "MKI67 (mRNA)"


def test_a_name_that_is_not_there_is_a_sentence_and_changes_nothing(panel, dock, qtbot):
    picker = panel.picker_b
    picker.setFocus()
    picker.selectAll()
    qtbot.keyClicks(picker, "CD91x")
    qtbot.keyClick(picker, Qt.Key.Key_Return)
    assert dock.messages.text.text().startswith("Feature 'CD91x' is not in section 'compared'")
    assert panel.comparing.pair == CD19
    QApplication.sendEvent(picker, QFocusEvent(QEvent.Type.FocusOut))
    assert picker.text() == "CD19 (measured)"


def test_a_picker_offers_the_kinds_that_it_was_made_for(dock, opened, qtbot):
    picker = FeaturePicker(dock.workspace, kinds=[Kind.GENE])
    qtbot.addWidget(picker)
    picked = []
    picker.picked.connect(picked.append)
    picker.show()
    qtbot.keyClicks(picker, "cd")
    assert {entry.kind for entry in picker.offers} == {Kind.GENE}
    qtbot.keyClick(picker, Qt.Key.Key_Return)
    assert picked == [picker.offers[0].key]
    assert picker.key == picked[0]


# --- plot -----------------------------------------------------------------------------------------


def draw_around(scatter, corners):
    """Draw a line with the mouse, in the units of the plot."""
    canvas = scatter.canvas
    canvas.draw()
    points = scatter.axes.transData.transform(np.asarray(corners, float))
    kinds = ["button_press_event", *["motion_notify_event"] * len(points), "button_release_event"]
    for kind, (x, y) in zip(kinds, [points[0], *points, points[-1]], strict=True):
        held = {1} if kind == "motion_notify_event" else None
        canvas.callbacks.process(kind, MouseEvent(kind, canvas, x, y, 1, buttons=held))


def test_what_is_drawn_around_in_the_plot_is_ringed_on_the_tissue(panel, opened):
    x, y = opened.catalogue.values(CD19.a), opened.catalogue.values(CD19.b)
    middle = float(np.median(x))
    low, high = float(y.min()) - 0.1, float(y.max()) + 0.1
    left = float(x.min()) - 0.1
    draw_around(panel.scatter, [(left, low), (middle, low), (middle, high), (left, high)])
    np.testing.assert_array_equal(opened.selected, x < middle)
    rings = panel.selection.highlights[opened].layer
    np.testing.assert_array_equal(rings.border_color[:, 3] > 0, x < middle)
    assert len(panel.scatter._marks.get_offsets()) == (x < middle).sum()
    assert panel.selected.text() == f"{(x < middle).sum()} of 60 spots selected"
    draw_around(panel.scatter, [(middle, low)])  # a click
    assert opened.selected is None
    assert panel.selected.text() == "Draw around spots to select them."


def test_what_is_selected_on_the_tissue_is_marked_in_the_plot(panel, opened):
    opened.spots.selected_data = {1, 2, 30}
    values = np.column_stack([opened.catalogue.values(key)[[1, 2, 30]] for key in (CD19.a, CD19.b)])
    np.testing.assert_allclose(panel.scatter._marks.get_offsets(), values)
    panel.clear.click()
    assert opened.selected is None
    assert len(panel.scatter._marks.get_offsets()) == 0
    assert set(opened.spots.selected_data) == set()


def test_the_plot_wears_the_colours_of_the_theme(panel, dock, qtbot):
    def colours():
        figure = panel.scatter.figure
        return figure.get_facecolor()[:3], panel.scatter.axes.xaxis.label.get_color()

    dark = colours()
    dock.viewer.theme = "light"
    qtbot.waitUntil(lambda: colours() != dark)
    ground, text = colours()
    palette = panel.palette()
    assert text == palette.color(QPalette.ColorRole.WindowText).name()
    assert sum(ground) > sum(dark[0])


def test_many_rows_are_counted_in_hexagons(qtbot, opened, monkeypatch):
    monkeypatch.setattr(scatter_plot, "MOST_POINTS", 50)
    plot = ScatterPlot()
    qtbot.addWidget(plot)
    plot.show()
    a, b = opened.catalogue.feature(CD19.a), opened.catalogue.feature(CD19.b)
    plot.show_pair(a, b)
    assert plot.is_binned
    assert len(plot.axes.collections) == 1  # the marks alone: it is not counted yet
    plot.show_pair(a, b, count_hexagons(a.values, b.values))
    assert plot._cloud.get_array().sum() == 60
    other = opened.catalogue.feature("predicted:CD3")
    plot.show_pair(other, b, count_hexagons(other.values, b.values))
    assert len(plot.axes.collections) == 2  # hexagons and marks: the former ones went


def test_a_plot_that_nobody_sees_is_drawn_when_it_is_seen(qtbot, opened):
    plot = ScatterPlot()
    qtbot.addWidget(plot)
    plot.show()
    plot.hide()
    plot.show_pair(opened.catalogue.feature(CD19.a), opened.catalogue.feature(CD19.b))
    assert plot.axes.get_xlabel() == ""
    plot.show()
    assert plot.axes.get_xlabel() == "CD19 (predicted), SD"
    assert plot.axes.get_ylabel() == "CD19 (measured), centred log-ratio"


# --- canvas ---------------------------------------------------------------------------------------


def test_side_by_side_comes_and_goes_with_its_buttons(panel, dock, opened, qtbot):
    before = [(layer.name, layer.visible) for layer in dock.viewer.layers]
    panel.panels.button(2).click()
    names = [layer.name for layer in dock.viewer.layers if layer.visible]
    assert [name for name in names if "CD19" in name or "−" in name] == [
        "A: CD19 (predicted)",
        "B: CD19 (measured)",
        "A − B: tissue",
        "A − B (z-scores)",
        "A − B: selected",
    ]
    spots = [shown.spots for shown in panel.side_by_side.panels]
    panel.proteins.table.chosen.emit(shown_rows(panel).index("CD3"))
    settle(panel, qtbot)
    assert [shown.spots for shown in panel.side_by_side.panels] == spots
    assert spots[0].name == "A: CD3 (predicted)"
    panel.panels.button(0).click()
    assert [(layer.name, layer.visible) for layer in dock.viewer.layers] == before
    assert not dock.viewer.canvas.grid.enabled


def test_panels_follow_colours_and_another_tab(panel, dock, opened, qtbot):
    panel.panels.button(1).click()
    opened.set_view(replace(opened.view, colormap="magma", tissue=0.4))
    settle(panel, qtbot)
    first = panel.side_by_side.panels[0]
    assert first.spots.face_colormap.name == "matplotlib magma"
    assert first.tissue.opacity == 0.4
    dock.open_tab("Predict")
    opened.show("predicted:CD3")
    settle(panel, qtbot)
    assert first.spots.name == "A: CD3 (predicted)"
    assert panel.scatter.a.entry.key == "predicted:CD3"


def test_spots_selected_in_a_panel_are_selected_everywhere(panel, opened):
    panel.panels.button(1).click()
    second = panel.side_by_side.panels[1]
    second.spots.selected_data = {7}
    assert np.flatnonzero(opened.selected).tolist() == [7]
    for shown in panel.side_by_side.panels:
        assert np.flatnonzero(shown.highlight.layer.border_color[:, 3]).tolist() == [7]


def test_the_buttons_follow_when_the_grid_is_switched_off_elsewhere(panel, dock):
    panel.panels.button(1).click()
    dock.viewer.canvas.grid.enabled = False
    assert panel.panels.checkedId() == 0
    assert not panel.side_by_side.on


def test_another_section_ends_the_panels(panel, dock, add_section, qtbot):
    panel.panels.button(1).click()
    other = add_section(replace(make_section(measured=False), name="other"))
    settle(panel, qtbot)
    assert not panel.side_by_side.on
    assert panel.comparing.opened is other
    assert panel.hint.text().startswith("No protein was measured here")
    assert panel.picker_b.text().endswith("(mRNA)")
    assert [layer.name for layer in dock.viewer.layers if "A:" in layer.name] == []
    for opened in list(dock.workspace.sections):
        dock.viewer.layers.remove(opened.spots)
    settle(panel, qtbot)
    assert not panel.content.isVisible()


def test_choosing_another_section_leaves_the_panels_for_it(panel, dock, add_section, opened, qtbot):
    other = add_section(replace(make_section(), name="other"))
    dock.workspace.activate(opened)
    settle(panel, qtbot)
    panel.panels.button(1).click()
    settle(panel, qtbot)
    assert panel.side_by_side.on
    dock.workspace.activate(other)
    settle(panel, qtbot)
    assert not panel.side_by_side.on
    assert dock.workspace.active is other
    assert (other.spots.visible, opened.spots.visible) == (True, False)


def test_a_closed_dock_leaves_the_canvas_as_it_was(panel, dock, opened, qtbot):
    before = [(layer.name, layer.visible) for layer in dock.viewer.layers]
    panel.panels.button(1).click()
    qtbot.addWidget(dock)  # the window does not take it along any more
    dock.viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: not panel.side_by_side.on)
    assert [(layer.name, layer.visible) for layer in dock.viewer.layers] == before


def test_the_panels_are_drawn(panel, dock, qtbot):
    panel.panels.button(1).click()
    picture = dock.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    left, right = np.array_split(picture, 2, axis=1)
    for half in (left, right):
        colourful = half.max(axis=2) - half.min(axis=2) > 60
        assert colourful.mean() > 0.01
    assert not np.array_equal(left[:, : right.shape[1]], right)


# --- table ----------------------------------------------------------------------------------------


def shown_rows(panel):
    table = panel.proteins.comparison.table
    return table["protein"].tolist()


def test_the_table_is_sorted_by_agreement_with_missing_figures_last(panel):
    table = panel.proteins.table
    figures = table.shown("r")
    known = [float(text.replace("−", "-")) for text in figures if text != "–"]
    assert known == sorted(known, reverse=True)
    assert figures[-2:] == ["–", "–"]
    assert set(table.shown("protein")[-2:]) == {"ACTA2", "CD45"}
    table.sort_by("r")
    assert table.shown("r")[-2:] == ["–", "–"]
    table.sort_by("trust")
    assert table.shown("trust")[:2] == ["well", "fairly"]


def test_a_click_on_a_protein_compares_it(panel, opened, qtbot):
    table = panel.proteins.table
    place = table.shown("protein").index("ACTA2")
    where = table.visualRect(table.frame_model.index(place, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=where)
    settle(panel, qtbot)
    assert panel.comparing.pair == Pair(a="mRNA:ACTA2", b="measured:ACTA2")
    assert table.shown("trust")[place] == "untested"
    assert panel.picker_a.text() == "ACTA2 (mRNA)"


def test_the_row_of_the_pair_is_marked(panel, opened, qtbot):
    table = panel.proteins.table
    assert table.shown("protein")[table.currentIndex().row()] == "CD19"
    opened.show("measured:CD3")
    settle(panel, qtbot)
    assert table.shown("protein")[table.currentIndex().row()] == "CD3"
    opened.show("column:total counts")
    settle(panel, qtbot)
    assert not table.selectionModel().hasSelection()


def test_the_table_is_narrowed_down_by_any_name(panel):
    panel.proteins.filter.setText("ms4a1")
    assert sorted(panel.proteins.table.shown("protein")) == ["CD20 (CD20_1)", "CD20 (CD20_2)"]
    panel.proteins.filter.clear()
    assert len(panel.proteins.table.shown("protein")) == 6


def test_the_table_is_exported(panel, dock, tmp_path, monkeypatch):
    asked = []
    path = tmp_path / "proteins.csv"

    def answer(parent, title, proposed, kind, **_):
        asked.append(proposed)
        return str(path.with_suffix("")), kind  # as Qt's own dialog gives it

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    panel.proteins.button.click()
    assert asked == [str(Path.home() / "compared_compared.csv")]
    assert pd.read_csv(path)["protein"].tolist() == shown_rows(panel)
    assert dock.messages.text.text() == f"The table of 6 proteins is in '{path}'."
    path = tmp_path / "absent" / "proteins.csv"
    panel.proteins.button.click()
    assert "absent" in dock.messages.message.text
    assert not path.parent.exists()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: ("", ""))
    panel.proteins.button.click()
    assert [one.name for one in tmp_path.iterdir()] == ["proteins.csv"]


def test_a_selection_is_saved_as_a_group(panel, dock, opened):
    assert not panel.save.isEnabled()
    opened.select(np.arange(60) < 5)
    assert not panel.save.isEnabled()
    panel.group_name.setText("follicle")
    assert panel.save.isEnabled()
    panel.save.click()
    assert (opened.section.table.obs["sclinguist_group"] == "follicle").sum() == 5
    assert panel.group_name.text() == ""
    assert dock.messages.text.text().startswith("5 spots are now 'follicle'")
    assert opened.dirty


# --- the generic table ----------------------------------------------------------------------------


@pytest.fixture
def view(qtbot):
    view = TableView()
    qtbot.addWidget(view)
    return view


def test_columns_are_sorted_by_what_they_hold(view):
    frame = pd.DataFrame(
        {
            "number": [2.0, np.nan, -10.0, 9.0],
            "whole": [3, 20, 100, 1],
            "text": ["b", "", "C", "a"],
            "grade": pd.Categorical(
                ["poor", "good", None, "good"], categories=["good", "poor"], ordered=True
            ),
        }
    )
    view.set_frame(frame)
    view.sort_by("number")
    assert view.shown("number") == ["−10.00", "2.00", "9.00", "–"]
    view.sort_by("number", descending=True)
    assert view.shown("number") == ["9.00", "2.00", "−10.00", "–"]
    view.sort_by("whole")
    assert view.shown("whole") == ["1", "3", "20", "100"]
    view.sort_by("text")
    assert view.shown("text") == ["a", "b", "C", "–"]
    view.sort_by("grade")
    assert view.shown("grade") == ["good", "good", "poor", "–"]


def test_many_rows_are_sorted_and_the_chosen_one_stays_chosen(view):
    values = np.random.default_rng(0).permutation(20_000).astype(float)
    values[::100] = np.nan
    view.set_frame(pd.DataFrame({"value": values}), [Column(name="value", digits=0)])
    view.mark(12_345)
    view.sort_by("value")
    assert view.frame_model.row_of(view.currentIndex().row()) == 12_345
    shown = view.shown("value")
    assert shown[:-200] == [f"{v:.0f}" for v in np.sort(values[~np.isnan(values)])]
    assert set(shown[-200:]) == {"–"}


def test_another_table_keeps_the_order_and_tells_nobody(view):
    told = []
    view.chosen.connect(told.append)
    view.set_frame(pd.DataFrame({"value": [1.0, 3.0, 2.0]}))
    view.sort_by("value", descending=True)
    view.set_frame(pd.DataFrame({"value": [5.0, 7.0]}))
    assert view.shown("value") == ["7.00", "5.00"]
    view.mark(0)
    assert (view.currentIndex().row(), told) == (1, [])
    view.setCurrentIndex(view.frame_model.index(0, 0))
    assert told == [1]


def test_chosen_rows_are_copied_for_a_spreadsheet(view, qtbot):
    view.set_frame(pd.DataFrame({"name": ["a", "b"], "value": [1.5, 2.5]}))
    view.setCurrentIndex(view.frame_model.index(1, 0))
    qtbot.keyClick(view, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QApplication.clipboard().text().split() == ["name", "value", "b", "2.5"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.256, "0.26"), (-1.0, "−1.00"), (np.nan, "–"), (None, "–"), ("", "–"), (1234, "1,234")],
)
def test_values_are_spelled_for_people(value, text):
    assert as_text(value) == text
