"""Segmented cells of Visium HD: outlines are read in parts, cells lie at their centroids."""

from __future__ import annotations

import gzip
import json

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from sclinguist_core.data.readers import cell_outlines, open_section, open_sections
from sclinguist_core.data.readers.cell_outlines import read_cell_outlines
from sclinguist_core.errors import InputError

GENES = ["CD3E", "MS4A1", "ACTB", "GAPDH"]
COUNTS = np.array([[3, 0, 1, 0], [0, 2, 0, 0], [0, 0, 0, 5]])
CELLS = (7, 2, 11)
"""Numbers of the cells of the matrix, in its order."""
SQUARES = {
    2: (20.0, 30.0, 10.0),
    7: (60.0, 40.0, 20.0),
    11: (90.0, 80.0, 10.0),
    30: (5.0, 5.0, 4.0),
}
"""x and y of the centre, side; by number. No counts belong to the last one."""


def square(x, y, side):
    half = side / 2
    corners = [(-half, -half), (half, -half), (half, half), (-half, half), (-half, -half)]
    return [[x + dx, y + dy] for dx, dy in corners]


def feature(number, *rings, kind="Polygon"):
    coordinates = [[ring] for ring in rings] if kind == "MultiPolygon" else list(rings)
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"cell_id": number},
    }


def collection(features):
    return {"type": "FeatureCollection", "features": features}


def write_matrix(path, numbers, counts=COUNTS, suffix="-1"):
    csr = sparse.csr_matrix(counts)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([f"cellid_{n:09d}{suffix}" for n in numbers], dtype="S")
        group["data"] = csr.data.astype(np.int32)
        group["indices"] = csr.indices.astype(np.int64)
        group["indptr"] = csr.indptr.astype(np.int64)
        group["shape"] = np.array(csr.shape[::-1], dtype=np.int32)
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(4)], dtype="S")
        features["name"] = np.array(GENES, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * 4, dtype="S")
        features["genome"] = np.array(["GRCh38"] * 4, dtype="S")
        file.attrs["software_version"] = b"spaceranger-4.0.1"


@pytest.fixture
def run(tmp_path):
    """A run's ``outs`` with segmented cells and nothing else."""
    outs = tmp_path / "colon" / "outs"
    folder = outs / "segmented_outputs"
    (folder / "spatial").mkdir(parents=True)
    write_matrix(folder / "filtered_feature_cell_matrix.h5", CELLS)
    write_matrix(
        folder / "raw_feature_cell_matrix.h5", (*CELLS, 30), np.vstack([COUNTS, COUNTS[:1]])
    )
    content = collection([feature(n, square(*place)) for n, place in SQUARES.items()])
    (folder / "cell_segmentations.geojson").write_text(json.dumps(content))
    (folder / "spatial" / "scalefactors_json.json").write_text(
        json.dumps(
            {
                "microns_per_pixel": 0.5,
                "tissue_lowres_scalef": 0.1,
                "fiducial_diameter_fullres": 1206.5,
                "tissue_hires_scalef": 1.0,
                "regist_target_img_scalef": 1.0,
            }
        )
    )
    Image.fromarray(np.full((120, 140, 3), 200, np.uint8)).save(
        folder / "spatial" / "tissue_hires_image.png"
    )
    return outs


@pytest.fixture
def run_with_bins(run, write_outs):
    """The same with bins of 8 µm beside the cells."""
    scale = {"bin_size_um": 8.0, "microns_per_pixel": 0.5, "spot_diameter_fullres": 16.0}
    write_outs("colon/outs/binned_outputs/square_008um", positions="parquet", scalefactors=scale)
    return run


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "segmented_outputs",
        "segmented_outputs/spatial",
        "segmented_outputs/filtered_feature_cell_matrix.h5",
        "segmented_outputs/cell_segmentations.geojson",
    ],
)
def test_cells_lie_at_the_centroids_of_their_outlines(run, inside):
    section = open_section(run / inside)
    assert (section.name, section.assay, section.n_obs) == ("colon", "cells", 3)
    assert list(section.table.obs_names) == [f"cellid_{n:09d}-1" for n in CELLS]
    np.testing.assert_allclose(section.positions, [SQUARES[n][:2] for n in CELLS])
    np.testing.assert_array_equal(section.rna().counts.toarray(), COUNTS)
    assert section.rna().names.tolist() == GENES
    assert section.microns_per_pixel == 0.5
    # Areas of 400, 100 and 100 square pixels, a quarter of a µm² each.
    np.testing.assert_allclose(section.table.obs["cell_area"], [100.0, 25.0, 25.0])
    assert section.drawn_diameter == pytest.approx(2 * np.sqrt(100 / np.pi))
    assert section.image.shape == (120, 140)
    entry = section.table.uns["spatial"]["colon"]
    assert entry["scalefactors"]["spot_diameter_fullres"] == section.spot_diameter
    assert entry["metadata"]["software_version"] == "spaceranger-4.0.1"
    assert [w.split(",")[0] for w in section.warnings] == [
        "1 of 4 outlined cells are not in 'filtered_feature_cell_matrix.h5'"
    ]


