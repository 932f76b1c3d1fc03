"""The Explore tab in a real window: type, step, add, drag, and see the layers follow."""

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QColor
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.listing import Order
from napari_sclinguist.widgets.colour_map_box import preview
from napari_sclinguist.widgets.explore_panel import NO_SECTION, ORDERS
from napari_sclinguist.widgets.feature_model import FeatureModel
from napari_sclinguist.widgets.range_histogram import Handle
from sclinguist_core.evaluation.colouring import (
    CHANNEL_COLOURS,
    COLORMAPS,
    colour_limits,
    lookup_table,
)

pytestmark = pytest.mark.gui

PROTEINS = ("CD3", "CD4", "CD8", "CD10", "CD19", "CD20", "CD279")


@pytest.fixture
def opened(add_section, sample_part):
    """The sample section, small, with made-up predictions and their errors."""
    table = sample_part.table
    rng = np.random.default_rng(0)
    values = rng.normal(size=(table.n_obs, len(PROTEINS))).astype(np.float32)
    predicted = pd.DataFrame(values, index=table.obs_names, columns=list(PROTEINS))
    table.obsm["protein_predicted"] = predicted
    table.obsm["protein_predicted_std"] = predicted * 0 + 0.5
    table.obs["sclinguist_ood"] = 0.5
    table.uns["sclinguist"] = {
        "unit": "SD of reference spots",
        "trust": dict.fromkeys(PROTEINS, "untested") | {"CD19": "well"},
        "expected_r": {"CD19": 0.83},
    }
    return add_section(sample_part)


@pytest.fixture
def panel(dock, opened):
    panel = dock.open_tab("Explore")
    dock.viewer.window.resize(1400, 900)
    settle()
    return panel


def settle():
    QApplication.processEvents()


def wait_until(holds, seconds=60):
    for _ in range(seconds * 50):
        if holds():
            return
        QTest.qWait(20)
    raise AssertionError("waited in vain")


def type_name(panel, text):
    panel.search.clear()
    QTest.keyClicks(panel.search, text)


def press(widget, key, modifier=Qt.KeyboardModifier.NoModifier):
    QTest.keyClick(widget, key, modifier)


def listed(panel):
    model = panel.list.features
    return [model.index(row).data(FeatureModel.ENTRY).key for row in range(model.rowCount())]


def row_point(panel, row, part):
    """A point of a row: on its star, its name, or its plus sign."""
    place = panel.list.visualRect(panel.list.features.index(row))
    x = {"star": place.left() + 8, "name": place.left() + 60, "plus": place.right() - 8}[part]
    return QPoint(x, place.center().y())


def canvas_of(panel):
    widgets = panel.window().findChildren(QWidget)
    return next(one for one in widgets if type(one).__name__ == "CanvasBackendDesktop")


def colours(opened):
    return np.rint(opened.spots.face_color * 255).astype(np.uint8)


def expected_colours(values, limits, colormap=COLORMAPS[0]):
    strength = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1)
    return lookup_table(colormap)[np.rint(strength * 255).astype(int)]


def assert_colours(found, expected):
    """Equal up to the rounding of a place in the colour map."""
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 4


# --- search and list ----------------------------------------------------------------------------


def test_typing_a_name_and_enter_lights_the_tissue_up(panel, opened):
    type_name(panel, "CD19")
    assert listed(panel)[:3] == ["predicted:CD19", "measured:CD19_TotalSeqB", "mRNA:CD19"]
    press(panel.search, Qt.Key.Key_Return)
    assert opened.view.keys == ("predicted:CD19",)
    values = opened.catalogue.values("predicted:CD19")
    assert_colours(colours(opened), expected_colours(values, colour_limits(values)))


