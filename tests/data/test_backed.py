"""Tables that stay on disk: read in rows, judged by a sample and again by every block."""

from __future__ import annotations

import json
import os
import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from sclinguist_core.data import backed_section
from sclinguist_core.data.backed_section import BackedSection
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.write import write_table, zarr_as_we_write
from sclinguist_core.data.write_stream import PartWriter
from sclinguist_core.errors import InputError
from synthetic import paired_cells


@pytest.fixture(params=["h5ad", "zarr"])
def suffix(request):
    return request.param


def written(cells, path):
    """Write without compression, so that values can be changed in their place."""
    if path.suffix == ".zarr":
        with zarr_as_we_write():
            cells.write_zarr(path)
    else:
        cells.write_h5ad(path)
    return path


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64, np.int64])
def test_rows_are_those_of_the_table(tmp_path, suffix, kind, dtype):
    cells = paired_cells(60)
    cells.X = sparse.csr_matrix(cells.X, dtype=dtype)
    if kind == "dense":
        cells.X = cells.X.toarray()
    path = written(cells, tmp_path / f"cells.{suffix}")
    expected = open_section(path).rna()
    with BackedSection(path) as section:
        rna = section.rna()
        assert section.n_obs == 60
        assert not section.is_spatial
        np.testing.assert_array_equal(rna.names, expected.names)
        assert rna.counts.shape == expected.counts.shape
        for rows in (slice(0, 60), slice(17, 18), slice(30, 30), np.array([3, 3, 59])):
            found = rna.counts[rows]
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found.toarray(), expected.counts[rows].toarray())


@pytest.mark.parametrize("key", ["uns/spatial/slide_7/images/hires", "obsm/spatial"])
def test_small_elements_that_state_to_be_large(tmp_path, key):
    """Images are not read at all; of positions the size is looked at first."""
    cells = paired_cells(60)
    cells.obsm["spatial"] = np.random.default_rng(0).uniform(0, 1_000, (60, 2))
    cells.uns["spatial"] = {
        "slide_7": {
            "images": {"hires": np.zeros((2, 2))},
            "scalefactors": {"tissue_hires_scalef": 1.0},
        }
    }
    path = written(cells, tmp_path / "cells.h5ad")
    with h5py.File(path, "a") as file:
        attributes = dict(file[key].attrs)
        del file[key]
        file.create_dataset(key, shape=(60, 10**9), chunks=(1, 10**4), dtype="f8")
        file[key].attrs.update(attributes)
    if key.startswith("uns"):
        with BackedSection(path) as section:
            assert section.name == "slide_7"
            assert section.is_spatial
            assert "outside the image 'hires' (1000000000 x 60 pixels)" in section.warnings[0]
    else:
        with pytest.raises(InputError, match=r"states that it holds 447\.0 GiB"):
            BackedSection(path)


