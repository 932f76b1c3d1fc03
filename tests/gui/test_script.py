"""The copied script draws the figure that the window exports."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sclinguist_core
from gui.at_once import workspace_of
from napari_sclinguist.control.export import (
    Area,
    Content,
    FigureOptions,
    figure_steps,
    plan_figure,
)
from napari_sclinguist.control.script import python_script
from napari_sclinguist.control.view import View
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.prediction import attach
from sclinguist_core.inference.progress import finish
from sclinguist_core.resources import sample_section_path

NAME = "tonsil_simulated"
SHOWN = ("predicted:CD19", "measured:CD3_TotalSeqB", "mRNA:MKI67")


@pytest.fixture(scope="module")
def predicted():
    """The sample with made-up predictions, so that it opens quickly."""
    section = open_section(sample_section_path())
    table, rng = section.table, np.random.default_rng(0)
    for key, low in (("protein_predicted", -1.0), ("protein_predicted_std", 0.2)):
        table.obsm[key] = pd.DataFrame(
            rng.uniform(low, 2.0, (section.n_obs, 2)).astype(np.float32),
            index=table.obs_names,
            columns=["CD19", "CD279"],
        )
    table.obs["sclinguist_ood"] = rng.uniform(0.8, 1.0, section.n_obs).astype(np.float32)
    table.uns["sclinguist"] = {"unit": "SD", "model": "blood-2"}
    return section


@pytest.fixture
def opened(predicted):
    return workspace_of(predicted).active


def export(opened, options, folder):
    plan = plan_figure(opened, options)
    steps = figure_steps(opened, plan, folder / "exported.png")
    for _ in steps:
        pass
    return plan


def run(script, folder):
    """Run a script in a process of its own; returns the picture that it wrote."""
    path = folder / "copied.py"
    path.write_text(script, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k not in {"DISPLAY", "MPLBACKEND"}}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", path.name],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return pixels(folder / f"{NAME}.png")


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("view", "options"),
    [
        (
            View(
                keys=SHOWN,
                limits={"predicted:CD19": (-0.5, 1.75)},
                thresholds={"mRNA:MKI67": 0.5},
                fade=True,
                opacity=0.8,
                size=1.2,
                tissue=0.4,
            ),
            FigureOptions(width=12.0, dpi=150, background="black", title="Tonsil"),
        ),
        (
            View(keys=("predicted:CD279", "column:total counts"), diverging_colormap="PuOr_r"),
            FigureOptions(content=Content.COMPARISON, width=12.0, dpi=150),
        ),
    ],
    ids=["added up", "compared"],
)
def test_the_script_of_a_saved_section_draws_the_same_pixels(
    predicted, opened, tmp_path, view, options
):
    saved = write_table(predicted.table, tmp_path / "saved.h5ad")
    opened.set_view(view)
    plan = export(opened, options, tmp_path)
    script = python_script(opened, plan, saved=saved)
    assert "scl.predict" not in script
    found = run(script, tmp_path)
    expected = pixels(tmp_path / "exported.png")
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("panel", ["missing", "in another order"])
def test_measured_proteins_do_not_need_a_panel(predicted, monkeypatch, panel):
    table = predicted.table[:40].copy()
    if panel == "missing":
        del table.uns["protein_panel"]
    else:
        table.uns["protein_panel"] = table.uns["protein_panel"][::-1]
    section = replace(predicted, table=table)
    opened = workspace_of(section).active
    opened.set_view(View(keys=("measured:CD3_TotalSeqB",)))
    script = python_script(opened, plan_figure(opened, FigureOptions()))
    monkeypatch.setattr(sclinguist_core, "open_section", lambda path: section)
    found = {}
    exec(script.partition("figure = ")[0], found)
    expected = opened.catalogue.values("measured:CD3_TotalSeqB")
    np.testing.assert_allclose(found["measured"]["CD3_TotalSeqB"], expected, rtol=1e-6)


@pytest.mark.slow
def test_the_script_of_a_folder_predicts_and_draws_the_same_picture(tmp_path):
    section = open_section(sample_section_path())
    attach(section.table, finish(predict_iter(section, proteins=["CD19", "CD3"])))
    opened = workspace_of(section).active
    opened.set_view(View(keys=("predicted:CD19", "predicted:CD3"), fade=True, tissue=0.5))
    plan = export(opened, FigureOptions(width=10.0, dpi=100), tmp_path)
    script = python_script(opened, plan)
    assert 'scl.predict(section, proteins=["CD19", "CD3"])' in script
    found, expected = run(script, tmp_path), pixels(tmp_path / "exported.png")
    # Predictions differ by rounding, a colour by one of 256 steps at most.
    assert abs(found - expected).max() <= 8
    assert (found != expected).any(axis=2).mean() < 0.01


def test_the_text_names_what_is_shown(opened):
    opened.set_view(
        View(keys=SHOWN, thresholds={"predicted:CD19": 0.25}, fade=True, colormap="magma")
    )
    script = python_script(opened, plan_figure(opened, FigureOptions(title='A "simulated" tonsil')))
    compile(script, "copied.py", "exec")
    for part in (
        f'scl.open_section("{sample_section_path()}")',
        'table.obsm["protein_predicted"]["CD19"]',
        'measured["CD3_TotalSeqB"]',
        'log1p_cp10k("MKI67")',
        "threshold=0.25",
        'certainty(table.obs["sclinguist_ood"], table.obsm["protein_predicted_std"]["CD19"])',
        'cmap="magma"',
        "[(cd19_predicted, cd3_measured, mki67_mrna)]",
        'title="A \\"simulated\\" tonsil"',
        'save_figure(figure, "tonsil_simulated.png", dpi=300)',
    ):
        assert part in script
    assert "napari_sclinguist" not in script  # the public package alone


def test_only_what_is_needed_is_in_the_text(opened):
    opened.set_view(View(keys=("column:array_row",)))
    script = python_script(opened, plan_figure(opened, FigureOptions()))
    compile(script, "copied.py", "exec")
    assert 'values=table.obs["array_row"]' in script
    for part in ("numpy", "predict", "protein_clr", "certainty", "threshold", 'title=""'):
        assert part not in script


def test_the_part_in_view_is_in_the_text(opened):
    viewer = opened.viewer
    viewer.canvas.size = (100, 200)
    viewer.scene.camera.center = (0, 2000.0, 3000.0)
    viewer.scene.camera.zoom = 0.2
    opened.set_view(View(keys=("predicted:CD19",)))
    plan = plan_figure(opened, FigureOptions(area=Area.IN_VIEW))
    assert f"bounds={plan.bounds!r}" in python_script(opened, plan)


def test_another_model_is_named(opened, predicted, monkeypatch):
    opened.set_view(View(keys=("predicted:CD19",)))
    plan = plan_figure(opened, FigureOptions())
    info = predicted.table.uns["sclinguist"]
    monkeypatch.setitem(info, "model", "my-own")
    assert 'model="path/to/my-own"' in python_script(opened, plan, models=["/nowhere"])


def test_a_section_among_others_is_chosen_by_its_name(opened, predicted, tmp_path):
    table = predicted.table[:20].copy()
    image = table.uns["spatial"][NAME]
    table.uns["spatial"] = {NAME: image, "other": image}
    path = write_table(table, tmp_path / "both.h5ad")
    several = workspace_of(replace(predicted, source=path)).active
    several.set_view(View(keys=("column:array_row",)))
    script = python_script(several, plan_figure(several, FigureOptions()))
    assert f'section = sections["{NAME}"]' in script
    assert "scl.open_sections(" in script


def test_what_no_script_can_show_is_said(opened, predicted, section):
    unsaved = workspace_of(section).active
    with pytest.raises(InputError, match=r"'small' is in no file.*save it first"):
        python_script(unsaved, plan_figure(unsaved, FigureOptions()))
    changes = pd.DataFrame({"CD19": np.ones(predicted.n_obs)})
    opened.catalogue.set_changes(changes)
    opened.set_view(View(keys=("change:CD19",)))
    with pytest.raises(InputError, match=r"CD19 \(change\) is held by this window alone"):
        python_script(opened, plan_figure(opened, FigureOptions()))


def test_names_of_variables_are_names(predicted):
    table = predicted.table
    predicted = replace(predicted, table=table[:20].copy())
    for column in ("6 genes", "table", "a-b", "a b"):
        predicted.table.obs[column] = 1.0
    opened = workspace_of(predicted).active
    for keys in (("6 genes", "table"), ("a-b", "a b")):
        opened.set_view(View(keys=tuple(f"column:{key}" for key in keys)))
        script = python_script(opened, plan_figure(opened, FigureOptions()))
        compile(script, "copied.py", "exec")
        assert [line.split(" = ")[0] for line in script.splitlines() if "= Feature(" in line] == (
            ["feature_6_genes", "table_2"] if keys[0] == "6 genes" else ["a_b", "a_b_2"]
        )
