"""Several perturbations beside each other, their pairs, and the notebook's function."""

import numpy as np
import pandas as pd
import pytest

import sclinguist_core as scl
from inference.untrained import EMPTY, untrained_cells, untrained_checkpoint
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.inference.knockout import knockouts_iter
from sclinguist_core.inference.progress import finish


@pytest.fixture(scope="module")
def cells():
    return untrained_cells()


@pytest.fixture(scope="module")
def checkpoint(cells):
    return untrained_checkpoint(cells)


def run(cells, sets, **options):
    return finish(knockouts_iter(as_section(cells), sets, device="cpu", **options))


def test_each_set_is_ranked_by_itself(cells, checkpoint):
    found = run(cells, [["CD19"], ["cd14", "CD4"]], model=checkpoint, background=3)
    assert list(found.perturbations) == ["CD19", "CD14+CD4"]
    for name, one in found.perturbations.items():
        alone = scl.knockout(cells, name.split("+"), model=checkpoint, background=3, device="cpu")
        np.testing.assert_array_equal(one.change, alone.change)
        np.testing.assert_allclose(one.background, alone.background, atol=1e-7)
    table = found.table()
    assert table["perturbation"].tolist() == ["CD19"] * 5 + ["CD14+CD4"] * 5
    coded = table[table["coded"]]
    assert set(zip(coded["perturbation"], coded["protein"], strict=True)) == {
        ("CD19", "CD19"),
        ("CD14+CD4", "CD14"),
        ("CD14+CD4", "CD4"),
    }
    ranked = found.perturbations["CD19"].ranked()
    np.testing.assert_array_equal(table["mean_change"][:5], ranked["mean_change"])
    assert table["protein"][:5].tolist() == ranked.index.tolist()
    assert "interaction" not in table


def test_groups_stand_below_all(cells, checkpoint):
    found = run(cells, [["CD19"]], model=checkpoint, background=0)
    groups = pd.Series(np.where(np.arange(70) < 30, "a", "b"))
    table = found.table(groups)
    assert table["group"].tolist() == ["all"] * 5 + ["a"] * 5 + ["b"] * 5
    one = found.perturbations["CD19"]
    rows = one.affected & (groups == "a").to_numpy()
    row = table[(table["group"] == "a") & (table["protein"] == "CD4")].iloc[0]
    place = one.names.index("CD4")
    np.testing.assert_allclose(row["mean_change"], one.change[rows, place].mean(), rtol=1e-5)
    assert row["n_rows"] == rows.sum()


def test_the_interaction_is_what_a_pair_does_beyond_its_parts(cells, checkpoint):
    sets = [["CD19"], ["CD14"], ["CD4"]]
    found = run(cells, sets, model=checkpoint, pairs=True, background=0)
    assert found.pairs == {
        "CD19+CD14": ("CD19", "CD14"),
        "CD19+CD4": ("CD19", "CD4"),
        "CD14+CD4": ("CD14", "CD4"),
    }
    single = {name: found.perturbations[name] for name in ("CD19", "CD14")}
    pair = found.perturbations["CD19+CD14"]
    both = single["CD19"].affected & single["CD14"].affected
    assert both.any()
    beyond = found.interaction("CD19+CD14")
    expected = pair.change - single["CD19"].change - single["CD14"].change
    np.testing.assert_allclose(beyond[both], expected[both], atol=1e-7)
    with_reads = np.arange(70) != EMPTY
    assert (beyond[~both & with_reads] == 0).all()
    assert np.isnan(beyond[EMPTY]).all()
    assert np.abs(beyond[both]).max() > 1e-4
    table = found.table().set_index(["perturbation", "protein"])
    row = table.loc[("CD19+CD14", "CD4")]
    place = pair.names.index("CD4")
    np.testing.assert_allclose(
        row["interaction"], beyond[pair.affected, place].mean(), rtol=1e-3, atol=1e-8
    )
    np.testing.assert_allclose(row["sum_of_singles"] + row["interaction"], row["mean_change"])
    assert row["n_both"] == both.sum()
    assert table.loc["CD19", ["interaction", "n_both"]].isna().all(axis=None)
    groups = pd.Series(np.where(np.arange(70) < 30, "a", "b"))
    grouped = found.table(groups).set_index(["perturbation", "group", "protein"])
    inside = (np.arange(70) < 30) & both
    assert grouped.loc[("CD19+CD14", "a", "CD4"), "n_both"] == inside.sum()
    # A group may be called as the rows of all cells are.
    renamed = pd.Series(groups).replace("a", "all")
    again = found.table(renamed)
    again = again[again["perturbation"] == "CD19+CD14"]
    n_proteins = len(again) // 3
    assert again["n_both"].iloc[:n_proteins].eq(both.sum()).all()
    assert again["n_both"].iloc[n_proteins : 2 * n_proteins].eq(inside.sum()).all()


def test_progress_has_one_end_and_closing_cancels(cells, checkpoint):
    steps = knockouts_iter(
        as_section(cells), [["CD19"], ["CD14"]], model=checkpoint, device="cpu", background=2,
        batch_size=16,
    )  # fmt: skip
    progress = list(steps)
    assert progress[0].phase == "loading model"
    (total,) = {p.total for p in progress[1:]}
    done = [p.done for p in progress]
    assert done == sorted(done)
    assert done[-1] == total


@pytest.mark.parametrize(
    ("sets", "options", "message"),
    [
        ([], {}, "found an empty list"),
        ([["CD19"], []], {}, "found an empty list"),
        ([["CD19"]], {"pairs": True}, "pairs: found a single set"),
        ([["CD19"], ["CD99999"]], {}, "not a known gene"),
        ([["CD19"]], {"scale": float("inf")}, "scale inf"),
    ],
)
def test_questions_that_make_no_sense(cells, checkpoint, sets, options, message):
    with pytest.raises(InputError, match=message):
        run(cells, sets, model=checkpoint, **options)


def test_the_notebook_says_what_to_beware_of(cells, checkpoint, caplog):
    adata = cells.copy()
    counts = adata.X.toarray()
    counts[:, adata.var_names.get_loc("CD14")] = 0
    adata.X = type(adata.X)(counts)
    before = adata.X.copy()
    found = scl.knockout(adata, ["CD14"], model=checkpoint, device="cpu")
    assert not found.affected.any()
    assert "No row expresses CD14: nothing changes." in caplog.text
    assert (before != adata.X).nnz == 0
