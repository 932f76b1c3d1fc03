"""``sclinguist genes resolve``."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from typer.testing import CliRunner

from sclinguist_core.cli import app
from sclinguist_core.errors import InputError

RUNNER = CliRunner()


def table(result) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(result.stdout), sep="\t", keep_default_na=False)


def test_ids_aliases_and_symbols_are_told_apart():
    result = RUNNER.invoke(app, ["genes", "resolve", "ENSG00000010610.9", "PDL1", "CD19", "nogene"])
    assert result.exit_code == 0
    found = table(result)
    assert list(found.columns) == ["name", "symbol", "ensembl_id", "status"]
    assert found["symbol"].tolist() == ["CD4", "CD274", "CD19", ""]
    assert found["status"].tolist() == ["id", "alias", "exact", "missing"]
    assert found["ensembl_id"][0] == "ENSG00000010610"
    assert "3 of 4 genes recognised" in result.stderr


def test_mouse_genes_of_a_file_become_human_ones(tmp_path):
    file = tmp_path / "genes.txt"
    file.write_text("Cd4\n\n  Cd8a \nMs4a1\n", "utf-8")
    found = table(RUNNER.invoke(app, ["genes", "resolve", "--file", str(file)]))
    assert found["symbol"].tolist() == ["CD4", "CD8A", "MS4A1"]
    assert set(found["status"]) == {"ortholog"}


def test_standard_input_is_a_file_too():
    result = RUNNER.invoke(app, ["genes", "resolve", "--file", "-"], input="CD3E\nCD14\n")
    assert table(result)["symbol"].tolist() == ["CD3E", "CD14"]


def test_nothing_recognised_is_status_1():
    result = RUNNER.invoke(app, ["genes", "resolve", "nogene"])
    assert result.exit_code == 1
    assert table(result)["status"].tolist() == ["missing"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "found no name"),
        (["--file", "no such file"], "one gene a line"),
        (["CD4", "--species", "fish"], "expected 'auto', 'human' or 'mouse'"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(arguments, words):
    result = RUNNER.invoke(app, ["genes", "resolve", *arguments])
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)


def test_a_binary_file_is_refused(tmp_path):
    file = tmp_path / "genes.bin"
    file.write_bytes(b"\xff\xfe\x00\x80" * 10)
    result = RUNNER.invoke(app, ["genes", "resolve", "--file", str(file)])
    assert "expected a text file" in str(result.exception)
