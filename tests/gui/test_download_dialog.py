"""The real sample section: downloaded beside the window from a server on this machine."""

import threading

import numpy as np
import pytest

from file_server import FileServer, publish_section
from napari_sclinguist.control.download import Download, Stage
from napari_sclinguist.sample import human_tonsil
from sclinguist_core.data.datasets import find_dataset
from sclinguist_core.data.download import download_iter, downloaded
from sclinguist_core.data.http_file import Patience
from sclinguist_core.errors import InputError
from sclinguist_core.resources import sample_section_path

PREFIX = "CytAssist_FFPE_Protein_Expression_Human_Tonsil"
COUNTS = f"{PREFIX}_filtered_feature_bc_matrix.h5"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Has the simulated section under the names, and in the layout, of the real one."""
    server = FileServer()
    publish_section(server, sample_section_path(), PREFIX)
    monkeypatch.setenv("SCLINGUIST_MIRROR", server.url)
    monkeypatch.setenv("SCLINGUIST_CACHE", str(tmp_path))
    yield server
    server.close()


@pytest.fixture
def dataset(server):
    return find_dataset("human-tonsil")


class Thread:
    """Runs a job step by step, when the test says so."""

    def __init__(self):
        self.stopped = False

    def __call__(self, steps, listener):
        self.stopped = False
        self.generator, self.listener = steps(), listener
        return self.stop

    def stop(self):
        self.stopped = True

    def run(self, until=lambda: False):
        """Go on until something is so, or to the end."""
        while not until():
            if self.stopped:
                self.generator.close()
                break
            try:
                self.listener.progressed(next(self.generator))
            except StopIteration as end:
                self.listener.returned(end.value)
                break
            except Exception as error:
                self.listener.raised(error)
                break
        else:
            return
        self.listener.ended()


@pytest.fixture
def thread():
    return Thread()


@pytest.fixture
def make_download(dataset, thread):
    """A download without a window; what it opened is in ``opened``, what it showed in ``shown``."""

    def make(open_folder=None):
        opened, shown = [], []
        patience = Patience(timeout=20.0, attempts=1, pause=0.0)
        download = Download(dataset, thread, open_folder or opened.append, patience=patience)
        download.opened, download.shown = opened, shown
        download.changed.connect(lambda state: shown.append(state))
        return download

    return make


# --- what is shown; no window is needed ----------------------------------------------------------


def test_the_folder_is_opened_when_it_has_come(make_download, thread, dataset):
    download = make_download()
    download.start()
    assert download.state.stage is Stage.RUNNING
    thread.run()
    assert download.state.stage is Stage.ENDED
    assert download.opened == [dataset.folder]
    assert downloaded(dataset) == dataset.folder
    fractions = [state.fraction for state in download.shown if state.fraction is not None]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1
    megabytes = [state.text for state in download.shown if " MB of " in state.text]
    assert len(megabytes) == len(fractions)


def test_without_a_known_size_the_bar_runs_without_end(make_download, thread, server):
    for served in server.files.values():
        served.chunked = True
    download = make_download()
    download.start()
    thread.run()
    assert download.state.stage is Stage.ENDED
    assert {state.fraction for state in download.shown} == {None}
    assert any(state.text.endswith("MB so far") for state in download.shown)


def test_a_cancelled_download_goes_on_next_time(make_download, thread, server, dataset):
    server.files[COUNTS].stalls_after = 300_000
    download = make_download()
    download.start()
    thread.run(until=lambda: "0.3 MB of" in download.state.text)
    download.cancel()
    assert download.state.stage is Stage.STOPPING
    thread.run()
    assert download.state.stage is Stage.ENDED
    assert download.opened == []
    assert downloaded(dataset) is None
    server.files[COUNTS].stalls_after = None
    download.start()
    thread.run()
    assert download.opened == [dataset.folder]
    assert server.ranges_asked(COUNTS) == [None, "bytes=300000-"]


def test_what_went_wrong_is_one_sentence_and_can_be_tried_again(make_download, thread, server):
    server.files[COUNTS].statuses = [404]
    download = make_download()
    download.start()
    thread.run()
    assert download.state.stage is Stage.FAILED
    assert "status 404" in download.state.text
    assert "Traceback" not in download.state.text
    assert "\n" not in download.state.text
    download.start()
    thread.run()
    assert download.state.stage is Stage.ENDED
    assert len(download.opened) == 1


def test_a_section_that_cannot_be_opened_is_said(make_download, thread):
    def refuse(folder):
        raise InputError("It is damaged.")

    download = make_download(refuse)
    download.start()
    thread.run()
    assert (download.state.stage, download.state.text) == (Stage.FAILED, "It is damaged.")


def test_after_closing_nothing_is_said(make_download, thread, server):
    server.files[COUNTS].stalls_after = 10
    download = make_download()
    download.start()
    thread.run(until=lambda: " of " in download.state.text)
    said = len(download.shown)
    download.close()
    thread.run()
    assert len(download.shown) == said
    assert download.opened == []


def test_without_a_window_the_command_is_named(server, monkeypatch):
    monkeypatch.setattr("napari.current_viewer", lambda: None)
    with pytest.raises(InputError, match="run `sclinguist download human-tonsil`"):
        human_tonsil()
    assert server.asked == []


# --- in a window ---------------------------------------------------------------------------------


@pytest.fixture
def viewer(make_napari_viewer, qtbot, request):
    """A window; the dock that opens with a section is closed down before it."""
    from napari_sclinguist.widgets.dock import ProteinDock

    viewer = make_napari_viewer()
    yield viewer
    qtbot.wait(1)
    if hasattr(viewer.window, "_qt_window"):
        for dock in viewer.window._qt_window.findChildren(ProteinDock):
            dock.workspace.close()
    wait_for_threads(qtbot)
    # napari looks for viewers that are left over before pytest lets go of a test's arguments.
    request.node.funcargs.clear()


def wait_for_threads(qtbot):
    """Let jobs end, and hear their last word."""
    names = {"sclinguist-job"}
    qtbot.waitUntil(
        lambda: names.isdisjoint(thread.name for thread in threading.enumerate()), timeout=60_000
    )
    qtbot.wait(1)


def open_sample(viewer):
    """Press File > Open Sample; gives the dialog that appears."""
    from napari_sclinguist.widgets.download_dialog import DownloadDialog

    assert viewer.open_sample("napari-sclinguist", "tonsil_10x") == []
    assert len(viewer.layers) == 0
    (dialog,) = viewer.window._qt_window.findChildren(DownloadDialog)
    return dialog


@pytest.mark.gui
def test_the_section_appears_in_the_window(viewer, server, qtbot):
    dialog = open_sample(viewer)
    assert dialog.isVisible()
    assert not dialog.isModal()
    assert "CC BY 4.0" in dialog.title.text()
    with qtbot.waitSignal(dialog.destroyed, timeout=60_000):
        pass
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=60_000)  # it is read in a thread
    assert [layer.name.startswith(PREFIX) for layer in viewer.layers] == [True, True]
    assert np.shape(viewer.layers[0].data)[2] == 3


@pytest.mark.gui
def test_the_second_time_nothing_is_downloaded(viewer, server, dataset):
    for _ in download_iter(dataset):
        pass
    server.asked.clear()
    assert len(viewer.open_sample("napari-sclinguist", "tonsil_10x")) == 2
    assert server.asked == []


@pytest.mark.gui
def test_cancel_in_the_window(viewer, server, dataset, qtbot):
    server.files[COUNTS].stalls_after = 300_000
    dialog = open_sample(viewer)
    qtbot.waitUntil(lambda: "0.3 MB of" in dialog.text.text(), timeout=60_000)
    assert 0 < dialog.bar.value() < dialog.bar.maximum()
    with qtbot.waitSignal(dialog.destroyed, timeout=60_000):
        dialog.stop.click()
        assert dialog.text.text() == "Stopping…"
        assert not dialog.stop.isEnabled()
    assert len(viewer.layers) == 0
    server.files[COUNTS].stalls_after = None
    with qtbot.waitSignal(open_sample(viewer).destroyed, timeout=60_000):
        pass
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=60_000)
    assert server.ranges_asked(COUNTS) == [None, "bytes=300000-"]


@pytest.mark.gui
def test_an_error_stands_in_the_dialog_and_can_be_tried_again(viewer, server, qtbot):
    server.files[COUNTS].statuses = [404]
    dialog = open_sample(viewer)
    qtbot.waitUntil(lambda: dialog.again.isVisible(), timeout=60_000)
    assert "status 404" in dialog.text.text()
    assert not dialog.bar.isVisible()
    assert dialog.stop.text() == "Close"
    with qtbot.waitSignal(dialog.destroyed, timeout=60_000):
        dialog.again.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=60_000)


@pytest.mark.gui
def test_a_changed_file_is_told_in_the_dialog(viewer, server, dataset, qtbot):
    for _ in download_iter(dataset):
        pass
    (dataset.folder / COUNTS).write_bytes(b"cut off")
    dialog = open_sample(viewer)
    qtbot.waitUntil(lambda: dialog.again.isVisible(), timeout=60_000)
    assert "remove the folder" in dialog.text.text()
    dialog.stop.click()
    assert not dialog.isVisible()


@pytest.mark.gui
def test_closing_the_viewer_ends_the_download(viewer, server, dataset, qtbot):
    server.files[COUNTS].stalls_after = 300_000
    dialog = open_sample(viewer)
    qtbot.waitUntil(lambda: "0.3 MB of" in dialog.text.text(), timeout=60_000)
    with qtbot.waitSignal(dialog.destroyed, timeout=60_000):
        viewer.close()
    wait_for_threads(qtbot)
    server.files[COUNTS].stalls_after = None
    for _ in download_iter(dataset):
        pass
    assert downloaded(dataset) == dataset.folder
    assert server.ranges_asked(COUNTS) == [None, "bytes=300000-"]
