import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.model.config import TranslatorConfig


def test_round_trip():
    config = TranslatorConfig(width=32, n_heads=2)
    assert TranslatorConfig.from_dict(config.to_dict()) == config


def test_unknown_key_names_the_nearest():
    with pytest.raises(InputError, match="unknown key 'n_latent'; did you mean 'n_latents'"):
        TranslatorConfig.from_dict({"n_latent": 3})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 10, "n_heads": 4}, "n_heads: expected a divisor of width"),
        ({"dropout": 1.0}, "dropout"),
        ({"n_latents": 0}, "n_latents"),
        ({"clip": 0.0}, "clip"),
        ({"rna_normalization": "tpm"}, "rna_normalization"),
        ({"protein_normalization": "minmax_cell"}, "protein_normalization"),
    ],
)
def test_refused_values(values, message):
    with pytest.raises(ValueError, match=message):
        TranslatorConfig(**values)
