"""The Perturb tab in a real window, with the bundled checkpoint."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from gui.compared_section import make_section
from napari_sclinguist.control.jobs import State
from napari_sclinguist.control.perturbing import Perturbing
from sclinguist_core.inference import perturb
from sclinguist_core.inference.perturb import Progress
from sclinguist_core.inference.perturbation import Perturbation

pytestmark = pytest.mark.gui

_ROOM = 388
"""What the dock leaves a panel in a window of 1400 x 900 pixels."""


@pytest.fixture
def panel(dock):
    return dock.open_tab("Perturb")


@pytest.fixture
def opened(panel, add_section, sample_part):
    return add_section(sample_part)


@pytest.fixture
def answers(monkeypatch):
    """A model that answers at once, and differently for every gene."""

    def perturb_iter(section, genes, *, scale=0.0, background=0, **options):
        yield Progress(0, section.n_obs, "loading model")
        rng = np.random.default_rng(sum(map(ord, "".join(genes))))
        change = rng.normal(rng.normal(size=3), 0.1, (section.n_obs, 3)).astype(np.float32)
        return Perturbation(
            names=["CD19", "CD3", "CD20"],
            change=change,
            affected=np.ones(section.n_obs, bool),
            spread=np.ones(3),
            info={
                "genes": list(genes),
                "scale": scale,
                "n_rows": section.n_obs,
                "n_affected": section.n_obs,
                "unit": "SD of made-up cells",
            },
            background=rng.normal(size=(background, 3)) if background else None,
        )

    monkeypatch.setattr(perturb, "perturb_iter", perturb_iter)


def run(dock, panel, qtbot, text):
    panel.genes.setText(text)
    panel.button.click()
    qtbot.waitUntil(lambda: dock.workspace.jobs.state is State.IDLE, timeout=180_000)


def test_the_notice_is_always_there(dock, panel, add_section, sample_part, qtbot, answers):
    def notices():
        from qtpy.QtWidgets import QLabel

        return [
            label
            for label in panel.findChildren(QLabel)
            if "Model response, not causation" in label.text() and label.isVisible()
        ]

    assert len(notices()) == 1
    add_section(sample_part)
    assert len(notices()) == 1
    run(dock, panel, qtbot, "CD3E")
    assert panel.result.isVisible()
    assert len(notices()) == 1


def test_without_a_section_or_rna_there_is_nothing_to_press(panel, add_section):
    assert panel.hint.text().startswith("Open a section")
    assert not panel.form.isVisible()
    assert not panel.result.isVisible()
    whole = make_section(36)
    table = whole.table[:, :0].copy()
    table.obsm.update(whole.table.obsm)
    add_section(replace(whole, table=table, name="proteins alone"))
    assert "proteins alone has no RNA" in panel.hint.text()
    assert not panel.form.isVisible()
    add_section(whole)
    assert not panel.hint.isVisible()
    assert panel.form.isVisible()


def test_a_knock_out_with_the_bundled_model(dock, panel, opened, qtbot, tmp_path):
    layers = list(dock.viewer.layers)
    former = opened.view
    run(dock, panel, qtbot, "CD3E")
    assert list(dock.viewer.layers) == layers
    table = panel.perturbing.run.table
    assert len(table) == 237
    assert table["mean_change"].abs().is_monotonic_decreasing
    top = table["protein"][0]
    assert opened.view.keys == (f"change:{top}",)
    assert top == "CD3"
    assert table["mean_change"][0] < 0
    # What is on the tissue: the change, in colours that are symmetric around zero.
    low, high = opened.picture.channels[0].limits
    assert low == -high
    np.testing.assert_allclose(opened.spots.face_color, opened.picture.colours / 255, atol=1e-6)
    expressed = opened.catalogue.values("mRNA:CD3E") > 0
    change = opened.catalogue.values("change:CD3")
    assert (change[~expressed] == 0).all()
    assert (change[expressed] < 0).mean() > 0.9
    assert f"{expressed.sum():,} of {len(expressed):,} spots" in panel.summary.text()
    # The table, its marks and its clicks.
    assert panel.table.shown("protein")[0] == "CD3 ◂"
    assert panel.table.shown("mean_change")[0].startswith("−")
    assert panel.table.currentIndex().row() == 0
    assert "CD3</a> −" in panel.own.text()
    assert "rank 1 of 237" in panel.own.text()
    panel.table.selectRow(2)
    assert opened.view.keys == (f"change:{table['protein'][2]}",)
    panel.own.linkActivated.emit("CD3")
    assert opened.view.keys == ("change:CD3",)
    assert panel.table.currentIndex().row() == 0
    panel.table.sort_by("mean_change")
    changes = [
        float(text.replace("−", "-")) for text in panel.table.shown("mean_change") if text != "–"
    ]
    assert changes == sorted(changes)
    panel.export_to(tmp_path / "changes.csv")
    written = pd.read_csv(tmp_path / "changes.csv", keep_default_na=False)
    assert written["protein"].tolist() == table["protein"].tolist()
    assert panel.back.isEnabled()
    panel.back.click()
    assert opened.view == former
    assert not panel.back.isEnabled()


def test_a_gene_that_the_model_does_not_know_is_said(dock, panel, opened, qtbot):
    view = opened.view
    run(dock, panel, qtbot, "NOTAGENE")
    assert dock.messages.isVisible()
    assert "gene 'NOTAGENE': not a known gene" in dock.messages.text.text()
    assert "the nearest names are" in dock.messages.text.text()
    assert not panel.result.isVisible()
    assert opened.view == view
    assert panel.button.isEnabled()


def test_the_unit_of_a_change_is_that_of_the_model(dock, panel, opened, qtbot, answers):
    run(dock, panel, qtbot, "CD3E")
    columns = {column.name: column for column in panel.table.frame_model.columns}
    assert columns["mean_change"].tip.endswith("express the gene, in SD of made-up cells")
    assert "{" not in "".join(column.tip for column in columns.values())


def test_the_exported_table_gets_a_suffix_and_a_folder(
    dock, panel, opened, qtbot, answers, tmp_path, monkeypatch
):
    run(dock, panel, qtbot, "CD3E")
    asked = []

    def answer(parent, title, proposed, kind, **_):
        asked.append(Path(proposed))
        return str(tmp_path / "changes"), kind  # as Qt's own dialog gives it

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    panel.export.click()
    (proposed,) = asked
    assert proposed.parent == Path.home()
    assert proposed.name.startswith("CD3E_knocked_out_in_all_spots")
    written = pd.read_csv(tmp_path / "changes.csv")
    assert written["protein"].tolist() == panel.perturbing.run.proteins


def test_a_table_that_cannot_be_written_is_said(dock, panel, opened, qtbot, answers, tmp_path):
    run(dock, panel, qtbot, "CD3E")
    panel.export_to(tmp_path / "nowhere" / "changes.csv")
    assert "Writing" in dock.messages.text.text()


def test_a_proteins_name_offers_its_genes(panel, opened, qtbot, monkeypatch):
    monkeypatch.setattr(Perturbing, "start", lambda self: None)
    qtbot.keyClicks(panel.genes, "MS4A1, CD3")
    assert {entry.name for entry in panel.genes.offers[:3]} == {"CD3D", "CD3E", "CD3G"}
    completer = panel.genes.completer()
    qtbot.waitUntil(completer.popup().isVisible)
    place = [entry.name for entry in panel.genes.offers].index("CD3E")
    index = completer.completionModel().index(place, 0)
    assert completer.completionModel().data(index) == "CD3E  (CD3)"
    for _ in range(place + 1):
        qtbot.keyClick(completer.popup(), Qt.Key.Key_Down)
    with qtbot.assertNotEmitted(panel.genes.confirmed):
        qtbot.keyClick(completer.popup(), Qt.Key.Key_Return)
    assert panel.genes.text() == "MS4A1, CD3E"
    assert panel.genes.genes == ("MS4A1", "CD3E")
    with qtbot.waitSignal(panel.genes.confirmed):
        qtbot.keyClick(panel.genes, Qt.Key.Key_Return)
    panel.genes.clear()
    qtbot.keyClicks(panel.genes, "PD-1")
    assert panel.genes.offers[0].name == "PDCD1"


def test_cancel_changes_nothing(dock, panel, opened, qtbot, monkeypatch):
    go, closed = threading.Event(), []

    def perturb_iter(section, genes, **options):
        try:
            for i in range(10_000):
                yield Progress(min(i, section.n_obs), section.n_obs, "switching off the gene")
                if go.wait(0.005):
                    break
        finally:
            closed.append(True)

    monkeypatch.setattr(perturb, "perturb_iter", perturb_iter)
    view = opened.view
    panel.genes.setText("CD3E")
    panel.button.click()
    assert not panel.button.isEnabled()
    assert panel.progress.isVisible()
    panel.perturbing.start()
    assert "Perturbing CD3E is still running" in dock.messages.text.text()
    panel.progress.cancel.click()
    qtbot.waitUntil(lambda: dock.workspace.jobs.state is State.IDLE, timeout=60_000)
    assert closed == [True]
    assert "Perturbing CD3E was cancelled" in dock.messages.text.text()
    assert opened.view == view
    assert "change:CD3" not in opened.catalogue
    assert panel.button.isEnabled()


def test_the_choices_reach_the_question(panel, opened, monkeypatch, qtbot):
    questions = []
    monkeypatch.setattr(Perturbing, "start", lambda self: questions.append(self.question))
    panel.genes.setText("CD3E, CD3D,")
    panel.factor.setValue(0.25)
    assert panel.rescale.isChecked()
    panel.background.setChecked(True)
    panel.button.click()
    panel.knock_out.setChecked(True)
    panel.background.setChecked(False)
    qtbot.keyClick(panel.genes, Qt.Key.Key_Return)
    assert [(one.genes, one.scale, one.background) for one in questions] == [
        (("CD3E", "CD3D"), 0.25, True),
        (("CD3E", "CD3D"), 0.0, False),
    ]


def test_regions_are_offered_once_they_are_drawn(dock, panel, opened, qtbot, answers):
    assert [panel.where.itemText(i) for i in range(panel.where.count())] == [
        f"All {opened.section.n_obs} spots"
    ]
    dock.open_tab("Compare").regions.groups.drawing.add(_half_of(opened.section))
    dock.open_tab("Perturb")
    titles = [panel.where.itemText(i) for i in range(panel.where.count())]
    assert titles[1:] == ["Drawn regions", "left half"]
    heading = panel.where.model().item(1)
    assert not heading.flags() & Qt.ItemFlag.ItemIsEnabled
    panel.where.setCurrentIndex(2)
    run(dock, panel, qtbot, "CD3E")
    assert panel.history.currentText() == "CD3E knocked out in left half"
    assert panel.where.currentText() == "left half"  # for the next gene, too


def _half_of(section):
    from sclinguist_core.data.regions import Region

    x, y = section.positions.T
    left, right, top, bottom = x.min() - 1, np.median(x), y.min() - 1, y.max() + 1
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return [Region("left half", (corners,))]


def test_former_results_are_a_click_away(dock, panel, opened, qtbot, answers):
    for gene in ("CD3E", "MS4A1"):
        run(dock, panel, qtbot, gene)
    assert [panel.history.itemText(i) for i in range(2)] == [
        "MS4A1 knocked out in all spots",
        "CD3E knocked out in all spots",
    ]
    first = panel.perturbing.runs[1]
    panel.history.setCurrentIndex(1)
    panel.history.activated.emit(1)
    assert panel.perturbing.run is first
    assert "CD3E" in panel.summary.text()
    name = opened.view.keys[0].removeprefix("change:")
    np.testing.assert_array_equal(opened.catalogue.values(f"change:{name}"), first.changes[name])
    expected = first.table["mean_change"].map("{:.3f}".format).str.replace("-", "−")
    assert panel.table.shown("mean_change") == expected.tolist()


def test_z_is_shown_where_it_was_asked_for(dock, panel, opened, qtbot, answers):
    panel.background.setChecked(True)
    run(dock, panel, qtbot, "CD3E")
    assert [column.name for column in panel.table.frame_model.columns][-1] == "z"
    panel.background.setChecked(False)
    run(dock, panel, qtbot, "CD3E")
    assert "z" not in [column.name for column in panel.table.frame_model.columns]


def test_sections_have_their_own_results(
    dock, panel, opened, add_section, sample_part, qtbot, answers
):
    run(dock, panel, qtbot, "CD3E")
    second = add_section(replace(sample_part, table=sample_part.table.copy(), name="second"))
    assert not panel.result.isVisible()
    dock.workspace.activate(opened)
    assert panel.result.isVisible()
    dock.viewer.layers.remove(second.spots)
    dock.viewer.layers.clear()
    assert not panel.form.isVisible()
    assert not panel.result.isVisible()


def test_the_panel_fits_into_the_dock(dock, panel, opened, qtbot, answers):
    panel.background.setChecked(True)
    run(dock, panel, qtbot, "CD3E, MS4A1, CD19")
    assert panel.minimumSizeHint().width() <= _ROOM
