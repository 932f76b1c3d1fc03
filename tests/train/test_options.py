import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.train.options import TrainerConfig
from sclinguist_core.train.recipe import read_recipe


@pytest.fixture
def recipe_path(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\npaired: [a.h5ad]\ntrainer: {precision: 32, devices: [0, 2]}\n")
    return path


def test_what_yaml_reads_as_a_number_or_a_list_fits(recipe_path):
    trainer = read_recipe(recipe_path).trainer
    assert trainer == TrainerConfig(precision="32", devices=(0, 2))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.precision=16", "precision: expected 32 or bf16-mixed, found '16'"),
        ("trainer.accumulate=0", "accumulate: expected at least 1, found 0"),
        ("trainer.device=2", "unknown key 'device'; did you mean 'devices'"),
        ("trainer=fast", "trainer: expected keys and values, found 'fast'"),
    ],
)
def test_refusals_are_sentences(recipe_path, override, message):
    with pytest.raises(InputError, match=message):
        read_recipe(recipe_path, [override])
