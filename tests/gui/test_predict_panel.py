"""One button: predict, in a real window, with the bundled checkpoint."""

import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from qtpy.QtWidgets import QApplication

from napari_sclinguist.control.jobs import State
from napari_sclinguist.control.predicting import START_SECONDS, Predicting, duration, work
from napari_sclinguist.control.protein_choice import Which
from napari_sclinguist.control.remembered import Remembered
from sclinguist_core.accelerator import Accelerator, Card
from sclinguist_core.errors import InputError, NotEnoughMemoryError
from sclinguist_core.inference import predict as prediction
from sclinguist_core.inference.prediction import Prediction
from sclinguist_core.inference.progress import Progress

pytestmark = pytest.mark.gui


@pytest.fixture
def panel(dock):
    return dock.panel("Predict")


@pytest.fixture
def opened(add_section, sample_part):
    return add_section(sample_part)


@pytest.fixture
def slow_model(monkeypatch):
    """Predictions that go on until they are let go; counts its steps."""
    state = {"go": threading.Event(), "steps": 0, "closed": False}

    def predict_iter(section, **options):
        n = section.n_obs
        try:
            for i in range(10_000):
                state["steps"] = i
                yield Progress(min(i, n), n, "predicting")
                if state["go"].wait(0.005):
                    break
        finally:
            state["closed"] = True
        return made_up(section, **options)

    monkeypatch.setattr(prediction, "predict_iter", predict_iter)
    yield state
    state["go"].set()


def made_up(section, **options):
    shape = (section.n_obs, 2)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return Prediction(
        names=["CD19", "CD3"],
        mean=values,
        std=np.ones(shape, np.float32),
        low=values - 1,
        high=values + 1,
        info={"unit": "SD", "seconds": 1.0, "device": "cpu", "trust": {"CD19": "well"}},
    )


def wait_until(qtbot, condition, seconds=120):
    qtbot.waitUntil(condition, timeout=seconds * 1000)


def test_what_a_prediction_has_to_work_with_is_said(panel, opened, qtbot):
    wait_until(qtbot, lambda: panel.predicting.facts is not None)
    assert panel.section.text() == f"tonsil (simulated) ({opened.section.n_obs} spots)"
    found, expected = panel.genes.text().split(" of ")
    assert 10_000 < int(found.replace(",", "")) <= int(expected.replace(",", ""))
    assert panel.measured.text() == str(opened.section.table.obsm["protein"].shape[1])
    assert panel.time.text().startswith("about ")
    assert panel.button.isEnabled()


def test_the_button_waits_for_a_section(panel):
    assert not panel.button.isEnabled()
    assert panel.section.text() == "none open"


def test_predicting_shows_a_protein_and_opens_explore(dock, panel, opened, qtbot):
    wait_until(qtbot, panel.button.isEnabled)
    layers = list(dock.viewer.layers)
    panel.button.click()
    assert not panel.button.isEnabled()
    assert panel.progress.isVisible()
    wait_until(qtbot, lambda: dock.workspace.jobs.state is State.IDLE)
    predicted = opened.section.table.obsm["protein_predicted"]
    assert predicted.shape == (opened.section.n_obs, 237)
    (key,) = opened.view.keys
    assert key.startswith("predicted:")
    assert opened.dirty
    assert dock.tabs.tabText(dock.tabs.currentIndex()) == "Explore"
    assert list(dock.viewer.layers) == layers
    assert "237 proteins" in panel.outcome.text()
    assert "trust" in panel.outcome.text()
    np.testing.assert_allclose(opened.spots.face_color, opened.picture.colours / 255, atol=1e-6)
    assert panel.predicting.remembered.rate("cpu", "bundled") or panel.predicting.outcome


def test_cancel_stops_within_a_step_and_changes_nothing(dock, panel, opened, qtbot, slow_model):
    wait_until(qtbot, panel.button.isEnabled)
    view = opened.view
    panel.button.click()
    wait_until(qtbot, lambda: slow_model["steps"] > 3)
    panel.progress.cancel.click()
    assert panel.progress.text.text() == "Stopping…"
    assert dock.workspace.jobs.state is State.STOPPING
    wait_until(qtbot, lambda: dock.workspace.jobs.state is State.IDLE)
    assert slow_model["closed"]
    assert slow_model["steps"] < 9_999
    assert "protein_predicted" not in opened.section.table.obsm
    assert opened.view == view
    assert not opened.dirty
    assert "cancelled" in dock.messages.text.text()
    assert panel.button.isEnabled()


def test_progress_says_count_rate_and_time_left(dock, panel, opened, qtbot, slow_model):
    wait_until(qtbot, panel.button.isEnabled)
    panel.button.click()
    wait_until(qtbot, lambda: " left" in panel.progress.text.text())
    text = panel.progress.text.text()
    assert f"of {opened.section.n_obs} spots" in text
    assert "a second" in text
    panel.progress.cancel.click()
    wait_until(qtbot, lambda: dock.workspace.jobs.state is State.IDLE)


