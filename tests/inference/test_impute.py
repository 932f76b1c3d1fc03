"""Imputation of a section: what is written where, how good it is, and what is refused."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sclinguist_core as scl
from imputation_model import checkpoint_with_components
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError
from sclinguist_core.inference import impute as module
from sclinguist_core.inference.imputation import attach
from sclinguist_core.inference.impute import impute_iter
from sclinguist_core.inference.progress import Progress, finish
from synthetic import paired_cells

N = 240
LACKING = "CD19"


@pytest.fixture(scope="module")
def checkpoint():
    return checkpoint_with_components()


@pytest.fixture(scope="module")
def truth():
    return paired_cells(N, seed=5)


@pytest.fixture(scope="module")
def cells(truth):
    """The same without one gene, and with one cell that has no reads."""
    table = truth[:, truth.var_names != LACKING].copy()
    counts = table.X.tolil()
    counts[7] = 0
    table.X = sparse.csr_matrix(counts, dtype=np.float32)
    table.layers["spliced"] = table.X.copy()
    return table


@pytest.fixture(scope="module")
def imputed(cells, checkpoint):
    return scl.impute(
        cells, genes=["CD3E", LACKING, "CD3e", "NCAM1"], model=checkpoint, levels=True
    )


def log1p(table):
    return np.log1p(1e4 * table.X.toarray() / np.asarray(table.X.sum(axis=1)))


def test_measured_genes_go_to_the_layer_and_others_to_obsm(cells, imputed):
    layer = imputed.layers["sclinguist_imputed"]
    assert layer.shape == cells.shape
    columns = cells.var_names.get_indexer(["CD3E", "NCAM1"])
    assert np.flatnonzero(np.diff(layer.indptr)).tolist() == sorted(columns.tolist())
    assert imputed.var_names[imputed.var["sclinguist_imputed"]].tolist() == sorted(
        ["CD3E", "NCAM1"], key=cells.var_names.get_loc
    )
    frame = imputed.obsm["sclinguist_imputed"]
    assert frame.columns.tolist() == [LACKING]
    assert frame.index.equals(cells.obs_names)
    levels = imputed.layers["sclinguist_imputed_level"][:, columns].toarray()
    assert set(np.unique(np.delete(levels, 7, axis=0)).tolist()) <= {0, 1, 2, 3, 4}
    assert len(np.unique(levels)) > 3


def test_values_follow_what_was_measured(truth, imputed):
    x = log1p(truth)
    keep = np.arange(N) != 7
    layer = imputed.layers["sclinguist_imputed"]
    for gene in ("CD3E", "NCAM1"):
        said = layer[:, imputed.var_names.get_loc(gene)].toarray()[:, 0]
        assert np.corrcoef(said[keep], x[keep, truth.var_names.get_loc(gene)])[0, 1] > 0.4
    said = imputed.obsm["sclinguist_imputed"][LACKING].to_numpy()
    assert np.corrcoef(said[keep], x[keep, truth.var_names.get_loc(LACKING)])[0, 1] > 0.4


def test_a_cell_without_reads_has_no_value(imputed):
    layer = imputed.layers["sclinguist_imputed"]
    column = imputed.var_names.get_loc("CD3E")
    assert np.isnan(layer[7, column])
    assert np.isnan(imputed.obsm["sclinguist_imputed"].iloc[7, 0])
    assert imputed.layers["sclinguist_imputed_level"][7, column] == -1
    assert np.isfinite(layer[:, column].toarray()).sum() == N - 1
    assert any("1 of 240 rows" in said for said in imputed.uns["sclinguist_imputed"]["warnings"])


def test_everything_else_stays(cells, imputed):
    assert "sclinguist_imputed" not in cells.layers
    assert "sclinguist_imputed" not in cells.var
    assert (imputed.X != cells.X).nnz == 0
    assert (imputed.layers["spliced"] != cells.X).nnz == 0


def test_a_section_is_left_alone(cells, checkpoint):
    section = as_section(cells)
    table = scl.impute(section, genes=["CD3E", LACKING], model=checkpoint)
    assert "sclinguist_imputed" in table.layers
    assert "sclinguist_imputed" in table.obsm
    for part in ("layers", "obsm", "var", "uns"):
        assert "sclinguist_imputed" not in getattr(section.table, part)


def test_cells_that_the_model_was_trained_on_are_told(cells, checkpoint):
    info = replace(checkpoint.info, training_datasets=("Ann-Data", "other"))
    trained = replace(checkpoint, info=info)
    told = "The model was trained on Ann-Data: results are better here than they would be on new"
    for model, expected in ((trained, True), (checkpoint, False)):
        found = finish(impute_iter(as_section(cells), genes=["CD3E"], model=model))
        assert any(sentence.startswith(told) for sentence in found.warnings) is expected


def test_each_gene_says_how_well_it_goes_here(imputed):
    uns = imputed.uns["sclinguist_imputed"]
    tested = uns["tested"]
    assert tested.index.tolist() == ["CD3E", LACKING, "NCAM1"]
    assert tested["test"].tolist() == ["measured here", "untested", "measured here"]
    assert np.isnan(tested.loc[LACKING, ["pearson", "mcc"]].astype(float)).all()
    assert (tested.loc[["CD3E", "NCAM1"], "pearson"] > 0.3).all()
    # Two thirds of the rows test, and half of a named gene's entries is hidden.
    assert 60 < tested.loc["CD3E", "n_hidden"] < 100
    assert uns["genes_measured"] == 2
    assert uns["genes_not_measured"] == 1
    assert 0 < uns["mcc"] < 1
    assert uns["median_pearson"] >= uns["never_measured_median_pearson"] - 0.05


def test_the_same_seed_gives_the_same(cells, checkpoint):
    one, other, third = (
        finish(impute_iter(as_section(cells), genes=["CD3E"], model=checkpoint, seed=seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.value, other.value)
    pd.testing.assert_frame_equal(one.tested, other.tested)
    assert not np.array_equal(np.nan_to_num(one.value), np.nan_to_num(third.value))


def test_by_default_the_genes_that_were_not_measured(cells, checkpoint):
    found = finish(impute_iter(as_section(cells), model=checkpoint))
    assert found.names == [LACKING]
    assert found.value.shape == (N, 1)
    assert found.columns[0].size == 0
    table = as_section(cells).table
    attach(table, found)
    assert "sclinguist_imputed" not in table.layers
    assert not table.var["sclinguist_imputed"].any()


def test_all_genes_when_asked_for(cells, checkpoint):
    found = finish(impute_iter(as_section(cells), all_genes=True, model=checkpoint))
    assert found.names == checkpoint.symbols
    assert np.isfinite(np.delete(found.value, 7, axis=0)).all()
    assert set(found.tested["test"]) == {"measured here", "too rare", "untested"}
    rare = found.tested[found.tested["test"] == "too rare"]
    assert (rare["n_expressed"] < 10).all()


def test_a_second_run_replaces_the_first(imputed, checkpoint):
    again = scl.impute(imputed, genes=["CD14"], model=checkpoint)
    assert "sclinguist_imputed" not in again.obsm
    assert "sclinguist_imputed_level" not in again.layers
    assert again.var_names[again.var["sclinguist_imputed"]].tolist() == ["CD14"]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_what_is_written_is_read_back(imputed, tmp_path, suffix):
    path = write_table(imputed, tmp_path / f"imputed{suffix}")
    back = ad.read_h5ad(path) if suffix == ".h5ad" else ad.read_zarr(path)
    column = back.var_names.get_loc("CD3E")
    np.testing.assert_array_equal(
        back.layers["sclinguist_imputed"][:, column].toarray(),
        imputed.layers["sclinguist_imputed"][:, column].toarray(),
    )
    tested = back.uns["sclinguist_imputed"]["tested"]
    pd.testing.assert_frame_equal(
        tested.astype({"test": object}),
        imputed.uns["sclinguist_imputed"]["tested"].astype({"test": object}),
        check_index_type=False,
        check_column_type=False,
    )
    # The layer is no place to look for counts.
    assert scl.open_section(path).counts_location == "X"


def test_genes_of_raw_land_in_the_columns_of_the_table(cells, checkpoint):
    table = cells[:, ["NCAM1", "CD14", *cells.var_names[50:90]]].copy()
    table.raw = cells
    table.X = np.log1p(table.X.toarray()) / 3
    del table.layers["spliced"]
    found = scl.impute(table, genes=["CD14", "CD4"], model=checkpoint)
    assert found.var_names[found.var["sclinguist_imputed"]].tolist() == ["CD14"]
    # CD4 was measured, but is no column of the table.
    assert found.obsm["sclinguist_imputed"].columns.tolist() == ["CD4"]
    assert "untested" not in set(found.uns["sclinguist_imputed"]["tested"]["test"])


def test_cells_that_measured_other_genes_are_imputed_alike(truth, checkpoint):
    table = truth.copy()
    measured = np.ones(table.shape, bool)
    column = table.var_names.get_loc("CD14")
    measured[: N // 2, column] = False
    table.layers["measured"] = sparse.csr_matrix(measured)
    found = finish(impute_iter(as_section(table), genes=["CD14"], model=checkpoint))
    x = log1p(truth)[:, column]
    for half in (slice(0, N // 2), slice(N // 2, None)):
        assert np.corrcoef(found.value[half, 0], x[half])[0, 1] > 0.4


@pytest.mark.parametrize("context", ["nearest", "spatial"])
def test_a_context_is_taken(cells, checkpoint, context):
    table = cells.copy()
    table.obsm["spatial"] = np.random.default_rng(0).random((N, 2))
    found = finish(
        impute_iter(
            as_section(table), genes=["CD3E"], context=context, n_neighbours=6, model=checkpoint
        )
    )
    assert found.info["context"] == context
    assert found.info["n_neighbours"] == 6
    assert np.isfinite(np.delete(found.value, 7, axis=0)).all()


def test_a_caller_that_stops_cancels(cells, checkpoint):
    steps = impute_iter(as_section(cells), genes=["CD3E"], model=checkpoint)
    seen = [next(steps) for _ in range(4)]
    steps.close()
    assert seen[0] == Progress(0, N, "loading model")
    assert all(0 <= step.done <= step.total <= N for step in seen)
    with pytest.raises(StopIteration):
        next(steps)


def test_progress_ends_where_the_work_ends(cells, checkpoint):
    phases, last = {}, None
    for last in impute_iter(as_section(cells), genes=["CD3E"], model=checkpoint):
        phases[last.phase] = None
    assert list(phases) == [
        "loading model", "hiding entries", "learning", "testing", "reading cells", "imputing",
    ]  # fmt: skip
    assert last == Progress(N - 1, N - 1, "imputing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"genes": ["CD3E", "nonsense"]}, "gene 'nonsense': not a known gene"),
        ({"genes": ["FOXP3"]}, "the model does not read FOXP3"),
        ({"genes": []}, "found an empty list"),
        ({"genes": ["CD3E"], "context": "sideways"}, "expected one of none, spatial, nearest"),
        ({"genes": ["CD3E"], "context": "spatial"}, "has no positions on a tissue"),
        ({"genes": ["CD3E"], "n_neighbours": 0}, "neighbours 0: expected at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(cells, checkpoint, options, message):
    with pytest.raises(InputError, match=message):
        finish(impute_iter(as_section(cells), model=checkpoint, **options))


def test_nothing_is_missing_from_a_full_table(truth, checkpoint):
    with pytest.raises(InputError, match="measured all 338 genes of the model"):
        finish(impute_iter(as_section(truth), model=checkpoint))


def test_too_few_cells_are_refused(cells, checkpoint):
    with pytest.raises(InputError, match="29 cells or spots with reads, expected at least 50"):
        finish(impute_iter(as_section(cells[:30].copy()), genes=["CD3E"], model=checkpoint))


def test_too_many_values_are_refused(cells, checkpoint, monkeypatch):
    monkeypatch.setattr(module, "MAX_VALUES", 1_000)
    with pytest.raises(InputError, match=r"338 genes for 240 rows .* name up to 4 genes"):
        finish(impute_iter(as_section(cells), all_genes=True, model=checkpoint))


def test_genes_that_the_section_lacks_do_not_hang_on_the_context(cells, checkpoint):
    section = as_section(cells)
    one, other = (
        finish(impute_iter(section, genes=[LACKING], context=context, model=checkpoint))
        for context in ("none", "nearest")
    )
    np.testing.assert_array_equal(one.value, other.value)
    assert not any("context" in said for said in one.warnings)
    assert "the context changes nothing" in other.warnings[-1]
