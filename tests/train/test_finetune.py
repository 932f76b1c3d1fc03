import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

import sclinguist_core as scl
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import trust
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    save_checkpoint,
)
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.resources import sample_section_path
from sclinguist_core.train.cli import app
from sclinguist_core.train.corpus import gene_statistics, gene_universe, protein_universe
from sclinguist_core.train.launch import train_stage
from sclinguist_core.train.recipe import read_recipe
from synthetic import MARKERS, paired_cells

CONFIG = TranslatorConfig(gene_dim=16, width=16, n_latents=4, n_heads=2, n_layers=1)


@pytest.fixture(scope="module")
def checkpoint():
    """An untrained model that does not know CD4, calibrated as if somebody had tested it."""
    section = as_section(paired_cells(300, seed=9))
    genes = gene_universe([section])
    statistics = gene_statistics(genes, [align_genes(section.rna(), genes["symbol"].tolist())])
    proteins = protein_universe([section]).query("name != 'CD4'").reset_index(drop=True)
    torch.manual_seed(0)
    return Checkpoint(
        model=build_translator(CONFIG, statistics.table, proteins).eval(),
        info=CheckpointInfo(name="base", model=CONFIG, training_datasets=("synthetic",)),
        genes=statistics.table,
        proteins=proteins.assign(trust="well", heldout_r=0.9, slope=0.8, interval=2.0),
        card="# base\n",
    )


@pytest.fixture(scope="module")
def tuned(checkpoint):
    return scl.finetune(paired_cells(100, name="mine"), model=checkpoint, device="cpu")


def accuracy(model, cells, name):
    predicted = scl.predict(cells, model=model, device="cpu").obsm["protein_predicted"][name]
    measured = np.log1p(cells.obsm["protein"][name])
    return float(np.corrcoef(predicted, measured)[0, 1])


def test_unseen_cells_are_predicted_better(checkpoint, tuned):
    new = paired_cells(300, seed=3)
    for name in ("CD3", "CD14", "CD19", "CD56"):
        assert accuracy(tuned.checkpoint, new, name) > 0.75
    gain = [
        accuracy(tuned.checkpoint, new, name) - accuracy(checkpoint, new, name)
        for name in ("CD3", "CD14", "CD19", "CD56")
    ]
    assert min(gain) > -0.01
    assert np.mean(gain) > 0.3


def test_the_comparison_says_what_new_cells_confirm(tuned):
    table = tuned.comparison.set_index("protein")
    assert set(table.index) == set(MARKERS)
    assert table["n_cells"].eq(100).all()
    new = paired_cells(300, seed=3)
    for name in table.index:
        after = accuracy(tuned.checkpoint, new, name)
        assert table.loc[name, "r_after"] == pytest.approx(after, abs=0.12)
    known = table.drop(index="CD4")
    assert (known["rmse_after"] < known["rmse_before"]).all()
    assert "before" in tuned.headline
    assert f"{known['r_after'].mean():.2f} after over 4 proteins" in tuned.headline


def test_a_new_protein_is_predicted_after_saving_and_loading(checkpoint, tuned, tmp_path):
    assert "CD4" not in checkpoint.protein_names
    loaded = load_checkpoint(save_checkpoint(tuned.checkpoint, tmp_path / "tuned"))
    new = paired_cells(200, seed=4)
    assert accuracy(loaded, new, "CD4") > 0.8
    table = tuned.comparison.set_index("protein")
    assert table["new"].to_dict() == {name: name == "CD4" for name in table.index}
    assert np.isnan(table.loc["CD4", "r_before"])
    ours = scl.predict(new, model=tuned.checkpoint, device="cpu").obsm["protein_predicted"]
    theirs = scl.predict(new, model=loaded, device="cpu").obsm["protein_predicted"]
    np.testing.assert_allclose(theirs, ours, atol=0.02)  # half precision on disk


def test_calibration_comes_from_cross_validation(tuned):
    proteins = tuned.checkpoint.proteins.set_index("name")
    assert (proteins["trust"] == "well").all()
    assert proteins["heldout_r"].astype(float).between(0.8, 1.0).all()
    assert proteins["slope"].between(0.8, 1.2).all()
    assert proteins["fine_tuned"].eq("cells").all()
    new = paired_cells(400, seed=5)
    out = scl.predict(new, model=tuned.checkpoint, device="cpu")
    from sclinguist_core.data.preprocess import protein_clr, standardize

    counts = new.obsm["protein"]
    y = standardize(protein_clr(counts, np.array([*[False] * len(MARKERS), True])))
    inside = [
        y[name].between(
            out.obsm["protein_predicted_low"][name], out.obsm["protein_predicted_high"][name]
        ).mean()
        for name in MARKERS
    ]  # fmt: skip
    assert 0.8 < np.mean(inside) < 0.98
    assert out.uns["sclinguist"]["trust"]["CD4"] == "well"


