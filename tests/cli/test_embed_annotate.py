"""``sclinguist embed`` and ``sclinguist annotate``: what they print, write and refuse."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from inference.following import following_checkpoint
from sclinguist_core.cli import app
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import save_checkpoint
from synthetic import paired_cells


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets of labelled cells and a model."""
    folder = tmp_path_factory.mktemp("cells")
    for name, n, seed in (("first", 150, 1), ("second", 120, 2)):
        cells = paired_cells(n, seed=seed, name=name)
        kinds = cells.obsm["protein"].drop(columns="IgG1").idxmax(axis=1)
        cells.obs["kind"] = kinds.to_numpy()
        cells.write_h5ad(folder / f"{name}.h5ad")
        if name == "first":
            model = following_checkpoint(cells, training_datasets=("First",))
            save_checkpoint(model, folder / "model")
    return folder


def test_embed_writes_one_table(run, folder, tmp_path):
    out = tmp_path / "out.h5ad"
    answer = run("embed", folder / "first.h5ad", "-o", out, "--model", folder / "model")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines() == [str(out)]
    assert "150 cells in 1 input, 5 dimensions (protein), context none" in answer.stderr
    table = ad.read_h5ad(out)
    assert table.obsm["X_sclinguist"].shape == (150, 5)
    assert np.isfinite(table.obsm["X_sclinguist"]).all()
    assert table.uns["sclinguist_embed"]["input"] == "first"
    assert list(table.obs.columns) == ["kind"]


def test_embed_joins_corrects_and_scores(run, folder, tmp_path):
    out = tmp_path / "out.zarr"
    inputs = (folder / "first.h5ad", folder / "second.h5ad")
    options = ("--model", folder / "model", "--correct", "center", "--labels", "kind")
    answer = run("embed", *inputs, "-o", out, *options)
    assert answer.exit_code == 0, answer.output
    table = ad.read_zarr(out)
    assert table.obs["dataset"].value_counts().to_dict() == {"first": 150, "second": 120}
    assert table.obsm["X_sclinguist_uncorrected"].shape == table.obsm["X_sclinguist"].shape
    line = next(line for line in answer.stderr.splitlines() if line.startswith("label_purity"))
    none, center = (float(figure) for figure in line.split()[1:3])
    assert 0.5 < none <= 1
    assert 0.5 < center <= 1
    assert answer.stdout.splitlines() == [str(out)]


def test_embed_tells_what_joining_leaves_out(run, folder, tmp_path):
    lacking = ad.read_h5ad(folder / "second.h5ad")[:, :-1].copy()
    lacking.obs["dataset"] = "own"
    lacking.write_h5ad(tmp_path / "lacking.h5ad")
    out = tmp_path / "out.h5ad"
    inputs = (folder / "first.h5ad", tmp_path / "lacking.h5ad")
    answer = run("embed", *inputs, "-o", out, "--model", folder / "model")
    assert answer.exit_code == 0, answer.output
    assert "Note: The inputs have different features" in answer.stderr
    assert "column 'dataset' of obs is 'dataset_original' now" in answer.stderr
    table = ad.read_h5ad(out)
    assert table.shape == (270, 0)
    assert table.obs["dataset_original"].notna().sum() == 120


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kind", "umap"), "kind 'umap': expected one of protein, latent"),
        (("--correct", "combat"), "expected one of none, center, harmony"),
        (("--correct", "center"), "a single input was given and no batch key"),
        (("--labels", "kind"), "a single input was given and no batch key"),
        (("--batch-key", "run"), "first: found no column 'run' in obs, expected one of kind"),
        (("--context", "spatial"), "has no positions"),
        (("--batch-size", "0"), "batch size 0"),
    ],
)
def test_embed_refuses_before_it_writes(run, folder, tmp_path, options, message):
    out = tmp_path / "out.h5ad"
    answer = run(
        "embed", folder / "first.h5ad", "-o", out, "--model", folder / "model", *options
    )  # fmt: skip
    assert isinstance(answer.exception, InputError)
    assert message in str(answer.exception)
    assert not list(tmp_path.iterdir())


def test_the_input_is_never_overwritten(run, folder):
    first, second = folder / "first.h5ad", folder / "second.h5ad"
    for arguments in (
        ("embed", second, first, "-o", first),
        ("annotate", first, "-r", second, "--labels", "kind", "-o", first),
    ):
        answer = run(*arguments)
        assert isinstance(answer.exception, InputError)
        assert "stays as it is; choose another name" in str(answer.exception)


def test_annotate_writes_types_and_scores_them(run, folder, tmp_path):
    out = tmp_path / "out.h5ad"
    answer = run(
        "annotate", folder / "second.h5ad", "-r", folder / "first.h5ad", "--labels", "kind",
        "--truth", "kind", "--novel", "keep", "--min-confidence", "0", "-o", out,
        "--model", folder / "model",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines() == [str(out)]
    table = ad.read_h5ad(out)
    right = (table.obs["sclinguist_cell_type"].astype(str) == table.obs["kind"].astype(str)).mean()
    assert right > 0.7
    assert f"accuracy {right:.3f}" in answer.stderr
    assert "100.0% assigned" in answer.stderr
    assert "Note: The model was trained on First: results are better here than" in answer.stderr
    rows = [line.split() for line in answer.stderr.splitlines() if line.startswith("CD")]
    expected = pd.Series(table.obs["kind"]).value_counts()
    assert {row[0]: int(row[1]) for row in rows if len(row) == 6} == expected.to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "type"), "first: found no column 'type' in obs, expected one of kind"),
        (("--labels", "kind", "--truth", "type"), "second: found no column 'type' in obs"),
        (("--labels", "kind", "--novel", "no"), "novel 'no': expected reject or keep"),
        (("--labels", "kind", "--min-confidence", "2"), "expected a number from 0 to 1"),
        (("--labels", "kind", "--correct", "harmony"), "expected one of none, center"),
    ],
)
def test_annotate_refuses_before_it_writes(run, folder, tmp_path, options, message):
    answer = run(
        "annotate", folder / "second.h5ad", "-r", folder / "first.h5ad", *options,
        "-o", tmp_path / "out.h5ad", "--model", folder / "model",
    )  # fmt: skip
    assert isinstance(answer.exception, InputError)
    assert message in str(answer.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["embed", "annotate"])
def test_help_gives_an_example(run, command):
    answer = run(command, "--help")
    assert f"Example: sclinguist {command}" in " ".join(answer.stdout.split())
