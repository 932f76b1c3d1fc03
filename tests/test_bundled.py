"""The checkpoint that is installed with the package, on the sample and on real data."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import sclinguist_core as scl
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.prediction import attach
from sclinguist_core.inference.progress import finish
from sclinguist_core.resources import sample_section_path


@pytest.fixture(scope="module")
def checkpoint():
    return scl.load_checkpoint("bundled")


def predicted(path, checkpoint):
    section = scl.open_section(path)
    attach(section.table, finish(predict_iter(section, model=checkpoint, device="cpu")))
    return section


def test_it_says_what_it_was_trained_on(checkpoint):
    assert len(checkpoint.info.training_datasets) == 10
    assert not any("malt" in name for name in checkpoint.info.training_datasets)
    for name in checkpoint.info.training_datasets:
        assert name in checkpoint.card
    for context in ("cells", "spots"):
        labels = set(checkpoint.proteins[f"trust_{context}"])
        assert labels == {"well", "fairly", "poorly", "untested"}
        slope = checkpoint.calibration[context].slope
        assert len(slope) == len(checkpoint.proteins)
        assert ((slope >= 0.1) & (slope <= 3)).all()
    assert checkpoint.familiarity is not None
    assert checkpoint.info.model.log_output
    assert checkpoint.proteins["name"].is_unique
    assert checkpoint.genes["symbol"].is_unique
    assert not checkpoint.proteins["kind"].eq("isotype").any()


def test_it_is_small_enough_to_ship(checkpoint):
    size = sum(path.stat().st_size for path in checkpoint.path.iterdir())
    assert size < 16 * 2**20


def test_held_out_figures_beat_what_is_trivial(request):
    table = pd.read_csv(request.config.rootpath / "docs" / "results" / "heldout_summary.csv")
    assert len(table) == 10
    assert (table["model on those"] > table["cognate mRNA"]).all()
    assert (table["RMSE"] < table["RMSE of the mean"]).all()
    assert (table["model"] > table["total count"]).all()


def test_follicles_of_the_sample_section_are_where_they_are_drawn(checkpoint):
    folder = sample_section_path()
    section = predicted(folder, checkpoint)
    regions = pd.read_csv(folder.parent / "regions.csv", index_col="barcode")
    region = regions.loc[section.table.obs_names, "region"]
    z = section.table.obsm["protein_predicted"]
    follicle = region.str.contains("germinal|mantle|dark|light|follicle", case=False).to_numpy()
    t_zone = region.str.contains("t_zone|t zone", case=False).to_numpy()
    assert min(follicle.sum(), t_zone.sum()) > 100
    for name, sign in {"CD19": 1, "CD20": 1, "CD3": -1, "CD127": -1}.items():
        difference = z.loc[follicle, name].mean() - z.loc[t_zone, name].mean()
        assert sign * difference > 0.3 * z[name].std(), name


@pytest.mark.data
def test_tonsil_composite(checkpoint, test_data):
    section = predicted(test_data / "spatial" / "tonsil_composite" / "outs", checkpoint)
    result = scl.evaluate(section)
    summary = result.summary
    assert result.simulated
    assert len(result.per_protein) == 14
    assert summary.loc["model", "pearson_clr"] >= 0.54
    assert summary.loc["model", "pearson_clr"] > summary.loc["cognate mRNA", "pearson_clr"]
    assert abs(summary.loc["total count", "pearson_clr"]) < 0.1
    assert summary.loc["model", "rmse"] < 1


@pytest.mark.data
def test_unseen_tissue(checkpoint, test_data):
    section = predicted(test_data / "citeseq" / "malt_1000.h5ad", checkpoint)
    summary = scl.evaluate(section).summary
    assert summary.loc["model", "pearson_clr"] > summary.loc["cognate mRNA", "pearson_clr"] + 0.1
    assert summary.loc["model", "rmse"] < 1


@pytest.mark.data
def test_mouse_genes_are_mapped_and_said_so(checkpoint, test_data):
    section = scl.open_section(test_data / "spatial" / "mouse_embryo_rna" / "outs")
    section = dataclasses.replace(section, table=section.table[:200].copy())
    prediction = finish(predict_iter(section, model=checkpoint, device="cpu"))
    assert prediction.info["species"] == "mouse"
    assert prediction.info["genes_found"] > 8_000
    assert any("mapped to human genes by orthologs" in w for w in prediction.warnings)
    assert np.isfinite(prediction.mean).all()


@pytest.mark.data
def test_protein_alone_cannot_be_predicted_from(test_data):
    section = scl.open_section(test_data / "spatial/lymph_node_protein/lymph_node_A1_adt.h5ad")
    with pytest.raises(scl.InputError, match="no RNA"):
        finish(predict_iter(section))


@pytest.mark.data
def test_without_measured_protein_nothing_is_evaluated(checkpoint, test_data):
    section = predicted(test_data / "spatial" / "human_ducts_rna" / "outs", checkpoint)
    with pytest.raises(scl.InputError, match="no measured protein"):
        scl.evaluate(section)
