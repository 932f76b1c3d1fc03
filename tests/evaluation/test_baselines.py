"""Untrained and trained baselines on made-up cells."""

import numpy as np
import pandas as pd
import pytest

from evaluation.made_up import CANONICAL, CODING, make_cells
from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import baselines, learners
from sclinguist_core.evaluation.inputs import paired_cells
from sclinguist_core.evaluation.metrics import pearson


def rna_of(table):
    return RnaCounts(table.X, table.var_names.to_numpy(str))


def test_total_count_is_depth_and_vanishes_against_clr():
    counts = make_cells(500).obsm["protein"]
    score = baselines.total_count(counts)
    assert score.shape == counts.shape
    np.testing.assert_allclose(score[:, 0], np.log1p(counts.sum(axis=1)), rtol=1e-6)
    isotype = counts.columns == "IgG1"
    clr = protein_clr(counts, isotype).to_numpy()[:, ~isotype]
    logged = np.log1p(counts.to_numpy(float))[:, ~isotype]
    assert pearson(score[:, ~isotype], logged).mean() > 0.3
    assert abs(pearson(score[:, ~isotype], clr).mean()) < 0.1


def test_total_count_of_an_unmeasured_cell_is_unknown():
    counts = pd.DataFrame({"CD3": [1.0, np.nan, 2.0], "CD4": [2.0, np.nan, np.nan]})
    np.testing.assert_allclose(
        baselines.total_count(counts)[:, 0], [np.log(4), np.nan, np.log(3)], equal_nan=True
    )


def test_cognate_mrna_takes_the_best_coding_gene():
    table = make_cells(400)
    measured = table.obsm["hidden"][:, :2]
    silent = table.copy()
    lil = silent.X.tolil()
    lil[:, list(table.var_names).index("CD3D")] = 1
    silent.X = lil.tocsr()
    result = baselines.cognate_mrna(rna_of(silent), [["CD3D", "CD3E"], []], measured)
    assert result.genes == ("CD3E", "")
    assert np.isnan(result.values[:, 1]).all()
    size = np.asarray(silent.X.sum(axis=1)).ravel()
    column = silent.X[:, list(table.var_names).index("CD3E")].toarray().ravel()
    np.testing.assert_allclose(result.values[:, 0], np.log1p(1e4 * column / size), rtol=1e-5)


def test_cognate_mrna_that_was_not_measured_is_missing():
    table = make_cells(50)
    result = baselines.cognate_mrna(rna_of(table), [["MS4A1"]], np.zeros((50, 1)))
    assert result.genes == ("",)
    assert np.isnan(result.values).all()


