"""10x matrices, Visium HD, Xenium, and paths that are none of all."""

from __future__ import annotations

import gzip
import json

import h5py
import numpy as np
import pandas as pd
import pytest

from sclinguist_core.data.readers import open_section, open_sections
from sclinguist_core.data.readers.mtx import read_mtx
from sclinguist_core.errors import InputError


@pytest.fixture
def write_cells(write_outs):
    """Cell Ranger output: the same without positions."""
    import shutil

    def write(counts, **kwargs):
        truth = write_outs(counts=counts, images=(), **kwargs)
        shutil.rmtree(truth.folder / "spatial")
        return truth

    return write


@pytest.mark.parametrize(
    ("counts", "inside"),
    [
        ("filtered.h5", ""),
        ("filtered.h5", "filtered_feature_bc_matrix.h5"),
        ("filtered.mtxgz", ""),
        ("filtered.mtxgz", "filtered_feature_bc_matrix"),
        ("filtered.mtx", "filtered_feature_bc_matrix/barcodes.tsv"),
    ],
)
def test_cells_of_cell_ranger(write_cells, counts, inside):
    truth = write_cells(counts)
    section = open_section(truth.folder / inside)
    assert (section.name, section.assay) == ("sample", "cells")
    assert not section.is_spatial
    np.testing.assert_array_equal(section.table.X.toarray(), truth.counts)
    np.testing.assert_array_equal(
        section.table.obsm["protein"].to_numpy(), truth.counts[:, ~truth.genes]
    )
    assert section.warnings == ()


def test_old_h5_with_one_group_a_genome(write_cells):
    truth = write_cells("filtered.v2", antibodies=False)
    path = truth.folder / "filtered_feature_bc_matrix.h5"
    section = open_section(path)
    np.testing.assert_array_equal(section.rna().counts.toarray(), truth.counts)
    assert section.rna().ids.tolist() == truth.ids
    with h5py.File(path, "a") as file:
        file.copy("GRCh38", "mm10")
    with pytest.raises(InputError, match=r"2 genomes \(GRCh38, mm10\)"):
        open_section(path)


def test_raw_matrix_of_droplets_is_told(write_cells):
    section = open_section(write_cells("raw.h5").folder)
    assert "most of them empty droplets" in section.warnings[0]


def test_h5_of_something_else(tmp_path):
    path = tmp_path / "results.h5"
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(InputError, match=r"results\.h5' is no 10x matrix.*found weights"):
        open_section(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        open_section(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("indptr", slice(None, -1)),
        ("indices", None),
        ("shape", None),
        ("barcodes", slice(None, -1)),
    ],
)
def test_h5_whose_parts_do_not_fit(write_cells, key, value):
    truth = write_cells("filtered.h5")
    path = truth.folder / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "a") as file:
        content = file["matrix"][key][:]
        del file["matrix"][key]
        file["matrix"][key] = content[value] if value else content + 5
    with pytest.raises(InputError, match="the file is inconsistent"):
        open_section(path)


def test_h5_with_text_that_is_none(write_cells):
    truth = write_cells("filtered.h5")
    path = truth.folder / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "a") as file:
        barcodes = file["matrix/barcodes"][:]
        barcodes[0] = b"\xff\xfe\x9c"
        file["matrix/barcodes"][:] = barcodes
    with pytest.raises(InputError, match="cannot be read as a 10x matrix"):
        open_section(path)


# --- Matrix Market -------------------------------------------------------------------------------

HEADER = "%%MatrixMarket matrix coordinate integer general\n"


