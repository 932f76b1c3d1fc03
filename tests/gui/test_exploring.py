"""The state of the Explore tab: list, figures, favourites and legend; no window is needed."""

import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from scipy import sparse

from napari_sclinguist.control.distribution import (
    count_positive,
    decimals,
    describe_positive,
    distribution,
    suggest_threshold,
)
from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.exploring import Exploring
from napari_sclinguist.control.favourites import Favourites
from napari_sclinguist.control.legend import Legend, ramp_to
from napari_sclinguist.control.listing import Order, Query, also_called, list_features
from napari_sclinguist.control.statistics import Measure, work_out
from napari_sclinguist.control.workspace import Workspace
from napari_sclinguist.layers import section_layers
from sclinguist_core.data.section import Section
from sclinguist_core.evaluation.colouring import CHANNEL_COLOURS, colour_limits
from sclinguist_core.evaluation.spatial import morans_i, neighbour_graph

N_ROWS, N_COLUMNS = 8, 8
N = N_ROWS * N_COLUMNS


class Threads:
    """Jobs that wait until the test lets them run."""

    def __init__(self):
        self.waiting = []

    def __call__(self, steps, listener):
        self.waiting.append((steps, listener))
        return lambda: None

    def run(self):
        """Run all, and what follows from them."""
        while self.waiting:
            steps, listener = self.waiting.pop(0)
            generator = steps()
            try:
                while True:
                    listener.progressed(next(generator))
            except StopIteration as end:
                listener.returned(end.value)
            except Exception as error:
                listener.raised(error)
            listener.ended()


