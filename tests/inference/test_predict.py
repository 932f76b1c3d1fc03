import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import sclinguist_core as scl
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.inference import predict as module
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.prediction import attach
from sclinguist_core.inference.prepare import select_proteins
from sclinguist_core.inference.progress import finish
from sclinguist_core.inference.runner import TranslatorRunner
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.train.corpus import gene_statistics, gene_universe, protein_universe
from synthetic import paired_cells

CONFIG = TranslatorConfig(gene_dim=16, width=16, n_latents=4, n_heads=2, n_layers=1)


@pytest.fixture(scope="module")
def cells():
    return paired_cells(90)


@pytest.fixture(scope="module")
def checkpoint(cells):
    return untrained(cells, CONFIG)


def untrained(cells, config):
    section = as_section(cells)
    genes = gene_universe([section])
    aligned = align_genes(section.rna(), genes["symbol"].tolist())
    statistics = gene_statistics(genes, [aligned])
    proteins = protein_universe([section])
    torch.manual_seed(0)
    return Checkpoint(
        model=build_translator(config, statistics.table, proteins).eval(),
        info=CheckpointInfo(name="untrained", model=config, training_datasets=("synthetic",)),
        genes=statistics.table,
        proteins=proteins.assign(trust="untested", interval=2.0),
        card="",
    )


def run(section, **options):
    return finish(predict_iter(section, **options))