def test_the_matrix_that_was_pointed_at_is_used(run):
    section = open_section(run / "segmented_outputs" / "raw_feature_cell_matrix.h5")
    assert section.n_obs == 4
    assert section.warnings == ()


def test_cells_without_outline_are_left_out_and_told(run):
    path = run / "segmented_outputs" / "cell_segmentations.geojson"
    bare = {**feature(2), "geometry": None}
    path.write_text(json.dumps(collection([feature(7, square(60, 40, 20)), bare, feature(30)])))
    with pytest.raises(InputError, match="Only 1 of the 3 barcodes"):
        open_section(run)
    found = [feature(7, square(60, 40, 20)), bare, feature(11, square(90, 80, 10))]
    path.write_text(json.dumps(collection(found)))
    section = open_section(run)
    assert list(section.table.obs_names) == ["cellid_000000007-1", "cellid_000000011-1"]
    np.testing.assert_array_equal(section.rna().counts.toarray(), COUNTS[[0, 2]])
    assert "1 of 3 cells have no outline in 'cell_segmentations.geojson'" in section.warnings[0]


def test_bins_and_cells_of_one_run(run_with_bins):
    bins = open_section(run_with_bins)
    assert bins.assay == "visium_hd"
    assert (
        "this run has segmented cells, too: open the folder segmented_outputs" in bins.warnings[0]
    )
    assert open_section(run_with_bins, bin_size=8).warnings == bins.warnings[1:]
    for inside in ("", "binned_outputs", "binned_outputs/square_008um"):
        cells = open_section(run_with_bins / inside, bin_size="cells")
        assert (cells.assay, cells.n_obs) == ("cells", 3)
    assert open_section(run_with_bins, bin_size="8").n_obs == bins.n_obs
    names = [s.name for s in open_sections([run_with_bins, run_with_bins / "segmented_outputs"])]
    assert names == ["colon", "colon_2"]


@pytest.mark.parametrize("size", ["sixteen", 0, "-8"])
def test_what_is_no_bin_size(run_with_bins, size):
    with pytest.raises(InputError, match="expected the side of the bins in µm, such as 8"):
        open_section(run_with_bins, bin_size=size)


def test_choice_that_a_run_does_not_have(run, run_with_bins, write_outs):
    with pytest.raises(InputError, match="which has no bins"):
        open_section(run / "segmented_outputs", bin_size=8)
    assert open_section(run / "segmented_outputs", bin_size="cells").n_obs == 3
    scale = {"bin_size_um": 16.0, "microns_per_pixel": 0.5}
    other = write_outs("x/square_016um", positions="parquet", scalefactors=scale).folder.parent
    with pytest.raises(InputError, match=r"no segmented cells.*found: bins of 16 µm"):
        open_section(other, bin_size="cells")


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        ("*_feature_cell_matrix.h5", "outlines of cells but no counts, expected filtered_feature"),
        ("cell_segmentations.geojson", "counts of cells but no outlines, expected cell_segm"),
    ],
)
def test_a_part_is_missing(run, lost, sentence):
    for path in (run / "segmented_outputs").glob(lost):
        path.unlink()
    with pytest.raises(InputError, match=sentence):
        open_section(run)


def test_scale_and_images_of_the_run_stand_in(run):
    (run / "segmented_outputs" / "spatial").rename(run / "spatial")
    assert open_section(run).microns_per_pixel == 0.5
    (run / "spatial" / "scalefactors_json.json").unlink()
    (run / "spatial" / "tissue_hires_image.png").unlink()
    (run / "spatial").rmdir()
    section = open_section(run)
    assert section.microns_per_pixel is None
    assert not section.images
    assert "cell_area" not in section.table.obs
    assert "without tissue and scale" in section.warnings[1]


def test_cells_of_another_run_are_refused(run):
    path = run / "segmented_outputs" / "cell_segmentations.geojson"
    path.write_text(json.dumps(collection([feature(100 + n, square(9, 9, 4)) for n in range(9)])))
    with pytest.raises(InputError, match="must come from one run"):
        open_section(run)