@pytest.mark.parametrize(
    "content",
    [
        HEADER + "3 2 3\n1 1 4\n3 1 5\n2 2 6\n",
        HEADER
        + '%metadata_json: {"software_version": "2.1.0"}\n% more\n3 2 3\n1\t1\t4\n3 1  5\n2 2 6',
        HEADER.replace("integer", "real") + "3 2 3\n1 1 4.0\n3 1 5e0\n2 2 6\n",
        HEADER + "3 2 4\n1 1 4\n3 1 5\n2 2 2\n2 2 4\n",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_matrix_market(tmp_path, content, packed):
    path = tmp_path / ("matrix.mtx.gz" if packed else "matrix.mtx")
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    matrix = read_mtx(path)
    assert matrix.dtype == np.float32
    assert matrix.toarray().tolist() == [[4, 0, 5], [0, 6, 0]]


def test_matrix_market_without_values_or_entries(tmp_path):
    path = tmp_path / "matrix.mtx"
    path.write_text(HEADER.replace("integer", "pattern") + "3 2 2\n1 1\n3 2\n")
    assert read_mtx(path).toarray().tolist() == [[1, 0, 0], [0, 0, 1]]
    path.write_text("%%MatrixMarket matrix coordinate pattern symmetric\n3 3 0\n")
    assert read_mtx(path).shape == (3, 3)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "is no sparse Matrix Market file"),
        ("1 1 4\n", "its first line is '1 1 4'"),
        ("%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n4\n", "is no sparse"),
        (HEADER, "no three numbers"),
        (HEADER + "3 2 3\n1 1 4\n", "1 of 3 entries"),
        (HEADER + "3 2 1\n4 1 4\n", "beyond its size of 3 x 2"),
        (HEADER + "3 2 1\n0 1 4\n", "beyond its size of 3 x 2"),
        (HEADER + "3 2 2\n1 1 4\n1 two 4\n", "cannot be read as a Matrix Market file"),
        (HEADER + "3 2 2\n1 1 4\n\0\0\0\0\0\0\0\0", "damaged or not complete"),
        (HEADER.replace("general", "symmetric") + "3 3 1\n1 1 4\n", "symmetric matrix"),
    ],
)
def test_damaged_matrix_market(tmp_path, content, found):
    path = tmp_path / "matrix.mtx"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_mtx(path)
    assert found in str(error.value)
    assert str(path) in str(error.value)


# --- Visium HD -----------------------------------------------------------------------------------


@pytest.fixture
def write_hd(write_outs):
    def write(*sizes):
        truths = {}
        for size in sizes:
            truth = write_outs(
                f"mouse/outs/binned_outputs/square_{size:03d}um",
                positions="parquet",
                scalefactors={
                    "microns_per_pixel": 0.5,
                    "bin_size_um": float(size),
                    "spot_diameter_fullres": size / 0.5,
                },
                seed=size,
            )
            truths[size] = truth
        return truths

    return write


@pytest.mark.parametrize(
    ("sizes", "asked", "expected"),
    [((2, 8, 16), None, 8), ((2, 16), None, 16), ((2, 8, 16), 16, 16), ((2, 8, 16), 2, 2)],
)
def test_bin_size(write_hd, tmp_path, sizes, asked, expected):
    truths = write_hd(*sizes)
    for path in ("mouse", "mouse/outs", "mouse/outs/binned_outputs"):
        section = open_section(tmp_path / path, bin_size=asked)
        assert section.assay == "visium_hd"
        assert section.name == "mouse"
        assert section.microns_per_pixel == 0.5
        assert section.spot_diameter == expected / 0.5
        np.testing.assert_array_equal(section.table.X.toarray(), truths[expected].tissue_counts)
        assert section.warnings == ()


def test_folder_of_one_bin_size(write_hd):
    truth = write_hd(8, 16)[16]
    for path in (truth.folder, truth.folder / "filtered_feature_bc_matrix.h5"):
        section = open_section(path)
        assert section.assay == "visium_hd"
        assert section.spot_diameter == 32.0
        assert section.name == "mouse"
    with pytest.raises(InputError, match=r"no bins of 8 µm \(square_008um\), found: 16"):
        open_section(truth.folder, bin_size=8)


def test_small_bins_alone(write_hd, tmp_path):
    write_hd(2)
    section = open_section(tmp_path / "mouse")
    assert section.spot_diameter == 4.0
    assert "2 µm bins hold few counts" in section.warnings[0]


@pytest.mark.data
def test_hd_fixture(test_data):
    section = open_section(test_data / "spatial" / "reader_fixtures" / "visium_hd_visiumio")
    assert section.table.shape == (10, 10)
    assert section.microns_per_pixel == pytest.approx(0.27382, abs=1e-5)
    assert section.microns_per_pixel * section.spot_diameter == pytest.approx(2.0)
    # First barcode of the matrix: its line in tissue_positions.parquet.
    np.testing.assert_allclose(section.positions[0], [9295.414884, 18095.407562])
    assert "10 of 10 bins have no counts" in section.warnings[-1]


