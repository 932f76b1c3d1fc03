"""Few cells of the test set help every method."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.made_up import make_cells
from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import few_shot
from sclinguist_core.evaluation.benchmark import benchmark
from sclinguist_core.evaluation.benchmark_config import BenchmarkConfig
from sclinguist_core.evaluation.inputs import as_section
from sclinguist_core.evaluation.metrics import pearson, standardise
from sclinguist_core.evaluation.tasks import open_cells


def test_draws_are_nested_and_never_scored():
    plan = list(few_shot.draws(200, (20, 50, 500), 3, seed=0))
    assert [(d.n_cells, d.number) for d in plan] == [
        (20, 0), (50, 0), (20, 1), (50, 1), (20, 2), (50, 2),
    ]  # fmt: skip
    small, large = plan[:2]
    assert set(small.support) < set(large.support)
    np.testing.assert_array_equal(small.scored, large.scored)
    assert not set(large.support) & set(large.scored)
    assert len(large.scored) == 150
    assert list(few_shot.draws(30, (20,), 3, seed=0)) == []


def test_cells_correct_a_prediction_that_is_wrong():
    table = make_cells(300, seed=3)
    cells = open_cells(table)
    own = few_shot.own_components(cells)
    assert own.shape == (300, 30)
    targets = standardise(table.obsm["hidden"])
    wrong = -0.5 * targets + np.random.default_rng(0).normal(size=targets.shape)
    draw = next(d for d in few_shot.draws(300, (100,), 1, seed=0))
    fixed = few_shot.corrected(wrong, own, own, targets, draw)
    assert pearson(wrong[draw.scored], targets[draw.scored]).mean() < -0.2
    assert pearson(fixed, targets[draw.scored]).mean() > 0.4


def test_the_curve_rises():
    section = replace(as_section(make_cells(260, seed=5)), name="fresh", source=None)
    config = BenchmarkConfig(
        split="few-shot", learners=("ridge",), totalvi=False, sizes=(20, 100), draws=2,
        n_resamples=20, device="cpu",
    )  # fmt: skip
    result = benchmark([make_cells(200, seed=1)], [section], model=tiny_checkpoint(), config=config)
    table = result.table()
    assert list(table.columns) == ["fresh, 20 cells", "fresh, 100 cells", "mean"]
    assert set(table.index) == {"ridge", few_shot.OWN_CELLS, "model"}
    for method in (few_shot.OWN_CELLS, "model"):
        assert table.loc[method, "fresh, 100 cells"] > table.loc[method, "fresh, 20 cells"]
    assert table.loc["ridge", "fresh, 20 cells"] > table.loc[few_shot.OWN_CELLS, "fresh, 20 cells"]
    with pytest.raises(InputError, match="has 30 cells, expected at least twice the 20"):
        benchmark([make_cells(200, seed=1)], [make_cells(30)], model=None, config=config)
