"""The antibody names of real panels against a table that was checked by hand."""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import pandas as pd
import pytest

from sclinguist_core.vocabulary import resolve_panel

TABLE = pd.read_csv(
    Path(__file__).parent / "antibody_names.tsv", sep="\t", comment="#", keep_default_na=False
)
ANYWHERE = TABLE[TABLE["panel"] == ""].set_index("name")["expected"]


def as_in_table(row: pd.Series) -> str:
    refused = {"ambiguous": "AMBIGUOUS", "unknown": "UNKNOWN"}
    isotype = "ISOTYPE:" if row["status"] == "isotype" else ""
    return refused.get(row["status"], isotype + row["canonical"])


def expected(panel: str) -> pd.Series:
    """Expected names by antibody: those of this panel before those that hold anywhere."""
    own = TABLE[TABLE["panel"] == panel].set_index("name")["expected"]
    return pd.concat([own, ANYWHERE[~ANYWHERE.index.isin(own.index)]])


def check(panel: str, names: list[str]) -> None:
    wanted = expected(panel)
    assert not set(names) - set(wanted.index)
    resolved = resolve_panel(names).apply(as_in_table, axis=1)
    wrong = {name: found for name, found in resolved.items() if found != wanted[name]}
    assert not wrong


def test_table_is_large_and_without_contradictions() -> None:
    assert len(TABLE) > 650
    assert not TABLE.duplicated(["name", "panel"]).any()


@pytest.mark.parametrize("name", list(ANYWHERE.index))
def test_name(name: str) -> None:
    assert as_in_table(resolve_panel([name]).iloc[0]) == ANYWHERE[name]


@pytest.mark.parametrize("panel", sorted(set(TABLE["panel"]) - {""}))
def test_panels_that_change_the_meaning(panel: str) -> None:
    check(panel, list(TABLE.loc[TABLE["panel"] == panel, "name"]))


@pytest.mark.data
def test_every_paired_panel(test_data: Path) -> None:
    files = sorted((test_data / "citeseq").glob("*.h5ad"))
    assert len(files) == 11
    for file in files:
        table = anndata.read_h5ad(file, backed="r")
        check(file.stem, list(table.obsm["protein"].columns))


@pytest.mark.data
def test_every_protein_only_panel(test_data: Path) -> None:
    files = sorted((test_data / "protein_only").glob("*.csv.gz"))
    assert len(files) == 14
    for file in files:
        names = list(pd.read_csv(file, nrows=1, index_col=0).columns)
        if len(names) > 300:  # stored proteins x cells
            names = list(pd.read_csv(file, usecols=[0]).iloc[:, 0])
        if "11studies" in file.name:
            names = [name for name in names if name.startswith("CD")]
        check(file.name.split("_")[0], names)


@pytest.mark.data
def test_spatial_panels(test_data: Path) -> None:
    lymph_node = test_data / "spatial/lymph_node_protein/lymph_node_A1_adt.h5ad"
    check("lymph_node_protein", list(anndata.read_h5ad(lymph_node, backed="r").var_names))
    tonsil = test_data / "spatial/tonsil_composite/outs/filtered_feature_bc_matrix.h5"
    with h5py.File(tonsil) as file:
        features = file["matrix/features"]
        antibodies = features["feature_type"].asstr()[:] == "Antibody Capture"
        names = list(features["name"].asstr()[:][antibodies])
    assert len(names) == 17
    check("tonsil", names)
