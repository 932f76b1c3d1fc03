"""A view as a value, and the picture that it gives."""

import json

import numpy as np
import pandas as pd
import pytest

from napari_sclinguist.control.catalogue import Catalogue
from napari_sclinguist.control.view import View, limits_of, picture
from sclinguist_core.evaluation.colouring import lookup_table


@pytest.fixture
def catalogue(predicted_section):
    table = predicted_section.table
    table.obsm["protein_predicted_std"] = pd.DataFrame(
        {name: [1.0, 1.0, 1.0, 9.0] for name in ("CD3", "CD19", "CD20")}, index=table.obs_names
    )
    table.obs["sclinguist_ood"] = np.array([0.1, 0.2, 1.0, 0.3], np.float32)
    return Catalogue(predicted_section)


def test_a_single_feature_takes_the_colours_of_its_map(catalogue):
    shown = picture(
        catalogue, View(keys=("predicted:CD19",)).with_limits("predicted:CD19", (-2, 2))
    )
    table = lookup_table("viridis")
    np.testing.assert_array_equal(shown.colours[[0, 1, 3]], table[[0, 128, 255]])
    assert shown.scalar
    assert shown.title == "CD19 (predicted)\nsd of the training reference"


def test_two_features_add_up_and_are_not_scalar(catalogue):
    shown = picture(catalogue, View(keys=("predicted:CD19", "predicted:CD3")))
    assert not shown.scalar
    assert shown.colormap is None
    assert shown.title == "CD19 (predicted) + CD3 (predicted)"


def test_a_threshold_clears_what_is_below(catalogue):
    view = View(keys=("predicted:CD19",)).with_threshold("predicted:CD19", 0.5)
    shown = picture(catalogue, view)
    assert shown.colours[:, 3].tolist() == [0, 0, 255, 255]
    assert not shown.scalar
    assert picture(catalogue, view.with_threshold("predicted:CD19", None)).scalar


def test_rows_that_the_model_does_not_know_fade_where_predicted(catalogue):
    shown = picture(catalogue, View(keys=("predicted:CD19",), fade=True))
    assert shown.colours[:2, 3].tolist() == [255, 255]
    assert shown.colours[2, 3] == 0  # strange to the model
    assert shown.colours[3, 3] == pytest.approx(85, abs=1)  # a third: its error is large
    measured = picture(catalogue, View(keys=("mRNA:CD19",), fade=True))
    assert measured.colours[2, 3] == 255


def test_limits_are_robust_unless_chosen(catalogue):
    view = View(keys=("predicted:CD19",))
    low, high = limits_of(catalogue, view, "predicted:CD19")
    assert -2 <= low < high <= 2
    chosen = view.with_limits("predicted:CD19", (0.0, 1.0))
    assert limits_of(catalogue, chosen, "predicted:CD19") == (0.0, 1.0)
    assert chosen.with_limits("predicted:CD19", None) == view


def test_changes_have_a_diverging_map_around_zero(catalogue):
    changes = pd.DataFrame({"CD19": [-3.0, 0.0, 1.0, 0.0]})
    catalogue.set_changes(changes)
    view = View(keys=("change:CD19",))
    low, high = limits_of(catalogue, view, "change:CD19")
    assert low == -high
    assert picture(catalogue, view).colormap == "RdBu_r"


def test_at_most_three_features():
    with pytest.raises(ValueError, match="found 4, expected at most 3"):
        View(keys=tuple("abcd"))


def test_an_empty_or_unknown_view_is_refused(catalogue):
    with pytest.raises(ValueError, match="shows no feature"):
        picture(catalogue, View())
    with pytest.raises(KeyError):
        picture(catalogue, View(keys=("predicted:CD999",)))


def test_a_view_survives_a_file():
    view = View(
        keys=("predicted:CD19", "mRNA:CD3E"),
        limits={"predicted:CD19": (-1.0, 2.0)},
        thresholds={"mRNA:CD3E": 0.5},
        colormap="cividis",
        opacity=0.4,
        size=1.5,
        tissue=0.3,
        fade=True,
    )
    assert View.from_dict(json.loads(json.dumps(view.to_dict()))) == view


@pytest.mark.parametrize(
    "saved",
    [{}, {"limits": 5}, {"opacity": "much"}, {"limits": {"a": [1]}}, {"keys": 3}],
)
def test_a_damaged_view_is_the_default_one(saved):
    assert View.from_dict(saved) == View()


def test_unknown_colour_maps_and_wild_numbers_are_tamed():
    view = View.from_dict({"colormap": "no_such", "opacity": 7, "size": -1, "tissue": 2})
    assert (view.colormap, view.opacity, view.size, view.tissue) == ("viridis", 1.0, 0.1, 1.0)
