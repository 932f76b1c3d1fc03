"""Proteins by their genes, given measurements, neighbours: from names to columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

import sclinguist_core as scl
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.preprocess import protein_clr, standardize
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import predict as module
from sclinguist_core.inference.conditioning import Given, condition, given_antibodies
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.prepare import prepare
from sclinguist_core.inference.progress import finish
from sclinguist_core.inference.query import ACCURACY, split_names
from sclinguist_core.inference.smoothing import smoothed
from sclinguist_core.inference.trust import Judged
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    save_checkpoint,
)
from sclinguist_core.model.conditioning import ErrorFactors
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.gene_queries import gene_queries
from sclinguist_core.train.corpus import gene_statistics, gene_universe, protein_universe
from synthetic import paired_cells

CONFIG = TranslatorConfig(gene_dim=16, width=16, n_latents=4, n_heads=2, n_layers=1, n_components=3)
KNOWN = ["CD14", "CD19", "CD3", "CD4", "CD56"]


@pytest.fixture(scope="module")
def cells():
    adata = paired_cells(90)
    counts = adata.X.toarray()
    counts[7] = 0  # a cell without reads
    adata.X = sparse.csr_matrix(counts)
    return adata


@pytest.fixture(scope="module")
def checkpoint(cells):
    section = as_section(cells)
    genes = gene_universe([section])
    aligned = align_genes(section.rna(), genes["symbol"].tolist())
    statistics = gene_statistics(genes, [aligned])
    proteins = protein_universe([section])
    torch.manual_seed(0)
    model = build_translator(CONFIG, statistics.table, proteins).eval()
    model.state.loadings.normal_(std=0.05)
    factors = ErrorFactors(
        loadings=np.array([[0.8], [0.8], [0.8], [-0.8], [0.0]], np.float32),
        noise=np.array([0.36, 0.36, 0.36, 0.36, 1.0], np.float32),
    )
    return Checkpoint(
        model=model,
        info=CheckpointInfo(name="tiny", model=CONFIG),
        genes=statistics.table,
        proteins=proteins,
        card="",
        conditioning={"cells": factors},
    )


@pytest.fixture(scope="module")
def other_gene(checkpoint):
    """A gene of the model that codes for none of its proteins."""
    coding = {gene for genes in checkpoint.proteins["genes"] for gene in genes.split(";")}
    return next(g for g in checkpoint.symbols if g not in coding)


def run(section, **options):
    return finish(predict_iter(section, device="cpu", **options))


def test_a_query_is_own_mrna_and_what_learnt_proteins_have_beyond_theirs(
    cells, checkpoint, other_gene
):
    section = as_section(cells)
    prepared = prepare(section, model=checkpoint, proteins=[other_gene], device="cpu", by_gene=True)
    assert prepared.proteins.tolist() == []
    aligned = prepared.aligned(slice(0, 90))
    found = prepared.runner().run_all(aligned)[0][:, 0]
    # By hand, cell by cell.
    queries, model = prepared.queries, checkpoint.translator
    assert queries.names == [split_names(checkpoint, [other_gene])[1]["name"][0]]
    mean = prepare(section, model=checkpoint, device="cpu").runner().run_all(aligned)[0]
    x = aligned.expression(checkpoint.gene_share).toarray()
    z = ((x - model.gene_mean.numpy()) / model.gene_std.numpy()).clip(-5, 5)
    state = np.linalg.lstsq(
        np.vstack([model.state.loadings.numpy(), np.sqrt(0.05) * np.eye(3)]),
        np.vstack([z.T, np.zeros((3, 90))]),
        rcond=None,
    )[0].T
    imputed = state @ model.state.loadings.numpy().T

    def own(share):
        return (queries.measured_gain * z + queries.imputed_gain * imputed) @ share.toarray().T

    expected = own(queries.share) + (mean - own(queries.learnt_share)) @ queries.mixing.T
    expected[7] = np.nan
    np.testing.assert_allclose(found, expected[:, 0], rtol=1e-3, atol=1e-4)


def test_asked_proteins_follow_the_learnt_ones_and_are_untested(cells, checkpoint, other_gene):
    section = as_section(cells)
    alone = run(section, model=checkpoint, proteins=["CD19", "CD3"])
    both = run(section, model=checkpoint, proteins=["CD19", other_gene, "CD3"])
    name = both.names[2]
    assert both.names == ["CD19", "CD3", name]
    np.testing.assert_allclose(both.mean[:, :2], alone.mean, rtol=1e-5, atol=1e-6)
    assert both.info["trust"][name] == "untested"
    assert both.info["by_gene"] == {name: other_gene}
    assert both.info["expected_r"][name] == ACCURACY["cells"].r
    np.testing.assert_allclose(
        (both.high - both.low)[:7, 2], ACCURACY["cells"].high - ACCURACY["cells"].low, rtol=1e-4
    )
    assert np.isnan(both.mean[7]).all()
    assert any(f"{name}: no antibody against it was in training" in s for s in both.warnings)


def test_every_gene_can_be_asked_for(cells, checkpoint):
    found = run(as_section(cells), model=checkpoint, proteins=["all-genes"])
    coding = {g for genes in checkpoint.proteins["genes"] for g in genes.split(";")}
    assert found.names[:5] == KNOWN
    columns = {gene for genes in found.info["by_gene"].values() for gene in genes.split(";")}
    assert columns | coding >= set(checkpoint.symbols)
    assert len(found.names) == len(set(found.names)) >= len(checkpoint.genes) - len(coding)
    assert np.isfinite(found.mean[:7]).all()


def test_a_gene_is_not_taken_for_the_protein_that_is_called_like_it(checkpoint):
    """M6PR is also an alias of CD222, which IGF2R codes for; MIB1 a clone against Ki-67."""
    genes = checkpoint.genes.copy()
    genes.loc[genes.index[-4:], "symbol"] = ["IGF2R", "M6PR", "MIB1", "MKI67"]
    model = replace(checkpoint, genes=genes)
    every = split_names(model, ["all-genes"])[1].set_index("name")["genes"]
    expected = {"CD222": "IGF2R", "M6PR": "M6PR", "MIB1": "MIB1", "Ki-67": "MKI67"}
    assert every.index.is_unique
    assert every[list(expected)].to_dict() == expected
    for name, gene in expected.items():
        for asked in (name, gene):
            assert split_names(model, [asked])[1][["name", "genes"]].values.tolist() == [
                [name, gene]
            ]
    by_id = split_names(model, ["ENSG00000003056"])[1]  # of M6PR
    assert by_id["name"].tolist() == ["M6PR"]


def test_the_same_gene_gets_the_weight_of_the_learnt_protein(checkpoint):
    table = checkpoint.proteins.iloc[[1]]
    queries = gene_queries(checkpoint, table)
    assert queries.mixing.shape == (1, 5)
    assert queries.mixing[0].argmax() == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("CD15", "no gene codes for it"),
        ("MS4A1", "is not among the"),
        ("foobar", "foobar"),
    ],
)
def test_what_cannot_be_asked_for_is_said(cells, checkpoint, asked, message):
    with pytest.raises(InputError, match=message):
        run(as_section(cells), model=checkpoint, proteins=[asked])


def test_log1p_is_refused_for_queries(cells, checkpoint, other_gene):
    with pytest.raises(InputError, match="CLR scale"):
        run(as_section(cells), model=checkpoint, proteins=[other_gene], log1p=True)


def test_a_result_larger_than_memory_is_refused(cells, checkpoint, monkeypatch):
    section = as_section(cells)
    with monkeypatch.context() as patch:
        patch.setattr(module, "BYTES_PER_VALUE", 2**50)
        with pytest.raises(InputError, match="GiB of memory"):
            run(section, model=checkpoint)
    monkeypatch.setattr(module, "BYTES_PER_MOVED_VALUE", 2**50)
    for options in ({"given": "measured"}, {"context": "nearest"}, {"proteins": ["all-genes"]}):
        with pytest.raises(InputError, match="GiB of memory"):
            run(section, model=checkpoint, **options)
    assert run(section, model=checkpoint).names == KNOWN


def test_a_plain_string_is_one_name(cells, checkpoint):
    section = as_section(cells)
    assert run(section, model=checkpoint, proteins="CD19").names == ["CD19"]
    with pytest.raises(InputError, match=r"1 given protein that the model .* \(CD3\)"):
        run(section, model=checkpoint, given="CD3")


def test_given_proteins_move_the_hidden_ones_by_their_errors(cells, checkpoint):
    section = as_section(cells)
    rna = run(section, model=checkpoint)
    after = run(section, model=checkpoint, given=["CD14", "CD19", "CD3"])
    counts = cells.obsm["protein"][["CD14", "CD19", "CD3"]].to_numpy()
    clr = standardize(protein_clr(counts))
    spread = np.sqrt(np.nanvar(rna.mean[:, :3], axis=0) + np.nanmean(rna.std[:, :3] ** 2, axis=0))
    errors = np.nan_to_num(standardize(clr * spread - rna.mean[:, :3]))
    covariance = 0.64 * np.ones((3, 3)) + 0.36 * np.eye(3)
    weights = np.linalg.solve(covariance, -0.64 * np.ones(3))
    size = np.sqrt(np.nanmean(rna.std[:, 3] ** 2))
    np.testing.assert_allclose(
        after.mean[:, 3], rna.mean[:, 3] + errors @ weights * size, rtol=1e-3, atol=1e-4
    )
    # CD56 shares no errors with others; the interval of CD4 is narrower by what is explained.
    np.testing.assert_array_equal(after.mean[:, 4], rna.mean[:, 4])
    left = np.sqrt(1 - (weights @ (-0.64 * np.ones(3))))
    np.testing.assert_allclose(
        (after.high - after.low)[:7, 3], left * (rna.high - rna.low)[:7, 3], rtol=1e-3
    )
    assert set(after.info["given"]) == {"CD14", "CD19", "CD3"}
    assert any("Conditioned on 3 measured proteins" in s for s in after.warnings)


def test_the_own_measurement_of_a_protein_leaves_its_column_alone(cells, checkpoint):
    section = as_section(cells)
    before = run(section, model=checkpoint, given="measured")
    changed = cells.copy()
    protein = changed.obsm["protein"].copy()
    protein["CD19"] = protein["CD19"].to_numpy()[::-1] * 3 + 5
    changed.obsm["protein"] = protein
    after = run(as_section(changed), model=checkpoint, given="measured")
    column = before.names.index("CD19")
    np.testing.assert_array_equal(after.mean[:, column], before.mean[:, column])
    assert not np.allclose(after.mean[:7, 0], before.mean[:7, 0])


def test_chosen_proteins_get_what_all_of_them_would(cells, checkpoint, other_gene):
    section = as_section(cells)
    whole = run(section, model=checkpoint, given="measured", context="nearest")
    part = run(
        section, model=checkpoint, proteins=["CD4", "CD14", other_gene],
        given="measured", context="nearest",
    )  # fmt: skip
    assert part.names[:2] == ["CD4", "CD14"]
    np.testing.assert_allclose(part.mean[:, :2], whole.mean[:, [3, 0]], rtol=1e-4, atol=1e-5)
    assert part.info["neighbours"] == "nearest"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["CD14", "CD19"], "2 given proteins"),
        (["CD14", "CD8"], "CD8 was not measured"),
        (["CD14", "CD19", "CD56"], "2 given proteins"),
    ],
)
def test_given_proteins_that_do_not_do_are_refused(cells, checkpoint, given, message):
    with pytest.raises(InputError, match=message):
        given_antibodies(as_section(cells), checkpoint, given, "cells")


def test_conditioning_needs_factors_protein_and_rows(cells, checkpoint):
    section = as_section(cells)
    with pytest.raises(InputError, match=r"no conditioning\.safetensors"):
        given_antibodies(section, replace(checkpoint, conditioning=None), "measured", "cells")
    with pytest.raises(InputError, match="expected at least 50"):
        given_antibodies(as_section(cells[:20].copy()), checkpoint, "measured", "cells")
    bare = cells.copy()
    del bare.obsm["protein"]
    with pytest.raises(InputError, match="has no measured proteins"):
        given_antibodies(as_section(bare), checkpoint, "measured", "cells")


def test_a_cell_without_measurement_keeps_its_prediction(cells, checkpoint):
    table = cells.copy()
    table.obsm["protein"] = table.obsm["protein"].copy()
    table.obsm["protein"].iloc[3] = np.nan
    section = as_section(table)
    rna = run(section, model=checkpoint)
    given = given_antibodies(section, checkpoint, "measured", "cells")
    steps = condition(Judged(mean=rna.mean, std=rna.std, low=rna.low, high=rna.high), given)
    after = finish(steps)
    for part in ("mean", "std", "low", "high"):
        np.testing.assert_allclose(getattr(after, part)[3], getattr(rna, part)[3], atol=1e-6)
    assert not np.allclose(after.mean[2], rna.mean[2])
    assert (after.std[2, :4] < rna.std[2, :4]).all()


def test_a_row_is_conditioned_on_what_was_measured_in_it(checkpoint):
    """Against a solution of each row's own covariances."""
    rng = np.random.default_rng(0)
    n, loadings = 200, np.array([[0.8], [0.6], [0.7], [-0.8], [0.5]], np.float32)
    factors = ErrorFactors(loadings=loadings, noise=1.0 - (loadings**2).sum(axis=1))
    mean = rng.normal(size=(n, 5)).astype(np.float32)
    judged = Judged(mean=mean, std=0 * mean + 0.5, low=mean - 1, high=mean + 1)
    counts = rng.poisson(20, size=(n, 4)).astype(np.float64)
    counts[:60, 1] = counts[40:90, 2] = counts[:20, 0] = np.nan  # rows 40 to 60 have two
    counts[190:, 1:] = np.nan  # a CLR of one says nothing
    protein = np.array([3, 0, 1, 1])
    given = Given(counts=counts, protein=protein, factors=factors, names=[], unused=[], digest="")
    after = finish(condition(judged, given))
    measured = np.array([0, 1, 3])
    for asked in range(5):
        others = protein != asked
        clr = protein_clr(counts[:, others]).astype(np.float64)
        clr[np.isfinite(clr).sum(axis=1) < 2] = np.nan
        assert np.isnan(clr).all(axis=1).sum() >= 10
        clr = standardize(clr)
        errors = np.full((n, 5), np.nan)
        for p in np.setdiff1d(measured, asked):
            own = np.ma.masked_invalid(clr[:, protein[others] == p]).mean(axis=1).filled(np.nan)
            errors[:, p] = own * np.sqrt(mean[:, p].var() + 0.25) - mean[:, p]
        errors = standardize(errors)
        for i in range(n):
            known = np.flatnonzero(np.isfinite(errors[i]))
            covariance = factors.between(known, [asked])[:, 0]
            weights = np.linalg.solve(factors.among(known), covariance)
            shift = 0.5 * errors[i, known] @ weights
            shrink = np.sqrt(1 - covariance @ weights)
            np.testing.assert_allclose(after.mean[i, asked] - mean[i, asked], shift, atol=1e-5)
            np.testing.assert_allclose(after.std[i, asked], 0.5 * shrink, atol=1e-5)
            width = after.high[i, asked] - after.low[i, asked]
            np.testing.assert_allclose(width, 2 * shrink, atol=1e-5)


