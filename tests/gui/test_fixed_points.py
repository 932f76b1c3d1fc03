"""Spots stay in their places and their order, whatever napari's tools do to them."""

import numpy as np
import pytest
from napari.layers import Points

from gui.at_once import workspace_of
from gui.compared_section import make_section
from napari_sclinguist.control.agreement import Pair
from napari_sclinguist.control.fixed_points import FixedPoints
from napari_sclinguist.control.side_by_side import SideBySide, contents
from napari_sclinguist.control.tissue_selection import TissueSelection

SENTENCE = "The spots belong to the section and stay where they are."


def move(layer):
    """What dragging a selected spot does when the button is let go."""
    layer.events.data(value=layer.data, action="changing", data_indices=(3,), vertex_indices=((),))
    with layer.events.data.blocker():
        layer._move({3}, (70.0, 80.0))
    layer._move({3}, (90.0, 95.0))


def paste(layer):
    layer._copy_data()
    layer._paste_data()


CHANGES = {
    "delete": lambda layer: layer.remove_selected(),
    "delete others": lambda layer: layer.remove([0, 1]),
    "delete all": lambda layer: layer.remove(range(len(layer.data))),
    "move": move,
    "add": lambda layer: layer.add([[1.0, 2.0]]),
    "paste": paste,
    "replace": lambda layer: setattr(layer, "data", np.zeros((7, 2))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_napari_changes_is_put_back(change):
    workspace = workspace_of(make_section())
    selection = TissueSelection(workspace)
    opened = workspace.active
    layer = opened.spots
    layer.selected_data = {3, 8}
    colours, sizes = layer.face_color.copy(), layer.size.copy()
    CHANGES[change](layer)
    np.testing.assert_array_equal(layer.data, opened.section.positions[:, ::-1])
    np.testing.assert_array_equal(layer.face_color, colours)
    np.testing.assert_array_equal(layer.size, sizes)
    assert len(layer.symbol) == len(layer.border_color) == len(layer.shown) == 60
    assert workspace.heard == [SENTENCE]
    # napari selects what it adds, whatever is left of it.
    assert set(layer.selected_data) == (set() if change == "add" else {3, 8})
    opened.show("predicted:CD3")
    np.testing.assert_allclose(layer.face_color, opened.picture.colours / 255, atol=1e-6)
    layer.selected_data = {59}
    assert np.flatnonzero(opened.selected).tolist() == [59]
    selection.close()


def test_a_section_that_came_back_is_told_once():
    workspace = workspace_of(make_section())
    first = workspace.active
    workspace.viewer.layers.remove(first.spots)
    workspace.viewer.layers.append(first.spots)
    assert workspace.active is not first
    first.spots.remove([2])
    assert len(first.spots.data) == 60
    assert workspace.heard == [SENTENCE]


def test_points_of_panels_stay_too():
    workspace = workspace_of(make_section())
    opened = workspace.active
    selection, side_by_side = TissueSelection(workspace), SideBySide(workspace.viewer)
    pair = Pair(a="predicted:CD19", b="measured:CD19")
    side_by_side.show(opened, contents(opened, pair, with_difference=False))
    spots = side_by_side.panels[0].spots
    selection.take_from(spots, opened)
    spots.remove([0])
    np.testing.assert_array_equal(spots.data, opened.spots.data)
    assert workspace.heard == [SENTENCE]
    side_by_side.leave()


def test_the_same_data_is_no_change_and_a_closed_guard_guards_nothing():
    layer = Points(np.arange(8.0).reshape(4, 2))
    heard = []
    fixed = FixedPoints(layer, lambda: heard.append(1))
    layer.data = layer.data.copy()
    assert heard == []
    layer.remove([0])
    assert heard == [1]
    fixed.close()
    layer.remove([0])
    assert len(layer.data) == 3
    assert heard == [1]


@pytest.mark.gui
def test_what_is_put_back_is_drawn_as_before(dock, add_section, section, qtbot):
    opened = add_section(section)
    opened.spots.selected_data = {1}
    opened.spots.selected_data = set()
    before = dock.viewer.screenshot(canvas_only=True)
    opened.spots.remove([0, 2])
    after = dock.viewer.screenshot(canvas_only=True)
    np.testing.assert_array_equal(after, before)
    assert dock.messages.text.text() == SENTENCE
    opened.spots.mode = "select"
    opened.spots.selected_data = {1}
    paste(opened.spots)
    opened.spots.selected_data = set()
    opened.spots.mode = "pan_zoom"
    np.testing.assert_array_equal(dock.viewer.screenshot(canvas_only=True), before)
