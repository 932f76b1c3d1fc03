import numpy as np
import pandas as pd
import pytest
import torch

from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    save_checkpoint,
)
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.state import RIDGE

V, R = 30, 4
GENES = pd.DataFrame(
    {
        "symbol": [f"G{i}" for i in range(V)],
        "ensembl_id": "",
        "reference_share": 1 / V,
        "mean": np.linspace(0.1, 2.0, V),
        "std": np.linspace(0.2, 1.0, V),
    }
)
PROTEINS = pd.DataFrame(
    {"name": ["P0", "P1", "glycan"], "genes": ["G0", "G1;G2", ""], "kind": "protein"}
)
CONFIG = TranslatorConfig(
    gene_dim=8, width=8, n_latents=3, n_heads=2, n_layers=1, n_components=R, n_perceptrons=2
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = build_translator(CONFIG, GENES, PROTEINS).eval()
    model.state.loadings.copy_(0.5 * torch.randn(V, R))
    model.state.center.copy_(0.1 * torch.randn(R))
    model.state_heads.weight.copy_(torch.randn(3, R))
    return model


def panel_of(model, measured, n=1):
    tables = model.tables()
    return tables, model.panels(measured, tables).of(torch.zeros(n, dtype=torch.int64))


def state_by_hand(model, x, measured):
    z = ((x - model.gene_mean) / model.gene_std).clamp(-5, 5)[measured]
    loadings = model.state.loadings
    used = loadings[measured]
    lacking = 1 - (used**2).sum() / (loadings**2).sum()
    prior = lacking / model.state.scale**2
    gram = used.T @ used + RIDGE * torch.eye(R) + torch.diag(prior)
    return torch.linalg.solve(gram, used.T @ z + prior * model.state.center)


def test_the_state_is_the_least_squares_position_over_measured_genes(model):
    measured = torch.rand(1, V) > 0.3
    measured[0, [3, 7]] = True
    x = torch.zeros(V)
    x[3], x[7] = 1.0, 2.5
    tables, panel = panel_of(model, measured)
    genes, values = torch.tensor([[3, 7, -1]]), torch.tensor([[1.0, 2.5, 0.0]])
    state = model.encode(genes, values, panel, tables).state[0]
    torch.testing.assert_close(state, state_by_hand(model, x, measured[0]), rtol=1e-4, atol=1e-5)


def test_a_panel_that_tells_nothing_puts_a_cell_where_cells_usually_lie(model):
    model.state.center.copy_(torch.tensor([3.0, -2.0, 1.0, 0.5]))
    model.state.scale.fill_(0.1)
    measured = torch.zeros(1, V, dtype=torch.bool)
    measured[0, 3] = True
    tables, panel = panel_of(model, measured)
    cell = torch.tensor([[3]]), torch.tensor([[1.0]])
    torch.testing.assert_close(
        model.encode(*cell, panel, tables).state[0], model.state.center, rtol=0.05, atol=0.05
    )
    free = model.train().encode(*cell, panel, tables)
    assert (free.state[0] - model.state.center).abs().max() > 0.5  # in training it is not drawn
    assert free.share == 1


def test_cells_of_several_panels_are_solved_each_with_its_own(model):
    measured = torch.rand(2, V) > 0.4
    measured[:, 3] = True
    tables = model.tables()
    genes, values = torch.tensor([[3], [3]]), torch.tensor([[1.5], [1.5]])
    both = model.encode(
        genes, values, model.panels(measured, tables).of(torch.tensor([0, 1])), tables
    )
    for number in (0, 1):
        _, panel = panel_of(model, measured[number : number + 1])
        alone = model.encode(genes[:1], values[:1], panel, tables)
        torch.testing.assert_close(both.state[number], alone.state[0], rtol=1e-4, atol=1e-5)


def test_a_hidden_gene_counts_as_not_measured(model):
    everything = torch.ones(1, V, dtype=torch.bool)
    without = everything.clone()
    without[0, [5, 9]] = False
    genes, values = torch.tensor([[3]]), torch.tensor([[1.5]])
    tables, panel = panel_of(model, everything)
    hidden = model.hide(panel, torch.tensor([[5, 9, -1]]), tables)
    one = model.encode(genes, values, hidden, tables)
    _, fewer = panel_of(model, without)
    other = model.encode(genes, values, fewer, tables)
    torch.testing.assert_close(one.state, other.state, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.trunk, other.trunk, rtol=1e-4, atol=1e-5)


def test_the_prediction_is_the_mean_of_the_heads(model):
    tables, panel = panel_of(model, torch.ones(1, V, dtype=torch.bool))
    out = model(torch.tensor([[3, 7]]), torch.tensor([[1.0, 2.0]]), panel, tables)
    assert out.heads.shape == (4, 1, 3)  # read, two perceptrons, regression
    torch.testing.assert_close(out.mean, out.heads.mean(dim=0))
    measured = torch.arange(V)[None] < 20
    tables, panel = panel_of(model, measured)
    some = model(torch.tensor([[3, 7]]), torch.tensor([[1.0, 2.0]]), panel, tables)
    share = model.state.share(model.state.gram(measured)[0], model.state.told())
    weights = torch.tensor([share, 1.0, 1.0, 1.0])
    by_hand = (weights[:, None, None] * some.heads).sum(dim=0) / weights.sum()
    torch.testing.assert_close(some.mean, by_hand)
    assert 0.3 < share < 0.9
    assert (out.heads.std(dim=0) > 0).all()


def test_own_mrna_enters_as_measured_and_as_imputed(model):
    with torch.no_grad():
        model.cognate_gain.copy_(torch.tensor([1.0, 0.0, 1.0]))
        model.imputed_gain.copy_(torch.tensor([0.0, 1.0, 1.0]))
    tables, panel = panel_of(model, torch.ones(1, V, dtype=torch.bool))
    cell = torch.tensor([[0, 7]]), torch.tensor([[1.0, 2.0]])
    reading = model.encode(*cell, panel, tables)
    said = model._own_mrna(reading, tables, None)[0]
    z = (1.0 - model.gene_mean[0]) / model.gene_std[0]
    assert said[0].item() == pytest.approx(z.item(), rel=1e-4)
    imputed = ((reading.state - model.state.center) @ model.state.loadings[[1, 2]].T).mean()
    assert said[1].item() == pytest.approx(imputed.item(), rel=1e-4)
    assert said[2].item() == 0  # a glycan has no gene
    some = model._own_mrna(reading, tables, torch.tensor([1]))
    torch.testing.assert_close(some[0, 0], said[1])


def test_a_cell_with_no_measured_gene_lies_where_cells_usually_lie(model):
    tables, panel = panel_of(model, torch.zeros(1, V, dtype=torch.bool))
    cell = torch.full((1, 1), -1), torch.zeros(1, 1)
    out = model(*cell, panel, tables)
    assert torch.isfinite(out.mean).all()
    state = model.encode(*cell, panel, tables).state[0]
    torch.testing.assert_close(state, model.state.center / (1 + RIDGE))


def test_the_state_survives_the_checkpoint(model, tmp_path):
    info = CheckpointInfo(name="tiny", model=CONFIG)
    saved = Checkpoint(model=model, info=info, genes=GENES, proteins=PROTEINS, card="tiny")
    again = load_checkpoint(save_checkpoint(saved, tmp_path / "tiny", half=False)).model
    torch.testing.assert_close(again.state.loadings, model.state.loadings)
    tables, panel = panel_of(model, torch.ones(1, V, dtype=torch.bool))
    tables_again, panel_again = panel_of(again, torch.ones(1, V, dtype=torch.bool))
    cell = torch.tensor([[3, 7]]), torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(
        again(*cell, panel_again, tables_again).mean, model(*cell, panel, tables).mean,
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip
