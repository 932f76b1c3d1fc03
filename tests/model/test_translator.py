from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.config import TranslatorConfig

GENES = pd.DataFrame(
    {
        "symbol": [f"G{i}" for i in range(30)],
        "mean": np.linspace(0.1, 2.0, 30),
        "std": np.linspace(0.2, 1.0, 30),
    }
)
PROTEINS = pd.DataFrame({"name": ["P0", "P1", "glycan"], "genes": ["G0", "G1;G2", ""]})
CONFIG = TranslatorConfig(gene_dim=8, width=8, n_latents=3, n_heads=2, n_layers=1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_translator(CONFIG, GENES, PROTEINS).eval()


def run(model, genes, values, measured=None):
    genes = torch.tensor(genes)
    measured = torch.ones(1, 30, dtype=torch.bool) if measured is None else measured
    tables = model.tables()
    panel = model.panels(measured, tables).of(torch.zeros(len(genes), dtype=torch.int64))
    return model(genes, torch.tensor(values), panel, tables)


def test_the_order_of_genes_does_not_matter(model):
    one = run(model, [[3, 7, 11]], [[1.0, 2.0, 0.5]])
    other = run(model, [[11, 3, 7]], [[0.5, 1.0, 2.0]])
    torch.testing.assert_close(one.mean, other.mean)


def test_padding_changes_nothing(model):
    one = run(model, [[3, 7]], [[1.0, 2.0]])
    padded = run(model, [[3, 7, -1, -1]], [[1.0, 2.0, 0.0, 0.0]])
    torch.testing.assert_close(one.mean, padded.mean)
    torch.testing.assert_close(one.std, padded.std)


def test_the_linear_read_is_the_dense_product_over_measured_genes(model):
    measured = torch.rand(1, 30) > 0.3
    measured[0, [3, 7]] = True
    x = torch.zeros(30)
    x[3], x[7] = 1.0, 9.0
    z = ((x - model.gene_mean) / model.gene_std).clamp(-5, 5) * measured[0]
    tables = model.tables()
    measured[0, 0], measured[0, 2] = False, True
    z[0], z[2] = 0.0, tables.zero[2]
    read, coding, _, _ = model.linear_read(
        torch.tensor([[3, 7, -1]]),
        torch.tensor([[1.0, 9.0, 0.0]]),
        model.panels(measured, tables),
        tables,
    )
    torch.testing.assert_close(read[0], z @ model.gene_embedding, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(coding[0], z[:3])  # G0, G1 and G2 are the coding genes


def test_missing_is_not_zero(model):
    measured = torch.ones(1, 30, dtype=torch.bool)
    fewer = measured.clone()
    fewer[0, 20:] = False
    one = run(model, [[3]], [[1.0]], measured)
    other = run(model, [[3]], [[1.0]], fewer)
    assert (one.mean - other.mean).abs().max() > 1e-4


def test_a_cell_without_expressed_genes_is_a_cell(model):
    out = run(model, [[-1]], [[0.0]])
    assert torch.isfinite(out.mean).all()
    assert (out.std > 0).all()


def test_some_proteins_are_the_same_as_all_of_them(model):
    tables = model.tables()
    panel = model.panels(torch.ones(1, 30, dtype=torch.bool), tables)
    genes, values = torch.tensor([[3, 7]]), torch.tensor([[1.0, 2.0]])
    everything = model(genes, values, panel, tables)
    some = model(genes, values, panel, tables, torch.tensor([2, 0]))
    torch.testing.assert_close(some.mean, everything.mean[:, [2, 0]])


def test_shapes_and_protein_genes(model):
    out = run(model, [[1, 2], [3, -1]], [[1.0, 1.0], [2.0, 0.0]])
    assert out.mean.shape == out.std.shape == (2, 3)
    assert out.cell.shape == (2, 8)
    dense = model.protein_genes.to_dense()
    assert dense[1, [1, 2]].tolist() == [0.5, 0.5]
    assert dense[2].sum() == 0


def test_the_cognate_gene_has_a_direct_weight(model):
    low, high = (run(model, [[0, 5]], [[x, 1.0]]) for x in (0.1, 0.5))
    with torch.no_grad():
        model.cognate_gain += 1.0
    low_1, high_1 = (run(model, [[0, 5]], [[x, 1.0]]) for x in (0.1, 0.5))
    step = (high_1.mean - low_1.mean) - (high.mean - low.mean)
    expected = 0.4 / model.gene_std[0].item()
    torch.testing.assert_close(step[0], torch.tensor([expected, 0.0, 0.0]), atol=1e-4, rtol=1e-4)


def test_every_parameter_learns(model):
    out = run(model.train(), [[0, 1, 2], [3, 4, -1]], [[1.0, 1.0, 1.0], [2.0, 0.3, 0.0]])
    (out.mean.sum() + out.std.sum()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


EXTREME = [[0.0, 0.1, 2.4, 6.0, 9.0], [0.4, 5.99, 6.01, 0.8, 0.0]]


@pytest.mark.parametrize("value_dim", [1, 2, 16])
def test_tokens_made_at_once_are_those_that_are_trained(value_dim):
    torch.manual_seed(0)
    model = build_translator(replace(CONFIG, value_dim=value_dim), GENES, PROTEINS).eval()
    torch.nn.init.normal_(model.reader.value_gain.weight)
    table, genes = model.tables().token, torch.tensor([[3, 7, 11, 0, 29], [1, 2, 3, 4, -1]])
    trained = model.reader.tokens(table, genes, torch.tensor(EXTREME))
    with torch.no_grad():
        at_once = model.reader.tokens(table, genes, torch.tensor(EXTREME))
    seen = genes >= 0
    torch.testing.assert_close(at_once[seen], trained[seen], rtol=1e-5, atol=1e-6)


def test_blocks_that_fit_the_cache_give_what_a_whole_batch_gives(model, monkeypatch):
    genes = [[3, 7, 11, 0, 29], [1, 2, 3, 4, -1], [-1] * 5, [5, -1, -1, -1, -1]]
    values = [*EXTREME, [0.0] * 5, [1.0, 0.0, 0.0, 0.0, 0.0]]
    trained = run(model, genes, values)
    monkeypatch.setattr("sclinguist_core.model.readers.CPU_CACHED_TOKENS", 10)
    monkeypatch.setattr("sclinguist_core.model.decoder.CPU_CACHED_QUERIES", 1)
    with torch.no_grad():
        blocks = run(model, genes, values)
    torch.testing.assert_close(blocks.mean, trained.mean)
    torch.testing.assert_close(blocks.std, trained.std)
