"""Space Ranger folders: every layout that versions 1 to 3 and download sites produce."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sclinguist_core.data.readers import open_section, open_sections
from sclinguist_core.errors import InputError

MICRONS_PER_PIXEL, DIAMETER = 5.0, 13.0


def check(section, truth):
    """Everything that a layout must not change."""
    assert section.table.obs_names.tolist() == [
        barcode for barcode, kept in zip(truth.barcodes, truth.in_tissue, strict=True) if kept
    ]
    np.testing.assert_array_equal(section.table.X.toarray(), truth.tissue_counts)
    np.testing.assert_allclose(section.positions, truth.xy[truth.in_tissue])
    assert section.positions.dtype == np.float64
    assert section.spot_diameter == DIAMETER
    assert section.microns_per_pixel == pytest.approx(MICRONS_PER_PIXEL, rel=1e-6)
    assert section.assay == "visium"
    assert section.counts_location == "X"
    rna = section.rna()
    np.testing.assert_array_equal(rna.counts.toarray(), truth.tissue_counts[:, truth.genes])
    assert rna.counts.dtype == np.float32
    assert rna.names.tolist() == [
        name for name, gene in zip(truth.names, truth.genes, strict=True) if gene
    ]
    assert rna.measured is None


@pytest.mark.parametrize("positions", ["list", "list_with_header", "csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("counts", ["filtered.h5", "filtered.mtx", "filtered.mtxgz"])
def test_layouts_of_all_versions(write_outs, counts, positions):
    truth = write_outs(counts=counts, positions=positions)
    section = open_section(truth.folder)
    check(section, truth)
    assert section.name == "sample"
    assert section.warnings == ()
    assert list(section.images) == ["hires", "lowres"]
    np.testing.assert_array_equal(section.image.pixels, truth.pixels)
    assert section.rna().ids.tolist() == [i for i in truth.ids if i.startswith("ENSG")]


@pytest.mark.parametrize("counts", ["filtered.v2", "filtered.genes"])
def test_layouts_without_feature_types(write_outs, counts):
    truth = write_outs(counts=counts, antibodies=False)
    section = open_section(truth.folder)
    check(section, truth)
    assert "feature_types" not in section.table.var
    assert not section.has_protein


@pytest.mark.parametrize(
    "inside",
    [
        ".",
        "..",
        "spatial",
        "filtered_feature_bc_matrix.h5",
        "spatial/tissue_positions.csv",
        "spatial/tissue_hires_image.png",
        "web_summary.html",
    ],
)
def test_any_path_of_the_run_opens_it(write_outs, inside):
    truth = write_outs()
    (truth.folder / "web_summary.html").write_text("<html></html>")
    section = open_section(truth.folder / inside)
    assert section.n_obs == int(truth.in_tissue.sum())
    assert section.name == "sample"
    assert section.image.scale == 1.0


@pytest.mark.parametrize("inside", ["", "matrix.mtx.gz"])
def test_matrix_folder_finds_the_positions_beside_it(write_outs, inside):
    truth = write_outs(counts="filtered.mtxgz")
    check(open_section(truth.folder / "filtered_feature_bc_matrix" / inside), truth)


@pytest.mark.parametrize(
    ("spatial_name", "spatial_prefix"),
    [
        ("spatial", ""),
        ("spatial", "CytAssist_FFPE_"),
        ("CytAssist_FFPE_spatial", ""),
        (".", "CytAssist_FFPE_"),
    ],
)
@pytest.mark.parametrize("counts", ["filtered.h5", "filtered.mtxgz", "filtered.flat"])
def test_prefixes_of_downloads(write_outs, counts, spatial_name, spatial_prefix):
    truth = write_outs(
        "download",
        counts=counts,
        prefix="CytAssist_FFPE_",
        spatial_name=spatial_name,
        spatial_prefix=spatial_prefix,
    )
    section = open_section(truth.folder)
    check(section, truth)
    assert section.name == "CytAssist_FFPE"
    assert section.warnings == ()
    assert list(section.images) == ["hires", "lowres"]


def test_gzipped_files_of_geo(write_outs):
    truth = write_outs("geo", prefix="GSM1_", spatial_name=".", spatial_prefix="GSM1_")
    for name in ("scalefactors_json.json", "tissue_hires_image.png"):
        path = truth.folder / f"GSM1_{name}"
        (truth.folder / f"GSM1_{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    section = open_section(truth.folder)
    check(section, truth)
    np.testing.assert_array_equal(section.images["hires"].pixels, truth.pixels)


def test_two_downloads_in_one_folder(write_outs):
    first = write_outs("both", prefix="A_", spatial_name="A_spatial")
    write_outs("both", prefix="B_", spatial_name="B_spatial", seed=1)
    with pytest.raises(InputError, match="A_spatial, B_spatial"):
        open_section(first.folder)


def test_two_matrices_in_one_folder(write_outs):
    first = write_outs("both", prefix="A_")
    write_outs("both", prefix="B_")
    with pytest.raises(InputError, match=r"2 count matrices \(A_filtered.*, B_filtered"):
        open_section(first.folder)
    section = open_section(first.folder / "A_filtered_feature_bc_matrix.h5")
    assert section.name == "A"


def test_filtered_matrix_before_raw_and_h5_before_mtx(write_outs):
    truth = write_outs(counts="filtered.h5")
    (truth.folder / "raw_feature_bc_matrix.h5").write_bytes(b"not read")
    (truth.folder / "filtered_feature_bc_matrix").mkdir()
    (truth.folder / "filtered_feature_bc_matrix" / "matrix.mtx").write_bytes(b"not read")
    check(open_section(truth.folder), truth)


@pytest.mark.parametrize("counts", ["raw.h5", "raw.mtxgz"])
def test_raw_matrix_is_restricted_to_tissue(write_outs, counts):
    truth = write_outs(counts=counts)
    section = open_section(truth.folder)
    check(section, truth)
    n_tissue = int(truth.in_tissue.sum())
    assert 0 < n_tissue < len(truth.barcodes)
    assert len(section.warnings) == 1
    assert f"{n_tissue} of {len(truth.barcodes)} spots under tissue" in section.warnings[0]
    assert set(section.table.obs["in_tissue"]) == {1}


@pytest.mark.parametrize(("suffix", "position_suffix"), [("", ""), ("", "-1"), ("-1", "")])
def test_barcodes_with_and_without_suffix(write_outs, suffix, position_suffix):
    truth = write_outs(suffix=suffix, position_suffix=position_suffix)
    check(open_section(truth.folder), truth)


def test_lowres_image_alone(write_outs):
    truth = write_outs(images=("lowres",))
    section = open_section(truth.folder)
    check(section, truth)
    assert section.image.name == "lowres"
    assert section.image.scale == 0.5
    assert section.image.shape == (60, 75)
    np.testing.assert_array_equal(section.image.pixels, truth.pixels[::2, ::2])
    assert section.warnings == ()


def test_no_image(write_outs):
    section = open_section(write_outs(images=()).folder)
    assert section.image is None
    assert len(section.warnings) == 1
    assert "has no image" in section.warnings[0]


def test_measured_proteins_stay_in_x_and_go_to_obsm(write_outs):
    truth = write_outs()
    section = open_section(truth.folder)
    protein = section.table.obsm["protein"]
    # Two antibodies share the name PTPRC: their ids tell them apart.
    assert protein.columns.tolist() == ["CD3E", "PTPRC.1", "PTPRC.2", "mouse-IgG2bk"]
    np.testing.assert_array_equal(protein.to_numpy(), truth.tissue_counts[:, ~truth.genes])
    assert section.has_protein
    assert section.has_rna
    assert section.table.n_vars == 12
    assert section.table.var_names.is_unique
    panel = section.table.uns["protein_panel"]
    assert panel.index.tolist() == protein.columns.tolist()
    assert panel.loc["mouse-IgG2bk", "isotype"]
    assert panel.loc["CD3E", "status"] == "resolved"


def test_repeated_names_are_unique_in_the_table_and_original_for_resolution(write_outs):
    section = open_section(write_outs().folder)
    assert section.table.var_names[4:6].tolist() == ["TBCE", "TBCE-1"]
    assert section.rna().names[4:6].tolist() == ["TBCE", "TBCE"]


def test_scanpy_layout(write_outs):
    truth = write_outs()
    section = open_section(truth.folder, name="my section")
    assert section.name == section.library_id == "my section"
    entry = section.table.uns["spatial"]["my section"]
    assert entry["scalefactors"]["tissue_lowres_scalef"] == 0.5
    np.testing.assert_array_equal(entry["images"]["hires"], truth.pixels)
    assert entry["metadata"]["software_version"] == "spaceranger-2.1.0"
    assert section.table.obs[["in_tissue", "array_row", "array_col"]].shape[1] == 3


def test_square_lattice_has_no_known_pixel_size(write_outs):
    truth = write_outs(positions="csv")
    path = truth.folder / "spatial" / "tissue_positions.csv"
    frame = pd.read_csv(path)
    frame["array_col"] = frame["array_col"] // 2
    frame.to_csv(path, index=False)
    assert open_section(truth.folder).microns_per_pixel is None


def test_spots_beside_the_image_are_told(write_outs):
    truth = write_outs(scalefactors={"tissue_hires_scalef": 4.0})
    (warning,) = open_section(truth.folder).warnings
    assert "lie outside the image 'hires' (150 x 120 pixels)" in warning


def test_empty_spots_are_kept_with_a_warning(write_outs):
    truth = write_outs(counts="filtered.mtx")
    path = truth.folder / "filtered_feature_bc_matrix" / "matrix.mtx"
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("%")]
    entries = [line for line in lines[len(head) + 1 :] if line.split()[1] != "1"]
    shape = lines[len(head)].split()[:2]
    path.write_text("\n".join([*head, f"{shape[0]} {shape[1]} {len(entries)}", *entries]) + "\n")
    section = open_section(truth.folder)
    assert section.n_obs == int(truth.in_tissue.sum())
    assert section.warnings[0].startswith(f"1 of {section.n_obs} spots have no counts")
    assert section.rna().counts[0].nnz == 0


def test_some_barcodes_without_position_are_left_out(write_outs):
    truth = write_outs(positions="csv")
    path = truth.folder / "spatial" / "tissue_positions.csv"
    frame = pd.read_csv(path)
    frame = frame[frame["barcode"] != truth.barcodes[3]]
    frame.to_csv(path, index=False)
    section = open_section(truth.folder)
    assert section.n_obs == len(truth.barcodes) - 1
    assert truth.barcodes[3] not in section.table.obs_names
    assert section.warnings[0].startswith(f"1 of {len(truth.barcodes)} barcodes have no position")


def test_16_bit_grey_and_transparent_images_become_rgb(write_outs):
    truth = write_outs()
    spatial = truth.folder / "spatial"
    ramp = np.linspace(0, 65535, 120 * 150).astype(np.uint16).reshape(120, 150)
    Image.fromarray(ramp).save(spatial / "tissue_hires_image.png")
    Image.new("RGBA", (75, 60), (7, 8, 9, 0)).save(spatial / "tissue_lowres_image.png")
    images = open_section(truth.folder).images
    assert images["hires"].pixels.shape == (120, 150, 3)
    assert images["hires"].pixels.min() == 0
    assert images["hires"].pixels.max() == 255
    assert images["lowres"].pixels[0, 0].tolist() == [7, 8, 9]


def test_several_sections(write_outs, tmp_path):
    first, second = write_outs("a/one/outs"), write_outs("a/two/outs", seed=1)
    third = write_outs("b/one/outs", seed=2)
    with pytest.raises(InputError, match=r"3 sections \(a/one/outs, a/two/outs, b/one/outs\)"):
        open_section(tmp_path)
    sections = open_sections(tmp_path)
    assert [section.name for section in sections] == ["one", "two", "one_2"]
    for section, truth in zip(sections, (first, second, third), strict=True):
        check(section, truth)
        assert list(section.table.uns["spatial"]) == [section.name]
    assert [s.name for s in open_sections([second.folder, first.folder])] == ["two", "one"]


# --- bad input -------------------------------------------------------------------------------


def one_sentence(error, *parts):
    text = str(error.value)
    for part in parts:
        assert part in text
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize("keep", [0, 10, 600])
def test_truncated_h5(write_outs, keep):
    truth = write_outs()
    path = truth.folder / "filtered_feature_bc_matrix.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, str(path), "damaged", "fetch it again")


@pytest.mark.parametrize("keep", [3, 2000])
def test_truncated_image(write_outs, keep):
    truth = write_outs()
    path = truth.folder / "spatial" / "tissue_hires_image.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, str(path), "cannot be read as an image")
    assert " at 0x" not in str(error.value)


def test_image_bomb(write_outs):
    truth = write_outs()
    path = truth.folder / "spatial" / "tissue_hires_image.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, str(path), "at most 150 million")


def test_matrix_of_another_shape(write_outs):
    truth = write_outs(counts="filtered.mtx")
    path = truth.folder / "filtered_feature_bc_matrix" / "barcodes.tsv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    n = len(truth.barcodes)
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, f"is 12 x {n}", f"12 features (features.tsv) x {n - 2} barcodes")


def test_damaged_matrix(write_outs):
    truth = write_outs(counts="filtered.mtxgz")
    path = truth.folder / "filtered_feature_bc_matrix" / "matrix.mtx.gz"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, str(path), "damaged")


def test_missing_features(write_outs):
    truth = write_outs(counts="filtered.mtx")
    (truth.folder / "filtered_feature_bc_matrix" / "features.tsv").unlink()
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, "has no features.tsv")


def test_positions_of_another_slide(write_outs):
    truth = write_outs(positions="list")
    other = write_outs("other/outs", positions="list", seed=5)
    name = "spatial/tissue_positions_list.csv"
    (truth.folder / name).write_bytes((other.folder / name).read_bytes())
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, f"Only 0 of the {len(truth.barcodes)} barcodes", truth.barcodes[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spot_diameter_fullres", 0),
        ("tissue_hires_scalef", -0.1),
        ("tissue_lowres_scalef", "large"),
        ("spot_diameter_fullres", None),
    ],
)
def test_nonsense_scalefactors(write_outs, key, value):
    truth = write_outs(scalefactors={key: value})
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, key, repr(value), "a number above zero")


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_scalefactors_missing_or_no_json(write_outs, content):
    truth = write_outs()
    path = truth.folder / "spatial" / "scalefactors_json.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, "scalefactors_json.json")


def test_scale_of_an_image_missing(write_outs):
    truth = write_outs()
    path = truth.folder / "spatial" / "scalefactors_json.json"
    scales = json.loads(path.read_text())
    del scales["tissue_hires_scalef"]
    path.write_text(json.dumps(scales))
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, "tissue_hires_scalef = None")


def test_positions_missing(write_outs):
    truth = write_outs()
    (truth.folder / "spatial" / "tissue_positions.csv").unlink()
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, "has no positions of spots")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "is empty"),
        ("AAAC-1,1,2\n", "3 columns and no header"),
        ("barcode,in_tissue\nA,1\n", "lacks the column(s) array_row"),
    ],
)
def test_bad_positions(write_outs, content, part):
    truth = write_outs()
    (truth.folder / "spatial" / "tissue_positions.csv").write_text(content)
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, part)


def test_repeated_positions(write_outs):
    truth = write_outs()
    path = truth.folder / "spatial" / "tissue_positions.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, "1 barcode(s) twice", lines[1].split(",")[0])


def test_repeated_barcodes(write_outs):
    truth = write_outs(counts="filtered.mtx")
    path = truth.folder / "filtered_feature_bc_matrix" / "barcodes.tsv"
    lines = path.read_text().splitlines()
    lines[1] = lines[0]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, "1 barcode(s) more than once", lines[0])


def test_positions_but_no_counts(write_outs):
    truth = write_outs()
    (truth.folder / "filtered_feature_bc_matrix.h5").rename(
        truth.folder / "filtered_feature_bc_matrix.tar.gz"
    )
    for path in (truth.folder, truth.folder.parent, truth.folder / "spatial"):
        with pytest.raises(InputError) as error:
            open_section(path)
        one_sentence(error, "no counts", "unpack filtered_feature_bc_matrix.tar.gz")


def test_no_spot_under_tissue(write_outs):
    truth = write_outs()
    path = truth.folder / "spatial" / "tissue_positions.csv"
    pd.read_csv(path).assign(in_tissue=0).to_csv(path, index=False)
    with pytest.raises(InputError) as error:
        open_section(truth.folder)
    one_sentence(error, f"None of the {len(truth.barcodes)} spots")


def test_objects_beside_the_run_do_not_stand_for_it(write_outs):
    truth = write_outs()
    (truth.folder / "seurat.rds").write_bytes(b"content")
    with pytest.raises(InputError) as error:
        open_section(truth.folder / "seurat.rds")
    one_sentence(error, "seurat.rds", "convert the Seurat object")


def test_layer_and_bin_size_that_cannot_be(write_outs):
    truth = write_outs()
    with pytest.raises(InputError, match=r"No layer 'counts'.*its layers are: none"):
        open_section(truth.folder, layer="counts")
    with pytest.raises(InputError, match=r"bin_size=8 .*has no bins"):
        open_section(truth.folder, bin_size=8)


# --- real data ---------------------------------------------------------------------------------


@pytest.mark.data
def test_tonsil_composite(test_data):
    section = open_section(test_data / "spatial" / "tonsil_composite")
    assert section.name == "tonsil_composite"
    assert section.table.shape == (3094, 33124)
    assert section.table.obsm["protein"].shape == (3094, 17)
    assert section.rna().counts.shape == (3094, 33107)
    # The slide's own affine: 27.97 px are 65 µm.
    assert section.microns_per_pixel == pytest.approx(65 / section.spot_diameter, rel=1e-3)
    assert section.image.shape == (2000, 1977)
    assert section.warnings == ()
    panel = section.table.uns["protein_panel"]
    assert panel.loc["PD-1_TotalSeqB", "canonical"] == "CD279"
    assert panel["isotype"].sum() == 3


@pytest.mark.data
def test_square_lattice_of_human_ducts(test_data):
    section = open_section(test_data / "spatial" / "human_ducts_rna")
    assert section.table.shape == (2172, 36601)
    assert section.microns_per_pixel is None
    assert list(section.images) == ["lowres"]
    assert section.image.scale == 0.1
    inside = section.positions * section.image.scale
    assert inside.min() > 0
    assert inside.max() < 600


@pytest.mark.data
def test_mouse_embryo(test_data):
    section = open_section(test_data / "spatial" / "mouse_embryo_rna" / "outs")
    assert section.table.shape == (2898, 19465)
    assert section.name == "mouse_embryo_rna"
    assert section.microns_per_pixel == pytest.approx(4.678, abs=1e-3)
    assert not section.has_protein
    assert section.rna().ids[0] == "ENSMUSG00000051951"


@pytest.mark.data
def test_fixtures_of_other_readers(test_data):
    folder = test_data / "spatial" / "reader_fixtures"
    scanpy_fixture = open_section(folder / "visium_scanpy" / "1.0.0")
    assert scanpy_fixture.table.shape == (100, 100)
    assert scanpy_fixture.table.X.nnz == 656
    with pytest.raises(InputError, match="counts probes, not genes"):
        open_section(folder / "visium_scanpy" / "2.1.0" / "raw_probe_bc_matrix.h5")
    first, second = open_sections(folder / "visium_visiumio")
    assert (first.name, second.name) == ("section1", "section2")
    assert first.table.shape == second.table.shape == (22, 49)


@pytest.mark.data
def test_opening_imports_nothing_heavy(test_data):
    """One process, from nothing to the open section."""
    code = (
        "import sys; from sclinguist_core.data.readers import open_section\n"
        f"open_section({str(test_data / 'spatial' / 'tonsil_composite')!r})\n"
        "heavy = {'torch', 'scanpy', 'squidpy', 'spatialdata', 'spatialdata_io', 'sklearn',"
        " 'matplotlib', 'napari', 'qtpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