def test_arrows_in_the_search_box_step_and_colour(panel, opened):
    type_name(panel, "PD-1")
    press(panel.search, Qt.Key.Key_Down)
    assert opened.view.keys == ("predicted:CD279",)
    press(panel.search, Qt.Key.Key_Down)
    press(panel.search, Qt.Key.Key_Down)
    assert opened.view.keys == ("mRNA:PDCD1",)
    press(panel.search, Qt.Key.Key_Up)
    assert opened.view.keys == ("measured:PD-1_TotalSeqB",)
    assert panel.list.currentIndex().row() == 1
    assert panel.search.hasFocus() or not panel.isActiveWindow()
    press(panel.search, Qt.Key.Key_Escape)
    assert panel.search.text() == ""


def test_arrows_in_the_list_step_and_colour(panel, opened):
    type_name(panel, "CD1")
    press(panel.list, Qt.Key.Key_Home)
    first = listed(panel)
    assert opened.view.keys == (first[0],)
    press(panel.list, Qt.Key.Key_Down)
    assert opened.view.keys == (first[1],)
    press(panel.list, Qt.Key.Key_PageDown)
    page = first.index(opened.view.keys[0])
    assert page > 3
    press(panel.list, Qt.Key.Key_End)
    assert opened.view.keys == (first[-1],)
    press(panel.list, Qt.Key.Key_Up)
    assert opened.view.keys == (first[-2],)
    QTest.keyClicks(panel.list, "x")  # letters go to the search box
    assert panel.search.text() in ("x", "CD1x")


def test_switching_updates_the_same_layers(panel, opened, dock):
    type_name(panel, "CD")
    layers = list(dock.viewer.layers)
    seen = set()
    for _ in range(20):
        press(panel.list, Qt.Key.Key_Down)
        (key,) = opened.view.keys
        values = opened.catalogue.values(key)
        known = np.isfinite(values)
        shown = colours(opened)
        expected = expected_colours(values[known], colour_limits(values))
        assert_colours(shown[known], expected)
        assert (shown[~known, 3] == 0).all()
        seen.add(shown.tobytes())
    assert all(now is then for now, then in zip(dock.viewer.layers, layers, strict=True))
    assert len(seen) == 20


def test_keys_of_the_picture_step_through_the_list(panel, opened):
    type_name(panel, "CD279")
    press(panel.search, Qt.Key.Key_Return)
    canvas = canvas_of(panel)
    canvas.setFocus()
    press(canvas, Qt.Key.Key_Period)
    assert opened.view.keys == ("measured:PD-1_TotalSeqB",)
    press(canvas, Qt.Key.Key_Comma)
    assert opened.view.keys == ("predicted:CD279",)


def test_shortcuts_lead_to_the_search_box(panel, dock):
    dock.viewer.window.activate()
    type_name(panel, "CD3")
    canvas = canvas_of(panel)
    for widget, key, modifier in (
        (canvas, Qt.Key.Key_Slash, Qt.KeyboardModifier.NoModifier),
        (canvas, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier),
        (panel.list, Qt.Key.Key_Slash, Qt.KeyboardModifier.NoModifier),
    ):
        widget.setFocus()
        assert panel.window().focusWidget() is not panel.search
        press(widget, key, modifier)
        assert panel.window().focusWidget() is panel.search
        assert panel.search.selectedText() == "CD3"


def test_a_click_shows_a_star_marks_and_plus_adds(panel, opened):
    type_name(panel, "CD19")
    settle()
    button = Qt.MouseButton.LeftButton
    QTest.mouseClick(panel.list.viewport(), button, pos=row_point(panel, 2, "name"))
    assert opened.view.keys == ("mRNA:CD19",)
    QTest.mouseClick(panel.list.viewport(), button, pos=row_point(panel, 0, "plus"))
    assert opened.view.keys == ("mRNA:CD19", "predicted:CD19")
    QTest.mouseClick(panel.list.viewport(), button, pos=row_point(panel, 1, "star"))
    assert opened.view.keys == ("mRNA:CD19", "predicted:CD19")
    assert panel.exploring.favourites.keys == {"measured:CD19_TotalSeqB"}
    assert panel.chips.star.text() == "★ 1"
    panel.chips.star.click()
    assert listed(panel) == ["measured:CD19_TotalSeqB"]
    panel.chips.star.click()
    shift = Qt.KeyboardModifier.ShiftModifier
    QTest.mouseClick(panel.list.viewport(), button, shift, row_point(panel, 1, "name"))
    assert len(opened.view.keys) == 3
    panel.exploring.favourites.toggle("measured:CD19_TotalSeqB")