@pytest.fixture
def tissue():
    """A lattice of 64 spots: CD19 is high on the left, CD3 alternates, CD20 is in between."""
    rng = np.random.default_rng(0)
    rows, columns = np.divmod(np.arange(N), N_COLUMNS)
    counts = rng.poisson(1.0, (N, 4)).astype(np.float32)
    counts[0] = 0  # an empty spot
    names = [f"spot{i}" for i in range(N)]
    table = ad.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame({"array_row": rows, "array_col": 2 * columns + rows % 2}, index=names),
        var=pd.DataFrame(
            {"feature_types": "Gene Expression"}, index=["CD19", "MS4A1", "CD3E", "PDCD1"]
        ),
    )
    left = (columns < 4) * 2.0 - 1.0
    predicted = pd.DataFrame(
        {
            "CD3": np.tile([-1.0, 1.0], N // 2),
            "CD19": left + 0.01 * columns,
            "CD20": left + rng.normal(0, 1.5, N),
            "CD279": np.full(N, 0.25),
        },
        index=names,
    )
    table.obsm["protein_predicted"] = predicted
    table.obsm["protein_predicted_std"] = predicted * 0 + [0.5, 0.25, 1.0, 0.5]
    table.obsm["protein"] = pd.DataFrame(
        {"CD19.1": rng.poisson(20, N), "PD-1.1": rng.poisson(3, N)}, index=names
    )
    table.uns["protein_panel"] = pd.DataFrame(
        {"canonical": ["CD19", "CD279"], "isotype": False}, index=["CD19.1", "PD-1.1"]
    )
    table.uns["sclinguist"] = {
        "unit": "sd of the reference",
        "trust": {"CD3": "poorly", "CD19": "well", "CD20": "well", "CD279": "untested"},
        "expected_r": {"CD3": 0.2, "CD19": 0.7, "CD20": 0.8},
    }
    table.obsm["spatial"] = np.column_stack([100.0 * columns + 50.0 * (rows % 2), 86.6 * rows])
    return Section(
        name="tissue",
        table=table,
        images={},
        spot_diameter=55.0,
        microns_per_pixel=1.0,
        assay="visium",
    )


@pytest.fixture
def threads():
    return Threads()


@pytest.fixture
def workspace(threads):
    return Workspace(ViewerModel(), threads)


@pytest.fixture
def said(workspace):
    heard = []
    workspace.message.connect(lambda message: heard.append(message.text))
    return heard


@pytest.fixture
def favourites(tmp_path):
    return Favourites(tmp_path / "favourites.json")


@pytest.fixture
def exploring(workspace, threads, tissue, favourites):
    for data in section_layers(tissue):
        workspace.viewer.add_layer(Layer.create(*data))
    threads.run()
    return Exploring(workspace, favourites)


def listed(exploring):
    return [entry.key for entry in exploring.listing.entries]


def ask(exploring, **changes):
    exploring.ask(replace(exploring.query, **changes))


# --- the list -----------------------------------------------------------------------------------


def test_everything_is_listed_with_counts_by_kind(exploring):
    assert len(listed(exploring)) == 4 + 2 + 4 + 4 + 3
    assert exploring.listing.counts == {
        Kind.PREDICTED: 4,
        Kind.MEASURED: 2,
        Kind.GENE: 4,
        Kind.UNCERTAINTY: 4,
        Kind.COLUMN: 3,
    }


def test_typing_narrows_the_list_and_kinds_narrow_it_further(exploring):
    ask(exploring, text="PD-1")
    assert listed(exploring) == [
        "predicted:CD279",
        "measured:PD-1.1",
        "mRNA:PDCD1",
        "uncertainty:CD279",
    ]
    exploring.toggle_kind(Kind.GENE)
    assert listed(exploring) == ["mRNA:PDCD1"]
    exploring.toggle_kind(Kind.MEASURED)
    assert listed(exploring) == ["measured:PD-1.1", "mRNA:PDCD1"]
    assert exploring.listing.counts[Kind.PREDICTED] == 1  # what there would be to see
    exploring.toggle_kind(Kind.GENE)
    exploring.toggle_kind(Kind.MEASURED)
    assert len(listed(exploring)) == 4


def test_a_pasted_list_shows_its_entries_in_its_order_and_names_the_unknown(exploring):
    ask(exploring, text="MS4A1, nonsense\tPD-1\n\nCD19;CD20, gibberish")
    assert listed(exploring) == ["predicted:CD20", "predicted:CD279", "predicted:CD19"]
    assert exploring.listing.missing == ("nonsense", "gibberish")
    exploring.toggle_kind(Kind.GENE)
    assert listed(exploring) == ["mRNA:MS4A1", "mRNA:PDCD1", "mRNA:CD19"]
    assert exploring.listing.missing == ("nonsense", "gibberish")
    exploring.step(1)
    exploring.step(1)
    assert exploring.shown == ("mRNA:PDCD1",)


def test_a_name_with_a_comma_is_not_a_list(exploring, tissue):
    tissue.table.obs["x, y"] = 1.0
    catalogue = exploring.opened.catalogue
    catalogue.refresh()
    found = list_features(catalogue, Query(text="x, y"))
    assert [entry.key for entry in found.entries] == ["column:x, y"]
    assert found.missing == ()


def test_trust_sorts_by_label_then_by_expected_correlation(exploring):
    ask(exploring, order=Order.TRUST, kinds=frozenset({Kind.PREDICTED}))
    assert listed(exploring) == [f"predicted:{name}" for name in ("CD20", "CD19", "CD3", "CD279")]


def test_the_name_that_was_typed_is_read_beside_the_entrys_own(exploring):
    catalogue = exploring.opened.catalogue
    pd1 = catalogue.entry("predicted:CD279")
    assert also_called(catalogue, pd1, "") == "PDCD1"
    assert also_called(catalogue, pd1, "pd-1") == "PD-1"
    assert also_called(catalogue, pd1, "CD27") == "PDCD1"
    assert also_called(catalogue, catalogue.entry("mRNA:MS4A1"), "") == "CD20"
    assert also_called(catalogue, catalogue.entry("predicted:CD19"), "") == ""
    assert also_called(catalogue, catalogue.entry("column:array_row"), "") == ""


def test_what_is_not_found_is_answered_with_the_nearest_names(exploring, threads):
    answers = []
    exploring.found_nearest.connect(answers.append)
    ask(exploring, text="CD199")
    assert listed(exploring) == []
    exploring.look_for_nearest()
    assert answers == []
    threads.run()
    assert len(answers) == 1
    assert answers[0][0] == "CD19"
    exploring.look_for_nearest()
    ask(exploring, text="something else")  # typed on before the answer
    threads.run()
    assert len(answers) == 1


def test_without_a_section_the_list_is_empty_and_nothing_happens(workspace, favourites):
    exploring = Exploring(workspace, favourites)
    exploring.ask(Query(text="CD19"))
    exploring.step(1)
    exploring.show()
    exploring.add()
    exploring.toggle_star()
    exploring.look_for_nearest()
    assert (exploring.listing.entries, exploring.shown, exploring.row) == ((), (), None)
    legend = Legend(exploring)
    legend.restyle(opacity=0.1)
    legend.set_limits("predicted:CD19", (0, 1))
    legend.set_threshold("predicted:CD19", 0.0)
    assert (legend.items(), legend.view, legend.can_fade, legend.has_tissue) == (
        (),
        None,
        False,
        False,
    )


def test_the_list_follows_the_sections(exploring, workspace, section):
    ask(exploring, text="MS4A1")
    assert len(listed(exploring)) == 3
    for data in section_layers(section):
        workspace.viewer.add_layer(Layer.create(*data))
    assert exploring.opened.name == "small"
    assert listed(exploring) == ["mRNA:MS4A1"]
    workspace.activate(workspace.sections[0])
    assert len(listed(exploring)) == 3
    workspace.viewer.layers.clear()
    assert listed(exploring) == []


def test_a_closed_list_no_longer_follows(exploring, workspace):
    before = exploring.listing
    exploring.close()
    workspace.viewer.layers.clear()
    assert exploring.listing is before


# --- stepping and showing -----------------------------------------------------------------------


def test_stepping_colours_at_once_and_stops_at_the_ends(exploring):
    ask(exploring, text="CD", kinds=frozenset({Kind.PREDICTED}))
    assert exploring.row is None or listed(exploring)[exploring.row] == exploring.shown[0]
    order = listed(exploring)
    exploring.show(0)
    seen = []
    for _ in range(5):
        seen.append(exploring.shown[0])
        exploring.step(1)
    assert seen == [*order, order[-1]]
    exploring.step(-99)
    assert (exploring.shown, exploring.row) == ((order[0],), 0)


def test_after_a_search_stepping_begins_at_the_best_match(exploring):
    exploring.show_keys("mRNA:PDCD1")
    assert exploring.row == exploring.listing.row_of("mRNA:PDCD1")
    ask(exploring, text="PD-1")
    assert exploring.row is None
    exploring.step(1)
    assert exploring.shown == ("predicted:CD279",)
    ask(exploring, text="CD279")
    assert exploring.row == 0
    ask(exploring, text="CD19")
    exploring.show()
    assert exploring.shown == ("predicted:CD19",)
    ask(exploring, text="CD3")
    exploring.step(-1)
    assert exploring.row == len(listed(exploring)) - 1


def test_up_to_three_features_are_added_removed_and_swapped(exploring, said):
    ask(exploring, text="CD19")
    exploring.show()
    exploring.add(1)
    exploring.add(1)
    exploring.add(2)
    assert exploring.shown == ("predicted:CD19", "measured:CD19.1", "mRNA:CD19")
    exploring.add(3)
    assert len(exploring.shown) == 3
    assert "3 features are shown already" in said[-1]
    exploring.remove("measured:CD19.1")
    assert exploring.shown == ("predicted:CD19", "mRNA:CD19")
    exploring.swap("mRNA:CD19", "predicted:CD3")
    assert exploring.shown == ("predicted:CD19", "predicted:CD3")
    exploring.swap("predicted:CD3", "predicted:CD19")
    assert exploring.shown == ("predicted:CD19",)
    exploring.remove("predicted:CD19")
    assert exploring.shown == ("predicted:CD19",)


def test_what_is_shown_from_elsewhere_is_found_in_the_list(exploring):
    exploring.opened.show("mRNA:CD3E")
    assert listed(exploring)[exploring.row] == "mRNA:CD3E"


def test_a_damaged_column_becomes_a_message(exploring, said, tissue):
    del tissue.table.obs["array_row"]
    before = exploring.shown
    exploring.show_keys("column:array_row")
    assert exploring.shown == before
    assert "Colouring the section failed" in said[-1]


# --- figures ------------------------------------------------------------------------------------


def test_sorting_by_a_figure_waits_for_it_beside_the_window(exploring, threads):
    by_name = listed(exploring)
    exploring.show_keys("mRNA:CD3E")
    ask(exploring, order=Order.VARIANCE, kinds=frozenset({Kind.PREDICTED}))
    assert exploring.listing.working
    assert listed(exploring) == [key for key in by_name if key.startswith("predicted")]
    threads.run()
    assert not exploring.listing.working
    assert listed(exploring)[0] == "predicted:CD20"
    assert exploring.listing.figures["predicted:CD3"] == pytest.approx(1.0)
    exploring.step(1)
    assert exploring.shown == ("predicted:CD20",)
    ask(exploring, order=Order.MEAN)  # came with the variance
    assert not exploring.listing.working
    assert listed(exploring)[0] == "predicted:CD279"


def test_spatial_pattern_puts_the_most_structured_proteins_first(exploring, threads, tissue):
    ask(exploring, order=Order.PATTERN, kinds=frozenset({Kind.PREDICTED}))
    threads.run()
    assert listed(exploring) == [f"predicted:{name}" for name in ("CD19", "CD20", "CD3", "CD279")]
    predicted = tissue.table.obsm["protein_predicted"][["CD19", "CD20", "CD3"]]
    expected = morans_i(tissue.positions, predicted, lattice=True)
    figures = exploring.listing.figures
    found = [figures[f"predicted:{name}"] for name in predicted]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0] > 0.6 > 0.0 > found[2]
    assert np.isnan(figures["predicted:CD279"])  # it does not vary