# --- outlines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 7, 1 << 22])
@pytest.mark.parametrize("batch", [1, 2, 4096])
def test_outlines_are_the_same_however_they_are_read(tmp_path, monkeypatch, block, batch):
    monkeypatch.setattr(cell_outlines, "_BLOCK", block)
    monkeypatch.setattr(cell_outlines, "_BATCH", batch)
    hollow = [square(0, 0, 8), square(0, 0, 2)]
    content = {
        "name": 'not "features": [',
        **collection(
            [
                feature(5, *hollow),
                feature(
                    "cellid_000000006-1", square(10, 0, 2), square(20, 0, 4), kind="MultiPolygon"
                ),
                feature(8, [[1, 1], [3, 1], [1, 1]]),
                feature(9.0, [[x, y, 0.5] for x, y in square(1e6, 2e6, 3)]),
                {**feature(10), "geometry": None},
                feature(11),
            ]
        ),
        "bbox": [0, 0, 12],
    }
    path = tmp_path / "cells.geojson"
    path.write_text(json.dumps(content, indent=1))
    found = read_cell_outlines(path)
    assert found.numbers.tolist() == [5, 6, 8, 9]
    assert found.n_empty == 2
    np.testing.assert_allclose(found.areas, [64, 20, 0, 9])
    # Parts count by their area: (10·4 + 20·16) / 20; without area, the mean of the points.
    expected = [[0, 0], [18, 0], [5 / 3, 1], [1e6, 2e6]]
    np.testing.assert_allclose(found.centroids, expected, atol=1e-9)
    packed = tmp_path / "cells.geojson.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_cell_outlines(packed).centroids, found.centroids)


def test_a_file_without_cells(tmp_path):
    path = tmp_path / "cells.geojson"
    path.write_text(json.dumps(collection([])))
    found = read_cell_outlines(path)
    assert (len(found.numbers), found.centroids.shape, found.n_empty) == (0, (0, 2), 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "it ends too early"),
        ("{", "ends too early"),
        ("[1, 2]", "found '\\['"),
        ('{"type": "FeatureCollection"}', "is no FeatureCollection"),
        ('{"features": [{"type": 1', "ends too early"),
        ('{"features": [{}', "no outline of a cell"),
        ('{"features": [], "x": 1} y', None),
        ('{"features": {}}', "found '{' where '\\[' is due"),
        ('{"features": [' + "[" * 100_000, "nested too deeply"),
        ('{"features": [7]}', "no outline of a cell"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, sentence):
    path = tmp_path / "cells.geojson"
    path.write_text(content)
    if sentence is None:  # what comes after the collection is nobody's business
        assert len(read_cell_outlines(path).numbers) == 0
        return
    with pytest.raises(InputError, match=sentence):
        read_cell_outlines(path)


@pytest.mark.parametrize(
    "wrong",
    [
        feature(None, square(0, 0, 1)),
        feature(1.5, square(0, 0, 1)),
        feature(True, square(0, 0, 1)),
        feature(-1, square(0, 0, 1)),
        feature(10**30, square(0, 0, 1)),
        feature("cell", square(0, 0, 1)),
        feature(3, [[0, 0], [1]]),
        feature(3, [["a", "b"]]),
        feature(3, "12"),
        feature(3, [[0, 10**400]]),
        feature(3, [[0, float("nan")], [1, 1]]),
        feature(3, [[0, float("inf")], [1, 1]]),
        {**feature(3), "geometry": {"type": "Point", "coordinates": [1, 2]}},
        {**feature(3), "geometry": {"coordinates": []}},
        {**feature(3), "properties": None},
    ],
)
def test_features_that_are_no_cells_are_refused(tmp_path, wrong):
    path = tmp_path / "cells.geojson"
    path.write_text(json.dumps(collection([feature(4, square(0, 0, 2)), wrong])))
    with pytest.raises(InputError, match=r"no outline of a cell \(properties"):
        read_cell_outlines(path)


def test_a_feature_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_outlines, "_BLOCK", 100)
    monkeypatch.setattr(cell_outlines, "_LONGEST_VALUE", 1000)
    path = tmp_path / "cells.geojson"
    path.write_text('{"features": [{"a": "' + "x" * 5000)
    with pytest.raises(InputError, match="a feature does not end"):
        read_cell_outlines(path)


def test_packed_or_coded_wrongly(tmp_path):
    path = tmp_path / "cells.geojson"
    path.write_bytes(b'{"features": "\xff\xfe"}')
    with pytest.raises(InputError, match="cannot be read as GeoJSON"):
        read_cell_outlines(path)
    packed = tmp_path / "cells.geojson.gz"
    packed.write_bytes(gzip.compress(b'{"features": []}')[:-5])
    with pytest.raises(InputError, match="cannot be read as GeoJSON"):
        read_cell_outlines(packed)


def test_a_cell_that_is_outlined_twice(tmp_path):
    path = tmp_path / "cells.geojson"
    path.write_text(json.dumps(collection([feature(4, square(0, 0, 2))] * 2)))
    with pytest.raises(InputError, match="outlines 1 cell\\(s\\) more than once"):
        read_cell_outlines(path)
