"""The sCT architecture: its parts against plain ones, its size, and what it can and cannot see."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch.nn import functional as F

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import load_checkpoint, save_checkpoint
from sclinguist_core.model.sct import SctModel, level_probabilities
from sclinguist_core.model.sct_checkpoint import sct_checkpoint
from sclinguist_core.model.sct_config import MASK, N_TOKENS, PAD, SctConfig
from sclinguist_core.model.sct_layers import Double, Halve, rotary_angles, rotate
from sclinguist_core.model.sct_tokens import sct_tokens

CONFIG = SctConfig(
    n_cells=4,
    n_genes=64,
    token_width=4,
    stem_width=6,
    stem_taps=5,
    n_halvings=3,
    width=16,
    n_layers=2,
    n_heads=2,
    feed_forward_width=24,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SctModel(CONFIG).eval()


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    return torch.randint(0, N_TOKENS, (2, 4, 64), dtype=torch.int8)


def test_sizes_of_the_published_architecture():
    with torch.device("meta"):
        model = SctModel(SctConfig())
    n_weights = sum(p.numel() for p in model.parameters())
    assert n_weights == pytest.approx(79.2e6, rel=0.005)
    config = model.config
    assert config.n_cells * config.n_genes == 998_400
    assert config.n_cells * config.tokens_per_cell == 3_900
    assert config.tower_widths == (64, 184, 304, 424, 544, 664, 784, 904, 1024)
    logits = model(torch.zeros(1, 50, 19_968, dtype=torch.int8, device="meta"))
    assert logits.shape == (1, 50, 19_968, 7)


@pytest.mark.parametrize("length", [2, 4, 22])
def test_halving_and_doubling_are_convolutions(length):
    torch.manual_seed(0)
    x = torch.randn(3, length, 6)
    halve, double = Halve(6, 5), Double(6, 5)
    for layer in (halve, double):
        torch.nn.init.normal_(layer.bias)
    down = F.conv1d(
        x.transpose(1, 2), halve.weight.permute(0, 2, 1), halve.bias, stride=2, padding=2
    )
    torch.testing.assert_close(halve(x), down.transpose(1, 2))
    up = F.conv_transpose1d(
        x.transpose(1, 2),
        double.weight.permute(2, 1, 0),
        double.bias,
        stride=2,
        padding=2,
        output_padding=1,
    )
    torch.testing.assert_close(double(x), up.transpose(1, 2))


def test_rotary_products_depend_on_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8)
    angles = rotary_angles(40, 8, torch.device("cpu"))
    turned_q, turned_k = (rotate(x.expand(1, 1, 40, 8), angles)[0, 0] for x in (q, k))
    products = turned_q @ turned_k.T
    for distance in (-7, 0, 3):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert products.diagonal(0)[0] == pytest.approx((q * k).sum().item(), abs=1e-5)
    assert abs(products.diagonal(3)[0] - products.diagonal(-7)[0]) > 1e-3
    half = rotate(q.to(torch.bfloat16).expand(1, 1, 40, 8), angles)
    assert half.dtype == torch.bfloat16


def test_shapes_and_chosen_positions(model, tokens):
    logits = model(tokens)
    assert logits.shape == (2, 4, 64, N_TOKENS)
    asked = torch.tensor([[0, 3 * 64 + 5, 255], [64, 64, 1]])
    chosen = model(tokens, asked)
    torch.testing.assert_close(
        chosen, logits.flatten(1, 2).gather(1, asked[..., None].expand(-1, -1, 7))
    )
    torch.testing.assert_close(model(tokens.long()), logits)
    assert model.embed(tokens).shape == (2, 4, 16)
    fewer = model(tokens[:, :3])
    assert fewer.shape == (2, 3, 64, N_TOKENS)
    probability = level_probabilities(logits)
    assert probability.shape == (2, 4, 64, 5)
    torch.testing.assert_close(probability.sum(-1), torch.ones(2, 4, 64))


def test_bags_are_apart_and_cells_of_a_bag_are_not(model, tokens):
    changed = tokens.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 5
    before, after = model(tokens), model(changed)
    assert torch.equal(before[1], after[1])
    # The last cell is context of the first, and the other way round: nothing is causal.
    assert (before[0, 0] - after[0, 0]).abs().max() > 1e-4
    changed = tokens.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 5
    assert (before[0, 3] - model(changed)[0, 3]).abs().max() > 1e-4
    embedded = model.embed(tokens)
    assert (embedded[0] - model.embed(changed)[0]).abs().amax(dim=1).min() > 1e-6


def test_the_towers_alone_see_a_neighbourhood(model, tokens):
    """Without the transformer, what is far away does not matter."""
    model.blocks = torch.nn.ModuleList()
    changed = tokens.clone()
    changed[0, 3, 60:] = (changed[0, 3, 60:] + 1) % 5
    difference = (model(tokens) - model(changed))[0].flatten(0, 1).abs().amax(dim=1)
    assert difference[:150].max() == 0
    assert difference[240:].min() > 0


def test_position_tells_genes_apart(model):
    """There is no gene embedding: identical tokens far from the ends look the same but for rotary
    positions and neighbours, so the same gene of different cells is not told apart by the towers.
    """
    model.blocks = torch.nn.ModuleList()
    cell = torch.randint(0, 5, (64,))
    bag = cell.expand(1, 6, 64)
    logits = model(bag)
    torch.testing.assert_close(logits[0, 2], logits[0, 3])
    assert (logits[0, 2, 20] - logits[0, 2, 28]).abs().max() > 1e-5


def test_what_was_not_measured_is_an_empty_position(model):
    assert model.embedding.weight[PAD].abs().max() == 0
    model.train()
    levels = torch.randint(0, N_TOKENS, (1, 4, 64))
    model(levels).square().sum().backward()
    assert model.embedding.weight.grad[PAD].abs().max() == 0
    assert model.embedding.weight.grad[:PAD].abs().amax(dim=1).min() > 0


def test_gradients_reach_every_weight(model, tokens):
    model.train()
    logits = model(tokens)
    F.cross_entropy(logits[..., :5].flatten(0, 2), tokens.clamp(max=4).flatten().long()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.startswith("head."):  # the special tokens are not asked for here
            continue
        assert parameter.grad.abs().max() > 0, name


def test_recomputing_changes_no_gradient(tokens):
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = SctModel(replace(CONFIG, recompute=recompute))
        model(tokens).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_half_precision_agrees(model, tokens):
    exact = level_probabilities(model(tokens))
    with torch.autocast("cpu", torch.bfloat16):
        half = level_probabilities(model(tokens))
    assert half.dtype == torch.float32
    assert (exact - half).abs().max() < 0.03


def test_a_small_bag_is_learned_by_heart():
    torch.manual_seed(0)
    model = SctModel(CONFIG)
    level = torch.randint(0, 5, (1, 4, 64))
    hidden = torch.rand(level.shape) < 0.15
    tokens = level.masked_fill(hidden, MASK)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        loss = F.cross_entropy(model(tokens)[hidden], level[hidden])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.3
    assert losses[-1] < 0.1


def test_compiling_meets_no_break(model, tokens):
    explained = torch._dynamo.explain(model)(tokens)
    assert explained.graph_break_count == 0
    torch._dynamo.reset()


def test_tokens_of_cells():
    counts = sparse.csr_matrix(
        np.array([[0, 1, 2, 40, 0, 7], [0, 0, 0, 0, 0, 0], [3, 3, 3, 0, 9, 0]], np.float32)
    )
    measured = np.array([[1, 1, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1]], bool)
    rna = AlignedRna(counts=counts, measured=measured, pattern=np.array([0, 1, 1]))
    config = SctConfig(n_genes=8, n_halvings=3)
    share = np.full(6, 1 / 6)
    tokens = sct_tokens(rna, config, share)
    assert tokens.dtype == np.int8
    # log1p CP10k of the first cell's genes: 5.3, 6.0, 9.0, 7.2; a quarter of the range is .92.
    assert tokens.tolist() == [
        [0, 1, 1, 4, PAD, 3, PAD, PAD],
        [0, 0, 0, 0, 0, 0, PAD, PAD],
        [1, 1, 1, 0, 4, 0, PAD, PAD],
    ]
    hidden = np.zeros((3, 6), bool)
    hidden[0, [0, 3]] = True
    tokens = sct_tokens(rna, config, share, hidden)
    assert tokens[0].tolist() == [MASK, 1, 2, MASK, PAD, 4, PAD, PAD]
    # What is hidden leaves no trace, whatever it was.
    other = AlignedRna(
        counts=rna.without(sparse.csr_matrix(hidden)).counts, measured=measured, pattern=rna.pattern
    )
    np.testing.assert_array_equal(sct_tokens(other, config, share, hidden), tokens)
    assert rna.counts[0, 3] == 40
    with pytest.raises(ValueError, match="6 genes, expected at most 4"):
        sct_tokens(rna, SctConfig(n_genes=4, n_halvings=2), share)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_genes": 19_960}, "set it to 19968"),
        ({"stem_taps": 4}, "odd number"),
        ({"n_layers": 0}, "at least 1"),
        ({"width": 1000}, "multiple of 32"),
    ],
)
def test_refused_sizes(values, said):
    with pytest.raises(ValueError, match=said):
        SctConfig(**values)


def test_sizes_as_plain_values():
    assert SctConfig.from_dict(CONFIG.to_dict()) == CONFIG
    with pytest.raises(InputError, match="did you mean 'n_halvings'"):
        SctConfig.from_dict({"n_halving": 3})


def test_a_checkpoint_loads_exactly(model, tokens, tmp_path):
    genes = pd.DataFrame(
        {
            "symbol": [f"G{i}" for i in range(60)],
            "ensembl_id": "",
            "reference_share": 1 / 60,
            "mean": 0.5,
            "std": 1.0,
        }
    )
    made = sct_checkpoint(model, name="m", genes=genes, card="# m\n", training_datasets=("a",))
    folder = save_checkpoint(made, tmp_path / "m", half=False)
    loaded = load_checkpoint(folder)
    assert loaded.info == made.info
    assert (loaded.info.architecture, loaded.info.stage) == ("sct", "pretrain-rna")
    assert loaded.symbols == genes["symbol"].tolist()
    assert loaded.protein_names == []
    assert torch.equal(loaded.model(tokens), model(tokens))
    with pytest.raises(InputError, match="expected a translator"):
        _ = loaded.translator
    too_many = pd.concat([genes, genes])
    with pytest.raises(ValueError, match="120 rows, expected at most 64"):
        sct_checkpoint(model, name="m", genes=too_many, card="")
