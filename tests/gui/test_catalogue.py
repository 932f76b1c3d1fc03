"""Everything that a section can be coloured by, under every name; no window is needed."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from napari_sclinguist.control import names
from napari_sclinguist.control.catalogue import Catalogue
from napari_sclinguist.control.entries import Kind
from sclinguist_core.errors import InputError


@pytest.fixture
def protein_section(predicted_section):
    """PD-1 and CD19 predicted with their errors, measured under the study's names, and as RNA."""
    section = predicted_section
    table = section.table
    predicted = table.obsm["protein_predicted"].assign(CD279=[0.0, 1, 2, 3], CD10=0.5)
    table.obsm["protein_predicted"] = predicted
    table.obsm["protein_predicted_std"] = predicted * 0 + [0.1, 0.2, 0.3, 0.4, 0.5]
    table.uns["sclinguist"]["trust"] = {"CD19": "well", "CD279": "poorly"}
    table.uns["sclinguist"]["expected_r"] = {"CD19": 0.8}
    counts = pd.DataFrame(
        {"CD19.1": [10, 1, 0, 0], "IgG1": [1, 1, 1, 1], "PD-1_TotalSeqB": [0, 5, 9, 0]},
        index=table.obs_names,
    )
    table.obsm["protein"] = counts
    table.uns["protein_panel"] = pd.DataFrame(
        {"canonical": ["CD19", "", "CD279"], "isotype": [False, True, False]},
        index=counts.columns,
    )
    section.table.var_names = ["CD19", "PDCD1"]
    return section


@pytest.fixture
def catalogue(protein_section):
    return Catalogue(protein_section)


def keys(entries):
    return [entry.key for entry in entries]


@pytest.mark.parametrize("name", ["PD-1", "pd1", "CD279", "PDCD1", "PD-1 (CD279)"])
def test_a_protein_is_found_by_any_of_its_names(catalogue, name):
    found = catalogue.search(name)
    assert keys(found) == [
        "predicted:CD279",
        "measured:PD-1_TotalSeqB",
        "mRNA:PDCD1",
        "uncertainty:CD279",
    ]
    assert [entry.label for entry in found[:2]] == ["CD279 (predicted)", "CD279 (measured)"]
    assert catalogue.find(name).key == "predicted:CD279"


@pytest.mark.parametrize("name", ["PD-1", "PD-1 (CD279)"])
def test_a_search_keeps_to_the_kinds_that_are_asked_for(catalogue, name):
    assert keys(catalogue.search(name, [Kind.GENE])) == ["mRNA:PDCD1"]
    assert keys(catalogue.search(name, [Kind.MEASURED])) == ["measured:PD-1_TotalSeqB"]
    assert catalogue.search(name, [Kind.COLUMN]) == []


def test_what_is_typed_meets_the_own_name_first_then_its_beginning(catalogue):
    found = keys(catalogue.search("cd1", [Kind.PREDICTED]))
    assert found == ["predicted:CD10", "predicted:CD19", "predicted:CD279"]  # PDCD1
    assert catalogue.search("cd19")[0].key == "predicted:CD19"
    assert keys(catalogue.search("CD1", exact=True)) == []
    assert catalogue.search("xyzzy") == []


def test_without_a_text_all_are_listed_by_kind_and_cd2_before_cd10(catalogue):
    listed = catalogue.search("")
    assert listed == catalogue.entries
    assert keys(catalogue.of_kind(Kind.PREDICTED)) == [
        f"predicted:{name}" for name in ("CD3", "CD10", "CD19", "CD20", "CD279")
    ]
    kinds = list(dict.fromkeys(entry.kind for entry in listed))
    assert kinds == catalogue.kinds
    assert kinds == [Kind.PREDICTED, Kind.MEASURED, Kind.GENE, Kind.UNCERTAINTY, Kind.COLUMN]
    assert keys(catalogue.of_kind(Kind.COLUMN)) == ["column:total counts", "column:score"]


