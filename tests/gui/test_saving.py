"""Predictions and view are saved beside the original, and return when the file is opened."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gui.at_once import run_at_once, workspace_of
from napari_sclinguist.control.saving import (
    Saving,
    default_folder,
    file_stem,
    free_name,
    is_original,
    storable_view,
)
from napari_sclinguist.control.view import View
from napari_sclinguist.layers import section_layers
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.write import write_table
from sclinguist_core.resources import sample_section_path

VIEW = View(
    keys=("predicted:CD19", "mRNA:MS4A1"),
    limits={"predicted:CD19": (-1.5, 2.5)},
    thresholds={"predicted:CD19": 0.25, "mRNA:MS4A1": 1.5},
    colormap="magma",
    diverging_colormap="PuOr_r",
    opacity=0.7,
    size=1.4,
    tissue=0.35,
    fade=True,
)


@pytest.fixture
def workspace(predicted_section):
    return workspace_of(predicted_section)


@pytest.fixture
def opened(workspace):
    opened = workspace.active
    opened.set_view(VIEW)
    opened.set_dirty(True)
    return opened


@pytest.fixture
def saving(workspace):
    return Saving(workspace)


def view_of(path):
    return section_layers(open_section(path))[-1][1]["metadata"]["sclinguist"]["view"]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_predictions_and_view_return(saving, opened, tmp_path, suffix):
    path = tmp_path / f"saved{suffix}"
    assert saving.save([(opened, path)])
    assert os.listdir(tmp_path) == [path.name]
    found, section = open_section(path), opened.section
    pd.testing.assert_frame_equal(
        found.table.obsm["protein_predicted"], section.table.obsm["protein_predicted"]
    )
    assert (found.name, found.microns_per_pixel) == ("small", 0.5)
    np.testing.assert_array_equal(found.image.pixels, section.image.pixels)
    assert view_of(path) == VIEW


def test_saving_takes_the_mark_off_and_tells_the_path(saving, opened, tmp_path):
    heard = []
    saving.saved.connect(heard.append)
    assert saving.path_of(opened) is None
    saving.save([(opened, tmp_path / "saved.h5ad")])
    assert not opened.dirty
    assert saving.path_of(opened) == tmp_path / "saved.h5ad"
    assert heard == [opened]
    opened.set_dirty(True)  # predicted again
    assert saving.path_of(opened) is None


def held_back(workspace, monkeypatch):
    """Jobs that the test runs: returns what was asked to stop, and a function that goes on."""
    started, stopped = [], []

    def launch(steps, listener):
        started.append((steps, listener))
        return lambda: stopped.append(True)

    monkeypatch.setattr(workspace.jobs, "_launch", launch)
    return stopped, lambda: run_at_once(*started.pop())


def test_what_is_added_while_a_file_is_written_is_not_saved(
    workspace, saving, opened, tmp_path, monkeypatch
):
    _, go_on = held_back(workspace, monkeypatch)
    assert saving.save([(opened, tmp_path / "saved.h5ad")])
    opened.section.table.obs["zone"] = pd.Categorical(["a", "a", "b", "b"])
    opened.set_dirty(True)
    go_on()
    assert "zone" not in open_section(tmp_path / "saved.h5ad").table.obs
    assert opened.dirty
    assert saving.path_of(opened) is None
    assert saving.save([(opened, tmp_path / "saved.h5ad")])
    go_on()
    assert "zone" in open_section(tmp_path / "saved.h5ad").table.obs
    assert not opened.dirty


def test_every_addition_is_counted_and_saving_is_none(opened):
    before = opened.changes
    opened.set_dirty(True)
    opened.set_dirty(True)
    opened.set_dirty(False)
    assert opened.changes == before + 2


def test_cancelled_too_late_the_file_counts_but_the_window_stays(
    workspace, saving, opened, tmp_path, monkeypatch
):
    stopped, go_on = held_back(workspace, monkeypatch)
    heard = []
    assert saving.save([(opened, tmp_path / "saved.h5ad")], lambda: heard.append("done"))
    workspace.jobs.cancel()
    assert stopped == [True]
    go_on()  # its last step was under way
    assert saving.path_of(opened) == tmp_path / "saved.h5ad"
    assert not opened.dirty
    assert workspace.heard == ["Saving had finished before it could be stopped."]
    assert heard == []


def test_the_table_is_not_changed(saving, opened, tmp_path):
    before = opened.section.table.copy()
    saving.save([(opened, tmp_path / "saved.h5ad")])
    after = opened.section.table
    assert set(after.uns) == set(before.uns)
    assert "sclinguist_view" not in after.uns
    pd.testing.assert_frame_equal(after.obs, before.obs)


def test_groups_go_along(saving, opened, tmp_path):
    labels = pd.Categorical(["zone", None, "zone", "other"])
    opened.section.table.obs["group"] = labels
    saving.save([(opened, tmp_path / "saved.h5ad")])
    found = open_section(tmp_path / "saved.h5ad").table.obs["group"]
    assert found.astype(object).where(found.notna(), None).tolist() == [
        "zone",
        None,
        "zone",
        "other",
    ]


def test_changes_after_a_knockout_are_not_in_the_file_so_others_are_shown(saving, opened, tmp_path):
    opened.catalogue.set_changes(pd.DataFrame({"CD19": np.ones(4)}))
    opened.show("change:CD19")
    saving.save([(opened, tmp_path / "saved.h5ad")])
    assert view_of(tmp_path / "saved.h5ad").keys == ("predicted:CD19",)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("saved.txt", "its suffix is '.txt', expected .h5ad or .zarr"),
        ("nowhere/saved.h5ad", "does not exist; make it first"),
    ],
)
def test_a_path_that_cannot_be_is_told(workspace, saving, opened, tmp_path, name, sentence):
    assert not saving.save([(opened, tmp_path / name)])
    assert len(workspace.heard) == 1
    assert sentence in workspace.heard[0]
    assert opened.dirty
    assert os.listdir(tmp_path) == []


def test_a_spatialdata_store_is_never_replaced(workspace, saving, opened, tmp_path):
    store = tmp_path / "section.zarr"
    store.mkdir()
    (store / "zarr.json").write_text('{"attributes": {"spatialdata_attrs": {"version": "0.2"}}}')
    assert not saving.save([(opened, store)])
    assert "no AnnData table (a SpatialData store" in workspace.heard[0]
    assert os.listdir(store) == ["zarr.json"]
    assert opened.dirty


def test_a_full_disk_is_told_and_the_old_file_stays(
    workspace, saving, opened, tmp_path, monkeypatch
):
    path = tmp_path / "saved.h5ad"
    path.write_text("old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sclinguist_core.data.write._write_h5ad", full)
    saving.save([(opened, path)])
    assert "No space left on device" in workspace.heard[0]
    assert "nothing was changed" in workspace.heard[0]
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["saved.h5ad"]
    assert opened.dirty


def test_the_original_is_asked_about_once(tmp_path, predicted_section):
    path = tmp_path / "original.h5ad"
    write_table(predicted_section.table, path)
    workspace = workspace_of(replace(predicted_section, source=path))
    saving, opened = Saving(workspace), workspace.active
    (tmp_path / "link.h5ad").symlink_to(path)
    for same in (path, str(path), tmp_path / "link.h5ad", tmp_path / "." / "original.h5ad"):
        assert saving.must_ask(opened, same)
    assert not saving.must_ask(opened, tmp_path / "other.h5ad")
    saving.allow_replacing(opened)
    assert not saving.must_ask(opened, path)


def test_a_table_with_predictions_counts_as_their_file(tmp_path, predicted_section, section):
    path = tmp_path / "original.h5ad"
    write_table(predicted_section.table, path)
    opened = workspace_of(replace(predicted_section, source=path)).active
    assert Saving(workspace_of()).path_of(opened) == path
    folder = workspace_of(replace(predicted_section, source=tmp_path)).active
    assert Saving(workspace_of()).path_of(folder) is None


def test_several_are_saved_and_then_the_caller_hears(section, predicted_section, tmp_path):
    workspace = workspace_of(
        replace(section, table=section.table.copy(), name="one"),
        replace(section, table=section.table.copy(), name="two"),
    )
    for opened in workspace.sections:
        opened.set_dirty(True)
    heard = []
    wanted = [(one, tmp_path / f"{one.name}.h5ad") for one in workspace.sections]
    saving = Saving(workspace)
    assert saving.save(wanted, lambda: heard.append(workspace.jobs.state))
    assert heard == ["idle"]  # so that the window may close
    assert sorted(os.listdir(tmp_path)) == ["one.h5ad", "two.h5ad"]
    assert workspace.dirty == []


def test_after_a_failure_the_caller_does_not_hear(workspace, saving, opened, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sclinguist_core.data.write._write_h5ad", broken)
    heard = []
    saving.save([(opened, tmp_path / "saved.h5ad")], lambda: heard.append("done"))
    assert heard == []
    monkeypatch.undo()
    saving.save([(opened, tmp_path / "saved.h5ad")])
    assert heard == []


def test_the_proposed_name_is_free_and_in_the_folder_used_last(saving, opened, tmp_path):
    assert saving.propose(opened).name == "small_proteins.h5ad"
    saving.save([(opened, tmp_path / "small_proteins.h5ad")])
    assert saving.propose(opened) == tmp_path / "small_proteins_2.h5ad"


def test_the_default_folder_is_beside_the_run_but_never_inside_it(section, tmp_path):
    bins = tmp_path / "run" / "outs" / "binned_outputs" / "square_008um"
    bins.mkdir(parents=True)
    assert default_folder(replace(section, source=bins)) == tmp_path / "run"
    table = tmp_path / "cells.h5ad"
    table.touch()
    assert default_folder(replace(section, source=table)) == tmp_path
    for ours in (None, sample_section_path(), tmp_path / "gone"):
        assert default_folder(replace(section, source=ours)) == Path.home()


def test_names_of_sections_become_names_of_files(tmp_path):
    assert file_stem("tonsil (simulated)") == "tonsil_simulated"
    assert file_stem("a/b: c") == "a_b_c"
    assert file_stem("...") == "section"
    (tmp_path / "a.csv").touch()
    assert free_name(tmp_path, "a", ".csv").name == "a_2.csv"


def test_nothing_is_the_original_of_a_section_from_memory(section, tmp_path):
    assert not is_original(section, tmp_path)


def test_limits_of_a_name_with_a_slash_are_left_out_of_the_file():
    saved = storable_view(replace(VIEW, limits={"mRNA:A/B": (0.0, 1.0), "mRNA:C": (0.0, 2.0)}))
    assert saved["limits"] == {"mRNA:C": [0.0, 2.0]}
