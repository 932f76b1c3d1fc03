"""Streamed predictions are those of a table in memory, whatever its format."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sclinguist_core as scl
from inference import streaming
from inference.streaming import assert_same_results, read, table, tree, whole
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError
from sclinguist_core.inference import stream, trust
from sclinguist_core.inference.stream import predict_to, predict_to_iter
from sclinguist_core.model.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    checkpoint = streaming.calibrated_checkpoint(table())
    return load_checkpoint(save_checkpoint(checkpoint, tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(stream, "BLOCK_VALUES", streaming.BLOCK_VALUES)


@pytest.mark.parametrize("output", ["h5ad", "zarr"])
@pytest.mark.parametrize("source", ["h5ad", "zarr"])
def test_result_is_that_of_a_table_in_memory(model, tmp_path, source, output):
    path = write_table(table(), tmp_path / f"cells.{source}")
    assert streaming.n_blocks(path) > 5
    expected = whole(path, tmp_path / f"whole.{output}", model=model)
    streamed = predict_to(path, tmp_path / f"streamed.{output}", model=model)
    found = read(streamed)
    assert_same_results(found, expected)
    assert found.uns["sclinguist"]["trust"] == expected.uns["sclinguist"]["trust"]
    assert len(set(found.uns["sclinguist"]["trust"].values())) > 1
    # The input's own data came along as they were.
    before = read(path)
    assert (found.X != before.X).nnz == 0
    assert (found.obsp["near"] != before.obsp["near"]).nnz == 0
    np.testing.assert_array_equal(found.obsm["X_pca"], before.obsm["X_pca"])
    pd.testing.assert_frame_equal(found.obs.drop(columns="sclinguist_ood"), before.obs)
    pd.testing.assert_frame_equal(found.var, before.var)
    assert found.uns["note"] == "ünïcode"
    assert found.uns["nested"]["x"] == 1.5
    assert found.uns["colours"].tolist() == ["red", "blue"]
    assert not list(tmp_path.glob("*.partial"))
    # Nobody can tell from the file how it was written.
    for place in ("obsm/protein_predicted", "obsm/protein_predicted_low", "obs", "uns/sclinguist"):
        assert tree(streamed, place) == tree(tmp_path / f"whole.{output}", place)
    again = open_section(streamed)
    assert again.n_obs == 330
    assert again.table.obsm["protein"].shape == (330, 6)


@pytest.mark.parametrize(
    ("suffix", "kind", "dtype", "where"),
    [
        ("h5ad", "csr", np.int16, "X"),
        ("zarr", "csr", np.int64, "layers/counts"),
        ("h5ad", "csr", np.float64, "raw"),
        ("zarr", "dense", np.float32, "X"),
        ("h5ad", "dense", np.uint16, "layers/umis"),
        ("zarr", "dense", np.int64, "raw"),
    ],
)
def test_counts_of_any_kind_and_place(model, tmp_path, kind, dtype, where, suffix):
    cells = table(kind=kind, dtype=dtype)
    if where != "X":
        changed = streaming.normalised(cells)
        if where == "raw":
            changed.raw = cells
        else:
            changed.layers[where.removeprefix("layers/")] = cells.X
        cells = changed
    path = write_table(cells, tmp_path / f"cells.{suffix}")
    expected = whole(path, tmp_path / f"whole.{suffix}", model=model)
    found = read(predict_to(path, tmp_path / f"streamed.{suffix}", model=model))
    assert_same_results(found, expected)
    if where != "X":
        assert f"taken from {where}" in found.uns["sclinguist"]["warnings"][0]


def test_a_table_of_zarr_format_2(model, tmp_path):
    import anndata
    import zarr

    path = tmp_path / "old.zarr"
    with anndata.settings.override(zarr_write_format=2), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2 data")
        table().write_zarr(path)
    assert (path / ".zgroup").exists()
    expected = whole(path, tmp_path / "whole.zarr", model=model)
    streamed = predict_to(path, tmp_path / "streamed.zarr", model=model)
    assert_same_results(read(streamed), expected)
    assert zarr.open_group(streamed, mode="r").metadata.zarr_format == 2
    assert (read(streamed).X != table().X).nnz == 0


def test_a_sharded_table(model, tmp_path):
    import anndata

    path = tmp_path / "sharded.zarr"
    sharded = anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=True)
    with sharded, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not")
        table().write_zarr(path)
    metadata = json.loads((path / "X" / "data" / "zarr.json").read_text())
    assert metadata["codecs"][0]["name"] == "sharding_indexed"
    expected = whole(path, tmp_path / "whole.zarr", model=model)
    assert_same_results(read(predict_to(path, tmp_path / "out.zarr", model=model)), expected)


def test_the_spread_of_many_rows_is_that_of_a_sample(model, tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "MANY_ROWS", 200)
    monkeypatch.setattr(trust, "SPREAD_ROWS", 64)
    path = write_table(table(), tmp_path / "cells.h5ad")
    seen = []
    spread = trust.spread_and_implied

    def watched(mean, std):
        seen.append(mean)
        return spread(mean, std)

    monkeypatch.setattr(trust, "spread_and_implied", watched)
    expected = whole(path, tmp_path / "whole.h5ad", model=model)
    found = read(predict_to(path, tmp_path / "streamed.h5ad", model=model))
    assert_same_results(found, expected)
    assert [len(mean) for mean in seen] == [64, 64]
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-5)


def test_rows_of_a_sample():
    assert trust.spread_rows(trust.MANY_ROWS) == slice(None)
    rows = trust.spread_rows(1_000_000)
    assert len(np.unique(rows)) == trust.SPREAD_ROWS
    assert (rows[0], rows[-1]) == (0, 999_999)
    assert np.diff(rows).max() - np.diff(rows).min() <= 1


def test_chosen_proteins_and_proteins_by_genes(model, tmp_path):
    cells = table()
    cells.obsm["spatial"] = np.random.default_rng(0).uniform(0, 1e3, (330, 2))
    path = write_table(cells, tmp_path / "spots.zarr")
    symbol = next(s for s in model.symbols[20:] if s not in model.protein_names)
    names = ["NCAM", "cd3", symbol]
    expected = whole(path, tmp_path / "whole.zarr", model=model, proteins=names)
    found = read(predict_to(path, tmp_path / "out.zarr", model=model, proteins=names))
    assert_same_results(found, expected)
    assert found.uns["sclinguist"]["context"] == "spots"
    assert list(found.uns["sclinguist"]["by_gene"]) == [found.obsm["protein_predicted"].columns[2]]


def test_genes_that_not_every_row_measured(model, tmp_path):
    cells = table()
    measured = np.ones(cells.shape, bool)
    measured[100:200, 50:] = False
    counts = cells.X.toarray()
    counts[~measured] = 0
    cells.X = sparse.csr_matrix(counts)
    cells.layers["measured"] = sparse.csr_matrix(measured)
    path = write_table(cells, tmp_path / "cells.h5ad")
    expected = whole(path, tmp_path / "whole.h5ad", model=model)
    assert_same_results(read(predict_to(path, tmp_path / "out.h5ad", model=model)), expected)


def test_antibodies_among_the_features(model, tmp_path):
    cells = table(330)
    cells.var["feature_types"] = "Gene Expression"
    cells.var.iloc[-3:, 0] = "Antibody Capture"
    del cells.obsm["protein"]
    path = write_table(cells, tmp_path / "cells.h5ad")
    expected = whole(path, tmp_path / "whole.h5ad", model=model)
    found = read(predict_to(path, tmp_path / "out.h5ad", model=model))
    assert_same_results(found, expected)
    assert found.n_vars == cells.n_vars


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_earlier_results_make_way(model, tmp_path, suffix):
    cells = scl.predict(table(), model=model)
    cells.obsm["protein_predicted_log1p"] = cells.obsm["protein_predicted"]
    path = write_table(cells, tmp_path / f"cells.{suffix}")
    found = read(predict_to(path, tmp_path / f"out.{suffix}", model=model, proteins=["CD4"]))
    keys = sorted(key for key in found.obsm if key.startswith("protein_predicted"))
    assert keys == [f"protein_predicted{part}" for part in ("", "_high", "_low", "_std")]
    assert found.obsm["protein_predicted"].columns.tolist() == ["CD4"]
    assert list(found.uns["sclinguist"]["trust"]) == ["CD4"]
    assert list(found.obs.columns).count("sclinguist_ood") == 1


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_only(model, tmp_path, suffix):
    cells = table()
    cells.raw = cells
    cells.layers["counts"] = cells.X
    path = write_table(cells, tmp_path / f"cells.{suffix}")
    found = read(predict_to(path, tmp_path / f"out.{suffix}", model=model, results_only=True))
    assert found.X is None
    assert found.raw is None
    assert not found.layers
    assert found.obsm["protein_predicted"].shape == (330, 5)
    assert found.obs_names.equals(cells.obs_names)
    assert found.var_names.equals(cells.var_names)


def test_rows_without_reads_are_told_of(model, tmp_path):
    path = write_table(table(), tmp_path / "cells.h5ad")
    found = read(predict_to(path, tmp_path / "out.h5ad", model=model))
    assert np.isnan(found.obsm["protein_predicted"].iloc[4]).all()
    assert np.isfinite(found.obsm["protein_predicted"].drop(index="cells-4").to_numpy()).all()
    told = " ".join(found.uns["sclinguist"]["warnings"])
    assert "1 of 330 cells have no counts" in told
    assert "1 of 330 rows express none" in told


def test_progress_counts_up_to_all_rows(model, tmp_path):
    path = write_table(table(), tmp_path / "cells.h5ad")
    steps = list(predict_to_iter(path, tmp_path / "out.h5ad", model=model, batch_size=20))
    predicting = [step.done for step in steps if step.phase == "predicting"]
    assert predicting == sorted(predicting)
    assert predicting[-1] == 330
    assert {step.total for step in steps} == {330}


def test_names_are_few_bytes_and_blocks_few_values(tmp_path):
    from sclinguist_core.data.backed_section import BackedSection

    path = write_table(table(), tmp_path / "cells.h5ad")
    with BackedSection(path) as section:
        starts = stream.plan_blocks(section, 5)
        indptr = section.table.matrix("X").indptr
        assert np.diff(indptr[starts]).max() <= streaming.BLOCK_VALUES
        assert (starts[0], starts[-1]) == (0, 330)
        # Many proteins make smaller blocks, and none lies across chunks of the output.
        most = stream.BLOCK_BYTES // (8 * 400_000)
        assert np.diff(stream.plan_blocks(section, 400_000)).max() == most


def test_blocks_end_where_chunks_of_the_output_do(tmp_path, monkeypatch):
    from sclinguist_core.data.backed_section import BackedSection

    monkeypatch.setattr(stream, "CHUNK_ROWS", 64)
    path = write_table(table(), tmp_path / "cells.h5ad")
    with BackedSection(path) as section:
        starts = set(stream.plan_blocks(section, 5).tolist())
    assert {64, 128, 192, 256, 320} <= starts


def test_several_chunks_of_the_output(model, tmp_path, monkeypatch):
    from sclinguist_core.data import write_stream
    from sclinguist_core.inference import stream_merge

    for module in (stream, write_stream, stream_merge):
        monkeypatch.setattr(module, "CHUNK_ROWS", 64)
    path = write_table(table(), tmp_path / "cells.zarr")
    expected = whole(path, tmp_path / "whole.zarr", model=model)
    streamed = predict_to(path, tmp_path / "out.zarr", model=model)
    assert_same_results(read(streamed), expected)
    chunks = sorted((streamed / "obsm" / "protein_predicted" / "CD3" / "c").iterdir())
    assert [chunk.name for chunk in chunks] == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("cells.h5", "expected"), ("nowhere.h5ad", "does not exist")],
)
def test_inputs_that_cannot_be_streamed(model, tmp_path, name, message):
    if "nowhere" not in name:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=message):
        predict_to(tmp_path / name, tmp_path / "out.h5ad", model=model)


def test_the_input_is_not_overwritten(model, tmp_path):
    path = write_table(table(), tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match="is the input"):
        predict_to(path, path, model=model)


def test_counts_by_column_are_refused(model, tmp_path):
    path = write_table(table(kind="csc"), tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match=r"stored by column \(CSC\).*tocsr"):
        predict_to(path, tmp_path / "out.h5ad", model=model)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells.h5ad"]
