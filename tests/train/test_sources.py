from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclinguist_core.errors import InputError
from sclinguist_core.train.recipe import Recipe
from sclinguist_core.train.sources import DataEntry, open_entry, read_entry
from sclinguist_core.train.training_sections import open_training_sections
from synthetic import paired_cells


@pytest.fixture
def cells():
    return paired_cells(60)


def opened(adata, folder, **options):
    path = folder / "cells.h5ad"
    adata.write_h5ad(path)
    (section,) = open_entry(DataEntry(path=str(path), **options))
    return section


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/pbmc.h5ad", "pbmc"), ("/a/adt.v2.csv.gz", "adt.v2"), ("/a/b.TSV", "b"),
     ("/a/cells.zarr", "cells"), ("/a/section/outs", "outs")],
)  # fmt: skip
def test_name_of_a_data_set_is_that_of_its_file(path, name):
    assert DataEntry(path=path).name == name
    assert DataEntry(path=path, name="other").name == "other"


def test_entries_read_what_they_write(tmp_path):
    entry = DataEntry(
        path="/a/b.h5ad", layer="raw", batch_key="donor", same_cells_as={"one": "pbmc"}
    )
    written = entry.to_plain()
    assert written == {
        "path": "/a/b.h5ad", "layer": "raw", "batch_key": "donor", "same_cells_as": {"one": "pbmc"},
    }  # fmt: skip
    assert read_entry(written, tmp_path / "recipe.yaml", "paired") == entry
    assert DataEntry(path="/a/b.h5ad").to_plain() == "/a/b.h5ad"


def test_layer_with_raw_counts(cells, tmp_path):
    wanted = cells.X.copy()
    cells.layers["molecules"] = wanted
    cells.layers["counts"] = wanted * 2  # would be found by itself
    cells.X = np.log1p(cells.X)
    section = opened(cells, tmp_path, layer="molecules")
    assert section.rna().counts.sum() == wanted.sum()


def test_key_of_the_antibody_counts(cells, tmp_path):
    wanted = cells.obsm["protein"]
    cells.obsm["adt"] = wanted
    cells.obsm["protein"] = wanted + 1
    section = opened(cells, tmp_path, protein_key="adt")
    pd.testing.assert_frame_equal(section.table.obsm["protein"], wanted, check_names=False)
    assert section.table.uns["protein_panel"].loc["IgG1", "isotype"]


def test_column_with_gene_symbols(cells, tmp_path):
    symbols = cells.var_names.to_numpy(str)
    cells.var["symbol"] = symbols
    cells.var_names = [f"feature{i}" for i in range(cells.n_vars)]
    section = opened(cells, tmp_path, gene_column="symbol")
    assert section.rna().names.tolist() == symbols.tolist()


def test_genes_that_some_cells_did_not_measure(cells, tmp_path):
    measured = np.ones(cells.shape, bool)
    measured[:20, 0] = False
    cells.X = cells.X.multiply(measured).tocsr()
    cells.layers["seen"] = sparse.csr_matrix(measured)
    found = opened(cells, tmp_path, measured_layer="seen").rna().measured
    np.testing.assert_array_equal(np.asarray(found.todense(), bool), measured)