def test_restyling_leaves_the_list_where_it_was_scrolled_to(panel, opened):
    bar = panel.list.verticalScrollBar()
    bar.setValue(bar.maximum())
    panel.legend.legend.restyle(opacity=0.5)
    assert bar.value() == bar.maximum()
    type_name(panel, "CD")
    bar.setValue(bar.maximum())
    panel.legend.legend.restyle(opacity=0.6)
    assert bar.value() == bar.maximum() > 0


def test_keys_mark_and_add(panel, opened):
    control, shift = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
    type_name(panel, "CD3")
    press(panel.search, Qt.Key.Key_Return)
    press(panel.search, Qt.Key.Key_D, control)
    assert panel.exploring.favourites.keys == {"predicted:CD3"}
    press(panel.list, Qt.Key.Key_D, control)
    assert panel.exploring.favourites.keys == frozenset()
    type_name(panel, "CD8")
    press(panel.search, Qt.Key.Key_Return, shift)
    assert opened.view.keys == ("predicted:CD3", "predicted:CD8")
    type_name(panel, "CD20")
    press(panel.list, Qt.Key.Key_Return, shift)
    assert opened.view.keys == ("predicted:CD3", "predicted:CD8", "predicted:CD20")


def test_a_pasted_column_of_names_becomes_the_list(panel, opened):
    QApplication.clipboard().setText("CD3\nnonsense\nPD-1\tCD19\r\n")
    panel.search.paste()
    assert panel.search.text() == "CD3, nonsense, PD-1, CD19"
    assert listed(panel) == ["predicted:CD3", "predicted:CD279", "predicted:CD19"]
    assert panel.nothing.text() == "Not in this section: nonsense."
    press(panel.search, Qt.Key.Key_Down)
    press(panel.search, Qt.Key.Key_Down)
    assert opened.view.keys == ("predicted:CD279",)


def test_chips_narrow_the_list_and_count_what_meets_the_text(panel):
    type_name(panel, "CD19")
    assert panel.chips.chips[Kind.PREDICTED].text() == "predicted 1"
    assert panel.chips.chips[Kind.CHANGE].isHidden()
    panel.chips.chips[Kind.GENE].click()
    assert {key.split(":")[0] for key in listed(panel)} == {"mRNA"}
    assert panel.count.text() == f"{len(listed(panel))} features"
    panel.chips.chips[Kind.GENE].click()
    assert listed(panel)[0] == "predicted:CD19"


def test_what_is_not_found_is_said_with_links_to_the_nearest(panel):
    type_name(panel, "CD199x")
    assert listed(panel) == []
    assert "No feature is called ‘CD199x’." in panel.nothing.text()
    wait_until(lambda: "Nearest" in panel.nothing.text())
    assert 'href="CD19' in panel.nothing.text()
    panel.nothing.linkActivated.emit("CD19")
    assert listed(panel)[0] == "predicted:CD19"
    assert panel.nothing.isHidden()
    panel.chips.chips[Kind.COLUMN].click()
    assert "among the others" in panel.nothing.text()


