import pytest

from sclinguist_core.errors import InputError
from sclinguist_core.train.recipe import read_recipe

TEXT = """
name: tiny
paired: [a.h5ad, "${SOME_FOLDER}/b.h5ad"]
model: {width: 8, n_heads: 2}
augmentation: {spot_cells: [2, 3]}
"""


@pytest.fixture
def recipe_path(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", "/elsewhere")
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return path


def test_paths_values_and_overrides(recipe_path):
    recipe = read_recipe(recipe_path, ["fit.steps=17", "model.width=16", "name=other"])
    assert recipe.paired == (str(recipe_path.parent / "a.h5ad"), "/elsewhere/b.h5ad")
    assert (recipe.fit.steps, recipe.model.width, recipe.name) == (17, 16, "other")
    assert recipe.augmentation.spot_cells == (2, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fit.step=7", "unknown key 'step'; did you mean 'steps'"),
        ("fitt.steps=7", "unknown key 'fitt'; did you mean 'fit'"),
        ("fit.steps=9", "steps: expected at least 10, found 9"),
        ("fit.steps", "expected key=value"),
        ("name.first=x", "holds a value"),
        ("paired=3", "expected a list"),
        ("paired=[]", "expected at least one file"),
    ],
)
def test_refused_overrides(recipe_path, override, message):
    with pytest.raises(InputError, match=message):
        read_recipe(recipe_path, [override])


def test_unset_variable(recipe_path, monkeypatch):
    monkeypatch.delenv("SOME_FOLDER")
    with pytest.raises(InputError, match="environment variable in it is not set"):
        read_recipe(recipe_path)


def test_missing_or_foreign_file(tmp_path):
    with pytest.raises(InputError, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "odd.yaml").write_text("[1, 2")
    with pytest.raises(InputError, match="expected YAML"):
        read_recipe(tmp_path / "odd.yaml")


def test_the_bundled_recipe_is_valid(request, monkeypatch):
    monkeypatch.setenv("SCLINGUIST_DATA", "/data")
    recipe = read_recipe(request.config.rootpath / "training" / "bundled.yaml")
    assert len(recipe.paired) == 10
    assert not any("malt" in path for path in (*recipe.paired, *recipe.rna))
