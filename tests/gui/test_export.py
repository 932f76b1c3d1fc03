"""Figures that show what the window shows, and tables of its values."""

import csv
import os
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import openpyxl
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from PIL import Image

from gui.at_once import workspace_of
from napari_sclinguist.control import agreement, export, table_export
from napari_sclinguist.control.export import Area, Content, FigureOptions, plan_figure
from napari_sclinguist.control.table_export import Rows, TableOptions
from napari_sclinguist.control.view import View, picture
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.colouring import CHANNEL_COLOURS

CM = 2.54


@pytest.fixture
def opened(predicted_section):
    table = predicted_section.table
    for key, by in (("low", -0.5), ("high", 0.5)):
        table.obsm[f"protein_predicted_{key}"] = table.obsm["protein_predicted"] + by
    spread = pd.DataFrame(
        {"CD3": [1.0, 1, 1, 9], "CD19": [1.0, 2, 1, 1], "CD20": [1.0] * 4}, index=table.obs_names
    )
    table.obsm["protein_predicted_std"] = spread
    table.obs["sclinguist_ood"] = np.array([0.1, 0.5, 0.95, 0.99], np.float32)
    table.uns["sclinguist"] |= {"trust": {"CD3": "well"}, "expected_r": {"CD3": 0.8}}
    return workspace_of(predicted_section).active


def finish(steps):
    reports = []
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            return end.value, reports


def drawn(opened, options=FigureOptions()):  # noqa: B008
    return export.draw_figure(opened, plan_figure(opened, options))


def spots(figure, panel=0):
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    return next(c for c in panels[panel].collections if isinstance(c, EllipseCollection))