def test_batches_are_data_sets_of_their_own(cells, tmp_path):
    cells.obs["donor"] = np.repeat(["d2", "d1"], [40, 20])
    cells.write_h5ad(tmp_path / "cells.h5ad")
    one, two = open_entry(DataEntry(path=str(tmp_path / "cells.h5ad"), batch_key="donor"))
    assert (one.name, one.n_obs) == ("cells/d1", 20)
    assert (two.name, two.n_obs) == ("cells/d2", 40)
    assert two.rna().counts.sum() == cells.X[:40].sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protein_key": "adt"}, r"protein_key 'adt' is not in obsm, which holds protein\."),
        ({"gene_column": "symbol"}, r"gene_column 'symbol' is not in var, which holds nothing\."),
        ({"measured_layer": "seen"}, "measured_layer 'seen' is not in layers"),
        ({"batch_key": "donor"}, r"batch_key 'donor' is not in obs, which holds no column\."),
        ({"transpose": True}, "the option transpose is for CSV or TSV; leave it out"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(cells, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        opened(cells, tmp_path, **options)


def test_other_formats_and_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"protein_key is for \.h5ad or \.zarr"):
        open_entry(DataEntry(path=str(tmp_path / "a.csv"), protein_key="adt"))
    with pytest.raises(InputError, match="no such file"):
        open_entry(DataEntry(path=str(tmp_path / "a.h5ad"), protein_key="adt"))


def test_a_mapping_of_batches_needs_batches():
    with pytest.raises(ValueError, match="same_cells_as: a mapping of batches needs batch_key"):
        DataEntry(path="a.csv", same_cells_as={"one": "pbmc"})


@pytest.fixture
def recipe(tmp_path):
    """Paired sets a, b and c; tables that hold a's proteins again, one of them beside others'."""
    entries = {}
    for i, name in enumerate("abc"):
        cells = paired_cells(40, seed=i, name=name)
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
        entries[name] = DataEntry(path=str(tmp_path / f"{name}.h5ad"))
    table = cells.obsm["protein"]
    table.to_csv(tmp_path / "a_again.csv")
    table.assign(study=np.repeat(["x", "y"], 20)).to_csv(tmp_path / "studies.csv")
    table.to_csv(tmp_path / "others.csv")
    protein = (
        DataEntry(path=str(tmp_path / "a_again.csv"), same_cells_as=("a",)),
        DataEntry(path=str(tmp_path / "studies.csv"), batch_key="study", same_cells_as={"x": "a"}),
        DataEntry(path=str(tmp_path / "others.csv")),
    )
    return Recipe(
        name="x",
        paired=(entries["a"], entries["b"]),
        validate=(entries["c"],),
        protein=protein,
    )


def names(sections):
    return [section.name for section in sections]


def test_everything_is_opened(recipe):
    found = open_training_sections(recipe, unpaired=("protein",))
    assert names(found.paired) == ["a", "b"]
    assert names(found.protein) == ["a_again", "studies/x", "studies/y", "others"]
    assert names(found.validate) == ["c"]
    assert found.names == ("a", "b", "a_again", "studies", "others")


def test_an_entry_of_several_batches_is_held_out_by_its_own_name(recipe):
    found = open_training_sections(recipe, ["studies"], unpaired=("protein",))
    assert names(found.protein) == ["a_again", "others"]


def test_a_held_out_set_takes_its_antibody_rows_with_it(recipe):
    found = open_training_sections(recipe, ["a"], unpaired=("protein",))
    assert names(found.paired) == ["b"]
    assert names(found.protein) == ["studies/y", "others"]


def test_so_does_a_set_that_is_scored(recipe):
    a, b = recipe.paired
    scored = replace(recipe, paired=(b,), validate=(a,))
    found = open_training_sections(scored, unpaired=("protein",))
    assert names(found.protein) == ["studies/y", "others"]
    assert names(found.validate) == ["a"]


def test_an_earlier_stage_may_not_have_seen_what_is_left_out(recipe, tmp_path):
    from sclinguist_core.model.architectures import build_translator
    from sclinguist_core.model.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
    from sclinguist_core.model.config import TranslatorConfig

    config = TranslatorConfig(gene_dim=4, width=4, n_latents=2, n_heads=2, n_layers=1)
    genes = pd.DataFrame(
        {"symbol": ["CD3E"], "ensembl_id": "", "reference_share": 1.0, "mean": 1.0, "std": 1.0}
    )
    proteins = pd.DataFrame({"name": ["CD3"], "genes": "CD3E", "kind": "protein"})
    info = CheckpointInfo(
        name="x", model=config, stage="pretrain-protein", training_datasets=("a_again", "others")
    )
    model = build_translator(config, genes, proteins)
    save_checkpoint(
        Checkpoint(model=model, info=info, genes=genes, proteins=proteins, card=""),
        tmp_path / "earlier",
    )
    started = replace(recipe, init={"protein": str(tmp_path / "earlier")})
    assert open_training_sections(started).names == ("a", "b", "a_again", "others")
    with pytest.raises(InputError, match="was trained on a_again, which is held out"):
        open_training_sections(started, ["a"])


def test_an_unknown_hold_out_is_refused(recipe):
    with pytest.raises(InputError, match=r"'d': not in the recipe, expected one of a, b,"):
        open_training_sections(recipe, ["d"])


def test_an_entry_works_as_a_path(tmp_path):
    ad.AnnData(np.ones((2, 2), np.float32)).write_h5ad(tmp_path / "a.h5ad")
    entry = DataEntry(path=str(tmp_path / "a.h5ad"))
    assert ad.read_h5ad(entry).shape == (2, 2)