def test_proteins_that_were_not_measured_stay_as_they_were(checkpoint):
    cells = paired_cells(60)
    cells.obsm["protein"] = cells.obsm["protein"][["CD3", "CD19", "CD56", "IgG1"]]
    tuned = scl.finetune(cells, model=checkpoint, device="cpu").checkpoint
    new = paired_cells(50, seed=6)
    before = scl.predict(new, model=checkpoint, device="cpu").obsm["protein_predicted"]
    after = scl.predict(new, model=tuned, device="cpu").obsm["protein_predicted"]
    np.testing.assert_allclose(after["CD14"], before["CD14"], atol=1e-5)
    assert np.abs(after["CD3"] - before["CD3"]).mean() > 0.1
    row = tuned.proteins.set_index("name").loc["CD14"]
    assert (row["slope"], row["interval"], row["trust"], row["fine_tuned"]) == (
        0.8,
        2.0,
        "well",
        "",
    )


def test_what_is_written_down(checkpoint, tuned, tmp_path):
    folder = save_checkpoint(tuned.checkpoint, tmp_path / "tuned")
    config = json.loads((folder / "config.json").read_text())
    assert config["name"] == "base-tuned"
    assert config["stage"] == "finetune"
    assert config["training_datasets"] == ["synthetic", "AnnData"]
    assert config["model"]["adapter_cells"] == 100
    card = (folder / "card.md").read_text()
    assert "fine-tuned on 100 cells of AnnData" in card
    assert "| CD4 | 100 | new |" in card
    assert card.endswith("# base\n")
    assert checkpoint.info.model.adapter_cells == 0


def test_twenty_cells_are_enough_and_nineteen_are_not(checkpoint):
    small = scl.finetune(paired_cells(20), model=checkpoint, device="cpu")
    assert small.comparison["r_after"].mean() > 0.3
    assert not (small.comparison["r_after"] < small.comparison["r_before"] - 0.3).any()
    with pytest.raises(InputError, match="19 cells have RNA and measured protein, expected at"):
        scl.finetune(paired_cells(19), model=checkpoint)


def test_same_seed_same_result(checkpoint, tuned):
    again = scl.finetune(paired_cells(100, name="mine"), model=checkpoint, device="cpu")
    pd.testing.assert_frame_equal(again.comparison, tuned.comparison)


def test_of_several_sections_whole_ones_are_left_out(checkpoint):
    one, two = paired_cells(60, seed=1), paired_cells(60, seed=2)
    two.obsm["protein"] = two.obsm["protein"] * 5  # stained and sequenced deeper
    both = scl.finetune([one, two], model=checkpoint, device="cpu")
    assert both.comparison["n_cells"].eq(120).all()
    assert both.comparison["r_after"].mean() > 0.7
    assert both.checkpoint.info.training_datasets[-2:] == ("AnnData", "AnnData-2")
    assert "whole files left out" in both.checkpoint.card


def test_panels_may_differ_and_cells_may_lack_protein(checkpoint):
    one, two = paired_cells(60, seed=1), paired_cells(60, seed=2)
    one.obsm["protein"] = one.obsm["protein"].drop(columns="CD4")
    two.obsm["protein"].iloc[:30] = np.nan
    bare = paired_cells(40, seed=3)
    del bare.obsm["protein"]
    both = scl.finetune([one, two, bare], model=checkpoint, device="cpu")
    n = both.comparison.set_index("protein")["n_cells"]
    assert n["CD4"] == 30
    assert n["CD3"] == 90


def test_two_antibodies_against_one_protein_are_one_target(checkpoint):
    cells = paired_cells(60)
    cells.obsm["protein"]["CD3.2"] = cells.obsm["protein"]["CD3"]
    table = scl.finetune(cells, model=checkpoint, device="cpu").comparison.set_index("protein")
    assert table.loc["CD3", "antibodies"] == "CD3, CD3.2"
    assert len(table) == len(MARKERS)


