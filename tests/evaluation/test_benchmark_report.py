"""A benchmark on paper: CSV, Markdown, plot."""

import numpy as np
import pandas as pd
import pytest

from evaluation.made_up import read_png
from sclinguist_core.evaluation.benchmark_report import (
    benchmark_figure,
    loss_table,
    markdown_report,
    number,
    write_benchmark,
)
from sclinguist_core.evaluation.results import Benchmark

R = {"model": 0.6, "ridge": 0.5, "total count": np.nan}


def made_up(parts=("",), inputs=("full", "25% depth")) -> Benchmark:
    rows, proteins = [], []
    for part in parts:
        for kind in inputs:
            loss = 0.0 if kind == "full" else 0.1
            for method, r in R.items():
                where = {"dataset": "blood", "part": part, "input": kind, "seed": 0}
                rows.append(
                    {
                        **where,
                        "method": method,
                        "n_proteins": 2,
                        "pearson_clr": r - loss,
                        "pearson_clr_low": r - loss - 0.02,
                        "pearson_clr_high": r - loss + 0.02,
                        "lead": 0.6 - r,
                        "lead_low": 0.55 - r,
                        "lead_high": 0.65 - r,
                        "n_lead": 1.0,
                        "pearson_log1p": r,
                        "spearman": r,
                    }
                )
                for protein in ("CD3", "CD4"):
                    proteins.append(
                        {
                            **where,
                            "method": method,
                            "antibody": protein,
                            "protein": protein,
                            "pearson_clr": r - loss,
                            "pearson_log1p": r,
                        }
                    )
    return Benchmark(
        summary=pd.DataFrame(rows), per_protein=pd.DataFrame(proteins), warnings=("Mind this.",)
    )


def test_all_files_are_written(tmp_path):
    written = write_benchmark(made_up(), tmp_path / "b.csv")
    assert [path.name for path in written] == [
        "b.csv", "b_per_protein.csv", "b_losses.csv", "b.md", "b.png", "b.svg",
    ]  # fmt: skip
    assert len(pd.read_csv(tmp_path / "b.csv")) == 6
    assert read_png(tmp_path / "b.png").std() > 5
    assert "model" in (tmp_path / "b.svg").read_text() or (tmp_path / "b.svg").stat().st_size > 3000


def test_markdown_holds_figures_intervals_losses_proteins_and_notes():
    text = markdown_report(made_up())
    assert "| model | 0.600 (0.58 to 0.62) | 0.600 |" in text
    assert "| total count | – | – |" in text
    assert (
        "- blood: model 0.600, best baseline (ridge) 0.500, difference +0.100 (+0.050 to +0.150)"
        in text
    )
    assert "| ridge | 0.100 | 0.400 |" in text
    assert "- blood (2): CD3, CD4" in text
    assert "- Mind this." in text


def test_losses_are_sorted_and_absent_without_poorer_inputs():
    assert list(loss_table(made_up().losses()).columns) == ["loss, 25% depth", "r, 25% depth"]
    assert loss_table(made_up(inputs=("full",)).losses()).empty


def test_few_shot_results_become_a_curve():
    figure = benchmark_figure(made_up(parts=("20 cells", "100 cells"), inputs=("full",)))
    ax = figure.axes[0]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["model", "ridge"]
    assert ax.get_xscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["20", "100"]


def test_numbers():
    assert number(0.12345) == "0.123"
    assert number(-0.0001) == "0.000"
    assert number(float("nan")) == "–"
    assert number(-0.5, 1) == "-0.5"
    assert made_up().table().loc["ridge", "blood"] == pytest.approx(0.5)
