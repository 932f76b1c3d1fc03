"""One canonical name a protein: special targets, refusals and the panel as a whole."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclinguist_core.errors import InputError
from sclinguist_core.vocabulary import (
    AmbiguousProteinError,
    UnknownProteinError,
    gene_table,
    list_proteins,
    resolve_panel,
    resolve_protein,
)
from sclinguist_core.vocabulary._tables import read_table
from sclinguist_core.vocabulary.proteins import find_product

PROTEINS = list_proteins()
CANONICAL = list(PROTEINS.index)


@pytest.mark.parametrize(
    ("name", "genes", "kind"),
    [
        ("CD3", ("CD3D", "CD3E", "CD3G"), "complex"),
        ("CD8", ("CD8A",), "protein"),
        ("CD16", ("FCGR3A", "FCGR3B"), "complex"),
        ("CD45", ("PTPRC",), "protein"),
        ("CD45RA", ("PTPRC",), "isoform"),
        ("CD45RO", ("PTPRC",), "isoform"),
        ("B220", ("PTPRC",), "isoform"),
        ("HLA-DR", ("HLA-DRA", "HLA-DRB1"), "complex"),
        ("CD15", (), "glycan"),
        ("CD57", (), "glycan"),
        ("CD77", (), "glycan"),
        ("TCR Va24-Ja18", ("TRAV10", "TRAJ18"), "complex"),
        ("IgG1", (), "isotype"),
        ("IgG isotype control", (), "isotype"),
        ("mIgG3 isotype", (), "isotype"),
        ("IgM", ("IGHM",), "protein"),
        ("Annexin V", (), "reagent"),
        ("TP53", ("TP53",), "protein"),
    ],
)
def test_genes_and_kind(name: str, genes: tuple[str, ...], kind: str) -> None:
    protein = resolve_protein(name)
    assert protein.genes == genes
    assert protein.kind == kind


@pytest.mark.parametrize(
    ("name", "canonical", "genes"),
    [
        ("M6PR", "M6PR", ("M6PR",)),  # an alias of CD222, which IGF2R codes for
        ("MIB1", "MIB1", ("MIB1",)),  # an antibody clone against Ki-67
        ("IGF2R", "CD222", ("IGF2R",)),
        ("CD3E", "CD3", ("CD3D", "CD3E", "CD3G")),
        ("PTPRC", "CD45", ("PTPRC",)),
        ("PD-1", "CD279", ("PDCD1",)),
        ("IGK", "Ig-kappa", ("IGKC",)),  # a locus, which has no product of its own
    ],
)
def test_a_gene_symbol_beats_the_alias_of_another_protein(name, canonical, genes) -> None:
    found = find_product(name)
    assert found is not None
    assert (found.name, found.genes) == (canonical, genes)


def test_every_gene_codes_for_its_product() -> None:
    ids = gene_table()["ensembl_id"]
    products = {symbol: find_product(symbol) for symbol in ids.index[ids != ""]}
    assert [symbol for symbol, found in products.items() if symbol not in found.genes] == []


def test_notes_say_what_a_reader_must_know() -> None:
    assert "no coding gene" in resolve_protein("CD15").note
    assert resolve_protein("TP53").note == "by gene symbol"
    assert resolve_protein("CD279").note == ""


def test_gene_symbols_are_a_fallback_for_exact_coding_symbols_only() -> None:
    assert resolve_protein("STAT3").name == "STAT3"
    for name in ("stat3", "Stat3", "MALAT1", "XIST"):
        with pytest.raises(UnknownProteinError):
            resolve_protein(name)


def test_two_antibodies_against_one_target_share_the_name() -> None:
    table = resolve_panel(["PD-1 (CD279)", "PD1 (CD279)", "cd8", "cd8a", "cd4.1", "CD4.2"])
    assert table["canonical"].tolist() == ["CD279", "CD279", "CD8", "CD8", "CD4", "CD4"]
    assert table["clone"].tolist() == ["", "", "", "", "1", "2"]


def test_clones_are_told() -> None:
    names = ["CD16_3G8_TotalC", "CD101 (BB27)", "CD3_UCHT1", "CD45 (HI30)"]
    table = resolve_panel(names)
    assert table["canonical"].tolist() == ["CD16", "CD101", "CD3", "CD45"]
    assert table["clone"].tolist() == ["3G8", "BB27", "UCHT1", "HI30"]


@pytest.mark.parametrize(
    ("name", "candidate"),
    [
        ("cadherin", "CD324"),
        ("integrin.7", "Integrin-b7"),
        ("cd158", "CD158b"),
        ("CD66", "CD66b"),
        ("CD49", "CD49d"),
        ("CD4/CD8", "CD8"),
        ("IgG", "IgG-Fc"),
    ],
)
def test_ambiguous_names_are_refused_with_candidates(name: str, candidate: str) -> None:
    with pytest.raises(AmbiguousProteinError) as caught:
        resolve_protein(name)
    assert candidate in caught.value.candidates
    assert len(caught.value.candidates) > 1
    assert candidate in str(caught.value)
    assert isinstance(caught.value, InputError)


def test_candidates_are_names_themselves() -> None:
    for _, candidates, _ in read_table("ambiguous_proteins.tsv"):
        names = candidates.split("|")
        assert [resolve_protein(name).name for name in names] == names


@pytest.mark.parametrize("name", ["foobar", "xyz123", "CD341", "CD999", "IL-2", "Galectin-1"])
def test_unknown_names_are_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(UnknownProteinError) as caught:
        resolve_protein(name)
    assert caught.value.nearest
    assert set(caught.value.nearest) <= set(CANONICAL)
    assert caught.value.nearest[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_near_misses_find_their_neighbour() -> None:
    for typo, meant in (("CD27g", "CD27"), ("TIGET", "TIGIT"), ("Podoplanine", "Podoplanin")):
        with pytest.raises(UnknownProteinError) as caught:
            resolve_protein(typo)
        assert meant in caught.value.nearest


@pytest.mark.parametrize("name", ["", "   ", "-", "((", ")(", "\0", None, 3.5])
def test_nonsense_is_refused(name: object) -> None:
    with pytest.raises(UnknownProteinError):
        resolve_protein(name)
    assert resolve_panel([name])["status"].tolist() == ["unknown"]


def test_a_name_of_ten_million_characters_is_refused_at_once() -> None:
    start = time.perf_counter()
    for name in ("a" * 10**7, "CD3 (" * 2 * 10**6, "-" * 10**7):
        with pytest.raises(UnknownProteinError) as caught:
            resolve_protein(name)
        assert len(str(caught.value)) < 300
    assert resolve_panel(["x" * 10**7])["status"].tolist() == ["unknown"]
    assert time.perf_counter() - start < 2


def test_cytassist_copies_of_ptprc_are_told_by_the_panel() -> None:
    panel = resolve_panel(["PTPRC", "CD3E", "PTPRC-1"])
    assert panel["canonical"].tolist() == ["CD45RA", "CD3", "CD45RO"]
    assert "panel" in panel["note"].iloc[2]
    assert resolve_panel(["PTPRC.1", "PTPRC.2"])["canonical"].tolist() == ["CD45RA", "CD45RO"]
    assert resolve_panel(["PTPRC", "CD3E"])["canonical"].tolist() == ["CD45", "CD3"]


def test_lost_separators_are_told_by_impossible_cd_numbers() -> None:
    panel = resolve_panel(["CD331", "CD341", "CD381", "CD41", "CD123", "CD11b"])
    assert panel["canonical"].tolist() == ["CD33", "CD34", "CD38", "CD4", "CD123", "CD11b"]
    # one typo is not enough to read the other names differently
    panel = resolve_panel(["CD331", "CD341", "CD123"])
    assert panel["canonical"].tolist() == ["CD331", "", "CD123"]


def test_panel_has_the_promised_columns() -> None:
    panel = resolve_panel(["CD3", "IgG1", "foobar", "cadherin"])
    assert list(panel.columns) == [
        "canonical", "clone", "genes", "isotype", "kind", "status", "note",
    ]  # fmt: skip
    assert panel.index.tolist() == ["CD3", "IgG1", "foobar", "cadherin"]
    assert panel["status"].tolist() == ["resolved", "isotype", "unknown", "ambiguous"]
    assert panel["isotype"].dtype == bool
    assert panel["isotype"].tolist() == [False, True, False, False]
    assert panel["genes"].tolist() == ["CD3D;CD3E;CD3G", "", "", ""]
    assert "CD324" in panel["note"].iloc[3]
    assert len(resolve_panel([])) == 0


def test_listed_proteins_keep_their_own_names() -> None:
    assert len(PROTEINS) > 450
    assert list(PROTEINS.columns) == ["genes", "kind", "note", "aliases"]
    assert PROTEINS.index.is_unique
    assert not PROTEINS.index.str.contains(r"[/\\\s]").any()
    assert [resolve_protein(name).name for name in CANONICAL] == CANONICAL
    assert CANONICAL.index("CD2") < CANONICAL.index("CD10") < CANONICAL.index("TIGIT")


def test_genes_of_listed_proteins_are_current_symbols() -> None:
    known = set(gene_table().index)
    genes = {gene for joined in PROTEINS["genes"] for gene in joined.split(";") if gene}
    assert genes <= known
    coded = PROTEINS["genes"] != ""
    assert set(PROTEINS.loc[~coded, "kind"]) == {"glycan", "reagent"}
    assert not PROTEINS.loc[coded, "kind"].isin(["glycan", "reagent"]).any()


def test_listed_aliases_lead_to_their_protein() -> None:
    for name, aliases in PROTEINS["aliases"].items():
        for alias in filter(None, aliases.split("|")):
            assert resolve_protein(alias).name == name


SEPARATORS = st.sampled_from(["-", "_", ".", " "])


@settings(deadline=None)
@given(st.sampled_from(CANONICAL), SEPARATORS, st.booleans())
def test_case_and_punctuation_do_not_matter(name: str, separator: str, upper: bool) -> None:
    changed = "".join(separator if letter in "-_. " else letter for letter in name)
    changed = changed.upper() if upper else changed.lower()
    assert resolve_protein(changed).name == name


@settings(deadline=None)
@given(
    st.sampled_from(CANONICAL),
    st.sampled_from(["_PROT", "_TotalSeqB", "_ADT", "-ACGTACGTACGTACG", " antibody"]),
)
def test_words_about_the_reagent_do_not_matter(name: str, suffix: str) -> None:
    assert resolve_protein(name + suffix).name == name
    assert resolve_protein(f"anti-human {name}{suffix}").name == name


@settings(deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                [
                    *CANONICAL[::25],
                    "IgG",
                    "2a",
                    "k",
                    "iso",
                    "(",
                    ")",
                    "-",
                    "_",
                    ".1",
                    "TotalSeqB",
                    "anti-",
                ]
            ),
            max_size=5,
        ).map("".join),
    )
)
def test_any_text_resolves_once_for_all_or_is_refused(name: str) -> None:
    table = resolve_panel([name])
    status = table["status"].iloc[0]
    if status not in ("resolved", "isotype"):
        with pytest.raises((UnknownProteinError, AmbiguousProteinError)):
            resolve_protein(name)
        return
    protein = resolve_protein(name)
    assert resolve_protein(protein.name) == protein
    assert table["canonical"].iloc[0] == protein.name
    assert "/" not in protein.name
