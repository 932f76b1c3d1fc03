"""The totalVI adapter, with a stand-in for scvi-tools that records what it is given."""

import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from evaluation.made_up import make_cells
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.tasks import Task, open_cells
from sclinguist_core.evaluation.totalvi import TotalViMethod


class FakeTotalVi:
    """Answers with the hidden order of the query's cells: 1, 2, 3, ... for every protein."""

    calls: ClassVar[dict] = {}

    @classmethod
    def setup_anndata(cls, table, *, batch_key, protein_expression_obsm_key):
        cls.calls = {"table": table, "batch": batch_key, "protein": protein_expression_obsm_key}

    def __init__(self, table):
        self.table = table

    def train(self, *, max_epochs, enable_progress_bar):
        self.calls["epochs"] = max_epochs

    def get_normalized_expression(self, table, *, indices, transform_batch, n_samples, return_mean):
        self.calls |= {"rows": indices, "transform": transform_batch}
        columns = table.obsm["protein"].columns
        values = np.arange(1, len(indices) + 1)[:, None] * (1 + np.arange(len(columns)))
        return None, pd.DataFrame(values, columns=columns)


@pytest.fixture
def fake(monkeypatch):
    module = SimpleNamespace(
        model=SimpleNamespace(TOTALVI=FakeTotalVi), settings=SimpleNamespace(seed=None)
    )
    monkeypatch.setitem(sys.modules, "scvi", module)
    return module


def test_query_proteins_are_hidden_and_training_proteins_are_counts(fake):
    second = make_cells(40, seed=2)
    second.obsm["protein"] = second.obsm["protein"].drop(columns="CD4")
    task = Task(
        train=[open_cells(make_cells(50, seed=1)), open_cells(second)],
        test=open_cells(make_cells(30, seed=3)),
    )
    method = TotalViMethod(task, ["CD3", "CD4", "CD20"], max_epochs=7, seed=5)
    found = method.predict(task.test)
    calls, table = FakeTotalVi.calls, FakeTotalVi.calls["table"]
    assert fake.settings.seed == 5
    assert calls["epochs"] == 7
    assert table.n_obs == 120
    assert (table.X.data == np.rint(table.X.data)).all()
    protein = table.obsm["protein"]
    assert list(protein.columns) == ["CD3", "CD4"]
    assert (protein.iloc[90:] == 0).all(axis=None)
    np.testing.assert_array_equal(
        protein["CD3"][:50], make_cells(50, seed=1).obsm["protein"]["CD3"]
    )
    assert (protein["CD4"][50:90] == 0).all()
    np.testing.assert_array_equal(calls["rows"], np.arange(90, 120))
    assert len(calls["transform"]) == 2
    assert found.clr["totalVI"].shape == (30, 3)
    assert np.isnan(found.clr["totalVI"][:, 2]).all()
    np.testing.assert_allclose(found.clr["totalVI"][:, :2].mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(found.log1p["totalVI"][:, 0], np.log1p(np.arange(1, 31)))


def test_too_few_shared_genes_are_said(fake):
    few = make_cells(40)[:, :150].copy()
    task = Task(train=[open_cells(few)], test=open_cells(make_cells(30, seed=3)))
    with pytest.raises(InputError, match="totalVI: training files and query share"):
        TotalViMethod(task, ["CD3"]).predict(task.test)
