"""The page: complete, self-contained, safe, and no larger than mail allows."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from evaluation.made_up import add_positions, add_prediction, make_cells
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.evaluate import evaluate
from sclinguist_core.evaluation.report import choose_proteins, render, write_report


class Page(HTMLParser):
    """Counts tags and collects addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in {"src", "href"}]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def result(predicted_section):
    return evaluate(predicted_section)


def test_files_are_written_and_tables_are_those_of_the_evaluation(result, tmp_path):
    files = write_report(result, tmp_path / "out", title="Tonsil A")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "per_cell.csv",
        "per_protein.csv",
        "report.html",
        "summary.csv",
    ]
    pd.testing.assert_frame_equal(
        pd.read_csv(files.per_protein, keep_default_na=False, na_values={"r_clr_cognate_mrna": ""}),
        result.per_protein,
        check_dtype=False,
    )
    summary = pd.read_csv(files.summary, index_col="method")
    assert summary.loc["model", "pearson_clr"] == pytest.approx(
        result.summary.loc["model", "pearson_clr"]
    )
    assert len(pd.read_csv(files.per_cell)) == 300
    page = files.html.read_text("utf-8")
    assert "Tonsil A" in page
    assert result.headline in page
    assert len(page) < 8e6


def test_the_page_needs_nothing_from_outside(result):
    page = render(result)
    parsed = Page(page)
    assert parsed.addresses
    assert {address[:22] for address in parsed.addresses} == {"data:image/png;base64,"}
    assert not re.search(r"https?://|url\(|@import", page)
    assert "default-src 'none'" in page
    # One row a protein and one a predictor, under two headings.
    assert parsed.tags.count("tr") == 1 + 4 + 1 + 7
    assert parsed.tags.count("section") == page.count("</section>") == 9


def test_overlays_are_drawn_where_there_is_tissue_and_said_to_lack_elsewhere(result):
    assert "mRNA on the tissue" in render(result)
    cells = render(evaluate(add_prediction(make_cells())))
    assert "These cells have no positions" in cells
    assert "mRNA on the tissue" not in cells
    assert "mRNA on the tissue" not in render(result, overlays=False)


def test_hostile_names_are_escaped():
    table = add_positions(add_prediction(make_cells()))
    bad = "<script>alert(1)"
    protein = table.obsm["protein"]
    protein[bad] = protein["CD3"]
    table.obsm["protein_predicted"][bad] = table.obsm["protein_predicted"]["CD3"]
    table.uns["sclinguist"]["model"] = "<img src=x onerror=alert(2)>"
    table.uns["sclinguist"]["trust"] = {"CD3": "\"><b onclick='x'>"}
    result = evaluate(table)
    assert any("alert(1)" in name for name in result.per_protein["antibody"])
    page = render(result, title="</title><script>alert(3)</script>")
    parsed = Page(page)
    assert parsed.tags.count("script") == 1
    assert not any("alert" in address for address in parsed.addresses)
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;img src=x" in page


def test_simulated_data_carry_a_banner(predicted_section):
    assert "Simulated data." not in render(evaluate(predicted_section), overlays=False)
    predicted_section.uns["simulated"] = True
    assert "Simulated data." in render(evaluate(predicted_section), overlays=False)


def test_selection_is_best_median_worst_then_the_well_known():
    table = pd.DataFrame(
        {
            "antibody": ["CD5", "CD3", "CD7", "CD19", "CD8a", "CD9"],
            "canonical": ["CD5", "CD3", "CD7", "CD19", "CD8", "CD9"],
            "r_clr": [0.9, 0.8, 0.5, 0.4, 0.1, np.nan],
        }
    )
    assert choose_proteins(table) == [
        ("CD5", "best predicted"),
        ("CD7", "in the middle"),
        ("CD8a", "worst predicted"),
        ("CD3", "well known"),
        ("CD19", "well known"),
    ]
    one = table.tail(1)
    assert choose_proteins(one) == []


def test_undefined_figures_are_dashes(predicted):
    predicted.obsm["protein"]["CD14"] = 0.0
    predicted.obsm["protein_predicted"]["CD19"] = 1.0
    page = render(evaluate(predicted))
    assert ">nan<" not in page
    assert "–" in page


def test_an_unwritable_place_is_said_and_nothing_is_left(result, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(InputError, match=r"file: cannot write the report there .* -o FOLDER"):
        write_report(result, blocked)
    assert blocked.read_text() == "x"
    assert list(tmp_path.iterdir()) == [blocked]
