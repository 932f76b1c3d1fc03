"""A section that was written as a table opens as the same section."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclinguist_core.data.readers import open_section
from sclinguist_core.data.section import Section, SectionImage
from sclinguist_core.data.write import section_table, write_table, write_table_iter
from sclinguist_core.errors import InputError


@pytest.fixture
def section():
    """Forty rows beside an image that its table knows nothing of."""
    rng = np.random.default_rng(0)
    table = ad.AnnData(
        sparse.csr_matrix(rng.poisson(1.0, (40, 30)).astype(np.float32)),
        obs=pd.DataFrame({"region": ["a", "b"] * 20}, index=[f"cell{i}" for i in range(40)]),
        var=pd.DataFrame(index=[f"GENE{i}" for i in range(30)]),
    )
    table.obsm["spatial"] = rng.uniform(0, 600, (40, 2))
    pixels = rng.integers(0, 256, (150, 160, 3), dtype=np.uint8)
    return Section(
        name="liver",
        table=table,
        images={"he_scale1": SectionImage(pixels, 0.25, "he_scale1")},
        spot_diameter=7.5,
        microns_per_pixel=0.2125,
        assay="xenium",
    )


def reopened(section, path):
    return open_section(write_table(section_table(section), path))


def assert_same(found, section):
    assert found.name == section.name
    assert found.assay == section.assay
    assert found.spot_diameter == section.spot_diameter
    assert found.microns_per_pixel == section.microns_per_pixel
    assert found.drawn_diameter == section.drawn_diameter
    np.testing.assert_array_equal(found.positions, section.positions)
    if section.image is None:
        assert found.image is None
    else:
        assert found.image.scale == section.image.scale
        np.testing.assert_array_equal(found.image.pixels, section.image.pixels)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("assay", ["visium", "visium_hd", "xenium", "cells"])
def test_scale_size_kind_and_image_return(section, tmp_path, assay, suffix):
    section = replace(section, assay=assay)
    assert_same(reopened(section, tmp_path / f"saved{suffix}"), section)


@pytest.mark.parametrize("assay", ["visium_hd", "xenium", "cells"])
def test_what_is_not_known_stays_unknown(section, tmp_path, assay):
    bare = replace(section, assay=assay, spot_diameter=None, microns_per_pixel=None, images={})
    assert_same(reopened(bare, tmp_path / "saved.h5ad"), bare)
    without_diameter = replace(section, assay=assay, spot_diameter=None)
    assert_same(reopened(without_diameter, tmp_path / "saved.h5ad"), without_diameter)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_space_ranger_folder_returns(write_outs, tmp_path, suffix):
    section = open_section(write_outs().folder)
    found = reopened(section, tmp_path / f"saved{suffix}")
    assert_same(found, section)
    assert set(found.images) == {"hires", "lowres"}
    assert set(found.table.obsm["protein"]) == set(section.table.obsm["protein"])


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_visium_hd_returns(write_outs, tmp_path, suffix):
    scales = {"microns_per_pixel": 0.5, "bin_size_um": 8.0, "spot_diameter_fullres": 16.0}
    truth = write_outs(
        "mouse/outs/binned_outputs/square_008um", positions="parquet", scalefactors=scales
    )
    section = open_section(truth.folder)
    assert section.assay == "visium_hd"
    assert_same(reopened(section, tmp_path / f"saved{suffix}"), section)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_xenium_returns(tmp_path, suffix):
    folder = tmp_path / "xenium_run"
    folder.mkdir()
    barcodes = ["aaab-1", "aaac-1"]
    cells = pd.DataFrame(
        {"cell_id": barcodes, "x_centroid": [10.5, 20], "y_centroid": [1.0, 2], "cell_area": 80.0}
    )
    cells.to_parquet(folder / "cells.parquet")
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(barcodes, dtype="S")
        group["data"] = np.array([3, 1, 2], dtype=np.int32)
        group["indices"] = np.array([0, 1, 1], dtype=np.int64)
        group["indptr"] = np.array([0, 2, 3], dtype=np.int64)
        group["shape"] = np.array([2, 2], dtype=np.int32)
        features = group.create_group("features")
        features["id"] = np.array(["ENSG00000121270", "ENSG00000107796"], dtype="S")
        features["name"] = np.array(["ABCC11", "ACTA2"], dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * 2, dtype="S")
    section = open_section(folder)
    assert (section.assay, section.microns_per_pixel) == ("xenium", 1.0)
    assert_same(reopened(section, tmp_path / f"saved{suffix}"), section)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_spatialdata_store_returns(write_outs, tmp_path, suffix):
    open_section(write_outs().folder).to_spatialdata().write(tmp_path / "store.zarr")
    section = open_section(tmp_path / "store.zarr")
    assert section.image is not None
    assert section.microns_per_pixel is not None
    assert_same(reopened(section, tmp_path / f"saved{suffix}"), section)


def test_an_image_is_not_stored_twice(section):
    image = section.image
    section.table.uns["spatial"] = {
        "liver": {"images": {"hires": image.pixels}, "scalefactors": {"tissue_hires_scalef": 0.25}}
    }
    assert list(section_table(section).uns["spatial"]["liver"]["images"]) == ["hires"]


def test_the_section_itself_is_not_changed(section):
    section.table.uns["spatial"] = {"liver": {"scalefactors": {}}}
    copy = section_table(section)
    copy.obs["new"] = 1
    copy.obsm["new"] = copy.obsm["spatial"]
    assert section.table.uns["spatial"] == {"liver": {"scalefactors": {}}}
    assert "new" not in section.table.obs
    assert "new" not in section.table.obsm
    assert copy.X is section.table.X  # and nothing large was copied


def test_counts_in_raw_and_in_layers_go_along(section, tmp_path):
    table = section.table
    table.raw = table.copy()
    table.layers["counts"] = table.X.copy()
    table.X = table.X * 0.5
    found = reopened(section, tmp_path / "saved.h5ad")
    np.testing.assert_array_equal(found.table.raw.X.toarray(), table.raw.X.toarray())
    np.testing.assert_array_equal(found.rna().counts.toarray(), table.layers["counts"].toarray())


def test_dissociated_cells_get_no_positions(section):
    del section.table.obsm["spatial"]
    assert "spatial" not in section_table(section).uns


def test_a_damaged_kind_is_ignored(section, tmp_path):
    table = section_table(section)
    table.uns["spatial"]["liver"]["metadata"]["assay"] = "MERFISH"
    assert open_section(write_table(table, tmp_path / "saved.h5ad")).assay == "visium"


@pytest.mark.parametrize("name", ["saved.h5ad", "saved.zarr"])
def test_a_writer_that_is_stopped_before_the_end_changes_nothing(section, tmp_path, name):
    steps = write_table_iter(section.table, tmp_path / name)
    assert [next(steps), next(steps)] == ["writing", "finishing"]
    steps.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["obs", "var", "uns", "obsm", "layers", "obsm['protein']"])
def test_a_slash_in_a_name_is_refused(section, tmp_path, place):
    table = section.table
    if place in {"obs", "var"}:
        getattr(table, place)["T/B"] = 1
    elif place == "uns":
        table.uns["T/B"] = 1
    elif place == "obsm['protein']":
        table.obsm["protein"] = pd.DataFrame({"T/B": np.ones(40)}, index=table.obs_names)
    else:
        getattr(table, place)["T/B"] = table.X if place == "layers" else table.obsm["spatial"]
    with pytest.raises(InputError) as error:
        write_table(table, tmp_path / "saved.h5ad")
    assert f"'T/B' in {place} has a slash" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_into_a_store(section, tmp_path):
    (tmp_path / "data.zarr" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match=r"inside the store 'data\.zarr'"):
        write_table(section.table, tmp_path / "data.zarr" / "images" / "saved.h5ad")
