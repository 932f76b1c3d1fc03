"""A task from fit to tables: same cells, same proteins, for all methods."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.made_up import make_cells
from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.benchmark_config import FULL, BenchmarkConfig
from sclinguist_core.evaluation.runner import Runner, proteins_of, to_antibodies, trivial
from sclinguist_core.evaluation.tasks import Task, open_cells

CONFIG = BenchmarkConfig(learners=("ridge",), totalvi=False, n_resamples=20, device="cpu")


def without(n, *proteins, seed):
    table = make_cells(n, seed=seed)
    table.obsm["protein"] = table.obsm["protein"].drop(columns=list(proteins))
    return open_cells(table)


@pytest.fixture
def task():
    train = [without(80, "CD15", "CD4", seed=1), without(60, "CD15", "CD3", seed=2)]
    return Task(train=train, test=open_cells(make_cells(50, seed=3)))


def run(config, task, checkpoint=None, **options):
    runner = Runner(config, checkpoint, None, lambda words: None)
    runner.task(task, **options)
    return runner.result()


def test_what_no_training_set_measured_is_asked_of_nobody(task):
    assert proteins_of(task, None) == ["CD3", "CD4", "CD8", "CD19", "CD14", "CD279"]
    assert proteins_of(task, tiny_checkpoint(without=["CD19"])) == [
        "CD3", "CD4", "CD8", "CD14", "CD279",
    ]  # fmt: skip
    alien = replace(task, train=[without(40, "CD3", "CD4", "CD8a", "CD19", "CD14", "PD-1", seed=4)])
    assert proteins_of(alien, None) == ["CD15"]
    with pytest.raises(InputError, match="none of its proteins was measured by a training set"):
        proteins_of(alien, tiny_checkpoint())


def test_all_methods_are_scored_on_one_list(task):
    result = run(CONFIG, task, tiny_checkpoint(without=["CD19"]))
    methods = result.per_protein.groupby("method")["protein"].agg(list)
    assert set(map(tuple, methods)) == {("CD3", "CD4", "CD8", "CD14", "CD279")}
    assert set(methods.index) == {"model", "ridge", "protein mean", "total count", "cognate mRNA"}


def test_poorer_inputs_come_after_the_full_one(task):
    config = replace(CONFIG, n_genes=250, depth=0.5, repeats=2)
    labels = [(d.label, d.seed) for d in config.degradations()]
    assert labels == [
        ("full", 0), ("50% depth", 0), ("50% depth", 1), ("250 genes", 0), ("250 genes", 1),
    ]  # fmt: skip
    assert next(config.degradations()) is FULL
    found = run(config, task).summary[["input", "seed"]].drop_duplicates()
    assert list(found.itertuples(index=False, name=None)) == labels


def test_a_panel_that_is_no_smaller_is_said_and_left_out(task):
    result = run(replace(CONFIG, n_genes=5_000, repeats=1), task)
    assert set(result.summary["input"]) == {"full"}
    assert result.warnings == ("AnnData: has no more than 5000 genes to draw from.",)


def test_simulated_data_are_said(task):
    simulated = replace(task, test=replace(task.test, simulated=True))
    assert run(CONFIG, simulated).warnings == (
        "AnnData: simulated data; its figures say nothing about real tissue.",
    )


def test_trivial_predictions_need_no_training(task):
    truth = task.test.truth(["CD8", "CD3"])
    found = trivial(task.test, truth)
    assert (found["protein mean"] == 0).all()
    counts = task.test.paired.rna.counts.toarray()
    names = list(task.test.paired.rna.names)
    cd3 = counts[:, [names.index(g) for g in ("CD3D", "CD3E", "CD3G")]].sum(axis=1)
    per_10k = np.log1p(1e4 * cd3 / counts.sum(axis=1))
    assert np.corrcoef(found["cognate mRNA"][:, 0], per_10k)[0, 1] > 0.6
    total = found["total count"]
    np.testing.assert_array_equal(total[:, 0], total[:, 1])


def test_two_antibodies_of_a_protein_get_the_same_prediction():
    table = make_cells(30)
    table.obsm["protein"]["CD3.2"] = table.obsm["protein"]["CD3"] + 1
    truth = open_cells(table).truth(["CD3", "CD4"])
    assert list(truth.proteins) == ["CD3", "CD4", "CD3"]
    values = np.arange(60.0).reshape(30, 2)
    found = to_antibodies({"x": values}, ["CD4", "CD3"], truth)["x"]
    np.testing.assert_array_equal(found, values[:, [1, 0, 1]])
