"""Which proteins are predicted, and what memory says to it; without a window."""

import numpy as np
import pandas as pd
import pytest

from napari_sclinguist.control.protein_choice import Offer, ProteinChoice, Which, best_proteins

BEST = ("CD3", "CD19", "CD4", "CD8")
GIB = 2**30


@pytest.fixture
def choice():
    """10 GiB are free; a protein takes one of them."""
    found = ProteinChoice(free=lambda: found.free)
    found.free = 10 * GIB
    return found


def offer(n_proteins=8, best=BEST):
    others = [f"P{i}" for i in range(n_proteins - len(BEST))]
    return Offer(
        learnt=frozenset([*BEST, *others][:n_proteins]),
        best=best,
        genes=frozenset(["PDCD1", "SEPTIN1", "FAS"]),
        bytes_each=GIB,
        bytes_each_by_gene=2 * GIB,
    )


def test_all_are_predicted_where_memory_suffices(choice):
    assert (choice.options(), choice.number, choice.need) == ([], 0, 0)
    choice.take(offer())
    assert (choice.which, choice.proteins, choice.number) == (Which.ALL, None, 8)
    assert choice.need == 8 * GIB
    assert choice.is_ready
    assert choice.note("3 cells") == ""
    titles = [title for _, title in choice.options()]
    assert titles == ["All 8", "The 4 predicted best", "By name…"]


def test_where_it_does_not_suffice_the_best_are_proposed(choice):
    choice.take(offer(n_proteins=200))
    assert (choice.which, choice.proteins) == (Which.BEST, list(BEST))
    assert choice.is_ready
    assert choice.note("1,000,000 cells") == (
        "All 200 proteins of 1,000,000 cells would take 200.0 GB of memory, 10.0 GB are free."
    )
    choice.free = 3 * GIB  # as many as fit, and something is left for others
    assert choice.proteins == ["CD3", "CD19"]
    choice.free = 1000  # at least one is tried
    assert choice.proteins == ["CD3"]
    assert not choice.is_ready
    assert "close other sections and programs" in choice.note("9 cells")


def test_what_was_proposed_is_proposed_anew_for_another_section(choice):
    choice.take(offer(n_proteins=200))
    choice.take(offer(n_proteins=3))
    assert choice.which is Which.ALL
    choice.take(offer(n_proteins=200, best=()))  # a model that says nothing about trust
    assert choice.which is Which.ALL
    assert not choice.is_ready
    assert choice.note("5 spots").startswith("200 proteins of 5 spots take 200.0 GB of memory")


def test_what_was_chosen_by_hand_stays(choice):
    choice.take(offer())
    choice.choose(Which.BEST)
    choice.take(offer(n_proteins=3))
    assert choice.which is Which.BEST
    assert choice.note("5 spots") == ""
    choice.take(offer(n_proteins=200, best=()))
    assert choice.which is Which.ALL  # there are no best ones any more
    choice.choose(Which.ALL)
    choice.take(offer(n_proteins=200))
    assert choice.which is Which.ALL
    assert not choice.is_ready


def test_names_are_typed(choice):
    choice.take(offer())
    choice.choose(Which.NAMED)
    assert (choice.proteins, choice.number, choice.is_ready) == ([], 0, False)
    assert choice.note("5 spots") == "Type names of proteins, such as CD3, CD19, PD-1."
    choice.choose(Which.NAMED, "CD3, Leu-3;CD3\nCD19")
    assert choice.proteins == ["CD3", "Leu-3", "CD19"]
    assert choice.is_ready
    assert choice.need == 3 * GIB
    assert choice.note("5 spots") == ""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("CD3, CDX9", "No protein is known by the name 'CDX9'; the nearest known names are CD9"),
        ("CD1", "'CD1' is ambiguous; it may mean CD1a"),
        ("CD3, MS4A1", "MS4A1 (CD20): the model knows neither this protein nor a gene that"),
    ],
)
def test_names_that_cannot_be_predicted_are_refused_as_they_are_typed(choice, typed, said):
    choice.take(offer())
    choice.choose(Which.NAMED, typed)
    assert said in choice.note("5 spots")
    assert not choice.is_ready
    choice.choose(Which.ALL)
    assert choice.is_ready
    assert choice.note("5 spots") == ""


@pytest.mark.parametrize("typed", ["PD-1", "PDCD1", "SEPT1", "CD95"])
def test_proteins_that_are_asked_for_by_their_genes_are_named(choice, typed):
    choice.take(offer())
    choice.choose(Which.NAMED, f"CD3, {typed}")
    assert choice.note("5 spots") == (
        f"No antibody against {typed} was in training: predicted from the coding gene, untested."
    )
    assert choice.is_ready
    assert choice.need == 4 * GIB  # of both, since their values are moved together
    choice.free = 4 * GIB
    assert choice.note("5 spots").startswith("2 proteins of 5 spots take 4.0 GB of memory")


def test_typed_names_are_looked_up_in_the_model_that_is_chosen_next(choice):
    choice.take(offer())
    choice.choose(Which.NAMED, "CD8")
    assert choice.note("5 spots") == ""
    choice.take(offer(n_proteins=3))
    assert choice.note("5 spots").startswith("CD8: the model knows neither")


def test_the_best_are_those_that_are_trusted_in_order():
    table = pd.DataFrame(
        {
            "name": ["A", "B", "C", "D", "E"],
            "trust_spots": ["fairly", "poorly", "well", "untested", "well"],
            "expected_r_spots": [0.5, 0.9, 0.6, np.nan, 0.8],
        }
    )
    assert best_proteins(table, "spots") == ("E", "C", "A")
    assert best_proteins(table, "cells") == ()


def test_the_bundled_model_has_some_for_both_contexts():
    from sclinguist_core.model.checkpoint import read_summary

    proteins = read_summary("bundled").proteins
    for context in ("spots", "cells"):
        found = best_proteins(proteins, context)
        assert 10 < len(found) < len(proteins)
        assert set(found) <= set(proteins["name"])
