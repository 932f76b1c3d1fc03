"""The published architecture as a baseline, very small."""

import numpy as np
import pandas as pd
import pytest
import torch

from evaluation.made_up import CANONICAL, CODING, make_cells
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import published
from sclinguist_core.evaluation.inputs import paired_cells
from sclinguist_core.evaluation.metrics import pearson

NAMES = [CANONICAL.get(name, name) for name in CODING]
SMALL = published.PublishedTraining(n_genes=60, width=8, steps=200, batch_size=32)


def rna_of(table):
    return RnaCounts(table.X, table.var_names.to_numpy(str))


@pytest.fixture(scope="module")
def query():
    return make_cells(200, seed=5)


@pytest.fixture(scope="module")
def predictor():
    first, second = make_cells(400, seed=1), make_cells(300, seed=2, depth=2.0)
    del second.obsm["protein"]["CD4"]
    return published.train([paired_cells(first), paired_cells(second)], training=SMALL)


def test_it_learns_proteins_from_genes(predictor, query):
    predicted = predictor.predict(rna_of(query), [*NAMES, "CD15"])
    assert predicted.shape == (200, 7)
    truth = np.column_stack([query.obsm["hidden"], np.zeros(200)])
    r = pearson(predicted, truth)
    assert np.nanmean(r) > 0.4
    # Standard deviations of the training targets, so neither tiny nor huge.
    assert 0.2 < predicted.std(axis=0)[:6].mean() < 1.5


def test_a_protein_that_nobody_measured_is_unknown(predictor, query):
    predicted = predictor.predict(rna_of(query), ["CD56", "CD19"])
    assert np.isnan(predicted[:, 0]).all()
    assert np.isfinite(predicted[:, 1]).all()
    assert np.isnan(predictor.predict(rna_of(query), ["CD56"])).all()


def test_order_and_subset_of_proteins_change_nothing(predictor, query):
    every = predictor.predict(rna_of(query), NAMES)
    one = predictor.predict(rna_of(query), [NAMES[3]])
    np.testing.assert_allclose(one[:, 0], every[:, 3], rtol=1e-4, atol=1e-5)


def test_isotypes_are_no_targets(predictor):
    assert predictor.proteins == sorted([*NAMES, "CD15"])


def test_one_call_is_repeatable_and_leaves_randomness_alone(query):
    train = [paired_cells(make_cells(100, seed=1))]
    quick = published.PublishedTraining(n_genes=40, width=4, batch_size=16)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    seen = []
    first, second, other = (
        published.train_and_predict(
            train, rna_of(query), NAMES, seed=seed, steps=10, training=quick,
            progress=lambda done, total, loss: seen.append((done, total, loss)),
        )
        for seed in (0, 0, 1)
    )  # fmt: skip
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3
    assert torch.equal(torch.get_rng_state(), state)
    assert [step[:2] for step in seen[:10]] == [(i, 10) for i in range(1, 11)]
    assert all(step[2] > 0 for step in seen)


def test_genes_that_the_query_lacks_are_not_learnt_from(query):
    narrow = query[:, 100:].copy()
    predicted = published.train(
        [paired_cells(make_cells(60, seed=1))],
        measured=narrow.var_names.tolist(),
        training=published.PublishedTraining(n_genes=500, width=4, steps=10),
    )
    assert set(predicted.symbols) <= set(narrow.var_names)
    assert len(predicted.symbols) == 300


def test_too_little_to_learn_from_is_said(query):
    cells = make_cells(30)
    with pytest.raises(InputError, match="share 50 genes"):
        published.train(
            [paired_cells(cells)], measured=cells.var_names[:50].tolist(), training=SMALL
        )
    cells.obsm["protein"] = cells.obsm["protein"][["CD19", "IgG1"]]
    with pytest.raises(InputError, match="1 known proteins"):
        published.train([paired_cells(cells)], training=SMALL)


def test_size_and_what_is_said_of_it():
    full = published.training_for("cuda")
    assert full.sizes(5_000, 30).bridge_sizes == (19_202, 11_110, 6_427)
    assert "published sizes" in published.describe(full)
    small = published.training_for("cpu")
    assert small.sizes(1_500, 30).bridge_sizes == (1_500, 213, 30)
    assert "scaled down to 2,000 genes and width 16" in published.describe(small)
    with pytest.raises(ValueError, match="steps"):
        published.PublishedTraining(steps=0)
    with pytest.raises(ValueError, match="learning_rate"):
        published.PublishedTraining(learning_rate=0)


def test_full_size_positions_stay_empty_after_the_last_gene(monkeypatch, query):
    # The published layout at sizes that a test can afford.
    from sclinguist_core.model.hyena_config import HyenaConfig

    config = HyenaConfig(n_genes=450, n_proteins=40, width=4)
    monkeypatch.setattr(published.PublishedTraining, "sizes", lambda *_: config)
    predictor = published.train(
        [paired_cells(make_cells(60, seed=1))],
        training=published.PublishedTraining(full_size=True, steps=10, batch_size=8),
    )
    assert len(predictor.symbols) == 400
    assert predictor.model.config.n_proteins == 40
    assert predictor.predict(rna_of(query), NAMES).shape == (200, 6)


def test_targets_are_min_max_of_the_panel_of_a_cell():
    from sclinguist_core.train.published_cells import published_targets

    protein = pd.DataFrame(
        {"CD3": [0.0, 5.0], "CD8a": [10.0, 1.0], "clone": [30.0, np.nan], "IgG1": [99.0, 0.0]}
    )
    panel = pd.DataFrame(
        {"canonical": ["CD3", "CD8", "CD8", ""], "isotype": [False, False, False, True]}
    )
    found = published_targets(protein, panel, ["CD8", "CD19", "CD3"])
    np.testing.assert_allclose(found[:, 2], [0, 1], atol=1e-6)
    np.testing.assert_allclose(found[:, 0], [2 / 3, 0], atol=1e-6)
    assert np.isnan(found[:, 1]).all()


def test_the_loss_averages_over_proteins_and_then_over_cells():
    from sclinguist_core.train.published_cells import published_error

    nan = float("nan")
    target = torch.tensor([[0.0, 0.0, 0.0], [0.0, nan, nan], [nan, nan, nan]])
    predicted = torch.tensor([[1.0, 1.0, 1.0], [2.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    predicted.requires_grad_()
    loss = published_error(predicted, target)
    assert loss.item() == pytest.approx((1 + 4) / 2)
    loss.backward()
    assert torch.isfinite(predicted.grad).all()
    assert predicted.grad[2].abs().sum() == 0
    assert published_error(predicted, torch.full((3, 3), nan)).item() == 0
