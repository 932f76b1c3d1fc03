import numpy as np
import pytest
import torch

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.model.architectures import build_translator
from sclinguist_core.model.config import TranslatorConfig
from sclinguist_core.model.feed import Cells
from sclinguist_core.model.state import RIDGE
from sclinguist_core.train.components import PROTEIN_RIDGE, fit_components
from sclinguist_core.train.corpus import (
    gene_statistics,
    gene_universe,
    paired_dataset,
    protein_universe,
)
from synthetic import MARKERS, paired_cells

CONFIG = TranslatorConfig(gene_dim=8, width=8, n_latents=2, n_heads=2, n_layers=0, n_components=6)


def fitted(sections, config=CONFIG):
    genes = gene_universe(sections)
    symbols = genes["symbol"].tolist()
    aligned = [align_genes(section.rna(), symbols) for section in sections]
    statistics = gene_statistics(genes, aligned)
    proteins = protein_universe(sections)
    datasets = [paired_dataset(s, symbols, proteins["name"].tolist()) for s in sections]
    torch.manual_seed(0)
    model = build_translator(config, statistics.table, proteins)
    fit_components(model, aligned, statistics.share, datasets)
    return model.eval(), statistics, datasets


def read(model, statistics, rna):
    expression = rna.expression(statistics.share)
    tables = model.tables()
    panel = model.panels(torch.from_numpy(rna.measured), tables)
    tokens = Cells(values=expression, pattern=rna.pattern).tokens(
        np.arange(rna.n_obs), torch.device("cpu")
    )
    with torch.inference_mode():
        return model(tokens.genes, tokens.values, panel.of(tokens.pattern), tables)


def correlation(x, y):
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(x.T, y.T, strict=True)])


@pytest.fixture(scope="module")
def one():
    return fitted([as_section(paired_cells(400))])


def test_the_regression_predicts_cells_that_it_has_not_seen(one):
    model, statistics, _ = one
    other = as_section(paired_cells(200, seed=7))
    names = sorted(MARKERS)
    data = paired_dataset(other, statistics.symbols, names)
    regression = read(model, statistics, data.rna).heads[-1].numpy()[:, data.protein]
    r = correlation(regression, data.targets(data.antibodies))
    assert r.mean() > 0.6


def test_components_explain_more_than_as_many_genes_would(one):
    model, statistics, _ = one
    loadings = model.state.loadings.numpy()
    assert loadings.shape == (len(statistics.table), 6)
    share = (loadings**2).sum(axis=0) * model.state.scale.numpy() ** 2
    assert share.sum() / len(loadings) > 2 * 6 / len(loadings)


def test_fewer_genes_do_not_shrink_the_state(one):
    model, statistics, datasets = one
    rna = datasets[0].rna
    half = rna.measured.copy()
    half[:, ::2] = False
    fewer = type(rna)(
        counts=rna.counts.multiply(half).tocsr().astype(np.float32), measured=half,
        pattern=rna.pattern,
    )  # fmt: skip
    fewer.counts.eliminate_zeros()
    full, part = (read(model, statistics, each).heads[-1].numpy() for each in (rna, fewer))
    assert part.std() > 0.6 * full.std()
    assert correlation(part, full).mean() > 0.6


def test_a_set_that_lacks_genes_does_not_pull_their_loadings_to_zero():
    whole = as_section(paired_cells(300))
    adata = paired_cells(300, seed=3, name="few")
    few = as_section(adata[:, : adata.n_vars // 2].copy())
    size = []
    for sections in ([whole], [whole, few]):
        model, statistics, _ = fitted(sections)
        last = statistics.table["symbol"].isin(adata.var_names[-50:]).to_numpy()
        size.append(float(np.linalg.norm(model.state.loadings.numpy()[last])))
    assert size[1] > 0.6 * size[0]


def test_less_evidence_gives_own_mrna_more_weight():
    both = as_section(paired_cells(200))
    only_two = paired_cells(200, seed=3, name="two")
    only_two.obsm["protein"] = only_two.obsm["protein"][["CD3", "CD19"]]
    model, _, _ = fitted([both, as_section(only_two)])
    gain = dict(zip(sorted(MARKERS), model.cognate_gain.tolist(), strict=True))
    assert gain["CD3"] == gain["CD19"] == pytest.approx(0.2)
    assert gain["CD4"] == gain["CD56"] == pytest.approx(0.3)


def test_cells_in_which_a_protein_was_not_measured_do_not_teach_it():
    adata = paired_cells(300)
    lacking = adata.copy()
    lacking.obsm["protein"].iloc[:150, lacking.obsm["protein"].columns.get_loc("CD19")] = np.nan
    model, statistics, (data,) = fitted([as_section(lacking)])
    column = sorted(MARKERS).index("CD19")
    states = _states_of(model, data, statistics.share)
    target = data.targets(data.antibodies)[:, data.protein == column][:, 0]
    rows = np.flatnonzero(np.isfinite(target))
    assert len(rows) == 150
    centred = states[rows] - states[rows].mean(axis=0)
    square = centred.T @ centred
    ridge = PROTEIN_RIDGE * np.trace(square) / len(square)
    weight = np.linalg.solve(square + ridge * np.eye(len(square)), centred.T @ target[rows])
    found = model.state_heads.weight.numpy()[column] / model.state.scale.numpy()
    np.testing.assert_allclose(found, weight, rtol=2e-3, atol=1e-4)


def _states_of(model, data, share):
    """Unstandardised states, as the closed form sees them."""
    loadings = model.state.loadings.numpy().astype(np.float64)
    rna = data.rna
    z = (rna.expression(share).toarray() - model.gene_mean.numpy()) / model.gene_std.numpy()
    z = np.clip(z, -model.config.clip, model.config.clip)
    gram = loadings.T @ loadings + RIDGE * np.eye(loadings.shape[1])
    return np.linalg.solve(gram, (z @ loadings).T).T


def test_without_components_nothing_happens():
    section = as_section(paired_cells(60))
    model, _, _ = fitted([section], TranslatorConfig(gene_dim=8, width=8, n_heads=2))
    assert model.state is None
    assert not any("state" in name for name in model.state_dict())