def test_sorting_by_spatial_pattern_says_that_it_is_computing(panel, opened):
    panel.chips.chips[Kind.PREDICTED].click()
    place = list(ORDERS).index(Order.PATTERN)
    panel.order.setCurrentIndex(place)
    panel.order.activated.emit(place)
    assert panel.count.text() == "computing…"
    wait_until(lambda: panel.count.text() != "computing…")
    figures = panel.exploring.listing.figures
    assert set(figures) == {f"predicted:{name}" for name in PROTEINS}
    assert listed(panel) == sorted(figures, key=figures.get, reverse=True)
    assert panel.list.features.index(0).data(FeatureModel.FIGURE) == f"{max(figures.values()):.3g}"


def test_rows_tell_what_they_are(panel, opened):
    type_name(panel, "CD19")
    opened.show("predicted:CD19", "mRNA:CD19")
    model = panel.list.features
    shown = [model.index(row).data(FeatureModel.SHOWN) for row in range(3)]
    assert shown == [CHANNEL_COLOURS[0], "", CHANNEL_COLOURS[1]]
    tip = model.index(0).data(Qt.ItemDataRole.ToolTipRole)
    assert "Trust in this section: well" in tip
    assert "r = 0.83" in tip
    assert "In the file: CD19_TotalSeqB" in model.index(1).data(Qt.ItemDataRole.ToolTipRole)
    assert model.index(0).data(Qt.ItemDataRole.AccessibleTextRole) == "CD19 (predicted), well"


def test_without_a_section_the_tab_says_what_to_do(dock):
    panel = dock.open_tab("Explore")
    assert not panel.empty.isHidden()
    assert NO_SECTION in panel.empty.layout().itemAt(0).widget().text()
    assert panel.finder.isHidden()
    assert panel.legend.isHidden()


def test_closing_the_section_empties_the_tab(panel, opened, dock):
    opened.set_dirty(False)
    dock.viewer.layers.clear()
    assert panel.finder.isHidden()
    assert panel.legend.isHidden()


def test_the_tab_fits_the_dock(panel, dock):
    panel.exploring.show_keys("predicted:CD19", "measured:CD3_TotalSeqB", "mRNA:CD19")
    settle()
    place = dock.tabs.currentWidget()
    assert panel.width() <= place.viewport().width()
    assert panel.height() <= place.viewport().height()  # the legend scrolls, not the tab
    content = panel.legend.widget()
    assert content.minimumSizeHint().width() <= panel.legend.viewport().width()
    assert panel.list.height() >= 7 * panel.list.sizeHintForRow(0)


# --- legend -------------------------------------------------------------------------------------


def drag(histogram, handle, value):
    """Drag a handle of the histogram to a value."""
    start = QPointF(histogram.position_of(histogram.values[handle]), histogram.height() - 4)
    if handle is Handle.THRESHOLD:
        start.setY(2)
    end = QPointF(histogram.position_of(value), start.y())
    QTest.mousePress(histogram, Qt.MouseButton.LeftButton, pos=start.toPoint())
    QTest.mouseMove(histogram, end.toPoint())
    settle()
    QTest.mouseRelease(histogram, Qt.MouseButton.LeftButton, pos=end.toPoint())


@pytest.fixture
def card(panel, opened):
    opened.show("predicted:CD19")
    settle()
    return panel.legend.cards[0]


def offered(card):
    return [button.text() for button in card.others.values() if not button.isHidden()]


def test_the_legend_names_the_feature_its_unit_and_its_trust(card):
    assert card.name.text() == "CD19"
    assert card.unit.text() == "SD of reference spots"
    assert card.trust.text() == "Well predicted, expected r 0.83"
    assert offered(card) == ["measured", "mRNA"]
    assert card.remove.isHidden()
    assert card.swatch.isHidden()


