"""SpatialData: sections written to it, read from it, and agreement with spatialdata-io."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pandas as pd
import pytest

from sclinguist_core.data.readers import open_section, open_sections
from sclinguist_core.data.section import SectionImage
from sclinguist_core.data.spatialdata_export import storable_name
from sclinguist_core.errors import InputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations among the libraries below it, at import
    spatialdata = pytest.importorskip("spatialdata")

# Other libraries deprecate each other here; ours are tested for warnings everywhere else.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def write(sdata, path):
    sdata.write(path)
    return path


def test_spots_and_images_align(write_outs):
    from spatialdata import get_extent, transform

    truth = write_outs()
    section = open_section(truth.folder)
    sdata = section.to_spatialdata()
    assert list(sdata.shapes) == ["sample"]
    assert sorted(sdata.images) == ["sample_hires_image", "sample_lowres_image"]
    circles = sdata.shapes["sample"]
    xy = np.column_stack([circles.geometry.x, circles.geometry.y])
    np.testing.assert_array_equal(xy, section.positions)
    assert set(circles["radius"]) == {6.5}
    for name in sdata.images:
        extent = get_extent(sdata[name], coordinate_system="global")
        assert extent["x"] == (0.0, 150.0)
        assert extent["y"] == (0.0, 120.0)
        extent = get_extent(sdata[name], coordinate_system="microns")
        assert extent["x"] == pytest.approx((0.0, 750.0))
    microns = transform(circles, to_coordinate_system="microns")
    np.testing.assert_allclose(microns.geometry.x, section.positions[:, 0] * 5)
    np.testing.assert_array_equal(
        sdata["sample_hires_image"].to_numpy(), np.moveaxis(truth.pixels, 2, 0)
    )


def test_table_annotates_the_spots(write_outs):
    section = open_section(write_outs().folder)
    section.table.obs["% mito"] = 1.0
    section.table.obs["Cluster"] = 1
    section.table.obs["cluster"] = 2
    section.table.obs["region"] = "germinal centre"
    sdata = section.to_spatialdata()
    table = sdata["table"]
    assert table.uns["spatialdata_attrs"]["region"] == "sample"
    assert table.obs["spot_id"].tolist() == sdata["sample"].index.tolist()
    assert {"mito", "Cluster", "cluster_2", "original_region"} <= set(table.obs)
    assert table.obs_names.tolist() == section.table.obs_names.tolist()
    assert table.uns["spatial"]["sample"]["scalefactors"]["spot_diameter_fullres"] == 13.0
    # The section itself stays as it was.
    assert "% mito" in section.table.obs
    assert "hires" in section.table.uns["spatial"]["sample"]["images"]


def test_large_images_become_pyramids(write_outs):
    section = open_section(write_outs().folder)
    pixels = np.zeros((1500, 2100, 3), np.uint8)
    section.images["big"] = SectionImage(pixels, 14.0, "big")
    levels = section.to_spatialdata()["sample_big_image"]
    assert [level["image"].shape for level in levels.children.values()] == [
        (3, 1500, 2100),
        (3, 750, 1050),
        (3, 375, 525),
    ]


def test_dissociated_cells_are_a_table_alone(write_outs):
    import dataclasses

    section = open_section(write_outs().folder)
    table = section.table.copy()
    del table.obsm["spatial"]
    sdata = dataclasses.replace(section, table=table, images={}).to_spatialdata()
    assert list(sdata.tables) == ["table"]
    assert not sdata.shapes


@pytest.mark.parametrize(
    ("name", "stored"),
    [("tonsil A1", "tonsil_A1"), ("__x", "x"), ("%", "x"), ("..", "x.."), ("µ-1.0", "µ-1.0")],
)
def test_names_that_spatialdata_accepts(name, stored):
    assert storable_name(name) == stored


def test_round_trip(write_outs, tmp_path):
    section = open_section(write_outs().folder)
    section.table.obsm["protein_predicted"] = section.table.obsm["protein"] * 2
    back = open_section(write(section.to_spatialdata(), tmp_path / "sample.zarr"))
    assert (back.name, back.assay) == ("sample", "visium")
    assert back.spot_diameter == section.spot_diameter
    assert back.microns_per_pixel == pytest.approx(section.microns_per_pixel)
    np.testing.assert_allclose(back.positions, section.positions)
    np.testing.assert_array_equal(back.rna().counts.toarray(), section.rna().counts.toarray())
    assert back.rna().names.tolist() == section.rna().names.tolist()
    pd.testing.assert_frame_equal(
        back.table.obsm["protein_predicted"], section.table.obsm["protein_predicted"]
    )
    assert back.image.name == "sample_hires_image"
    assert back.image.scale == pytest.approx(1.0)
    assert back.images["sample_lowres_image"].scale == pytest.approx(0.5)
    np.testing.assert_array_equal(back.image.pixels, section.image.pixels)
    entry = back.table.uns["spatial"]["sample"]
    assert entry["scalefactors"]["tissue_hires_scalef"] == pytest.approx(1.0)
    np.testing.assert_array_equal(entry["images"]["hires"], section.image.pixels)
    assert back.warnings == ()


def cells_store(image_transform, tmp_path, *, regions=("cells",)):
    """Polygons and an image of three channels, as segmentation tools write them."""
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from shapely import Point
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel

    rng = np.random.default_rng(0)
    shapes, parts = {}, []
    for region in regions:
        xy = rng.uniform(20, 60, (15, 2))
        frame = GeoDataFrame(geometry=[Point(*p).buffer(4.0) for p in xy], index=range(100, 115))
        shapes[region] = ShapesModel.parse(frame)
        parts.append(pd.DataFrame({"region": region, "cell": range(114, 99, -1)}))
    obs = pd.concat(parts, ignore_index=True)
    obs.index = [f"c{i}" for i in range(len(obs))]
    obs["region"] = pd.Categorical(obs["region"])
    adata = AnnData(rng.poisson(2.0, (len(obs), 4)).astype(np.float32), obs=obs)
    table = TableModel.parse(adata, region=list(regions), region_key="region", instance_key="cell")
    image = Image2DModel.parse(
        rng.integers(0, 60_000, (3, 160, 160), dtype=np.uint16),
        dims=("c", "y", "x"),
        scale_factors=[2],
        transformations={"global": image_transform},
    )
    sdata = SpatialData(images={"dapi": image}, shapes=shapes, tables={"table": table})
    return write(sdata, tmp_path / "cells.zarr"), shapes


def test_segmented_cells_and_pyramid(tmp_path):
    from spatialdata.transformations import Scale

    path, shapes = cells_store(Scale([0.5, 0.5], axes=("x", "y")), tmp_path)
    section = open_section(path)
    assert (section.name, section.assay, section.n_obs) == ("cells", "cells", 15)
    # The table lists cells in reverse: each has the centre of its own polygon.
    centres = shapes["cells"].geometry.centroid
    np.testing.assert_allclose(section.positions[:, 0], centres.x.to_numpy()[::-1])
    assert section.spot_diameter == pytest.approx(8.0, rel=0.01)
    assert section.microns_per_pixel is None
    assert section.images["dapi"].scale == pytest.approx(2.0)
    assert section.images["dapi_scale1"].scale == pytest.approx(1.0)
    assert section.images["dapi_scale1"].shape == (80, 80)
    assert section.image.pixels.shape == (160, 160, 3)
    assert section.image.pixels.max() == 255


def test_rotated_image_becomes_the_frame(tmp_path):
    from spatialdata.transformations import Affine

    matrix = [[0.0, -1.0, 100.0], [1.0, 0.0, -5.0], [0.0, 0.0, 1.0]]
    path, shapes = cells_store(
        Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y")), tmp_path
    )
    section = open_section(path)
    centres = shapes["cells"].geometry.centroid
    x, y = centres.x.to_numpy()[::-1], centres.y.to_numpy()[::-1]
    np.testing.assert_allclose(section.positions, np.column_stack([y + 5, 100 - x]))
    assert section.image.scale == pytest.approx(1.0)
    assert "rotated or shifted" in section.warnings[0]


def test_regions_are_sections(tmp_path):
    from spatialdata.transformations import Identity

    path, _ = cells_store(Identity(), tmp_path, regions=("left", "right"))
    with pytest.raises(InputError, match=r"2 sections \(left, right\)"):
        open_section(path)
    left, right = open_sections(path)
    assert (left.name, right.name) == ("left", "right")
    assert left.n_obs == right.n_obs == 15
    assert set(right.table.obs["region"]) == {"right"}


def test_store_without_table(tmp_path):
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel

    image = Image2DModel.parse(np.zeros((3, 8, 8), np.uint8), dims=("c", "y", "x"))
    path = write(SpatialData(images={"he": image}), tmp_path / "he.zarr")
    with pytest.raises(InputError, match=r"has no table \(found: he\)"):
        open_section(path)


def test_damaged_store(write_outs, tmp_path):
    path = write(open_section(write_outs().folder).to_spatialdata(), tmp_path / "s.zarr")
    for name in ("zarr.json", ".zattrs"):
        metadata = path / "tables" / "table" / "X" / name
        if metadata.exists():
            metadata.write_text("{")
    with pytest.raises(InputError) as error:
        open_section(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.data
@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_agreement_with_spatialdata_io(test_data, tmp_path):
    """Same barcodes, counts, positions and radius where spatialdata-io can read the folder."""
    from spatialdata_io import visium

    source = test_data / "spatial" / "tonsil_composite" / "outs"
    folder = tmp_path / "tonsil" / "outs"
    folder.mkdir(parents=True)
    for name in ("filtered_feature_bc_matrix.h5", "spatial"):
        (folder / name).symlink_to(source / name)
    theirs = visium(folder, dataset_id="tonsil", gex_only=False)
    ours = open_section(folder)
    assert ours.name == "tonsil"
    table = theirs["table"]
    assert table.obs_names.tolist() == ours.table.obs_names.tolist()
    assert table.var_names.tolist() == ours.table.var_names.tolist()
    assert (table.X != ours.table.X).nnz == 0
    np.testing.assert_array_equal(table.obsm["spatial"], ours.positions)
    sdata = ours.to_spatialdata()
    pd.testing.assert_series_equal(
        theirs["tonsil"]["radius"], sdata["tonsil"]["radius"], check_names=False
    )
    assert theirs["tonsil"].geometry.geom_equals(sdata["tonsil"].geometry).all()
    # Their store opens as the same section.
    back = open_section(write(theirs, tmp_path / "theirs.zarr"))
    np.testing.assert_array_equal(back.positions, ours.positions)
    assert back.spot_diameter == pytest.approx(ours.spot_diameter)
    assert back.microns_per_pixel == pytest.approx(ours.microns_per_pixel)
    assert back.image.scale == pytest.approx(ours.image.scale)
    np.testing.assert_array_equal(back.image.pixels, ours.image.pixels)
    assert (back.rna().counts != ours.rna().counts).nnz == 0
    assert (back.table.obsm["protein"].to_numpy() == ours.table.obsm["protein"].to_numpy()).all()