def test_antibodies_without_counts_are_not_counted(cells, checkpoint):
    table = cells.copy()
    table.obsm["protein"] = table.obsm["protein"].astype(np.float64)
    table.obsm["protein"].loc[:, "CD19"] = np.nan
    given = given_antibodies(as_section(table), checkpoint, "measured", "cells")
    assert "CD19" not in given.names
    assert "CD19" in given.unused
    assert given.counts.shape[1] == len(given.names) == 3
    table.obsm["protein"].loc[:] = np.nan
    with pytest.raises(InputError, match=r"0 given proteins .* measured in 50 rows or more"):
        given_antibodies(as_section(table), checkpoint, "measured", "cells")


def test_normalised_antibodies_are_refused(cells, checkpoint):
    table = cells.copy()
    table.obsm["protein"] = table.obsm["protein"].astype(np.float64) - 5.0
    with pytest.raises(InputError, match="expected raw antibody counts"):
        given_antibodies(as_section(table), checkpoint, "measured", "cells")


def test_without_a_prediction_nothing_is_conditioned(cells, checkpoint):
    table = cells.copy()
    table.X = sparse.csr_matrix(table.shape, dtype=np.float32)
    found = run(as_section(table), model=checkpoint, given="measured")
    assert np.isnan(found.mean).all()
    assert "given" not in found.info
    assert sum("No row has a prediction" in s for s in found.warnings) == 1
    assert not any("Conditioned" in s for s in found.warnings)


