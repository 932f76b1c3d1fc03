"""Files that hold a pickle or other code wherever one fits: nothing in them is ever run."""

import io
import json
import pickle
import sys
import warnings

import anndata as ad
import h5py
import numcodecs
import numpy as np
import pytest
import torch

from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core.cli import main
from sclinguist_core.data.readers import open_section
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.held_out import read_held_out
from sclinguist_core.model.checkpoint import load_checkpoint, save_checkpoint
from sclinguist_core.train import cli as train_cli
from sclinguist_core.train.recipe import read_recipe
from sclinguist_core.train.run_folder import RunFolder
from sclinguist_core.train.state import read_state, state_step
from security.hostile import Trap, program, torch_file
from synthetic import paired_cells


@pytest.fixture
def mark(tmp_path):
    """What only code in a file would make."""
    (tmp_path / "marks").mkdir()
    path = tmp_path / "marks" / "executed"
    yield path
    assert not path.exists()


def test_the_traps_work(tmp_path):
    """Otherwise nothing here would show anything."""
    pickle.loads(program(tmp_path / "one"))
    torch.load(io.BytesIO(torch_file(tmp_path / "two")), weights_only=False)
    assert (tmp_path / "one").exists()
    assert (tmp_path / "two").exists()


def refusal(capsys, monkeypatch, entry, *arguments):
    """Run a command that has to refuse; return the one sentence it says."""
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as ended:
        entry()
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in err
    return line


# --- model folders -------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    return save_checkpoint(tiny_checkpoint(), tmp_path / "model")


@pytest.mark.parametrize("pack", [program, torch_file])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "familiarity.safetensors", "conditioning.safetensors"]
)
def test_weights_that_are_a_pickle(model, mark, name, pack):
    (model / name).write_bytes(pack(mark))
    with pytest.raises(InputError, match=rf"{name}.*safetensors"):
        load_checkpoint(model)


@pytest.mark.parametrize(
    "name", ["config.json", "genes.tsv", "proteins.tsv", "card.md", "calibration.json"]
)
def test_tables_and_texts_that_are_a_pickle(model, mark, name):
    (model / name).write_bytes(program(mark))
    with pytest.raises(InputError, match=name):
        load_checkpoint(model)


def test_code_beside_the_weights_is_not_imported(model, mark, monkeypatch):
    code = f"open({str(mark)!r}, 'w')\n"
    for name in ("__init__.py", "model.py", "modeling.py", "config.py", "sitecustomize.py"):
        (model / name).write_text(code)
    for name in ("pytorch_model.bin", "model.pt", "last.ckpt"):
        (model / name).write_bytes(torch_file(mark))
    monkeypatch.chdir(model)
    assert load_checkpoint(model).info.name == "tiny"
    assert str(model) not in sys.path


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"architecture": "os.system"}, "os.system"),
        ({"architecture": "sclinguist_core.model.hyena"}, "sclinguist_core.model.hyena"),
        ({"architecture": ["translator"]}, "architecture"),
        ({"auto_map": {"AutoModel": "model.Model"}}, "auto_map"),
        ({"model": {"__class__": "os.system"}}, "__class__"),
        ({"model": {"width": "__import__('os').system('true')"}}, "width"),
        ({"model": {"width": {"__reduce__": 1}}}, "width"),
    ],
)
def test_a_configuration_names_sizes_and_nothing_else(model, mark, changes, found):
    path = model / "config.json"
    config = json.loads(path.read_text())
    if isinstance(changes.get("model"), dict):
        changes = {"model": config["model"] | changes["model"]}
    path.write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=found) as refused:
        load_checkpoint(model)
    assert "\n" not in str(refused.value)


# --- training ------------------------------------------------------------------------------------


RECIPE = (
    "name: small\npaired: [cells.h5ad]\n"
    "model: {gene_dim: 8, width: 8, n_latents: 2, n_heads: 2, n_layers: 1}\n"
    "fit: {steps: 10, batch_size: 16, sets_per_step: 2}\n"
    "trainer: {accelerator: cpu}\n"
)


