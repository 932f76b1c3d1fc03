"""Layers of sections: which are seen, and what becomes of them when one is removed."""

from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image

from gui.at_once import workspace_of
from gui.compared_section import make_section
from napari_sclinguist import carriers
from napari_sclinguist.control.tissue_selection import TissueSelection


def another(shift=0.0):
    """The same section again, with a table of its own, in another place."""
    section = make_section()
    section.table.obsm["spatial"] = section.table.obsm["spatial"] + shift
    return replace(section, name="other", images={} if shift else section.images)


def visible(workspace):
    return {layer.name for layer in workspace.viewer.layers if layer.visible}


def rows(*chosen):
    mask = np.zeros(60, bool)
    mask[list(chosen)] = True
    return mask


@pytest.fixture
def bins(monkeypatch):
    """A section whose blended pictures need a second layer."""
    monkeypatch.setattr(carriers, "MAX_POINTS", 10)
    section = make_section()
    section.table.obs["array_row"], section.table.obs["array_col"] = np.divmod(np.arange(60), 8)
    return section


BLEND = ("predicted:CD19", "predicted:CD3")


def test_of_sections_in_one_place_the_active_one_is_seen():
    workspace = workspace_of(make_section(), another())
    first, second = workspace.sections
    assert visible(workspace) == {"other hires", "other spots"}
    workspace.activate(first)
    assert visible(workspace) == {"compared hires", "compared spots"}
    assert workspace.viewer.layers.selection.active is first.spots  # napari's tools follow
    workspace.viewer.layers.selection.active = second.spots
    assert workspace.active is second
    assert visible(workspace) == {"other hires", "other spots"}
    workspace.viewer.layers.remove(second.spots)
    assert {"compared hires", "compared spots"} <= visible(workspace)


def test_what_the_user_hid_stays_hidden_and_rings_go_along():
    workspace = workspace_of(make_section(), another())
    selection = TissueSelection(workspace)
    first, second = workspace.sections
    workspace.viewer.add_layer(Image(np.zeros((4, 4)), name="somebody else's"))
    second.select(rows(3))
    second.image_layer.visible = False
    workspace.activate(first)
    assert visible(workspace) == {"compared hires", "compared spots", "somebody else's"}
    workspace.activate(second)
    assert visible(workspace) == {"other spots", "other: selected", "somebody else's"}
    selection.close()


def test_a_section_that_was_shown_by_hand_is_put_aside_at_the_next_choice():
    workspace = workspace_of(make_section(), another())
    first, second = workspace.sections
    first.spots.visible = True
    workspace.activate(first)
    workspace.activate(second)
    assert visible(workspace) == {"other hires", "other spots"}


def test_sections_beside_each_other_are_all_seen():
    workspace = workspace_of(make_section(), another(shift=1e6))
    everything = {"compared hires", "compared spots", "other spots"}
    assert visible(workspace) == everything
    workspace.activate(workspace.sections[0])
    assert visible(workspace) == everything


def test_a_section_put_aside_returns_with_the_picture_it_has_then(bins):
    workspace = workspace_of(bins, another())
    first, second = workspace.sections
    workspace.activate(first)
    first.show(*BLEND)
    workspace.activate(second)
    first.show("predicted:CD3")
    first.show(*BLEND)
    assert visible(workspace) == {"other hires", "other spots"}
    first.show("predicted:CD3")
    workspace.activate(first)
    assert visible(workspace) == {"compared hires", first.spots.name}


def test_a_blended_layer_that_is_deleted_leaves_the_spots(bins):
    workspace = workspace_of(bins)
    opened, layers = workspace.active, workspace.viewer.layers
    selection = TissueSelection(workspace)
    opened.show(*BLEND)
    blended = opened.shown_layer
    assert blended.name == "compared: blended"
    layers.remove(blended)
    assert opened.layers == [opened.spots]
    assert opened.spots.visible
    assert opened.view.keys == BLEND[:1]
    opened.select(rows(1, 2))
    assert selection.highlights[opened].layer in layers
    opened.show(*BLEND)
    assert opened.shown_layer is not blended
    assert opened.shown_layer.visible
    assert not opened.spots.visible


def test_a_blended_layer_goes_and_comes_with_its_section(bins):
    workspace = workspace_of(bins)
    opened, layers = workspace.active, workspace.viewer.layers
    opened.show(*BLEND)
    layers.selection = {opened.spots}
    layers.remove_selected()
    assert [layer.name for layer in layers] == ["compared hires"]
    layers.append(opened.spots)
    back = workspace.active
    assert [layer.name for layer in layers].count("compared: blended") == 1
    assert [layer.visible for layer in back.layers] == [False, True]
    back.show("predicted:CD3")
    assert [layer.visible for layer in back.layers] == [True, False]


@pytest.mark.parametrize("everything", [True, False])
def test_layers_that_are_removed_together_are_no_trouble(bins, everything):
    workspace = workspace_of(bins)
    opened, layers = workspace.active, workspace.viewer.layers
    selection = TissueSelection(workspace)
    opened.show(*BLEND)
    opened.select(rows(4))
    if everything:
        layers.clear()
    else:
        layers.selection = set(layers)
        layers.remove_selected()
    assert len(layers) == 0
    assert workspace.sections == []
    assert selection.highlights == {}


def test_a_dock_that_is_opened_again_finds_the_blended_layer(bins):
    workspace = workspace_of(bins)
    workspace.active.show(*BLEND)
    before = list(workspace.viewer.layers)
    workspace.close()
    again = type(workspace)(workspace.viewer, workspace.jobs._launch)
    again.adopt_all()
    assert list(workspace.viewer.layers) == before
    assert again.active.shown_layer is before[-1]


def test_spots_are_selected_after_their_section_was_brought_back():
    workspace = workspace_of(make_section())
    first = workspace.active
    selection = TissueSelection(workspace)
    workspace.viewer.layers.remove(first.spots)
    workspace.viewer.layers.append(first.spots)
    back = workspace.active
    assert back is not first
    back.spots.selected_data = {5}
    assert np.flatnonzero(back.selected).tolist() == [5]
    assert first.selected is None
    assert list(selection.highlights) == [back]
    selection.close()
    back.spots.selected_data = {6}
    assert np.flatnonzero(back.selected).tolist() == [5]
