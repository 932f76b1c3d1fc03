"""The committed simulated section is valid, plausible, and what its generator writes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

SAMPLE = Path(__file__).parents[1] / "sample_data"
SECTION = SAMPLE / "tonsil_simulated"
SPATIAL = SECTION / "outs" / "spatial"
MODULES = (
    "make_section",
    "counts",
    "histology",
    "cells",
    "lattice",
    "tissue",
    "fields",
    "png",
)


@pytest.fixture(scope="module")
def make_section():
    """Import the generator as its own folder sees it, and leave no trace in ``sys.modules``."""
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(SAMPLE))
    try:
        yield importlib.import_module("make_section")
    finally:
        sys.path.remove(str(SAMPLE))
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


@pytest.fixture(scope="module")
def h5():
    """The count file, read once."""
    with h5py.File(SECTION / "outs" / "filtered_feature_bc_matrix.h5") as file:
        matrix = file["matrix"]
        read = {k: matrix[k][:] for k in ("data", "indices", "indptr", "shape", "barcodes")}
        read |= {
            k: matrix["features"][k][:].astype(str)
            for k in ("id", "name", "feature_type", "genome")
        }
        read["chemistry"] = file.attrs["chemistry_description"]
    read["barcodes"] = read["barcodes"].astype(str)
    read["counts"] = sparse.csr_matrix(
        (read["data"], read["indices"], read["indptr"]), shape=read["shape"][::-1]
    )
    return read


@pytest.fixture(scope="module")
def positions():
    return pd.read_csv(SPATIAL / "tissue_positions.csv", index_col="barcode")


@pytest.fixture(scope="module")
def regions(h5):
    return pd.read_csv(SECTION / "regions.csv", index_col="barcode").loc[h5["barcodes"]]


@pytest.fixture(scope="module")
def clr(h5):
    """Antibodies centred over the panel without isotype controls, names without the suffix."""
    antibody = h5["feature_type"] == "Antibody Capture"
    names = [n.removesuffix("_TotalSeqB") for n in h5["name"][antibody]]
    logs = np.log1p(pd.DataFrame(h5["counts"][:, antibody].toarray(), columns=names))
    panel = [n for n in names if not n.startswith("IgG")]
    return logs.sub(logs[panel].mean(axis=1), axis=0)


def test_folder_is_complete_and_small():
    files = {str(p.relative_to(SECTION)): p.stat().st_size for p in SECTION.rglob("*.*")}
    files = {name: size for name, size in files.items() if (SECTION / name).is_file()}
    assert set(files) == {
        "SIMULATED.txt",
        "checksums.json",
        "regions.csv",
        "outs/filtered_feature_bc_matrix.h5",
        "outs/spatial/tissue_positions.csv",
        "outs/spatial/scalefactors_json.json",
        "outs/spatial/tissue_hires_image.png",
        "outs/spatial/tissue_lowres_image.png",
    }
    assert sum(files.values()) < 11e6
    assert (SAMPLE / "profiles.tsv.gz").stat().st_size < 1.5e6


def test_it_says_that_it_is_simulated(h5):
    assert (SECTION / "SIMULATED.txt").read_text().startswith("SIMULATED")
    assert h5["chemistry"].startswith("SIMULATED")
    assert "SIMULATED" in (SAMPLE / "README.md").read_text().splitlines()[0]


def test_features_are_genes_then_antibodies(h5):
    kinds, first = np.unique(h5["feature_type"], return_index=True)
    assert kinds.tolist() == ["Antibody Capture", "Gene Expression"]
    assert first[1] == 0
    n_antibodies = len(h5["name"]) - first[0]
    assert 25 <= n_antibodies <= 35
    assert 12_000 <= first[0] <= 18_000
    assert len(set(h5["name"])) == len(h5["name"])
    assert len(set(h5["id"])) == len(h5["id"])
    assert all(i.startswith("ENSG") and len(i) == 15 for i in h5["id"][: first[0]])
    assert set(h5["genome"][: first[0]]) == {"GRCh38"}
    isotypes = [n for n in h5["name"][first[0] :] if n.startswith("IgG")]
    assert isotypes == [f"IgG{k}_control_TotalSeqB" for k in ("1", "2a", "2b")]


def test_counts_are_positive_integers_of_a_plausible_depth(h5):
    counts, antibody = h5["counts"], h5["feature_type"] == "Antibody Capture"
    assert 2000 <= counts.shape[0] <= 3000
    assert h5["data"].dtype == np.int32
    assert h5["data"].min() == 1
    umi = np.asarray(counts[:, ~antibody].sum(axis=1)).ravel()
    assert 4000 < np.median(umi) < 6500
    assert umi.min() > 100
    assert 1500 < np.median(np.diff(counts[:, ~antibody].indptr)) < 3000
    assert 2500 < np.median(np.asarray(counts[:, antibody].sum(axis=1))) < 5000


def test_lattice_is_the_hexagonal_one_of_visium(positions, h5):
    assert len(positions) == 78 * 64
    assert positions.index.is_unique
    assert positions.index.str.fullmatch("[ACGT]{16}-1").all()
    assert ((positions["array_row"] + positions["array_col"]) % 2 == 0).all()
    assert positions["array_row"].agg(["min", "max"]).tolist() == [0, 77]
    assert positions["array_col"].agg(["min", "max"]).tolist() == [0, 127]
    in_tissue = positions.index[positions["in_tissue"] == 1]
    assert sorted(in_tissue) == list(h5["barcodes"])
    scale = json.loads((SPATIAL / "scalefactors_json.json").read_text())
    micron = scale["spot_diameter_fullres"] / 55
    right = np.polyfit(positions["array_col"], positions["pxl_col_in_fullres"], 1)[0]
    down = np.polyfit(positions["array_row"], positions["pxl_row_in_fullres"], 1)[0]
    assert right / micron == pytest.approx(50, rel=1e-3)
    assert down / micron == pytest.approx(100 * np.sqrt(3) / 2, rel=1e-3)


@pytest.mark.parametrize(("name", "width"), [("hires", 2000), ("lowres", 600)])
def test_images_match_the_scale_factors(positions, name, width):
    scale = json.loads((SPATIAL / "scalefactors_json.json").read_text())
    image = np.asarray(Image.open(SPATIAL / f"tissue_{name}_image.png"))
    assert image.shape == (width, width, 3)
    assert image.dtype == np.uint8
    factor = scale[f"tissue_{name}_scalef"]
    column = (positions["pxl_col_in_fullres"] * factor).astype(int)
    row = (positions["pxl_row_in_fullres"] * factor).astype(int)
    radius = scale["spot_diameter_fullres"] * factor / 2
    assert min(column.min(), row.min()) > radius
    assert max(column.max(), row.max()) < width - radius
    # stained where there is tissue, paper elsewhere: picture and spots lie upon each other
    brightness = image.mean(axis=2)[row, column]
    in_tissue = positions["in_tissue"].to_numpy() == 1
    assert np.mean(brightness[in_tissue] < 215) > 0.95
    assert np.mean(brightness[~in_tissue] > 225) > 0.95


def test_regions_cover_every_spot(regions, h5):
    assert regions.notna().all(axis=None)
    assert len(regions) == len(h5["barcodes"])
    assert set(regions["region"]) == {
        "germinal centre dark zone",
        "germinal centre light zone",
        "mantle",
        "T zone",
        "epithelium",
        "connective tissue",
        "vessel",
    }
    assert 5 <= regions["n_cells"].median() <= 20
    shares = regions.drop(columns=["region", "n_cells"])[regions["n_cells"] > 0].sum(axis=1)
    np.testing.assert_allclose(shares, 1, atol=0.02)
    light = regions["region"] == "germinal centre light zone"
    assert regions.loc[light, "GC B light zone"].mean() > 0.3


@pytest.mark.parametrize(
    ("antibody", "high", "low", "gap"),
    [
        ("CD19", "mantle", "T zone", 0.8),
        ("CD19", "germinal centre dark zone", "T zone", 0.8),
        ("CD20", "germinal centre light zone", "T zone", 0.8),
        ("CD3", "T zone", "mantle", 0.8),
        ("CD3", "T zone", "germinal centre dark zone", 0.8),
        ("CD8a", "T zone", "germinal centre light zone", 0.8),
        ("PD-1", "germinal centre light zone", "germinal centre dark zone", 0.5),
        ("CD21", "germinal centre light zone", "T zone", 0.8),
        ("CD38", "germinal centre dark zone", "mantle", 0.5),
        ("EpCAM", "epithelium", "T zone", 1.5),
        ("CD31", "vessel", "mantle", 0.8),
    ],
)
def test_antibodies_mark_their_compartments(clr, regions, antibody, high, low, gap):
    median = clr[antibody].groupby(regions["region"].to_numpy()).median()
    assert median[high] - median[low] > gap


@pytest.mark.parametrize(
    ("gene", "high", "low", "fold"),
    [
        ("KRT5", "epithelium", "T zone", 10),
        ("COL1A1", "connective tissue", "mantle", 10),
        ("PECAM1", "vessel", "mantle", 2),
        ("MS4A1", "mantle", "T zone", 2),
        ("CD3E", "T zone", "mantle", 2),
        ("CR2", "germinal centre light zone", "T zone", 2),
        ("MKI67", "germinal centre dark zone", "germinal centre light zone", 2),
        ("BCL2", "mantle", "germinal centre dark zone", 2),
    ],
)
def test_genes_mark_their_compartments(h5, regions, gene, high, low, fold):
    counts = h5["counts"]
    values = np.asarray(counts[:, h5["name"] == gene].todense()).ravel()
    total = np.asarray(counts[:, h5["feature_type"] == "Gene Expression"].sum(axis=1)).ravel()
    grouped = pd.DataFrame({"gene": values, "total": total}).groupby(regions["region"].to_numpy())
    share = grouped.sum().eval("gene / total")
    assert share[high] > fold * share[low]


def test_isotype_controls_follow_depth_alone(h5, regions):
    antibody = h5["feature_type"] == "Antibody Capture"
    counts = pd.DataFrame(h5["counts"][:, antibody].toarray(), columns=h5["name"][antibody])
    isotype = counts.filter(like="IgG").sum(axis=1)
    by_region = isotype.groupby(regions["region"].to_numpy()).mean()
    follicle = by_region[["mantle", "germinal centre dark zone", "germinal centre light zone"]]
    assert 0.5 < follicle.mean() / by_region["T zone"] < 2
    assert np.corrcoef(np.log1p(isotype), np.log1p(counts.sum(axis=1)))[0, 1] > 0.3


def test_committed_files_are_those_of_the_checksums(h5, make_section):
    recorded = json.loads((SECTION / "checksums.json").read_text())
    image = np.asarray(Image.open(SPATIAL / "tissue_hires_image.png"))
    found = {
        "counts": make_section.checksum(h5["data"], h5["indices"], h5["indptr"]),
        "image": make_section.checksum(image),
    }
    assert found == recorded


def test_a_small_section_is_reproducible(make_section, tmp_path):
    for folder in ("one", "two"):
        section = make_section.simulate(pixel_um=27.6, n_genes=120)
        make_section.write_section(section, tmp_path / folder)
    names = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*")]
    files = [name for name in names if (tmp_path / "one" / name).is_file()]
    assert len(files) == 8
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert section.rna.shape[1] == 120
    assert 2000 <= section.rna.shape[0] <= 3000
    other = make_section.simulate(pixel_um=27.6, n_genes=120, seed=1)
    assert make_section.checksum(other.protein) != make_section.checksum(section.protein)
