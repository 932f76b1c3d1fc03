"""Pseudo-knockout: what changes, by how much, and what stays exactly as it was."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sclinguist_core as scl
from inference.untrained import SLOPES, untrained_cells, untrained_checkpoint
from sclinguist_core.data.preprocess import RNA_NORMALIZATIONS
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import perturber as module
from sclinguist_core.inference.perturb import perturb_iter
from sclinguist_core.inference.perturbation import Perturbation, RandomSet, row_numbers
from sclinguist_core.inference.perturber import scaled
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.progress import finish
from sclinguist_core.inference.runner import TranslatorRunner
from sclinguist_core.resources import sample_section_path

NORMALIZATION = "log1p_cp10k_measured"


def run(section, genes, **options) -> Perturbation:
    return finish(perturb_iter(section, genes, device="cpu", **options))


@pytest.fixture(scope="module")
def cells():
    return untrained_cells()


@pytest.fixture(scope="module")
def checkpoint(cells):
    return untrained_checkpoint(cells)


@pytest.fixture(scope="module")
def bundled():
    return scl.load_checkpoint("bundled")


@pytest.fixture(scope="module")
def sample():
    return scl.open_section(sample_section_path())


@pytest.fixture(scope="module")
def spots(sample):
    """Every thirtieth spot of the sample section."""
    return replace(sample, table=sample.table[::30].copy())


def counts_of(adata, gene):
    return adata.X[:, adata.var_names.get_loc(gene)].toarray().ravel()


def test_only_rows_that_express_the_gene_change(cells, checkpoint):
    result = run(as_section(cells), ["CD19"], model=checkpoint)
    expressing = counts_of(cells, "CD19") > 0
    assert 0 < expressing.sum() < 69
    np.testing.assert_array_equal(result.affected, expressing)
    empty = np.arange(70) == 4
    assert (result.change[~expressing & ~empty] == 0).all()
    assert np.isnan(result.change[empty]).all()
    assert (np.abs(result.change[expressing]).max(axis=1) > 1e-4).all()
    assert result.change.dtype == np.float32
    assert result.names == ["CD14", "CD19", "CD3", "CD4", "CD56"]
    info = result.info
    assert (info["genes"], info["scale"], info["model_digest"]) == (["CD19"], 0.0, "0123456789ab")
    assert (info["n_rows"], info["n_affected"]) == (70, int(expressing.sum()))
    assert info["unit"] == checkpoint.info.unit
    assert result.background is None


def test_a_gene_that_nobody_expresses_changes_nothing(cells, checkpoint):
    adata = cells.copy()
    counts = adata.X.toarray()
    counts[:, adata.var_names.get_loc("CD14")] = 0
    adata.X = sparse.csr_matrix(counts)
    result = run(as_section(adata), ["CD14"], model=checkpoint, background=3)
    assert not result.affected.any()
    assert (result.change[np.arange(70) != 4] == 0).all()
    assert result.background is None
    assert result.warnings == ("No row expresses CD14: nothing changes.",)
    ranked = result.ranked()
    assert ranked["mean_change"].isna().all()
    assert (ranked["n_rows"] == 0).all()


def test_scale_one_changes_nothing_and_scales_near_it_hardly(cells, checkpoint):
    section = as_section(cells)
    same = run(section, ["CD19"], model=checkpoint, scale=1.0, background=2)
    assert (same.change[np.arange(70) != 4] == 0).all()
    assert not same.affected.any()
    assert same.warnings == ()
    near = run(section, ["CD19"], model=checkpoint, scale=1 + 1e-6)
    assert near.affected.sum() == (counts_of(cells, "CD19") > 0).sum()
    assert np.nanmax(np.abs(near.change)) < 1e-5
    whole = run(section, ["CD19"], model=checkpoint)
    half = run(section, ["CD19"], model=checkpoint, scale=0.5)
    assert 0 < np.nansum(np.abs(half.change)) < np.nansum(np.abs(whole.change))


def test_expression_is_scaled_in_linear_space():
    expression = sparse.csr_matrix(np.log1p(np.float32([[1, 0, 3], [0, 5, 0], [2, 4, 8]])))
    before = expression.copy()
    halved = scaled(expression, np.array([1, 2]), 0.5)
    np.testing.assert_allclose(
        np.expm1(halved.toarray()), [[1, 0, 1.5], [0, 2.5, 0], [2, 2, 4]], rtol=1e-6
    )
    assert halved.dtype == np.float32
    gone = scaled(expression, np.array([1, 2]), 0.0)
    assert gone.indices.tolist() == [0, 0]
    assert gone.indptr.tolist() == [0, 1, 1, 2]
    assert (expression != before).nnz == 0


@pytest.mark.parametrize("scale", [0, 3])
@pytest.mark.parametrize("spatial", [False, True])
def test_change_is_the_difference_of_two_predictions(spots, bundled, monkeypatch, scale, spatial):
    """Sections whose normalised values are given by hand, not recomputed from what is left."""
    ones = lambda counts, share: np.ones(counts.shape[0], np.float32)  # noqa: E731
    monkeypatch.setitem(RNA_NORMALIZATIONS, NORMALIZATION, ones)
    table = spots.table[:55].copy()
    if not spatial:
        del table.obsm["spatial"]
    genes = ["MS4A1", "CD3E"]
    other = table.copy()
    counts = other.X.tolil()
    for gene in genes:
        column = other.var_names.get_loc(gene)
        counts[:, column] = counts[:, column] * scale
    other.X = counts.tocsr()
    other.X.eliminate_zeros()
    one, two = (
        finish(predict_iter(Section(name="s", table=t), model=bundled, device="cpu"))
        for t in (table, other)
    )
    result = run(Section(name="s", table=table), genes, model=bundled, scale=scale)
    assert result.info["context"] == ("spots" if spatial else "cells")
    assert result.info["unit"] == one.info["unit"]
    difference = two.mean - one.mean
    assert np.abs(difference).max() > 0.05
    np.testing.assert_allclose(result.change, difference, atol=1e-4)


def test_change_is_in_the_unit_of_fine_tuned_proteins_too(cells, checkpoint, bundled):
    """Fine-tuned proteins keep the slope of their own, whatever the calibration says."""
    calibration = {
        context: values.take(np.arange(5)) for context, values in bundled.calibration.items()
    }
    tuned = ["cells", None, "spots", None, None]
    model = replace(
        checkpoint,
        calibration=calibration,
        proteins=checkpoint.proteins.assign(fine_tuned=tuned, heldout_r=0.5),
    )
    section = as_section(cells)
    calibrated = run(section, ["CD4"], model=model).change
    plain = run(section, ["CD4"], model=checkpoint).change / SLOPES
    slope = calibration["cells"].slope.copy()
    slope[[0, 2]] = SLOPES[0], SLOPES[2]
    np.testing.assert_allclose(calibrated, plain * slope, rtol=1e-3, atol=1e-6)


def test_knocking_out_a_genes_own_mrna_lowers_its_protein(sample, bundled):
    follicle = pd.read_csv(sample_section_path().parent / "regions.csv", index_col="barcode")
    inside = follicle.loc[sample.table.obs_names, "region"].str.contains("follicle|germinal")
    rows = np.flatnonzero(inside.to_numpy())[::10]
    assert len(rows) > 10
    for gene, protein in (("CD19", "CD19"), ("CD20", "CD20")):
        result = run(sample, [gene], model=bundled, rows=rows, background=5)
        ranked = result.ranked()
        assert ranked.index[0] == protein
        assert ranked.loc[protein, "mean_change"] < -0.03
        assert ranked.loc[protein, "share_lowered"] > 0.9
        assert ranked.loc[protein, "z"] < -4
        assert ranked.loc["CD3", "mean_change"] > 5 * ranked.loc[protein, "mean_change"]
        assert abs(ranked.loc["CD14", "mean_change"]) < 0.2 * -ranked.loc[protein, "mean_change"]
    assert result.info["genes"] == ["MS4A1"]


def test_rows_that_were_not_asked_for_stay_unknown(cells, checkpoint):
    section = as_section(cells)
    whole = run(section, ["CD19"], model=checkpoint)
    mask = np.zeros(70, bool)
    mask[10:40] = True
    some = run(section, ["CD19"], model=checkpoint, rows=mask)
    listed = run(section, ["CD19"], model=checkpoint, rows=np.arange(39, 9, -1))
    np.testing.assert_allclose(some.change[mask], whole.change[mask], atol=1e-5)
    np.testing.assert_allclose(listed.change[mask], some.change[mask], atol=1e-5)
    assert np.isnan(some.change[~mask]).all()
    np.testing.assert_array_equal(some.affected, whole.affected & mask)


def test_chunks_and_batches_do_not_change_the_result(cells, checkpoint, monkeypatch):
    section = as_section(cells)
    whole = run(section, ["CD19"], model=checkpoint)
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    small = run(section, ["CD19"], model=checkpoint, batch_size=3)
    np.testing.assert_allclose(small.change, whole.change, atol=1e-5)
    np.testing.assert_allclose(small.spread, whole.spread, rtol=1e-4)


def test_cells_that_measured_other_genes_keep_their_panels(cells, checkpoint):
    """Two studies in one table: in one of them the gene was not measured."""
    adata = cells.copy()
    column = adata.var_names.get_loc("CD19")
    measured = np.ones(adata.shape, bool)
    measured[:30, column] = False
    adata.layers["measured"] = sparse.csr_matrix(measured)
    result = run(as_section(adata), ["CD19"], model=checkpoint)
    alone = run(as_section(adata[30:].copy()), ["CD19"], model=checkpoint)
    assert not result.affected[:30].any()
    np.testing.assert_allclose(result.change[30:], alone.change, atol=1e-5)


def test_genes_and_proteins_in_any_spelling(cells, checkpoint):
    section = as_section(cells)
    whole = run(section, ["CD4", "NCAM1"], model=checkpoint)
    some = run(section, ["cd4", "Ncam1", "CD4"], model=checkpoint, proteins=["NCAM", "cd3"])
    assert some.info["genes"] == ["CD4", "NCAM1"]
    assert some.names == ["CD56", "CD3"]
    np.testing.assert_allclose(some.change, whole.change[:, [4, 2]], atol=1e-5)
    assert run(section, "CD4", model=checkpoint).info["genes"] == ["CD4"]


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        (["NOSUCHGENE"], "'NOSUCHGENE': not a known gene.*nearest names are [A-Z]"),
        (["CD3"], "'CD3': not a known gene.*nearest names are CD3E"),
        (["MS4A1"], "does not read MS4A1.*nearest names are"),
        (["CD19", ""], "not a known gene"),
        ([], "empty list"),
    ],
)
def test_genes_that_cannot_be_had(cells, checkpoint, genes, message):
    with pytest.raises(InputError, match=message):
        run(as_section(cells), genes, model=checkpoint)


def test_a_gene_that_was_not_measured_is_not_taken_for_an_unexpressed_one(cells, checkpoint):
    adata = cells[:, cells.var_names != "CD19"].copy()
    with pytest.raises(InputError, match="CD19 was not measured in AnnData"):
        run(as_section(adata), ["CD19"], model=checkpoint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": -1.0}, "scale -1.0"),
        ({"scale": float("nan")}, "scale nan"),
        ({"background": -1}, "background -1"),
        ({"batch_size": 0}, "batch size 0"),
        ({"rows": np.zeros(70, bool)}, "found none"),
        ({"rows": np.array([])}, "found none"),
        ({"rows": np.ones(69, bool)}, "expected a mask of all 70 rows"),
        ({"rows": np.array([0, 70])}, "row numbers from 0 to 69"),
        ({"rows": np.array([-1])}, "row numbers from 0 to 69"),
        ({"rows": np.array([0.5])}, "row numbers from 0 to 69"),
        ({"proteins": ["foobar"]}, "foobar"),
        ({"device": "tpu"}, "expected auto"),
    ],
)
def test_options_that_make_no_sense(cells, checkpoint, options, message):
    with pytest.raises(InputError, match=message):
        finish(perturb_iter(as_section(cells), ["CD19"], model=checkpoint, **options))


def test_row_numbers():
    assert row_numbers(None, 3).tolist() == [0, 1, 2]
    assert row_numbers(np.array([True, False, True]), 3).tolist() == [0, 2]
    assert row_numbers(np.array([2, 0, 2], np.uint8), 3).tolist() == [0, 2]


def test_progress_counts_up_and_closing_cancels(cells, checkpoint, monkeypatch):
    section = as_section(cells)
    n_affected = int((counts_of(cells, "CD19") > 0).sum())
    options = {"model": checkpoint, "batch_size": 4, "device": "cpu", "background": 2}
    progress = list(perturb_iter(section, ["CD19"], **options))
    assert progress[0].phase == "loading model"
    done = [p.done for p in progress]
    assert done == sorted(done)
    (total,) = {p.total for p in progress[1:]}
    assert done[-1] == total > n_affected
    phases = list(dict.fromkeys(p.phase for p in progress))
    assert phases == ["loading model", "switching off the gene", "comparing with other genes"]
    batches = []
    forward = TranslatorRunner._forward

    def counted(self, batch, panels):
        batches.append(batch.n_obs)
        return forward(self, batch, panels)

    monkeypatch.setattr(TranslatorRunner, "_forward", counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    steps = perturb_iter(section, ["CD19"], **options)
    next(steps)
    next(steps)
    steps.close()
    assert batches == [4]


def test_random_genes_are_expressed_alike_and_repeat_with_the_seed(cells, checkpoint):
    section = as_section(cells)
    one = run(section, ["CD19", "CD14"], model=checkpoint, background=6)
    again = run(section, ["CD19", "CD14"], model=checkpoint, background=6)
    other = run(section, ["CD19", "CD14"], model=checkpoint, background=6, seed=1)
    assert one.background.shape == (6, 5)
    np.testing.assert_array_equal(one.background, again.background)
    drawn = one.info["background_genes"]
    assert drawn == again.info["background_genes"] != other.info["background_genes"]
    for pair in drawn:
        assert len(set(pair)) == 2
        assert not {"CD19", "CD14"} & set(pair)
    for k in range(2):
        assert len({pair[k] for pair in drawn}) == 6
    # A background is what the same perturbation of those genes gives.
    own = run(section, drawn[0], model=checkpoint)
    np.testing.assert_allclose(
        one.background[0], own.change[own.affected].mean(axis=0), rtol=1e-3, atol=1e-6
    )


def made_up(background=None, random_sets=()):
    change = np.zeros((6, 3), np.float32)
    change[:4] = [[-1, 0.5, 0], [-3, 0.5, 0], [-2, 0.5, 0], [-2, -3.5, 0]]
    change[5] = np.nan
    return Perturbation(
        names=["A", "B", "C"],
        change=change,
        affected=np.array([True, True, True, True, False, False]),
        spread=np.array([4.0, 2.0, 0.0]),
        info={},
        background=background,
        random_sets=random_sets,
    )


def test_proteins_are_ranked_by_mean_change():
    ranked = made_up(np.array([[0.5, 0.0, 0.0], [-0.5, 2.0, 0.0]])).ranked()
    assert ranked.index.tolist() == ["A", "B", "C"]
    assert ranked.index.name == "protein"
    np.testing.assert_allclose(ranked["mean_change"], [-2, -0.5, 0])
    np.testing.assert_allclose(ranked["effect_size"], [-0.5, -0.25, np.nan])
    np.testing.assert_allclose(ranked["share_lowered"], [1, 0.25, 0])
    assert ranked["n_rows"].tolist() == [4, 4, 4]
    np.testing.assert_allclose(ranked["background_sd"], [np.sqrt(0.5), np.sqrt(2), 0])
    np.testing.assert_allclose(ranked["z"], [-2 / np.sqrt(0.5), -1.5 / np.sqrt(2), np.nan])
    assert list(made_up().ranked()) == ["mean_change", "effect_size", "share_lowered", "n_rows"]


def test_given_rows_count_with_their_zeros_but_not_without_reads():
    result = made_up(np.ones((1, 3)))
    ranked = result.ranked(rows=np.array([3, 4, 5]))
    assert ranked.index.tolist() == ["B", "A", "C"]
    np.testing.assert_allclose(ranked["mean_change"], [-1.75, -1, 0])
    assert ranked["n_rows"].tolist() == [2, 2, 2]
    assert "z" not in ranked
    assert result.ranked()["z"].isna().all()  # one random gene has no standard deviation


def test_groups_are_ranked_by_themselves():
    groups = pd.Categorical(["a", "a", "b", "b", None, "c"], categories=["b", "a", "c", "unused"])
    ranked = made_up().ranked(groups=groups)
    assert ranked.index.names == ["group", "protein"]
    assert ranked.index.get_level_values("group").unique().tolist() == ["b", "a", "c"]
    np.testing.assert_allclose(ranked.loc["a", "mean_change"], [-2, 0.5, 0])
    assert ranked.loc["b"].index.tolist() == ["A", "B", "C"]
    assert ranked.loc["c", "mean_change"].isna().all()
    assert ranked.loc["c", "n_rows"].tolist() == [0, 0, 0]
    both = made_up().ranked(rows=np.array([0, 2, 4]), groups=pd.Series(list("aabbbb")))
    np.testing.assert_allclose(both.loc[("a", "A"), "mean_change"], -1)
    np.testing.assert_allclose(both.loc[("b", "A"), "mean_change"], -1)
    assert both.loc[("b", "A"), "n_rows"] == 2
    with pytest.raises(InputError, match="a label for each of 6 rows"):
        made_up().ranked(groups=["a"])
    with pytest.raises(InputError, match="0 different labels"):
        made_up().ranked(groups=[None] * 6)


def test_groups_have_backgrounds_of_their_own():
    rng = np.random.default_rng(0)
    change = np.zeros((40, 3), np.float32)
    change[:20] = rng.normal(0, 0.01, (20, 3))
    change[:10, 0] -= 1
    rows = np.arange(20)
    random_sets = tuple(
        RandomSet(rows, rng.normal(0, 0.01, (20, 3)).astype(np.float32)) for _ in range(19)
    )
    found = Perturbation(
        names=["A", "B", "C"],
        change=change,
        affected=np.arange(40) < 20,
        spread=np.ones(3),
        info={},
        background=np.stack([one.change.mean(axis=0) for one in random_sets]),
        random_sets=random_sets,
    )
    groups = pd.Series(np.repeat(["a", "b", "few", "none"], [10, 6, 4, 20]))
    ranked = found.ranked(groups=groups)
    assert ranked.loc[("a", "A"), "verdict"] == "lowered"
    assert ranked.loc[("a", "A"), "p_value"] == 0.05
    background = np.stack([one.change[:10].mean(axis=0) for one in random_sets])
    expected = (change[:10].mean(axis=0) - background.mean(axis=0)) / background.std(0, ddof=1)
    np.testing.assert_allclose(ranked.loc["a", "z"][found.names], expected, rtol=1e-4)
    assert set(ranked.loc["b", "verdict"]) == {"within background"}
    for name in ("few", "none"):  # fewer than five rows express the genes
        assert ranked.loc[name, "p_value"].isna().all()
        assert set(ranked.loc[name, "verdict"]) == {"not testable"}


def test_genes_of_proteins_are_no_background(cells, checkpoint):
    drawn = run(as_section(cells), ["CD19"], model=checkpoint, background=40)
    genes = {gene for pair in drawn.info["background_genes"] for gene in pair}
    assert not genes & {"CD3E", "CD14", "NCAM1", "CD4", "CD19"}
    assert [len(one.rows) for one in drawn.random_sets] == [
        int((counts_of(cells, gene) > 0).sum()) for (gene,) in drawn.info["background_genes"]
    ]
