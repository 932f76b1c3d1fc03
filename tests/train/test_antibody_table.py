import numpy as np
import pandas as pd
import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.train.corpus import protein_universe
from sclinguist_core.train.masked_protein import protein_dataset
from sclinguist_core.train.sources import DataEntry, open_entry


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    names = ["CD3", "CD19", "CD14_TotalSeqB", "IgG1", "nCount_ADT"]
    frame = pd.DataFrame(rng.poisson(50, (30, 5)), columns=names)
    frame["nCount_ADT"] *= 1000
    frame["donor"] = np.repeat(["d1", "d2"], 15)
    frame.index = [f"cell{i}" for i in range(30)]
    return frame


def opened(path, **options):
    (section,) = open_entry(DataEntry(path=str(path), **options))
    return section


def test_cells_in_rows(table, tmp_path):
    table.to_csv(tmp_path / "adt.csv.gz")
    section = opened(tmp_path / "adt.csv.gz")
    counts = section.table.obsm["protein"]
    assert counts.columns.tolist() == ["CD3", "CD19", "CD14_TotalSeqB", "IgG1"]
    np.testing.assert_array_equal(section.table.obs["nCount_ADT"], table["nCount_ADT"])
    np.testing.assert_array_equal(counts["CD19"], table["CD19"])
    assert section.table.obs["donor"].tolist() == table["donor"].tolist()
    assert section.table.obs_names.tolist() == table.index.tolist()
    assert (section.name, section.has_rna, section.has_protein) == ("adt", False, True)


def test_depths_and_isotypes_are_no_targets(table, tmp_path):
    table.to_csv(tmp_path / "adt.tsv", sep="\t")
    section = opened(tmp_path / "adt.tsv")
    proteins = protein_universe([section])["name"].tolist()
    assert proteins == ["CD14", "CD19", "CD3"]
    data = protein_dataset(section, proteins)
    assert sorted(data.protein) == [0, 1, 2]
    # Nor do they move the centre: three values that are centred on themselves.
    np.testing.assert_allclose((data.abundance * data.scale).sum(axis=1), 0, atol=1e-4)


def test_proteins_in_rows(table, tmp_path):
    table.drop(columns="donor").T.to_csv(tmp_path / "adt.csv")
    section = opened(tmp_path / "adt.csv", transpose=True)
    assert section.table.obsm["protein"].shape == (30, 4)
    np.testing.assert_array_equal(section.table.obsm["protein"]["CD3"], table["CD3"])
    with pytest.raises(InputError, match=r"0 of 30 columns are known.*; set transpose: true; see"):
        opened(tmp_path / "adt.csv")


def test_any_column_splits_into_batches(table, tmp_path):
    table.to_csv(tmp_path / "adt.csv")
    found = open_entry(DataEntry(path=str(tmp_path / "adt.csv"), batch_key="donor"))
    assert [(section.name, section.n_obs) for section in found] == [("adt/d1", 15), ("adt/d2", 15)]


def test_missing_counts_stay_missing_and_names_become_unique(table, tmp_path):
    table = table.astype({"CD3": float})
    table.iloc[:4, 0] = np.nan
    table.index = ["same"] * 30
    table.to_csv(tmp_path / "adt.csv")
    section = opened(tmp_path / "adt.csv")
    assert np.isnan(section.table.obsm["protein"]["CD3"]).sum() == 4
    assert section.table.obs_names.is_unique


def test_refused_tables(table, tmp_path):
    path = tmp_path / "adt.csv"
    with pytest.raises(InputError, match=r"adt\.csv' cannot be opened .*No such file"):
        opened(path)
    table[["CD3", "donor"]].to_csv(path)
    with pytest.raises(InputError, match="1 of 1 columns are known antibodies, expected at least"):
        opened(path)
    (table.drop(columns="donor") - 60).to_csv(path)
    with pytest.raises(
        InputError, match="negative or infinite values, expected raw antibody counts"
    ):
        opened(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as a table of antibody counts") as found:
        opened(path)
    assert "\n" not in str(found.value)
