"""The Save tab in a real window: what is saved returns, what is exported is there."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

from napari_sclinguist.control.jobs import State
from napari_sclinguist.control.view import View
from napari_sclinguist.widgets import figure_group, save_dialog, save_group, table_group, unsaved
from napari_sclinguist.widgets.unsaved import Answer, may_close
from sclinguist_core.data.write import write_table

pytestmark = pytest.mark.gui

VIEW = View(
    keys=("predicted:CD19", "predicted:CD3"),
    limits={"predicted:CD19": (-1.5, 2.5)},
    thresholds={"predicted:CD3": 0.05},
    colormap="cividis",
    diverging_colormap="PuOr_r",
    opacity=0.7,
    size=1.3,
    tissue=0.4,
    fade=True,
)


@pytest.fixture
def panel(dock):
    return dock.open_tab("Save")


@pytest.fixture
def opened(add_section, predicted_section):
    opened = add_section(predicted_section)
    opened.set_dirty(True)
    return opened


@pytest.fixture
def files(monkeypatch):
    """What the dialogs answer, and what they were asked."""

    class Files:
        answer = None
        asked = ()

        def __call__(self, parent, title, proposed, filters, question=lambda path: ""):
            self.asked = (title, proposed, filters, question)
            return self.answer

    chosen = Files()
    for module in (save_group, figure_group, table_group):
        monkeypatch.setattr(module, "choose_file", chosen)
    return chosen


@pytest.fixture
def done(qtbot, dock):
    """Wait until the job has ended."""

    def wait():
        qtbot.waitUntil(lambda: dock.workspace.jobs.state is State.IDLE, timeout=60_000)

    return wait


# --- saving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_everything_returns_when_the_file_is_opened_again(
    dock, panel, opened, files, done, qtbot, tmp_path, suffix
):
    opened.set_view(VIEW)
    section, viewer = opened.section, dock.viewer
    shown = opened.picture.colours.copy()
    layer = opened.spots
    before = {
        "size": np.asarray(layer.size).copy(),
        "scale": np.asarray(layer.scale),
        "colours": np.asarray(layer.face_color),
        "image": np.asarray(opened.image_layer.data),
        "image scale": np.asarray(opened.image_layer.scale),
        "image translate": np.asarray(opened.image_layer.translate),
    }
    files.answer = tmp_path / f"saved{suffix}"
    panel.save.button.click()
    done()
    assert not opened.dirty
    viewer.layers.clear()
    assert dock.workspace.active is None

    viewer.open(str(files.answer), plugin="napari-sclinguist")
    again = dock.workspace.active
    assert again.view == VIEW
    assert (again.name, again.section.microns_per_pixel) == (section.name, 0.5)
    np.testing.assert_array_equal(again.picture.colours, shown)
    for key in section.table.obsm["protein_predicted"]:
        np.testing.assert_array_equal(
            again.catalogue.values(f"predicted:{key}"),
            section.table.obsm["protein_predicted"][key].to_numpy(np.float32),
        )
    after = {
        "size": again.spots.size,
        "scale": again.spots.scale,
        "colours": again.spots.face_color,
        "image": again.image_layer.data,
        "image scale": again.image_layer.scale,
        "image translate": again.image_layer.translate,
    }
    for name, value in before.items():
        np.testing.assert_array_equal(np.asarray(after[name]), value, err_msg=name)
    assert again.image_layer.opacity == pytest.approx(0.4)
    assert viewer.canvas.overlays.scale_bar.visible
    assert panel.saving.path_of(again) == files.answer


def test_saving_takes_the_mark_off_and_shows_the_path(dock, panel, opened, files, done, tmp_path):
    assert "not saved yet" in panel.save.state.text()
    assert "3 predicted proteins, 4 spots" in panel.save.state.text()
    assert panel.save.file.isHidden()
    assert dock.section_bar.chooser.currentText().startswith("●")
    files.answer = tmp_path / "saved.h5ad"
    panel.save.button.click()
    assert not panel.save.button.isEnabled()  # one at a time
    assert not panel.figure.button.isEnabled()
    done()
    assert panel.save.button.isEnabled()
    assert panel.save.state.text().endswith("saved.")
    assert panel.save.file.path == files.answer
    assert not panel.save.file.isHidden()
    assert not dock.section_bar.chooser.currentText().startswith("●")
    panel.save.file.copy.click()
    assert QApplication.clipboard().text() == str(files.answer)


def test_the_folder_is_shown(panel, opened, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(
        "napari_sclinguist.widgets.written_file.QDesktopServices.openUrl",
        lambda url: shown.append(Path(url.toLocalFile())),
    )
    panel.save.file.show_path(tmp_path / "saved.h5ad")
    panel.save.file.folder.click()
    assert shown == [tmp_path]


def test_the_proposed_name_is_of_the_section(panel, opened, files):
    panel.save.button.click()
    title, proposed, filters, _ = files.asked
    assert title == "Save small"
    assert proposed.name == "small_proteins.h5ad"
    assert "*.zarr" in filters
    assert opened.dirty  # the dialog was cancelled


def test_a_failure_is_a_sentence_in_the_dock(dock, panel, opened, files, tmp_path):
    files.answer = tmp_path / "gone" / "saved.h5ad"
    panel.save.button.click()
    assert "does not exist; make it first" in dock.messages.text.text()
    assert opened.dirty


def test_the_original_is_replaced_after_one_question(
    dock, add_section, panel, predicted_section, monkeypatch, done, tmp_path
):
    path = write_table(predicted_section.table, tmp_path / "original.h5ad")
    size = path.stat().st_size
    opened = add_section(replace(predicted_section, source=path))
    opened.set_dirty(True)
    asked = []
    answers = [QMessageBox.StandardButton.No, *[QMessageBox.StandardButton.Yes] * 2]

    def question(parent, title, text, *buttons):
        asked.append(text)
        return answers[len(asked) - 1]

    monkeypatch.setattr(QMessageBox, "question", question)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(path), "(*.h5ad)"))
    panel.save.button.click()
    assert "Replace the original?" in asked[0]
    assert (path.stat().st_size, opened.dirty) == (size, True)
    panel.save.button.click()
    done()
    assert not opened.dirty
    assert path.stat().st_size > size  # image and view are in it now
    panel.save.button.click()
    done()
    assert asked[2] == "Replace 'original.h5ad'?"  # as for any other file


# --- figure and script ----------------------------------------------------------------------


def test_a_figure_is_exported(panel, opened, files, done, tmp_path):
    files.answer = tmp_path / "figure.png"
    panel.figure.width.setValue(8.0)
    panel.figure.dpi.setCurrentIndex(0)
    assert panel.figure.title.text() == "small"
    panel.figure.button.click()
    done()
    _, proposed, filters, _ = files.asked
    assert proposed.name == "small_CD19.png"
    assert "*.svg" in filters
    with Image.open(files.answer) as image:
        assert image.width == pytest.approx(8.0 / 2.54 * 150, abs=2)
    assert panel.figure.file.path == files.answer


def test_the_options_are_what_is_chosen(panel, opened):
    group = panel.figure
    group.content.setCurrentIndex(2)
    group.area.setCurrentIndex(1)
    group.background.setCurrentIndex(1)
    group.title.setText("  My figure ")
    options = group.options()
    assert (options.content, options.area) == (
        figure_group.Content.COMPARISON,
        figure_group.Area.IN_VIEW,
    )
    assert (options.width, options.dpi, options.background) == (16.0, 300, "black")
    assert options.title == "My figure"
    opened.set_view(replace(opened.view, opacity=0.5))
    assert group.title.text() == "  My figure "  # what was typed stays


def test_the_part_in_view_is_exported(dock, panel, opened, files, done, tmp_path):
    dock.viewer.scene.camera.zoom *= 4
    files.answer = tmp_path / "figure.png"
    panel.figure.dpi.setCurrentIndex(0)
    panel.figure.area.setCurrentIndex(1)
    panel.figure.button.click()
    done()
    assert files.answer.is_file()


def test_the_script_is_on_the_clipboard(
    dock, panel, add_section, predicted_section, tmp_path, done
):
    path = write_table(predicted_section.table, tmp_path / "original.h5ad")
    add_section(replace(predicted_section, source=path))
    panel.figure.script.click()
    script = QApplication.clipboard().text()
    assert f'scl.open_section("{path}")' in script
    assert 'table.obsm["protein_predicted"]["CD19"]' in script
    assert dock.messages.text.text().startswith("Copied")


def test_a_script_that_cannot_be_is_a_sentence(dock, panel, opened):
    QApplication.clipboard().setText("before")
    panel.figure.script.click()
    assert "is in no file that a script could open" in dock.messages.text.text()
    assert QApplication.clipboard().text() == "before"


# --- table ----------------------------------------------------------------------------------


def test_a_table_is_exported(panel, opened, files, done, tmp_path):
    files.answer = tmp_path / "table.csv"
    assert panel.table.values.itemText(0) == "Shown: CD19 (predicted)"
    assert panel.table.values.itemText(1) == "All 3 predicted proteins"
    panel.table.values.setCurrentIndex(1)
    panel.table.button.click()
    done()
    table = pd.read_csv(files.answer)
    assert [name for name in table if "predicted" in name] == [
        "CD3 (predicted)",
        "CD19 (predicted)",
        "CD20 (predicted)",
    ]
    assert panel.table.file.path == files.answer


def test_selected_spots_alone_can_be_exported(panel, opened, files, done, tmp_path):
    assert not panel.table.selected.isEnabled()
    opened.select(np.array([True, False, True, False]))
    assert panel.table.selected.text() == "Only the 2 selected spots"
    panel.table.selected.setChecked(True)
    files.answer = tmp_path / "table.csv"
    panel.table.button.click()
    done()
    assert pd.read_csv(files.answer)["barcode"].tolist() == ["a", "c"]
    opened.select(None)
    assert not panel.table.options().selected_only


def test_proteins_are_exported(panel, opened, files, done, tmp_path):
    panel.table.rows.setCurrentIndex(1)
    assert not panel.table.values.isEnabled()
    files.answer = tmp_path / "table.csv"
    panel.table.button.click()
    done()
    assert files.asked[1].name == "small_proteins.csv"
    assert pd.read_csv(files.answer)["protein"].tolist() == ["CD3", "CD19", "CD20"]


# --- the panel ------------------------------------------------------------------------------


def test_sections_come_and_go(dock, panel, opened, add_section, section):
    assert panel.save.isEnabled()
    other = add_section(replace(section, table=section.table.copy(), name="other"))
    assert panel.figure.title.text() == "other"
    opened.set_dirty(False)
    dock.workspace.activate(opened)
    assert panel.figure.title.text() == "small"
    other.set_dirty(True)  # nobody listens to it now
    assert panel.save.state.text().endswith("saved.")
    other.set_dirty(False)
    dock.viewer.layers.clear()
    for group in (panel.save, panel.figure, panel.table):
        assert not group.isEnabled()
    assert panel.save.state.text() == "No section is open."


def test_everything_fits_the_dock(dock, panel, opened, qtbot):
    panel.figure.file.show_path(Path("/a/very/long/path/to/some/folder/of/figures") / ("x" * 80))
    dock.resize(400, 800)
    QApplication.processEvents()
    assert panel.minimumSizeHint().width() <= 388
    assert panel.figure.file.text.width() <= 388


def test_names_get_the_suffix_of_the_chosen_kind():
    filters = "PNG image (*.png);;SVG drawing (*.svg)"
    for name, kind, expected in (
        ("a", "SVG drawing (*.svg)", "a.svg"),
        ("a.PNG", "SVG drawing (*.svg)", "a.PNG"),
        ("a.b", "", "a.b.png"),
    ):
        assert save_dialog.complete(Path(name), kind, filters) == Path(expected)


# --- closing --------------------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch):
    """Answers to the question about unsaved sections, and the names that were asked about."""
    given = []
    asked = []

    def ask(parent, name):
        asked.append(name)
        return given[len(asked) - 1]

    monkeypatch.setattr(unsaved, "ask", ask)
    ask.given, ask.asked = given, asked
    return ask


@pytest.fixture
def closed(dock):
    """How often the window was told to close; it stays, for the test to look at."""
    times = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(dock.window()), "close", lambda self: times.append(True))
        yield times


def test_a_saved_window_may_close(dock, opened, answers):
    opened.set_dirty(False)
    assert may_close(dock)
    assert answers.asked == []


def test_cancel_keeps_the_window(dock, opened, answers):
    answers.given += [Answer.CANCEL]
    assert not may_close(dock)
    assert answers.asked == ["small"]
    assert opened.dirty


def test_discard_lets_the_window_close(dock, opened, answers):
    answers.given += [Answer.DISCARD]
    assert may_close(dock)
    assert not opened.dirty


def test_save_writes_everything_and_then_closes(
    dock, opened, answers, closed, files, done, add_section, section, tmp_path
):
    other = add_section(replace(section, table=section.table.copy(), name="other"))
    other.set_dirty(True)
    answers.given += [Answer.SAVE, Answer.DISCARD]
    files.answer = tmp_path / "saved.h5ad"
    assert not may_close(dock)
    assert answers.asked == ["small", "other"]
    done()
    assert os.listdir(tmp_path) == ["saved.h5ad"]
    assert dock.workspace.dirty == []
    assert closed == [True]


def test_no_file_chosen_keeps_the_window(dock, opened, answers, files, closed):
    answers.given += [Answer.SAVE]
    assert not may_close(dock)
    assert opened.dirty
    assert closed == []


def test_a_failure_keeps_the_window(dock, opened, answers, files, closed, done, tmp_path):
    answers.given += [Answer.SAVE]
    files.answer = tmp_path / "gone" / "saved.h5ad"
    assert not may_close(dock)
    done()
    assert "does not exist" in dock.messages.text.text()
    assert opened.dirty
    assert closed == []


@pytest.mark.parametrize(
    ("text", "answer"), [("Save…", "save"), ("Discard", "discard"), ("Cancel", "cancel")]
)
def test_the_question_has_three_answers(dock, qtbot, monkeypatch, text, answer):
    def press(box):
        assert "What was added to small is not saved." in box.text()
        next(one for one in box.buttons() if one.text() == text).click()
        return 0

    monkeypatch.setattr(QMessageBox, "exec", press)
    assert unsaved.ask(dock, "small") == answer


def test_closing_the_real_window_asks(dock, opened, answers):
    answers.given += [Answer.CANCEL]
    dock.window().close()
    assert answers.asked == ["small"]
    assert dock.window().isVisible()
