"""The published architecture: agrees with a direct evaluation, and with the published numbers."""

import numpy as np
import pytest
import torch

from model.published_layout import published_weights, save_with_foreign_classes
from sclinguist_core.errors import InputError
from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.model.hyena_published import load_published, published_config
from sclinguist_core.model.tensor_archive import read_lightning_state_dict

CONFIG = HyenaConfig(n_genes=23, n_proteins=9, width=6, n_layers=2, filter_width=8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = HyenaTranslator(CONFIG).eval()
    with torch.no_grad():  # away from zero biases and tiny filters
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture
def cells():
    torch.manual_seed(1)
    x = 3 * torch.rand(4, CONFIG.n_genes)
    return torch.where(torch.rand_like(x) < 0.5, x, 0.0)


def numpy_forward(model, x_BG):
    """The graph in float64 numpy, convolutions as sums: no transform, no fusion, no autograd.

    Returns encodings, translated and protein.
    """
    w = {name: t.detach().double().numpy() for name, t in model.state_dict().items()}
    w |= {name: t.double().numpy() for name, t in model.named_buffers()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def taps(name):
        z = w[f"{name}.position_LE"]
        for k in range(model.config.filter_depth + 1):
            z = np.sin(w[f"{name}.frequency"] * linear(z, f"{name}.layers.{k}"))
        window = np.exp(-np.outer(w[f"{name}.time"], w[f"{name}.decay"])) + 0.05
        return linear(z, f"{name}.out") * window

    def convolve(x, filters):
        return np.stack(
            [
                np.stack([np.convolve(cell[:, c], filters[:, c])[: len(cell)] for c in range(d)], 1)
                for cell, d in ((cell, cell.shape[1]) for cell in x)
            ]
        )

    def stack(x, name):
        for i in range(model.config.n_layers):
            block = f"{name}.blocks.{i}"
            operator = f"{block}.operator"
            z = linear(norm(x, f"{block}.norm"), f"{operator}.in_projection")
            # Torch convolutions are correlations: the last tap is the present position.
            z = convolve(z, w[f"{operator}.short.weight"][:, 0, ::-1].T)
            z = z + w[f"{operator}.short.bias"]
            gate, key, value = np.split(z, 3, axis=-1)
            product = key * value
            mixed = convolve(product, taps(f"{operator}.long"))
            mixed = (mixed + product * w[f"{operator}.long.direct"]) * gate
            x = x + linear(mixed, f"{operator}.out_projection")
            h = linear(norm(x, f"{block}.local_norm"), f"{block}.up")
            h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
            x = x + linear(h, f"{block}.down")
        return norm(x, f"{name}.norm")

    encodings = stack(linear(x_BG.double().numpy()[..., None], "encoder.embed"), "encoder.stack")
    h = linear(encodings.swapaxes(1, 2), "bridge.layers.0")
    translated = linear(np.maximum(h, 0), "bridge.layers.1").swapaxes(1, 2)
    protein = linear(stack(translated, "decoder.stack"), "decoder.out")[..., 0]
    return encodings, translated, protein


def stages(model, x_BG):
    """The same three of the network itself."""
    with torch.inference_mode():
        tables = model.tables()
        encodings = model.encoder(x_BG, tables.encoder)
        return encodings, model.bridge(encodings), model(x_BG, tables)


def test_it_agrees_with_a_direct_evaluation(model, cells):
    *_, expected = numpy_forward(model, cells)
    assert expected.std() > 0.1
    with torch.inference_mode():
        fast = model(cells, model.tables())
    np.testing.assert_allclose(fast, expected, rtol=1e-4, atol=1e-5)
    # The same with gradients, where nothing is cut into pieces or computed beforehand.
    np.testing.assert_allclose(model(cells).detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_published_sizes():
    config = HyenaConfig()
    assert config.bridge_sizes == (19_202, 11_110, 6_427)
    with torch.device("meta"):
        model = HyenaTranslator(config)
    counted = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    assert counted == {"encoder": 313_418, "bridge": 284_755_727, "decoder": 249_672}


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [(1, (100, 10)), (2, (100, 32, 10)), (3, (100, 47, 22, 10))],
)
def test_the_gene_axis_shrinks_geometrically_rounded_up(layers, sizes):
    assert HyenaConfig(n_genes=100, n_proteins=10, bridge_layers=layers).bridge_sizes == sizes


def test_a_subset_of_proteins_is_the_same_and_shorter(model, cells):
    chosen = torch.tensor([4, 0, 4, 2])
    with torch.inference_mode():
        tables = model.tables(chosen)
        assert tables.n_positions == 5
        assert tables.decoder[0].length == 5
        torch.testing.assert_close(
            model(cells, tables), model(cells)[:, chosen], rtol=1e-5, atol=1e-6
        )


def test_no_protein_sees_a_later_one(model):
    torch.manual_seed(2)
    x = torch.randn(1, CONFIG.n_proteins, CONFIG.width)
    changed = x.clone()
    changed[:, 5] += torch.randn(CONFIG.width)
    with torch.inference_mode():
        spectra = model.decoder.stack.spectra()
        before, after = model.decoder(x, spectra), model.decoder(changed, spectra)
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=1e-5, atol=1e-6)
    assert (before - after)[:, 5:].abs().min() > 1e-4


def test_one_cell_at_a_time_is_the_same(model, cells):
    with torch.inference_mode():
        tables = model.tables()
        together = model(cells, tables)
        apart = torch.cat([model(cell[None], tables) for cell in cells])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


def test_it_learns_and_every_weight_takes_part(model, cells):
    target = torch.linspace(0, 1, CONFIG.n_proteins).expand(4, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = (model(cells) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == ["decoder.embed.weight", "decoder.embed.bias"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_genes": 1}, "n_genes"),
        ({"width": 0}, "width"),
        ({"position_features": 4}, "odd"),
        ({"bridge_dropout": 1.0}, "bridge_dropout"),
        ({"filter_depth": -1}, "filter_depth"),
    ],
)
def test_refused_sizes(change, said):
    with pytest.raises(ValueError, match=said):
        HyenaConfig(**change)
    with pytest.raises(InputError, match=said):
        HyenaConfig.from_dict(change)


def test_sizes_survive_the_configuration_file():
    assert HyenaConfig.from_dict(CONFIG.to_dict()) == CONFIG
    with pytest.raises(InputError, match="did you mean 'n_layers'"):
        HyenaConfig.from_dict({"n_layer": 2})


def test_published_weights_are_taken_over(model, cells, tmp_path):
    file = save_with_foreign_classes(tmp_path / "made.ckpt", published_weights(model))
    loaded = load_published(read_lightning_state_dict(file))
    assert loaded.config == CONFIG
    assert not loaded.training
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    torch.testing.assert_close(loaded(cells), model(cells), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("encoder.to_vector.weight"), "tell the sizes"),
        (lambda w: w.pop("decoder.to_out.bias"), "'decoder.to_out.bias' is missing"),
        (lambda w: w.update({"encoder.extra": torch.zeros(1)}), "'encoder.extra' is no part"),
        (lambda w: w.update({"translator.fc0.bias": torch.zeros(2)}), "shape"),
        (
            lambda w: w[
                "encoder.transformer.backbone.layers.0.mixer.filter_fn.modulation.deltas"
            ].mul_(2),
            "does not follow from the sizes",
        ),
        (
            lambda w: w.update(
                {
                    "encoder.transformer.backbone.layers.0.mixer.filter_fn"
                    ".implicit_filter.3.freq": torch.zeros(1, 8)
                }
            ),
            "differ in frequency",
        ),
    ],
)
def test_weights_that_are_not_the_published_ones_are_refused(model, change, said):
    weights = published_weights(model)
    change(weights)
    with pytest.raises(InputError, match=said):
        load_published(weights)


