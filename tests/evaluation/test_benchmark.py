"""Benchmark: one split, one list of proteins, and honesty about what the model has seen."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.made_up import make_cells
from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core.data.seen import dataset_key
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import totalvi
from sclinguist_core.evaluation.benchmark import benchmark
from sclinguist_core.evaluation.benchmark_config import BenchmarkConfig
from sclinguist_core.evaluation.inputs import as_section
from sclinguist_core.evaluation.results import Benchmark, best_baseline

QUICK = BenchmarkConfig(
    learners=("kNN", "ridge"), totalvi=False, n_resamples=50, repeats=2, device="cpu"
)


def named(table, name):
    return replace(as_section(table), name=name, source=None)


@pytest.fixture(scope="module")
def result() -> Benchmark:
    test = [named(make_cells(150, seed=s), n) for s, n in ((5, "fresh"), (6, "pbmc10k"))]
    return benchmark(
        [make_cells(400, seed=1)],
        test,
        model=tiny_checkpoint(),
        config=replace(
            QUICK, learners=("kNN", "ridge", "kernel ridge", "MLP", "gradient boosting")
        ),
    )


def test_every_method_is_scored_on_the_same_proteins(result):
    assert result.datasets == ["fresh", "pbmc10k"]
    methods = set(result.summary["method"])
    assert len(methods) == 10
    assert len(result.summary) == 2 * 10
    assert result.proteins("fresh") == ["CD3", "CD4", "CD8", "CD19", "CD14", "CD279"]
    counts = result.summary.set_index("method")["n_proteins"]
    assert set(counts.drop("protein mean")) == {6}
    table = result.table()
    assert list(table.columns) == ["fresh", "pbmc10k", "mean"]
    np.testing.assert_allclose(
        table["mean"], table[["fresh", "pbmc10k"]].mean(axis=1, skipna=False)
    )
    assert table["mean"].dropna().is_monotonic_decreasing
    trained = ["kNN", "ridge", "kernel ridge", "MLP", "mean of four", "gradient boosting"]
    assert table.loc[trained, "mean"].min() > 0.6
    assert table.loc[best_baseline(table), "mean"] > table.loc["cognate mRNA", "mean"]


def test_a_test_set_that_the_model_has_seen_is_said(result):
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith(
        "pbmc10k: the model was trained on this data set (PBMC-10k)"
    )


def test_the_headline_gives_the_difference_with_its_interval(result):
    sentence = result.headline()[0]
    assert sentence.startswith("fresh: model ")
    row = result.summary[result.summary["dataset"] == "fresh"].set_index("method")
    best = row["pearson_clr"].drop("model").idxmax()
    assert f"best baseline ({best})" in sentence
    assert f"difference {row.loc[best, 'lead']:+.3f}" in sentence


def test_poorer_inputs_cost_every_method_something():
    result = benchmark(
        [make_cells(300, seed=1)],
        [named(make_cells(120, seed=5), "fresh")],
        model=tiny_checkpoint(),
        config=replace(QUICK, n_genes=250, depth=0.1),
    )
    losses = result.losses().set_index(["input", "method"])
    assert set(losses.index.get_level_values("input")) == {"250 genes", "10% depth"}
    for method in ("kNN", "ridge", "cognate mRNA"):
        assert losses.loc[("10% depth", method), "loss"] > 0.01
    assert losses.loc[("10% depth", "total count"), "loss"] == pytest.approx(0)
    assert losses.loc[("250 genes", "ridge"), "sd"] > 0
    full = result.table().loc["ridge", "fresh"]
    row = losses.loc[("10% depth", "ridge")]
    assert row["full"] == pytest.approx(full)
    assert row["poorer"] == pytest.approx(result.table(input="10% depth").loc["ridge", "fresh"])


def test_random_cells_and_donors_leave_a_seen_model_out():
    table = make_cells(200, seed=4)
    table.obs["donor"] = np.where(np.arange(200) < 120, "one", "two")
    for split, parts in (
        ("random", {"random 30% of the cells (easy)"}),
        ("donor", {"donor one", "donor two"}),
    ):
        config = replace(QUICK, split=split, donor_key="donor", learners=("ridge",))
        result = benchmark([], [named(table, "seen")], model=tiny_checkpoint(), config=config)
        assert set(result.summary["part"]) == parts
        assert "model" not in set(result.summary["method"])
        assert "left out; give --recipe" in result.warnings[0]
        ridge = result.summary.set_index("method").loc[["ridge"], "pearson_clr"]
        assert ridge.min() > 0.5
    assert list(result.table().columns) == ["seen", "mean"]


def test_a_donor_column_is_needed():
    config = replace(QUICK, split="donor", donor_key="patient")
    with pytest.raises(InputError, match="'patient' is not in obs"):
        benchmark([], [make_cells(60)], model=None, config=config)


def test_proteins_that_the_model_never_saw_are_asked_by_their_genes():
    result = benchmark(
        [make_cells(60, seed=1)],
        [named(make_cells(80, seed=2), "fresh")],
        model=tiny_checkpoint(without=("CD19", "CD8")),
        config=replace(QUICK, split="protein"),
    )
    assert result.proteins("fresh") == ["CD8", "CD19"]
    assert set(result.summary["method"]) == {
        "model", "protein mean", "total count", "cognate mRNA",
    }  # fmt: skip
    with pytest.raises(InputError, match="has learnt all of its 6 proteins"):
        benchmark(
            [make_cells(60, seed=1)],
            [make_cells(80, seed=2)],
            model=tiny_checkpoint(),
            config=replace(QUICK, split="protein"),
        )


def test_totalvi_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(totalvi, "is_installed", lambda: False)
    config = replace(QUICK, learners=(), totalvi=True)
    result = benchmark(
        [make_cells(60, seed=1)], [named(make_cells(60, seed=2), "x")], model=None, config=config
    )
    assert result.warnings == (totalvi.NOT_INSTALLED,)
    assert "totalVI" not in set(result.summary["method"])


def test_names_are_compared_by_letters_and_digits():
    assert dataset_key("PBMC-10k") == dataset_key("pbmc_10K") != dataset_key("pbmc1k")


def test_what_makes_no_sense_is_refused(tmp_path):
    path = tmp_path / "a.h5ad"
    make_cells(50).write_h5ad(path)
    with pytest.raises(InputError, match=r"a\.h5ad is given to both --train and --test"):
        benchmark([path], [tmp_path / "." / "a.h5ad"])
    with pytest.raises(InputError, match="test: found no file"):
        benchmark([path], [])
    with pytest.raises(InputError, match="train: found no file"):
        benchmark([], [path])
    with pytest.raises(InputError, match="split 'tissue': expected one of dataset, donor"):
        BenchmarkConfig(split="tissue")
    with pytest.raises(InputError, match="depth: found 0"):
        BenchmarkConfig(depth=0)
    with pytest.raises(InputError, match="draws: expected at least 1"):
        BenchmarkConfig(draws=0)


def test_a_recipe_is_trained_on_the_training_cells_alone(monkeypatch):
    from sclinguist_core.model.config import TranslatorConfig
    from sclinguist_core.train import stages
    from sclinguist_core.train.fit import FitConfig
    from sclinguist_core.train.recipe import Recipe
    from sclinguist_core.train.sources import DataEntry

    seen = {}
    train = stages.post_pretrain

    def spy(recipe, **options):
        seen["recipe"] = recipe
        return train(recipe, **options)

    monkeypatch.setattr(stages, "post_pretrain", spy)
    recipe = Recipe(
        name="tiny",
        paired=(DataEntry(path="own.h5ad"),),
        rna=(DataEntry(path="same.h5ad", same_cells_as=("fresh",)),),
        init={"rna": "stage-1"},
        model=TranslatorConfig(gene_dim=8, width=8, n_latents=2, n_heads=2, n_layers=1),
        fit=FitConfig(steps=10, batch_size=16, sets_per_step=1),
    )
    result = benchmark(
        [make_cells(60, seed=1)],
        [named(make_cells(100, seed=2), "fresh")],
        recipe=recipe,
        config=replace(QUICK, split="random", learners=()),
    )
    used = seen["recipe"]
    assert [entry.name for entry in used.paired] == ["AnnData-0", "fresh-1"]
    assert used.rna == () == used.validate
    assert used.init == {}
    model = result.summary.set_index("method").loc["model"]
    assert model["n_proteins"] == 7
    assert np.isfinite(model["pearson_clr"])