def test_targets_are_canonical_standardised_and_averaged():
    table = make_cells(100)
    frame = table.obsm["protein"]
    frame["CD279"] = frame["PD-1"]
    targets = paired_cells(table).targets()
    assert set(targets.columns) == {CANONICAL.get(n, n) for n in CODING} | {"CD15"}
    np.testing.assert_allclose(targets.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(targets.std(ddof=0), 1, rtol=1e-4)


def test_learners_learn_what_can_be_learnt():
    train = [paired_cells(make_cells(700, seed=s)) for s in (1, 2)]
    test = make_cells(300, seed=3)
    proteins = ["CD3", "CD8", "CD19", "CD15", "CD20"]
    result = learners.learn_and_predict(train, rna_of(test), proteins)
    assert set(result) == set(learners.LEARNERS)
    truth = test.obsm["hidden"][:, [0, 2, 3]]
    for method, values in result.items():
        assert values.shape == (300, 5)
        assert np.isnan(values[:, 4]).all(), f"{method} predicts CD20, which nobody measured"
        r = pearson(values[:, :3], truth)
        assert r.min() > 0.75, f"{method}: {r}"
        assert abs(values[:, :3].mean()) < 0.2
        assert values[:, :3].std() < 1.2
    again = learners.learn_and_predict(train, rna_of(test), proteins)
    np.testing.assert_allclose(again["MLP"][:, :4], result["MLP"][:, :4], rtol=1e-5)


def test_a_protein_is_learnt_from_the_sets_that_measured_it():
    first, second = make_cells(500, seed=1), make_cells(500, seed=2)
    second.obsm["protein"] = second.obsm["protein"].drop(columns=["CD19"])
    test = make_cells(200, seed=3)
    both = learners.learn_and_predict(
        [paired_cells(first), paired_cells(second)], rna_of(test), ["CD19", "CD3"]
    )
    for method in ("kNN", "ridge", "kernel ridge", "MLP"):
        assert pearson(both[method], test.obsm["hidden"][:, [3, 0]]).min() > 0.7, method


def test_ridge_equals_the_textbook_solution():
    from sclinguist_core.evaluation.solvers import fit_ridge, gram_of

    rng = np.random.default_rng(0)
    x = [rng.normal(size=(40, 6)) + 1, rng.normal(size=(30, 6))]
    y = [rng.normal(size=(40, 2)), rng.normal(size=(30, 2))]
    y = [part - part.mean(axis=0) for part in y]
    gram = [gram_of(iter([a[:25], a[25:]]), b) for a, b in zip(x, y, strict=True)]
    query = rng.normal(size=(5, 6))
    groups = [([0, 1], np.array([0])), ([1], np.array([1]))]
    out = fit_ridge(gram, 0.5, groups, 2)([query])
    for sets, column in (([0, 1], 0), ([1], 1)):
        a = np.concatenate([x[d] for d in sets])
        b = np.concatenate([y[d][:, column] for d in sets])
        centre = a.mean(axis=0)
        penalised = (a - centre).T @ (a - centre) + 0.5 * len(a) * np.eye(6)
        w = np.linalg.solve(penalised, (a - centre).T @ b)
        np.testing.assert_allclose(out[:, column], (query - centre) @ w, atol=1e-6)


def test_genes_that_a_cell_did_not_measure_are_missing_not_zero():
    table = make_cells(300, seed=4)
    measured = np.ones(table.shape, bool)
    measured[:150, 250:] = False
    zeroed = table.X.toarray() * measured
    query = RnaCounts(type(table.X)(zeroed), table.var_names.to_numpy(str), None, measured)
    blind = RnaCounts(query.counts, query.names)
    train = [paired_cells(make_cells(600, seed=s)) for s in (1, 2)]
    truth = table.obsm["hidden"][:, [0, 3]]
    errors = [
        np.mean((learners.learn_and_predict(train, q, ["CD3", "CD19"])["ridge"] - truth) ** 2)
        for q in (query, blind)
    ]
    assert errors[0] < errors[1]


def test_too_few_shared_genes_and_no_shared_protein_are_said():
    train = paired_cells(make_cells(60))
    few = make_cells(60)[:, :100].copy()
    with pytest.raises(InputError, match=r"share \d+ genes, expected at least 200"):
        learners.learn_and_predict([train], rna_of(few), ["CD3"])
    with pytest.raises(InputError, match=r"none of .* measured any of the 1 proteins"):
        learners.learn_and_predict([train], rna_of(make_cells(60)), ["CD33"])


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "expected", "cognate"),
    [("citeseq/pbmc1k.h5ad", 0.77, 0.50), ("spatial/tonsil_composite/outs", 0.47, 0.21)],
)
def test_figures_on_real_data(test_data, test, expected, cognate):
    """Trained on two PBMC sets, the baselines reach what is known of them on unseen data."""
    from sclinguist_core.evaluation.inputs import as_section, measured_protein

    train = [paired_cells(test_data / "citeseq" / f"{name}.h5ad") for name in ("pbmc10k", "pbmc5k")]
    section = as_section(test_data / test)
    counts, panel = measured_protein(section, wanted_by=section)
    isotype = panel["isotype"].to_numpy(bool)
    clr = protein_clr(counts, isotype).to_numpy()[:, ~isotype]
    proteins = panel["canonical"][~isotype].tolist()
    assert len(proteins) == 14
    result = learners.learn_and_predict(train, section.rna(), proteins)
    assert pearson(result["mean of four"], clr).mean() > expected
    genes = [text.split(";") if text else [] for text in panel["genes"][~isotype]]
    r = pearson(baselines.cognate_mrna(section.rna(), genes, clr).values, clr)
    assert np.nanmean(r) == pytest.approx(cognate, abs=0.03)
    total = baselines.total_count(counts)[:, :14]
    assert abs(pearson(total, clr).mean()) < 0.04


def test_principal_axes_are_those_of_an_exact_solver():
    from sclinguist_core.evaluation.solvers import gram_of, principal_axes

    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 12)) * 2.0 ** -np.arange(12)) @ rng.normal(size=(12, 150)) + 3
    x += 0.05 * rng.normal(size=x.shape)
    x = x.astype(np.float32)
    gram = [gram_of([part], np.zeros((len(part), 1), np.float32)) for part in (x[:200], x[200:])]
    axes = principal_axes(gram, 5)
    exact = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:5]
    np.testing.assert_allclose(np.abs(exact @ axes.vectors).diagonal(), 1, atol=2e-3)
    np.testing.assert_allclose(axes.components([x]).mean(axis=0), 0, atol=1e-3)


def test_neighbours_are_merged_over_the_sets_that_measured_the_protein():
    from sclinguist_core.evaluation.solvers import Neighbours, availability

    rng = np.random.default_rng(0)
    pcs = [rng.normal(size=(n, 3)).astype(np.float32) for n in (40, 60)]
    targets = [rng.normal(size=(n, 2)).astype(np.float32) for n in (40, 60)]
    targets[1][:, 1] = np.nan
    query = rng.normal(size=(7, 3)).astype(np.float32)
    found = Neighbours(pcs, targets, availability(targets, [0, 1]), k=5)(query)

    def by_hand(x, y):
        cosine = (query / np.linalg.norm(query, axis=1, keepdims=True)) @ (
            x / np.linalg.norm(x, axis=1, keepdims=True)
        ).T
        return y[np.argsort(-cosine, axis=1)[:, :5]].mean(axis=1)

    both = by_hand(np.concatenate(pcs), np.concatenate([t[:, 0] for t in targets]))
    np.testing.assert_allclose(found[:, 0], both, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], by_hand(pcs[0], targets[0][:, 1]), atol=1e-6)