def test_columns_land_where_they_are_promised(cells, checkpoint):
    before = cells.X.copy()
    adata = scl.predict(cells, model=checkpoint)
    names = ["CD14", "CD19", "CD3", "CD4", "CD56"]
    for key in ("", "_low", "_high", "_std"):
        frame = adata.obsm[f"protein_predicted{key}"]
        assert frame.columns.tolist() == names
        assert (frame.index == cells.obs_names).all()
        assert np.isfinite(frame.to_numpy()).all()
    low, mean, high = (adata.obsm[f"protein_predicted{k}"] for k in ("_low", "", "_high"))
    std = adata.obsm["protein_predicted_std"]
    np.testing.assert_allclose(high - mean, 2 * std, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(mean - low, 2 * std, rtol=1e-3, atol=1e-5)
    uns = adata.uns["sclinguist"]
    assert uns["model"] == "untrained"
    assert uns["genes_found"] == uns["genes_expected"] == len(checkpoint.genes)
    assert uns["trust"]["CD3"] == "untested"
    assert (before != adata.X).nnz == 0
    assert "protein_predicted" not in cells.obsm
    assert "sclinguist" not in cells.uns


def test_a_section_is_left_alone(cells, checkpoint):
    section = as_section(cells)
    table = scl.predict(section, model=checkpoint)
    assert table.obsm["protein_predicted"].shape == (section.n_obs, 5)
    assert not [key for key in section.table.obsm if key.startswith("protein_predicted")]
    assert "sclinguist" not in section.table.uns
    assert section.table.obs.columns.equals(cells.obs.columns)


def test_predictions_are_shrunk_by_their_slope(cells, checkpoint):
    from dataclasses import replace

    proteins = checkpoint.proteins.assign(slope=[0.5, 1.0, 1.0, 1.0, 0.1])
    shrunk = run(as_section(cells), model=replace(checkpoint, proteins=proteins))
    whole = run(as_section(cells), model=checkpoint)
    np.testing.assert_allclose(shrunk.mean, whole.mean * [0.5, 1, 1, 1, 0.1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(shrunk.std, whole.std, rtol=1e-4)


def test_batches_and_chunks_do_not_change_the_result(cells, checkpoint, monkeypatch):
    section = as_section(cells)
    whole = run(section, model=checkpoint)
    monkeypatch.setattr(module, "CHUNK_ROWS", 17)
    small = run(section, model=checkpoint, batch_size=5)
    np.testing.assert_allclose(small.mean, whole.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(small.std, whole.std, rtol=1e-4, atol=1e-5)


def test_progress_counts_up_to_all_cells(cells, checkpoint):
    progress = list(predict_iter(as_section(cells), model=checkpoint, batch_size=20))
    done = [p.done for p in progress]
    assert done == sorted(done)
    assert (progress[0].done, progress[-1].done) == (0, 90)
    assert {p.total for p in progress} == {90}
    assert progress[-1].phase == "predicting"


def test_chosen_proteins_in_any_spelling(cells, checkpoint):
    section = as_section(cells)
    some = run(section, model=checkpoint, proteins=["NCAM", "cd3"])
    assert some.names == ["CD56", "CD3"]
    whole = run(section, model=checkpoint)
    np.testing.assert_allclose(some.mean, whole.mean[:, [4, 2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("proteins", "message"),
    [(["CD8"], "does not predict it"), (["foobar"], "foobar"), ([], "empty list")],
)
def test_proteins_that_cannot_be_had(cells, checkpoint, proteins, message):
    with pytest.raises(InputError, match=message):
        run(as_section(cells), model=checkpoint, proteins=proteins)


def test_log1p_counts_are_predicted_on_request(cells):
    with pytest.raises(InputError, match="does not predict log1p counts"):
        scl.predict(cells, model=untrained(cells, CONFIG), log1p=True)
    config = replace(CONFIG, n_components=3, log_output=True)
    logging = untrained(cells, config)
    with torch.no_grad():
        logging.model.log_bias.copy_(torch.arange(5.0))
        for perceptron in logging.model.log_heads.perceptrons:
            perceptron.query_to_readout.weight.zero_()
            perceptron.query_to_readout.bias.zero_()
        logging.model.cognate_gain.zero_()
        logging.model.imputed_gain.zero_()
    adata = scl.predict(cells, model=logging, log1p=True, proteins=["CD4", "CD19"])
    logs = adata.obsm["protein_predicted_log1p"]
    assert logs.columns.tolist() == ["CD4", "CD19"]
    # Two perceptrons that say the offset alone, and a regression that says nothing yet.
    np.testing.assert_allclose(logs.to_numpy(), np.tile([2.0, 2 / 3], (90, 1)), rtol=1e-5)
    assert "protein_predicted_log1p" not in scl.predict(cells, model=logging).obsm


def test_out_of_memory_halves_the_batch_and_loses_nothing(cells, checkpoint, monkeypatch):
    section = as_section(cells)
    whole = run(section, model=checkpoint)
    forward = TranslatorRunner._forward
    seen = []

    def scarce(self, batch, panels):
        seen.append(batch.n_obs)
        if batch.n_obs > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch, panels)

    monkeypatch.setattr(TranslatorRunner, "_forward", scarce)
    result = run(section, model=checkpoint, batch_size=64)
    np.testing.assert_allclose(result.mean, whole.mean, rtol=1e-4, atol=1e-5)
    # Batches in other threads may fail meanwhile: each once, and none is halved for another.
    assert seen[0] == 64
    assert sum(n > 12 for n in seen) <= 6
    assert sum(n for n in seen if n <= 12) >= section.n_obs


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_caller_that_stops_cancels_what_is_under_way(cells, checkpoint, n_threads, monkeypatch):
    forward, seen = TranslatorRunner._forward, []

    def counted(self, batch, panels):
        seen.append(batch.n_obs)
        return forward(self, batch, panels)

    monkeypatch.setattr(TranslatorRunner, "_forward", counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    steps = predict_iter(as_section(cells), model=checkpoint, batch_size=2, device="cpu")
    next(steps)
    assert next(steps).done == 2
    steps.close()
    n_batches = len(seen)
    assert n_batches <= 2 * n_threads
    time.sleep(0.1)
    assert len(seen) == n_batches < cells.n_obs // 2


def test_memory_for_no_cell_at_all_is_said(cells, checkpoint, monkeypatch):
    def never(self, batch, panels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TranslatorRunner, "_forward", never)
    with pytest.raises(InputError, match="single cell"):
        run(as_section(cells), model=checkpoint)


def test_other_errors_are_not_taken_for_memory(cells, checkpoint, monkeypatch):
    def broken(self, batch, panels):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(TranslatorRunner, "_forward", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(as_section(cells), model=checkpoint)


def test_empty_cells_are_predicted_and_named(cells, checkpoint):
    adata = cells.copy()
    start, end = adata.X.indptr[3:5]
    adata.X.data[start:end] = 0
    adata.X.eliminate_zeros()
    result = run(as_section(adata), model=checkpoint)
    assert np.isnan(result.mean).all(axis=1).nonzero()[0].tolist() == [3]
    assert np.isnan(result.std).all(axis=1).nonzero()[0].tolist() == [3]
    assert any("1 of 90 rows express none" in warning for warning in result.warnings)


def test_genes_that_the_model_does_not_know_are_refused(cells, checkpoint):
    from sclinguist_core.vocabulary.genes import gene_table

    adata = cells.copy()
    known = set(checkpoint.symbols)
    adata.var_names = [gene for gene in gene_table().index if gene not in known][: adata.n_vars]
    with pytest.raises(InputError, match="0 of the model's"):
        run(as_section(adata), model=checkpoint)


def test_few_genes_are_warned_about(cells, checkpoint):
    most = len(checkpoint.symbols) * 3 // 4
    assert not run(as_section(cells), model=checkpoint).warnings
    from sclinguist_core.vocabulary.genes import gene_table

    few = cells.copy()
    known = few.var_names.isin(checkpoint.symbols)
    taken = {*checkpoint.symbols, *few.var_names}
    others = [gene for gene in gene_table().index if gene not in taken]
    names = few.var_names.to_numpy(object, copy=True)
    lost = np.flatnonzero(known)[most - 1 :]
    names[lost] = others[: len(lost)]
    few.var_names = names
    result = run(as_section(few), model=checkpoint)
    assert any(f"fewer than {most}" in warning for warning in result.warnings)


def test_prediction_survives_writing_and_reading(cells, checkpoint, tmp_path):
    from sclinguist_core.data.write import write_table

    section = as_section(cells)
    prediction = run(section, model=checkpoint)
    attach(section.table, prediction)
    for suffix in (".h5ad", ".zarr"):
        reopened = scl.open_section(write_table(section.table, tmp_path / f"p{suffix}")).table
        np.testing.assert_array_equal(
            reopened.obsm["protein_predicted"].to_numpy(), prediction.mean
        )
        assert reopened.uns["sclinguist"]["model"] == "untrained"
        assert reopened.uns["sclinguist"]["trust"]["CD19"] == "untested"


@pytest.mark.parametrize(("device", "message"), [("tpu", "expected auto"), ("cuda:x", "expected")])
def test_unknown_devices(cells, checkpoint, device, message):
    with pytest.raises(InputError, match=message):
        run(as_section(cells), model=checkpoint, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the absence of CUDA")
def test_absent_cuda_is_said(cells, checkpoint):
    with pytest.raises(InputError, match="found 0 CUDA devices"):
        run(as_section(cells), model=checkpoint, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_processor(cells, checkpoint):
    section = as_section(cells)
    one = run(section, model=checkpoint, device="cpu")
    other = run(section, model=checkpoint, device="cuda")
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-3, atol=1e-3)


def test_what_an_earlier_prediction_left_goes(cells, checkpoint):
    table = cells.copy()
    result = run(as_section(cells), model=checkpoint)
    attach(table, replace(result, ood=np.zeros(90, np.float32), log1p=result.mean))
    assert "sclinguist_ood" in table.obs
    # As of a model that states no error and knows no foreign cells.
    attach(table, replace(result, std=np.full_like(result.std, np.nan), ood=None, log1p=None))
    assert "sclinguist_ood" not in table.obs
    assert [key for key in table.obsm if key.startswith("protein_predicted")] == [
        "protein_predicted"
    ]


def test_a_gene_symbol_is_not_taken_for_another_proteins_alias(checkpoint):
    # HPDL is a gene; an antibody against CD279 has been called so.
    proteins = checkpoint.proteins.copy()
    proteins.loc[0, "name"] = "CD279"
    with pytest.raises(InputError, match="does not predict it"):
        select_proteins(replace(checkpoint, proteins=proteins), ["HPDL"])
    assert select_proteins(replace(checkpoint, proteins=proteins), ["PD-1"]).tolist() == [0]
