"""Panel expansion: what measured antibodies of a section say of the proteins that were not.

The prediction from RNA is the start. Where the measured proteins of a cell lie above or below it,
other proteins are moved by what such errors have in common with theirs
(`sclinguist_core.model.conditioning`): Gaussian conditioning of the errors. The column of a
measured protein is conditioned on the *other* measured proteins, so that it can be compared with
its measurement.

Shapes: n rows, P proteins, A antibodies given, M proteins that they measure.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclinguist_core.data.preprocess import protein_clr, standardize
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference.trust import MIN_ROWS, Judged
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.conditioning import ErrorFactors, digest
from sclinguist_core.vocabulary.proteins import resolve_protein

MEASURED = "measured"
"""In the place of names: every antibody that the model can make use of."""
MIN_GIVEN = 3
"""The CLR of fewer antibodies says how they relate to each other and hardly what a cell has."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Given:
    """Measured antibodies that predictions are conditioned on.

    Attributes
    ----------
    counts
        Raw counts, float64, shape (n, A); NaN where not measured.
    protein
        Position of each antibody's protein in the model's panel, int64, shape (A,).
    factors
        How errors go together in this context.
    names
        Canonical names of the proteins, length M.
    unused
        Antibodies that were given and say nothing: not of the model, or in no held-out set.
    digest
        Of the checkpoint's factors.
    """

    counts: np.ndarray
    protein: np.ndarray
    factors: ErrorFactors
    names: list[str]
    unused: list[str]
    digest: str


def given_antibodies(
    section: Section, checkpoint: Checkpoint, given: str | Sequence[str], context: str
) -> Given:
    """Find the antibodies to condition on, before work is spent.

    Parameters
    ----------
    section
        With ``obsm["protein"]``.
    checkpoint
        With factors for the context.
    given
        `MEASURED`, or names of proteins in any spelling.
    context
        ``"cells"`` or ``"spots"``.

    Raises
    ------
    InputError
        If the section or the model has not what it takes, a protein was not measured, or fewer
        than `MIN_GIVEN` are left.
    """
    if checkpoint.conditioning is None or context not in checkpoint.conditioning:
        raise InputError(
            f"given: the model {checkpoint.info.name!r} does not know how errors on {context} go "
            "together (it has no conditioning.safetensors for them); use the bundled model, or "
            "leave it out."
        )
    if not section.has_protein:
        raise InputError(
            f"{section.name}: has no measured proteins, expected antibody counts in "
            "obsm['protein'] to condition on; leave out what is given."
        )
    if section.n_obs < MIN_ROWS:
        raise InputError(
            f"{section.name}: {section.n_obs} rows, expected at least {MIN_ROWS} to bring measured "
            "proteins to the model's scale; leave out what is given."
        )
    panel: pd.DataFrame = section.table.uns["protein_panel"]
    antibodies = panel[(panel["status"] == "resolved") & ~panel["isotype"]]
    if given != MEASURED:
        wanted = [resolve_protein(name).name for name in given]
        missing = [name for name in wanted if name not in set(antibodies["canonical"])]
        if missing:
            raise InputError(
                f"{section.name}: {', '.join(missing)} was not measured, expected some of "
                f"{', '.join(dict.fromkeys(antibodies['canonical']))}."
            )
        antibodies = antibodies[antibodies["canonical"].isin(wanted)]
    factors = checkpoint.conditioning[context]
    position = pd.Index(checkpoint.protein_names).get_indexer(antibodies["canonical"])
    useful = (position >= 0) & factors.known[position]
    names = list(dict.fromkeys(antibodies["canonical"][useful]))
    if len(names) < MIN_GIVEN:
        raise InputError(
            f"{section.name}: {len(names)} given proteins that the model can make use of "
            f"({', '.join(names) or 'none'}), expected at least {MIN_GIVEN}."
        )
    counts = section.table.obsm["protein"][antibodies.index[useful]]
    return Given(
        counts=counts.to_numpy(np.float64),
        protein=position[useful].astype(np.int64),
        factors=factors,
        names=names,
        unused=antibodies.index[~useful].tolist(),
        digest=digest(checkpoint.conditioning),
    )


def condition(judged: Judged, given: Given) -> Generator[int, None, Judged]:
    """Condition calibrated predictions of all proteins of a model on measured ones.

    Parameters
    ----------
    judged
        Predictions from RNA alone, of all P proteins of the model.
    given
        Measured antibodies of the same rows.

    Yields
    ------
    How many of the M + 1 steps are done.

    Returns
    -------
    Judged
        With shifted values and intervals, the latter narrower by the share of the error that the
        given proteins explain. Labels and expected correlations stay those of RNA alone.
    """
    values = {
        "mean": judged.mean.copy(), "std": judged.std.copy(),
        "low": judged.low.copy(), "high": judged.high.copy(),
    }  # fmt: skip
    size = np.sqrt(np.nanmean(judged.std.astype(np.float64) ** 2, axis=0))  # (P,)
    measured = np.unique(given.protein)
    hidden = np.setdiff1d(np.flatnonzero(given.factors.known), measured)
    # Nothing is left out for the proteins that were not measured.
    questions = [(np.zeros(0, np.int64), hidden), *((p[None], p[None]) for p in measured)]
    for number, (left_out, asked) in enumerate(questions):
        yield number
        proteins, errors = _errors(judged, given, np.isin(given.protein, left_out))
        covariance = given.factors.between(proteins, asked)
        weights = np.linalg.solve(given.factors.among(proteins), covariance)
        # Of a unit of error variance of each asked protein, what the given ones leave.
        left = np.clip(1.0 - (covariance * weights).sum(axis=0), 0.0, 1.0)
        before = judged.mean[:, asked]
        after = (before + (errors @ weights) * size[asked]).astype(np.float32)
        shrink = np.sqrt(left).astype(np.float32)
        values["mean"][:, asked] = after
        values["std"][:, asked] = judged.std[:, asked] * shrink
        for end in ("low", "high"):
            reach = getattr(judged, end)[:, asked] - before
            values[end][:, asked] = after + reach * shrink
    return Judged(**values, labels=judged.labels, expected_r=judged.expected_r, unit=judged.unit)


def _errors(judged: Judged, given: Given, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the prediction on the given antibodies, less those left out (bool, (A,)).

    The CLR over these antibodies is standardised over the section and brought to the average and
    the spread that the truth is expected to have here. What a row did not measure has no error.

    Returns
    -------
    Positions of the proteins, shape (M,), and their errors in standard deviations over the
    section, float64, shape (n, M).
    """
    antibody = given.protein[~left_out]
    clr = standardize(protein_clr(given.counts[:, ~left_out]).astype(np.float64))
    proteins = np.unique(antibody)
    errors = np.empty((len(clr), len(proteins)))
    for j, protein in enumerate(proteins):
        predicted = judged.mean[:, protein].astype(np.float64)
        spread = np.sqrt(np.nanvar(predicted) + np.nanmean(judged.std[:, protein] ** 2))
        own = clr[:, antibody == protein]
        seen = np.isfinite(own)
        total = np.where(seen, own, 0.0).sum(axis=1)
        measured = np.where(seen.any(axis=1), total / np.maximum(seen.sum(axis=1), 1), np.nan)
        errors[:, j] = measured * spread - predicted
    return proteins, np.nan_to_num(standardize(errors))