@pytest.mark.parametrize("pack", [program, torch_file])
def test_a_state_that_is_a_pickle(tmp_path, mark, pack, capsys, monkeypatch):
    paired_cells(60, 250).write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    arguments = ("sclinguist-train", "post-pretrain", "recipe.yaml", "-o", "run")
    monkeypatch.setattr(sys, "argv", list(arguments))
    with pytest.raises(SystemExit) as ended:
        train_cli.main()
    assert ended.value.code in (None, 0)
    capsys.readouterr()
    state = RunFolder("run").state_path
    state.write_bytes(pack(mark))
    for read in (read_state, state_step):
        with pytest.raises(InputError, match="as training state"):
            read(state)
    said = refusal(capsys, monkeypatch, train_cli.main, *arguments, "--resume")
    assert "as training state (safetensors)" in said
    assert "delete it and train from the start" in said


YAML = [
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/apply:builtins.open ['{mark}', 'w']",
    "!!python/object/new:subprocess.check_output [[touch, '{mark}']]",
    "!!python/name:os.system",
    "!!python/module:os",
]


@pytest.mark.parametrize("text", YAML)
def test_a_recipe_with_python_objects(tmp_path, mark, text, capsys, monkeypatch):
    text = text.format(mark=mark)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: {text}\n")
    with pytest.raises(InputError, match=r"recipe\.yaml: expected YAML"):
        read_recipe(recipe)
    said = refusal(capsys, monkeypatch, train_cli.main, "sclinguist-train", "pretrain-rna", recipe)
    assert "could not determine a constructor" in said
    recipe.write_text(RECIPE)
    with pytest.raises(InputError, match="expected a YAML value"):
        read_recipe(recipe, [f"fit.steps={text}"])


def test_a_recipe_of_a_run_with_python_objects(tmp_path, mark):
    run = RunFolder(tmp_path / "run")
    run.create(RECIPE, {"stage": "post-pretrain"}, resume=False)
    run.recipe_path.write_text(f"name: !!python/object/apply:builtins.open ['{mark}', 'w']\n")
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        run.create(RECIPE, {"stage": "post-pretrain"}, resume=True)


def test_held_out_predictions_with_objects(tmp_path, mark):
    arrays = {"names": np.array([Trap(mark)], dtype=object)}
    np.savez(tmp_path / "set.npz", allow_pickle=True, **arrays)
    with pytest.raises(InputError, match="expected held-out predictions"):
        read_held_out(tmp_path / "set.npz")
    (tmp_path / "set.npz").write_bytes(program(mark))
    with pytest.raises(InputError, match="expected held-out predictions"):
        read_held_out(tmp_path / "set.npz")


# --- sections ------------------------------------------------------------------------------------


@pytest.fixture
def table():
    table = paired_cells(30, 250)
    table.layers["counts"] = table.X.copy()
    table.uns["note"] = "x"
    return table


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.h5", "cells.zarr", "counts.mtx"])
def test_a_file_that_is_a_pickle(tmp_path, mark, name, capsys, monkeypatch):
    for pack in (program, torch_file):
        (tmp_path / name).write_bytes(pack(mark))
        with pytest.raises(InputError, match=name):
            open_section(tmp_path / name)
        output = tmp_path / "out.h5ad"
        said = refusal(
            capsys, monkeypatch, main, "sclinguist", "predict", tmp_path / name, "-o", output
        )
        assert name in said
        assert not output.exists()


def test_hdf5_that_holds_pickles_as_bytes(tmp_path, mark, table):
    """They are bytes like others: whether the file opens or not, nobody unpickles them."""
    path = tmp_path / "cells.h5ad"
    table.write_h5ad(path)
    opaque = np.void(program(mark))
    with h5py.File(path, "a") as file:
        file["uns"].attrs["pickled"] = opaque
        file["obs"].attrs["pickled"] = opaque
        file["X"].attrs["pickled"] = np.frombuffer(program(mark), np.uint8)
        del file["uns/note"]
        file["uns"].create_dataset("note", data=opaque)
        file["uns/note"].attrs["encoding-type"] = "array"
        file["uns/note"].attrs["encoding-version"] = "0.2.0"
    section = open_section(path)
    assert section.n_obs == 30
    assert bytes(section.table.uns["note"][()].tobytes()) == program(mark)