def test_more_cells_than_asked_for_are_thinned_out(checkpoint):
    result = scl.finetune(paired_cells(80), model=checkpoint, max_cells=30, device="cpu")
    assert result.comparison["n_cells"].eq(30).all()
    assert any("30 of 80 cells" in sentence for sentence in result.warnings)


def without_protein(cells):
    del cells.obsm["protein"]


def isotypes_alone(cells):
    cells.obsm["protein"] = cells.obsm["protein"][["IgG1"]]


def negative(cells):
    cells.obsm["protein"] -= 50


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_protein, "no measured protein that is known"),
        (isotypes_alone, "no measured protein that is known"),
        (negative, "expected raw antibody counts"),
    ],
)
def test_refused_cells(checkpoint, spoil, message):
    cells = paired_cells(40)
    spoil(cells)
    with pytest.raises(InputError, match=message):
        scl.finetune(cells, model=checkpoint)


def test_refused_models(checkpoint, tuned):
    with pytest.raises(InputError, match="fine-tuned already"):
        scl.finetune(paired_cells(40), model=tuned.checkpoint)
    halfway = replace(checkpoint, info=replace(checkpoint.info, stage="pretrain-rna"))
    with pytest.raises(InputError, match="has not learned to predict protein"):
        scl.finetune(paired_cells(40), model=halfway)
    foreign = replace(checkpoint, info=replace(checkpoint.info, architecture="sct"))
    with pytest.raises(InputError, match="architecture is 'sct'"):
        scl.finetune(paired_cells(40), model=foreign)
    with pytest.raises(InputError, match="empty list"):
        scl.finetune([], model=checkpoint)
    with pytest.raises(InputError, match="max_cells 5: expected at least 20"):
        scl.finetune(paired_cells(40), model=checkpoint, max_cells=5)


def test_cross_validation_replaces_the_calibration_of_what_was_tuned():
    table = pd.DataFrame(
        {"trust": ["well", "well", "well"], "slope": [0.5, 0.9, 0.8], "interval": [2.0, 1.0, 3.0],
         "heldout_r": ["", 0.7, 0.8], "fine_tuned": ["", "cells", "spots"]}
    )  # fmt: skip
    mean, std = np.array([[1.0, 2.0, 3.0]]), np.array([[0.5, 0.5, 0.5]])
    judged = trust.Judged(
        mean=mean, std=std, low=mean - 9, high=mean + 8, labels=["poorly"] * 3,
        expected_r=np.full(3, 0.1), unit="SD of reference spots (CLR)",
    )  # fmt: skip
    out = trust.with_fine_tuning(judged, table, mean, std, "cells")
    assert out.labels == ["poorly", "well", "untested"]
    np.testing.assert_allclose(out.mean, [[1.0, 1.8, 2.4]])
    np.testing.assert_allclose(out.low, [[-8.0, 1.3, 0.9]])
    np.testing.assert_allclose(out.high, [[9.0, 2.3, 3.9]])
    np.testing.assert_allclose(out.std, [[0.5, 0.5 / 1.645, 1.5 / 1.645]])
    np.testing.assert_allclose(out.expected_r, [0.1, 0.7, np.nan])  # spots say nothing of cells
    assert out.unit == judged.unit
    assert trust.with_fine_tuning(judged, table.iloc[:, :4], mean, std, "cells") is judged


def test_spots_of_the_simulated_section():
    """Half of the sample section teaches the other; simulated, so it shows that it works."""
    section = scl.open_section(sample_section_path())
    rows = np.random.default_rng(0).permutation(section.n_obs)[:200]
    learn, new = (
        replace(section, table=section.table[np.sort(part)].copy())
        for part in (rows[:100], rows[100:])
    )
    tuned = scl.finetune(learn, device="cpu")
    assert tuned.checkpoint.proteins.set_index("name").loc["CD19", "fine_tuned"] == "spots"
    before = scl.evaluate(scl.predict(new, device="cpu")).summary
    after = scl.evaluate(scl.predict(new, model=tuned.checkpoint, device="cpu")).summary
    gain = after.loc["model", "pearson_clr"] - before.loc["model", "pearson_clr"]
    assert gain > 0.1
    assert after.loc["model", "rmse"] < before.loc["model", "rmse"]