def test_what_a_section_says_is_what_it_says_in_memory(tmp_path, suffix):
    cells = paired_cells(60)
    rng = np.random.default_rng(0)
    cells.obsm["X_spatial"] = rng.uniform(0, 1_000, (60, 3))
    cells.uns["spatial"] = {
        "slide_7": {
            "images": {"hires": rng.random((20, 30, 3))},
            "scalefactors": {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": 90.0},
        }
    }
    cells.layers["counts"] = cells.X
    cells.X = cells.X.log1p()
    path = written(cells, tmp_path / f"cells.{suffix}")
    expected = open_section(path)
    with BackedSection(path) as section:
        assert section.name == expected.name == "slide_7"
        assert section.is_spatial
        assert section.assay == expected.assay == "visium"
        assert section.counts_location == expected.counts_location == "layers/counts"
        assert section.warnings == expected.warnings
        assert len(section.warnings) == 3


def test_genes_alone_are_read(tmp_path, suffix):
    cells = paired_cells(60)
    cells.var["feature_types"] = ["Antibody Capture"] * 3 + ["Gene Expression"] * 397
    cells.var["gene_ids"] = [f"ENSG{number:011d}" for number in range(400)]
    measured = np.ones((60, 400), bool)
    measured[:30, 100:] = False
    counts = cells.X.toarray()
    counts[~measured] = 0
    counts[:, 0] = -1  # antibodies are not judged
    cells.X = sparse.csr_matrix(counts)
    cells.layers["measured"] = sparse.csr_matrix(measured)
    path = written(cells, tmp_path / f"cells.{suffix}")
    expected = open_section(path).rna()
    with BackedSection(path) as section:
        rna = section.rna()
    with BackedSection(path) as section:
        rna = section.rna()
        assert rna.counts.shape == (60, 397)
        np.testing.assert_array_equal(rna.ids, expected.ids)
        np.testing.assert_array_equal(
            rna.counts[slice(20, 40)].toarray(), expected.counts[20:40].toarray()
        )
        for rows in (slice(20, 40), np.array([29, 30])):
            mask = rna.measured[rows].toarray()
            np.testing.assert_array_equal(mask, expected.measured[rows].toarray())


def test_counts_are_judged_by_blocks_from_first_to_last(tmp_path, monkeypatch):
    monkeypatch.setattr(backed_section, "_SAMPLE_VALUES", 500)
    cells = paired_cells(200)
    cells.X.data[-1] = np.nan
    path = written(cells, tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match=r"No raw counts.*X holds 1 values that are NaN"):
        BackedSection(path)
    cells.layers["raw_counts"] = paired_cells(200).X
    with BackedSection(written(cells, tmp_path / "layer.h5ad")) as section:
        assert section.counts_location == "layers/raw_counts"
    with pytest.raises(InputError, match=r"Layer 'X' of .* holds 1 values that are NaN"):
        BackedSection(tmp_path / "layer.h5ad", layer="X")


@pytest.mark.parametrize(
    ("value", "found"), [(-2.0, "negative values"), (np.inf, "NaN or infinite")]
)
def test_every_block_is_judged_when_it_is_read(tmp_path, monkeypatch, value, found):
    monkeypatch.setattr(backed_section, "_SAMPLE_BLOCKS", 2)
    monkeypatch.setattr(backed_section, "_SAMPLE_VALUES", 500)
    cells = paired_cells(200)
    path = written(cells, tmp_path / "cells.h5ad")
    with h5py.File(path, "a") as file:
        file["X"]["data"][cells.X.indptr[90]] = value
    with BackedSection(path) as section:
        counts = section.rna().counts
        assert counts[slice(0, 90)].nnz == cells.X.indptr[90]
        with pytest.raises(InputError, match=rf"{found}.* in rows 90 to 90 \(of 200"):
            _ = counts[slice(80, 120)]
        assert counts[slice(91, 200)].shape == (109, 400)


def test_estimated_counts_are_rounded_and_told(tmp_path):
    cells = paired_cells(200)
    cells.X.data[::3] += 0.25
    with BackedSection(written(cells, tmp_path / "cells.h5ad")) as section:
        assert "fractional in 33" in section.warnings[0]
        counts = section.rna().counts
        assert (counts[slice(0, 50)] != cells.X[:50].rint()).nnz == 0
        assert counts.n_rounded == 1


def test_names_that_repeat(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(backed_section, "_NAMES_AT_ONCE", 16)
    cells = paired_cells(60)
    del cells.obsm["protein"]
    names = cells.obs_names.to_numpy(dtype=object).copy()
    names[50] = names[3]
    cells.obs.index = pd.Index(names)
    path = written(cells, tmp_path / f"cells.{suffix}")
    with pytest.raises(InputError, match=r"names 1 barcode.*more than once, such as cells-3"):
        BackedSection(path)


def test_several_sections_in_one_table(tmp_path):
    cells = paired_cells(60)
    cells.obs["slide"] = ["a", "b"] * 30
    cells.obsm["spatial"] = np.random.default_rng(0).uniform(0, 9, (60, 2))
    cells.uns["spatial"] = {"a": {"images": {}}, "b": {"images": {}}}
    with pytest.raises(InputError, match=r"holds 2 sections \(a, b\)"):
        BackedSection(written(cells, tmp_path / "cells.h5ad"))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda x: x["indptr"].__setitem__(5, 10**6), "is damaged: its rows"),
        (lambda x: x["indices"].__setitem__(3, 400), "name columns beyond its 400"),
        (lambda x: x["indices"].__setitem__(3, -1), "name columns beyond its 400"),
    ],
)
def test_rows_that_do_not_fit(tmp_path, break_it, message):
    path = written(paired_cells(60), tmp_path / "cells.h5ad")
    with h5py.File(path, "a") as file:
        break_it(file["X"])
    with pytest.raises(InputError, match=message):
        BackedSection(path)