def test_dragging_a_grip_changes_the_colours_and_reset_brings_them_back(card, opened):
    values = opened.catalogue.values("predicted:CD19")
    default = colour_limits(values)
    drag(card.histogram, Handle.HIGH, 0.5)
    low, high = opened.picture.channels[0].limits
    assert low == pytest.approx(default[0])
    assert high == pytest.approx(0.5, abs=0.05)
    assert_colours(colours(opened), expected_colours(values, (low, high)))
    assert card.high.value() == pytest.approx(high, abs=0.01)
    drag(card.histogram, Handle.LOW, 9.0)  # it stops before the other end
    low, high = opened.picture.channels[0].limits
    assert high - 0.1 < low < high
    assert card.reset.isEnabled()
    card.reset.click()
    assert opened.picture.channels[0].limits == default
    assert not card.reset.isEnabled()


def test_a_click_on_a_grip_alone_chooses_nothing(card, opened):
    low = opened.picture.channels[0].limits[0]
    drag(card.histogram, Handle.LOW, low)
    assert opened.view.limits == {}
    drag(card.histogram, Handle.LOW, 0.0)
    QTest.mouseDClick(card.histogram, Qt.MouseButton.LeftButton, pos=QPoint(60, 20))
    assert opened.view.limits == {}


def test_both_ends_of_a_change_follow_a_drag(card, opened):
    opened.catalogue.set_changes(opened.section.table.obsm["protein_predicted"][["CD19"]])
    opened.show("change:CD19")
    drag(card.histogram, Handle.HIGH, 0.7)
    low, high = opened.picture.channels[0].limits
    assert high == pytest.approx(0.7, abs=0.05)
    assert low == -high
    assert card.histogram.values[Handle.LOW] == low


def test_limits_can_be_typed(card, opened):
    card.high.setValue(1.25)
    assert opened.picture.channels[0].limits[1] == 1.25
    card.low.setValue(0.25)
    assert opened.picture.channels[0].limits == (0.25, 1.25)
    card.low.setValue(2.0)  # above the other end: not taken
    assert opened.picture.channels[0].limits == (0.25, 1.25)


def test_a_threshold_is_ticked_dragged_and_typed(card, opened):
    values = opened.catalogue.values("predicted:CD19")
    assert card.threshold.isHidden()
    card.has_threshold.click()
    assert not card.threshold.isHidden()
    drag(card.histogram, Handle.THRESHOLD, 1.0)
    threshold = opened.view.thresholds["predicted:CD19"]
    assert threshold == pytest.approx(1.0, abs=0.05)
    positive = int((values >= threshold).sum())
    share = 100 * positive / len(values)
    assert card.positive.text() == f"{positive} of {len(values)} spots ({share:.0f} %)"
    assert (colours(opened)[:, 3] > 0).sum() == positive
    card.threshold.setValue(99.0)
    assert card.positive.text() == f"0 of {len(values)} spots (0 %)"
    card.has_threshold.click()
    assert opened.view.thresholds == {}
    assert (colours(opened)[:, 3] > 0).all()


def test_the_histogram_has_the_colours_of_the_tissue(card, opened):
    values = opened.catalogue.values("predicted:CD19")
    assert_colours(card.histogram.colours_of(values), opened.picture.colours)
    card.has_threshold.click()
    assert_colours(card.histogram.colours_of(values), opened.picture.colours)
    settle()
    shot = card.histogram.grab().toImage()
    ratio = shot.devicePixelRatio()
    strip = int((card.histogram.height() - 14) * ratio)
    found = QColor(
        shot.pixel(int(card.histogram.position_of(card.high.value()) * ratio) - 12, strip)
    )
    yellow = QColor(*map(int, lookup_table(COLORMAPS[0])[-1]))
    assert abs(found.red() - yellow.red()) + abs(found.green() - yellow.green()) < 60


def test_buttons_lead_to_the_same_protein_of_other_kinds(card, opened):
    card.others[Kind.MEASURED].click()
    assert opened.view.keys == ("measured:CD19_TotalSeqB",)
    assert offered(card) == ["predicted", "mRNA"]
    card.others[Kind.GENE].click()
    assert opened.view.keys == ("mRNA:CD19",)
    assert card.trust.isHidden()


