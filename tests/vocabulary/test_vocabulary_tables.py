"""The tables in the package: small, readable and the ones that the script makes."""

from __future__ import annotations

import gzip
import runpy
import sys
from importlib import resources
from pathlib import Path

import pytest

from sclinguist_core.vocabulary._tables import read_table

TABLES = Path(str(resources.files("sclinguist_core.vocabulary") / "tables"))
SCRIPT = Path(__file__).parents[2] / "training" / "build_vocabulary.py"


def test_tables_are_small() -> None:
    assert sum(file.stat().st_size for file in TABLES.iterdir()) < 1_500_000


@pytest.mark.parametrize("file", sorted(TABLES.iterdir()), ids=lambda file: file.name)
def test_every_table_is_read(file: Path) -> None:
    rows = read_table(file.name)
    assert len(rows) >= 4
    assert len({tuple(row) for row in rows}) == len(rows)


def test_every_curated_row_says_where_it_comes_from() -> None:
    for name in ("curated_genes.tsv", "curated_proteins.tsv", "ambiguous_proteins.tsv"):
        assert all(row[-1] for row in read_table(name))


def test_curated_proteins_are_sound() -> None:
    rows = read_table("curated_proteins.tsv")
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names)
    kinds = {"protein", "isoform", "complex", "glycan", "reagent"}
    assert {row[2] for row in rows} == kinds
    assert all((row[2] == "complex") == (";" in row[1]) for row in rows)


@pytest.mark.data
def test_script_makes_the_same_tables(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = runpy.run_path(str(SCRIPT))
    for name in ("curated_genes.tsv", "curated_proteins.tsv"):
        (tmp_path / name).write_bytes((TABLES / name).read_bytes())
    monkeypatch.setitem(script["main"].__globals__, "TABLES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["build_vocabulary.py", str(test_data / "names")])
    script["main"]()
    made = sorted(tmp_path.glob("*.gz"))
    assert len(made) == 5
    for file in made:
        assert gzip.decompress(file.read_bytes()) == gzip.decompress(
            (TABLES / file.name).read_bytes()
        )
