"""The dock follows what is in the window."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from napari.layers import Image, Layer, Points
from qtpy.QtWidgets import QApplication

from gui.conftest import wait_for_threads
from napari_sclinguist.docking import open_dock
from napari_sclinguist.layers import section_layers
from sclinguist_core.resources import sample_section_path

pytestmark = pytest.mark.gui


def test_without_a_section_it_says_how_to_open_one(dock):
    assert "Drop a Space Ranger folder" in dock.section_bar.hint.text()
    assert dock.section_bar.hint.isVisible()
    assert not dock.section_bar.chooser.isVisible()
    for title in ("Explore", "Compare", "Perturb", "Save"):
        dock.open_tab(title)


def test_opening_a_file_opens_the_dock(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    viewer.open(
        sample_section_path() / "spatial" / "scalefactors_json.json", plugin="napari-sclinguist"
    )
    qtbot.waitUntil(lambda: "Protein from RNA (napari-sclinguist)" in viewer.window.dock_widgets)
    dock = open_dock(viewer)
    assert dock.workspace.active.section.n_obs > 1000
    assert len(dock.workspace.sections) == 1
    dock.workspace.close()


def test_large_data_are_read_beside_the_window(make_napari_viewer, qtbot, monkeypatch):
    monkeypatch.setattr("napari_sclinguist.reader._LARGE", 1_000)
    viewer = make_napari_viewer()
    assert viewer.open(sample_section_path(), plugin="napari-sclinguist") == []
    qtbot.waitUntil(lambda: bool(viewer.window.dock_widgets))
    dock = open_dock(viewer)
    qtbot.waitUntil(lambda: dock.workspace.active is not None, timeout=30_000)
    assert [type(layer) for layer in viewer.layers] == [Image, Points]
    assert dock.workspace.active.section.n_obs > 1000
    dock.workspace.close()
    wait_for_threads()


def test_a_broken_file_is_a_sentence_and_the_viewer_stays(make_napari_viewer, qtbot, tmp_path):
    viewer = make_napari_viewer()
    (tmp_path / "broken.h5ad").write_bytes(b"nonsense")
    assert viewer.open(tmp_path / "broken.h5ad", plugin="napari-sclinguist") == []
    qtbot.waitUntil(lambda: bool(viewer.window.dock_widgets))
    dock = open_dock(viewer)
    qtbot.waitUntil(lambda: dock.messages.message is not None)
    assert "broken.h5ad' cannot be read" in dock.messages.text.text()
    assert "Traceback" not in dock.messages.text.text()
    assert "Traceback" in dock.messages.message.details
    dock.workspace.close()


def test_legend_and_scale_bar_follow_the_section(dock, add_section, section):
    overlays = dock.viewer.canvas.overlays
    opened = add_section(section)
    assert overlays.text.text == "total counts\nRNA molecules"
    assert overlays.scale_bar.visible
    assert opened.spots.face_colorbar.visible
    opened.show("mRNA:CD19")
    assert overlays.text.text == "CD19 (mRNA)\nlog1p CP10k"
    opened.show("mRNA:CD19", "mRNA:MS4A1")
    assert overlays.text.text == "CD19 (mRNA) + MS4A1 (mRNA)"
    assert not opened.spots.face_colorbar.visible


def test_no_scale_bar_where_the_size_of_a_pixel_is_unknown(dock, add_section, section):
    add_section(replace(section, microns_per_pixel=None))
    assert not dock.viewer.canvas.overlays.scale_bar.visible


def test_choosing_a_layer_chooses_its_section(dock, add_section, section):
    first = add_section(section)
    second = add_section(replace(section, name="other", table=section.table.copy()))
    assert dock.workspace.active is second
    dock.viewer.layers.selection.active = first.spots
    assert dock.workspace.active is first
    assert dock.section_bar.chooser.currentIndex() == 0
    dock.section_bar.chooser.activated.emit(1)
    assert dock.workspace.active is second


def test_the_spot_under_the_cursor_is_told(dock, add_section, section):
    opened = add_section(section)
    opened.show("column:score")
    x, y = section.positions[2] * 0.5
    for callback in dock.viewer.mouse_move_callbacks:
        callback(dock.viewer, SimpleNamespace(position=(y, x)))
    assert dock.section_bar.under_cursor.text() == "c   score 2.5"
    for callback in dock.viewer.mouse_move_callbacks:
        callback(dock.viewer, SimpleNamespace(position=(9e4, 9e4)))
    assert dock.section_bar.under_cursor.text() == ""


def test_a_predicted_value_comes_with_its_error(add_section, predicted_section):
    table = predicted_section.table
    table.obsm["protein_predicted_std"] = pd.DataFrame({"CD19": [0.5] * 4}, index=table.obs_names)
    opened = add_section(predicted_section)
    opened.show("predicted:CD19")
    assert opened.describe_row(3) == "d   CD19 (predicted) 2 ± 0.5"


def test_a_section_closed_with_unsaved_predictions_can_be_brought_back(dock, add_section, section):
    opened = add_section(section)
    opened.set_dirty(True)
    dock.viewer.layers.remove(opened.spots)
    assert dock.workspace.sections == []
    assert "what was added to it was not saved" in dock.messages.text.text()
    dock.messages.action.click()
    (back,) = dock.workspace.sections
    assert back.section is section
    assert back.dirty


def test_twenty_switches_use_the_same_layers(dock, add_section, sample_part):
    opened = add_section(sample_part)
    layers = list(dock.viewer.layers)
    genes = [e.key for e in opened.catalogue.entries if e.key.startswith("mRNA:")][:300:15]
    colours = set()
    for key in genes:
        opened.show(key)
        np.testing.assert_allclose(opened.spots.face_color, opened.picture.colours / 255, atol=1e-6)
        colours.add(opened.picture.colours.tobytes())
    assert len(genes) == 20
    assert len(colours) > 10
    assert list(dock.viewer.layers) == layers


def test_the_tissue_can_be_dimmed(add_section, section):
    opened = add_section(section)
    opened.set_view(replace(opened.view, tissue=0.3, opacity=0.6))
    assert opened.image_layer.opacity == 0.3
    assert opened.spots.opacity == 0.6


def test_an_unknown_feature_leaves_the_view_as_it_was(add_section, section):
    opened = add_section(section)
    view = opened.view
    with pytest.raises(KeyError):
        opened.show("mRNA:NOSUCH")
    assert opened.view is view


def test_many_rows_blend_in_a_second_layer_that_is_kept(
    dock, add_section, sample_part, monkeypatch
):
    monkeypatch.setattr("napari_sclinguist.carriers.MAX_POINTS", 10)
    opened = add_section(replace(sample_part, assay="xenium"))
    assert isinstance(opened.spots, Image)
    n_layers = len(dock.viewer.layers)
    opened.show("mRNA:CD19", "mRNA:CD3E")
    blended = opened.shown_layer
    assert blended is not opened.spots
    assert (blended.visible, opened.spots.visible) == (True, False)
    opened.show("mRNA:CD19")
    assert (blended.visible, opened.spots.visible) == (False, True)
    assert opened.shown_layer is opened.spots
    opened.show("mRNA:CD19", "mRNA:MS4A1")
    assert opened.shown_layer is blended
    assert len(dock.viewer.layers) == n_layers + 1


def test_layers_of_others_are_left_alone(dock):
    dock.viewer.add_points(np.zeros((3, 2)), name="mine")
    dock.viewer.add_image(np.zeros((5, 5)), name="picture")
    assert dock.workspace.active is None
    assert dock.messages.message is None


def test_a_spatialdata_object_of_another_plugin_is_adopted(dock, section, qtbot):
    sdata = section.to_spatialdata()
    theirs = Points(section.positions[:, ::-1], name="small", metadata={"sdata": sdata})
    dock.viewer.add_layer(theirs)
    assert "SpatialData object" in dock.messages.text.text()
    dock.messages.action.click()
    qtbot.waitUntil(lambda: dock.workspace.active is not None, timeout=30_000)
    opened = dock.workspace.active
    assert theirs in dock.viewer.layers
    np.testing.assert_allclose(opened.spots.data, theirs.data)
    assert tuple(opened.spots.scale) == tuple(theirs.scale)
    assert opened.section.rna().counts.sum() == section.rna().counts.sum()
    dock.viewer.add_layer(Points(np.zeros((1, 2)), metadata={"sdata": sdata}))
    assert len(dock.workspace.sections) == 1


def test_closing_the_window_over_unsaved_predictions_asks(dock, add_section, section, monkeypatch):
    opened = add_section(section)
    opened.set_dirty(True)
    asked = []
    monkeypatch.setattr(
        "napari_sclinguist.widgets.unsaved.may_close",
        lambda parent: asked.append(type(parent).__name__) or False,
    )
    window = dock.window()
    assert not window.close()
    assert asked == ["ProteinDock"]
    assert window.isVisible()
    opened.set_dirty(False)


def test_closing_the_window_asks_also_when_the_dock_was_closed(
    make_napari_viewer, section, monkeypatch
):
    viewer = make_napari_viewer(show=True)
    for data in section_layers(section):
        viewer.add_layer(Layer.create(*data))
    dock = open_dock(viewer)
    QApplication.processEvents()
    window = dock.window()
    dock.workspace.active.set_dirty(True)
    viewer.window.remove_dock_widget(dock)
    asked = []
    monkeypatch.setattr(
        "napari_sclinguist.widgets.unsaved.may_close",
        lambda parent: asked.append([one.name for one in parent.workspace.dirty]) or False,
    )
    assert not window.close()
    assert asked == [["small"]]
    dock = open_dock(viewer)
    dock.workspace.active.set_dirty(False)
    dock.workspace.close()


def test_the_dock_lets_go_of_the_viewer(make_napari_viewer, section):
    viewer = make_napari_viewer()
    dock = open_dock(viewer)
    n_callbacks = len(viewer.mouse_move_callbacks)
    dock.close()
    QApplication.processEvents()
    assert len(viewer.mouse_move_callbacks) == n_callbacks - 1
    viewer.add_points(np.zeros((1, 2)))  # nobody listens any more
    assert dock.workspace.sections == []


def test_a_dock_that_was_closed_can_be_opened_again(make_napari_viewer, section):
    viewer = make_napari_viewer()
    for data in section_layers(section):
        viewer.add_layer(Layer.create(*data))
    first = open_dock(viewer)
    first.workspace.active.set_dirty(True)
    n_callbacks = len(viewer.mouse_move_callbacks)
    viewer.window.remove_dock_widget(first)
    assert len(viewer.mouse_move_callbacks) == n_callbacks - 1
    second = open_dock(viewer)
    assert second is not first
    assert second.workspace.active.section is section
    assert second.workspace.active.dirty
    assert len(viewer.mouse_move_callbacks) == n_callbacks
    second.workspace.active.set_dirty(False)
    second.workspace.close()


OPENED = """
import json, sys
import napari
from napari_sclinguist.docking import open_dock
from napari_sclinguist.layers import section_layers
viewer = napari.Viewer(show=True)
dock = open_dock(viewer)
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(loaded)))
dock.workspace.close()
viewer.close()
"""


def test_opening_the_dock_imports_nothing_heavy():
    answer = subprocess.run(
        [sys.executable, "-c", OPENED], capture_output=True, text=True, check=True, timeout=120,
        env=os.environ | {"NAPARI_ASYNC": "0"},
    )  # fmt: skip
    loaded = set(json.loads(answer.stdout.strip().splitlines()[-1]))
    assert "napari_sclinguist" in loaded
    heavy = {"torch", "scanpy", "squidpy", "spatialdata", "pytorch_lightning", "sklearn"}
    assert loaded & heavy == set()


# spatialdata and its writers speak to each other in deprecated ways
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_spatialdata_store_opens(make_napari_viewer, sample_part, tmp_path):
    sample_part.to_spatialdata().write(tmp_path / "section.zarr")
    viewer = make_napari_viewer()
    viewer.open(tmp_path / "section.zarr", plugin="napari-sclinguist")
    dock = open_dock(viewer)
    opened = dock.workspace.active
    assert dock.messages.message is None
    assert [type(layer) for layer in viewer.layers] == [Image, Points]
    assert opened.section.n_obs == sample_part.n_obs
    np.testing.assert_allclose(
        opened.section.microns_per_pixel, sample_part.microns_per_pixel, rtol=1e-3
    )
    dock.workspace.close()
    wait_for_threads()
