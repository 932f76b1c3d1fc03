"""Going on with the published architecture: fine-tuning, and starting from its earlier stages."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import sclinguist_core as scl
from sclinguist_core.data.preprocess import protein_clr, standardize
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import load_checkpoint, save_checkpoint
from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_checkpoint import hyena_checkpoint
from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.train.cli import app
from sclinguist_core.train.finetune import FineTuned, finetune
from sclinguist_core.train.hyena_finetune import _compare, _split, finetune_hyena
from sclinguist_core.train.hyena_stage import PublishedCells
from sclinguist_core.train.published_cells import known_symbols, published_error
from synthetic import paired_cells

PROTEINS = ["CD20", "CD3", "CD14", "TIGIT", "CD19", "CD4", "CD56", "CD45RA"]
UNMEASURED = ["CD20", "TIGIT", "CD45RA"]


def checkpoint_of(cells, *, parts=None, seed=0, **more):
    """An untrained model whose positions are not sorted by anything."""
    symbols = known_symbols(as_section(cells).rna())[::-1]
    genes = pd.DataFrame({"symbol": symbols, "ensembl_id": ""}).assign(
        reference_share=1 / len(symbols), mean=0.0, std=1.0
    )
    proteins = pd.DataFrame({"name": PROTEINS, "genes": "", "kind": "protein"})
    config = HyenaConfig(
        n_genes=len(genes), n_proteins=len(PROTEINS), width=8, filter_width=8,
        **({} if parts is None else {"parts": parts}),
    )  # fmt: skip
    torch.manual_seed(seed)
    network = HyenaTranslator(config).eval()
    if parts is not None:
        genes = genes if "encoder" in parts else genes.iloc[:0]
        proteins = proteins if "decoder" in parts else proteins.iloc[:0]
    return hyena_checkpoint(
        network, name="base", genes=genes, proteins=proteins, card="# base\n", **more
    )


@pytest.fixture(scope="module")
def base():
    return checkpoint_of(paired_cells(20))


@pytest.fixture(scope="module")
def tuned(base):
    section = replace(as_section(paired_cells(300, seed=1)), name="mine")
    return finetune_hyena(
        [section], base, max_cells=1_000, device="cpu", steps=150, learning_rate=5e-3
    )


def error_of(checkpoint, cells):
    """The published loss, and the mean correlation with what was measured."""
    measured = [name for name in PROTEINS if name not in UNMEASURED]
    whole = PublishedCells.of(as_section(cells), checkpoint.symbols, measured)
    found = scl.predict(cells, model=checkpoint, device="cpu").obsm["protein_predicted"]
    predicted = torch.tensor(found[measured].to_numpy())
    r = [np.corrcoef(predicted[:, i], whole.clr[:, i])[0, 1] for i in range(len(measured))]
    return float(published_error(predicted, torch.from_numpy(whole.target))), float(np.mean(r))


def test_the_loss_falls_and_unseen_cells_are_predicted_better(base, tuned):
    new = paired_cells(200, seed=2)
    before, r_before = error_of(base, new)
    after, r_after = error_of(tuned.checkpoint, new)
    assert after < 0.5 * before
    assert r_after > r_before + 0.3


def test_what_it_reports_new_cells_confirm(tuned):
    table = tuned.comparison
    assert set(table["protein"]) == set(PROTEINS) - set(UNMEASURED)
    assert (table["n_cells"] == 60).all()
    assert table["r_after"].is_monotonic_decreasing
    _, r_after = error_of(tuned.checkpoint, paired_cells(200, seed=2))
    assert table["r_after"].mean() == pytest.approx(r_after, abs=0.15)
    assert (table["rmse_after"] < table["rmse_before"]).mean() > 0.5
    assert "on 60 held-out cells" in tuned.headline


def test_positions_that_were_not_measured_keep_working(base, tuned):
    new = paired_cells(50, seed=2)
    before, after = (
        scl.predict(new, model=model, device="cpu").obsm["protein_predicted"][UNMEASURED]
        for model in (base, tuned.checkpoint)
    )
    assert np.isfinite(after.to_numpy()).all()
    assert (after.std() > 0).all()
    assert not np.allclose(before, after)
    # Nothing looks ahead: the bridge to a position after the last measured one has not moved.
    last = PROTEINS.index("CD45RA")
    assert last > max(PROTEINS.index(name) for name in tuned.comparison["protein"])
    old, new_weights = (model.model.bridge.layers[-1].weight for model in (base, tuned.checkpoint))
    assert torch.equal(old[last], new_weights[last])
    assert not torch.equal(old[:last], new_weights[:last])


def test_the_model_that_it_started_from_stays(base, tuned):
    again = checkpoint_of(paired_cells(20))
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, base.model.state_dict()[name])
    info = tuned.checkpoint.info
    assert (info.name, info.stage, info.training_datasets) == ("base-tuned", "finetune", ("mine",))
    assert "steps on 180 cells" in tuned.checkpoint.card
    assert tuned.checkpoint.card.endswith("# base\n")


def test_weights_stay_where_training_does_not_help(base):
    section = as_section(paired_cells(60, seed=1))
    result = finetune_hyena(
        [section], base, max_cells=1_000, device="cpu", steps=10, learning_rate=1e-12
    )
    assert any("the weights stay as they were" in sentence for sentence in result.warnings)
    for name, weight in base.model.state_dict().items():
        assert torch.equal(weight, result.checkpoint.model.state_dict()[name])


def test_from_the_command_line(base, tmp_path):
    paired_cells(60, seed=1).write_h5ad(tmp_path / "mine.h5ad")
    folder = save_checkpoint(base, tmp_path / "base")
    arguments = [
        "finetune", str(tmp_path / "mine.h5ad"), "--model", str(folder), "-o",
        str(tmp_path / "tuned"), "--steps", "10", "--table", str(tmp_path / "table.csv"),
        "--device", "cpu",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "finetune: step" in result.stderr
    assert "on 12 held-out cells" in result.stderr
    loaded = load_checkpoint(tmp_path / "tuned")
    assert loaded.info.architecture == "hyena"
    assert len(pd.read_csv(tmp_path / "table.csv")) == len(PROTEINS) - len(UNMEASURED)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cells: cells[:40], "40 cells have RNA and measured protein, expected at least 50"),
        (lambda cells: without_protein(cells), "found no measured protein"),
        (lambda cells: renamed(cells), "predicts none of the"),
    ],
)
def test_cells_that_cannot_be_used(base, change, said):
    with pytest.raises(InputError, match=said):
        finetune(change(paired_cells(80)).copy(), model=base, device="cpu")


def test_more_cells_than_are_wanted_must_be_wanted(base):
    with pytest.raises(InputError, match="max_cells 20: expected at least 50"):
        finetune(paired_cells(80), model=base, max_cells=20, device="cpu")


def test_many_small_files_are_split_together(base):
    sections = [replace(as_section(paired_cells(4, seed=i)), name=f"well {i}") for i in range(15)]
    result = finetune_hyena(sections, base, max_cells=1_000, device="cpu", steps=10)
    assert result.judged == "on 12 held-out cells"
    assert "steps on 36 cells" in result.checkpoint.card
    # Every file decided something, be it when to stop.
    assert set(result.checkpoint.info.training_datasets) == {s.name for s in sections}


@pytest.mark.parametrize("max_cells", [50, 73, 1_000])
def test_each_file_gives_its_share_of_every_part(max_cells):
    cells = []
    for i, n in enumerate((100, 50, 3)):
        section = replace(as_section(paired_cells(n, seed=i)), name=str(i))
        cells.append(PublishedCells.of(section, known_symbols(section.rna()), ["CD3", "CD19"]))
        # The number of the cell, to tell it by.
        cells[-1].clr[:, 0] = np.arange(n)
    split = _split(cells, max_cells, np.random.default_rng(0))
    n = min(max_cells, 153)
    sizes = [sum(part.n_obs for part in parts) for parts in (split.stop, split.report, split.train)]
    assert sum(sizes) == n
    assert min(sizes[:2]) >= n // 5
    if max_cells > 153:
        assert [part.n_obs for part in split.report[:2]] == [20, 10]
    drawn = [
        (part.name, number)
        for parts in (split.stop, split.report, split.train)
        for part in parts
        for number in part.clr[:, 0]
    ]
    assert len(set(drawn)) == n


def test_undefined_correlations_are_left_out_of_the_mean():
    section = as_section(paired_cells(60))
    names = ["CD14", "CD19", "CD3"]
    cells = PublishedCells.of(section, known_symbols(section.rna()), names)
    good = np.nan_to_num(cells.clr)
    constant = good.copy()
    constant[:, 2] = 1.0
    table = _compare([section], names, [cells], [good], [constant])
    assert table["protein"].tolist() == ["CD14", "CD19", "CD3"]
    assert table["r_before"].to_numpy() == pytest.approx([1, 1, 1])
    assert table["r_after"].isna().tolist() == [False, False, True]
    table["r_before"] = [0.4, 0.2, 0.9]  # the last has no figure to be compared with
    headline = FineTuned(checkpoint=None, comparison=table, warnings=()).headline
    assert "0.30 before, 1.00 after over 2 of 3 proteins that the model knew" in headline
    nowhere = FineTuned(checkpoint=None, comparison=table[2:], warnings=()).headline
    assert "not defined over 0 of 1 proteins" in nowhere
    cells.target[:, 1] = np.nan
    assert _compare([section], names, [cells], [good], [good])["protein"].tolist() == [
        "CD14", "CD3",
    ]  # fmt: skip


def test_antibodies_of_one_protein_are_averaged_in_both():
    cells = paired_cells(60)
    rng = np.random.default_rng(5)
    counts = cells.obsm["protein"].rename(columns={"CD3": "CD3_UCHT1"})
    counts["CD3_TotalSeqB"] = rng.permutation(counts["CD3_UCHT1"].to_numpy())
    cells.obsm["protein"] = counts
    section = as_section(cells)
    assert (
        section.table.uns["protein_panel"]
        .loc[["CD3_UCHT1", "CD3_TotalSeqB"], "canonical"]
        .eq("CD3")
        .all()
    )
    found = PublishedCells.of(section, known_symbols(section.rna()), ["CD3", "CD19"])
    z = standardize(protein_clr(counts, counts.columns == "IgG1"))
    expected = z[["CD3_UCHT1", "CD3_TotalSeqB"]].mean(axis=1)
    np.testing.assert_allclose(found.clr[:, 0], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.clr[:, 1], z["CD19"], rtol=0, atol=1e-5)
    swapped = cells.copy()
    swapped.obsm["protein"] = counts[counts.columns[::-1]]
    again = PublishedCells.of(as_section(swapped), known_symbols(section.rna()), ["CD3", "CD19"])
    np.testing.assert_allclose(again.clr, found.clr, rtol=0, atol=1e-5)


def without_protein(cells):
    del cells.obsm["protein"]
    return cells


def renamed(cells):
    cells.obsm["protein"] = cells.obsm["protein"][["CD14"]].rename(columns={"CD14": "CD33"})
    return cells


RECIPE = """
name: started
architecture: hyena
paired: [cells.h5ad]
fit: {steps: 10, batch_size: 16, sets_per_step: 1, learning_rate: 1.0e-9, weight_decay: 0}
trainer: {accelerator: cpu}
"""


def start(tmp_path, **init):
    paired_cells(60, seed=1).write_h5ad(tmp_path / "cells.h5ad")
    sizes = checkpoint_of(paired_cells(20)).info.model
    lines = [f"init: {{{', '.join(f'{role}: {folder}' for role, folder in init.items())}}}"]
    lines.append(
        f"model: {{n_genes: {sizes.n_genes}, n_proteins: {sizes.n_proteins}, width: 8, "
        "filter_width: 8}"
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE + "\n".join(lines) + "\n")
    return CliRunner().invoke(app, ["post-pretrain", str(recipe), "-o", str(tmp_path / "run")])


def test_post_pretraining_starts_from_both_stages(tmp_path):
    cells = paired_cells(20)
    encoder = checkpoint_of(cells, parts=("encoder",), seed=5, stage="pretrain-rna")
    decoder = checkpoint_of(cells, parts=("decoder",), seed=6, stage="pretrain-protein")
    result = start(
        tmp_path,
        rna=save_checkpoint(encoder, tmp_path / "encoder"),
        protein=save_checkpoint(decoder, tmp_path / "decoder"),
    )
    assert result.exit_code == 0, result.output
    loaded = load_checkpoint(tmp_path / "run")
    assert loaded.symbols == encoder.symbols
    assert loaded.protein_names == PROTEINS
    for part, source in (("encoder", encoder), ("decoder", decoder)):
        for name, weight in getattr(source.model, part).state_dict().items():
            found = getattr(loaded.model, part).state_dict()[name]
            torch.testing.assert_close(found, weight, rtol=0, atol=1e-6)


def test_a_whole_model_gives_all_its_parts(base, tmp_path):
    result = start(tmp_path, rna=save_checkpoint(base, tmp_path / "base"))
    assert result.exit_code == 0, result.output
    loaded = load_checkpoint(tmp_path / "run")
    for name, weight in base.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], weight, rtol=0, atol=1e-6)
    assert "trained from base" in loaded.card


def test_starts_that_do_not_fit(base, tmp_path):
    decoder = checkpoint_of(paired_cells(20), parts=("decoder",), stage="pretrain-protein")
    folder = save_checkpoint(decoder, tmp_path / "decoder")
    result = start(tmp_path, rna=folder)
    assert "holds decoder, expected the encoder" in str(result.exception)
    config = HyenaConfig(n_genes=3, n_proteins=8, width=8, filter_width=8)
    small = hyena_checkpoint(
        HyenaTranslator(config), name="s", genes=base.genes[:3], proteins=base.proteins, card=""
    )
    result = start(tmp_path, rna=save_checkpoint(small, tmp_path / "small"))
    assert "set model.n_genes=3" in str(result.exception)