def test_new_predictions_are_worked_out_anew_and_late_figures_dropped(exploring, threads, tissue):
    ask(exploring, order=Order.VARIANCE, kinds=frozenset({Kind.PREDICTED, Kind.GENE}))
    table = tissue.table.obsm["protein_predicted"]
    tissue.table.obsm["protein_predicted"] = table.assign(CD3=table["CD3"] * 100)
    exploring.opened.catalogue.refresh()
    exploring.opened.contents_changed.emit()
    assert exploring.listing.working
    threads.run()
    assert exploring.listing.figures["predicted:CD3"] == pytest.approx(1e4)
    assert listed(exploring)[0] == "predicted:CD3"
    tissue.table.obsm["protein_predicted"] = table
    exploring.opened.catalogue.refresh()
    exploring.opened.contents_changed.emit()
    assert exploring.listing.working
    assert not [one for one in threads.waiting if one is None]
    threads.run()
    assert exploring.listing.figures["predicted:CD3"] == pytest.approx(1.0)


def test_figures_that_fail_are_reported_and_the_list_stays(exploring, threads, said, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError("too large")

    monkeypatch.setattr("sclinguist_core.evaluation.spatial.morans_i_over", fail)
    ask(exploring, order=Order.PATTERN, kinds=frozenset({Kind.MEASURED}))
    threads.run()
    assert not exploring.listing.working
    assert listed(exploring) == ["measured:CD19.1", "measured:PD-1.1"]
    assert "Sorting by Moran's I failed" in said[-1]


def finish(generator):
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("kind", [*list(Kind)[:4], Kind.COLUMN])
def test_mean_and_variance_are_those_of_the_values(exploring, kind, monkeypatch):
    monkeypatch.setattr("napari_sclinguist.control.statistics._GENES_AT_ONCE", 3)
    catalogue = exploring.opened.catalogue
    found = finish(work_out(catalogue, kind, Measure.MEAN))
    for entry in catalogue.of_kind(kind):
        values = catalogue.values(entry.key).astype(np.float64)
        assert found[Measure.MEAN][entry.key] == pytest.approx(np.nanmean(values), abs=1e-6)
        assert found[Measure.VARIANCE][entry.key] == pytest.approx(np.nanvar(values), abs=1e-5)


def test_of_many_genes_the_most_variable_get_a_pattern(exploring, monkeypatch):
    monkeypatch.setattr("napari_sclinguist.control.statistics.MOST_VARIABLE_GENES", 2)
    catalogue = exploring.opened.catalogue
    found = finish(work_out(catalogue, Kind.GENE, Measure.PATTERN))
    variances = found[Measure.VARIANCE]
    most = sorted(variances, key=variances.get)[-2:]
    assert set(found[Measure.PATTERN]) == set(most)
    values = catalogue.values(most[0])
    known = np.isfinite(values)
    assert known.sum() == N - 1  # the empty spot
    expected = morans_i(
        catalogue.section.positions, values[:, None].astype(np.float64), lattice=True
    )
    assert found[Measure.PATTERN][most[0]] == pytest.approx(expected[0], rel=1e-5)


def test_neighbours_are_found_once_for_all_blocks_of_features(exploring, monkeypatch):
    catalogue = exploring.opened.catalogue
    whole = finish(work_out(catalogue, Kind.PREDICTED, Measure.PATTERN))
    found = []

    def find(positions, *, lattice):
        found.append(lattice)
        return neighbour_graph(positions, lattice=lattice)

    monkeypatch.setattr("sclinguist_core.evaluation.spatial.neighbour_graph", find)
    monkeypatch.setattr("napari_sclinguist.control.statistics._VALUES_AT_ONCE", N)
    blocks = finish(work_out(catalogue, Kind.PREDICTED, Measure.PATTERN))
    assert found == [True]
    assert blocks[Measure.PATTERN] == pytest.approx(whole[Measure.PATTERN], nan_ok=True)


# --- favourites ---------------------------------------------------------------------------------


def test_favourites_are_remembered(exploring, favourites):
    ask(exploring, text="CD19")
    exploring.toggle_star(2)
    assert favourites.keys == {"mRNA:CD19"}
    assert exploring.listing.starred == 1
    ask(exploring, text="", starred=True)
    assert listed(exploring) == ["mRNA:CD19"]
    again = Favourites(favourites.path)
    again.load()
    assert again.keys == {"mRNA:CD19"}
    assert again.toggle("mRNA:CD19") is False
    assert json.loads(favourites.path.read_text())["favourites"] == []
    assert [path.name for path in favourites.path.parent.iterdir()] == ["favourites.json"]


def test_two_windows_keep_each_others_stars(favourites):
    other = Favourites(favourites.path)
    favourites.toggle("a")
    other.toggle("b")
    favourites.toggle("c")
    assert favourites.keys == {"a", "b", "c"}


@pytest.mark.parametrize("content", ["{", "[]", '{"format_version": 2, "favourites": []}', "\xff"])
def test_a_damaged_file_is_ignored_with_a_message(tmp_path, content):
    path = tmp_path / "favourites.json"
    path.write_bytes(content.encode("latin-1"))
    favourites = Favourites(path)
    heard = []
    favourites.message.connect(lambda message: heard.append(message))
    favourites.load()
    assert len(favourites) == 0
    assert [message.level for message in heard] == ["warning"]
    assert str(path) in heard[0].text
    favourites.toggle("a")
    assert len(heard) == 1
    assert json.loads(path.read_text()) == {"format_version": 1, "favourites": ["a"]}


def test_favourites_that_cannot_be_written_hold_for_the_session(tmp_path):
    (tmp_path / "file").write_text("")
    favourites = Favourites(tmp_path / "file" / "favourites.json")
    heard = []
    favourites.message.connect(lambda message: heard.append(message.text))
    assert favourites.toggle("a")
    assert "a" in favourites
    assert "could not be written" in heard[-1]


def test_favourites_lie_in_the_users_configuration_folder():
    path = Favourites().path
    assert path.name == "favourites.json"
    assert path.parent.name == "napari-sclinguist"


# --- values -------------------------------------------------------------------------------------


def test_a_histogram_reaches_over_the_limits_and_cuts_off_far_values():
    values = np.append(np.linspace(0, 10, 101), [1000.0, np.nan]).astype(np.float32)
    shown = distribution(values, (0.0, 10.0))
    assert shown.reach == (0.0, 15.0)
    assert shown.counts.sum() == 102
    assert shown.counts[-1] == 1  # the far one, at the end
    assert distribution(values, (-5.0, 10.0)).reach == (-5.0, 17.5)
    nothing = distribution(np.full(3, np.nan), (0.0, 1.0))
    assert (nothing.reach, nothing.counts.sum(), nothing.heights.max()) == ((0.0, 1.0), 0, 0.0)
    constant = distribution(np.full(3, 2.0), (2.0, 2.0))
    assert constant.reach == (2.0, 3.0)


def test_the_many_zeros_of_a_gene_do_not_flatten_the_rest():
    values = np.append(np.zeros(1000), np.repeat([1.0, 2.0], 20))
    heights = distribution(values, (0.0, 2.0)).heights
    assert heights[0] == 1.0
    assert heights[-1] == pytest.approx(np.sqrt(0.5))


def test_large_sections_are_sampled_for_their_histogram():
    values = np.tile(np.arange(10.0), 50_000)
    counts = distribution(values, (0.0, 9.0)).counts
    assert 100_000 < counts.sum() <= 200_000


def test_positive_rows_are_counted_among_the_known():
    values = np.array([0.0, 1.0, 2.0, 3.0, np.nan])
    assert count_positive(values, 2.0) == (2, 4)
    assert describe_positive(values, 2.0, "spots") == "2 of 4 spots (50 %)"
    many = np.append(np.ones(412), np.zeros(2682))
    assert describe_positive(many, 0.5, "cells") == "412 of 3,094 cells (13 %)"
    assert describe_positive(np.full(2, np.nan), 0.5, "spots") == "0 of 0 spots"


def test_a_threshold_is_proposed_between_two_groups():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 0.3, 700), rng.normal(3, 0.3, 300)])
    threshold = suggest_threshold(values)
    assert 0.9 < threshold < 2.4
    assert suggest_threshold(np.array([0, 0, 0, 0, 0.7, 2.0])) == 0.7
    assert suggest_threshold(np.array([np.nan])) == 0.0
    assert suggest_threshold(np.full(4, 2.0)) == 2.0


