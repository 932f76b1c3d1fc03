"""Groups of rows: means, and rank-sum tests against scipy's scalar calls."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, mannwhitneyu

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import groups as module
from sclinguist_core.evaluation.groups import differential, group_means


@pytest.fixture(scope="module")
def groups():
    return pd.Categorical(["a"] * 30 + ["b"] * 40 + ["c"] * 25 + [None] * 5)


@pytest.fixture(scope="module")
def values():
    """Higher in a; ties; no difference; missing in places; constant."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(100, 5)), columns=list("vwxyz"))
    frame.loc[:29, "v"] += 1.5
    frame["w"] = rng.poisson(1.0, 100) + (np.arange(100) < 30)
    frame.loc[20:50, "y"] = np.nan
    frame["z"] = 2.0
    return frame.astype(np.float32)


@pytest.mark.parametrize("reference", [None, "c"])
def test_figures_are_those_of_scipy(values, groups, reference):
    table = differential(values, groups, "a", reference)
    assert table.index.name == "feature"
    assert list(table) == [
        "mean", "mean_reference", "difference", "auc", "p_value", "p_adjusted"
    ]  # fmt: skip
    ours = values[groups == "a"]
    theirs = values[(groups == "b") | (groups == "c") if reference is None else groups == "c"]
    for name in values:
        x, y = ours[name].dropna().to_numpy(float), theirs[name].dropna().to_numpy(float)
        test = mannwhitneyu(x, y, method="asymptotic")
        higher = (x[:, None] > y).mean() + 0.5 * (x[:, None] == y).mean()
        assert table.loc[name, "p_value"] == pytest.approx(test.pvalue)
        assert table.loc[name, "auc"] == pytest.approx(higher)
        assert table.loc[name, "mean"] == pytest.approx(x.mean())
        assert table.loc[name, "mean_reference"] == pytest.approx(y.mean())
        assert table.loc[name, "difference"] == pytest.approx(x.mean() - y.mean())
    np.testing.assert_allclose(table["p_adjusted"], false_discovery_control(table["p_value"]))
    assert table["p_adjusted"].is_monotonic_increasing
    assert table.index[0] == "v"
    assert table.loc["v", "auc"] > 0.75
    assert table.loc["z", ["auc", "p_value"]].tolist() == [0.5, 1.0]


def test_equal_p_values_are_ordered_by_difference(groups):
    base = np.linspace(0, 1, 100)
    frame = pd.DataFrame({"small": base, "large": 10 * base, "negative": -100 * base})
    assert differential(frame, groups, "a").index.tolist() == ["negative", "large", "small"]


def test_missing_features_are_not_tested(values, groups):
    frame = values.copy()
    frame.loc[2:29, "x"] = np.nan  # two rows of a are left
    frame["y"] = np.nan
    table = differential(frame, groups, "a")
    assert table.index[:3].tolist() == ["v", "w", "z"]
    untested = table.loc[["x", "y"], ["auc", "p_value", "p_adjusted"]]
    assert untested.isna().all(axis=None)
    assert table.loc["x", "mean"] == pytest.approx(frame.loc[:1, "x"].mean())
    assert np.isnan(table.loc["y", "mean"])
    tested = table["p_value"].dropna()
    np.testing.assert_allclose(table["p_adjusted"].dropna(), false_discovery_control(tested))
    nothing = pd.DataFrame({"v": frame["v"], "y": frame["y"]}).assign(v=[1.0, *[np.nan] * 99])
    with pytest.raises(InputError, match="group 'a': found 1 rows with values"):
        differential(nothing, groups, "a")


def test_blocks_do_not_change_the_result(values, groups, monkeypatch):
    whole = differential(values, groups, "b")
    monkeypatch.setattr(module, "BLOCK_VALUES", 1)
    pd.testing.assert_frame_equal(differential(values, groups, "b"), whole)


@pytest.mark.parametrize(
    ("group", "reference", "message"),
    [
        ("d", None, "group 'd': there is no such group, expected one of 'a', 'b', 'c'"),
        ("a", "d", "group 'd': there is no such group"),
        ("a", "a", "expected two different groups"),
    ],
)
def test_groups_that_cannot_be_compared(values, groups, group, reference, message):
    with pytest.raises(InputError, match=message):
        differential(values, groups, group, reference)


def test_groups_of_fewer_than_three_rows(values):
    few = pd.Series(["a", "a"] + ["b"] * 98)
    with pytest.raises(
        InputError, match="group 'a': found 2 rows with values, expected at least 3"
    ):
        differential(values, few, "a")
    with pytest.raises(InputError, match="group 'a': found 2 rows"):
        differential(values, few, "b", "a")
    with pytest.raises(InputError, match="all other groups: found 0 rows"):
        differential(values, pd.Series(["a"] * 100), "a")
    with pytest.raises(InputError, match="found 2 labels for 100 rows"):
        differential(values, pd.Series(["a", "b"]), "a")


def test_a_group_called_rest_is_that_group(values, groups):
    renamed = groups.rename_categories({"c": "rest"})
    expected = differential(values, groups, "a", "c")
    pd.testing.assert_frame_equal(differential(values, renamed, "a", "rest"), expected)
    assert not expected.equals(differential(values, renamed, "a"))


def test_means_of_groups(values, groups):
    frame = values.copy()
    frame.loc[3] = np.nan  # a row without reads
    table = group_means(frame, groups.add_categories("unused"))
    assert table.index.tolist() == ["a", "b", "c"]
    assert table.index.name == "group"
    assert list(table) == ["n", *"vwxyz"]
    assert table["n"].tolist() == [29, 40, 25]
    for name in "abc":
        expected = frame[groups == name].mean()
        np.testing.assert_allclose(table.loc[name].drop("n"), expected, rtol=1e-5)
    missing = frame.assign(y=np.nan)
    assert group_means(missing, groups)["y"].isna().all()
    assert group_means(frame, pd.Series([None] * 100)).shape == (0, 6)
    with pytest.raises(InputError, match="found 1 labels for 100 rows"):
        group_means(frame, pd.Categorical(["a"]))