def without(checkpoint, names):
    """The same model with a smaller panel."""
    kept = ~checkpoint.proteins["name"].isin(names).to_numpy()
    proteins = checkpoint.proteins[kept].reset_index(drop=True)
    model = build_translator(checkpoint.info.model, checkpoint.genes, proteins)
    state = {
        name: weight if model.state_dict()[name].shape == weight.shape else weight[kept]
        for name, weight in checkpoint.model.state_dict().items()
    }
    model.load_state_dict(state)
    return replace(checkpoint, model=model.eval(), proteins=proteins, calibration=None)


def halves(section, n_learn, n_test):
    rows = np.random.default_rng(0).permutation(section.n_obs)[: n_learn + n_test]
    return (
        replace(section, table=section.table[np.sort(part)].copy())
        for part in (rows[:n_learn], rows[n_learn:])
    )


@pytest.mark.data
def test_new_proteins_of_real_cells(test_data):
    """The checkpoint has seen this set, but not these proteins: nothing else may get worse."""
    new = ["CD36", "CD71", "CD105"]
    base = without(load_checkpoint("bundled"), new)
    learn, test = halves(
        scl.open_section(test_data / "citeseq" / "bmmc_neurips2021.h5ad"), 100, 300
    )
    tuned = scl.finetune(learn, model=base, device="cpu")
    assert any("was trained on a data set of this name" in w for w in tuned.warnings)
    before = scl.evaluate(scl.predict(test, model=base, device="cpu")).per_protein
    after = scl.evaluate(scl.predict(test, model=tuned.checkpoint, device="cpu")).per_protein
    assert after.set_index("canonical").loc[new, "r_clr"].mean() > 0.6
    r_before, r_after = (t.set_index("antibody")["r_clr"] for t in (before, after))
    assert (r_after.reindex(r_before.index) - r_before).mean() > -0.01
    assert tuned.comparison["r_after"].mean() == pytest.approx(r_after.mean(), abs=0.05)


@pytest.mark.data
@pytest.mark.slow
def test_a_hundred_cells_of_a_set_that_the_model_has_not_seen(test_data, tmp_path):
    recipe = {
        "name": "tiny",
        "paired": [str(test_data / "citeseq" / "teaseq_pbmc.h5ad")],
        "model": {"gene_dim": 32, "width": 16, "n_latents": 4, "n_heads": 2, "n_layers": 1},
        "fit": {"steps": 60, "batch_size": 64, "ema": 0.9},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    base = load_checkpoint(
        train_stage("post-pretrain", read_recipe(tmp_path / "tiny.yaml"), tmp_path / "run")
    )
    learn, test = halves(scl.open_section(test_data / "citeseq" / "pbmc1k.h5ad"), 100, 300)
    tuned = scl.finetune(learn, model=base, device="cpu").checkpoint
    before = scl.evaluate(scl.predict(test, model=base, device="cpu")).summary.loc["model"]
    after = scl.evaluate(scl.predict(test, model=tuned, device="cpu")).summary.loc["model"]
    assert after["pearson_clr"] > before["pearson_clr"] + 0.02
    assert after["rmse"] < before["rmse"]


def call(*arguments, cwd):
    code = "from sclinguist_core.train.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_from_the_command_line(checkpoint, tmp_path, monkeypatch):
    save_checkpoint(checkpoint, tmp_path / "base")
    paired_cells(60).write_h5ad(tmp_path / "mine.h5ad")
    paired_cells(19).write_h5ad(tmp_path / "few.h5ad")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        app,
        ["finetune", "mine.h5ad", "-o", "tuned", "--model", "base", "--name", "mine", "--table",
         "table.csv", "--device", "cpu"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == "tuned"
    assert "Mean per-protein Pearson" in done.stderr
    loaded = load_checkpoint(tmp_path / "tuned")
    assert loaded.info.name == "mine"
    assert loaded.info.training_datasets == ("synthetic", "mine")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["r_after"].mean() > 0.6
    before = sorted(p.name for p in tmp_path.iterdir())
    done = call("finetune", "few.h5ad", "-o", "never", "--model", "base", cwd=tmp_path)
    assert done.returncode == 1
    assert "Error: few: 19 cells have RNA and measured protein" in done.stderr
    assert "Traceback" not in done.stderr
    for arguments, message in (
        (("-o", tmp_path / "base"), "is the model itself"),
        (("-o", tmp_path / "never", "--table", "x.txt"), "expected a .csv"),
    ):
        command = ["finetune", tmp_path / "mine.h5ad", "--model", tmp_path / "base", *arguments]
        result = CliRunner().invoke(app, list(map(str, command)))
        assert isinstance(result.exception, InputError)
        assert message in str(result.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