@pytest.mark.parametrize(
    ("limits", "expected"), [((0, 1), 2), ((0, 500), 0), ((-3, 3), 2), ((0, 0.02), 4), ((1, 1), 2)]
)
def test_decimals_follow_the_size_of_the_values(limits, expected):
    assert decimals(limits) == expected


# --- the legend ---------------------------------------------------------------------------------


@pytest.fixture
def legend(exploring):
    exploring.show_keys("predicted:CD19")
    return Legend(exploring)


def test_the_legend_tells_colours_limits_trust_and_partners(legend, exploring):
    (item,) = legend.items()
    values = exploring.opened.catalogue.values("predicted:CD19")
    assert item.values is values
    assert item.limits == colour_limits(values)
    assert (item.chosen, item.threshold, item.positive, item.colour) == (False, None, "", "")
    assert item.trust == "well predicted, expected r 0.70"
    assert [entry.key for entry in item.others] == ["measured:CD19.1", "mRNA:CD19"]
    assert item.table.shape == (256, 4)
    exploring.show_keys("mRNA:CD3E")
    (item,) = legend.items()
    assert (item.trust, item.others) == ("", ())


def test_limits_are_chosen_and_given_back(legend, exploring):
    default = legend.items()[0].limits
    legend.set_limits("predicted:CD19", (0.5, -0.5))
    (item,) = legend.items()
    assert (item.limits, item.chosen) == ((-0.5, 0.5), True)
    assert exploring.opened.picture.channels[0].limits == (-0.5, 0.5)
    legend.set_limits("predicted:CD19", None)
    (item,) = legend.items()
    assert (item.limits, item.chosen) == (default, False)


