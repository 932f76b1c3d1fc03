"""Methods that impute, scored on the same hidden entries."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from imputation_model import checkpoint_with_components
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.imputation import (
    COLUMNS,
    KnnImputer,
    MeanImputer,
    _Depths,
    _principal_components,
    evaluate_imputation_iter,
    score_imputers,
)
from sclinguist_core.inference.impute_calibration import Estimates, hide_entries, truth
from sclinguist_core.inference.progress import Progress, finish
from synthetic import paired_cells

N = 300


@pytest.fixture(scope="module")
def checkpoint():
    return checkpoint_with_components()


@pytest.fixture(scope="module")
def section():
    return as_section(paired_cells(N, seed=6))


@pytest.fixture(scope="module")
def scores(section, checkpoint):
    return finish(evaluate_imputation_iter(section, contexts=["nearest"], model=checkpoint))


@pytest.fixture(scope="module")
def rna(section, checkpoint):
    return align_genes(section.rna(), checkpoint.symbols)


def test_all_methods_are_scored_on_the_same_entries(scores, rna):
    table, info = scores.table, scores.info
    assert table.index.tolist() == [
        "gene mean",
        "kNN smoothing",
        "model, gene never measured",
        "model",
        "model, nearest context",
    ]
    assert table.columns.tolist() == list(COLUMNS)
    assert np.isfinite(table.to_numpy()).all()
    assert info["n_rows"] == N
    assert info["n_hidden"] == pytest.approx(0.2 * N * rna.n_measured, rel=0.02)
    assert sum(info["levels"]) == pytest.approx(1.0, abs=1e-3)
    assert info["n_expressed"] == pytest.approx(
        (1 - info["levels"][0]) * info["n_hidden"], rel=0.01
    )
    assert scores.per_gene.groupby("method").size().nunique() == 1


def test_the_model_beats_the_mean(scores):
    table = scores.table
    for column in ("mcc", "pearson", "pearson_per_gene"):
        assert table.loc["model", column] > table.loc["gene mean", column]
    assert table.loc["model", "pearson"] > 0.4


class Oracle:
    """Knows the answer; or the gene mean of nothing."""

    def __init__(self, name, rna, share, *, right):
        self.name, self.rna, self.share, self.right = name, rna, share, right

    def estimate(self, visible, hidden):
        yield Progress(0, 1, "knowing")
        assert visible.counts.multiply(hidden).nnz == 0
        value, level = truth(self.rna.expression(self.share), hidden)
        if not self.right:
            value, level = np.zeros_like(value), np.zeros_like(level)
        probability = np.eye(5, dtype=np.float32)[level]
        return Estimates(value=value, probability=probability, level=level.astype(np.int8))


def test_figures_of_perfect_and_of_constant_answers(rna, checkpoint):
    share = checkpoint.gene_share
    methods = {
        name: Oracle(name, rna, share, right=name == "right") for name in ("right", "constant")
    }
    rng = np.random.default_rng(0)
    with np.errstate(all="raise"):
        scored = finish(
            score_imputers({"right": methods["right"]}, rna, share, checkpoint.symbols, rng)
        )
    figures = scored.table.loc["right"].drop("seconds")
    np.testing.assert_allclose(figures.astype(float), 1.0, atol=1e-6)
    constant = finish(score_imputers(methods, rna, share, checkpoint.symbols, rng)).table
    assert np.isnan(constant.loc["constant", "mcc"])
    assert constant.loc["constant", "pearson_per_gene"] == 0.0


def test_baselines_see_only_what_is_visible(rna, checkpoint):
    visible, hidden = hide_entries(rna, 0.2, np.random.default_rng(0))
    for imputer in (MeanImputer(checkpoint.gene_share), KnnImputer(checkpoint.gene_share)):
        said = finish(imputer.estimate(visible, hidden))
        again = finish(imputer.estimate(visible, hidden))
        assert said.value.shape == (hidden.nnz,)
        np.testing.assert_array_equal(said.value, again.value)
        value, _ = truth(rna.expression(checkpoint.gene_share), hidden)
        assert np.corrcoef(said.value, value)[0, 1] > 0.3


def test_components_of_the_baseline_are_those_of_the_centred_matrix(rna, checkpoint):
    visible, hidden = hide_entries(rna, 0.2, np.random.default_rng(0))
    known = _Depths.of(visible, hidden, checkpoint.gene_share)
    places = _principal_components(known)
    x = np.where(hidden.toarray(), known.mean, known.expression.toarray())
    second_moment = (known.expression.toarray() ** 2).mean(axis=0)
    spread = np.sqrt(np.maximum(second_moment - known.mean**2, 0))
    weighted = (x - known.mean) * (spread + 0.1) ** -0.5
    u, s, _ = np.linalg.svd(weighted, full_matrices=False)
    expected = u[:, :30] * s[:30]
    np.testing.assert_allclose(places @ places.T, expected @ expected.T, atol=1e-3)


def test_more_methods_can_be_given(section, checkpoint, rna):
    other = Oracle("someone else's", rna, checkpoint.gene_share, right=True)
    scored = finish(evaluate_imputation_iter(section, model=checkpoint, others=[other]))
    assert scored.table.index[-1] == "someone else's"
    assert scored.table.loc["someone else's", "mcc"] == pytest.approx(1.0)
    assert scored.info["contexts"] == []


def test_what_makes_no_sense_is_refused(section, checkpoint):
    with pytest.raises(InputError, match="has no positions on a tissue"):
        finish(evaluate_imputation_iter(section, contexts=["spatial"], model=checkpoint))
    few = replace(section, table=section.table[:20].copy())
    with pytest.raises(InputError, match="20 cells or spots with reads, expected at least 50"):
        finish(evaluate_imputation_iter(few, model=checkpoint))


def test_a_cell_with_a_single_read_is_no_obstacle(section, checkpoint):
    table = section.table.copy()
    counts = table.X.tolil()
    counts[3] = 0
    counts[3, 5] = 1
    table.X = sparse.csr_matrix(counts, dtype=np.float32)
    scored = finish(evaluate_imputation_iter(as_section(table), model=checkpoint))
    assert np.isfinite(scored.table.to_numpy()).all()
