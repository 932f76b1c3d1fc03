"""What ``training/benchmarks/fuzz.py`` found once stays mended."""

from __future__ import annotations

import contextlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from faults.small import Small, write_tenx
from sclinguist_core.data.backed_section import BackedSection
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.readers.assemble import check_arrays
from sclinguist_core.data.readers.chunk_heads import check_chunks, check_codecs
from sclinguist_core.data.readers.mtx import read_mtx
from sclinguist_core.data.readers.zarr_check import check_zarr
from sclinguist_core.data.regions import categories_for, read_geojson, read_loupe_categories
from sclinguist_core.data.store.index import is_store
from sclinguist_core.data.write import check_output, write_table
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import checkpoint_folder
from sclinguist_core.train.antibody_table import read_antibody_table
from sclinguist_core.train.recipe import read_recipe
from sclinguist_core.train.sources import DataEntry


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small").mkdir()
    return Small(tmp_path / "small")


def test_written_out_a_message_stays_short():
    assert len(str(InputError("\u202e" * 10**6))) == 2_005


def test_numbers_of_thousands_of_digits_are_categories(tmp_path):
    path = tmp_path / "clusters.csv"
    path.write_text(f"Barcode,Cluster\nA-1,{'9' * 5_000}\nB-1,010\nC-1,9\n")
    found = categories_for(["A-1", "B-1", "C-1"], read_loupe_categories(path))
    assert found.categories.tolist() == ["9", "010", "9" * 5_000]


def test_features_that_are_no_list(tmp_path):
    path = tmp_path / "regions.geojson"
    path.write_text('{"type": "FeatureCollection", "features": 1.0}')
    with pytest.raises(InputError, match="holds no polygon"):
        read_geojson(path)


@pytest.mark.parametrize("text", ["name: " + "[" * 1_700, "a: {b: " * 60])
def test_deep_recipes_are_not_parsed_for_minutes(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="nested more than 50 deep"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("name", "says"),
    [("a" * 5_000 + ".h5ad", "too long"), ("a\0b.h5ad", "null"), ("\ud800.h5ad", "surrogates")],
)
def test_names_that_no_file_has(tmp_path, name, says):
    for use in (check_output, checkpoint_folder):
        with pytest.raises(InputError, match=says):
            use(tmp_path / name)
    assert not is_store(tmp_path / name)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_names_that_no_table_can_be_written_with(tmp_path, small, name):
    table = small.cells()
    table.obs_names = [name, *table.obs_names[1:]]
    with pytest.raises(InputError, match="nothing was changed; rename or remove"):
        write_table(table, tmp_path / "a.h5ad")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_repeated_names_that_end_in_numbers(tmp_path, small):
    table = small.cells()
    table.var_names = ["A", "A", "A-1", *table.var_names[3:]]
    section = open_section(write_tenx(tmp_path / "a.h5", table))
    assert section.table.var_names.is_unique


def test_pointers_below_zero(tmp_path, small):
    """Without entries by the last pointer, scipy trusts the others."""
    table = small.cells()
    pointers = table.X.indptr.copy()
    pointers[-1] = -pointers[-1]
    matrix = sparse.csr_matrix(table.shape, dtype=np.float32)
    matrix.data, matrix.indices, matrix.indptr = table.X.data, table.X.indices, pointers
    table.X = matrix
    with pytest.raises(InputError, match="pointers that fall"):
        check_arrays(table, tmp_path)


def test_pointers_that_fall_further_than_their_type_can_tell(tmp_path, small):
    """The difference of two numbers of 32 bits may not have room in 32 bits."""
    table = small.cells()
    table.X.indptr[4:6] = [-(2**31), -1]
    with pytest.raises(InputError, match="pointers that fall"):
        check_arrays(table, tmp_path)


@pytest.mark.parametrize("source", ["zarr", "zarr2"])
def test_features_that_are_no_table(tmp_path, small, source):
    path = small.copy(source, tmp_path)
    group = zarr.open_group(path, mode="a", use_consolidated=False)["var"]
    group.attrs.put({"encoding-type": "dict", "encoding-version": "0.1.0"})
    with pytest.raises(InputError, match="var is dict, expected a table"):
        BackedSection(path)


def test_folders_that_are_none_of_zarrs(tmp_path, small):
    """They are passed over without a warning."""
    path = small.copy("zarr", tmp_path)
    for folder in (path, path / "obs", path / "obsm"):
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir" / "thumb.jpg").write_bytes(b"")
    with BackedSection(path) as section:
        assert section.n_obs == small.cells().n_obs
    assert open_section(path).n_obs == small.cells().n_obs


@pytest.mark.parametrize(
    ("entries", "says"),
    [("1 1 1 7 8\n1 2 1", "Length of header"), ("1 1 1\n1 2", "NaN")],
)
def test_lines_of_unequal_length(tmp_path, entries, says):
    path = tmp_path / "matrix.mtx"
    path.write_text(f"%%MatrixMarket matrix coordinate integer general\n2 2 2\n{entries}\n")
    if says == "NaN":
        assert np.isnan(read_mtx(path).data).sum() == 1  # which is then no count
        return
    with pytest.raises(InputError, match=says):
        read_mtx(path)


