"""Perturbing genes, without a window: what is asked, what comes of it, what is kept."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gui.at_once import workspace_of
from gui.compared_section import make_section
from napari_sclinguist.control import perturbing as perturbing_module
from napari_sclinguist.control.jobs import State
from napari_sclinguist.control.perturbation_run import export_run
from napari_sclinguist.control.perturbing import Perturbing, Place, Question
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.colouring import Channel, colour_limits, shade
from sclinguist_core.inference import perturb
from sclinguist_core.inference.perturbation import Perturbation
from sclinguist_core.inference.prediction import Prediction
from sclinguist_core.inference.progress import Progress

NAMES = ["CD19", "CD3", "CD45"]


@pytest.fixture
def section():
    return make_section(64)


@pytest.fixture
def workspace(section):
    return workspace_of(section)


@pytest.fixture
def opened(workspace):
    return workspace.active


@pytest.fixture
def perturbing(workspace):
    return Perturbing(workspace)


@pytest.fixture
def asked(monkeypatch):
    """What the model is asked; it answers that the second protein falls most."""
    asked = []

    def perturb_iter(section, genes, **options):
        asked.append({"genes": tuple(genes), **options})
        yield Progress(0, section.n_obs, "loading model")
        if "WRONG" in genes:
            raise InputError("gene 'WRONG': not a known gene; the nearest names are CD19.")
        return answer(section, genes, **options)

    monkeypatch.setattr(perturb, "perturb_iter", perturb_iter)
    return asked


def answer(section, genes, *, scale=0.0, rows=None, background=0, **options):
    n = section.n_obs
    rows = np.ones(n, bool) if rows is None else rows
    affected = rows & (np.arange(n) % 2 == 0) & ("ACTA2" not in genes)
    rng = np.random.default_rng(len(genes))
    change = np.where(rows[:, None], 0.0, np.nan) * np.ones((n, 3))
    change[affected] = rng.normal([0.1, -0.5, 0.02], 0.01, size=(affected.sum(), 3))
    return Perturbation(
        names=NAMES,
        change=change.astype(np.float32),
        affected=affected,
        spread=np.array([1.0, 0.5, 2.0]),
        info={
            "genes": list(genes),
            "scale": scale,
            "n_rows": int(rows.sum()),
            "n_affected": int(affected.sum()),
            "unit": "SD",
        },
        background=rng.normal(0, 0.01, size=(background, 3)) if background else None,
        warnings=() if affected.any() else ("No row expresses ACTA2: nothing changes.",),
    )


def ask(perturbing, *genes, **options):
    perturbing.question = Question(genes=genes, **options)
    perturbing.start()
    return perturbing.run


def prediction_of(section):
    shape = (section.n_obs, 1)
    values = np.arange(section.n_obs, dtype=np.float32)[:, None]
    return Prediction(
        names=["CD19"],
        mean=values,
        std=np.ones(shape, np.float32),
        low=values - 1,
        high=values + 1,
        info={"unit": "SD", "seconds": 1.0, "device": "cpu", "trust": {"CD19": "well"}},
    )


# --- the answer -----------------------------------------------------------------------------


def test_the_protein_that_changes_most_is_shown_around_zero(perturbing, opened, asked):
    run = ask(perturbing, "CD3E")
    assert opened.view.keys == ("change:CD3",)
    assert {entry.name for entry in opened.catalogue.of_kind("change")} == set(NAMES)
    values = opened.catalogue.values("change:CD3")
    expected = answer(opened.section, ["CD3E"]).change[:, 1]
    np.testing.assert_array_equal(values, expected)
    low, high = opened.picture.channels[0].limits
    assert (low, high) == (-high, colour_limits(expected, diverging=True)[1])
    channel = Channel(values=expected, limits=(low, high))
    np.testing.assert_array_equal(opened.picture.colours, shade(channel, "RdBu_r"))
    np.testing.assert_allclose(opened.spots.face_color, opened.picture.colours / 255, atol=1e-6)
    assert run.title == "CD3E knocked out in all spots"
    assert (run.n_rows, run.n_affected) == (64, 32)


def test_the_table_ranks_proteins_and_marks_what_the_gene_codes_for(perturbing, asked):
    table = ask(perturbing, "CD3E").table
    assert table["protein"].tolist() == ["CD3", "CD19", "CD45"]
    assert table["coded"].tolist() == [True, False, False]
    assert table["trust"].tolist() == ["fairly", "well", "untested"]
    ranked = answer(make_section(64), ["CD3E"]).ranked()
    for column in ("mean_change", "effect_size", "share_lowered"):
        np.testing.assert_array_equal(table[column], ranked[column])
    assert table["share_lowered"][0] == 1.0
    assert "z" not in table


def test_random_genes_give_a_z(perturbing, asked):
    run = ask(perturbing, "CD3E", background=True)
    assert asked[0]["background"] == perturbing_module.BACKGROUND == 20
    assert run.has_background
    assert abs(run.table["z"][0]) > 10


def test_what_was_chosen_is_asked(perturbing, workspace, asked):
    workspace.model_choice.model = "some/folder"
    workspace.model_choice.batch_size = 16
    run = ask(perturbing, "CD3E", "CD3D", scale=0.5)
    assert asked == [
        {
            "genes": ("CD3E", "CD3D"),
            "scale": 0.5,
            "rows": None,
            "model": "some/folder",
            "device": "cpu",
            "batch_size": 16,
            "background": 0,
        }
    ]
    assert run.title == "CD3E + CD3D × 0.5 in all spots"


def test_a_group_or_the_selection_is_perturbed_alone(perturbing, opened, asked):
    opened.section.table.obs["zone"] = np.where(np.arange(64) < 20, "outer", "inner")
    opened.select(np.arange(64) >= 60)
    places = perturbing.places()
    assert [(place.heading, place.title) for place in places] == [
        ("", "All 64 spots"),
        ("Selected spots", "selected"),
        ("Selected spots", "not selected"),
        ("zone (column)", "inner"),
        ("zone (column)", "outer"),
    ]
    run = ask(perturbing, "CD3E", place=places[4])
    np.testing.assert_array_equal(asked[-1]["rows"], np.arange(64) < 20)
    assert run.title == "CD3E knocked out in outer"
    assert run.n_rows == 20
    assert np.isnan(opened.catalogue.values("change:CD3")[20:]).all()
    ask(perturbing, "CD3E", place=places[1])
    np.testing.assert_array_equal(asked[-1]["rows"], np.arange(64) >= 60)


# --- what stands in the way -----------------------------------------------------------------


def test_without_a_section_or_rna_it_says_so(opened, perturbing, workspace):
    assert perturbing.problem == ""
    proteins = make_section(64)
    table = proteins.table[:, :0].copy()
    table.obsm.update(proteins.table.obsm)
    without = workspace_of(replace(proteins, table=table, name="proteins alone"))
    assert (
        Perturbing(without).problem == "proteins alone has no RNA, so there is no gene to change."
    )
    workspace.viewer.layers.clear()
    assert perturbing.problem.startswith("Open a section")
    assert perturbing.places() == []
    assert perturbing.runs == []
    assert perturbing.run is None
    perturbing.start()
    assert workspace.jobs.state is State.IDLE


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question(), "No gene is named"),
        (Question(genes=("CD19",), scale=1.0), "× 1 leaves the expression as it is"),
        (Question(genes=("WRONG",)), "gene 'WRONG': not a known gene; the nearest names are CD19."),
        (
            Question(genes=("CD19",), place=Place(title="a", grouping="drawn", group="a")),
            "No region is drawn in 'compared'",
        ),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(perturbing, workspace, opened, asked, question, said):
    view = opened.view
    perturbing.question = question
    perturbing.start()
    assert said in workspace.heard[-1]
    assert perturbing.runs == []
    assert opened.view == view
    assert workspace.jobs.state is State.IDLE


def test_a_gene_that_nothing_expresses_changes_nothing(perturbing, workspace, opened, asked):
    view = opened.view
    assert ask(perturbing, "ACTA2") is None
    assert workspace.heard == ["No row expresses ACTA2: nothing changes."]
    assert opened.view == view
    assert opened.catalogue.changes is None


def test_another_job_is_not_disturbed(perturbing, workspace, asked):
    workspace.jobs._launch = lambda steps, listener: lambda: None  # goes on for ever
    workspace.jobs.start("Predicting proteins", lambda: iter(()), lambda result: None)
    ask(perturbing, "CD19")
    assert "Predicting proteins is still running" in workspace.heard[-1]
    workspace.viewer.layers.clear()  # the other job is not this one's to stop
    assert workspace.jobs.state is State.RUNNING


def test_closing_the_section_stops_its_run(perturbing, workspace):
    stopped = []
    workspace.jobs._launch = lambda steps, listener: lambda: stopped.append(True)
    ask(perturbing, "CD19")
    assert workspace.jobs.state is State.RUNNING
    workspace.viewer.layers.clear()
    assert stopped == [True]
    assert workspace.jobs.state is State.STOPPING


# --- what is kept ---------------------------------------------------------------------------


def test_the_last_few_runs_can_be_looked_at_again(perturbing, opened, asked, monkeypatch):
    monkeypatch.setattr(perturbing_module, "MOST_RUNS", 2)
    genes = ("CD19", "CD3D", "CD3E")
    for gene in genes:
        ask(perturbing, gene)
    assert [run.genes for run in perturbing.runs] == [("CD3E",), ("CD3D",)]
    assert perturbing.run is perturbing.runs[0]
    perturbing.show_protein("CD45")
    other = perturbing.runs[1]
    perturbing.choose_run(other)
    assert perturbing.run is other
    assert opened.view.keys == ("change:CD45",)
    np.testing.assert_array_equal(opened.catalogue.values("change:CD45"), other.changes["CD45"])


def test_many_rows_keep_fewer_runs(perturbing, asked, monkeypatch):
    monkeypatch.setattr(perturbing_module, "_MOST_VALUES", 64 * 3)
    for gene in ("CD19", "CD3E"):
        ask(perturbing, gene)
    assert [run.genes for run in perturbing.runs] == [("CD3E",)]


def test_the_former_view_comes_back(perturbing, opened, asked):
    opened.set_view(replace(opened.view.showing("predicted:CD45", "mRNA:CD19"), size=0.5))
    former = opened.view
    ask(perturbing, "CD19")
    perturbing.show_protein("CD45")
    assert perturbing.shown_protein == "CD45"
    ask(perturbing, "CD3E")
    perturbing.back()
    assert opened.view == former
    assert perturbing.shown_protein == ""
    perturbing.choose_run(perturbing.runs[1])
    assert perturbing.shown_protein == "CD3"


def test_new_predictions_drop_the_changes_made_beside_former_ones(perturbing, opened, asked):
    ask(perturbing, "CD19")
    opened.contents_changed.emit()  # of something else
    assert len(perturbing.runs) == 1
    heard = []
    perturbing.changed.connect(lambda: heard.append(1))
    opened.accept(prediction_of(opened.section))
    assert perturbing.runs == []
    assert perturbing.run is None
    assert opened.catalogue.of_kind("change") == []
    assert opened.view.keys == ("predicted:CD19",)
    assert heard


def test_changes_of_predictions_replaced_during_the_run_are_not_taken(
    perturbing, opened, workspace, monkeypatch
):
    def perturb_iter(section, genes, **options):
        yield Progress(0, 1, "loading model")
        opened.accept(prediction_of(section))
        return answer(section, genes)

    monkeypatch.setattr(perturb, "perturb_iter", perturb_iter)
    assert ask(perturbing, "CD19") is None
    assert opened.catalogue.of_kind("change") == []


def test_every_section_keeps_its_own_runs(perturbing, workspace, opened, asked):
    from napari.layers import Layer

    from napari_sclinguist.layers import section_layers

    run = ask(perturbing, "CD19")
    other = replace(make_section(36, seed=1), name="other")
    for data in section_layers(other):
        workspace.viewer.add_layer(Layer.create(*data))
    second = workspace.active
    assert perturbing.runs == []
    assert second.catalogue.of_kind("change") == []
    ask(perturbing, "CD3E")
    workspace.activate(opened)
    assert perturbing.run is run
    assert opened.catalogue.changes is run.changes
    workspace.viewer.layers.remove(opened.spots)
    assert [one.genes for one in perturbing.runs] == [("CD3E",)]
    workspace.viewer.add_layer(opened.spots)  # brought back
    assert perturbing.runs == [run]


def test_a_run_is_written_as_a_table(perturbing, asked, tmp_path):
    run = ask(perturbing, "CD3E", "CD3D", background=True)
    export_run(run, tmp_path / "out.csv")
    written = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert written["protein"].tolist() == run.proteins
    np.testing.assert_allclose(written["mean_change"], run.table["mean_change"], rtol=1e-5)
    np.testing.assert_allclose(written["z"], run.table["z"], rtol=1e-5)
    assert set(written["genes"]) == {"CD3E; CD3D"}
    assert set(written["where"]) == {"in all spots"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"]
    with pytest.raises(InputError, match="Writing"):
        export_run(run, tmp_path / "nowhere" / "out.csv")
