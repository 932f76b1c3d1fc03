"""Imputation and embedding by a network of the sCT architecture, through the usual doors."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sclinguist_core as scl
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.imputation import evaluate_imputation_iter
from sclinguist_core.inference.impute import impute_iter
from sclinguist_core.inference.impute_network import impute_by_network
from sclinguist_core.inference.progress import finish
from sclinguist_core.inference.sct import SctImputer
from sclinguist_core.model.sct import SctModel
from sclinguist_core.model.sct_checkpoint import sct_checkpoint
from sclinguist_core.model.sct_config import SctConfig
from synthetic import paired_cells

N = 90
LACKING = "CD19"


@pytest.fixture(scope="module")
def cells():
    table = paired_cells(N, seed=5)
    return table[:, table.var_names != LACKING].copy()


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    symbols = paired_cells(3, seed=0).var_names
    n_positions = -(-len(symbols) // 8) * 8
    config = SctConfig(
        n_cells=4, n_genes=n_positions, token_width=4, stem_width=4, n_halvings=3, width=16,
        n_layers=1, n_heads=2, feed_forward_width=16,
    )  # fmt: skip
    share = 1 / len(symbols)
    genes = pd.DataFrame(
        {"symbol": symbols, "ensembl_id": "", "reference_share": share, "mean": 0.0, "std": 1.0}
    )
    return sct_checkpoint(SctModel(config).eval(), name="small", genes=genes, card="")


def test_every_chosen_entry_is_asked_for_once(cells, checkpoint):
    section = as_section(cells)
    rna = align_genes(section.rna(), checkpoint.symbols)
    chosen = np.random.default_rng(0).permutation(rna.counts.shape[1])
    asked = np.zeros(rna.counts.shape, np.int64)
    most = []

    class Recorder(SctImputer):
        def estimate(self, visible, hidden):
            if visible is rna:  # not the test of hidden entries
                asked[:] += hidden.toarray()
                most.append(np.diff(hidden.indptr).max())
            return super().estimate(visible, hidden)

    found = finish(impute_by_network(Recorder(checkpoint), rna, chosen))
    assert (asked == 1).all()
    assert max(most) < 0.4 * rna.counts.shape[1]
    assert found.value.shape == found.level.shape == (N, len(chosen))
    # The order of the columns is that of the chosen genes, whatever their order in the model.
    few = chosen[:3]
    again = finish(impute_by_network(SctImputer(checkpoint), rna, few))
    hidden = np.zeros(rna.counts.shape, bool)
    hidden[:, few] = True
    said = finish(SctImputer(checkpoint).estimate(rna, sparse.csr_matrix(hidden)))
    np.testing.assert_array_equal(again.value[:, np.argsort(few)].ravel(), said.value)


def test_a_section_is_imputed_with_it(cells, checkpoint):
    imputation = finish(
        impute_iter(as_section(cells), genes=["CD3E", LACKING], model=checkpoint, device="cpu")
    )
    assert imputation.names == ["CD3E", LACKING]
    assert np.isfinite(imputation.value).all()
    assert set(np.unique(imputation.level)) <= set(range(5))
    assert imputation.tested["test"].tolist()[1] == "untested"
    assert imputation.tested.loc["CD3E", "n_hidden"] > 0
    assert imputation.info["genes_measured"] == imputation.info["genes_not_measured"] == 1


def test_the_command_line_says_what_it_knows(cells, checkpoint, tmp_path):
    from typer.testing import CliRunner

    from sclinguist_core.cli import app
    from sclinguist_core.model.checkpoint import save_checkpoint

    folder, source = tmp_path / "model", tmp_path / "cells.h5ad"
    save_checkpoint(checkpoint, folder)
    cells.write_h5ad(source)
    output = tmp_path / "imputed.h5ad"
    arguments = ["impute", source, "--genes", LACKING, "--model", folder, "-o", output]
    answer = CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])
    assert answer.exit_code == 0, answer.output
    assert f"Not measured here, so untested: {LACKING}." in answer.stderr
    assert output.exists()


def test_it_is_compared_on_the_same_entries(cells, checkpoint):
    scores = finish(evaluate_imputation_iter(as_section(cells), model=checkpoint, device="cpu"))
    assert scores.table.index.tolist() == ["gene mean", "kNN smoothing", "sCT, random bags"]
    assert scores.table["pearson"].notna().all()


def test_cells_are_embedded_by_its_tokens(cells, checkpoint):
    empty = cells.copy()
    counts = empty.X.tolil()
    counts[7] = 0
    empty.X = sparse.csr_matrix(counts, dtype=np.float32)
    embedded = scl.embed(empty, model=checkpoint, device="cpu")
    places = embedded.obsm["X_sclinguist"]
    assert places.shape == (N, 16)
    assert np.flatnonzero(np.isnan(places).any(axis=1)).tolist() == [7]
    assert embedded.uns["sclinguist_embed"]["kind"] == "latent"


def test_what_it_cannot_do_is_said(cells, checkpoint):
    section = as_section(cells)
    with pytest.raises(InputError, match="reads bags of cells as they lie"):
        finish(impute_iter(section, genes=["CD3E"], context="nearest", model=checkpoint))
    with pytest.raises(InputError, match="has not learned to predict protein"):
        scl.predict(cells, model=checkpoint)