@pytest.mark.parametrize("dtype", ["\ud800", "9" * 5_000, "(", "i4,i4"])
def test_types_that_numpy_would_read_as_python(tmp_path, dtype):
    array = {"zarr_format": 2, "shape": [3], "chunks": [3], "dtype": dtype}
    array["compressor"] = {"id": "zstd"}
    (tmp_path / ".zarray").write_text(json.dumps(array))
    (tmp_path / "0").write_bytes(b"")
    check_zarr(tmp_path)
    assert check_chunks(tmp_path, array, 12) == 0


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"compressor": {"id": "lzma"}}, "by 'lzma', expected blosc"),
        ({"filters": [{"id": "bz2"}]}, "by 'bz2'"),
        ({"codecs": [{"name": "bytes"}, {"name": "numcodecs.bz2"}]}, "by 'bz2'"),
        ({"codecs": [{"name": "gzip"}, {"name": "zstd"}]}, "by gzip and zstd, expected one"),
        ({"codecs": [{"id": "zstd", "name": "numcodecs.lzma"}]}, "by 'lzma'"),
        ({"compressor": {"id": "lzma", "name": "zstd"}}, "by 'lzma'"),
        ({"codecs": [{"name": "sharding_indexed", "configuration": {
            "codecs": ["bytes", {"name": "lzma"}], "index_codecs": ["bytes"]}}]}, "by 'lzma'"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}},
          "codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2],
            "codecs": ["bytes", {"name": "zstd"}], "index_codecs": ["bytes", "crc32c"]}}]}, ""),
        ({"compressor": None, "filters": [{"id": "vlen-utf8"}]}, ""),
        ({"compressor": {"id": "blosc"}, "filters": [{"id": "shuffle"}]}, ""),
    ],
)  # fmt: skip
def test_codecs_that_unpack_to_any_size(tmp_path, node, says):
    (tmp_path / "zarr.json").write_text(json.dumps(node))
    if says:
        with pytest.raises(InputError, match=says):
            check_zarr(tmp_path)
    else:
        check_zarr(tmp_path)
        assert check_codecs(node, tmp_path) is None


@pytest.mark.parametrize("codec", ["gzip", "zlib"])
def test_honest_chunks_of_gzip(tmp_path, codec):
    import gzip
    import zlib

    values = np.random.default_rng(0).integers(0, 16, 2**20, dtype=np.uint8)
    array = {
        "zarr_format": 2, "shape": [2**20], "chunks": [2**20], "dtype": "|u1",
        "compressor": {"id": codec},
    }  # fmt: skip
    pack = gzip.compress if codec == "gzip" else zlib.compress
    (tmp_path / "0").write_bytes(pack(values.tobytes()))
    assert check_chunks(tmp_path, array, 2**20) == 2**20
    with pytest.raises(InputError, match="unpacks to"):
        check_chunks(tmp_path, array, 2**18)


def test_metadata_without_the_kind_of_a_node(small, tmp_path):
    path = small.copy("zarr", tmp_path)
    layers = path / "layers" / "zarr.json"
    layers.write_text(json.dumps(json.loads(layers.read_text()) | {"node_type": "odd"}))
    with pytest.raises(InputError, match="cannot be read as AnnData"):
        BackedSection(path)


def test_a_path_without_a_name_is_written_as_it_was_given():
    assert DataEntry(path="/").to_plain() == "/"


def test_a_spatialdata_store_of_an_older_format_is_read_without_advice(tmp_path, small):
    path = small.copy("spatialdata", tmp_path)
    metadata = path / "zarr.json"
    content = json.loads(metadata.read_text())
    content["attributes"]["spatialdata_attrs"]["version"] = "0.1"
    metadata.write_text(json.dumps(content))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with contextlib.suppress(InputError):
            open_section(path)
    assert [str(each.message) for each in said if "most current" in str(each.message)] == []


def test_batches_called_by_numbers_are_left_out():
    """YAML reads a bare 3 as a number; the batch is called "3"."""
    entry = DataEntry(path="a.h5ad", batch_key="donor", same_cells_as={3: "b"})
    assert entry.left_out_with(["b"]) == (False, ("3",))
    assert DataEntry(path="a.h5ad", same_cells_as=[7]).left_out_with(["7"]) == (True, ())


def test_infinite_antibody_counts(tmp_path):
    path = tmp_path / "adt.csv"
    pd.DataFrame({"CD3": [1.0, np.inf], "CD4": [2.0, np.nan]}, index=["a", "b"]).to_csv(path)
    with pytest.raises(InputError, match="negative or infinite"):
        read_antibody_table(DataEntry(path=str(path)))