VIEWS = {
    "one": View(keys=("predicted:CD19",)),
    "limits and colours": View(
        keys=("predicted:CD19",), limits={"predicted:CD19": (-1.0, 1.5)}, colormap="cividis"
    ),
    "threshold": View(keys=("predicted:CD19",), thresholds={"predicted:CD19": 0.5}),
    "faded": View(keys=("predicted:CD19",), fade=True, opacity=0.6),
    "gene": View(keys=("mRNA:MS4A1",), opacity=0.5),
    "two": View(keys=("predicted:CD19", "mRNA:MS4A1")),
    "three": View(
        keys=("predicted:CD19", "predicted:CD3", "column:score"),
        fade=True,
        thresholds={"predicted:CD3": 0.05},
        limits={"column:score": (0.0, 3.0)},
    ),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_spots_have_the_colours_of_the_window(opened, view):
    opened.set_view(view)
    shown = picture(opened.catalogue, view).colours
    expected = shown / 255.0
    expected[:, 3] *= view.opacity
    found = spots(drawn(opened))
    np.testing.assert_allclose(found.get_facecolor(), expected[shown[:, 3] > 0], atol=1e-12)
    np.testing.assert_allclose(
        found.get_offsets(), opened.section.positions[shown[:, 3] > 0], atol=1e-12
    )


def test_changes_have_the_diverging_colours_of_the_window(opened):
    opened.catalogue.set_changes(pd.DataFrame({"CD19": [-2.0, -1.0, 0.0, 1.0]}))
    view = View(keys=("change:CD19",), diverging_colormap="PuOr_r")
    opened.set_view(view)
    figure = drawn(opened)
    expected = picture(opened.catalogue, view).colours[:, :3] / 255.0
    np.testing.assert_allclose(spots(figure).get_facecolor()[:, :3], expected)
    low, high = figure.axes[1].get_xlim()
    assert low == -high


def test_size_and_tissue_are_those_of_the_window(opened):
    opened.set_view(View(keys=("predicted:CD19",), size=1.5, tissue=0.3))
    figure = drawn(opened)
    diameter = opened.section.drawn_diameter
    np.testing.assert_allclose(spots(figure)._widths * 2, 1.5 * diameter)
    assert figure.axes[0].images[0].get_alpha() == 0.3
    opened.set_view(View(keys=("predicted:CD19",), tissue=0.0))
    assert len(drawn(opened).axes[0].images) == 0


def test_several_features_have_a_bar_each_in_their_own_colour(opened):
    opened.set_view(VIEWS["three"])
    figure = drawn(opened)
    bars = figure.axes[1:]
    assert [bar.get_xlabel().split(";")[0].replace("\n", " ") for bar in bars] == [
        "CD19 (predicted)",
        "CD3 (predicted)",
        "score",
    ]
    assert figure.axes[0].get_title(loc="left") == "CD19 (predicted) + CD3 (predicted) + score"
    ends = [bar.collections[-1].get_cmap()(1.0)[:3] for bar in bars]
    expected = [mpl.colors.to_rgb(one) for one in CHANNEL_COLOURS]
    np.testing.assert_allclose(ends, expected)


def test_threshold_and_fading_are_said(opened):
    view = View(keys=("predicted:CD19",), thresholds={"predicted:CD19": 0.5}, fade=True)
    opened.set_view(view)
    text = drawn(opened).axes[1].get_xlabel().replace("\n", " ")
    assert "coloured from 0.5" in text
    assert "faint where the model is unsure" in text


def test_each_feature_can_have_its_own_panel(opened):
    opened.set_view(VIEWS["two"])
    figure = drawn(opened, FigureOptions(content=Content.EACH))
    for panel, key in enumerate(opened.view.keys):
        shown = picture(opened.catalogue, opened.view.showing(key)).colours
        expected = shown[shown[:, 3] > 0][:, :3] / 255.0
        np.testing.assert_allclose(spots(figure, panel).get_facecolor()[:, :3], expected)


def test_two_features_and_their_difference(opened):
    opened.set_view(View(keys=("predicted:CD19", "column:score"), thresholds={"column:score": 2.0}))
    figure = drawn(opened, FigureOptions(content=Content.COMPARISON))
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert titles == ["CD19 (predicted)", "score", "difference"]
    assert len(spots(figure, 1).get_offsets()) == 4  # no threshold: as the Compare tab has it
    a, b = (opened.catalogue.values(key) for key in opened.view.keys)
    values = agreement.difference(a, b)
    limits = max(abs(np.percentile(abs(values), 99)), 0)
    place = np.clip((values + limits) / (2 * limits), 0, 1)
    expected = mpl.colormaps["RdBu_r"]((place * 255 + 0.5).astype(int))[:, :3]
    np.testing.assert_allclose(spots(figure, 2).get_facecolor()[:, :3], expected, atol=0.01)


def test_a_prediction_is_compared_with_what_measured_it(opened):
    opened.set_view(View(keys=("predicted:CD19",)))
    assert export.compared_keys(opened) == ("predicted:CD19", "mRNA:CD19")
    opened.set_view(View(keys=("column:score",)))
    with pytest.raises(InputError, match="score has nothing to be compared with in 'small'"):
        plan_figure(opened, FigureOptions(content=Content.COMPARISON))


def test_what_is_in_view_follows_the_camera(opened):
    viewer = opened.viewer
    viewer.canvas.size = (100, 200)  # height, width in pixels
    viewer.scene.camera.center = (0, 25.0, 30.0)
    viewer.scene.camera.zoom = 5.0  # 20 x 40 µm of the world, 0.5 µm a pixel
    plan = plan_figure(opened, FigureOptions(area=Area.IN_VIEW))
    assert plan.bounds == (20.0, 100.0, 30.0, 70.0)
    figure = export.draw_figure(opened, plan)
    assert figure.axes[0].get_xlim() == (20.0, 100.0)
    assert figure.axes[0].get_ylim() == (70.0, 30.0)


def test_what_is_in_view_ends_where_the_section_does(opened):
    viewer = opened.viewer
    viewer.canvas.size = (1000, 1000)
    viewer.scene.camera.center = (0, 40.0, 60.0)
    viewer.scene.camera.zoom = 0.1
    left, right, top, bottom = plan_figure(opened, FigureOptions(area=Area.IN_VIEW)).bounds
    assert -250 < left < 0 < 240 <= right < 600
    assert -250 < top < 0 < 160 <= bottom < 600
    viewer.scene.camera.center = (0, 1e6, 1e6)
    with pytest.raises(InputError, match="Nothing of 'small' is in view"):
        plan_figure(opened, FigureOptions(area=Area.IN_VIEW))


@pytest.mark.parametrize("content", list(Content))
def test_a_png_has_the_width_that_was_asked_for(opened, tmp_path, content):
    opened.set_view(VIEWS["two"])
    options = FigureOptions(content=content, width=10.0, dpi=150, title="small")
    plan = plan_figure(opened, options)
    path, reports = finish(export.figure_steps(opened, plan, tmp_path / "a.png"))
    assert [report.phase for report in reports] == ["drawing", "writing"]
    with Image.open(path) as image:
        assert image.width == pytest.approx(10.0 / CM * 150, abs=2)
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    assert os.listdir(tmp_path) == ["a.png"]


def test_scale_bar_and_title_are_there(opened):
    opened.set_view(VIEWS["one"])
    figure = drawn(opened, FigureOptions(title="A small section"))
    assert "A small section" in [text.get_text() for text in figure.texts]
    assert any("µm" in text.get_text() for text in figure.axes[0].texts)


def test_simulated_data_are_called_so(opened):
    opened.set_view(VIEWS["one"])
    for title, expected in (("", ""), ("Tonsil", "Tonsil")):
        assert plan_figure(opened, FigureOptions(title=title)).title == expected
    opened.section.table.uns["simulated"] = True
    for title, expected in (
        ("", "(simulated data)"),
        ("Tonsil", "Tonsil (simulated data)"),
        ("A simulated tonsil", "A simulated tonsil"),
    ):
        assert plan_figure(opened, FigureOptions(title=title)).title == expected


def test_a_black_background_has_light_text(opened, tmp_path):
    opened.set_view(VIEWS["one"])
    options = FigureOptions(background="black", dpi=150, width=6.0, title="small")
    plan = plan_figure(opened, options)
    path, _ = finish(export.figure_steps(opened, plan, tmp_path / "a.png"))
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[:40].max() > 200


@pytest.mark.parametrize(("name", "start"), [("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_drawings_for_other_programs(opened, tmp_path, name, start):
    opened.set_view(VIEWS["one"])
    plan = plan_figure(opened, FigureOptions())
    path, _ = finish(export.figure_steps(opened, plan, tmp_path / name))
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.tiff", "its suffix is '.tiff', expected one of .png, .svg, .pdf"),
        ("nowhere/a.png", "does not exist; make it first"),
    ],
)
def test_a_figure_that_cannot_be_written_is_refused_before_it_is_drawn(
    opened, tmp_path, name, sentence
):
    opened.set_view(VIEWS["one"])
    plan = plan_figure(opened, FigureOptions())
    with pytest.raises(InputError, match=sentence):
        next(export.figure_steps(opened, plan, tmp_path / name))
    (tmp_path / "b.png").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        next(export.figure_steps(opened, plan, tmp_path / "b.png"))


def test_a_figure_of_too_many_pixels_is_refused(opened):
    opened.set_view(VIEWS["one"])
    with pytest.raises(InputError, match=r"would have [\d,]+ million pixels, expected at most 300"):
        plan_figure(opened, FigureOptions(width=60.0, dpi=1200))


def test_a_full_disk_is_said_in_a_sentence(opened, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    opened.set_view(VIEWS["one"])
    steps = export.figure_steps(opened, plan_figure(opened, FigureOptions()), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"No space left on device.*nothing was changed"):
        finish(steps)
    assert os.listdir(tmp_path) == []


# --- tables ---------------------------------------------------------------------------------


def test_a_csv_has_barcodes_places_and_shown_values(opened, tmp_path):
    options = TableOptions(keys=("predicted:CD19", "mRNA:MS4A1"))
    path, reports = finish(table_export.table_steps(opened, options, tmp_path / "a.csv"))
    table = pd.read_csv(path)
    assert list(table) == [
        "barcode",
        "x_um",
        "y_um",
        "sclinguist_ood",
        "CD19 (predicted)",
        "MS4A1 (mRNA)",
    ]
    assert table["barcode"].tolist() == ["a", "b", "c", "d"]
    np.testing.assert_allclose(table[["x_um", "y_um"]], opened.section.positions * 0.5)
    assert table["CD19 (predicted)"].tolist() == [-2, 0, 1, 2]
    np.testing.assert_allclose(table["MS4A1 (mRNA)"][:3], np.log1p([1e4, 5e3, 0]), rtol=1e-6)
    assert np.isnan(table["MS4A1 (mRNA)"][3])
    assert (reports[-1].done, reports[-1].total) == (4, 4)
    assert os.listdir(tmp_path) == ["a.csv"]


def test_all_predicted_proteins_with_their_intervals(opened, tmp_path):
    options = TableOptions(intervals=True)
    path, _ = finish(table_export.table_steps(opened, options, tmp_path / "a.csv"))
    table = pd.read_csv(path)
    predicted = opened.section.table.obsm["protein_predicted"]
    assert list(table)[4:8] == [f"CD3 (predicted){word}" for word in ("", " low", " high", " SD")]
    for protein in predicted:
        label = f"{protein} (predicted)"
        np.testing.assert_allclose(table[label], predicted[protein])
        np.testing.assert_allclose(table[f"{label} low"], predicted[protein] - 0.5, atol=1e-6)
        np.testing.assert_allclose(table[f"{label} high"], predicted[protein] + 0.5, atol=1e-6)
    assert table["CD3 (predicted) SD"].tolist() == [1, 1, 1, 9]


def test_groups_are_columns_and_selected_spots_alone_can_be_written(opened, tmp_path):
    obs = opened.section.table.obs
    obs["group"] = pd.Categorical(["zone, inner", None, "zone, inner", "rim"])
    obs["barcode"] = ["1", "2", "3", "4"]
    obs["is_rim"] = [False, False, False, True]
    opened.select(np.array([True, True, False, True]))
    options = TableOptions(keys=("predicted:CD3",), selected_only=True)
    path, _ = finish(table_export.table_steps(opened, options, tmp_path / "a.csv"))
    table = pd.read_csv(path)
    assert table["barcode"].tolist() == ["a", "b", "d"]
    assert table["barcode (obs)"].tolist() == [1, 2, 4]
    assert table["group"].fillna("").tolist() == ["zone, inner", "", "rim"]
    assert table["is_rim"].tolist() == [False, False, True]
    np.testing.assert_allclose(table["CD3 (predicted)"], [0, 0.1, 0.1])


def test_without_a_pixel_size_places_are_in_pixels(predicted_section, tmp_path):
    opened = workspace_of(replace(predicted_section, microns_per_pixel=None)).active
    options = TableOptions(keys=("predicted:CD3",))
    path, _ = finish(table_export.table_steps(opened, options, tmp_path / "a.csv"))
    np.testing.assert_allclose(pd.read_csv(path)[["x_px", "y_px"]], opened.section.positions)


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx"])
def test_proteins_are_summed_up(opened, tmp_path, name):
    options = TableOptions(rows=Rows.PROTEINS)
    path, _ = finish(table_export.table_steps(opened, options, tmp_path / name))
    table = pd.read_csv(path) if name.endswith("csv") else pd.read_excel(path)
    table = table.set_index("protein")
    assert table.loc["CD20", "genes"] == "MS4A1"
    assert table.loc["CD3", ["trust", "expected_r"]].tolist() == ["well", 0.8]
    assert table.loc["CD19", "mean"] == pytest.approx(0.25)
    assert table.loc["CD19", "sd"] == pytest.approx(np.std([-2, 0, 1, 2]), rel=1e-6)
    assert table["spots_with_a_value"].tolist() == [4, 4, 4]


def test_excel_holds_the_same_values_and_says_where_they_come_from(opened, tmp_path):
    opened.section.table.obsm["protein_predicted"].loc["b", "CD19"] = np.nan
    opened.section.table.obsm["protein_predicted"]["CD3"] = np.float32(0.1)
    opened.section.table.obs["group"] = ["=1+1", "a\x02b", None, "T cells"]
    opened.section.table.uns["sclinguist"] |= {"model": "blood-2"}
    opened.section.table.uns["simulated"] = True
    options = TableOptions(keys=("predicted:CD19", "predicted:CD3"))
    path, _ = finish(table_export.table_steps(opened, options, tmp_path / "a.xlsx"))
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["Values", "About"]
    rows = list(book["Values"].iter_rows(values_only=True))
    assert rows[0][:3] == ("barcode", "x_um", "y_um")
    assert [row[-2] for row in rows[1:]] == [-2, None, 1, 2]
    assert {row[-1] for row in rows[1:]} == {0.1}  # not 0.10000000149
    assert [row[4] for row in rows[1:]] == ["=1+1", "ab", None, "T cells"]
    assert book["Values"]["E2"].data_type == "s"  # no formula
    about = dict(book["About"].iter_rows(values_only=True))
    assert about["Section"] == "small"
    assert about["Model"] == "blood-2"
    assert about["Unit of CD19 (predicted)"] == "sd of the training reference"
    assert "simulated" in about["Note"]
    assert os.listdir(tmp_path) == ["a.xlsx"]


def test_what_excel_cannot_hold_is_refused(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(table_export, "MOST_EXCEL_ROWS", 3)
    options = TableOptions(keys=("predicted:CD3",))
    with pytest.raises(InputError, match=r"4 rows and 5 columns.*choose CSV"):
        next(table_export.table_steps(opened, options, tmp_path / "a.xlsx"))
    finish(table_export.table_steps(opened, options, tmp_path / "a.csv"))


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx"])
def test_a_table_is_written_in_parts_and_can_be_stopped(opened, tmp_path, monkeypatch, name):
    monkeypatch.setattr(table_export, "_VALUES_AT_ONCE", 10)
    options = TableOptions(keys=("predicted:CD3",))
    (tmp_path / name).write_text("old")
    steps = table_export.table_steps(opened, options, tmp_path / name)
    assert [next(steps).done for _ in range(2)] == [0, 2]
    steps.close()
    assert (tmp_path / name).read_text() == "old"
    assert os.listdir(tmp_path) == [name]
    path, reports = finish(table_export.table_steps(opened, options, tmp_path / name))
    assert [report.done for report in reports] == [0, 2, 4]
    if name == "a.csv":
        with path.open(newline="") as handle:
            assert [row[0] for row in csv.reader(handle)] == ["barcode", "a", "b", "c", "d"]


@pytest.mark.parametrize("rows", list(Rows))
def test_without_predictions_there_are_no_proteins_to_write(section, tmp_path, rows):
    opened = workspace_of(section).active
    options = TableOptions(rows=rows)
    with pytest.raises(InputError, match="No proteins are predicted for 'small' yet"):
        next(table_export.table_steps(opened, options, tmp_path / "a.csv"))


def test_a_table_of_another_kind_is_refused(opened, tmp_path):
    with pytest.raises(InputError, match=r"expected one of \.csv, \.xlsx"):
        next(table_export.table_steps(opened, TableOptions(), tmp_path / "a.ods"))
