"""Embeddings: the right numbers, context, several data sets, correction, what is refused."""

import sys
from types import ModuleType, SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sclinguist_core as scl
from inference.following import following_checkpoint
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError
from sclinguist_core.inference.embed import embed_iter, with_context
from sclinguist_core.inference.embed_correct import corrected
from sclinguist_core.inference.predict import translate
from sclinguist_core.inference.progress import finish
from synthetic import paired_cells


@pytest.fixture(scope="module")
def cells():
    adata = paired_cells(80)
    counts = adata.X.toarray()
    counts[4] = 0  # a cell without reads
    adata.X = sparse.csr_matrix(counts)
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 100, (80, 2))
    return adata


@pytest.fixture(scope="module")
def checkpoint(cells):
    return following_checkpoint(cells)


def run(cells, checkpoint, **options):
    return finish(embed_iter(as_section(cells), model=checkpoint, device="cpu", **options))


def test_the_embedding_is_what_the_network_predicts(cells, checkpoint):
    result = run(cells, checkpoint)
    aligned = align_genes(as_section(cells).rna(), checkpoint.symbols)
    mean, _ = translate(checkpoint, aligned)
    np.testing.assert_allclose(result.values, mean, atol=1e-5)
    assert result.values.dtype == np.float32
    assert result.info["kind"] == "protein"
    assert result.info["names"] == checkpoint.protein_names
    assert result.info["dimensions"] == len(checkpoint.proteins)
    assert result.info["model_digest"] == "0123456789ab"


def test_the_latent_is_the_trunk(cells, checkpoint):
    import torch

    result = run(cells, checkpoint, kind="latent")
    assert result.values.shape == (80, 16)
    model = checkpoint.translator
    aligned = align_genes(as_section(cells).rna(), checkpoint.symbols)
    row = aligned.expression(checkpoint.gene_share)[7]
    with torch.inference_mode():
        tables = model.tables()
        reading = model.encode(
            torch.from_numpy(row.indices.astype(np.int64))[None],
            torch.from_numpy(row.data)[None],
            model.panels(torch.from_numpy(aligned.measured), tables),
            tables,
        )
    np.testing.assert_allclose(result.values[7], reading.trunk[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["protein", "latent"])
def test_batches_do_not_matter_and_empty_rows_have_no_place(cells, checkpoint, kind):
    whole = run(cells, checkpoint, kind=kind)
    pieces = run(cells, checkpoint, kind=kind, batch_size=3)
    np.testing.assert_allclose(whole.values, pieces.values, atol=1e-5)
    assert np.isnan(whole.values).all(axis=1).tolist() == [i == 4 for i in range(80)]
    assert whole.warnings[-1] == (
        "1 of 80 rows express none of the model's genes; they get no place (NaN)."
    )


def test_context_mixes_half_and_half_with_the_neighbours(cells, checkpoint):
    alone = run(cells, checkpoint).values
    mixed = run(cells, checkpoint, context="spatial", n_neighbours=3).values
    places = cells.obsm["spatial"]
    distance = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    distance[:, 4] = np.inf  # a cell without reads is nobody's neighbour
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1)[:, :3]
    rows = np.arange(80) != 4
    by_hand = 0.5 * alone + 0.5 * alone[near].mean(axis=1)
    np.testing.assert_allclose(mixed[rows], by_hand[rows], atol=1e-5)
    assert np.isnan(mixed[4]).all()
    nearest = run(cells, checkpoint, context="nearest")
    assert nearest.info["context"] == "nearest"
    # Neighbours in the embedding draw cells together.
    assert np.nanvar(nearest.values, axis=0).sum() < np.nanvar(alone, axis=0).sum()


def test_a_share_of_one_is_the_mean_of_the_neighbours():
    values = np.arange(8.0, dtype=np.float32).reshape(4, 2)
    mixed = with_context(values, None, "nearest", n_neighbours=3, share=1.0)
    np.testing.assert_allclose(mixed, (values.sum(axis=0) - values) / 3, rtol=1e-6)


