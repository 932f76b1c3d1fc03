"""Xenium folders: counts in either form, and the morphology image at a level that can be shown."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile

from sclinguist_core.data.readers import open_section, xenium_image
from sclinguist_core.errors import InputError

KINDS = ("Gene Expression", "Gene Expression", "Negative Control Probe", "Unassigned Codeword")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "output-XETG1"
    folder.mkdir()
    pd.DataFrame(
        {
            "cell_id": ["aaab-1", "aaac-1", "aaad-1"],
            "x_centroid": [10.5, 20.0, 30.0],
            "y_centroid": [1.0, 2.0, 3.5],
        }
    ).to_csv(folder / "cells.csv.gz", index=False)
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(["aaac-1", "aaab-1"], dtype="S")
        group["data"] = np.array([3, 1, 2, 9], dtype=np.int32)
        group["indices"] = np.array([0, 2, 1, 3], dtype=np.int64)
        group["indptr"] = np.array([0, 2, 4], dtype=np.int64)
        group["shape"] = np.array([4, 2], dtype=np.int32)
        features = group.create_group("features")
        names = np.array(["ABCC11", "ACTA2", "NegControlProbe_00042", "Unassigned_7"], dtype="S")
        features["id"], features["name"] = names, names
        features["feature_type"] = np.array(KINDS, dtype="S")
    return folder


def write_image(path, shape=(160, 240), levels=3, pixel=0.2125):
    """A ramp from left to right, each level half as large as the one before."""
    path.parent.mkdir(exist_ok=True)
    full = np.broadcast_to(np.arange(shape[1], dtype=np.uint16) * 20, shape)
    with tifffile.TiffWriter(path, ome=True) as tiff:
        metadata = {"axes": "YX", "PhysicalSizeX": pixel, "PhysicalSizeXUnit": "µm"}
        tiff.write(full, tile=(16, 16), subifds=levels - 1, metadata=metadata)
        for level in range(1, levels):
            step = 2**level
            tiff.write(full[::step, ::step], tile=(16, 16), subfiletype=1)


def test_controls_are_no_genes(run):
    section = open_section(run)
    assert section.rna().names.tolist() == ["ABCC11", "ACTA2"]
    np.testing.assert_array_equal(section.rna().counts.toarray(), [[3, 0], [0, 2]])
    assert section.images == {}
    assert section.warnings == ()


def test_counts_as_matrix_market(run):
    folder = run / "cell_feature_matrix"
    folder.mkdir()
    (folder / "matrix.mtx").write_text(
        "%%MatrixMarket matrix coordinate integer general\n4 2 4\n1 1 3\n3 1 1\n2 2 2\n4 2 9\n"
    )
    (folder / "barcodes.tsv").write_text("aaac-1\naaab-1\n")
    names = ("ABCC11", "ACTA2", "NegControlProbe_00042", "Unassigned_7")
    lines = [f"{n}\t{n}\t{kind}\n" for n, kind in zip(names, KINDS, strict=True)]
    (folder / "features.tsv").write_text("".join(lines))
    (run / "cell_feature_matrix.h5").unlink()
    for path in (run, folder):
        section = open_section(path)
        assert section.assay == "xenium"
        np.testing.assert_array_equal(section.positions, [[20.0, 2.0], [10.5, 1.0]])
        np.testing.assert_array_equal(section.rna().counts.toarray(), [[3, 0], [0, 2]])
    shutil.rmtree(folder)
    (run / "cell_feature_matrix.zarr.zip").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected cell_feature_matrix\.h5"):
        open_section(run)


@pytest.mark.parametrize(
    "name",
    [
        "morphology_focus/ch0000_dapi.ome.tif",
        "morphology_focus/morphology_focus_0000.ome.tif",
        "morphology_focus.ome.tif",
        "morphology_mip.ome.tif",
    ],
)
@pytest.mark.parametrize(("largest", "level"), [(8192, 0), (239, 1), (60, 2)])
def test_image_at_the_largest_level_that_can_be_shown(run, monkeypatch, name, largest, level):
    monkeypatch.setattr(xenium_image, "MAX_IMAGE_SIDE", largest)
    write_image(run / name)
    image = open_section(run).image
    height, width = 160 // 2**level, 240 // 2**level
    assert image.shape == (height, width)
    assert image.scale == pytest.approx(1 / (0.2125 * 2**level))
    pixels = image.pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (height, width, 3)
    row = pixels[3, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert (np.diff(row) >= 0).all()


def test_pixel_size_of_the_manifest(run):
    write_image(run / "morphology_focus.ome.tif")
    (run / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.5}))
    assert open_section(run).image.scale == 2.0
    for odd in ("{", '{"pixel_size": "small"}', '{"pixel_size": 0}', "[]"):
        (run / "experiment.xenium").write_text(odd)
        assert open_section(run).image.scale == pytest.approx(1 / 0.2125)


def test_image_without_smaller_levels_is_left_out_and_told(run, monkeypatch):
    monkeypatch.setattr(xenium_image, "MAX_IMAGE_SIDE", 100)
    write_image(run / "morphology_focus.ome.tif", levels=1)
    section = open_section(run)
    assert section.images == {}
    assert "has 240 x 160 pixels and no smaller level" in section.warnings[0]


def test_damaged_image(run):
    path = run / "morphology_focus.ome.tif"
    path.write_bytes(b"II*\0nothing")
    with pytest.raises(InputError, match=r"morphology_focus\.ome\.tif' cannot be read as an image"):
        open_section(run)
    write_image(path)
    content = bytearray(path.read_bytes())
    section = open_section(run)
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages.first.dataoffsets[-1]
    path.write_bytes(content[:start])
    with pytest.raises(InputError, match="cannot be read as an image"):
        _ = section.image.pixels