def test_changes_keep_zero_in_the_middle(legend, exploring, tissue):
    changes = tissue.table.obsm["protein_predicted"][["CD19"]]
    exploring.opened.catalogue.set_changes(changes)
    exploring.show_keys("change:CD19")
    legend.set_limits("change:CD19", (-1.0, 0.3))
    assert legend.items()[0].limits == (-0.3, 0.3)
    legend.set_limits("change:CD19", (-0.8, 0.3))
    assert legend.items()[0].limits == (-0.8, 0.8)


def test_a_threshold_counts_positive_rows(legend, exploring):
    legend.propose_threshold("predicted:CD19")
    (item,) = legend.items()
    assert -1.0 < item.threshold < 1.0
    assert item.positive == "32 of 64 spots (50 %)"
    assert (exploring.opened.picture.colours[:, 3] > 0).sum() == 32
    legend.set_threshold("predicted:CD19", None)
    assert legend.items()[0].positive == ""


def test_several_features_have_colours_of_their_own(legend, exploring):
    exploring.show_keys("predicted:CD19", "predicted:CD3")
    items = legend.items()
    assert [item.colour for item in items] == list(CHANNEL_COLOURS[:2])
    np.testing.assert_array_equal(items[0].table[0], [0, 0, 0, 255])
    np.testing.assert_array_equal(items[0].table[-1], ramp_to(CHANNEL_COLOURS[0])[-1])
    assert ramp_to("#00d5ff")[-1].tolist() == [0, 0xD5, 0xFF, 255]


def test_only_predicted_features_can_fade(legend, exploring):
    assert legend.can_fade
    exploring.show_keys("measured:CD19.1")
    assert not legend.can_fade


def test_new_predictions_bring_new_limits(legend, exploring, tissue):
    table = tissue.table.obsm["protein_predicted"]
    before = legend.items()[0].limits
    tissue.table.obsm["protein_predicted"] = table * 10
    exploring.opened.catalogue.refresh()
    np.testing.assert_allclose(legend.items()[0].limits, np.multiply(before, 10), rtol=1e-5)


def test_a_feature_that_is_gone_is_left_out(legend, exploring, tissue):
    del tissue.table.obsm["protein_predicted"]
    exploring.opened.catalogue.refresh()
    assert legend.items() == ()
