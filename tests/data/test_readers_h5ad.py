"""AnnData files: where tools put positions, images, counts and antibodies."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from sclinguist_core.data.readers import open_section, open_sections
from sclinguist_core.data.write import write_table
from sclinguist_core.errors import InputError

N, G = 36, 10
SYMBOLS = ["CD3E", "CD4", "CD8A", "CD19", "MS4A1", "NCAM1", "PTPRC", "ACTB", "GAPDH", "EPCAM"]
IDS = [f"ENSG{i:011d}" for i in range(G)]


@pytest.fixture
def counts():
    return np.random.default_rng(3).poisson(2.0, (N, G)).astype(np.float32)


@pytest.fixture
def table(counts):
    obs = pd.DataFrame(index=[f"AAAC{i:04d}-1" for i in range(N)])
    return AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=SYMBOLS))


def lattice_positions(pixels_per_column=10.0):
    rows, columns = np.divmod(np.arange(N), 6)
    columns = 2 * columns + rows % 2
    xy = np.column_stack([columns * pixels_per_column, rows * pixels_per_column * np.sqrt(3)])
    return rows, columns, xy + 30


def saved(table, tmp_path, name="sample.h5ad"):
    path = tmp_path / name
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*zarr|Consolidated|.*not unique")
        if path.suffix == ".zarr":
            return write_table(table, path)
        table.write_h5ad(path)
    return path


def test_dissociated_cells(table, counts, tmp_path):
    section = open_section(saved(table, tmp_path))
    assert (section.name, section.assay, section.n_obs) == ("sample", "cells", N)
    assert not section.is_spatial
    assert section.image is None
    assert section.microns_per_pixel is None
    rna = section.rna()
    np.testing.assert_array_equal(rna.counts.toarray(), counts)
    assert rna.names.tolist() == SYMBOLS
    assert rna.ids is None
    with pytest.raises(InputError, match="has no positions"):
        _ = section.positions


def test_spatial_table_in_scanpy_layout(table, tmp_path):
    rows, columns, xy = lattice_positions()
    table.obs["array_row"], table.obs["array_col"] = rows, columns
    table.obsm["spatial"] = xy
    picture = np.random.default_rng(0).random((80, 90, 3)).astype(np.float32)
    table.uns["spatial"] = {
        "V1_Tonsil": {
            "images": {"hires": picture},
            "scalefactors": {"spot_diameter_fullres": 13.0, "tissue_hires_scalef": 0.5},
        }
    }
    section = open_section(saved(table, tmp_path))
    assert section.name == section.library_id == "V1_Tonsil"
    assert section.assay == "visium"
    assert section.spot_diameter == 13.0
    assert section.microns_per_pixel == pytest.approx(5.0)
    np.testing.assert_array_equal(section.positions, xy)
    assert section.image.scale == 0.5
    assert section.image.pixels.dtype == np.uint8
    np.testing.assert_allclose(section.image.pixels / 255, picture, atol=0.002)
    # What the file holds stays as it is, for scanpy.
    assert section.table.uns["spatial"]["V1_Tonsil"]["images"]["hires"].dtype == np.float32


def test_positions_of_cells(table, tmp_path):
    table.obsm["X_spatial"] = np.random.default_rng(0).random((N, 3)).astype(np.float32)
    section = open_section(saved(table, tmp_path))
    assert section.assay == "cells"
    assert section.is_spatial
    assert section.positions.shape == (N, 2)
    assert section.positions.dtype == np.float64
    assert "3 columns" in section.warnings[0]


def test_rows_and_columns_instead_of_pixels(table, tmp_path):
    rows, columns, _ = lattice_positions()
    table.obsm["spatial"] = np.column_stack([rows, columns])
    section = open_section(saved(table, tmp_path))
    assert section.microns_per_pixel == 1.0
    assert section.spot_diameter == 55.0
    assert section.assay == "visium"
    np.testing.assert_allclose(section.positions[1] - section.positions[0], [100, 0])
    np.testing.assert_allclose(
        np.linalg.norm(section.positions[6] - section.positions[0]), 100, rtol=1e-9
    )
    assert section.table.obs["array_row"].tolist() == rows.tolist()
    assert "were placed on Visium's lattice" in section.warnings[0]


def test_positions_that_are_no_numbers(table, tmp_path):
    table.obsm["spatial"] = np.zeros((N, 2))
    table.obsm["spatial"][4] = np.nan
    with pytest.raises(InputError, match=f"1 of {N} positions that are NaN"):
        open_section(saved(table, tmp_path))


def test_counts_in_raw_bring_their_own_genes(table, counts, tmp_path):
    table.raw = table
    small = table[:, :4].copy()
    small.X = np.log1p(small.X.toarray() / 3)
    section = open_section(saved(small, tmp_path))
    assert section.counts_location == "raw"
    rna = section.rna()
    assert rna.counts.shape == (N, G)
    assert rna.names.tolist() == SYMBOLS
    np.testing.assert_array_equal(rna.counts.toarray(), counts)
    assert section.table.n_vars == 4


def test_counts_in_a_layer(table, counts, tmp_path):
    table.layers["counts"] = table.X.copy()
    table.X = np.log1p(counts / 7)
    path = saved(table, tmp_path)
    section = open_section(path)
    assert section.counts_location == "layers/counts"
    assert str(path) in section.warnings[0]
    np.testing.assert_array_equal(section.rna().counts.toarray(), counts)
    assert open_section(path, layer="counts").counts_location == "layers/counts"
    with pytest.raises(InputError, match="its layers are: counts"):
        open_section(path, layer="raw_counts")


def test_log_normalised_alone_is_refused(table, counts, tmp_path):
    table.X = np.log1p(counts / 7)
    path = saved(table, tmp_path)
    with pytest.raises(InputError) as error:
        open_section(path)
    assert str(path) in str(error.value)
    assert "--layer" in str(error.value)


def test_ensembl_ids_as_index(table, tmp_path):
    table.var["feature_name"] = SYMBOLS
    table.var["feature_type"] = "protein_coding"  # a biotype, not an antibody
    table.var_names = IDS
    rna = open_section(saved(table, tmp_path)).rna()
    assert rna.names.tolist() == SYMBOLS
    assert rna.ids.tolist() == IDS


def test_repeated_gene_names(table, tmp_path):
    names = [*SYMBOLS[:8], "TBCE", "TBCE"]
    table.var_names = names
    section = open_section(saved(table, tmp_path))
    assert section.table.var_names[-2:].tolist() == ["TBCE", "TBCE-1"]
    assert section.rna().names.tolist() == names


def test_genes_that_were_not_measured_in_some_cells(table, tmp_path):
    measured = np.ones((N, G), dtype=bool)
    measured[:10, 7:] = False
    table.layers["measured"] = sparse.csr_matrix(measured)
    table.var["feature_types"] = ["Gene Expression"] * 8 + ["Antibody Capture"] * 2
    rna = open_section(saved(table, tmp_path)).rna()
    assert rna.counts.shape == rna.measured.shape == (N, 8)
    np.testing.assert_array_equal(rna.measured.toarray(), measured[:, :8])


# --- measured proteins -------------------------------------------------------------------------


def protein(columns=("CD3", "PD-1 (CD279)", "IgG1")):
    values = np.random.default_rng(4).poisson(30, (N, len(columns))).astype(np.float32)
    return pd.DataFrame(values, columns=list(columns), index=[f"AAAC{i:04d}-1" for i in range(N)])


@pytest.mark.parametrize("key", ["protein", "protein_expression", "ADT", "protein_counts"])
def test_protein_tables_under_usual_keys(table, tmp_path, key):
    table.obsm[key] = protein()
    section = open_section(saved(table, tmp_path))
    pd.testing.assert_frame_equal(section.table.obsm["protein"], protein())
    panel = section.table.uns["protein_panel"]
    assert panel["canonical"].tolist()[:2] == ["CD3", "CD279"]
    assert panel["isotype"].tolist() == [False, False, True]
    assert section.has_protein
    assert section.has_rna


def test_protein_matrix_with_names_in_uns(table, tmp_path):
    table.obsm["protein_expression"] = protein().to_numpy()
    table.uns["protein_names"] = list(protein().columns)
    section = open_section(saved(table, tmp_path))
    pd.testing.assert_frame_equal(section.table.obsm["protein"], protein())


def test_protein_matrix_without_names(table, tmp_path):
    table.obsm["protein_expression"] = protein().to_numpy()
    section = open_section(saved(table, tmp_path))
    assert not section.has_protein
    assert "3 columns without names" in section.warnings[0]


def test_antibodies_among_the_features(table, counts, tmp_path):
    table.var["feature_types"] = ["GEX"] * 7 + ["ADT"] * 3
    section = open_section(saved(table, tmp_path))
    np.testing.assert_array_equal(section.table.obsm["protein"].to_numpy(), counts[:, 7:])
    assert section.rna().counts.shape == (N, 7)
    assert section.table.n_vars == G


def test_antibodies_that_only_their_names_tell(table, tmp_path):
    table.var_names = [*SYMBOLS[:8], "CD3_TotalSeqB", "ADT_CD4"]
    section = open_section(saved(table, tmp_path))
    assert section.table.obsm["protein"].columns.tolist() == ["CD3_TotalSeqB", "ADT_CD4"]
    assert section.rna().counts.shape == (N, 8)


def test_antibodies_alone(table, tmp_path):
    table.var["feature_types"] = "Antibody Capture"
    section = open_section(saved(table, tmp_path))
    assert section.has_protein
    assert not section.has_rna
    with pytest.raises(InputError, match="has no RNA: its 10 features are all antibodies"):
        section.rna()


def test_slashes_cannot_be_stored(table, tmp_path):
    table.obsm["protein_expression"] = protein().to_numpy()
    table.uns["protein_names"] = ["CD11a/CD18", "CD4", "CD4"]
    section = open_section(saved(table, tmp_path))
    columns = ["CD11a-CD18", "CD4", "CD4-1"]
    assert section.table.obsm["protein"].columns.tolist() == columns
    panel = section.table.uns["protein_panel"]
    assert panel.index.tolist() == columns
    assert panel.loc["CD4-1", "canonical"] == "CD4"
    assert "CD11a/CD18 to CD11a-CD18" in section.warnings[0]


def test_normalised_proteins_are_told(table, tmp_path):
    table.obsm["protein"] = protein() - protein().mean()
    (warning,) = open_section(saved(table, tmp_path)).warnings
    assert "negative values" in warning
    table.obsm["protein"] = np.log1p(protein())
    (warning,) = open_section(saved(table, tmp_path)).warnings
    assert "fractional values" in warning


@pytest.mark.parametrize("name", ["again.h5ad", "again.zarr"])
def test_our_own_results_open_again(write_outs, tmp_path, name):
    section = open_section(write_outs().folder)
    predicted = pd.DataFrame(
        np.ones((section.n_obs, 2), np.float32),
        index=section.table.obs_names,
        columns=["CD3", "HLA-DR"],
    )
    section.table.obsm["protein_predicted"] = predicted
    section.table.uns["sclinguist"] = {"model": "bundled"}
    section.table.uns["protein_panel"].loc["CD3E", "note"] = "corrected by hand"
    section.table.layers["sclinguist_imputed"] = section.table.X * np.float32(0.5)
    back = open_section(write_table(section.table, tmp_path / name))
    assert (back.name, back.assay) == (section.name, "visium")
    assert back.microns_per_pixel == pytest.approx(section.microns_per_pixel)
    assert back.spot_diameter == section.spot_diameter
    assert back.counts_location == "X"
    np.testing.assert_array_equal(back.positions, section.positions)
    np.testing.assert_array_equal(back.image.pixels, section.image.pixels)
    np.testing.assert_array_equal(back.rna().counts.toarray(), section.rna().counts.toarray())
    assert back.rna().names.tolist() == section.rna().names.tolist()
    pd.testing.assert_frame_equal(back.table.obsm["protein"], section.table.obsm["protein"])
    pd.testing.assert_frame_equal(back.table.obsm["protein_predicted"], predicted)
    assert back.table.uns["protein_panel"].loc["CD3E", "note"] == "corrected by hand"
    assert back.table.uns["sclinguist"] == {"model": "bundled"}


# --- several sections, bad files ---------------------------------------------------------------


def test_libraries_of_one_file(table, tmp_path):
    table.obs["library_id"] = pd.Categorical(["left"] * 20 + ["right"] * 16)
    _, _, table.obsm["spatial"] = lattice_positions()
    entry = {"images": {}, "scalefactors": {"spot_diameter_fullres": 13.0}}
    table.uns["spatial"] = {"left": entry, "right": entry}
    path = saved(table, tmp_path)
    with pytest.raises(InputError, match=r"2 sections \(left, right\)"):
        open_section(path)
    left, right = open_sections(path)
    assert (left.name, left.n_obs, right.name, right.n_obs) == ("left", 20, "right", 16)
    assert list(right.table.uns["spatial"]) == ["right"]


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_truncated_file(table, tmp_path, keep):
    path = saved(table, tmp_path)
    assert path.stat().st_size > keep
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError) as error:
        open_section(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_hdf5_that_is_no_anndata(tmp_path):
    import h5py

    path = tmp_path / "other.h5ad"
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(3)
    with pytest.raises(InputError, match=r"other\.h5ad' is HDF5 but no AnnData.*found numbers"):
        open_section(path)


def test_repeated_barcodes(table, tmp_path):
    names = table.obs_names.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table.obs_names = [names[1], *names[1:]]
        path = saved(table, tmp_path)
    with pytest.raises(InputError, match=r"1 barcode\(s\) more than once, such as AAAC0001-1"):
        open_section(path)


def test_empty_tables(table, tmp_path):
    with pytest.raises(InputError, match="is empty: 0 barcodes x 10 features"):
        open_section(saved(table[:0].copy(), tmp_path))
    with pytest.raises(InputError, match="is empty: 36 barcodes x 0 features"):
        open_section(saved(table[:, :0].copy(), tmp_path))


def test_zarr_with_pickles_is_not_read(table, tmp_path):
    path = saved(table, tmp_path, "evil.zarr")
    metadata = path / "obs" / "_index" / "zarr.json"
    metadata.write_text(metadata.read_text().replace("vlen-utf8", "numcodecs.pickle"))
    with pytest.raises(InputError, match="Python pickle"):
        open_section(path)


@pytest.mark.parametrize(
    "content", [None, '{"zarr_format": 3, "node_type": "group", "attributes": {}}', "{"]
)
def test_zarr_that_is_something_else(tmp_path, content):
    path = tmp_path / "other.zarr"
    path.mkdir()
    if content:
        (path / "zarr.json").write_text(content)
    with pytest.raises(InputError, match=r"other\.zarr"):
        open_section(path)


# --- real data ---------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "shape", "n_proteins"),
    [
        ("citeseq/bmmc_neurips2021", (1963, 3449), 134),
        ("citeseq/cbmc", (469, 1900), 10),
        ("citeseq/cd8_gse100866", (1774, 11757), 5),
        ("citeseq/eccite_pbmc", (500, 19521), 49),
        ("citeseq/malt_1000", (1000, 33538), 17),
        ("citeseq/pbmc10k", (6855, 4000), 17),
        ("citeseq/pbmc1k", (552, 19870), 17),
        ("citeseq/pbmc5k", (3994, 4000), 32),
        ("citeseq/pbmc_5prime", (5000, 3000), 5),
        ("citeseq/pbmc_wide_panel", (800, 500), 224),
        ("citeseq/teaseq_pbmc", (1262, 9855), 46),
        ("rna_only/pbmc1k_v2", (996, 33538), 0),
        ("rna_only/pbmc1k_v3", (906, 14688), 0),
        ("rna_only/pbmc1k_5prime", (1000, 17890), 0),
    ],
)
def test_files_of_cells(test_data, file, shape, n_proteins):
    section = open_section(test_data / f"{file}.h5ad")
    assert section.rna().counts.shape == shape
    assert section.has_protein == (n_proteins > 0)
    assert section.warnings == ()
    assert (section.rna().measured is not None) == ("bmmc" in file)
    if n_proteins:
        assert section.table.obsm["protein"].shape == (shape[0], n_proteins)
        assert len(section.table.uns["protein_panel"]) == n_proteins


@pytest.mark.data
def test_lymph_node_of_antibodies_alone(test_data):
    section = open_section(test_data / "spatial" / "lymph_node_protein")
    assert section.name == "lymph_node_A1_adt"
    assert not section.has_rna
    columns = section.table.obsm["protein"].columns
    assert len(columns) == 31
    assert {"PTPRC_1", "PTPRC_2"} <= set(columns)
    assert section.microns_per_pixel == 1.0
