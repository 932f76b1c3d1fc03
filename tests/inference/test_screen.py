"""Every gene by itself against one protein: what is ranked, estimated, run and skipped."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sclinguist_core as scl
from inference.untrained import EMPTY, untrained_cells, untrained_checkpoint
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import perturber
from sclinguist_core.inference import screen as module
from sclinguist_core.inference.perturb import perturb_iter
from sclinguist_core.inference.progress import finish
from sclinguist_core.inference.runner import Runner
from sclinguist_core.inference.screen import screen_iter


@pytest.fixture(scope="module")
def cells():
    return untrained_cells()


@pytest.fixture(scope="module")
def checkpoint(cells):
    return untrained_checkpoint(cells)


def run(cells, protein="CD19", **options):
    return finish(screen_iter(as_section(cells), protein, device="cpu", **options))


def exact(cells, checkpoint, gene, scale=0.0):
    found = finish(
        perturb_iter(
            as_section(cells), [gene], model=checkpoint, proteins=["CD19"], scale=scale
        )
    )  # fmt: skip
    return found.change[:, 0], found.affected


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_genes_that_are_run_change_what_a_perturbation_changes(cells, checkpoint, scale):
    genes = ["CD19", "CD14", "CD4"]
    found = run(cells, model=checkpoint, genes=genes, n_exact=None, scale=scale)
    assert found.protein == "CD19"
    assert found.table.loc["CD19", "coded"]
    assert not found.table.loc["CD14", "coded"]
    assert found.table["run"].all()
    assert found.table["estimate"].isna().all()
    with_reads = np.arange(70) != EMPTY
    np.testing.assert_array_equal(found.rows, np.flatnonzero(with_reads))
    for gene in genes:
        change, affected = exact(cells, checkpoint, gene, scale)
        row = found.table.loc[gene]
        assert row["n_cells"] == affected.sum()
        np.testing.assert_allclose(row["mean_change"], change[affected].mean(), atol=1e-6)
        np.testing.assert_allclose(row["mean_change_all"], change[with_reads].mean(), atol=1e-6)
    assert found.table["rank"].tolist() == [1, 2, 3]
    assert (np.diff(found.table["mean_change"].abs()) <= 0).all()


def test_the_best_by_the_estimate_are_run(cells, checkpoint):
    every = run(cells, model=checkpoint, n_exact=None)
    found = run(cells, model=checkpoint, n_exact=5)
    table = found.table
    assert table.index.sort_values().tolist() == every.table.index.sort_values().tolist()
    assert 5 <= table["run"].sum() <= 11  # five of either ranking, and the protein's own gene
    assert table.loc["CD19", "run"]
    assert table.loc[~table["run"], "rank"].min() > 3
    np.testing.assert_array_equal(
        table.loc[~table["run"], "mean_change"], table.loc[~table["run"], "estimate"]
    )
    same = every.table.loc[table.index]
    ran = table["run"]
    np.testing.assert_allclose(
        table.loc[ran, "mean_change"], same.loc[ran, "mean_change"], atol=1e-6
    )
    assert np.corrcoef(table["estimate"], same["mean_change"])[0, 1] > 0.9
    assert found.info["n_run"] == ran.sum()
    assert found.info["n_genes"] + found.info["n_skipped"] == len(checkpoint.genes)
    assert np.isfinite(table["z"]).all()
    assert np.corrcoef(table["z"], table["estimate"])[0, 1] > 0.8


def test_rare_genes_are_skipped_but_for_the_proteins_own(cells, checkpoint):
    common = run(cells, model=checkpoint, n_exact=1, min_cells=60)
    n_cells = np.asarray((cells.X > 0).sum(axis=0)).ravel()
    expected = set(cells.var_names[n_cells >= 60]) | {"CD19"}
    assert set(common.table.index) == expected
    with pytest.raises(InputError, match="none of 1 genes is expressed in 60"):
        run(cells, model=checkpoint, genes=["CD14"], min_cells=60)


def test_a_sample_is_spread_over_groups_or_predictions(cells, checkpoint):
    groups = pd.Series(np.where(np.arange(70) < 20, "few", "many"))
    groups[65:] = None
    found = run(cells, model=checkpoint, n_exact=1, n_cells=16, groups=groups, genes=["CD19"])
    assert groups[found.rows].value_counts().to_dict() == {"many": 11, "few": 5}
    assert found.info["sample_spread_over"] == "groups"
    again = run(cells, model=checkpoint, n_exact=1, n_cells=16, groups=groups, genes=["CD19"])
    np.testing.assert_array_equal(found.rows, again.rows)
    other = run(
        cells, model=checkpoint, n_exact=1, n_cells=16, groups=groups, genes=["CD19"], seed=1
    )
    assert found.rows.tolist() != other.rows.tolist()
    predicted = scl.predict(cells, model=checkpoint, device="cpu").obsm["protein_predicted"]["CD19"]
    spread = run(cells, model=checkpoint, n_cells=16, genes=["CD19"], min_cells=1)
    assert spread.info["sample_spread_over"] == "predicted CD19"
    known = predicted.dropna()
    ranks = (known.rank() / len(known)).reindex(predicted.index).to_numpy()[spread.rows]
    np.testing.assert_allclose(np.sort(ranks), (np.arange(16) + 0.5) / 16, atol=0.03)


def test_batches_change_nothing(cells, checkpoint, monkeypatch):
    whole = run(cells, model=checkpoint, n_exact=4).table
    monkeypatch.setattr(module, "CHUNK_ROWS", 9)
    monkeypatch.setattr(module, "BATCH_RUNS", 3)
    small = run(cells, model=checkpoint, n_exact=4, batch_size=2).table.loc[whole.index]
    np.testing.assert_allclose(small["mean_change"], whole["mean_change"], atol=1e-6)
    np.testing.assert_allclose(small["estimate"], whole["estimate"], atol=1e-6)
    np.testing.assert_allclose(small["effect_size"], whole["effect_size"], rtol=1e-3, atol=1e-5)


def test_a_model_that_cannot_be_estimated_is_run_in_full(cells, checkpoint, monkeypatch):
    monkeypatch.setattr(module, "has_first_order", lambda model: False)
    found = run(cells, model=checkpoint, n_exact=1, genes=["CD19", "CD14", "CD4"])
    assert found.table["run"].all()
    assert found.table["estimate"].isna().all()


def test_bad_estimates_are_said_to_be_bad(cells, checkpoint, monkeypatch):
    def wrong(*args, **options):
        for rows, genes, change, mean in true(*args, **options):
            yield rows, genes, 2 * change, mean

    true = module.first_order_iter
    assert run(cells, model=checkpoint, n_exact=2).warnings == ()
    monkeypatch.setattr(module, "first_order_iter", wrong)
    (warning,) = run(cells, model=checkpoint, n_exact=2).warnings
    assert "Estimates of the genes that were run are off by" in warning


def test_progress_and_cancelling(cells, checkpoint, monkeypatch):
    steps = screen_iter(
        as_section(cells), "CD19", model=checkpoint, device="cpu", n_cells=30, n_exact=3
    )
    progress = list(steps)
    phases = list(dict.fromkeys(p.phase for p in progress))
    assert phases == [
        "loading model",
        "choosing a sample",
        "estimating all genes",
        "running genes one by one",
    ]
    for phase in phases[1:]:
        done = [p.done for p in progress if p.phase == phase]
        assert done == sorted(done)
        assert {p.total for p in progress if p.phase == phase} == {done[-1]}
    batches = []
    run_expression = Runner.run_expression

    def counted(self, *args):
        for batch in run_expression(self, *args):
            batches.append(len(batch[0]))
            yield batch

    monkeypatch.setattr(Runner, "run_expression", counted)
    steps = screen_iter(
        as_section(cells), "CD19", model=checkpoint, device="cpu", n_exact=None, batch_size=3
    )
    next(steps)
    next(steps)
    steps.close()
    assert len(batches) == 1


def test_one_at_a_time():
    cell = as_row([1.0, 0.0, 3.0])
    gone = perturber.one_at_a_time(cell, np.array([0, 1]), 0.0)
    np.testing.assert_allclose(np.expm1(gone.toarray()), [[0, 0, 3], [1, 0, 0]], rtol=1e-6)
    assert gone.nnz == 2
    doubled = perturber.one_at_a_time(cell, np.array([1]), 2.0)
    np.testing.assert_allclose(np.expm1(doubled.toarray()), [[1, 0, 6]], rtol=1e-6)
    assert perturber.one_at_a_time(cell, np.array([], int), 0.0).shape == (0, 3)


def as_row(values):
    return sparse.csr_matrix(np.log1p(np.array([values], np.float32)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 1.0}, "leaves the expression as it is"),
        ({"scale": -1.0}, "scale -1.0"),
        ({"n_cells": 0}, "sample 0: expected at least 1"),
        ({"n_exact": 0}, "n_exact 0"),
        ({"genes": ["NOSUCHGENE"]}, "not a known gene"),
        ({"protein": "foobar"}, "foobar"),
        ({"groups": ["a"]}, "found 1 labels"),
        ({"groups": [None] * 70}, "found no row"),
    ],
)
def test_options_that_make_no_sense(cells, checkpoint, options, message):
    with pytest.raises(InputError, match=message):
        run(cells, model=checkpoint, **options)


def test_the_notebook_function_does_the_same(cells, checkpoint):
    found = scl.screen(cells, "cd19", model=checkpoint, genes=["CD19", "CD14"], device="cpu")
    same = run(cells, model=checkpoint, genes=["CD19", "CD14"])
    pd.testing.assert_frame_equal(found.table, same.table)
