"""The real window: what is dropped on it appears in the right place."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from napari_sclinguist.launch import show_section
from sclinguist_core.errors import InputError
from sclinguist_core.resources import sample_section_path

pytestmark = pytest.mark.gui


def check_sample(layers):
    """Spots at true size lie on tissue, in µm."""
    image, spots = layers
    assert image.rgb
    assert len(spots.data) > 1000
    assert (
        [str(unit) for unit in image.units]
        == ["micrometer"] * 2
        == [str(unit) for unit in spots.units]
    )
    assert np.median(spots.size) * spots.scale[0] == pytest.approx(55, rel=0.01)
    # A typical spot covers stained tissue, the corner of the image is bare glass.
    spot = np.argsort(np.linalg.norm(spots.data - np.median(spots.data, axis=0), axis=1))[0]
    row, column = np.round(image.world_to_data(spots.data_to_world(spots.data[spot]))).astype(int)
    assert image.data[row - 3 : row + 4, column - 3 : column + 4].mean() < 225
    assert image.data[:7, :7].mean() > 225


def test_the_sample_folder_opens(make_napari_viewer):
    viewer = make_napari_viewer()
    viewer.open(sample_section_path(), plugin="napari-sclinguist")
    check_sample(viewer.layers)
    state = viewer.layers[1].metadata["sclinguist"]
    assert state["view"].keys == ("column:total counts",)
    # The dock tells the values under the cursor; napari would go on telling those of the first.
    assert viewer.layers[1].features.empty


def test_the_sample_opens_from_the_menu_and_says_that_it_is_simulated(make_napari_viewer):
    viewer = make_napari_viewer()
    viewer.open_sample("napari-sclinguist", "tonsil_simulated")
    check_sample(viewer.layers)
    assert all("simulated" in layer.name for layer in viewer.layers)


def test_show_section_adds_a_legend_and_a_scale_bar(make_napari_viewer, predicted_section):
    viewer = make_napari_viewer()
    shown = show_section(predicted_section, "CD20", viewer=viewer, block=False)
    assert shown is viewer
    assert viewer.canvas.overlays.text.text == "CD20 (predicted)\nsd of the training reference"
    assert viewer.layers[1].face_colorbar.visible
    assert viewer.canvas.overlays.scale_bar.visible
    # CD20 is lowest in the first spot and highest in the last: both ends of the colours
    colours = viewer.layers[1].face_color
    assert not np.allclose(colours[0], colours[3])
    np.testing.assert_allclose(colours[1], colours[2])


def test_the_window_shows_the_picture(make_napari_viewer, section):
    viewer = make_napari_viewer(show=True)
    show_section(section, viewer=viewer, block=False)
    picture = viewer.screenshot(canvas_only=True)
    assert picture[..., :3].max() == 255  # the white glass of the image is drawn
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 2


def test_a_section_seen_from_far_keeps_its_colours(make_napari_viewer, section):
    yellow = np.array([253, 231, 36])  # the end of viridis
    viewer = make_napari_viewer(show=True)
    show_section(replace(section, images={}), "score", viewer=viewer, block=False)
    spots = viewer.layers[0]
    spots.face_colorbar.visible = False
    spots.face_color = np.append(yellow / 255, 1.0)
    viewer.canvas.overlays.text.visible = viewer.canvas.overlays.scale_bar.visible = False
    viewer.scene.camera.zoom = 1.2 / (spots.size[0] * spots.scale[0])  # 1.2 px a spot
    seen = viewer.screenshot(canvas_only=True)[..., :3].reshape(-1, 3).astype(float)
    drawn = seen[seen.max(axis=1) > 40]
    assert len(drawn) >= 3
    # Dimmer than the colour, since pixels are covered in part, but of its hue.
    np.testing.assert_allclose(
        drawn / drawn.max(axis=1, keepdims=True), np.tile(yellow / 253, (len(drawn), 1)), atol=0.1
    )


def test_a_missing_display_is_said_in_one_sentence(monkeypatch, section):
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux names its display in the environment")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(InputError, match="needs a display"):
        show_section(section)


def test_a_missing_napari_names_the_extra(monkeypatch, section):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"napari-sclinguist\[app\]"):
        show_section(section)