def test_trust_and_units_stand_at_the_entries(catalogue):
    well = catalogue.entry("predicted:CD19")
    assert (well.trust, well.expected_r, well.unit) == ("well", 0.8, "sd of the training reference")
    assert np.isnan(catalogue.entry("predicted:CD279").expected_r)
    assert catalogue.entry("mRNA:CD19").unit == "log1p CP10k"
    assert catalogue.entry("measured:CD19.1").unit == "centred log-ratio"
    assert catalogue.entry("measured:IgG1").label == "IgG1 (measured)"


def test_two_antibodies_against_one_protein_keep_their_own_names(protein_section):
    panel = protein_section.table.uns["protein_panel"]
    protein_section.table.uns["protein_panel"] = panel.assign(canonical=["CD19", "", "CD19"])
    catalogue = Catalogue(protein_section)
    labels = [entry.label for entry in catalogue.of_kind(Kind.MEASURED)]
    assert {"CD19.1 (measured)", "PD-1_TotalSeqB (measured)"} < set(labels)


def test_partners_are_the_same_protein_of_other_kinds(catalogue):
    predicted = catalogue.entry("predicted:CD279")
    assert catalogue.partner(predicted, Kind.MEASURED).key == "measured:PD-1_TotalSeqB"
    assert catalogue.partner(predicted, Kind.GENE).key == "mRNA:PDCD1"
    gene = catalogue.entry("mRNA:PDCD1")
    assert catalogue.partner(gene, Kind.PREDICTED) is predicted
    assert catalogue.partner(catalogue.entry("predicted:CD20"), Kind.MEASURED) is None
    assert catalogue.partner(catalogue.entry("column:score"), Kind.GENE) is None


def test_a_key_finds_its_entry_and_an_unknown_name_is_refused_with_the_nearest(catalogue):
    assert catalogue.find("mRNA:CD19").kind is Kind.GENE
    with pytest.raises(InputError, match=r"Feature 'CD91' is not in section 'small'.*CD19"):
        catalogue.find("CD91")
    assert catalogue.nearest("CD191")[0] == "CD19"
    assert catalogue.nearest("PDCDD1")[0] == "PDCD1"
    assert catalogue.nearest("§§§") == []


