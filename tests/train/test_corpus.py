import numpy as np
import pytest

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.train.corpus import (
    SPOT_CELLS,
    gene_statistics,
    gene_universe,
    paired_dataset,
    protein_universe,
)
from sclinguist_core.train.mixing import pseudo_spots
from synthetic import paired_cells


@pytest.fixture(scope="module")
def section():
    return as_section(paired_cells(300))


def test_universe_holds_genes_that_cells_express(section):
    genes = gene_universe([section])
    assert {"CD3E", "CD19", "CD14", "NCAM1", "CD4"} <= set(genes["symbol"])
    assert genes["symbol"].is_monotonic_increasing
    assert genes.set_index("symbol").loc["CD19", "ensembl_id"] == "ENSG00000177455"


def test_statistics_are_those_of_the_cells(section):
    genes = gene_universe([section])
    aligned = align_genes(section.rna(), genes["symbol"].tolist())
    table = gene_statistics(genes, [aligned]).table
    expression = aligned.expression(table["reference_share"].to_numpy()).toarray()
    np.testing.assert_allclose(table["mean"], expression.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(table["std"], expression.std(axis=0), rtol=1e-3)
    assert table["reference_share"].sum() == pytest.approx(1)


def test_isotypes_are_never_targets(section):
    proteins = protein_universe([section])
    assert proteins["name"].tolist() == ["CD14", "CD19", "CD3", "CD4", "CD56"]
    dataset = paired_dataset(
        section, gene_universe([section])["symbol"].tolist(), proteins["name"].tolist()
    )
    assert dataset.antibodies.shape == (300, 5)
    targets = dataset.targets(dataset.antibodies)
    np.testing.assert_allclose(targets.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(targets.std(axis=0), 1, atol=1e-3)


def test_antibodies_that_the_model_lacks_take_part_in_the_centre():
    section = as_section(paired_cells(200))
    dataset = paired_dataset(section, ["CD3E"], ["CD3", "CD19"])
    logged = np.log1p(section.table.obsm["protein"].drop(columns="IgG1"))
    clr = logged.sub(logged.mean(axis=1), axis=0)[["CD3", "CD19"]].to_numpy()
    expected = (clr - clr.mean(axis=0)) / clr.std(axis=0)
    np.testing.assert_allclose(dataset.targets(dataset.antibodies), expected, atol=1e-4)


def test_spots_are_standardised_among_spots(section):
    names = protein_universe([section])["name"].tolist()
    dataset = paired_dataset(section, ["CD3E"], names)
    rng = np.random.default_rng(5)
    mix = pseudo_spots(np.arange(300), dataset.groups, 1_000, SPOT_CELLS, rng)
    targets = dataset.targets(mix @ dataset.antibodies, spots=True)
    assert np.abs(targets.mean(axis=0)).max() < 0.15
    assert np.abs(targets.std(axis=0) - 1).max() < 0.15


def test_antibodies_that_some_cells_lack_stay_missing():
    adata = paired_cells(60)
    adata.obsm["protein"].iloc[:20, 0] = np.nan
    dataset = paired_dataset(as_section(adata), ["CD3E"], ["CD3", "CD19"])
    targets = dataset.targets(dataset.antibodies)
    assert np.isnan(targets[:20, 0]).all()
    assert np.isfinite(targets[20:]).all()
    assert np.isfinite(targets[:, 1]).all()


def test_cells_without_protein_are_refused():
    adata = paired_cells(30)
    del adata.obsm["protein"]
    with pytest.raises(InputError, match="no measured protein"):
        paired_dataset(as_section(adata), ["CD3E"], ["CD3"])
