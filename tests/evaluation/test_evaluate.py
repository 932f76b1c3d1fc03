"""Evaluation tables, what they leave out, and how bad input is refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evaluation.made_up import add_positions, add_prediction, make_cells
from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.evaluate import evaluate


def test_tables_hold_one_row_a_protein_a_cell_a_predictor(predicted):
    result = evaluate(predicted)
    assert sorted(result.per_protein["antibody"]) == sorted(
        ["CD3", "CD4", "CD8a", "CD19", "CD14", "PD-1", "CD15"]
    )
    assert result.per_protein["r_clr"].is_monotonic_decreasing
    assert list(result.summary.index) == ["model", "total count", "protein mean", "cognate mRNA"]
    assert list(result.per_cell["barcode"]) == list(predicted.obs_names)
    assert (result.per_cell["n_proteins"] == 7).all()
    rows = result.per_protein.set_index("antibody")
    assert rows.loc["PD-1", "canonical"] == "CD279"
    assert rows.loc["CD3", "trust"] == "well"
    assert rows.loc["CD4", "trust"] == ""
    assert rows.loc["CD3", "cognate_gene"] in {"CD3D", "CD3E", "CD3G"}


def test_figures_are_those_of_scipy(predicted):
    result = evaluate(predicted)
    counts = predicted.obsm["protein"]
    clr = protein_clr(counts, (counts.columns == "IgG1"))
    row = result.per_protein.set_index("antibody").loc["CD8a"]
    x = predicted.obsm["protein_predicted"]["CD8"]
    assert row["r_clr"] == pytest.approx(stats.pearsonr(x, clr["CD8a"])[0], abs=1e-6)
    assert row["r_log1p"] == pytest.approx(stats.pearsonr(x, np.log1p(counts["CD8a"]))[0], abs=1e-6)
    assert row["spearman"] == pytest.approx(stats.spearmanr(x, clr["CD8a"])[0], abs=1e-6)
    assert row["detection"] == pytest.approx((counts["CD8a"] > 0).mean())
    assert row["mean_count"] == pytest.approx(counts["CD8a"].mean(), rel=1e-6)
    model = result.summary.loc["model"]
    assert model["pearson_clr"] == pytest.approx(result.per_protein["r_clr"].mean())
    assert model["n_proteins"] == 7
    assert result.headline.startswith(
        f"Mean per-protein Pearson against CLR over 7 antibodies: {model['pearson_clr']:.2f} "
        "(total count "
    )


def test_baselines_are_where_they_belong(predicted):
    summary = evaluate(predicted).summary
    assert summary.loc["model", "pearson_clr"] > summary.loc["cognate mRNA", "pearson_clr"] > 0.2
    assert abs(summary.loc["total count", "pearson_clr"]) < 0.1
    assert np.isnan(summary.loc["protein mean", "pearson_clr"])
    assert summary.loc["protein mean", "rmse"] == pytest.approx(1)
    assert summary.loc["model", "rmse"] < 1
    assert summary.loc["cognate mRNA", "n_proteins"] == 6  # CD15 is a glycan
    without = evaluate(predicted).per_protein.query("antibody != 'CD15'")["r_clr"].mean()
    assert summary.loc["cognate mRNA", "model_same_cells"] == pytest.approx(without)
    assert summary.loc["model", "pearson_clr_low"] < summary.loc["model", "pearson_clr"]
    assert summary.loc["total count", "better_than_model"] <= 1
    assert summary.loc["cognate mRNA", "better_than_model"] == 0


def test_the_model_is_compared_with_mrna_on_the_cells_that_measured_it(predicted):
    measured = np.ones(predicted.shape, bool)
    gene = predicted.var_names.get_loc("CD19")
    measured[::2, gene] = False
    predicted.layers["measured"] = measured
    result = evaluate(predicted)
    proteins = [name for name in result.predicted if result.cognate[name].notna().any()]
    expected = np.mean(
        [
            result.predicted[name][known].corr(result.measured[name][known])
            for name in proteins
            for known in [result.cognate[name].notna()]
        ]
    )
    assert (~result.cognate["CD19"].notna()).sum() == len(measured) // 2
    assert result.summary.loc["cognate mRNA", "model_same_cells"] == pytest.approx(expected)


def test_a_set_that_the_model_was_trained_on_is_pointed_out(predicted):
    predicted.uns["sclinguist"] |= {"training_datasets": ["pbmc1k", "other"], "input": "PBMC_1k"}
    assert "trained on a data set of this name (pbmc1k)" in evaluate(predicted).notes[0]
    predicted.uns["sclinguist"]["input"] = "pbmc10k"
    assert not any("trained on" in note for note in evaluate(predicted).notes)


def test_notes_say_what_is_left_out():
    table = make_cells()
    protein = table.obsm["protein"]
    protein["CD279"] = protein["PD-1"] + 1
    protein["CD33"] = 5.0
    protein["mystery42"] = 5.0
    notes = evaluate(add_prediction(table)).notes
    assert "1 isotype control is not evaluated." in notes
    assert "CD279 has two antibodies; both are evaluated." in notes
    assert "CD15 is a glycan: no gene codes for it, so it has no cognate mRNA." in notes
    assert "Measured but not predicted, so not evaluated: CD33." in notes
    assert "Antibodies whose target is not known, not evaluated: mystery42." in notes


def test_several_antibodies_of_a_protein_are_each_evaluated():
    table = make_cells()
    table.obsm["protein"]["CD279"] = table.obsm["protein"]["CD15"] + 1
    rows = evaluate(add_prediction(table)).per_protein.set_index("antibody")
    assert rows.loc["PD-1", "r_clr"] > 0.6 > rows.loc["CD279", "r_clr"]
    assert (rows.loc[["PD-1", "CD279"], "canonical"] == "CD279").all()


def test_unmeasured_values_are_left_out_not_zero(predicted):
    counts = predicted.obsm["protein"]
    counts.loc[counts.index[:100], "CD19"] = np.nan
    rows = evaluate(predicted).per_protein.set_index("antibody")
    assert rows.loc["CD19", "n_cells"] == 200
    assert rows.loc["CD3", "n_cells"] == 300
    assert rows.loc["CD19", "r_clr"] > 0.7


def test_baselines_are_judged_on_the_models_cells(predicted):
    full = evaluate(predicted).summary.loc["cognate mRNA", "pearson_clr"]
    predicted.obsm["protein_predicted"].iloc[:150] = np.nan
    half = evaluate(predicted)
    assert (half.per_protein["n_cells"] == 150).all()
    assert half.summary.loc["cognate mRNA", "pearson_clr"] != full
    assert half.summary.loc["model", "pearson_clr"] > 0.5


def test_trained_baselines_join_the_table(predicted):
    result = evaluate(predicted, train=[make_cells(400, seed=7)])
    assert list(result.summary.index[4:]) == [
        "kNN",
        "ridge",
        "kernel ridge",
        "MLP",
        "mean of four",
    ]
    assert (result.summary["pearson_clr"].iloc[4:] > 0.5).all()
    assert result.per_protein["r_clr_mean_of_four"].notna().all()
    assert "Trained baselines learnt from AnnData (400 cells)." in result.notes
    assert "best trained baseline, " in result.headline


def test_the_input_is_not_changed(predicted):
    keys = set(predicted.obsm), set(predicted.uns), list(predicted.var_names)
    before = predicted.X.copy()
    evaluate(predicted)
    assert (set(predicted.obsm), set(predicted.uns), list(predicted.var_names)) == keys
    assert (before != predicted.X).nnz == 0


def test_truth_is_joined_by_barcode(predicted, tmp_path):
    whole = evaluate(predicted).per_protein.set_index("antibody")["r_clr"]
    truth = predicted[::-1][:250].copy()
    del truth.obsm["protein_predicted"]
    truth.write_h5ad(tmp_path / "truth.h5ad")
    del predicted.obsm["protein"]
    result = evaluate(predicted, truth=tmp_path / "truth.h5ad")
    assert len(result.per_cell) == 250
    assert "250 of 300 predicted cells were matched to the measurement by barcode." in result.notes
    joined = result.per_protein.set_index("antibody")["r_clr"]
    assert joined["CD3"] == pytest.approx(whole["CD3"], abs=0.05)
    assert result.cognate["CD3"].notna().all()


def test_wrong_truth_is_refused(predicted):
    truth = make_cells()
    truth.obs_names = [f"other{i}" for i in range(truth.n_obs)]
    with pytest.raises(InputError, match=r"Only 0 of 300 barcodes .* expected at least half"):
        evaluate(predicted, truth=truth)
    truth = make_cells()
    del truth.obsm["protein"]
    with pytest.raises(InputError, match="give another --truth file"):
        evaluate(predicted, truth=truth)


def test_what_is_missing_is_named_with_a_remedy(predicted, tmp_path):
    bare = make_cells()
    bare.write_h5ad(tmp_path / "bare.h5ad")
    with pytest.raises(InputError, match=r"bare\.h5ad holds no predictions .*sclinguist predict"):
        evaluate(tmp_path / "bare.h5ad")
    unmeasured = predicted.copy()
    del unmeasured.obsm["protein"]
    with pytest.raises(InputError, match=r"no measured protein .*--truth FILE"):
        evaluate(unmeasured)
    strange = predicted.copy()
    strange.obsm["protein"] = strange.obsm["protein"][["IgG1"]].assign(CD33=1.0)
    with pytest.raises(InputError, match=r"none of the 1 measured proteins \(CD33\)"):
        evaluate(strange)
    negative = predicted.copy()
    negative.obsm["protein"] = negative.obsm["protein"] - 5
    with pytest.raises(InputError, match=r"negative values .* expected raw antibody counts"):
        evaluate(negative)
    unpaired = make_cells()
    del unpaired.obsm["protein"]
    with pytest.raises(InputError, match=r"leave it out of --train"):
        evaluate(predicted, train=[unpaired])


def test_simulated_data_are_called_so(predicted, tmp_path):
    assert not evaluate(predicted).simulated
    predicted.uns["simulated"] = True
    result = evaluate(predicted)
    assert result.simulated
    assert result.notes[0].startswith("These data are simulated")


def test_the_sample_section_is_known_to_be_simulated():
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.evaluation.inputs import is_simulated
    from sclinguist_core.resources import sample_section_path

    assert is_simulated(open_section(sample_section_path()))


def test_published_min_max_predictions_have_no_rmse_in_sd(predicted):
    predicted.uns["sclinguist"]["unit"] = "per-cell min-max"
    model = evaluate(predicted).summary.loc["model"]
    assert np.isnan(model["rmse"])
    assert model["rmse_z"] < 1
    assert np.isfinite(model["flattened"])


def test_a_file_gives_the_same_as_memory(predicted_section, tmp_path):
    path = tmp_path / "pred.h5ad"
    memory = evaluate(predicted_section)
    predicted_section.write_h5ad(path)
    file = evaluate(path)
    pd.testing.assert_frame_equal(file.summary, memory.summary)
    assert file.section.is_spatial
    assert file.provenance["model"] == "made-up"


def test_flat_and_empty_measurements_do_not_break_it():
    table = add_positions(add_prediction(make_cells()))
    table.obsm["protein"]["CD14"] = 0.0
    table.obsm["protein"].iloc[0] = 0.0
    table.obsm["protein_predicted"]["CD4"] = 0.5
    result = evaluate(table)
    assert result.headline.startswith("Mean per-protein Pearson against CLR over 6 antibodies")
    assert result.notes[-1].endswith("constant or absent: CD4.")
    rows = result.per_protein.set_index("antibody")
    assert np.isnan(rows.loc["CD4", "r_clr"])
    assert rows.loc["CD14", "detection"] == 0
    assert rows.loc["CD3", "r_clr"] > 0.5