def test_values_of_every_kind(catalogue, protein_section):
    table = protein_section.table
    np.testing.assert_array_equal(catalogue.values("predicted:CD19"), np.float32([-2, 0, 1, 2]))
    np.testing.assert_allclose(catalogue.values("uncertainty:CD279"), [0.4] * 4, rtol=1e-6)
    np.testing.assert_array_equal(catalogue.values("column:score"), [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_array_equal(catalogue.values("column:total counts"), [4, 2, 3, 0])
    logs = np.log1p(table.obsm["protein"])
    expected = logs["CD19.1"] - logs[["CD19.1", "PD-1_TotalSeqB"]].mean(axis=1)
    np.testing.assert_allclose(catalogue.values("measured:CD19.1"), expected, rtol=1e-5, atol=1e-6)
    assert catalogue.values("predicted:CD19").dtype == np.float32
    assert catalogue.feature("predicted:CD19").label == "CD19 (predicted)"


def test_genes_are_log_cp10k_and_an_empty_spot_has_no_value(catalogue):
    values = catalogue.values("mRNA:PDCD1")
    np.testing.assert_allclose(values[:3], np.log1p([10_000, 5_000, 0]), rtol=1e-6)
    assert np.isnan(values[3])
    np.testing.assert_array_equal(catalogue.has_molecules, [True, True, True, False])


def test_many_genes_at_once_are_the_same_as_one_by_one(catalogue):
    together = catalogue.log_counts(["PDCD1", "CD19"])
    assert sparse.issparse(together)
    alone = [catalogue.values(f"mRNA:{gene}") for gene in ("PDCD1", "CD19")]
    np.testing.assert_array_equal(together.toarray(), np.nan_to_num(np.column_stack(alone)))


def test_rows_of_the_same_gene_are_added_up(section):
    section.table.var_names = ["CD19", "CD19"]
    catalogue = Catalogue(section)
    assert keys(catalogue.of_kind(Kind.GENE)) == ["mRNA:CD19"]
    values = catalogue.values("mRNA:CD19")
    np.testing.assert_allclose(values[:3], np.log1p([10_000] * 3), rtol=1e-6)


def test_values_cannot_be_written_to_and_do_not_lock_the_table(catalogue, protein_section):
    values = catalogue.values("column:score")
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 9.0
    protein_section.table.obs["score"] = 1.0
    assert catalogue.values("column:score") is values
    catalogue.refresh()
    np.testing.assert_array_equal(catalogue.values("column:score"), [1.0] * 4)


def test_values_read_while_the_table_changes_are_not_kept(catalogue, monkeypatch):
    read = catalogue._read

    def overtaken(entry):
        values = read(entry)
        catalogue.refresh()  # another thread's prediction arrives
        return values

    monkeypatch.setattr(catalogue, "_read", overtaken)
    stale = catalogue.values("column:score")
    monkeypatch.undo()
    assert catalogue.values("column:score") is not stale


def test_what_is_predicted_later_is_found(section):
    catalogue = Catalogue(section)
    catalogue.prepare()
    assert catalogue.search("CD3") == []
    section.table.obsm["protein_predicted"] = pd.DataFrame(
        {"CD3": [0.0, 1, 2, 3]}, index=section.table.obs_names
    )
    catalogue.refresh()
    assert keys(catalogue.search("CD3")) == ["predicted:CD3"]
    assert catalogue.find("cd-3").key == "predicted:CD3"


def test_changes_after_a_knockout_come_and_go(catalogue, protein_section):
    changes = pd.DataFrame({"CD19": [-1.0, 0, 1, 2]}, index=protein_section.table.obs_names)
    catalogue.set_changes(changes)
    entry = catalogue.entry("change:CD19")
    assert (entry.label, entry.diverging) == ("CD19 (change)", True)
    np.testing.assert_array_equal(catalogue.values(entry.key), [-1, 0, 1, 2])
    assert catalogue.table(Kind.CHANGE) is changes
    catalogue.set_changes(None)
    assert entry.key not in catalogue
    assert catalogue.table(Kind.CHANGE) is None


def test_the_first_view_is_of_trusted_predictions_then_of_counts(catalogue, section):
    assert catalogue.default_keys() == ["predicted:CD19"]
    section.table.obsm.clear()
    catalogue.refresh()
    assert catalogue.default_keys() == ["column:total counts"]


def test_other_names_are_told(catalogue):
    assert "PD-1" in catalogue.other_names(catalogue.entry("predicted:CD279"))
    assert "CD279" in catalogue.other_names(catalogue.entry("mRNA:PDCD1"))
    assert catalogue.other_names(catalogue.entry("column:score")) == ()


def test_names_are_compared_without_signs_and_sorted_by_number():
    assert names.fold("PD-1 (CD279)") == "pd1cd279"
    assert sorted(["CD10", "cd2", "CD1a"], key=names.natural) == ["CD1a", "cd2", "CD10"]
    text = names.search_text(["CD279", "PD-1", "PDCD1"])
    ranks = [names.match_rank(query, text) for query in ("cd279", "pd1", "cd2", "pdc", "279")]
    assert ranks == [0, 1, 2, 3, 4]
    assert names.match_rank("cd3", text) is None
    assert names.names_in(text) == ["cd279", "pd1", "pdcd1"]


@pytest.mark.parametrize(
    "text", ["CD3,CD19, PD-1", "CD3\tCD19\tPD-1", "CD3\r\nCD19\n\nPD-1\n", "CD3;CD19;PD-1;CD3"]
)
def test_pasted_lists_are_taken_apart(text):
    assert names.split_list(text) == ["CD3", "CD19", "PD-1"]
