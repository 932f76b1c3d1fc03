"""The reference of the out-of-distribution score: rows as they are met in use."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.made_up import make_cells
from evaluation.tiny_model import tiny_checkpoint
from sclinguist_core.evaluation import reference
from sclinguist_core.evaluation.inputs import as_section
from sclinguist_core.train.corpus import paired_dataset


@pytest.fixture(scope="module")
def data():
    checkpoint = tiny_checkpoint()
    section = replace(as_section(make_cells(200, seed=1)), name="made up", source=None)
    return checkpoint, paired_dataset(section, checkpoint.symbols, checkpoint.protein_names)


def test_rows_vary_in_depth_and_genes(data):
    _, cells = data
    depths, genes = [], []
    for seed in range(12):
        rows = reference.varied_rows(cells, 50, np.random.default_rng(seed), spots=False)
        assert rows.counts.shape == (50, 400)
        assert (rows.counts.data == np.rint(rows.counts.data)).all()
        # Nothing is counted where nothing was measured.
        assert rows.counts[:, ~rows.measured[0]].nnz == 0
        genes.append(int(rows.measured.sum()))
        depths.append(np.asarray(rows.counts.sum(axis=1)).ravel() / genes[-1])
    full = cells.rna.counts.sum() / cells.n_obs / 400
    assert max(genes) == 400
    assert 40 <= min(genes) < 300
    assert np.quantile(np.concatenate(depths), 0.02) < 0.4 * full


def test_spots_are_deeper_than_cells(data):
    _, cells = data
    totals = [
        np.mean(
            [
                reference.varied_rows(cells, 50, np.random.default_rng(seed), spots=spots)
                .counts.sum(axis=1)
                .mean()
                for seed in range(8)
            ]
        )
        for spots in (False, True)
    ]
    assert totals[1] > 1.3 * totals[0]


def test_profiles_are_shares_of_what_may_count(data, monkeypatch):
    monkeypatch.setattr(reference, "BATCHES_PER_SET", 2)
    monkeypatch.setattr(reference, "N_PROFILES", 3)
    checkpoint, cells = data
    fitted = reference.fit_familiarity(checkpoint, [cells], seed=1)
    assert fitted.profiles.shape == (3, 400)
    np.testing.assert_allclose(fitted.profiles.sum(axis=1), 1, rtol=1e-5)
    housekeeping = np.array(
        [reference._NOT_COUNTED.match(name) is not None for name in checkpoint.symbols]
    )
    assert (fitted.profiles[:, housekeeping] == 0).all()
    assert (fitted.profiles[:, ~housekeeping] > 0).all()
    assert fitted.levels.shape == (201,)
    assert (np.diff(fitted.levels) >= 0).all()
    again = reference.fit_familiarity(checkpoint, [cells], seed=1)
    np.testing.assert_array_equal(again.levels, fitted.levels)