@pytest.mark.data
def test_it_returns_the_published_numbers(test_data):
    folder = test_data / "reference" / "hyena"
    weights = read_lightning_state_dict(folder / "tiny_finetune.ckpt")
    with np.load(folder / "tiny_expected.npz") as file:
        expected = dict(file)
    model = load_published(weights)
    assert published_config(weights).bridge_sizes == (96, 62, 40)
    found = stages(model, torch.from_numpy(expected["rna"]))
    for name, value in zip(("encodings", "translated", "protein"), found, strict=True):
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(value / largest, expected[name] / largest, rtol=0, atol=2e-6)


WRITTEN_OUT = {
    "encodings": [
        -0.89573439, -0.89573002, -0.89402017, -0.88811557, -0.89572901, -0.89524980,
        -0.89011963, -0.88959727, -0.89532698, -0.89507970, -0.88806975, -0.89276014,
        -0.89573439, -0.89572946, -0.88762777, -0.89601485, -0.89543068, -0.89271300,
        -0.88825464, -0.89553549, -0.89507849, -0.88935362, -0.89017667, -0.89516691,
    ],
    "translated": [
        -0.62097371, 0.57543845, -0.97830660, 0.95389536, 0.11290959, -1.25578191,
        1.27251441, -0.52071030, 0.14820309, -0.15456428, -0.36210294, 1.29629089,
        -0.62402339, 0.58235933, -0.98647668, 0.96021937, 0.11082752, -1.25873058,
        1.27937670, -0.52888642, 0.15459547, -0.15675116, -0.36495008, 1.30309339,
    ],
    "protein": [
        -0.42378369, -0.43818999, -0.45463707, -0.41672417, -0.46773550, -0.42439267,
        -0.43884149, -0.45415451, -0.41663249, -0.46787074, -0.42405848, -0.43907323,
        -0.46009408, -0.43545517, -0.41282071, -0.46887794, -0.38376673, -0.46085863,
        -0.43507352, -0.41318878, -0.46867320, -0.38345470, -0.46107956, -0.43441732,
    ],
}  # fmt: skip


def test_it_returns_numbers_that_were_computed_by_hand():
    """Weights by formula, so that no file is needed; numbers of the float64 evaluation above."""
    model, x = by_formula()
    for (name, expected), value in zip(WRITTEN_OUT.items(), stages(model, x), strict=True):
        shown = value.reshape(-1)[:: len(value.reshape(-1)) // 24][:24]
        np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def by_formula():
    """A small network whose weights, and cells whose values, are sines of their number."""
    config = HyenaConfig(n_genes=24, n_proteins=12, width=4, filter_width=6)
    model = HyenaTranslator(config).eval()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
            i = torch.arange(parameter.numel(), dtype=torch.float64)
            scale = 1.0 if name.endswith(("frequency", "position_LE")) else 0.5
            value = scale * torch.sin(1.0 + 1.7 * i + 0.9 * number)
            parameter.copy_(value.reshape(parameter.shape))
    i = torch.arange(2 * config.n_genes, dtype=torch.float64)
    return model, (3 * torch.sin(2.3 * i).clamp(min=0)).float().reshape(2, -1)
