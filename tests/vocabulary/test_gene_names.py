"""Gene names of every kind lead to the current human symbol."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclinguist_core.errors import InputError
from sclinguist_core.vocabulary import gene_table, resolve_genes


def read(names: list[str], **options: object) -> list[tuple[str, str]]:
    table = resolve_genes(names, **options).table
    return list(zip(table["symbol"], table["status"], strict=True))


@pytest.mark.parametrize(
    ("name", "symbol", "status"),
    [
        ("CD3E", "CD3E", "exact"),
        ("HLA-DRB1", "HLA-DRB1", "exact"),
        ("NKX2-1", "NKX2-1", "exact"),
        ("MIR1302-2HG", "MIR1302-2HG", "exact"),  # only in the 10x reference
        ("AL627309.1", "AL627309.1", "exact"),
        ("ENSG00000010610", "CD4", "id"),
        ("ENSG00000010610.9", "CD4", "id"),
        ("ENSG00000010610_CD4", "CD4", "id"),
        ("CD4|ENSG00000010610", "CD4", "id"),
        ("GRCh38_CD4", "CD4", "exact"),
        ("GRCh38______CD4", "CD4", "exact"),
        ("IL8", "CXCL8", "previous"),
        ("SEPT2", "SEPTIN2", "previous"),
        ("MARC1", "MTARC1", "previous"),
        ("YARS", "YARS1", "previous"),
        ("AC118549.1", "ZZZ3", "previous"),  # what 10x calls the gene
        ("PD-1", "PDCD1", "alias"),
        ("cd3e", "CD3E", "case"),
        ("Cd3e", "CD3E", "case"),
        ("HLA.DRA", "HLA-DRA", "case"),
        ("HLA_DRA", "HLA-DRA", "case"),
        ("C1ORF54", "C1orf54", "case"),
        ("2-Sep", "SEPTIN2", "case"),
        ("Sep-02", "SEPTIN2", "case"),
        ("2021-09-04 00:00:00", "SEPTIN4", "case"),
        ("3-Mar", "MARCHF3", "case"),
        ("1-Dec", "DEC1", "case"),
        ("1-Mar", "", "ambiguous"),
        ("2-Mar", "", "ambiguous"),
        ("MATR3-1", "MATR3", "alias"),
        ("RP11-34P13.7", "", "missing"),
        ("foobar", "", "missing"),
        ("", "", "missing"),
        ("mm10_Cd4", "", "missing"),  # the other species of a mixed experiment
    ],
)
def test_human_names(name: str, symbol: str, status: str) -> None:
    assert read([name], species="human") == [(symbol, status)]


def test_approved_symbol_beats_alias() -> None:
    # MAFA is a gene, and an alias of KLRG1
    assert read(["MAFA", "KLRG1"], species="human") == [("MAFA", "exact"), ("KLRG1", "exact")]


def test_ids_win_over_names_and_unknown_ids_fall_back_to_names() -> None:
    ids = ["ENSG00000168685", "ENSG99999999999", "", "ENSG00000081237.21"]
    assert read(["IL7R", "CD4", "CD19", "not a name"], ids=ids) == [
        ("IL7R", "exact"),
        ("CD4", "exact"),
        ("CD19", "exact"),
        ("PTPRC", "id"),
    ]


def test_missing_values_among_ids_are_no_ids() -> None:
    assert read(["CD4", "CD19"], ids=[np.nan, None]) == [("CD4", "exact"), ("CD19", "exact")]


def test_the_surest_row_keeps_the_symbol() -> None:
    assert read(["cd4", "SEPT2", "CD4", "CD4-1", "SEPTIN2"], species="human") == [
        ("CD4", "duplicate"),
        ("SEPTIN2", "duplicate"),
        ("CD4", "exact"),
        ("CD4", "duplicate"),
        ("SEPTIN2", "exact"),
    ]


def test_alias_beside_its_gene_is_another_locus() -> None:
    assert read(["PD-1"], species="human") == [("PDCD1", "alias")]
    assert read(["PD-1", "PDCD1"], species="human") == [("", "ambiguous"), ("PDCD1", "exact")]


def test_symbols_with_a_number_are_not_copies() -> None:
    names = ["HLA-DRB1", "NKX2", "NKX2-1", "KRTAP5-1"]
    assert [row[0] for row in read(names, species="human")] == [
        "HLA-DRB1",
        "",
        "NKX2-1",
        "KRTAP5-1",
    ]


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("Cd3e", "CD3E"),
        ("Ptprc", "PTPRC"),
        ("H2-Aa", "HLA-DQA1"),
        ("ENSMUSG00000023274", "CD4"),
        ("ENSMUSG00000023274.14", "CD4"),
        ("mm10___Cd4", "CD4"),
    ],
)
def test_mouse_genes_become_orthologs(name: str, symbol: str) -> None:
    assert read([name], species="mouse") == [(symbol, "ortholog")]


def test_species_is_read_from_the_names_as_a_whole() -> None:
    assert resolve_genes(["Cd3e", "Cd4", "Ptprc", "FOO"]).species == "mouse"
    assert resolve_genes(["CD3E", "CD4", "PTPRC", "Cd19"]).species == "human"
    assert resolve_genes(["cd3e", "cd4"]).species == "human"
    assert resolve_genes(["a", "b"], ids=["ENSMUSG00000023274", ""]).species == "mouse"
    assert resolve_genes([]).species == "human"


def test_equally_supported_orthologs_are_ambiguous_unless_one_has_the_name() -> None:
    # Adh1: ADH1A and ADH1C with nine sources each
    assert read(["Adh1"], species="mouse") == [("", "ambiguous")]


def test_of_several_mouse_genes_the_best_supported_keeps_the_symbol() -> None:
    table = resolve_genes(["Gzmb", "Gzmc", "Gzmb-1"], species="mouse").table
    best = table[table["symbol"] == "GZMB"]
    assert list(best["status"][:1]) == ["ortholog"]
    assert (best["status"][1:] == "duplicate").all()


def test_resolution_reports_what_happened() -> None:
    found = resolve_genes(["CD4", "IL8", "cd19", "CD4-1", "foo", "1-Mar"])
    assert found.counts == {
        "exact": 1,
        "previous": 1,
        "case": 1,
        "duplicate": 1,
        "ambiguous": 1,
        "missing": 1,
    }
    assert found.n_resolved == 4
    assert found.symbols.dtype == object
    assert list(found.symbols) == ["CD4", "CXCL8", "CD19", "CD4", "", ""]
    assert found.summary() == (
        "4 of 6 genes recognised (1 by former symbols, 1 despite changed spelling, "
        "1 beside another row of the same gene); 1 ambiguous, 1 missing."
    )
    assert resolve_genes(["Cd4"]).summary() == "1 of 1 mouse genes mapped to human orthologs."
    assert list(found.table.columns) == ["name", "symbol", "ensembl_id", "status"]
    assert found.table["ensembl_id"].tolist()[:2] == ["ENSG00000010610", "ENSG00000169429"]


def test_bad_arguments_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="2 ids for 1 names"):
        resolve_genes(["CD4"], ids=["", ""])
    with pytest.raises(InputError, match="species='rat'"):
        resolve_genes(["CD4"], species="rat")


def test_gene_table_is_unique_and_has_ids() -> None:
    table = gene_table()
    assert table.index.is_unique
    assert len(table) > 36_000
    assert table.loc["PTPRC", "ensembl_id"] == "ENSG00000081237"
    assert (table["ensembl_id"] != "").mean() > 0.99


def test_every_known_symbol_and_id_leads_to_itself() -> None:
    table = gene_table()
    found = resolve_genes(table.index, species="human")
    assert (found.table["symbol"] == table.index).all()
    with_id = table[table["ensembl_id"] != ""]
    found = resolve_genes(with_id["ensembl_id"], species="human")
    assert (found.table["symbol"].to_numpy() == with_id.index).all()


def test_whole_transcriptome_is_fast() -> None:
    names = [*gene_table().index[:36_601]]
    resolve_genes(names)
    start = time.perf_counter()
    resolve_genes(names)
    assert time.perf_counter() - start < 1.0  # 0.2 s on an idle core


def test_importing_the_vocabulary_stays_light() -> None:
    code = (
        "import sys, sclinguist_core.vocabulary\n"
        "heavy = {'torch', 'scanpy', 'anndata', 'squidpy', 'spatialdata', 'qtpy', 'napari'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(deadline=None)
@given(st.lists(st.text(max_size=30)))
def test_any_text_keeps_order_and_length(names: list[str]) -> None:
    found = resolve_genes(names)
    assert list(found.table["name"]) == names
    assert (
        (found.table["symbol"] == "") == found.table["status"].isin(["missing", "ambiguous"])
    ).all()


def test_a_huge_name_takes_no_time() -> None:
    start = time.perf_counter()
    assert read(["A-1" * 3_000_000, "1" * 9_000_000], species="human") == [("", "missing")] * 2
    assert time.perf_counter() - start < 2


# names of BAC clones and unnamed loci, which change with every annotation
CLONE = (
    r"(?:A[CFJLP]\d{6}|B[XK]\d+|C[RTU][A-D]?[\d-]|F[OP]\d{6}|RP\d+-|KB-|LL|XX|GS1-|[ZU]\d|.*\.\d+$)"
)


def unresolved_share(names: pd.Index | np.ndarray) -> float:
    table = resolve_genes(names).table
    table = table[~table["name"].str.match(CLONE)]
    return float((table["symbol"] == "").mean())


@pytest.mark.data
@pytest.mark.parametrize("folder", ["citeseq", "rna_only"])
def test_97_percent_of_every_human_data_set(test_data: Path, folder: str) -> None:
    files = sorted((test_data / folder).glob("*.h5ad"))
    assert files
    for file in files:
        names = anndata.read_h5ad(file, backed="r").var_names
        assert unresolved_share(names) < 0.03, file.name


@pytest.mark.data
def test_human_sections(test_data: Path) -> None:
    folder = "spatial/human_ducts_rna/outs/filtered_feature_bc_matrix/features.tsv.gz"
    features = pd.read_csv(test_data / folder, sep="\t", header=None, keep_default_na=False)
    for found in (resolve_genes(features[1]), resolve_genes(features[1], ids=features[0])):
        assert found.species == "human"
        assert found.n_resolved == len(features) == 36_601
        assert found.counts["duplicate"] < 12
    path = test_data / "spatial/tonsil_composite/outs/filtered_feature_bc_matrix.h5"
    with h5py.File(path) as file:
        group = file["matrix/features"]
        genes = group["feature_type"].asstr()[:] == "Gene Expression"
        names, ids = group["name"].asstr()[:][genes], group["id"].asstr()[:][genes]
    assert resolve_genes(names, ids=ids).n_resolved > 0.98 * len(names)


@pytest.mark.data
def test_mouse_section(test_data: Path) -> None:
    folder = "spatial/mouse_embryo_rna/outs/filtered_feature_bc_matrix/features.tsv.gz"
    features = pd.read_csv(test_data / folder, sep="\t", header=None, keep_default_na=False)
    found = resolve_genes(features[1], ids=features[0])
    assert found.species == "mouse"
    assert found.n_resolved > 17_000
    assert resolve_genes(features[1]).n_resolved > 16_000
    symbols = found.table.set_index("name")["symbol"]
    assert symbols[["Cd34", "Trp53", "Hbb-bt"]].tolist() == ["CD34", "TP53", "HBB"]