@pytest.mark.parametrize("encoding", ["pickle", "dataframe-pickle", "os.system", "object"])
def test_hdf5_whose_encoding_asks_for_more(tmp_path, mark, table, encoding):
    path = tmp_path / "cells.h5ad"
    table.write_h5ad(path)
    with h5py.File(path, "a") as file:
        file["uns/note"].attrs["encoding-type"] = encoding
        file["uns/note"].attrs["encoding-version"] = "0.1.0"
    with pytest.raises(InputError, match=r"cells\.h5ad"):
        open_section(path)


PICKLE_V2 = {"id": "pickle", "protocol": 5}
SPELLINGS = ['"pickle"', '"\\u0070ickle"', '"PICKLE"', '"numcodecs.pickle"']


def written(path, table, version):
    """Write a store; return the folder of an array in it."""
    settings = {"zarr_write_format": version, "auto_shard_zarr_v3": False}
    with ad.settings.override(**settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what anndata is going to change
        table.write_zarr(path)
    return path / "layers" / "counts" / "data"


def trapped_zarr_2(store, table, mark, spelling, place="filters", *, consolidated=False):
    """Write a store with an array whose only chunk is a pickle, and say so in its metadata."""
    array = written(store, table, 2)
    for chunk in array.iterdir():
        if not chunk.name.startswith("."):
            chunk.write_bytes(program(mark))
    path = store / ".zmetadata" if consolidated else array / ".zarray"
    if not consolidated:
        (store / ".zmetadata").unlink()
    content = json.loads(path.read_text())
    node = content["metadata"]["layers/counts/data/.zarray"] if consolidated else content
    node |= {"compressor": None, "filters": None}
    node[place] = ["CODEC"] if place == "filters" else "CODEC"
    text = json.dumps(content)
    path.write_text(text.replace('"CODEC"', f'{{"id": {spelling}, "protocol": 5}}'))


@pytest.fixture
def _old_numcodecs(monkeypatch):
    """Older releases have no such switch: they unpickle."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)


@pytest.mark.usefixtures("_old_numcodecs")
def test_the_traps_in_zarr_work(tmp_path):
    mark = tmp_path / "executed"
    numcodecs.get_codec({"id": "pickle"}).decode(program(mark))
    assert mark.exists()


@pytest.mark.usefixtures("_old_numcodecs")
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("place", ["filters", "compressor"])
@pytest.mark.parametrize("consolidated", [True, False])
def test_zarr_2_that_names_pickle_as_a_codec(tmp_path, mark, table, spelling, place, consolidated):
    store = tmp_path / "cells.zarr"
    trapped_zarr_2(store, table, mark, spelling, place, consolidated=consolidated)
    with pytest.raises(InputError, match="Python pickle"):
        open_section(store)


@pytest.mark.usefixtures("_old_numcodecs")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_zarr_3_that_names_pickle_as_a_codec(tmp_path, mark, table, spelling):
    store = tmp_path / "cells.zarr"
    array = written(store, table, 3)
    (array / "c" / "0").write_bytes(program(mark))
    path = array / "zarr.json"
    content = json.loads(path.read_text())
    content["codecs"] = [{"name": "CODEC", "configuration": {}}]
    path.write_text(json.dumps(content).replace('"CODEC"', spelling))
    with pytest.raises(InputError, match="Python pickle"):
        open_section(store)


@pytest.mark.usefixtures("_old_numcodecs")
def test_zarr_that_leads_to_pickles_elsewhere(tmp_path, mark, table):
    store, elsewhere = tmp_path / "cells.zarr", tmp_path / "elsewhere"
    array = written(store, table, 2)
    array.rename(elsewhere)
    content = json.loads((elsewhere / ".zarray").read_text())
    content |= {"compressor": None, "filters": [PICKLE_V2]}
    (elsewhere / ".zarray").write_text(json.dumps(content))
    (elsewhere / "0").write_bytes(program(mark))
    array.symlink_to(elsewhere)
    (store / ".zmetadata").unlink()
    with pytest.raises(InputError, match=r"cells\.zarr"):
        open_section(store)
