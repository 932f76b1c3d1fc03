"""Genes of a section by the model's components of expression, with weights the section teaches.

Shapes: n cells or spots, V genes of the model, K imputed genes.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.inference.impute_calibration import (
    BLOCK_ROWS,
    Calibrator,
    entries_of,
    estimate_entries,
    fit_calibrator,
)
from sclinguist_core.inference.impute_methods import (
    FIT_SHARE,
    HIDDEN_SHARE,
    KnownEntries,
    StateImputer,
)
from sclinguist_core.inference.impute_scores import Figures, Found
from sclinguist_core.inference.progress import Progress

NAMED_SHARE, MAX_NAMED = 0.5, 50
"""More is hidden of genes that the user names, while they are few, so that rare ones are tested."""


def impute_by_components(
    imputer: StateImputer, rna: AlignedRna, chosen: np.ndarray
) -> Generator[Progress, None, Found]:
    """Impute chosen genes of all rows; yields progress.

    Parameters
    ----------
    imputer
        What describes the entries.
    rna
        Counts; every row has some.
    chosen
        Genes to impute, int64, shape (K,).
    """
    learned = yield from learn(imputer, rna, chosen)
    nothing = sparse.csr_matrix(rna.counts.shape, dtype=bool)
    known = yield from imputer.survey(rna, nothing, "reading cells")
    measured = known.n_visible[chosen] > 0
    value = np.empty((rna.n_obs, len(chosen)), np.float32)
    level = np.empty(value.shape, np.int8)
    for start in range(0, rna.n_obs, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, rna.n_obs))
        for columns, describe, calibrator in (
            (np.flatnonzero(measured), known.measured_features, learned.measured),
            (np.flatnonzero(~measured), known.missing_features, learned.missing),
        ):
            if not len(columns):
                continue
            features = describe(rows, chosen[columns])
            said = calibrator.predict(features.reshape(-1, features.shape[-1]))
            at = np.ix_(rows, columns)
            value[at] = said.value.reshape(len(rows), -1)
            level[at] = said.level.reshape(len(rows), -1)
        yield Progress(int(rows[-1]) + 1, rna.n_obs, "imputing")
    return Found(value=value, level=level, figures=learned.figures)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Learned:
    """Weights that a section taught, and how well they did on others of its rows.

    Attributes
    ----------
    measured, missing
        Weights for genes that the section measured, and for those that it lacks.
    figures
        With those of genes treated as if never measured (``never_measured_...``).
    """

    measured: Calibrator
    missing: Calibrator
    figures: Figures


def learn(
    imputer: StateImputer, rna: AlignedRna, chosen: np.ndarray
) -> Generator[Progress, None, Learned]:
    """Hide entries of a section, fit the weights on some rows and test them on the others.

    Parameters
    ----------
    imputer, rna, chosen
        See `impute_by_components`.
    """
    rng = np.random.default_rng(imputer.seed)
    nothing = sparse.csr_matrix(rna.counts.shape, dtype=bool)
    share = np.full(rna.counts.shape[1], HIDDEN_SHARE)
    if len(chosen) <= MAX_NAMED:
        share[chosen] = NAMED_SHARE
    known = KnownEntries.draw(rna, nothing, imputer.gene_share, 1.0, rng, share=share)
    found = yield from imputer.survey(known.visible, known.hidden, "hiding entries")
    fit_rows = rng.random(rna.n_obs) < FIT_SHARE
    row = np.repeat(np.arange(rna.n_obs), np.diff(known.drawn.indptr))
    fit = fit_rows[row]
    to_fit, to_test = (entries_of(known.drawn, rows) for rows in (fit_rows, ~fit_rows))
    value, level = known.value[~fit], known.level[~fit]
    overall: dict[str, float] = {}
    calibrators = []
    for prefix, describe in (
        ("never_measured_", found.missing_features),
        ("", found.measured_features),
    ):
        yield Progress(0, rna.n_obs, "learning")
        calibrator = fit_calibrator(describe, to_fit, known.value[fit], known.level[fit], rng)
        said = yield from estimate_entries(describe, calibrator, to_test, phase="testing")
        figures = Figures.of_entries(
            value, level, said.value, said.level, to_test.indices, rna.counts.shape[1],
            prefix=prefix,
        )  # fmt: skip
        overall |= figures.overall
        calibrators.append(calibrator)
    return Learned(
        measured=calibrators[1],
        missing=calibrators[0],
        figures=Figures(overall=overall, by_gene=figures.by_gene),
    )
