"""Tables are written completely or not at all."""

from __future__ import annotations

import errno
import os
import stat

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from sclinguist_core.data.readers import open_section
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    names = [f"cell{i}" for i in range(40)]
    adata = AnnData(
        sparse.csr_matrix(rng.poisson(1.0, (40, 30)).astype(np.float32)),
        obs=pd.DataFrame({"region": ["a", "b"] * 20}, index=names),
        var=pd.DataFrame(index=[f"GENE{i}" for i in range(30)]),
    )
    adata.obsm["protein_predicted"] = pd.DataFrame(
        rng.normal(size=(40, 2)).astype(np.float32), index=names, columns=["CD3", "HLA-DR"]
    )
    adata.uns["sclinguist"] = {"unit": "SD of the reference", "model": "bundled"}
    return adata


def read(path):
    return anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)


@pytest.mark.parametrize("name", ["out.h5ad", "out.zarr", "OUT.H5AD"])
def test_round_trip(tmp_path, table, name):
    path = write_table(table, tmp_path / name)
    assert path == tmp_path / name
    assert os.listdir(tmp_path) == [name]
    if path.suffix.islower():
        back = read(path)
        np.testing.assert_array_equal(back.X.toarray(), table.X.toarray())
        pd.testing.assert_frame_equal(
            back.obsm["protein_predicted"], table.obsm["protein_predicted"]
        )
        assert back.uns["sclinguist"]["unit"] == "SD of the reference"


@pytest.mark.skipif(os.name == "nt", reason="Windows itself does what is made up here")
@pytest.mark.parametrize("name", ["out.h5ad", "out.zarr"])
def test_files_are_open_for_writing_when_they_are_brought_to_the_disk(
    tmp_path, table, name, monkeypatch
):
    import fcntl

    synced = []

    def sync_as_on_windows(handle):
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        if not is_folder and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        synced.append(is_folder)

    monkeypatch.setattr(os, "fsync", sync_as_on_windows)
    back = read(write_table(table, tmp_path / name))
    np.testing.assert_array_equal(back.X.toarray(), table.X.toarray())
    assert synced.count(False) >= 1
    assert synced.count(True) >= 1


@pytest.mark.parametrize("name", ["out.h5ad", "out.zarr"])
def test_written_predictions_open_as_a_section(tmp_path, table, name):
    section = open_section(write_table(table, tmp_path / name))
    assert section.name == "out"
    assert section.n_obs == 40
    assert section.table.obsm["protein_predicted"].columns.tolist() == ["CD3", "HLA-DR"]
    assert section.table.uns["sclinguist"]["model"] == "bundled"
    assert not section.has_protein


def test_the_table_in_memory_is_not_changed(tmp_path, table):
    write_table(table, tmp_path / "out.h5ad")
    assert table.obs["region"].dtype == object


@pytest.mark.parametrize("name", ["out.h5ad", "out.zarr"])
def test_an_old_one_is_replaced(tmp_path, table, name):
    write_table(table, tmp_path / name)
    write_table(table[:5].copy(), tmp_path / name)
    assert read(tmp_path / name).n_obs == 5
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["out.h5ad", "out.zarr"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_nothing_changes_when_writing_breaks_off(tmp_path, table, name, error, monkeypatch):
    write_table(table, tmp_path / name)

    def broken(self, store, *args, **kwargs):
        os.makedirs(os.path.dirname(store), exist_ok=True)
        with open(f"{store}.half", "wb") as file:
            file.write(b"half")
        raise error("no space left")

    monkeypatch.setattr("sclinguist_core.data.write._write_h5ad", broken)
    monkeypatch.setattr(AnnData, "write_zarr", broken)
    expected = InputError if error is OSError else error
    with pytest.raises(expected, match="no space left"):
        write_table(table[:5].copy(), tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert read(tmp_path / name).n_obs == 40


def test_an_old_zarr_comes_back_when_the_last_step_fails(tmp_path, table, monkeypatch):
    path = write_table(table, tmp_path / "out.zarr")
    monkeypatch.setattr("sclinguist_core.files._swap", lambda *_: False)
    real = os.replace

    def replace(source, target):
        if str(target) == str(path) and "/old/" not in str(source):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_table(table[:5].copy(), path)
    assert os.listdir(tmp_path) == ["out.zarr"]
    assert read(path).n_obs == 40


@pytest.mark.parametrize("name", ["out.csv", "out", "out.h5", "out.h5ad.gz"])
def test_other_suffixes_are_refused(tmp_path, table, name):
    with pytest.raises(InputError, match=r"expected \.h5ad or \.zarr"):
        write_table(table, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_targets_that_are_something_else(tmp_path, table):
    (tmp_path / "folder.h5ad").mkdir()
    (tmp_path / "notes.zarr").mkdir()
    (tmp_path / "notes.zarr" / "thesis.txt").write_text("years of work")
    (tmp_path / "file.zarr").write_text("")
    for name in ("folder.h5ad", "notes.zarr", "file.zarr", "missing/out.h5ad"):
        with pytest.raises(InputError, match="Cannot write"):
            write_table(table, tmp_path / name)
    assert (tmp_path / "notes.zarr" / "thesis.txt").read_text() == "years of work"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_keeps_pointing_to_its_file(tmp_path, table):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.h5ad").symlink_to(tmp_path / "disk" / "real.h5ad")
    write_table(table, tmp_path / "out.h5ad")
    assert (tmp_path / "out.h5ad").is_symlink()
    assert anndata.read_h5ad(tmp_path / "disk" / "real.h5ad").n_obs == 40


def test_a_spatialdata_store_is_not_replaced_by_a_table(table, tmp_path):
    import zarr

    root = zarr.open_group(tmp_path / "section.zarr", mode="w")
    root.attrs["spatialdata_attrs"] = {"version": "0.2"}
    root.create_group("images")
    with pytest.raises(InputError, match="no AnnData table"):
        write_table(table, tmp_path / "section.zarr")
    assert (tmp_path / "section.zarr" / "images").is_dir()