def test_a_caller_that_stops_cancels_within_a_batch(cells, checkpoint, monkeypatch):
    from sclinguist_core.inference.runner import TranslatorRunner

    batches = []
    forward = TranslatorRunner._forward

    def counted(self, batch, shared):
        batches.append(batch.n_obs)
        return forward(self, batch, shared)

    monkeypatch.setattr(TranslatorRunner, "_forward", counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    steps = embed_iter(as_section(cells), model=checkpoint, device="cpu", batch_size=10)
    assert next(steps).phase == "loading model"
    progress = next(steps)
    assert (progress.done, progress.total, progress.phase) == (10, 80, "embedding")
    steps.close()
    assert batches == [10]


def test_embed_leaves_the_input_alone(cells, checkpoint):
    cells = cells.copy()
    cells.uns["sclinguist"] = {"model": "of a prediction"}
    table = scl.embed(cells, model=checkpoint, device="cpu")
    assert table.obsm["X_sclinguist"].shape == (80, len(checkpoint.proteins))
    assert table.uns["sclinguist"] == {"model": "of a prediction"}
    assert table.uns["sclinguist_embed"]["correct"] == "none"
    assert "X_sclinguist" not in cells.obsm
    assert "sclinguist_embed" not in cells.uns


def test_data_sets_with_other_genes_are_joined_without_counts(cells, checkpoint):
    other = paired_cells(30, seed=1)[:, :350].copy()
    other.obs["donor"] = "two"
    joined = scl.embed([cells, other], model=checkpoint, device="cpu")
    assert joined.shape == (110, 0)
    assert joined.obs["dataset"].value_counts().to_dict() == {"AnnData": 80, "AnnData_2": 30}
    assert joined.obs_names[0] == "cells-0-AnnData"
    assert joined.obs_names.is_unique
    assert joined.obs["donor"].isna().sum() == 80
    alone = run(other, checkpoint).values
    np.testing.assert_allclose(joined.obsm["X_sclinguist"][80:], alone, atol=1e-5)
    assert joined.uns["sclinguist_embed"]["input"] == ["AnnData", "AnnData_2"]
    warnings = joined.uns["sclinguist_embed"]["warnings"]
    assert warnings[0].startswith("The inputs have different features")
    assert warnings[-1].startswith("AnnData: 1 of 80 rows")


def test_data_sets_with_the_same_genes_keep_their_counts(cells, checkpoint, tmp_path):
    other = paired_cells(30, seed=1)
    joined = scl.embed([cells, other], model=checkpoint, device="cpu", correct="center")
    assert joined.X.sum() == cells.X.sum() + other.X.sum()
    assert joined.var_names.equals(cells.var_names)
    joined.write_h5ad(tmp_path / "joined.h5ad", convert_strings_to_categoricals=False)
    before = joined.obsm["X_sclinguist_uncorrected"]
    after = joined.obsm["X_sclinguist"]
    shift = np.nanmean(before[:80], axis=0) - before[80:].mean(axis=0)
    left = np.nanmean(after[:80], axis=0) - after[80:].mean(axis=0)
    np.testing.assert_allclose(left, shift / 2, atol=1e-5)
    info = joined.uns["sclinguist_embed"]
    assert (info["correct"], info["batch_key"]) == ("center", "dataset")


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_columns_of_different_types_are_joined_and_can_be_written(
    cells, checkpoint, tmp_path, suffix
):
    one, other = cells[5:10].copy(), paired_cells(3, seed=1)
    one.obs["doublet"] = [True, False, True, False, True]
    one.obs["kind"] = pd.Categorical(list("aabba"))
    one.obs["note"] = None
    one.obs["score"] = 0.5
    one.obs["cluster"] = 1
    other.obs["cluster"] = "two"
    one.obs["sample"] = pd.Categorical([1] * 5)
    other.obs["sample"] = [2, 3, 4]
    joined = scl.embed([one, other], model=checkpoint, device="cpu")
    path = write_table(joined, tmp_path / f"joined{suffix}")
    obs = (ad.read_h5ad(path) if suffix == ".h5ad" else ad.read_zarr(path)).obs
    assert obs["doublet"].dtype == "boolean"
    assert obs["doublet"].tolist() == [True, False, True, False, True, pd.NA, pd.NA, pd.NA]
    assert obs["cluster"].tolist() == ["1"] * 5 + ["two"] * 3
    assert obs["sample"].tolist() == [1, 1, 1, 1, 1, 2, 3, 4]
    assert obs["kind"].tolist()[:5] == list("aabba")
    assert obs["score"].tolist()[:5] == [0.5] * 5
    # What is missing stays missing: it does not become the word "nan".
    missing = obs.isna()
    assert missing["note"].all()
    assert missing.loc[:, ["doublet", "kind", "score"]].sum().tolist() == [3, 3, 3]
    assert missing.loc[:, ["cluster", "sample", "dataset"]].sum().sum() == 0


def test_what_was_not_measured_is_not_joined_as_zero(cells, checkpoint, tmp_path):
    other = paired_cells(30, seed=1)
    measured = np.ones(other.shape, bool)
    measured[:10, 7] = False
    other.layers["measured"] = sparse.csr_matrix(measured)
    joined = scl.embed([cells, other], model=checkpoint, device="cpu")
    path = write_table(joined, tmp_path / "joined.h5ad")
    back = scl.open_section(path).rna().measured
    assert back[:80].all()
    np.testing.assert_array_equal(back[80:], measured)
    plain = scl.embed([cells, paired_cells(30)], model=checkpoint, device="cpu")
    assert "measured" not in plain.layers


@pytest.mark.parametrize("place", ["dense", "layer", "raw"])
def test_the_joined_counts_are_raw_wherever_they_were(cells, checkpoint, place):
    counts = cells.X.toarray()
    one, other = cells.copy(), paired_cells(30, seed=1)
    if place == "dense":
        one.X = counts
    elif place == "layer":
        one.layers["counts"] = one.X
        one.X = sparse.csr_matrix(np.log1p(counts) / 3)
    else:
        one.raw = cells
        one = one[:, :90].copy()
        one.X = sparse.csr_matrix(np.log1p(counts[:, :90]) / 3)
    joined = scl.embed([one, other], model=checkpoint, device="cpu")
    assert joined.X.format == "csr"
    np.testing.assert_array_equal(joined.X.toarray(), np.vstack([counts, other.X.toarray()]))
    assert joined.var_names.equals(cells.var_names)
    assert joined.uns["sclinguist_embed"]["warnings"][0].startswith("AnnData: ")


def test_a_column_of_the_name_dataset_is_kept(cells, checkpoint, caplog):
    one, other = cells.copy(), paired_cells(30, seed=1)
    one.obs["dataset"] = "of the lab"
    joined = scl.embed([one, other], model=checkpoint, device="cpu")
    assert joined.obs["dataset"].value_counts().to_dict() == {"AnnData": 80, "AnnData_2": 30}
    assert joined.obs["dataset_original"].tolist()[:80] == ["of the lab"] * 80
    assert joined.obs["dataset_original"].isna().sum() == 30
    sentence = (
        "The inputs' own column 'dataset' of obs is 'dataset_original' now: 'dataset' says which "
        "input a row is from."
    )
    assert joined.uns["sclinguist_embed"]["warnings"][0] == sentence
    assert sentence in caplog.messages
    assert one.obs["dataset"].unique().tolist() == ["of the lab"]
    again = scl.embed([joined, joined], model=checkpoint, device="cpu")
    assert again.obs["dataset_original"].dropna().unique().tolist() == ["of the lab"]
    assert again.obs["dataset_original_original"].unique().tolist() == ["AnnData", "AnnData_2"]


def test_one_input_is_corrected_by_a_column(cells, checkpoint):
    cells = cells.copy()
    cells.obs["run"] = np.where(np.arange(80) < 40, "a", "b")
    table = scl.embed(cells, model=checkpoint, device="cpu", correct="center", batch_key="run")
    assert table.uns["sclinguist_embed"]["batch_key"] == "run"
    assert not np.allclose(
        table.obsm["X_sclinguist"], table.obsm["X_sclinguist_uncorrected"], equal_nan=True
    )


def test_center_moves_means_half_way_and_nothing_else():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3)).astype(np.float32)
    batch = np.repeat(["a", "b"], 30)
    values[30:] += 4
    values[5] = np.nan
    moved = corrected(values, batch, "center")
    gap = np.nanmean(values[30:], axis=0) - np.nanmean(values[:30], axis=0)
    np.testing.assert_allclose(
        np.nanmean(moved[30:], axis=0) - np.nanmean(moved[:30], axis=0), gap / 2, rtol=1e-4
    )
    shift = moved[30:] - values[30:]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-5)
    assert np.isnan(moved[5]).all()


