"""Out-of-distribution score, and what a section tells about its own predictions."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import sparse

import sclinguist_core as scl
from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.reference import fit_familiarity
from sclinguist_core.inference import trust
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.progress import finish
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.calibration import ContextCalibration, interval_features
from sclinguist_core.model.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    save_checkpoint,
)
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.familiarity import (
    Familiarity,
    excess_in_batches,
    read_familiarity,
    surprise,
)
from sclinguist_core.train.corpus import (
    gene_statistics,
    gene_universe,
    paired_dataset,
    protein_universe,
)
from synthetic import paired_cells

CONFIG = TranslatorConfig(gene_dim=16, width=16, n_latents=4, n_heads=2, n_layers=1)
N_GENES = 300


def rows(shares, depth, rng):
    """Poisson reads of rows that follow the given shares."""
    counts = sparse.csr_matrix(rng.poisson(shares * depth).astype(np.float32))
    return counts, np.ones((1, shares.shape[1]), bool), np.zeros(len(shares), np.int64)


@pytest.fixture(scope="module")
def profiles():
    shares = np.random.default_rng(0).gamma(0.5, size=(4, N_GENES)) + 0.01
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def test_depth_panel_and_mixture_do_not_surprise(profiles):
    rng = np.random.default_rng(1)
    pure = profiles[rng.integers(0, 4, 400)]
    deep = surprise(profiles, *rows(pure, 4_000, rng)).mean()
    shallow = surprise(profiles, *rows(pure, 400, rng)).mean()
    mixed = surprise(profiles, *rows(rng.dirichlet(np.ones(4), 400) @ profiles, 4_000, rng)).mean()
    counts, _, pattern = rows(pure, 4_000, rng)
    panel = np.arange(N_GENES) % 2 == 0
    half = counts.multiply(panel[None].astype(np.float32)).tocsr()
    subset = surprise(profiles, half, panel[None], pattern).mean()
    foreign = rng.permutation(profiles[0])[None].repeat(400, axis=0)
    strange = surprise(profiles, *rows(foreign, 4_000, rng)).mean()
    assert np.abs([deep, shallow, mixed, subset]).max() < 0.06
    assert abs(deep - shallow) < 0.01
    assert abs(deep - subset) < 0.02
    assert strange > 0.3


def test_a_card_computes_many_rows_at_a_time_and_the_same(profiles, monkeypatch):
    rng = np.random.default_rng(3)
    reads, measured, pattern = rows(profiles[rng.integers(0, 4, 60)], 300, rng)
    expected = surprise(profiles, reads, measured, pattern)
    assert np.ptp(expected) > 0.05
    # As many tokens in a batch as a few rows have.
    monkeypatch.setattr("sclinguist_core.model.familiarity._CARD_VALUES", 4 * 1_000)
    found = excess_in_batches(profiles, reads, torch.device("cpu"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_card_without_memory_leaves_the_score_to_the_processor(profiles, monkeypatch, caplog):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("sclinguist_core.model.familiarity.excess_in_batches", full)
    given = rows(profiles, 300, np.random.default_rng(4))
    found = surprise(profiles, *given, torch.device("meta"))
    np.testing.assert_array_equal(found, surprise(profiles, *given))
    assert "no memory" in caplog.text


def test_score_is_the_share_of_less_strange_rows(profiles):
    rng = np.random.default_rng(2)
    own = rows(profiles[rng.integers(0, 4, 2_000)], 500, rng)
    levels = np.quantile(surprise(profiles, *own), np.linspace(0, 1, 101))
    familiarity = Familiarity(profiles=profiles, levels=levels)
    score = familiarity.score(*rows(profiles[rng.integers(0, 4, 2_000)], 500, rng))
    np.testing.assert_allclose(np.quantile(score, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.06)
    foreign = rng.permutation(profiles[0])[None].repeat(50, axis=0)
    assert familiarity.score(*rows(foreign, 500, rng)).min() > 0.95


def test_rows_with_hardly_any_reads_have_no_score(profiles):
    counts = sparse.csr_matrix((3, N_GENES), dtype=np.float32).tolil()
    counts[1, 0] = 5
    counts[2, :30] = 1
    familiarity = Familiarity(profiles=profiles, levels=np.linspace(0, 1, 11))
    score = familiarity.score(counts.tocsr(), np.ones((1, N_GENES), bool), np.zeros(3, np.int64))
    assert np.isnan(score).tolist() == [True, True, False]
    nothing = familiarity.score(counts.tocsr(), np.zeros((1, N_GENES), bool), np.zeros(3, np.int64))
    assert np.isnan(nothing).all()


def test_file(profiles, tmp_path):
    profiles = profiles.copy()
    profiles[:, 3] = 0  # not counted
    familiarity = Familiarity(profiles=profiles, levels=np.linspace(-0.1, 0.5, 201))
    assert read_familiarity(tmp_path, N_GENES) is None
    familiarity.save(tmp_path)
    again = read_familiarity(tmp_path, N_GENES)
    assert (again.profiles[:, 3] == 0).all()
    whole = profiles / profiles.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(again.profiles, whole, rtol=0.02)
    np.testing.assert_allclose(again.levels, familiarity.levels, atol=1e-6)
    with pytest.raises(InputError, match="over 7 genes"):
        read_familiarity(tmp_path, 7)
    (tmp_path / "familiarity.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        read_familiarity(tmp_path, N_GENES)


@pytest.fixture(scope="module")
def cells():
    return paired_cells(300)


@pytest.fixture(scope="module")
def checkpoint(cells):
    section = as_section(cells)
    genes = gene_universe([section])
    aligned = align_genes(section.rna(), genes["symbol"].tolist())
    statistics = gene_statistics(genes, [aligned])
    proteins = protein_universe([section])
    torch.manual_seed(0)
    plain = Checkpoint(
        model=build_translator(CONFIG, statistics.table, proteins).eval(),
        info=CheckpointInfo(name="untrained", model=CONFIG, training_datasets=("synthetic",)),
        genes=statistics.table,
        proteins=proteins,
        card="",
    )
    half = as_section(cells[:150])  # the other half is as new as cells of one study can be
    data = paired_dataset(half, plain.symbols, plain.protein_names)
    return dataclasses.replace(plain, familiarity=fit_familiarity(plain, [data]))


def test_prediction_writes_the_score(cells, checkpoint, tmp_path):
    saved = load_checkpoint(save_checkpoint(checkpoint, tmp_path / "model"))
    assert (
        saved.digest
        != load_checkpoint(
            save_checkpoint(dataclasses.replace(checkpoint, familiarity=None), tmp_path / "plain")
        ).digest
    )
    scores = scl.predict(cells, model=saved).obs["sclinguist_ood"].to_numpy()
    assert scores.dtype == np.float32
    assert 0.25 < np.median(scores[:150]) < 0.75
    assert 0.25 < np.median(scores[150:]) < 0.8
    foreign = cells.copy()
    foreign.X = foreign.X[:, np.random.default_rng(0).permutation(cells.n_vars)]
    result = finish(predict_iter(as_section(foreign), model=saved))
    assert np.median(result.ood) > 0.99
    assert any("sclinguist_ood" in sentence for sentence in result.warnings)


def test_without_a_reference_there_is_no_score(cells, checkpoint):
    plain = dataclasses.replace(checkpoint, familiarity=None)
    assert "sclinguist_ood" not in scl.predict(cells, model=plain).obs


def test_halves_are_the_reads_dealt_out():
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(3.0, (50, 40)).astype(np.float32))
    aligned = AlignedRna(
        counts=counts, measured=np.ones((1, 40), bool), pattern=np.zeros(50, np.int64)
    )
    first, second = trust.halves(aligned)
    assert abs(first.counts + second.counts - counts).max() == 0
    assert first.counts.sum() == pytest.approx(counts.sum() / 2, rel=0.05)
    assert first.counts.data.min() > 0


def test_reliability_is_high_where_reads_agree():
    rng = np.random.default_rng(0)
    level = rng.gamma(1.0, size=(200, 1))
    counts = sparse.csr_matrix(
        rng.poisson(np.hstack([200 * level, np.full((200, 1), 2.0)])).astype(np.float32)
    )
    aligned = AlignedRna(
        counts=counts, measured=np.ones((1, 2), bool), pattern=np.zeros(200, np.int64)
    )
    z = trust.reliability(aligned, lambda rna: (rna.counts.toarray(), rna.counts.toarray()))
    assert np.tanh(z[0]) > 0.95
    assert abs(z[1]) < 0.3


def test_column_correlation():
    x = np.array([[0.0, 1.0, 1.0], [1.0, 1.0, np.nan], [2.0, 1.0, 2.0], [3.0, 1.0, np.nan]])
    y = np.array([[0.0, 0.0, 1.0], [-1.0, 1.0, 1.0], [-2.0, 2.0, 3.0], [-3.0, 3.0, 1.0]])
    np.testing.assert_allclose(column_correlation(x, y), [-1.0, np.nan, np.nan])


def test_a_calibrated_section_is_judged(cells, checkpoint):
    n = len(checkpoint.proteins)
    n_features = len(interval_features(np.zeros(1), np.zeros(1), np.ones(1)))
    context = ContextCalibration(
        slope=np.full(n, 0.5),
        offset=np.zeros(n),
        center=np.zeros(n),
        spread=np.array([1e-6, 1e-6, 1e-6, 1e-6, 100.0]),
        observed=np.full(n, 0.8),
        evidence=np.array([2.0, 2.0, 2.0, np.nan, 2.0]),
        agreement=np.zeros(n),
        implied=np.zeros(n),
        reliability=np.zeros(n),
        tested=np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        untested=np.zeros(5),
        lower=np.r_[-1.0, np.zeros(n_features - 1)],
        upper=np.r_[2.0, np.zeros(n_features - 1)],
        width_per_std=3.0,
        well=0.7,
        fairly=0.4,
    )
    section = as_section(cells)
    plain = finish(predict_iter(section, model=checkpoint))
    model = dataclasses.replace(checkpoint, calibration={"cells": context})
    steps = list(predict_iter(section, model=model))
    result = finish(predict_iter(section, model=model))
    assert steps[-1].phase == "judging trust"
    np.testing.assert_allclose(result.mean, plain.mean * 0.5, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.low, result.mean - 1, atol=1e-5)
    np.testing.assert_allclose(result.high, result.mean + 2, atol=1e-5)
    labels = ["well", "well", "well", "untested", "not verifiable here"]
    assert list(result.info["trust"].values()) == labels
    assert result.info["context"] == "cells"
    assert result.info["expected_r"]["CD19"] == pytest.approx(np.tanh(2.0), abs=1e-3)
    few = finish(predict_iter(as_section(cells[:20]), model=model))
    assert few.info["trust"]["CD56"] == "well"  # too few rows to tell
    # Rows without reads, of which both halves are predicted alike, tell nothing of reliability.
    by_reliability = dataclasses.replace(
        context, tested=np.eye(6)[3], untested=np.zeros(5), spread=np.full(n, 1e-6)
    )
    model_r = dataclasses.replace(checkpoint, calibration={"cells": by_reliability})
    padded = cells.copy()
    padded.X = sparse.vstack([cells.X[:150], sparse.csr_matrix((150, cells.n_vars))]).tocsr()
    empty = finish(predict_iter(as_section(padded), model=model_r)).info["expected_r"]
    half = finish(predict_iter(as_section(cells[:150]), model=model_r)).info["expected_r"]
    assert empty == pytest.approx(half, abs=1e-3)
    some = finish(predict_iter(section, model=model, proteins=["CD56"]))
    assert some.info["trust"] == {"CD56": "not verifiable here"}
