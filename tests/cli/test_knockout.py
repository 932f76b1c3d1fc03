"""``sclinguist knockout``: what it prints, writes and refuses."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from inference.untrained import untrained_cells, untrained_checkpoint
from sclinguist_core.cli import app
from sclinguist_core.errors import InputError
from sclinguist_core.inference.knockout import knockout
from sclinguist_core.model.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Cells and a model."""
    made = tmp_path_factory.mktemp("knockout")
    cells = untrained_cells()
    cells.obs["kind"] = np.where(np.arange(70) < 30, "a", "b")
    cells.write_h5ad(made / "cells.h5ad")
    save_checkpoint(untrained_checkpoint(cells), made / "model")
    return made


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(
        app,
        [
            "knockout", str(folder / "cells.h5ad"), "--model", str(folder / "model"),
            "--device", "cpu", *map(str, arguments),
        ],
    )  # fmt: skip


def test_the_ranking_is_printed_and_written(run, folder, tmp_path):
    answer = run("--gene", "CD19", "-o", "out.csv")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == "out.csv\n"
    table = pd.read_csv("out.csv")
    found = knockout(folder / "cells.h5ad", ["CD19"], model=str(folder / "model"), device="cpu")
    ranked = found.ranked()
    assert table["protein"].tolist() == ranked.index.tolist()
    np.testing.assert_allclose(table["mean_change"], ranked["mean_change"], rtol=1e-5)
    np.testing.assert_allclose(table["p_value"], ranked["p_value"], rtol=1e-5)
    assert set(table["perturbation"]) == {"CD19"}
    assert set(table["read_as"]) == {"response of the model, no experiment"}
    assert set(table["verdict"]) <= {"lowered", "raised", "within background"}
    n_affected = int(found.affected.sum())
    assert f"CD19 knocked out: expressed by {n_affected} of 70 cells" in answer.stderr
    assert "response of the model, no experiment" in answer.stderr
    first = next(line for line in answer.stderr.splitlines() if line.startswith("CD19 (coded)"))
    assert f"{ranked.loc['CD19', 'mean_change']:.3f}" in first
    assert list(tmp_path.iterdir()) == [tmp_path / "out.csv"]


def test_several_perturbations_pairs_groups_and_cells(run, folder):
    answer = run(
        "--gene", "CD19", "--gene", "CD14,CD4", "--pairs", "--scale", "2", "--group-by", "kind",
        "--background", "2", "--cells", "cells.h5ad", "-o", "out.csv",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == "out.csv\ncells.h5ad\n"
    table = pd.read_csv("out.csv")
    names = ["CD19", "CD14+CD4", "CD19+CD14+CD4"]
    assert table["perturbation"].unique().tolist() == names
    assert table["group"].unique().tolist() == ["all", "a", "b"]
    assert set(table["scale"]) == {2.0}
    assert "CD19 x 2: expressed by" in answer.stderr
    assert "so few random sets allow no verdict; give --background 19 or more" in answer.stderr
    assert "express genes of both" in answer.stderr
    written = ad.read_h5ad("cells.h5ad")
    assert {key for key in written.obsm if key.startswith("protein_change")} == {
        f"protein_change_{name}" for name in names
    }
    change = written.obsm["protein_change_CD19"]
    rows = (written[:, "CD19"].X.toarray().ravel() > 0) & (written.obs["kind"] == "a").to_numpy()
    row = table.query("perturbation == 'CD19' and group == 'a' and protein == 'CD4'").iloc[0]
    np.testing.assert_allclose(row["mean_change"], change["CD4"][rows].mean(), rtol=1e-4)
    info = written.uns["sclinguist_knockout"]["protein_change_CD19"]
    assert info["read_as"] == "response of the model, no experiment"
    original = ad.read_h5ad(folder / "cells.h5ad")
    assert (written.X != original.X).nnz == 0


def test_one_perturbation_has_the_plain_key(run):
    answer = run(
        "--gene", "CD19", "--background", "0", "--proteins", "CD4,cd3", "--cells", "cells.h5ad",
        "-o", "out.csv",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    written = ad.read_h5ad("cells.h5ad")
    assert list(written.obsm["protein_change"].columns) == ["CD4", "CD3"]
    assert "z" not in pd.read_csv("out.csv")
    assert "no background" in answer.stderr


def test_a_screen_ranks_the_genes(run):
    answer = run("--screen", "cd19", "--cells-sample", "40", "--exact", "3", "-o", "out.csv")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == "out.csv\n"
    table = pd.read_csv("out.csv")
    assert set(table["protein"]) == {"CD19"}
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert table.loc[table["gene"] == "CD19", "run"].item()
    assert f"CD19, {len(table)} genes knocked out one at a time in 40 of 70 cells" in answer.stderr
    assert "CD19 (coding)" in answer.stderr
    few = run("--screen", "CD19", "--gene", "CD14,CD4", "--gene", "CD19", "-o", "few.csv")
    assert few.exit_code == 0, few.output
    assert set(pd.read_csv("few.csv")["gene"]) == {"CD14", "CD4", "CD19"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "out.csv"), "--gene: found none"),
        (("--gene", "CD19", "-o", "out.txt"), "its suffix is '.txt', expected .csv"),
        (("--gene", "CD19", "-o", "no/out.csv"), "does not exist; make it first"),
        (("--gene", "CD19", "--cells", "c.csv", "-o", "out.csv"), "expected .h5ad or .zarr"),
        (("--gene", "CD19", "--group-by", "no", "-o", "out.csv"), "no such column in obs"),
        (("--gene", "CD19", "--pairs", "-o", "out.csv"), "pairs: found a single set"),
        (("--gene", "CD91919", "-o", "out.csv"), "not a known gene"),
        (("--screen", "CD19", "--pairs", "-o", "out.csv"), "--screen goes without --pairs"),
        (("--screen", "CD91919", "-o", "out.csv"), "CD91919"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(run, tmp_path, options, message):
    answer = run(*options)
    assert isinstance(answer.exception, InputError)
    assert message in str(answer.exception)
    assert list(tmp_path.iterdir()) == []


def test_help_has_an_example():
    answer = CliRunner().invoke(app, ["knockout", "--help"])
    assert "Example: sclinguist knockout pbmc.h5ad --gene CD19 -o knockout.csv" in answer.stdout
