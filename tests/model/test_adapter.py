from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sclinguist_core.model.adapter import Adapter
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.config import TranslatorConfig

CONFIG = TranslatorConfig(gene_dim=8, width=8, n_latents=2, n_heads=2, n_layers=1)
GENES = pd.DataFrame(
    {"symbol": ["CD3E", "CD19", "GNLY"], "mean": [1.0, 0.5, 0.2], "std": [1.0] * 3}
)
PROTEINS = pd.DataFrame({"name": ["CD3", "CD19"], "genes": ["CD3E", "CD19"]})
TOKENS = torch.tensor([[0, 2], [1, -1]])
VALUES = torch.tensor([[1.5, 0.5], [2.0, 0.0]])


def translator(**sizes):
    torch.manual_seed(0)
    return build_translator(replace(CONFIG, **sizes), GENES, PROTEINS).eval()


def mean_of(model, measured=(True, True, True), proteins=None):
    with torch.inference_mode():
        tables = model.tables()
        panel = model.panels(torch.tensor([measured]), tables).of(torch.tensor([0, 0]))
        return model(TOKENS, VALUES, panel, tables, proteins).mean


@pytest.fixture
def adapted():
    model = translator(adapter_cells=3, adapter_components=2)
    generator = torch.Generator().manual_seed(1)
    for name, values in model.adapter.named_buffers():
        values.copy_(torch.rand(values.shape, generator=generator) + (name == "width"))
    return model


def test_without_values_it_changes_nothing():
    plain = translator()
    model = translator(adapter_cells=3, adapter_components=2)
    model.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(mean_of(model), mean_of(plain))


def test_the_correction_is_a_sum_over_kernels(adapted):
    plain = translator()
    plain.load_state_dict(
        {k: v for k, v in adapted.state_dict().items() if not k.startswith("adapter.")}
    )
    a = adapted.adapter
    x = torch.tensor([[1.5, 0.0, 0.5], [0.0, 2.0, 0.0]])
    own = (x - a.center) @ a.basis
    with torch.inference_mode():
        tables = plain.tables()
        panel = plain.panels(torch.ones(1, 3, dtype=torch.bool), tables).of(torch.tensor([0, 0]))
        before = plain(TOKENS, VALUES, panel, tables)
    expected = np.zeros((2, 2))
    for cell in range(2):
        for protein in range(2):
            added = 0.0
            for i in range(3):
                trunk = float(((before.trunk[cell] - a.trunk[i]) ** 2).sum())
                other = float(((own[cell] - a.own[i]) ** 2).sum())
                share = float(a.share[protein])
                like = (1 - share) * np.exp(-trunk / float(a.width[0]))
                like += share * np.exp(-other / float(a.width[1]))
                added += like * float(a.weight[i, protein])
            expected[cell, protein] = (
                float(a.gain[protein] * before.mean[cell, protein] + a.bias[protein]) + added
            )
    np.testing.assert_allclose(mean_of(adapted), expected, rtol=1e-4)


def test_chosen_proteins_are_columns_of_all(adapted):
    some = mean_of(adapted, proteins=torch.tensor([1]))
    torch.testing.assert_close(some, mean_of(adapted)[:, 1:])


def test_an_unmeasured_gene_counts_as_the_mean():
    adapter = Adapter(1, 2, gene_dim=4, n_genes=3, n_proteins=1)
    adapter.basis.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    adapter.center.copy_(torch.tensor([1.0, 2.0, 4.0]))
    measured = torch.tensor([[True, True, True], [True, True, False]])
    empty = adapter.unexpressed(measured)
    assert empty.tolist() == [[-5.0, -6.0], [-1.0, -2.0]]
    hidden = empty[:1] + adapter.hidden(torch.tensor([[2, -1]]))
    assert hidden.tolist() == [[-1.0, -2.0]]
    own = adapter.components(torch.tensor([[0, -1]]), torch.tensor([[3.0, 9.0]]), empty[1:])
    assert own.tolist() == [[2.0, -2.0]]


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="adapter_cells: expected at least 0"):
        TranslatorConfig(adapter_cells=-1)