def test_a_second_run_is_refused_while_one_is_running(dock, panel, opened, qtbot, slow_model):
    wait_until(qtbot, panel.button.isEnabled)
    panel.button.click()
    panel.predicting.start()
    assert "Predicting proteins is still running" in dock.messages.text.text()
    slow_model["go"].set()
    wait_until(qtbot, lambda: dock.workspace.jobs.state is State.IDLE)
    assert opened.dirty


def test_closing_the_section_cancels_its_run(dock, panel, opened, qtbot, slow_model):
    wait_until(qtbot, panel.button.isEnabled)
    panel.button.click()
    wait_until(qtbot, lambda: slow_model["steps"] > 3)
    dock.viewer.layers.clear()
    assert dock.workspace.active is None
    wait_until(qtbot, lambda: dock.workspace.jobs.state is State.IDLE)
    assert slow_model["closed"]
    assert "protein_predicted" not in opened.section.table.obsm


def test_closing_the_viewer_during_a_run_is_safe(dock, panel, opened, qtbot, slow_model):
    wait_until(qtbot, panel.button.isEnabled)
    panel.button.click()
    wait_until(qtbot, lambda: slow_model["steps"] > 3)
    dock.viewer.close()
    QApplication.processEvents()
    wait_until(qtbot, lambda: slow_model["closed"])
    assert "protein_predicted" not in opened.section.table.obsm


def test_a_failure_in_the_worker_is_a_sentence(dock, panel, opened, qtbot, monkeypatch):
    def predict_iter(section, **options):
        yield Progress(0, section.n_obs, "loading model")
        raise InputError("model 'x': is broken; install it again.")

    monkeypatch.setattr(prediction, "predict_iter", predict_iter)
    wait_until(qtbot, panel.button.isEnabled)
    panel.button.click()
    wait_until(qtbot, lambda: dock.workspace.jobs.state is State.IDLE)
    assert dock.messages.text.text() == "model 'x': is broken; install it again."
    assert dock.messages.isVisible()
    dock.messages.copy.click()
    assert "Traceback" in QApplication.clipboard().text()
    assert panel.button.isEnabled()


def test_a_runtime_error_of_torch_ends_the_job(dock, panel, opened, qtbot, monkeypatch):
    def predict_iter(section, **options):
        yield Progress(0, section.n_obs, "loading model")
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(prediction, "predict_iter", predict_iter)
    wait_until(qtbot, panel.button.isEnabled)
    panel.button.click()
    wait_until(qtbot, lambda: dock.workspace.jobs.state is State.IDLE)
    assert "failed unexpectedly (RuntimeError: CUDA error" in dock.messages.text.text()


def test_out_of_memory_on_a_card_offers_the_cpu(dock, panel, opened, qtbot, monkeypatch):
    used = []

    def predict_iter(section, *, device, **options):
        used.append(device)
        yield Progress(0, section.n_obs, "predicting")
        if device != "cpu":
            raise NotEnoughMemoryError("cuda:0: memory does not suffice for a single cell.")
        return made_up(section)

    monkeypatch.setattr(prediction, "predict_iter", predict_iter)
    card = Card(name="NVIDIA Tiny", driver="1", free=100, total=1024)
    panel.predicting.choice.accelerator = Accelerator(cards=(card,), torch_cuda="12.8")
    panel.render_state()
    assert panel.device.currentText() == "NVIDIA Tiny, 0 of 1 GB free"
    wait_until(qtbot, panel.button.isEnabled)
    panel.button.click()
    wait_until(qtbot, lambda: dock.workspace.jobs.state is State.IDLE)
    assert dock.messages.action.text() == "Predict on the CPU"
    dock.messages.action.click()
    wait_until(qtbot, lambda: opened.dirty)
    assert used == ["cuda:0", "cpu"]
    assert panel.device.currentText().startswith("CPU")


def test_a_card_that_torch_cannot_use_is_said_with_the_remedy(dock, panel):
    card = Card(name="NVIDIA H100", driver="570", free=80_000, total=81_559)
    panel.predicting._on_accelerator(Accelerator(cards=(card,), torch_cuda=""))
    assert "NVIDIA H100" in dock.messages.text.text()
    assert "install a CUDA build of PyTorch" in dock.messages.text.text()
    assert [value for value, _ in panel.predicting.choice.devices()] == ["cpu"]


def test_a_folder_that_is_no_model_is_refused(dock, panel, tmp_path):
    panel.predicting.choose_model(str(tmp_path))
    assert "not a checkpoint" in dock.messages.text.text()
    assert panel.predicting.choice.model == "bundled"
    assert panel.model.currentText() == "Bundled model"


def test_a_model_folder_is_used_and_remembered(dock, panel, opened, qtbot, tmp_path):
    from sclinguist_core.resources import bundled_checkpoint

    copy = tmp_path / "my-model"
    copy.symlink_to(bundled_checkpoint(), target_is_directory=True)
    panel.predicting.choose_model(str(copy))
    assert panel.model.currentText() == "my-model"
    assert str(copy) in Remembered().recent_models
    wait_until(qtbot, lambda: panel.predicting.facts is not None)