def test_several_features_have_cards_that_can_be_taken_away(panel, opened):
    opened.show("predicted:CD19", "predicted:CD3", "predicted:CD8")
    cards = panel.legend.cards
    assert [card.isHidden() for card in cards] == [False, False, False]
    assert CHANNEL_COLOURS[1] in cards[1].swatch.styleSheet()
    assert panel.legend.appearance.colormap.isHidden()
    cards[1].remove.click()
    assert opened.view.keys == ("predicted:CD19", "predicted:CD8")
    assert [card.isHidden() for card in cards] == [False, False, True]
    cards[0].remove.click()
    assert opened.view.keys == ("predicted:CD8",)
    assert not panel.legend.appearance.colormap.isHidden()


def test_colour_maps_are_previewed_and_the_safe_ones_marked(panel, opened):
    box = panel.legend.appearance.colormap
    texts = [box.itemText(i) for i in range(box.count())]
    assert [text.split(" ")[0] for text in texts] == list(COLORMAPS)
    assert "colour-blind safe" in texts[0]
    assert "colour-blind" not in texts[COLORMAPS.index("turbo")]
    pixels = preview("magma").pixmap(72, 12).toImage()
    assert pixels.pixelColor(1, 5).lightness() < 30 < 200 < pixels.pixelColor(70, 5).lightness()
    place = COLORMAPS.index("magma")
    box.setCurrentIndex(place)
    box.activated.emit(place)
    assert opened.view.colormap == "magma"
    (key,) = opened.view.keys
    values = opened.catalogue.values(key)
    expected = expected_colours(values, colour_limits(values), "magma")
    assert_colours(colours(opened), expected)


def test_changes_are_offered_diverging_colour_maps(panel, opened):
    changes = opened.section.table.obsm["protein_predicted"][["CD19"]]
    opened.catalogue.set_changes(changes)
    opened.contents_changed.emit()
    assert not panel.chips.chips[Kind.CHANGE].isHidden()
    opened.show("change:CD19")
    box = panel.legend.appearance.colormap
    assert [box.itemText(i).split(" ")[0] for i in range(box.count())] == ["RdBu", "PuOr"]
    box.activated.emit(1)
    assert opened.view.diverging_colormap == "PuOr_r"


def test_sliders_change_spots_and_tissue(panel, opened):
    appearance = panel.legend.appearance
    appearance.opacity.setValue(40)
    appearance.size_slider.setValue(150)
    appearance.tissue.setValue(25)
    wait_until(lambda: opened.view.tissue == 0.25 and opened.view.size == 1.5)
    assert opened.view.opacity == 0.4
    assert opened.spots.opacity == 0.4
    assert opened.image_layer.opacity == 0.25
    np.testing.assert_allclose(opened.spots.size, 1.5 * opened.section.drawn_diameter)


def test_fading_is_offered_where_a_prediction_is_shown(panel, opened):
    fade = panel.legend.appearance.fade
    opened.show("mRNA:CD19")
    assert not fade.isEnabled()
    opened.show("predicted:CD19")
    assert fade.isEnabled()
    opened.section.table.obs.iloc[
        :5, opened.section.table.obs.columns.get_loc("sclinguist_ood")
    ] = 1.0
    fade.click()
    assert opened.view.fade
    shown = colours(opened)
    assert (shown[:5, 3] == 0).all()
    assert (shown[5:, 3] == 255).all()


def test_the_panel_is_readable_in_both_themes(panel, opened, dock):
    for theme, dark in (("light", False), ("dark", True)):
        dock.viewer.theme = theme
        settle()
        shot = panel.list.grab().toImage()
        corner = shot.pixelColor(shot.width() // 3, 3)
        assert (corner.lightness() < 128) is dark
        letters = {
            shot.pixelColor(x, y).lightness() for x in range(25, 120) for y in range(shot.height())
        }
        assert max(letters) - min(letters) > 90
