"""Proteins that training never saw."""

from dataclasses import replace

import pytest

from evaluation.made_up import make_cells
from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.benchmark_config import BenchmarkConfig
from sclinguist_core.evaluation.tasks import open_cells
from sclinguist_core.evaluation.unseen_protein import protein_parts, protein_tasks

CODED = {"CD3", "CD4", "CD8", "CD19", "CD14", "CD279"}
CONFIG = BenchmarkConfig(split="protein", protein_folds=3)
RECIPE = object()  # only whether there is one matters


@pytest.fixture(scope="module")
def cells():
    return open_cells(make_cells(40, seed=1)), open_cells(make_cells(30, seed=2))


def test_folds_ask_for_every_coded_protein_once(cells):
    train, test = cells
    tasks = list(protein_tasks([train], test, CONFIG, None, RECIPE))
    assert [task.part for task, _ in tasks] == [
        f"unseen proteins, fold {n} of 3" for n in (1, 2, 3)
    ]
    asked = [name for _, unseen in tasks for name in unseen]
    assert len(asked) == len(set(asked))
    assert set(asked) >= CODED  # CD15 is a sugar: no gene codes for it
    for task, unseen in tasks:
        left = set(task.train[0].truth().proteins)
        assert not left & set(unseen)
        assert set(unseen) <= set(task.test.truth().proteins)
        # Isotype controls stay, so that nothing but the asked proteins is taken.
        assert task.train[0].paired.protein.shape[1] == 8 - len(unseen)


def test_proteins_of_one_gene_stay_together():
    genes = {
        "CD45RA": "PTPRC", "CD4": "CD4", "CD15": "", "HLA-DR": "HLA-DRA;HLA-DRB1",
        "CD45RO": "PTPRC", "HLA-DRA": "HLA-DRA", "HLA-DRB1": "HLA-DRB1", "CD8": "CD8A",
    }  # fmt: skip
    for seed in range(10):
        parts = protein_parts(genes, 3, seed)
        assert sorted(name for part in parts for name in part) == sorted(set(genes) - {"CD15"})
        for together in ({"CD45RA", "CD45RO"}, {"HLA-DR", "HLA-DRA", "HLA-DRB1"}):
            assert [together <= set(part) for part in parts].count(True) == 1
        assert max(map(len, parts)) <= 4


def named(seed, **names):
    """Made-up cells with other names for their antibodies."""
    table = make_cells(40, seed=seed)
    table.obsm["protein"] = table.obsm["protein"].rename(columns=names)
    return open_cells(table)


def test_training_keeps_no_antibody_of_an_asked_gene():
    test = named(1, CD3="CD45RA", CD4="CD45RO")
    train = named(2, CD3="CD45")  # that the test set does not have, of the same gene
    seen = []
    for task, unseen in protein_tasks([train], test, CONFIG, None, RECIPE):
        left = set(task.train[0].truth().proteins)
        assert ({"CD45RA", "CD45RO"} <= set(unseen)) == ("CD45" not in left)
        assert len({"CD45RA", "CD45RO"} & set(unseen)) != 1
        seen.append("CD45" in left)
    assert sorted(seen) == [False, True, True]


def test_a_checkpoint_is_not_asked_for_another_form_of_what_it_has_learnt(cells):
    model = tiny_checkpoint(without=("CD19",))
    model.proteins.loc[model.proteins["name"] == "CD4", ["name", "genes"]] = ["CD45", "PTPRC"]
    test = named(1, CD4="CD45RO")
    ((_, unseen),) = protein_tasks([cells[0]], test, CONFIG, model, None)
    assert unseen == ["CD19"]


def test_a_training_set_with_too_few_proteins_left_is_dropped(cells):
    _, test = cells
    table = make_cells(30, seed=3)
    table.obsm["protein"] = table.obsm["protein"][["CD3", "CD4"]]
    few = open_cells(table)
    for task, unseen in protein_tasks([cells[0], few], test, CONFIG, None, RECIPE):
        kept = 2 if not {"CD3", "CD4"} & set(unseen) else 1
        assert len(task.train) == kept


def test_a_checkpoint_is_asked_for_what_it_does_not_know(cells):
    train, test = cells
    model = tiny_checkpoint(without=("CD19",))
    ((task, unseen),) = protein_tasks([train], test, CONFIG, model, None)
    assert "CD19" in unseen
    assert not set(unseen) & set(model.protein_names)
    assert task.part == "unseen proteins"


def test_without_a_question_it_says_so(cells):
    train, test = cells
    known = test.without(["CD15"])
    with pytest.raises(InputError, match="the model has learnt all of its 6 proteins"):
        list(protein_tasks([train], known, CONFIG, tiny_checkpoint(), None))
    with pytest.raises(InputError, match="needs a model"):
        list(protein_tasks([train], test, CONFIG, None, None))
    nothing = test.without([*CODED])
    with pytest.raises(InputError, match="none of its proteins has a coding gene"):
        list(protein_tasks([train], nothing, replace(CONFIG), None, RECIPE))