def test_the_card_is_one_click_away(panel, qtbot):
    panel.card.click()
    (dialog,) = [w for w in QApplication.topLevelWidgets() if w.windowTitle() == "Model card"]
    from qtpy.QtWidgets import QTextBrowser

    assert "trained" in dialog.findChild(QTextBrowser).toPlainText().lower()
    dialog.close()
    dialog.deleteLater()


def test_a_section_without_rna_says_why_it_cannot_be_predicted(
    panel, add_section, sample_part, qtbot
):
    table = sample_part.table
    proteins = table[:, (table.var["feature_types"] == "Antibody Capture").to_numpy()].copy()
    add_section(replace(sample_part, table=proteins, name="proteins alone"))
    wait_until(qtbot, lambda: panel.predicting.facts is not None)
    assert "has no RNA" in panel.genes.text()
    assert not panel.button.isEnabled()


def test_an_estimate_rests_on_the_last_run(dock, opened, qtbot, tmp_path):
    remembered = Remembered(tmp_path / "window.json")
    predicting = Predicting(dock.workspace, remembered)
    wait_until(qtbot, lambda: predicting.facts is not None)
    _, known = predicting.estimate()
    assert not known
    remembered.set_rate("cpu", "bundled", work(predicting.facts, 237) / 7)
    predicting = Predicting(dock.workspace, Remembered(tmp_path / "window.json"))
    wait_until(qtbot, lambda: predicting.facts is not None)
    assert predicting.estimate() == (pytest.approx(7 + START_SECONDS, abs=0.1), True)
    # Fewer proteins take less time, and many small rows less than few large ones of as many genes.
    predicting.choose_proteins(Which.NAMED, "CD3, CD19")
    assert START_SECONDS < predicting.estimate()[0] < 7 + START_SECONDS
    facts = predicting.facts
    assert work(replace(facts, n_rows=2 * facts.n_rows), 2) > work(facts, 2) + 400 * facts.n_rows


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"rates_of_work": 5, "recent_models": {}}', '{"rates": {}}', "{"]
)
def test_damaged_memories_count_as_none(tmp_path, content):
    path = tmp_path / "window.json"
    path.write_text(content)
    remembered = Remembered(path)
    assert remembered.recent_models == []
    assert remembered.rate("cpu", "bundled") is None
    remembered.set_rate("cpu", "bundled", 5.0)
    assert Remembered(path).rate("cpu", "bundled") == 5.0


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (45, "45 s"), (300, "5 min"), (7200, "2.0 h")]
)
def test_times_are_said_as_people_do(seconds, said):
    assert duration(seconds) == said


def test_predictions_are_kept_apart_by_section(dock, panel, add_section, sample_part, qtbot):
    first = add_section(sample_part)
    second = add_section(replace(sample_part, table=sample_part.table.copy(), name="second"))
    assert dock.workspace.active is second
    dock.workspace.activate(first)
    first.accept(made_up(first.section))
    assert isinstance(first.section.table.obsm["protein_predicted"], pd.DataFrame)
    assert "protein_predicted" not in second.section.table.obsm
    assert [one.dirty for one in dock.workspace.sections] == [True, False]
    assert dock.section_bar.chooser.itemText(0).startswith("●")


def test_proteins_are_chosen_by_name(dock, panel, opened, qtbot):
    wait_until(qtbot, panel.button.isEnabled)
    titles = [panel.proteins.itemText(i) for i in range(panel.proteins.count())]
    assert titles[0] == "All 237"
    assert titles[1].endswith("predicted best")
    assert not panel.names.isVisible()
    assert panel.time.geometry().top() - panel.proteins.geometry().bottom() < 12  # no empty row
    panel.proteins.setCurrentIndex(2)
    panel.proteins.activated.emit(2)
    assert panel.names.isVisible()
    assert not panel.button.isEnabled()
    assert "Type names" in panel.note.text()
    panel.names.setText("CD19, CDX9")
    assert "No protein is known by the name 'CDX9'" in panel.note.text()
    assert not panel.button.isEnabled()
    panel.names.setText("CD19, PD-1")
    assert not panel.note.isVisible()
    panel.button.click()
    wait_until(qtbot, lambda: dock.workspace.jobs.state is State.IDLE)
    predicted = opened.section.table.obsm["protein_predicted"]
    assert sorted(predicted.columns) == ["CD19", "CD279"]


def test_where_memory_is_short_fewer_proteins_are_proposed_before_any_work(
    dock, panel, opened, qtbot, monkeypatch
):
    wait_until(qtbot, panel.button.isEnabled)
    proteins = panel.predicting.proteins
    # As much as 20 proteins of this section take.
    free = 20.5 * proteins.offer.bytes_each / 0.85
    monkeypatch.setattr(proteins, "_free", lambda: free)
    proteins.take(proteins.offer)
    panel.predicting.changed.emit()
    assert panel.proteins.currentText() == "The 20 predicted best"
    assert panel.note.text().startswith("All 237 proteins of 221 spots would take")
    assert panel.button.isEnabled()
    panel.proteins.activated.emit(0)
    assert "close other sections and programs" in panel.note.text()
    assert not panel.button.isEnabled()