def test_an_empty_table(tmp_path):
    path = written(paired_cells(60)[:0], tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match="is empty: 0 barcodes x 400 features"):
        BackedSection(path)


def test_an_input_is_known_again(tmp_path, suffix):
    path = written(paired_cells(60), tmp_path / f"cells.{suffix}")

    def known():
        with BackedSection(path) as section:
            return json.dumps(section.fingerprint())

    first = known()
    assert known() == first
    other = paired_cells(60)
    other.X.data[0] += 1
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    written(other, path)
    assert known() != first
    # The time alone is enough.
    second = known()
    changed = path / "zarr.json" if path.is_dir() else path
    os.utime(changed, ns=(0, 10**18))
    assert known() != second


def everything() -> ad.AnnData:
    cells = paired_cells(40)
    cells.obs["kind"] = pd.Categorical(["a", "b"] * 20, ordered=True)
    cells.obs["text"] = [f"é{row}" for row in range(40)]
    cells.obs["gaps"] = pd.array([1, None] * 20, dtype="Int64")
    cells.obs["maybe"] = pd.array([True, None] * 20, dtype="boolean")
    cells.var["mean"] = np.linspace(0, 1, 400)
    cells.obsm["sparse"] = sparse.random(40, 9, 0.3, "csc", random_state=0)
    cells.obsm["dense"] = np.arange(80.0).reshape(40, 2)
    cells.obsm["cube"] = np.arange(240).reshape(40, 3, 2)
    cells.varm["loadings"] = np.ones((400, 2), np.float32)
    cells.layers["dense"] = cells.X.toarray()
    cells.obsp["near"] = sparse.random(40, 40, 0.1, "csr", random_state=0)
    cells.raw = cells[:, :200].copy()
    cells.uns.update(
        text="x", number=3, real=1.5, flag=True, none=None, empty=[], words=["a", "b"],
        frame=pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), nested={"deep": {"deeper": np.ones(3)}},
    )  # fmt: skip
    return cells


@pytest.mark.parametrize("target", ["h5ad", "zarr"])
def test_a_copy_holds_what_the_table_held(tmp_path, suffix, target):
    from anndata.tests.helpers import assert_equal

    path = written(everything(), tmp_path / f"cells.{suffix}")
    with (
        backed_section.BackedTable(path) as source,
        PartWriter(source, tmp_path / f"copy.{target}") as writer,
    ):
        writer.finish()
    read = {"h5ad": ad.read_h5ad, "zarr": ad.read_zarr}
    expected = read[suffix](path)
    found = read[target](tmp_path / f"copy.{target}")
    assert_equal(found, expected, exact=True)
    assert found.uns["frame"].equals(expected.uns["frame"])


def test_a_frame_of_very_many_columns(tmp_path, suffix):
    path = written(paired_cells(40), tmp_path / f"cells.{suffix}")
    names = [f"a protein with a long name, number {number}" for number in range(3_000)]
    out = tmp_path / f"wide.{suffix}"
    with (
        backed_section.BackedTable(path) as source,
        PartWriter(source, out, leave_out=["X", "obsm/protein"]) as writer,
    ):
        for number, column in enumerate(writer.add_frame("wide", names)):
            column[0:40] = np.full(40, number, np.float32)
        writer.finish()
    found = (ad.read_zarr if suffix == "zarr" else ad.read_h5ad)(out)
    assert found.obsm["wide"].columns.tolist() == names
    np.testing.assert_array_equal(found.obsm["wide"].iloc[7], np.arange(3_000))
    assert list(found.obsm) == ["wide"]
    assert found.X is None


def test_changing_a_copy_leaves_the_input_alone(tmp_path):
    path = write_table(paired_cells(40), tmp_path / "cells.zarr")
    with (
        backed_section.BackedTable(path) as source,
        PartWriter(source, tmp_path / "copy.zarr") as writer,
    ):
        writer.finish()
    before = zarr.open_group(path, mode="r")["X"]["data"][:]
    copy = zarr.open_group(tmp_path / "copy.zarr", mode="a")
    copy["X"]["data"][:] = 7
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["X"]["data"][:], before)
