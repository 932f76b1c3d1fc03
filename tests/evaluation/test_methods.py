"""Methods of a benchmark: what they predict, and how often they are fitted."""

import numpy as np
import pytest

from evaluation.made_up import make_cells
from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core.evaluation import methods
from sclinguist_core.evaluation.degrade import Degradation
from sclinguist_core.evaluation.methods import LearnerMethods, ModelMethod, with_proteins
from sclinguist_core.evaluation.tasks import Task, open_cells
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.progress import finish

PROTEINS = ["CD19", "CD3"]


@pytest.fixture(scope="module")
def task():
    train = [open_cells(make_cells(n, seed=n)) for n in (120, 100)]
    return Task(train=train, test=open_cells(make_cells(50, seed=7)))


def test_the_model_answers_in_the_order_of_the_proteins(task):
    checkpoint = tiny_checkpoint()
    found = ModelMethod(checkpoint, PROTEINS, device="cpu").predict(task.test)
    prediction = finish(predict_iter(task.test.to_section(), model=checkpoint, device="cpu"))
    order = [prediction.names.index(name) for name in PROTEINS]
    np.testing.assert_allclose(found.clr["model"], prediction.mean[:, order], rtol=1e-5, atol=1e-6)
    assert found.log1p == {}


def test_log1p_counts_are_learnt_from_training_cells(task):
    checkpoint = tiny_checkpoint()
    method = ModelMethod(checkpoint, PROTEINS, device="cpu", log1p_from=task.train)
    found = method.predict(task.test)
    plain = ModelMethod(checkpoint, PROTEINS, device="cpu")
    np.testing.assert_allclose(found.clr["model"], plain.predict(task.test).clr["model"], atol=1e-5)
    # Deep cells have more of every protein: that is what log1p counts add to the CLR.
    size = np.log(np.asarray(task.test.paired.rna.counts.sum(axis=1)).ravel())
    counts, clr = (
        np.corrcoef(x["model"].mean(axis=1), size)[0, 1] for x in (found.log1p, found.clr)
    )
    assert counts > 0.5
    assert counts > clr + 0.2


def test_unknown_proteins_are_added_by_their_genes():
    checkpoint = tiny_checkpoint(without=("CD19",))
    assert with_proteins(checkpoint, ["CD3"]) is checkpoint
    wider = with_proteins(checkpoint, ["CD19", "CD3"])
    assert set(wider.protein_names) == {*checkpoint.protein_names, "CD19"}
    assert wider.proteins.set_index("name").loc["CD19", "genes"] == "CD19"


def test_learners_are_fitted_once_for_each_set_of_genes(task, monkeypatch):
    calls = []
    fit = methods.fit_learners

    def counted(training, measured, *args, **options):
        calls.append(int(measured.sum()))
        return fit(training, measured, *args, **options)

    monkeypatch.setattr(methods, "fit_learners", counted)
    method = LearnerMethods(task, PROTEINS, methods=("ridge",))
    full = method.predict(task.test).clr["ridge"]
    shallow = Degradation(depth=0.5).apply(task.test.paired.rna)
    method.predict(task.test.with_rna(shallow))
    assert len(calls) == 1
    panel = Degradation(n_genes=250).apply(task.test.paired.rna)
    poorer = method.predict(task.test.with_rna(panel)).clr["ridge"]
    assert len(calls) == 2
    assert calls[1] == 250 < calls[0]
    assert full.shape == poorer.shape == (50, 2)
    truth = task.test.truth(PROTEINS).clr  # CD3, CD19
    for values in (full, poorer):
        assert np.corrcoef(values[:, 1], truth[:, 0])[0, 1] > 0.6


def test_log1p_learners_predict_both_scales(task):
    both = LearnerMethods(task, PROTEINS, methods=("ridge",), log1p=True).predict(task.test)
    clr = LearnerMethods(task, PROTEINS, methods=("ridge",)).predict(task.test)
    np.testing.assert_allclose(both.clr["ridge"], clr.clr["ridge"], atol=1e-4)
    logged = np.log1p(task.test.truth(PROTEINS).raw)[:, ::-1]
    r = [
        np.mean([np.corrcoef(x[:, i], logged[:, i])[0, 1] for i in range(2)])
        for x in (both.log1p["ridge"], both.clr["ridge"])
    ]
    assert r[0] > r[1]
    assert clr.log1p == {}


def test_learners_know_their_components(task):
    method = LearnerMethods(task, PROTEINS, methods=("ridge",))
    components = method.components(task.test)
    assert components.shape[0] == 50
    assert np.isfinite(components).all()
    assert components[:, 0].std() > components[:, -1].std()
