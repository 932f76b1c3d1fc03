"""Comparing features, without a window: figures, pairs, panels on the canvas, selection."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from napari.layers import Points
from scipy import stats

from gui.at_once import workspace_of
from gui.compared_section import make_section
from napari_sclinguist import carriers
from napari_sclinguist.control import comparing as comparing_module
from napari_sclinguist.control.agreement import Pair, agreement, default_pair, difference
from napari_sclinguist.control.catalogue import Catalogue
from napari_sclinguist.control.comparing import Comparing, rows_within
from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.groups import save_group
from napari_sclinguist.control.protein_comparison import compare_proteins
from napari_sclinguist.control.side_by_side import SideBySide, contents, grid_shape
from napari_sclinguist.control.tissue_selection import SELECTION_COLOUR, TissueSelection
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.panel import Feature
from sclinguist_core.evaluation.panel import difference as figure_difference

CD19 = Pair(a="predicted:CD19", b="measured:CD19")
CD3 = Pair(a="predicted:CD3", b="measured:CD3")


def result_of(generator):
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def z(values):
    return (values - values.mean()) / values.std()


# --- figures --------------------------------------------------------------------------------------


def test_figures_are_those_of_scipy():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 200))
    y += x
    found = agreement(x, y)
    assert found.r == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((z(x) - z(y)) ** 2)))
    assert found.n == 200


def test_rows_that_miss_a_side_are_left_out():
    x = np.array([1.0, 2, 3, 4, np.nan, 9])
    y = np.array([2.0, 1, 4, 3, 7, np.inf])
    found = agreement(x, y)
    assert found == agreement(x[:4], y[:4])
    assert found.n == 4
    apart = difference(x, y)
    np.testing.assert_allclose(apart[:4], z(x[:4]) - z(y[:4]), rtol=1e-6)
    assert np.isnan(apart[4:]).all()


def test_a_constant_side_has_no_figures():
    found = agreement(np.ones(20), np.arange(20.0))
    assert np.isnan([found.r, found.rho, found.rmse]).all()
    assert found.n == 20
    assert np.isnan(difference(np.ones(20), np.arange(20.0))).all()


def test_the_difference_is_that_of_the_exported_figures():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 20))
    x[3] = np.nan
    shown = difference(x, y)
    assert shown.dtype == np.float32
    exported = figure_difference(Feature(values=x, title="x"), Feature(values=y, title="y"))
    np.testing.assert_array_equal(shown, exported.values)


def test_the_difference_is_what_the_error_is_made_of():
    x, y = np.random.default_rng(2).normal(size=(2, 50))
    assert np.sqrt(np.mean(difference(x, y) ** 2)) == pytest.approx(agreement(x, y).rmse, rel=1e-6)


# --- pairs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "key", "pair"),
    [
        ({}, "predicted:CD19", CD19),
        ({}, "measured:CD19", CD19),
        ({}, "mRNA:CD19", Pair(a="mRNA:CD19", b="measured:CD19")),
        ({}, "measured:ACTA2", Pair(a="mRNA:ACTA2", b="measured:ACTA2")),
        ({}, "mRNA:CD3E", Pair(a="mRNA:CD3E", b="measured:CD3")),
        ({"measured": False}, "predicted:CD19", Pair(a="predicted:CD19", b="mRNA:CD19")),
        ({"measured": False}, "mRNA:CD19", Pair(a="predicted:CD19", b="mRNA:CD19")),
        ({"predicted": False}, "measured:CD19", Pair(a="mRNA:CD19", b="measured:CD19")),
        ({}, "predicted:CD45", Pair(a="predicted:CD45")),
        ({}, "mRNA:MKI67", Pair(a="mRNA:MKI67")),
        ({}, "column:total counts", Pair(a="column:total counts")),
    ],
)
def test_a_feature_is_compared_with_the_same_protein(options, key, pair):
    assert default_pair(Catalogue(make_section(**options)), key) == pair


def test_swapping_keeps_an_incomplete_pair():
    assert CD19.swapped() == Pair(a=CD19.b, b=CD19.a)
    assert Pair(a="mRNA:MKI67").swapped() == Pair(a="mRNA:MKI67")


# --- all proteins ---------------------------------------------------------------------------------


def test_every_protein_has_a_row_with_the_figures_of_its_pair():
    catalogue = Catalogue(make_section())
    found = result_of(compare_proteins(catalogue))
    table = found.table.set_index("protein")
    assert set(table.index) == {"CD19", "CD3", "CD20 (CD20_1)", "CD20 (CD20_2)", "CD45", "ACTA2"}
    assert found.reference is Kind.MEASURED
    for (name, row), pair in zip(table.iterrows(), found.pairs, strict=True):
        if name in {"CD45", "ACTA2"}:
            continue
        expected = agreement(catalogue.values(pair.a), catalogue.values(pair.b))
        assert (row["r"], row["spearman"], row["rmse_z"]) == pytest.approx(
            (expected.r, expected.rho, expected.rmse)
        )
        values = catalogue.values(pair.a).astype(np.float64)
        assert (row["mean"], row["variance"]) == pytest.approx((values.mean(), values.var()))
    assert (table.loc["CD19", "trust"], table.loc["CD19", "expected_r"]) == ("well", 0.83)


def test_an_antibody_without_a_prediction_is_untested_and_stands_beside_its_mrna():
    catalogue = Catalogue(make_section())
    found = result_of(compare_proteins(catalogue))
    place = found.table["protein"].tolist().index("ACTA2")
    row = found.table.iloc[place]
    assert row["trust"] == "untested"
    assert np.isnan(row[["expected_r", "r", "spearman", "rmse_z", "mean"]].astype(float)).all()
    gene, antibody = catalogue.values("mRNA:ACTA2"), catalogue.values("measured:ACTA2")
    assert row["r_mrna"] == pytest.approx(stats.pearsonr(gene, antibody).statistic, rel=1e-5)
    assert found.pairs[place] == Pair(a="mRNA:ACTA2", b="measured:ACTA2")


def test_isotype_controls_are_left_out():
    found = result_of(compare_proteins(Catalogue(make_section())))
    assert not found.table["protein"].str.contains("IgG").any()
    assert not found.table["antibody"].str.contains("IgG").any()


def test_of_several_genes_the_best_counts():
    catalogue = Catalogue(make_section())
    table = result_of(compare_proteins(catalogue)).table.set_index("protein")
    assert table.loc["CD3", "gene"] == "CD3E"
    by_gene = {
        gene: stats.pearsonr(
            catalogue.values(f"mRNA:{gene}"), catalogue.values("measured:CD3")
        ).statistic
        for gene in ("CD3D", "CD3E")
    }
    assert table.loc["CD3", "r_mrna"] == pytest.approx(by_gene["CD3E"], rel=1e-5)
    assert by_gene["CD3D"] < by_gene["CD3E"]


def test_where_nothing_was_measured_predictions_are_compared_with_mrna():
    catalogue = Catalogue(make_section(measured=False))
    found = result_of(compare_proteins(catalogue))
    table = found.table.set_index("protein")
    assert found.reference is Kind.GENE
    expected = agreement(catalogue.values("predicted:CD19"), catalogue.values("mRNA:CD19"))
    assert table.loc["CD19", "r"] == pytest.approx(expected.r)
    assert table["r_mrna"].isna().all()
    assert np.isnan(table.loc["CD45", "r"])


def test_before_predictions_nothing_is_called_untested():
    found = result_of(compare_proteins(Catalogue(make_section(predicted=False))))
    assert set(found.table["trust"]) == {""}
    assert found.table["r_mrna"].notna().sum() == 3
    assert result_of(
        compare_proteins(Catalogue(make_section(predicted=False, measured=False)))
    ).table.empty


def test_many_rows_are_compared_a_few_proteins_at_a_time(monkeypatch):
    catalogue = Catalogue(make_section())
    at_once = result_of(compare_proteins(catalogue))
    monkeypatch.setattr("napari_sclinguist.control.protein_comparison._VALUES_AT_ONCE", 60)
    few = result_of(compare_proteins(catalogue))
    pd.testing.assert_frame_equal(few.table, at_once.table)
    reports = list(compare_proteins(catalogue))
    assert [report.done for report in reports[:8]] == list(range(1, 9))


def test_the_table_is_written_with_its_figures(tmp_path):
    found = result_of(compare_proteins(Catalogue(make_section())))
    found.write(tmp_path / "proteins.csv")
    read = pd.read_csv(tmp_path / "proteins.csv").set_index("protein")
    assert read.loc["CD19", "r"] == pytest.approx(found.table.set_index("protein").loc["CD19", "r"])
    assert read.loc["ACTA2", "trust"] == "untested"
    assert set(read["compared_with"]) == {"measured"}
    assert [path.name for path in tmp_path.iterdir()] == ["proteins.csv"]


# --- what the tab is about ------------------------------------------------------------------------


def test_the_pair_follows_what_is_shown():
    workspace = workspace_of(make_section())
    workspace.active.show("predicted:CD19")
    comparing = Comparing(workspace)
    assert comparing.pair == CD19
    catalogue = workspace.active.catalogue
    assert comparing.agreement == agreement(catalogue.values(CD19.a), catalogue.values(CD19.b))
    workspace.active.show("measured:CD19")  # its other side
    assert comparing.pair == CD19
    workspace.active.show("predicted:CD3")
    assert comparing.pair == CD3
    workspace.active.show("predicted:CD3", "predicted:CD20")  # two at once are no pair
    assert comparing.pair == CD3


def test_a_chosen_pair_is_shown_on_the_tissue():
    workspace = workspace_of(make_section())
    opened = workspace.active
    comparing = Comparing(workspace)
    comparing.choose(a="measured:CD3")
    assert comparing.pair == CD3.swapped()
    assert opened.view.keys == ("measured:CD3",)
    comparing.swap()
    assert comparing.pair == CD3
    assert opened.view.keys == ("measured:CD3",)
    comparing.choose(b="mRNA:MKI67")
    assert comparing.pair == Pair(a="predicted:CD3", b="mRNA:MKI67")
    # What was chosen apart stays when the other side changes.
    comparing.choose(a="predicted:CD19")
    assert comparing.pair == Pair(a="predicted:CD19", b="mRNA:MKI67")
    assert opened.view.keys == ("predicted:CD19",)


def test_a_row_of_the_table_becomes_the_pair():
    workspace = workspace_of(make_section())
    comparing = Comparing(workspace)
    comparing.compare_proteins()
    rows = comparing.proteins.table["protein"].tolist()
    comparing.choose_protein(rows.index("ACTA2"))
    assert comparing.pair == Pair(a="mRNA:ACTA2", b="measured:ACTA2")
    assert workspace.active.view.keys == ("mRNA:ACTA2",)
    comparing.choose_protein(rows.index("CD45"))
    assert comparing.pair == Pair(a="predicted:CD45")
    assert comparing.agreement is None


def test_predictions_that_come_are_compared():
    section = make_section(predicted=False)
    workspace = workspace_of(section)
    comparing = Comparing(workspace)
    comparing.choose(a="measured:CD19")
    assert comparing.pair == Pair(a="mRNA:CD19", b="measured:CD19").swapped()
    comparing.compare_proteins()
    assert comparing.proteins.table["r"].isna().all()
    predicted = make_section().table
    section.table.obsm["protein_predicted"] = predicted.obsm["protein_predicted"]
    workspace.active.catalogue.refresh()
    former = comparing.proteins
    workspace.active.contents_changed.emit()
    assert comparing.proteins is former  # until there is a new one
    comparing.compare_proteins()
    assert comparing.proteins.table["r"].notna().sum() == 4


def test_the_table_goes_with_its_features():
    section = make_section()
    workspace = workspace_of(section)
    comparing = Comparing(workspace)
    comparing.compare_proteins()
    del section.table.obsm["protein_predicted"]
    workspace.active.catalogue.refresh()
    workspace.active.contents_changed.emit()
    assert comparing.proteins is None
    assert not comparing.pair.a.startswith("predicted")


def test_a_tab_that_nobody_sees_follows_nothing_and_catches_up():
    workspace = workspace_of(make_section())
    comparing = Comparing(workspace)
    comparing.choose(a="predicted:CD19")
    comparing.set_running(False)
    heard = []
    comparing.pair_changed.connect(lambda: heard.append(comparing.pair))
    workspace.active.show("predicted:CD3")
    assert (comparing.pair, heard) == (CD19, [])
    comparing.set_running(True)
    assert (comparing.pair, heard) == (CD3, [CD3])


def test_large_sections_are_compared_beside_the_window(monkeypatch):
    workspace = workspace_of(make_section())
    comparing = Comparing(workspace)
    monkeypatch.setattr(comparing_module, "MAX_POINTS", 10)
    monkeypatch.setattr(comparing_module, "MOST_POINTS", 10)
    waiting = []
    monkeypatch.setattr(workspace, "in_background", lambda *job, **of: waiting.append(job))
    comparing.choose(a="predicted:CD19")
    comparing.choose(a="predicted:CD3")
    assert comparing.agreement is None
    catalogue = workspace.active.catalogue
    expected = [agreement(catalogue.values(p.a), catalogue.values(p.b)) for p in (CD19, CD3)]
    for (_, steps, accept), figures in zip(reversed(waiting), reversed(expected), strict=True):
        result = result_of(steps())
        assert result[0] == figures
        accept(result)
    # The figures of the former pair came last, and late.
    assert comparing.agreement == expected[1]
    assert comparing.hexagons.counts.sum() == expected[1].n


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({}, ""),
        ({"measured": False}, "No protein was measured here"),
        ({"predicted": False}, "Predict proteins first: until then, measured ones"),
        (
            {"predicted": False, "measured": False},
            "Predict proteins first: no protein was measured",
        ),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(options, hint):
    said = Comparing(workspace_of(make_section(**options))).hint
    assert said.startswith(hint)
    assert said.count(".") == bool(hint)


def test_without_a_section_it_says_so_and_chooses_nothing():
    comparing = Comparing(workspace_of())
    assert comparing.hint == "Open a section to compare its proteins."
    comparing.choose(a="predicted:CD19")
    comparing.compare_proteins()
    assert (comparing.pair, comparing.proteins, comparing.entries()) == (None, None, (None, None))


def test_how_far_to_trust_the_prediction_stands_beside():
    comparing = Comparing(workspace_of(make_section()))
    comparing.choose(a="predicted:CD19")
    assert comparing.trust_line() == "CD19: well predicted; expected r 0.83."
    comparing.choose(a="predicted:CD45")
    assert comparing.trust_line().startswith("CD45: untested")
    comparing.choose(a="mRNA:ACTA2")
    assert comparing.trust_line() == ""


# --- selecting ------------------------------------------------------------------------------------


def test_rows_within_an_outline():
    x, y = np.array([0.5, 2.0, 0.5, np.nan]), np.array([0.5, 0.5, 3.0, 0.5])
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    assert rows_within(square, x, y).tolist() == [True, False, False, False]
    triangle = np.array([[0, 0], [1, 0], [0, 0.9]], float)
    assert not rows_within(triangle, x, y).any()
    assert not rows_within(square[:2], x, y).any()


def selected_rings(layer):
    return np.flatnonzero(layer.border_color[:, 3] > 0).tolist()


def rows(n, *chosen):
    mask = np.zeros(n, bool)
    mask[list(chosen)] = True
    return mask


def test_selected_spots_get_rings_in_a_layer_that_is_made_once():
    workspace = workspace_of(make_section())
    opened, layers = workspace.active, workspace.viewer.layers
    selection = TissueSelection(workspace)
    active = layers.selection.active
    before = len(layers)
    opened.select(rows(60, 3, 7))
    layer = selection.highlights[opened].layer
    assert selected_rings(layer) == [3, 7]
    np.testing.assert_allclose(layer.data, opened.spots.data)
    assert layer.border_color[3] == pytest.approx((1.0, 0x7A / 255, 0.0, 1.0), abs=1e-6)
    assert SELECTION_COLOUR == "#ff7a00"
    assert layers.selection.active is active
    opened.select(rows(60, 1))
    assert selection.highlights[opened].layer is layer
    assert selected_rings(layer) == [1]
    opened.select(None)
    assert selected_rings(layer) == []
    assert len(layers) == before + 1


def test_spots_selected_on_the_tissue_are_the_selection_and_back():
    workspace = workspace_of(make_section())
    opened = workspace.active
    selection = TissueSelection(workspace)
    opened.spots.selected_data = {2, 5}
    assert np.flatnonzero(opened.selected).tolist() == [2, 5]
    assert selected_rings(selection.highlights[opened].layer) == [2, 5]
    opened.select(rows(60, 9))  # from the plot
    assert set(opened.spots.selected_data) == set()
    assert np.flatnonzero(opened.selected).tolist() == [9]
    opened.spots.selected_data = {1}
    opened.spots.selected_data = set()
    assert opened.selected is None


def test_many_rows_are_dimmed_where_they_are_not_selected(monkeypatch):
    monkeypatch.setattr(carriers, "MAX_POINTS", 10)
    section = make_section()
    section.table.obs["array_row"], section.table.obs["array_col"] = np.divmod(np.arange(60), 8)
    workspace = workspace_of(section)
    opened = workspace.active
    selection = TissueSelection(workspace)
    opened.select(rows(60, 0, 9))
    layer = selection.highlights[opened].layer
    veil = layer.data[..., 3].ravel()
    assert np.flatnonzero(veil[:60] == 0).tolist() == [0, 9]
    assert (veil[:60] > 0).sum() == 58
    assert opened.spots.data[0, 0] == pytest.approx(opened.picture.channels[0].values[0])
    opened.select(None)
    assert not layer.data.any()


def test_the_rings_go_with_their_section():
    workspace = workspace_of(make_section())
    opened, layers = workspace.active, workspace.viewer.layers
    selection = TissueSelection(workspace)
    opened.select(rows(60, 3))
    layers.remove(opened.spots)
    assert selection.highlights == {}
    assert [layer.name for layer in layers] == ["compared hires"]


def test_a_group_is_a_category_of_a_column():
    workspace = workspace_of(make_section())
    opened, obs = workspace.active, workspace.active.section.table.obs
    with pytest.raises(InputError, match=r"No spots of 'compared' are selected"):
        save_group(opened, "follicle")
    opened.select(rows(60, 0, 1))
    with pytest.raises(InputError, match="has no name"):
        save_group(opened, "  ")
    assert not opened.dirty
    save_group(opened, " follicle ")
    assert opened.dirty
    opened.select(rows(60, 1, 2))
    save_group(opened, "mantle")
    assert isinstance(obs["sclinguist_group"].dtype, pd.CategoricalDtype)
    assert obs["sclinguist_group"].iloc[:4].tolist()[:3] == ["follicle", "mantle", "mantle"]
    assert obs["sclinguist_group"].isna().sum() == 57
    obs["score"] = 1.0
    with pytest.raises(InputError, match=r"obs\['score'\] of 'compared' holds numbers"):
        save_group(opened, "x", column="score")


def test_groups_are_saved_with_the_table(tmp_path):
    opened = workspace_of(make_section()).active
    opened.select(rows(60, 0))
    save_group(opened, "follicle")
    opened.section.table.write_h5ad(tmp_path / "section.h5ad")
    read = ad.read_h5ad(tmp_path / "section.h5ad")
    assert read.obs["sclinguist_group"].cat.categories.tolist() == ["follicle"]
    assert read.obs["sclinguist_group"].notna().sum() == 1


# --- side by side ---------------------------------------------------------------------------------


def show(side_by_side, opened, pair, *, with_difference=False):
    side_by_side.show(opened, contents(opened, pair, with_difference=with_difference))


def state_of(viewer):
    grid = viewer.canvas.grid
    return (
        [(layer.name, layer.visible) for layer in viewer.layers],
        (grid.enabled, grid.stride, grid.shape),
        (viewer.scene.camera.center, viewer.scene.camera.zoom),
        viewer.layers.selection.active,
        viewer.canvas.overlays.text.visible,
    )


@pytest.mark.parametrize(
    ("n_panels", "canvas", "tissue", "shape"),
    [
        (2, (600, 1200), (1, 1), (1, 2)),
        (2, (1200, 600), (1, 1), (2, 1)),
        (3, (830, 640), (1, 1), (2, 2)),
        (3, (400, 1600), (1, 1), (1, 3)),
        (3, (900, 700), (1, 4), (3, 1)),
        (2, (600, 600), (0, 0), (1, 2)),
    ],
)
def test_panels_are_laid_out_as_large_as_they_go(n_panels, canvas, tissue, shape):
    assert grid_shape(n_panels, canvas, tissue) == shape


@pytest.mark.parametrize("image", [True, False])
def test_panels_lie_beside_each_other_and_go_without_a_trace(image):
    workspace = workspace_of(make_section(image=image))
    viewer, opened = workspace.viewer, workspace.active
    viewer.add_layer(Points([[1.0, 2.0]], name="mine"))
    hidden = Points([[1.0, 2.0]], name="hidden", visible=False)
    viewer.add_layer(hidden)
    before = state_of(viewer)
    viewer.canvas.size = (400, 1600)  # wide enough for a row
    side_by_side = SideBySide(viewer)
    show(side_by_side, opened, CD19)
    grid, layers = viewer.canvas.grid, viewer.layers
    where = {layer.name: grid.position(i, layers) for i, layer in enumerate(layers)}
    assert where["A: CD19 (predicted)"] == (0, 0)
    assert where["B: CD19 (measured)"] == (0, 1)
    assert grid.actual_shape(layers) == (1, 2)
    assert [name for name, place in where.items() if place == (-1, -1)] == [
        name for name, _ in before[0]
    ]
    if image:
        assert (where["A: tissue"], where["B: tissue"]) == ((0, 0), (0, 1))
    show(side_by_side, opened, CD19, with_difference=True)
    assert grid.actual_shape(layers) == (1, 3)
    side_by_side.leave()
    assert state_of(viewer) == before
    assert not hidden.visible


def test_panels_are_no_sections_of_their_own_and_share_the_pixels():
    workspace = workspace_of(make_section())
    opened = workspace.active
    side_by_side = SideBySide(workspace.viewer)
    show(side_by_side, opened, CD19)
    assert workspace.sections == [opened]
    for panel in side_by_side.panels:
        assert np.shares_memory(panel.tissue.data, opened.image_layer.data)
        np.testing.assert_allclose(panel.tissue.extent.world, opened.image_layer.extent.world)
        for layer in panel.layers:
            assert layer.metadata["sclinguist"]["role"] == "compare"
            assert workspace.section_of(layer) is opened
            assert [str(unit) for unit in layer.units] == ["micrometer"] * 2


def test_another_protein_is_shown_in_the_same_layers():
    workspace = workspace_of(make_section())
    opened = workspace.active
    side_by_side = SideBySide(workspace.viewer)
    show(side_by_side, opened, CD19, with_difference=True)
    before = list(workspace.viewer.layers)
    colours = side_by_side.panels[0].spots.face_color.copy()
    show(side_by_side, opened, CD3, with_difference=True)
    assert list(workspace.viewer.layers) == before
    first, second, apart = (panel.spots for panel in side_by_side.panels)
    assert (first.name, second.name) == ("A: CD3 (predicted)", "B: CD3 (measured)")
    assert apart.name == "A − B (z-scores)"
    assert not np.allclose(first.face_color, colours)
    show(side_by_side, opened, CD3)
    assert list(workspace.viewer.layers)[:6] == before[:6]
    assert apart not in workspace.viewer.layers


def test_both_features_keep_their_own_limits_and_the_difference_is_around_zero():
    opened = workspace_of(make_section()).active
    a, b, apart = (content.picture for content in contents(opened, CD19, with_difference=True))
    assert a.colormap == b.colormap == opened.view.colormap
    for picture, key in ((a, CD19.a), (b, CD19.b)):
        values = opened.catalogue.values(key)
        assert picture.channels[0].limits == pytest.approx(np.percentile(values, [1, 99]))
    low, high = apart.channels[0].limits
    assert low == -high < 0
    assert apart.colormap == opened.view.diverging_colormap
    x, y = (opened.catalogue.values(key) for key in (CD19.a, CD19.b))
    np.testing.assert_allclose(apart.channels[0].values, z(x) - z(y), rtol=1e-4, atol=1e-5)


def test_what_wants_to_be_seen_meanwhile_is_seen_afterwards():
    workspace = workspace_of(make_section())
    viewer, opened = workspace.viewer, workspace.active
    side_by_side = SideBySide(viewer)
    show(side_by_side, opened, CD19)
    opened.image_layer.visible = True
    assert not opened.image_layer.visible
    opened.show("predicted:CD3")
    assert not opened.spots.visible
    assert not viewer.canvas.overlays.text.visible
    side_by_side.leave()
    assert opened.image_layer.visible
    assert opened.spots.visible


def test_a_blended_picture_that_came_meanwhile_is_the_one_that_is_seen(monkeypatch):
    monkeypatch.setattr(carriers, "MAX_POINTS", 10)
    section = make_section()
    section.table.obs["array_row"], section.table.obs["array_col"] = np.divmod(np.arange(60), 8)
    workspace = workspace_of(section)
    opened = workspace.active
    side_by_side = SideBySide(workspace.viewer)
    show(side_by_side, opened, CD19)
    opened.show("predicted:CD19", "predicted:CD3")
    assert side_by_side.on
    assert not any(layer.visible for layer in opened.layers)
    side_by_side.leave()
    assert [layer.visible for layer in opened.layers] == [False, True]


@pytest.mark.parametrize("reason", ["grid", "panel", "section", "other layer"])
def test_panels_go_by_themselves(reason):
    workspace = workspace_of(make_section())
    viewer, opened = workspace.viewer, workspace.active
    side_by_side = SideBySide(viewer)
    heard = []
    side_by_side.panels_changed.connect(lambda: heard.append(side_by_side.on))
    show(side_by_side, opened, CD19)
    if reason == "grid":
        viewer.canvas.grid.enabled = False
    elif reason == "panel":
        viewer.layers.remove(side_by_side.panels[1].spots)
    elif reason == "section":
        viewer.layers.remove(opened.spots)
    else:
        viewer.add_layer(Points([[1.0, 2.0]], name="new"))
    assert heard == [True, False]
    assert not viewer.canvas.grid.enabled
    names = {
        "section": ["compared hires"],
        "other layer": ["compared hires", "compared spots", "new"],
    }.get(reason, ["compared hires", "compared spots"])
    assert [layer.name for layer in viewer.layers] == names
    assert all(layer.visible for layer in viewer.layers)


def test_the_selection_is_highlighted_in_every_panel():
    workspace = workspace_of(make_section())
    opened = workspace.active
    side_by_side = SideBySide(workspace.viewer)
    opened.select(rows(60, 4))
    show(side_by_side, opened, CD19)
    opened.select(rows(60, 5, 6))
    side_by_side.show_selection()
    assert [selected_rings(panel.highlight.layer) for panel in side_by_side.panels] == [[5, 6]] * 2


def test_a_panel_has_a_title_and_a_colour_bar():
    workspace = workspace_of(make_section())
    side_by_side = SideBySide(workspace.viewer)
    show(side_by_side, workspace.active, CD19)
    for panel in side_by_side.panels:
        assert panel.spots.name_overlay.visible
        assert panel.spots.face_colorbar.visible
    assert not workspace.viewer.canvas.overlays.text.visible
