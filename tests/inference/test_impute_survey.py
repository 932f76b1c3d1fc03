"""What is said of an entry: from the other genes, the section and the neighbours, never from it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from imputation_model import checkpoint_with_components
from sclinguist_core.data.align import align_genes
from sclinguist_core.data.preprocess import log1p_cp10k
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.inference.impute_calibration import hide_entries
from sclinguist_core.inference.impute_survey import Components, bag_mean, survey
from sclinguist_core.inference.progress import finish
from sclinguist_core.model.feed import Cells
from synthetic import MARKERS, paired_cells

N = 120


@pytest.fixture(scope="module")
def checkpoint():
    return checkpoint_with_components()


@pytest.fixture(scope="module")
def components(checkpoint):
    return Components.of(checkpoint)


@pytest.fixture(scope="module")
def rna(checkpoint):
    cells = paired_cells(N, seed=3)
    return align_genes(as_section(cells).rna(), checkpoint.symbols)


def nothing(rna):
    return sparse.csr_matrix(rna.counts.shape, dtype=bool)


def single(rna, row, gene):
    return sparse.csr_matrix(([True], ([row], [gene])), shape=rna.counts.shape)


def expression(rna, components, hidden):
    share = rna.shares(components.gene_share) - hidden @ components.gene_share
    return log1p_cp10k(rna.counts, share)


def test_states_are_those_of_the_translator_with_the_entries_hidden(checkpoint, components, rna):
    visible, hidden = hide_entries(rna, 0.3, np.random.default_rng(0))
    x = expression(visible, components, hidden)
    model = checkpoint.translator
    tables = model.tables()
    tokens = Cells(values=x, pattern=visible.pattern).tokens(np.arange(N), torch.device("cpu"))
    genes = np.full((N, np.diff(hidden.indptr).max()), -1)
    for row in range(N):
        own = hidden[row].indices
        genes[row, : len(own)] = own
    with torch.inference_mode():
        panel = model.panels(torch.from_numpy(visible.measured), tables).of(tokens.pattern)
        panel = model.hide(panel, torch.from_numpy(genes), tables)
        state = model.linear_read(tokens.genes, tokens.values, panel, tables)[2]
    found = components.states(x, visible.measured, visible.pattern, hidden)
    np.testing.assert_allclose(found, state.numpy(), atol=2e-3)


def test_leaving_an_entry_out_is_solving_without_it(components, rna):
    # Without a prior, which a gene more or less would move a little, the closed form is exact.
    components = replace(components, scale=np.full_like(components.scale, 1e4))
    known = finish(survey(components, rna, nothing(rna)))
    x = expression(rna, components, nothing(rna))
    rows, genes = np.arange(6), np.array([0, 1, 7, 30])
    seen = known.visible(rows, genes)
    assert seen.all()
    said, _ = known._expected(rows, genes, known.expression(rows, genes).toarray(), seen)
    for i, row in enumerate(rows):
        for k, gene in enumerate(genes):
            other = x[[row]].tolil()
            other[0, gene] = 0
            other = other.tocsr()
            other.eliminate_zeros()
            hidden = sparse.csr_matrix(([True], ([0], [gene])), shape=other.shape)
            state = components.states(other, rna.measured, rna.pattern[[row]], hidden)[0]
            assert said[i, k] == pytest.approx(state @ components.loadings[gene], abs=2e-3)


def test_features_of_a_visible_entry_are_nearly_those_of_the_same_entry_hidden(components, rna):
    known = finish(survey(components, rna, nothing(rna)))
    visible_features, hidden_features, own = [], [], []
    for row, gene in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 20), (6, 40), (7, 90)]:
        hidden = single(rna, row, gene)
        counts = rna.counts.tolil()
        counts[row, gene] = 0
        without = replace(rna, counts=sparse.csr_matrix(counts, dtype=np.float32))
        without.counts.eliminate_zeros()
        other = finish(survey(components, without, hidden))
        at = np.array([row]), np.array([gene])
        visible_features.append(known.measured_features(*at)[0, 0, :3])
        hidden_features.append(other.measured_features(*at)[0, 0, :3])
        own.append(known.expression(*at).toarray()[0, 0] - known.mean[gene])
    # What remains is that the library size counts the entry: far less than the entry itself.
    difference = np.abs(np.array(visible_features) - hidden_features)
    assert difference.max() < 0.08
    assert np.abs(own).max() > 1.0


def test_the_section_fits_its_own_use_of_the_components(checkpoint, components, rna):
    known = finish(survey(components, rna, nothing(rna)))
    markers = np.array([checkpoint.symbols.index(gene) for gene in MARKERS.values()])
    x = known.expression(np.arange(N), markers).toarray()
    mean, _, by_section = np.moveaxis(known.measured_features(np.arange(N), markers)[..., :3], 2, 0)
    assert correlation(by_section, x).min() > 0.3
    # The mean is that of the other cells: where a cell has more, it is less.
    np.testing.assert_allclose(mean.mean(axis=0), x.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(correlation(mean, x), -1.0, rtol=1e-3)


def correlation(one, other):
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)])


def test_a_gene_that_was_never_measured_is_expected_from_the_reference(components, checkpoint):
    cells = paired_cells(N, seed=3)
    full = align_genes(as_section(cells).rna(), checkpoint.symbols)
    lacking = align_genes(as_section(cells[:, 1:].copy()).rna(), checkpoint.symbols)
    gene = checkpoint.symbols.index(cells.var_names[0])
    known = finish(survey(components, lacking, nothing(lacking)))
    assert known.n_visible[gene] == 0
    said = known.missing_features(np.arange(N), np.array([gene]))[:, 0]
    np.testing.assert_allclose(said[:, 1], components.mean[gene], rtol=1e-5)
    measured = expression(full, components, nothing(full))[:, [gene]].toarray()[:, 0]
    assert np.corrcoef(said[:, 0], measured)[0, 1] > 0.3


def test_means_over_bags_leave_out_what_is_hidden_or_not_measured(rna):
    counts = sparse.csr_matrix(np.array([[0, 0], [3, 1], [5, 2], [0, 4]], np.float32))
    small = replace(
        rna,
        counts=counts,
        measured=np.array([[True, True], [True, False]]),
        pattern=np.array([0, 0, 0, 1]),
    )
    hidden = sparse.csr_matrix(([True], ([2], [0])), shape=(4, 2))
    small.counts[2, 0] = 0
    small.counts.eliminate_zeros()
    bags = sparse.csr_matrix(np.array([[0, 1, 1, 1]]) / 3)
    size = np.full(4, 1e4)
    mean = np.array([0.5, 0.7])
    found = bag_mean(bags, small, hidden, size, np.array([0]), mean, 3)
    # Rows 1 and 3 (a zero) show the gene, row 2 hides it; the mean counts as a third of a bag.
    assert found[0, 0] == pytest.approx((np.log1p(3) + 0 + 0.5) / 3)


@pytest.mark.parametrize("context", ["nearest", "spatial"])
def test_neighbours_are_one_more_feature(components, rna, context):
    positions = np.random.default_rng(0).random((N, 2))
    known = finish(
        survey(components, rna, nothing(rna), context=context, positions=positions, n_neighbours=5)
    )
    at = np.arange(N), np.arange(5)
    features = known.measured_features(*at)
    assert features.shape == (N, 5, 7)
    assert features.dtype == np.float32
    said = features[0, 0, 3] + known.mean[0]
    others = known.bags[0].indices
    assert len(others) == 5
    values = known.expression(others, np.array([0])).toarray()[:, 0]
    assert said == pytest.approx((values.sum() + known.mean[0]) / 6, rel=1e-4)


def test_hidden_entries_choose_no_neighbours(components, rna):
    visible, hidden = hide_entries(rna, 0.2, np.random.default_rng(0))
    known = finish(survey(components, visible, hidden, context="nearest"))
    noisy = replace(rna, counts=(rna.counts + rna.counts.multiply(hidden) * 9).tocsr())
    keep = noisy.counts - noisy.counts.multiply(hidden)
    keep.eliminate_zeros()
    again = finish(
        survey(components, replace(noisy, counts=keep.tocsr()), hidden, context="nearest")
    )
    assert (known.bags != again.bags).nnz == 0


def test_a_model_without_components_is_refused(checkpoint):
    from sclinguist_core.model.architectures import build_translator

    config = replace(checkpoint.info.model, n_components=0)
    plain = replace(
        checkpoint,
        model=build_translator(config, checkpoint.genes, checkpoint.proteins),
        info=replace(checkpoint.info, model=config),
    )
    with pytest.raises(InputError, match="has no components of expression"):
        Components.of(plain)
