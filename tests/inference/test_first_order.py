"""The first-order estimate of losing a gene, beside losing it."""

import numpy as np
import pytest
import torch

from inference.untrained import CONFIG, untrained_cells, untrained_checkpoint
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.inference.first_order import first_order_iter, has_first_order
from sclinguist_core.inference.perturber import one_at_a_time
from sclinguist_core.inference.prepare import prepare
from sclinguist_core.model.config import TranslatorConfig

PROTEIN = 1


@pytest.fixture(scope="module")
def cells():
    return untrained_cells()


def made(cells, *, silent=True, **changes):
    """Checkpoint; `silent`: latents ignore the tokens, which the estimate leaves out."""
    values = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}
    checkpoint = untrained_checkpoint(cells, TranslatorConfig(**(values | changes)))
    model = checkpoint.model
    if silent:
        torch.nn.init.zeros_(model.reader.out.weight)
    if model.adapter is not None:
        for name in ("weight", "trunk", "own", "basis", "center"):
            getattr(model.adapter, name).normal_(std=0.3)
        model.adapter.width.fill_(4.0)
        model.adapter.share.fill_(0.5)
    return checkpoint


def both(checkpoint, cells, scale, row=0):
    """Estimates and runs of every gene of a cell."""
    prepared = prepare(as_section(cells), model=checkpoint, device="cpu")
    runner = prepared.runner()
    aligned = prepared.aligned(np.array([row]))
    expression = runner.expression(aligned)
    ((rows, genes, estimate, mean),) = first_order_iter(
        checkpoint.model, expression, aligned.measured, aligned.pattern, PROTEIN, scale=scale
    )
    assert rows.tolist() == [0]
    np.testing.assert_array_equal(genes[0], expression.indices)
    assert has_first_order(checkpoint.model)
    runs = one_at_a_time(expression, np.arange(expression.nnz), scale)
    exact = np.empty(expression.nnz)
    pattern = np.zeros(expression.nnz, np.int64)
    for inside, outputs in runner.run_expression(runs, aligned.measured, pattern):
        exact[inside] = outputs.mean[:, PROTEIN]
    before = runner.run_all(aligned)[0][0, PROTEIN]
    np.testing.assert_allclose(mean, before, rtol=1e-4)
    return estimate[0], exact - before


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_components": 6, "n_perceptrons": 1}, {"adapter_cells": 8, "adapter_components": 3}],
)
def test_small_changes_are_told_exactly(cells, changes):
    estimate, exact = both(made(cells, **changes), cells, scale=0.99)
    assert np.abs(exact).max() > 1e-4
    np.testing.assert_allclose(estimate, exact, atol=0.03 * np.abs(exact).max())


def test_a_clipped_value_counts_with_what_is_lost(cells):
    """A gradient to the value itself is zero there."""
    checkpoint = made(cells, clip=0.5)
    estimate, exact = both(checkpoint, cells, scale=0.0)
    assert np.corrcoef(estimate, exact)[0, 1] > 0.98
    model = checkpoint.model
    symbols = checkpoint.symbols
    own = [symbols.index(gene) for gene in ("CD3E", "CD14", "CD19", "CD4", "NCAM1")]
    assert float(model.gene_std[own].max()) > 0
    unscaled, _ = both(checkpoint, cells, scale=1.0)
    assert np.abs(unscaled).max() == 0


def test_batches_are_padded_without_a_trace(cells):
    checkpoint = made(cells, silent=False)
    prepared = prepare(as_section(cells), model=checkpoint, device="cpu")
    aligned = prepared.aligned(np.arange(12))
    expression = prepared.runner().expression(aligned)
    found = {}
    for size in (1, 5):
        total = np.zeros((12, len(checkpoint.genes)))
        for rows, genes, change, _ in first_order_iter(
            checkpoint.model,
            expression,
            aligned.measured,
            aligned.pattern,
            PROTEIN,
            batch_size=size,
        ):
            assert len(rows) <= size
            assert (change[genes < 0] == 0).all()
            for row, own, moved in zip(rows, genes, change, strict=True):
                total[row, own[own >= 0]] = moved[own >= 0]
        found[size] = total
    assert np.abs(found[1]).max() > 1e-3
    np.testing.assert_allclose(found[1], found[5], atol=1e-6)
    assert not has_first_order(torch.nn.Linear(1, 1))
