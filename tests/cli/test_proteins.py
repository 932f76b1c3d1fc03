"""``sclinguist proteins`` and ``sclinguist proteins resolve``."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from typer.testing import CliRunner

from sclinguist_core.cli.proteins import app
from sclinguist_core.vocabulary import list_proteins

RUNNER = CliRunner()


@pytest.mark.parametrize(
    ("name", "canonical"),
    [("PD-1 (CD279)", "CD279"), ("HLA.DR", "HLA-DR"), ("cd8a", "CD8"), ("IgG1", "IgG1")],
)
def test_resolve_prints_the_canonical_name_alone(name: str, canonical: str) -> None:
    result = RUNNER.invoke(app, ["resolve", name])
    assert result.exit_code == 0
    assert result.stdout == f"{canonical}\n"
    assert name in result.stderr


def test_resolve_tells_genes_and_notes_on_the_error_stream() -> None:
    result = RUNNER.invoke(app, ["resolve", "CD3", "CD15"])
    assert result.stdout == "CD3\nCD15\n"
    assert "CD3D, CD3E, CD3G" in result.stderr
    assert "no coding gene" in result.stderr


@pytest.mark.parametrize(
    ("name", "hint"), [("TIGET", "TIGIT"), ("cadherin", "CD324"), ("foobar", "nearest"), ("", "")]
)
def test_refusal_is_one_sentence_and_status_1(name: str, hint: str) -> None:
    result = RUNNER.invoke(app, ["resolve", name])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert hint in result.stderr


def test_one_bad_name_does_not_hide_the_good_ones() -> None:
    result = RUNNER.invoke(app, ["resolve", "CTLA4", "foobar", "tim3"])
    assert result.exit_code == 1
    assert result.stdout == "CD152\nCD366\n"


def test_list_as_table() -> None:
    result = RUNNER.invoke(app, [])
    assert result.exit_code == 0
    assert f"{len(list_proteins())} proteins" in result.stdout
    assert "PDCD1" in result.stdout


def test_list_as_csv_holds_everything() -> None:
    result = RUNNER.invoke(app, ["--csv"])
    assert result.exit_code == 0
    table = pd.read_csv(io.StringIO(result.stdout), index_col=0, keep_default_na=False)
    pd.testing.assert_frame_equal(table, list_proteins())
