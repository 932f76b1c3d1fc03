"""``sclinguist explain``: what it prints, writes and refuses."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from inference.explained import small_checkpoint
from sclinguist_core.cli import app
from sclinguist_core.errors import InputError
from sclinguist_core.inference import explain as module
from sclinguist_core.model.checkpoint import save_checkpoint
from synthetic import paired_cells


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Cells with two groups, and two untrained models."""
    folder = tmp_path_factory.mktemp("explain")
    cells = paired_cells(60)
    cells.obs["half"] = np.where(np.arange(60) < 30, "one", "two")
    cells.write_h5ad(folder / "cells.h5ad")
    for seed in (0, 1):
        save_checkpoint(small_checkpoint(cells, seed=seed), folder / f"model{seed}", half=False)
    return folder


@pytest.fixture
def run(files):
    def run(*arguments):
        command = ["explain", files / "cells.h5ad", "--model", files / "model0", *arguments]
        return CliRunner().invoke(app, [str(a) for a in command])

    return run


def test_everything_that_is_asked_for_is_written(run, files, tmp_path):
    answer = run(
        "--protein", "CD3,CD20", "--protein", "cd19 ", "-o", tmp_path / "why.csv",
        "--group-by", "half", "--cells", tmp_path / "cells.h5ad", "--network", "--check",
        "--also-model", files / "model1", "--steps", "2", "--max-cells", "40",
    )  # fmt: skip
    # CD20 is no protein of this model: nothing is written.
    assert isinstance(answer.exception, InputError)
    assert "does not predict it" in str(answer.exception)
    assert list(tmp_path.iterdir()) == []
    answer = run(
        "--protein", "CD3", "--protein", "cd19 ", "-o", tmp_path / "why.csv",
        "--group-by", "half", "--cells", tmp_path / "cells.h5ad", "--network", "--check",
        "--also-model", files / "model1", "--steps", "2", "--max-cells", "40",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    names = [
        "why.csv", "why_groups.csv", "why_network.csv", "why_network.png", "why_network.svg",
        "why_network.graphml", "why_deletion.csv", "why_deletion.png", "why_deletion.svg",
        "why_randomisation.csv", "cells.h5ad",
    ]  # fmt: skip
    assert answer.stdout.splitlines() == [str(tmp_path / name) for name in names]
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    assert all((tmp_path / name).stat().st_size > 200 for name in names)
    ranked = pd.read_csv(tmp_path / "why.csv")
    assert ranked["protein"].unique().tolist() == ["CD3", "CD19"]
    assert list(ranked) == [
        "protein", "gene", "rank", "share", "direction", "effect", "effect_in_top", "expressing",
        "share_sd", "in_top", "share_sd_models", "in_top_models",
    ]  # fmt: skip
    groups = pd.read_csv(tmp_path / "why_groups.csv")
    assert set(groups["group"]) == {"one", "two"}
    assert (groups.groupby("group")["n_rows"].first()).sum() == 40
    table = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert table.n_obs == 60
    per_cell = table.obsm["explained_CD19"]
    first = ranked.loc[ranked["protein"] == "CD19", "gene"].tolist()[:50]
    assert per_cell.columns.tolist() == first
    assert per_cell.notna().all(axis=1).sum() == 40
    assert table.uns["sclinguist_explained"]["steps"] == 2
    assert "40 of 60 cells" in answer.stderr
    assert "Attributions add up to the predictions but for" in answer.stderr
    assert "overlap (Jaccard) of the first 20 genes: CD3 0." in answer.stderr
    assert "Rank correlation with random weights" in answer.stderr
    leader = ranked.loc[ranked["protein"] == "CD3"].iloc[0]
    sign = " (lowers)" if leader["direction"] == "lowers" else ","
    assert f"CD3: {leader['gene']} {leader['share']:.1%}{sign}" in answer.stderr


def test_without_options_one_table_is_written_for_the_best_proteins(run, tmp_path):
    answer = run("-o", tmp_path / "why.csv", "--method", "attention")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines() == [str(tmp_path / "why.csv")]
    ranked = pd.read_csv(tmp_path / "why.csv")
    assert ranked["protein"].nunique() == 5
    assert ranked["direction"].isna().all()


def test_the_same_seed_gives_the_same_file(run, tmp_path):
    for name in ("a", "b"):
        answer = run(
            "--protein", "CD3", "--max-cells", "20", "--seed", "3", "-o", tmp_path / f"{name}.csv"
        )
        assert answer.exit_code == 0, answer.output
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "why.txt"), "its suffix is '.txt', expected .csv"),
        (("-o", "nowhere/why.csv"), "the folder 'nowhere' does not exist"),
        (("-o", "why.csv", "--cells", "c.csv"), "expected .h5ad or .zarr"),
        (("-o", "why.csv", "--group-by", "kind"), "no such column in obs, expected one of half"),
        (("-o", "why.csv", "--method", "magic"), "expected gradients or attention"),
        (("-o", "why.csv", "--max-cells", "2"), "expected at least 10"),
        (("-o", "why.csv", "--also-model", "nothing"), "nothing"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    run, tmp_path, monkeypatch, arguments, message
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "prepare", lambda *a, **k: pytest.fail("work was begun"))
    answer = run(*arguments)
    assert isinstance(answer.exception, InputError), answer.output
    assert message in str(answer.exception)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_before_all_is_worked_out(run, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("sclinguist_core.evaluation.randomisation.randomisation_iter", stopped)
    answer = run("--protein", "CD3", "--max-cells", "20", "--check", "-o", tmp_path / "why.csv")
    assert answer.exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_groups_without_a_label_are_refused(files, tmp_path):
    cells = ad.read_h5ad(files / "cells.h5ad")
    cells.obs["none"] = np.full(60, np.nan)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    command = ["explain", tmp_path / "cells.h5ad", "--group-by", "none", "-o", tmp_path / "w.csv"]
    answer = CliRunner().invoke(app, [str(a) for a in command])
    assert "no row of cells has a label there" in str(answer.exception)


def test_the_input_is_not_replaced(run, files, tmp_path):
    answer = run("-o", tmp_path / "why.csv", "--cells", files / "cells.h5ad")
    assert isinstance(answer.exception, InputError)
    assert "is an input, which stays as it is" in str(answer.exception)


def test_help_has_an_example():
    answer = CliRunner().invoke(app, ["explain", "--help"])
    assert answer.exit_code == 0
    assert "Example: sclinguist explain" in answer.output
    assert "--protein" in answer.output