def test_conditioning_tells_how_far_it_is(cells, checkpoint):
    steps = predict_iter(as_section(cells), model=checkpoint, device="cpu", given="measured")
    done = [step.done for step in steps if step.phase == "conditioning"]
    assert done == [0, 18, 36, 54, 72]  # of 90 rows, for four measured proteins and the rest


def test_factors_are_saved_and_leave_the_digest_alone(checkpoint, tmp_path):
    with_factors = load_checkpoint(save_checkpoint(checkpoint, tmp_path / "with"))
    bare = replace(checkpoint, conditioning=None)
    without = load_checkpoint(save_checkpoint(bare, tmp_path / "without"))
    assert with_factors.digest == without.digest != ""
    assert without.conditioning is None
    np.testing.assert_allclose(
        with_factors.conditioning["cells"].loadings,
        checkpoint.conditioning["cells"].loadings,
        atol=1e-3,
    )


def test_neighbours_draw_half_way_and_rows_without_value_take_no_part():
    mean = np.array([[0.0], [2.0], [4.0], [np.nan]], np.float32)
    judged = Judged(mean=mean, std=mean * 0 + 1, low=mean - 1, high=mean + 1)
    bags = sparse.csr_matrix(
        np.array([[0, 0.5, 0, 0.5], [0.5, 0, 0.5, 0], [0, 0, 0, 1.0], [1.0, 0, 0, 0]], np.float32)
    )
    found = smoothed(judged, bags)
    np.testing.assert_allclose(found.mean[:, 0], [1.0, 2.0, 4.0, np.nan])
    np.testing.assert_allclose((found.high - found.low)[:3, 0], 2.0)
    np.testing.assert_allclose(found.std, judged.std)


def test_spatial_neighbours_need_a_tissue(cells, checkpoint):
    with pytest.raises(InputError, match="no positions"):
        run(as_section(cells), model=checkpoint, context="spatial")
    with pytest.raises(InputError, match="expected one of none, spatial, nearest"):
        run(as_section(cells), model=checkpoint, context="near")
    table = cells.copy()
    table.obsm["spatial"] = np.column_stack([np.arange(90.0), np.zeros(90)])
    plain = scl.predict(table, model=checkpoint).obsm["protein_predicted"].to_numpy()
    found = scl.predict(table, model=checkpoint, context="spatial")
    values = found.obsm["protein_predicted"].to_numpy()
    inner = [i for i in range(33, 48) if i != 40]
    near = np.r_[inner, 32, 48]  # of the two that are equally far, one is taken
    bag = [plain[np.setdiff1d(near, [out])].mean(axis=0) for out in (32, 48)]
    expected = [0.5 * plain[40] + 0.5 * mean for mean in bag]
    assert any(np.allclose(values[40], e, rtol=1e-4, atol=1e-5) for e in expected)
    assert found.uns["sclinguist"]["neighbours"] == "spatial"