# --- Xenium --------------------------------------------------------------------------------------


@pytest.fixture
def xenium(tmp_path):
    folder = tmp_path / "xenium_run"
    folder.mkdir()
    cells = pd.DataFrame(
        {
            "cell_id": ["aaab-1", "aaac-1", "aaad-1"],
            "x_centroid": [10.5, 20.0, 30.0],
            "y_centroid": [1.0, 2.0, 3.5],
            "cell_area": [np.pi * 25] * 3,
        }
    )
    cells.to_parquet(folder / "cells.parquet")
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(["aaac-1", "aaab-1"], dtype="S")
        group["data"] = np.array([3, 1, 2], dtype=np.int32)
        group["indices"] = np.array([0, 2, 1], dtype=np.int64)
        group["indptr"] = np.array([0, 2, 3], dtype=np.int64)
        group["shape"] = np.array([3, 2], dtype=np.int32)
        features = group.create_group("features")
        features["id"] = np.array(["ENSG00000121270", "ENSG00000107796", "NegProbe1"], dtype="S")
        features["name"] = np.array(["ABCC11", "ACTA2", "NegProbe1"], dtype="S")
        features["feature_type"] = np.array(
            ["Gene Expression", "Gene Expression", "Negative Control Probe"], dtype="S"
        )
    return folder


@pytest.mark.parametrize("inside", ["", "cell_feature_matrix.h5", "cells.parquet"])
def test_xenium(xenium, inside):
    section = open_section(xenium / inside)
    assert (section.name, section.assay) == ("xenium_run", "xenium")
    assert section.table.obs_names.tolist() == ["aaac-1", "aaab-1"]
    np.testing.assert_array_equal(section.positions, [[20.0, 2.0], [10.5, 1.0]])
    assert section.microns_per_pixel == 1.0
    assert section.spot_diameter == pytest.approx(10.0)
    assert section.table.n_vars == 3
    assert section.rna().names.tolist() == ["ABCC11", "ACTA2"]
    np.testing.assert_array_equal(section.rna().counts.toarray(), [[3, 0], [0, 2]])


def test_xenium_cells_damaged(xenium):
    path = xenium / "cells.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        open_section(xenium)
    pd.DataFrame({"cell_id": ["a"]}).to_parquet(path)
    with pytest.raises(InputError, match=r"lacks the column\(s\) x_centroid, y_centroid"):
        open_section(xenium)


@pytest.mark.data
def test_xenium_fixture(test_data):
    section = open_section(test_data / "spatial" / "reader_fixtures" / "xenium_small")
    assert section.table.shape == (6, 4)
    np.testing.assert_allclose(section.positions[0], [1898.81491699219, 2540.96314697266])


# --- paths that are none of all ------------------------------------------------------------------


def test_path_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match=r"nothing_here' does not exist"):
        open_section(tmp_path / "nothing_here")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("object.rds", "convert the Seurat object"),
        ("outs.tar.gz", "unpack it first"),
        ("cells.loom", "write it as .h5ad"),
        ("notes.txt", "convert it to .h5ad"),
    ],
)
def test_files_of_other_formats(tmp_path, name, remedy):
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(InputError, match=remedy) as error:
        open_section(tmp_path / name)
    assert "is of no known format" in str(error.value)


def test_folder_of_nothing(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "readme.md").write_text("hello")
    with pytest.raises(InputError, match="holds nothing that can be opened"):
        open_section(tmp_path)
    with pytest.raises(InputError, match="holds nothing that can be opened"):
        open_sections(tmp_path)
    with pytest.raises(InputError, match="No section to open"):
        open_sections([])


def test_home_is_understood(write_cells, monkeypatch, tmp_path):
    write_cells("filtered.h5")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert open_section("~/sample").name == "sample"


def test_json_of_scales_is_what_the_section_uses(write_hd):
    truth = write_hd(8)[8]
    scales = json.loads((truth.folder / "spatial" / "scalefactors_json.json").read_text())
    section = open_section(truth.folder)
    assert section.table.uns["spatial"]["mouse"]["scalefactors"] == scales
