"""Deletion curves: what is taken away, what it is compared with, and the drawing."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from inference.explained import small_checkpoint
from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.deletion import deletion_figure, deletion_iter
from sclinguist_core.inference.explain import explain_iter
from sclinguist_core.inference.perturb import perturb_iter
from sclinguist_core.inference.predict import predict_iter
from sclinguist_core.inference.progress import finish
from synthetic import paired_cells

PROTEINS = ["CD3", "CD19"]


@pytest.fixture(scope="module")
def cells():
    return paired_cells(80)


@pytest.fixture(scope="module")
def checkpoint(cells):
    return small_checkpoint(cells)


@pytest.fixture(scope="module")
def explained(cells, checkpoint):
    options = {"model": checkpoint, "device": "cpu"}
    return finish(explain_iter(as_section(cells), PROTEINS, **options))


@pytest.fixture(scope="module")
def curves(cells, checkpoint, explained):
    steps = deletion_iter(
        as_section(cells), explained, model=checkpoint, device="cpu", counts=(1, 5, 20), draws=2
    )
    return finish(steps)


def test_the_first_genes_move_predictions_more_than_random_ones(curves):
    assert curves.n_rows == 80
    assert curves.noun == "cells"
    assert len(curves.table) == 2 * 4 * 4  # proteins x (first, two random, last) x counts and 0
    moved = curves.summary()["moved"]
    for protein in PROTEINS:
        first, random, last = (moved[protein, order] for order in ("first", "random", "last"))
        assert (first > 2 * random).loc[[5, 20]].all()
        assert (first > 2 * last).loc[[5, 20]].all()
        assert first.is_monotonic_increasing
        assert first[0] == 0
    untouched = curves.table[curves.table["n_genes"] == 0]
    np.testing.assert_allclose(untouched["r_predicted"], 1)
    assert curves.describe(5).startswith("Predictions move without 5 genes, first against random")


def test_a_step_is_a_knockout_of_the_first_genes(cells, checkpoint, explained, curves):
    section = as_section(cells)
    genes = explained.ranked(resamples=0).loc["CD19"].index[:5].tolist()
    out = finish(
        perturb_iter(section, genes, proteins=PROTEINS, model=checkpoint, device="cpu")
    ).change[:, 1]
    before = finish(
        predict_iter(section, proteins=PROTEINS, model=checkpoint, device="cpu")
    ).mean[:, 1]  # fmt: skip
    row = curves.summary().loc[("CD19", "first", 5)]
    np.testing.assert_allclose(row["moved"], np.abs(out).mean() / before.std(), rtol=1e-3)
    np.testing.assert_allclose(row["r_predicted"], pearsonr(before, before + out)[0], rtol=1e-4)
    table = section.table
    isotype = table.uns["protein_panel"]["isotype"].to_numpy(bool)
    clr = protein_clr(table.obsm["protein"], isotype)["CD19"]
    np.testing.assert_allclose(row["r_measured"], pearsonr(clr, before + out)[0], rtol=1e-3)


def test_rows_are_sampled_and_progress_ends_at_its_total(cells, checkpoint, explained):
    steps = deletion_iter(
        as_section(cells), explained, model=checkpoint, device="cpu", counts=(2,), draws=1,
        max_rows=30,
    )  # fmt: skip
    progress = []
    while True:
        try:
            progress.append(next(steps))
        except StopIteration as end:
            result = end.value
            break
    assert result.n_rows == 30
    assert progress[-1].done == progress[-1].total == 30 * (1 + 2 * 3)


def test_without_measured_protein_there_is_no_such_figure(cells, checkpoint, explained):
    bare = cells.copy()
    del bare.obsm["protein"]
    steps = deletion_iter(
        as_section(bare), explained, model=checkpoint, device="cpu", counts=(2,), draws=1
    )
    result = finish(steps)
    assert result.table["r_measured"].isna().all()
    axes = deletion_figure(result).axes
    assert axes[2].get_ylabel() == "change of Pearson with\nthe untouched prediction"


def test_another_model_is_refused(cells, explained):
    other = small_checkpoint(cells[:, :300].copy())
    with pytest.raises(InputError, match="reads other genes than the explained one"):
        finish(deletion_iter(as_section(cells), explained, model=other, device="cpu"))


def test_the_drawing_has_a_panel_a_protein_and_a_curve_an_order(curves, tmp_path):
    figure = deletion_figure(curves)
    assert [ax.get_title() for ax in figure.axes[:2]] == PROTEINS
    assert [len(ax.lines) for ax in figure.axes] == [3, 3, 3, 3]
    moved = curves.summary()["moved"]
    np.testing.assert_allclose(
        figure.axes[0].lines[0].get_ydata(), moved["CD3", "first"].to_numpy()
    )
    falls = figure.axes[3].lines[0].get_ydata()
    measured = curves.summary()["r_measured"]["CD19", "first"].to_numpy()
    np.testing.assert_allclose(falls, measured - measured[0], atol=1e-12)
    figure.savefig(tmp_path / "d.svg")
    assert (tmp_path / "d.svg").stat().st_size > 10_000
