"""Benchmark: one split, one table, and honesty about what the model has seen."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from evaluation.made_up import CANONICAL, CODING, make_cells
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.benchmark import Benchmark, benchmark, best_baseline
from sclinguist_core.evaluation.inputs import dataset_key
from sclinguist_core.inference.predict import as_section
from sclinguist_core.model.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    build_translator,
)
from sclinguist_core.model.config import TranslatorConfig


@pytest.fixture
def checkpoint() -> Checkpoint:
    """An untrained model: it runs, and the baselines must beat it."""
    symbols = make_cells(3).var_names
    genes = pd.DataFrame(
        {
            "symbol": symbols,
            "ensembl_id": "",
            "reference_share": 1 / len(symbols),
            "mean": 1.0,
            "std": 1.0,
        }
    )
    proteins = pd.DataFrame(
        {
            "name": [CANONICAL.get(name, name) for name in CODING],
            "genes": [";".join(genes) for genes in CODING.values()],
            "kind": "protein",
        }
    )
    config = TranslatorConfig(gene_dim=8, width=8, n_latents=2, n_heads=2, n_layers=1)
    info = CheckpointInfo(name="tiny", model=config, training_datasets=("PBMC-10k", "seen"))
    model = build_translator(config, genes, proteins).eval()
    return Checkpoint(model=model, info=info, genes=genes, proteins=proteins, card="")


@pytest.fixture
def result(checkpoint) -> Benchmark:
    test = [
        replace(as_section(make_cells(150, seed=seed)), name=name, source=None)
        for seed, name in ((5, "fresh"), (6, "pbmc10k"))
    ]
    return benchmark([make_cells(400, seed=1)], test, model=checkpoint, device="cpu")


def test_tables_cover_every_set_and_predictor(result):
    assert list(result.evaluations) == ["fresh", "pbmc10k"]
    assert len(result.summary) == 2 * 9
    assert list(result.summary.columns[:2]) == ["dataset", "method"]
    assert len(result.per_protein) == 2 * 6
    table = result.table()
    assert list(table.columns) == ["fresh", "pbmc10k", "mean"]
    np.testing.assert_allclose(
        table["mean"], table[["fresh", "pbmc10k"]].mean(axis=1, skipna=False)
    )
    assert table.loc[best_baseline(table), "mean"] > 0.6
    assert table["mean"].dropna().is_monotonic_decreasing


def test_a_test_set_that_the_model_has_seen_is_said(result):
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith(
        "pbmc10k: the model was trained on this data set (PBMC-10k)"
    )


def test_names_are_compared_by_letters_and_digits():
    assert dataset_key("PBMC-10k") == dataset_key("pbmc_10K") != dataset_key("pbmc1k")


def test_a_file_cannot_teach_and_examine(tmp_path):
    path = tmp_path / "a.h5ad"
    make_cells(50).write_h5ad(path)
    with pytest.raises(InputError, match=r"a\.h5ad is given to both --train and --test"):
        benchmark([path], [tmp_path / "." / "a.h5ad"])
    with pytest.raises(InputError, match="test: found no file"):
        benchmark([path], [])
