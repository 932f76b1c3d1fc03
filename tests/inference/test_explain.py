"""Attributions: that they add up, mean what they say, and end where they should."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sclinguist_core as scl
from inference.explained import by_hand, small_checkpoint
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import attribution
from sclinguist_core.inference import explain as module
from sclinguist_core.inference.attribution import Inputs, integrated_gradients
from sclinguist_core.inference.explain import best_predicted, explain_iter
from sclinguist_core.inference.explain_agreement import across_models, agreement, rankings_agree
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.progress import finish
from sclinguist_core.resources import sample_section_path
from synthetic import paired_cells

PROTEINS = ["CD3", "CD19"]


@pytest.fixture(scope="module")
def cells():
    adata = paired_cells(60)
    counts = adata.X.toarray()
    counts[4] = 0  # a cell without reads
    adata.X = sparse.csr_matrix(counts)
    return adata


@pytest.fixture(scope="module")
def checkpoint(cells):
    return small_checkpoint(cells)


def run(cells, checkpoint, **options):
    steps = explain_iter(as_section(cells), PROTEINS, model=checkpoint, device="cpu", **options)
    return finish(steps)


@pytest.fixture(scope="module")
def explained(cells, checkpoint):
    return run(cells, checkpoint, steps=64)


def test_gradients_of_a_product_are_shared_by_its_factors():
    """Integrated gradients of 3 a + a b: 3 a + a b / 2 for a, a b / 2 for b, at any even step."""

    def model(genes_BT, x_BT, panel, tables, proteins):
        one = 3 * x_BT[:, 0] + x_BT[:, 0] * x_BT[:, 1]
        two = x_BT[:, 1] ** 3
        return SimpleNamespace(mean=torch.stack([one, two], dim=1)[:, proteins])

    x_BT = torch.tensor([[2.0, 5.0], [1.0, 0.5]])
    cells = Inputs(torch.tensor([[0, 1], [0, 1]]), x_BT, None, None)
    found = integrated_gradients(model, cells, torch.tensor([0, 1]), steps=200)
    np.testing.assert_allclose(found.values_PBT[0], [[11, 5], [3.25, 0.25]], rtol=1e-5)
    np.testing.assert_allclose(found.values_PBT[1], [[0, 125], [0, 0.125]], rtol=1e-4)
    np.testing.assert_allclose(found.mean_BP, [[16, 125], [3.5, 0.125]])
    assert (found.start_BP == 0).all()


def test_attributions_add_up_to_the_prediction_in_its_unit(cells, checkpoint, explained):
    assert explained.names == PROTEINS
    sums = np.column_stack([np.asarray(m.sum(axis=1)).ravel() for m in explained.values])
    difference = explained.predicted - explained.start
    assert difference.std(axis=0).min() > 0.01
    np.testing.assert_allclose(sums, difference, atol=0.01 * difference.std())
    assert explained.info["completeness_error"] < 0.01
    prediction = finish(
        predict_iter(as_section(cells), proteins=PROTEINS, model=checkpoint, device="cpu")
    )
    np.testing.assert_allclose(explained.predicted, prediction.mean[explained.rows], atol=1e-5)


def test_only_expressed_genes_of_rows_with_reads_are_attributed(cells, checkpoint, explained):
    assert explained.rows.tolist() == [i for i in range(60) if i != 4]
    assert explained.n_obs == 60
    assert explained.warnings[-1] == (
        "1 of 60 rows express none of the model's genes and are not explained."
    )
    position = [cells.var_names.get_loc(symbol) for symbol in explained.symbols]
    counts = cells.X.toarray()[explained.rows][:, position]
    for matrix in explained.values:
        assert matrix.dtype == np.float32
        stored = sparse.csr_matrix(
            (np.ones(matrix.nnz), matrix.indices, matrix.indptr), matrix.shape
        )
        np.testing.assert_array_equal(stored.toarray() > 0, counts > 0)
    np.testing.assert_allclose(explained.expressing, (counts > 0).mean(axis=0))
    table = explained.per_row("CD19", ["CD19", "CD14"])
    assert table.shape == (60, 2)
    assert table.loc[4].isna().all()
    without = counts[:, explained.symbols.index("CD19")] == 0
    assert (table["CD19"].to_numpy()[explained.rows][without] == 0).all()


def test_steps_batches_and_chunks_do_not_matter(cells, checkpoint, explained, monkeypatch):
    coarse = run(cells, checkpoint, steps=8)
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    small = run(cells, checkpoint, steps=8, batch_size=3)
    for one, other in zip(small.values, coarse.values, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.data, other.data, atol=1e-5)
    assert agreement(coarse, explained)["rank_correlation"].min() > 0.99


def test_shares_add_up_and_are_those_of_resampled_rows(explained):
    shares = explained.shares()
    for i in range(2):
        said = explained.predicted[:, i].astype(float)
        dense = explained.values[i].toarray().astype(float)
        expected = [np.cov(column, said, ddof=0)[0, 1] / said.var() for column in dense.T]
        np.testing.assert_allclose(shares[i], expected, atol=1e-6)
    assert np.abs(shares.sum(axis=1) - 1).max() < 0.2  # an untrained model's start differs
    drawn = np.random.default_rng(0).integers(0, len(explained.rows), len(explained.rows))
    counts = np.bincount(drawn, minlength=len(explained.rows))
    np.testing.assert_allclose(
        explained.shares(counts), explained.take(drawn).shares(), rtol=1e-4, atol=1e-7
    )


def test_genes_are_ranked_with_direction_and_stability():
    """A drives P0, B works against it where it is low, C is the same everywhere."""
    level = np.linspace(0, 1, 20)
    values = np.zeros((1, 20, 4))
    values[0, :, 0] = 2 * level
    values[0, :10, 1] = level[:10] - 0.6
    values[0, :, 2] = 5.0
    predicted = values.sum(axis=2).T
    ranked = by_hand(values, predicted).ranked(resamples=30).loc["P0"]
    assert ranked.index.tolist() == ["A", "B", "C"]  # D is expressed nowhere
    assert ranked["rank"].tolist() == [1, 2, 3]
    assert ranked["direction"].tolist() == ["raises", "lowers", "raises"]
    np.testing.assert_allclose(ranked["share"].sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(ranked.loc["C", "share"], 0, atol=1e-6)
    np.testing.assert_allclose(ranked["expressing"], [0.95, 0.5, 1])
    np.testing.assert_allclose(ranked.loc["A", "effect"], 2 * level[1:].mean(), rtol=1e-6)
    np.testing.assert_allclose(ranked["effect_in_top"], [2 * level[-2:].mean(), 0, 5], rtol=1e-6)
    assert 0 < ranked.loc["A", "share_sd"] < 0.1
    assert (ranked["in_top"] == 1).all()
    assert "in_top" not in by_hand(values, predicted).ranked(resamples=0)


def test_stability_is_that_of_resamples(explained):
    stability = explained.stability(resamples=20, seed=3)
    assert stability.index.tolist() == PROTEINS
    assert stability["rank_correlation"].between(0.3, 0.999).all()
    assert stability["jaccard"].between(0.1, 0.999).all()
    pd.testing.assert_frame_equal(stability, explained.stability(resamples=20, seed=3))
    other = explained.stability(resamples=20, seed=4)
    assert (other["jaccard"] != stability["jaccard"]).any()
    one, more = explained.ranked(seed=3), explained.ranked(seed=3)
    pd.testing.assert_frame_equal(one, more)


def test_groups_are_compared_with_all_labelled_rows():
    values = np.zeros((2, 6, 3))
    values[0, :, 0] = [1, 3, 5, 5, 0, 9]
    values[0, :2, 1] = [0.5, 0.5]
    values[1] = -values[0]
    table = by_hand(values, np.arange(12).reshape(6, 2)).grouped(
        pd.Series(["b", "b", "a", "a", "a", None])
    )
    assert table.index.names == ["group", "protein", "gene"]
    assert table.loc[("b", "P0")].index.tolist() == ["A", "B"]
    np.testing.assert_allclose(table.loc[("b", "P0"), "mean"], [2, 0.5])
    np.testing.assert_allclose(table.loc[("b", "P0"), "difference"], [2 - 2.8, 0.5 - 0.2])
    np.testing.assert_allclose(table.loc[("a", "P1"), "mean"], [-10 / 3, 0])
    np.testing.assert_allclose(table.loc[("a", "P0"), "expressing"], [2 / 3, 0])
    assert table.loc["a", "n_rows"].unique().tolist() == [3]
    with pytest.raises(InputError, match="found 2 labels, expected one for each of 6 rows"):
        by_hand(values, np.zeros((6, 2))).grouped(["a", "b"])
    with pytest.raises(InputError, match="none of the explained rows has a label"):
        by_hand(values, np.zeros((6, 2))).grouped([None] * 6)


def test_attention_of_a_cell_adds_up_to_one(cells, checkpoint):
    explained = run(cells, checkpoint, method="attention")
    aligned = module.prepare(as_section(cells), model=checkpoint).aligned(explained.rows)
    x = aligned.expression(checkpoint.gene_share, "log1p_cp10k_measured")
    for matrix in explained.values:
        np.testing.assert_array_equal(matrix.indices, x.indices)
        looks = sparse.csr_matrix((matrix.data / x.data, x.indices, x.indptr), x.shape)
        np.testing.assert_allclose(np.asarray(looks.sum(axis=1)).ravel(), 1, rtol=1e-4)
    assert explained.info["completeness_error"] is None
    assert (explained.ranked(resamples=0)["direction"] == "").all()
    np.testing.assert_allclose(np.abs(explained.shares()).sum(axis=1), 1, rtol=1e-6)


def test_recomputed_attention_is_that_of_the_layer():
    from sclinguist_core.model.layers import attention, merge_heads, split_heads

    q, k, v = (torch.randn(2, n, 8) for n in (3, 5, 5))
    seen = torch.tensor([[True] * 5, [True, False, True, False, False]])
    value = v.repeat(1, 1, 2)[..., :4].repeat(1, 1, 2)  # both heads say the same
    mask = seen[:, None, None, :].expand(-1, -1, 3, -1)
    parts = (split_heads(part, 2) for part in (q, k, value))
    out = merge_heads(attention(*parts, mask))
    weights = attribution._attention(q, k, 2, seen)
    mean = 0.5 * (out[..., :4] + out[..., 4:])
    torch.testing.assert_close(weights @ value[..., :4], mean, atol=1e-5, rtol=1e-4)
    assert (weights[1][:, ~seen[1]] == 0).all()


def test_rows_are_chosen_and_sampled(cells, checkpoint):
    mask = np.zeros(60, bool)
    mask[10:40] = True
    explained = run(cells, checkpoint, rows=mask)
    assert explained.rows.tolist() == list(range(10, 40))
    some = run(cells, checkpoint, max_rows=15, seed=1)
    assert len(some.rows) == 15
    assert (np.diff(some.rows) > 0).all()
    assert run(cells, checkpoint, max_rows=15, seed=1).rows.tolist() == some.rows.tolist()
    assert run(cells, checkpoint, max_rows=15, seed=2).rows.tolist() != some.rows.tolist()


def test_progress_counts_rows_and_stopping_stops(cells, checkpoint, monkeypatch):
    section = as_section(cells)
    options = {"model": checkpoint, "device": "cpu", "batch_size": 8, "steps": 1}
    progress = list(explain_iter(section, PROTEINS, **options))
    assert (progress[0].phase, progress[0].done) == ("loading model", 0)
    assert [p.done for p in progress[1:]] == [8, 16, 24, 32, 40, 48, 56, 59]
    assert {p.total for p in progress} == {60}
    batches = []

    def counted(*arguments, **keywords):
        batches.append(1)
        return integrated_gradients(*arguments, **keywords)

    monkeypatch.setattr(attribution, "integrated_gradients", counted)
    steps = explain_iter(section, PROTEINS, **options)
    next(steps), next(steps)
    steps.close()
    assert len(batches) == 1


def test_too_little_memory_halves_the_batches(cells, checkpoint, monkeypatch):
    whole = run(cells, checkpoint, steps=2)
    sizes = []

    def hungry(model, tokens, proteins, *, steps):
        sizes.append(len(tokens.x_BT))
        if len(tokens.x_BT) > 20:
            raise torch.OutOfMemoryError("no")
        return integrated_gradients(model, tokens, proteins, steps=steps)

    monkeypatch.setattr(attribution, "integrated_gradients", hungry)
    small = run(cells, checkpoint, steps=2)
    assert sizes[:3] == [59, 29, 14]
    np.testing.assert_allclose(small.values[0].data, whole.values[0].data, atol=1e-5)
    monkeypatch.setattr(
        attribution, "integrated_gradients", lambda *a, **k: (_ for _ in ()).throw(
            torch.OutOfMemoryError("no"))
    )  # fmt: skip
    with pytest.raises(InputError, match="does not suffice to explain a single cell"):
        run(cells, checkpoint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method 'magic': expected gradients or attention"),
        ({"steps": 0}, "steps 0: expected at least 1"),
        ({"max_rows": 3}, "number of rows to explain 3: expected at least 10"),
        ({"batch_size": 0}, "batch size 0"),
        ({"rows": np.arange(5)}, "4 of the rows to explain express any"),
    ],
)
def test_what_makes_no_sense_is_refused(cells, checkpoint, options, message):
    with pytest.raises(InputError, match=message):
        run(cells, checkpoint, **options)


def test_other_architectures_are_refused(cells, checkpoint):
    other = replace(checkpoint, info=replace(checkpoint.info, architecture="hyena"))
    with pytest.raises(InputError, match="'hyena', which `explain` cannot take apart, expected"):
        run(cells, other)


def test_agreement_is_over_shared_genes_and_proteins(explained):
    same = agreement(explained, explained)
    np.testing.assert_allclose(same, 1)
    reverse = replace(
        explained,
        symbols=explained.symbols[::-1],
        names=["CD19", "other"],
        values=tuple(m[:, ::-1] for m in explained.values[::-1]),
        predicted=explained.predicted[:, ::-1],
    )
    found = agreement(explained, reverse)
    assert found.index.tolist() == ["CD19"]
    np.testing.assert_allclose(found, 1)
    one, other = np.arange(50.0), np.arange(50.0)[::-1]
    assert rankings_agree(one, other) == (-1, 0)
    assert rankings_agree(one, one + 3) == (1, 1)


def test_models_are_compared_gene_by_gene(cells, explained):
    other = run(cells, small_checkpoint(cells, seed=5), steps=8)
    table = across_models([explained, other])
    pair = np.stack([explained.shares()[1], other.shares()[1]])
    np.testing.assert_allclose(
        table.loc["CD19", "share_sd_models"].to_numpy(), pair.std(axis=0, ddof=1), atol=1e-12
    )
    first = [set(np.argsort(-share, kind="stable")[:20]) for share in pair]
    expected = [sum(gene in top for top in first) / 2 for gene in range(pair.shape[1])]
    assert table.loc["CD19", "in_top_models"].tolist() == expected


def test_default_proteins_are_the_best_predicted_ones(checkpoint):
    bundled = scl.load_checkpoint("bundled")
    names = best_predicted(bundled, "cells")
    assert len(names) == 6
    chosen = bundled.proteins.set_index("name").loc[names]
    assert (chosen["sets_cells"] > 0).all()
    assert (chosen["trust_cells"] == "well").all()
    assert best_predicted(checkpoint, "cells") == ["CD14", "CD19", "CD3", "CD4", "CD56"]


def test_the_bundled_model_predicts_cd19_from_genes_of_b_cells():
    section = scl.open_section(sample_section_path())
    explained = scl.explain(section, "CD19", max_rows=40, device="cpu", steps=4)
    ranked = explained.ranked().loc["CD19"]
    assert {"CD19", "MS4A1", "CD79A"} <= set(ranked.index[:30])
    assert (ranked.loc[["CD19", "MS4A1", "CD79A"], "direction"] == "raises").all()
    assert explained.info["unit"] == "SD of reference spots (CLR)"
    assert abs(explained.shares().sum() - 1) < 0.05