@pytest.mark.parametrize("turned", [False, True])
def test_what_harmony_changes_is_added_in_all_dimensions(monkeypatch, turned):
    """A stand-in moves one batch along the first component; versions differ in orientation."""

    def run_harmony(before, table, keys, **options):
        assert keys == ["batch"]
        after = before.copy()
        after[(table["batch"] == "1").to_numpy(), 0] += 2.0
        return SimpleNamespace(Z_corr=after.T if turned else after)

    module = ModuleType("harmonypy")
    module.run_harmony = run_harmony
    monkeypatch.setitem(sys.modules, "harmonypy", module)
    values = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    values[:, 2] *= 10
    moved = corrected(values, np.repeat(["a", "b"], 25), "harmony")
    np.testing.assert_allclose(moved[:25], values[:25], atol=1e-5)
    lengths = np.linalg.norm(moved[25:] - values[25:], axis=1)
    np.testing.assert_allclose(lengths, 2.0, rtol=1e-4)


def test_harmony_that_is_not_installed_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "harmonypy", None)
    with pytest.raises(InputError, match=r"harmonypy is not installed; pip install"):
        corrected(np.zeros((4, 2)), np.array(["a", "a", "b", "b"]), "harmony")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "umap"}, "kind 'umap': expected one of protein, latent"),
        ({"context": "near"}, "context 'near': expected one of none, spatial, nearest"),
        ({"batch_size": 0}, "batch size 0"),
        ({"n_neighbours": 0}, "neighbours 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(cells, checkpoint, options, message):
    with pytest.raises(InputError, match=message):
        run(cells, checkpoint, **options)


def test_spatial_context_needs_positions_before_a_model_is_loaded():
    with pytest.raises(InputError, match="has no positions"):
        finish(embed_iter(as_section(paired_cells(20)), model="no such model", context="spatial"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correct": "center"}, "a single input was given and no batch key"),
        ({"correct": "combat"}, "correct 'combat': expected one of none, center, harmony"),
        ({"correct": "center", "batch_key": "run"}, "batch key: found no column 'run' in obs"),
        ({"correct": "center", "batch_key": "gap"}, "batch key 'gap': 1 rows have no value"),
        ({"correct": "center", "batch_key": "one"}, "all rows are of one batch"),
    ],
)
def test_corrections_that_cannot_be_are_refused(cells, checkpoint, options, message):
    cells = cells.copy()
    cells.obs["gap"] = ["a", None, *["b"] * 78]
    cells.obs["one"] = "a"
    with pytest.raises(InputError, match=message):
        scl.embed(cells, model=checkpoint, device="cpu", **options)
