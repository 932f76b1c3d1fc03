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
    paths = [entry.path for entry in recipe.paired]
    assert paths == [str(recipe_path.parent / "a.h5ad"), "/elsewhere/b.h5ad"]
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
        ("paired=[{path: a.h5ad, layr: raw}]", "unknown key 'layr'; did you mean 'layer'"),
        ("paired=[{name: a}]", "expected a path, or a mapping with the key path"),
        ("validate=[/elsewhere/b.h5ad]", "b.h5ad is trained on as well"),
        ("hold_out=a", "hold_out: expected a list of names"),
        ("init.rn=run", "unknown key 'rn'; did you mean 'rna'"),
        ("init=run", "init: expected the keys rna and protein"),
        ("masking.gene_rate=2", "gene_rate: expected between 0 and 1"),
        ("architecture=perceiver", "expected one of translator, hyena"),
        ("fit.steps=[", "expected a YAML value after ="),
        ("fit.steps=abc", "steps: expected a whole number, found 'abc'"),
        ("fit.steps=100.5", "steps: expected a whole number, found 100.5"),
        ("fit.seed=null", "seed: expected a whole number, found None"),
        ("fit.learning_rate=fast", "learning_rate: expected a number, found 'fast'"),
        ("fit={1: 2}", "unknown key 1; did you mean"),
        ("trainer.compile=1", "compile: expected true or false, found 1"),
        ("trainer.devices=four", "devices: expected a number of devices or a list"),
        ("trainer.devices=[a]", "devices: expected a number of devices or a list"),
        ("augmentation.spot_cells=5", "spot_cells: expected two whole numbers, found 5"),
        ("augmentation.spot_cells=[a, b]", "spot_cells: expected two whole numbers"),
        ("architecture=[hyena]", "expected one of translator, hyena"),
        ("paired=[{path: a.h5ad, same_cells_as: 5}]", "same_cells_as: expected names"),
    ],
)
def test_refused_overrides(recipe_path, override, message):
    with pytest.raises(InputError, match=message):
        read_recipe(recipe_path, [override])


def test_numbers_as_they_are_written_on_a_command_line(recipe_path):
    recipe = read_recipe(recipe_path, ["fit.learning_rate=1e-3", "fit.steps=1e3"])
    assert (recipe.fit.learning_rate, recipe.fit.steps) == (0.001, 1000)


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


def test_the_resolved_recipe_reads_back_the_same(recipe_path, tmp_path):
    overrides = [
        "protein=[{path: /p.csv.gz, batch_key: study, same_cells_as: {one: a}}]",
        "validate=[{path: /v.h5ad, name: new, layer: raw}]",
        "trainer.devices=[1]",
        "hold_out=[a]",
    ]
    recipe = read_recipe(recipe_path, overrides)
    resolved = tmp_path / "other" / "recipe.yaml"
    resolved.parent.mkdir()
    resolved.write_text(recipe.to_yaml())
    assert read_recipe(resolved) == recipe


def test_paths_of_overrides_are_seen_from_here(recipe_path, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    recipe = read_recipe(
        recipe_path, ["rna=[x.h5ad, {path: y.h5ad, name: z}, '${SOME_FOLDER}/w.h5ad']",
                      "init.rna=run-rna"],
    )  # fmt: skip
    paths = [entry.path for entry in recipe.rna]
    assert paths == [str(here / "x.h5ad"), str(here / "y.h5ad"), "/elsewhere/w.h5ad"]
    assert recipe.rna[1].name == "z"
    assert recipe.init == {"rna": str(here / "run-rna")}


RECIPES = ["tiny", "base", "large", "bundled", "sclinguist"]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid_and_never_train_on_test_data(request, monkeypatch, name):
    monkeypatch.setenv("SCLINGUIST_DATA", "/data")
    recipe = read_recipe(request.config.rootpath / "training" / f"{name}.yaml")
    assert len(recipe.paired) == {"tiny": 1, "base": 8, "large": 8}.get(name, 10)
    assert not any(word in entry.path for word in ("malt", "tonsil_composite")
                   for entry in recipe.entries())  # fmt: skip
    # A set that is only scored must not be learned from under another name.
    scored = [entry.name for entry in recipe.validate]
    kept = [entry for entry in recipe.protein if entry.left_out_with(scored) == (False, ())]
    assert not any("1k_adt" in entry.name or "teaseq" in entry.name for entry in kept if scored)
