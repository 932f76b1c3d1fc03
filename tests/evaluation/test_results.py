"""Tables of a benchmark: means, losses, and the sentence on top."""

import numpy as np
import pandas as pd
import pytest

from sclinguist_core.evaluation.results import Benchmark, best_baseline


def benchmark(rows):
    """Tables of (dataset, part, input, seed, method, r of each antibody)."""
    summary, proteins = [], []
    for dataset, part, kind, seed, method, r in rows:
        where = {"dataset": dataset, "part": part, "input": kind, "seed": seed, "method": method}
        mean = np.nanmean(r) if np.isfinite(r).any() else np.nan
        summary.append(
            {
                **where,
                "n_proteins": np.isfinite(r).sum(),
                "pearson_clr": mean,
                "lead": 0.1,
                "lead_low": 0.05,
                "lead_high": 0.15,
            }
        )
        proteins += [
            {**where, "antibody": f"A{i}", "protein": f"P{i}", "pearson_clr": value}
            for i, value in enumerate(r)
        ]
    return Benchmark(summary=pd.DataFrame(summary), per_protein=pd.DataFrame(proteins))


def test_a_method_without_a_figure_somewhere_has_no_mean():
    result = benchmark(
        [
            ("one", "", "full", 0, "model", [0.6, 0.8]),
            ("one", "", "full", 0, "ridge", [0.5, 0.7]),
            ("two", "", "full", 0, "model", [0.4, 0.4]),
            ("two", "", "full", 0, "ridge", [np.nan, np.nan]),
        ]
    )
    table = result.table()
    assert list(table.index) == ["model", "ridge"]
    assert table.loc["model"].tolist() == pytest.approx([0.7, 0.4, 0.55])
    assert np.isnan(table.loc["ridge", "mean"])
    assert result.datasets == ["one", "two"]
    assert result.proteins("one") == ["P0", "P1"]


def test_donors_are_averaged_and_other_parts_are_columns():
    rows = [("set", f"donor {d}", "full", 0, "ridge", [r]) for d, r in (("a", 0.2), ("b", 0.6))]
    assert benchmark(rows).table().loc["ridge", "set"] == pytest.approx(0.4)
    rows = [("set", f"{n} cells", "full", s, "ridge", [0.1 * s]) for n in (20, 50) for s in (1, 2)]
    table = benchmark(rows).table()
    assert list(table.columns) == ["set, 20 cells", "set, 50 cells", "mean"]
    assert table.loc["ridge", "set, 20 cells"] == pytest.approx(0.15)


def test_losses_leave_a_protein_out_on_both_sides():
    result = benchmark(
        [
            ("set", "", "full", 0, "mRNA", [0.6, 0.9]),
            ("set", "", "9 genes", 0, "mRNA", [0.4, np.nan]),
            ("set", "", "9 genes", 1, "mRNA", [0.5, np.nan]),
        ]
    )
    (row,) = result.losses().to_dict("records")
    assert row["n_proteins"] == 1
    assert row["full"] == pytest.approx(0.6)
    assert row["poorer"] == pytest.approx(0.45)
    assert row["loss"] == pytest.approx(0.15)
    assert row["sd"] == pytest.approx(np.std([0.2, 0.1], ddof=1))


def test_the_headline_names_the_best_baseline_on_the_same_proteins():
    result = benchmark(
        [
            ("set", "", "full", 0, "model", [0.5, 0.5]),
            ("set", "", "full", 0, "ridge", [0.3, 0.5]),
            ("set", "", "full", 0, "kNN", [0.2, 0.2]),
            ("set", "", "full", 0, "cognate mRNA", [0.9, np.nan]),
        ]
    )
    assert result.headline() == [
        "set: model 0.500, best baseline (ridge) 0.400, difference +0.100 (+0.050 to +0.150)"
    ]
    assert best_baseline(result.table()) == "cognate mRNA"
    without_model = benchmark([("set", "", "full", 0, "ridge", [0.3])])
    assert without_model.headline() == []
    nobody_else = benchmark([("set", "", "full", 0, "model", [0.3])])
    assert nobody_else.headline() == []


def test_the_headline_averages_draws_of_few_cells():
    rows = [
        ("set", "20 cells", "full", seed, method, [r + 0.1 * seed])
        for seed in (0, 1)
        for method, r in (("model", 0.5), ("ridge", 0.4))
    ]
    result = benchmark(rows)
    result.summary["lead"] = [0.1, 0.1, 0.3, 0.3]
    assert result.headline() == [
        "set, 20 cells: model 0.550, best baseline (ridge) 0.450, difference +0.200 "
        "(SD over 2 draws 0.141)"
    ]
