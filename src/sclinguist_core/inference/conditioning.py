"""Panel expansion: what measured antibodies of a section say of the proteins that were not.

The prediction from RNA is the start. Where the measured proteins of a cell lie above or below it,
other proteins are moved by what such errors have in common with theirs
(`sclinguist_core.model.conditioning`): Gaussian conditioning of the errors. The column of a
measured protein is conditioned on the *other* measured proteins, so that it can be compared with
its measurement.

Shapes: n (N) rows, P proteins, A antibodies given, M proteins that they measure, K factors.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclinguist_core.data.preprocess import standardize
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference.progress import CHUNK_ROWS
from sclinguist_core.inference.trust import MIN_ROWS, Judged
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.conditioning import ErrorFactors, digest
from sclinguist_core.vocabulary.proteins import resolve_protein

MEASURED = "measured"
"""In the place of names: every antibody that the model can make use of."""
MIN_GIVEN = 3
"""The CLR of fewer antibodies says how they relate to each other and hardly what a cell has."""
MIN_CENTRED = 2
"""The CLR of a row's only antibody is 0 whatever was counted."""


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
        Antibodies that were given and say nothing: not of the model, in no held-out set, or
        measured in fewer than `MIN_ROWS` rows.
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
        `MEASURED`, or names of proteins in any spelling; a plain string is one name.
    context
        ``"cells"`` or ``"spots"``.

    Raises
    ------
    InputError
        If the section or the model has not what it takes, a protein was not measured, counts are
        negative, or fewer than `MIN_GIVEN` proteins with counts in `MIN_ROWS` rows are left.
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
        named = [given] if isinstance(given, str) else given
        wanted = [resolve_protein(name).name for name in named]
        missing = [name for name in wanted if name not in set(antibodies["canonical"])]
        if missing:
            raise InputError(
                f"{section.name}: {', '.join(missing)} was not measured, expected some of "
                f"{', '.join(dict.fromkeys(antibodies['canonical']))}."
            )
        antibodies = antibodies[antibodies["canonical"].isin(wanted)]
    factors = checkpoint.conditioning[context]
    position = pd.Index(checkpoint.protein_names).get_indexer(antibodies["canonical"])
    counts = section.table.obsm["protein"][antibodies.index].to_numpy(np.float64)
    useful = (position >= 0) & factors.known[position]
    useful &= np.isfinite(counts).sum(axis=0) >= MIN_ROWS
    if (counts[:, useful] < 0).any():
        raise InputError(
            f"{section.name}: measured proteins hold negative values, expected raw antibody counts "
            "in obsm['protein'] to condition on; give the raw counts, or leave out what is given."
        )
    names = list(dict.fromkeys(antibodies["canonical"][useful]))
    if len(names) < MIN_GIVEN:
        raise InputError(
            f"{section.name}: {len(names)} given protein{'s' * (len(names) != 1)} that the model "
            f"can make use of ({', '.join(names) or 'none'}), expected at least {MIN_GIVEN}, each "
            f"measured in {MIN_ROWS} rows or more."
        )
    return Given(
        counts=counts[:, useful],
        protein=position[useful].astype(np.int64),
        factors=factors,
        names=names,
        unused=antibodies.index[~useful].tolist(),
        digest=digest(checkpoint.conditioning),
    )


def condition(judged: Judged, given: Given) -> Generator[int, None, Judged]:
    """Condition calibrated predictions of all proteins of a model on measured ones.

    A row is conditioned on what was measured in it: where nothing was, value and interval stay.

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
    if not np.isfinite(judged.mean).any():
        return judged
    values = {
        "mean": judged.mean.copy(), "std": judged.std.copy(),
        "low": judged.low.copy(), "high": judged.high.copy(),
    }  # fmt: skip
    size = np.sqrt(np.nanmean(judged.std.astype(np.float64) ** 2, axis=0))  # (P,)
    panel = _Panel(judged, given)
    hidden = np.setdiff1d(np.flatnonzero(given.factors.known), panel.proteins)
    # Nothing is left out for the proteins that were not measured.
    questions = [(None, hidden), *((p, p[None]) for p in panel.proteins)]
    for number, (left_out, asked) in enumerate(questions):
        yield number
        shift, left = panel.explain(left_out, given.factors.loadings[asked].astype(np.float64))
        before = judged.mean[:, asked]
        after = (before + shift * size[asked]).astype(np.float32)
        shrink = np.sqrt(left).astype(np.float32)
        values["mean"][:, asked] = after
        values["std"][:, asked] = judged.std[:, asked] * shrink
        for end in ("low", "high"):
            reach = getattr(judged, end)[:, asked] - before
            values[end][:, asked] = after + reach * shrink
    return Judged(**values, labels=judged.labels, expected_r=judged.expected_r, unit=judged.unit)


class _Panel:
    """Errors of the prediction on given antibodies, and what they say of other proteins.

    The CLR over these antibodies is standardised over the section and brought to the average and
    the spread that the truth is expected to have here. In the factor model the errors of a row
    tell of the K factors, and these of every protein: with K small, rows that have different
    antibodies cost little, however many patterns (U) of missing ones there are.

    Parameters
    ----------
    judged, given
        See `condition`.

    Attributes
    ----------
    proteins
        Positions of the measured proteins in the model's panel, shape (M,).
    """

    def __init__(self, judged: Judged, given: Given) -> None:
        order = np.argsort(given.protein, kind="stable")  # antibodies of one protein side by side
        self.protein_A = given.protein[order]
        self.proteins, self.first_M = np.unique(self.protein_A, return_index=True)
        self.logged_NA = np.log1p(given.counts[:, order])
        self.seen_UA, pattern_N = np.unique(
            np.isfinite(self.logged_NA), axis=0, return_inverse=True
        )
        self.pattern_N = pattern_N.reshape(-1)  # numpy 2.0 keeps a dimension
        self.predicted_NM = judged.mean[:, self.proteins].astype(np.float64)
        self.spread_M = np.sqrt(
            np.nanvar(self.predicted_NM, axis=0)
            + np.nanmean(judged.std[:, self.proteins] ** 2, axis=0)
        )
        self.loadings_MK = given.factors.loadings[self.proteins].astype(np.float64)
        self.noise_M = given.factors.noise[self.proteins].astype(np.float64)

    def explain(
        self, left_out: int | None, loadings_QK: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tell what the errors of each row say of other proteins.

        Parameters
        ----------
        left_out
            Position of a protein whose own antibodies are not looked at.
        loadings_QK
            Of the other proteins, shape (Q, K).

        Returns
        -------
        Expected errors in standard deviations, and which share of their variance is left;
        float64, shape (n, Q).
        """
        others_A = self.protein_A != (-1 if left_out is None else left_out)
        seen_UA = self.seen_UA & others_A
        seen_UA &= seen_UA.sum(axis=1, keepdims=True) >= MIN_CENTRED
        seen_UM = np.logical_or.reduceat(seen_UA, self.first_M, axis=1).astype(np.float64)
        scaled_MK = self.loadings_MK / self.noise_M[:, None]
        eye_KK = np.eye(scaled_MK.shape[1])
        told_MKK = self.loadings_MK[:, :, None] * scaled_MK[:, None, :]
        # Covariance of the factors given the errors that a pattern has.
        covariance_UKK = np.linalg.inv(eye_KK + np.tensordot(seen_UM, told_MKK, axes=1))
        told_NK = self._errors(seen_UA) @ scaled_MK
        shift_NQ = np.empty((len(told_NK), len(loadings_QK)))
        for start in range(0, len(told_NK), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            factors_NK = np.einsum(
                "nkl,nl->nk", covariance_UKK[self.pattern_N[rows]], told_NK[rows]
            )
            shift_NQ[rows] = factors_NK @ loadings_QK.T
        squares_QKK = loadings_QK[:, :, None] * loadings_QK[:, None, :]
        explained_UQ = np.tensordot(eye_KK - covariance_UKK, squares_QKK, axes=([1, 2], [1, 2]))
        return shift_NQ, np.clip(1.0 - explained_UQ, 0.0, 1.0)[self.pattern_N]

    def _errors(self, seen_UA: np.ndarray) -> np.ndarray:
        """Errors in standard deviations over the section, shape (n, M); 0 where not seen."""
        seen_NA = seen_UA[self.pattern_N]
        clr_NA = np.where(seen_NA, self.logged_NA, 0.0)
        n_U1 = np.maximum(seen_UA.sum(axis=1, keepdims=True), 1)
        clr_NA -= clr_NA.sum(axis=1, keepdims=True) / n_U1[self.pattern_N]
        clr_NA = standardize(np.where(seen_NA, clr_NA, np.nan))
        total_NM = np.add.reduceat(
            np.where(seen_NA, clr_NA, 0.0), self.first_M, axis=1, dtype=np.float64
        )
        n_UM = np.add.reduceat(seen_UA, self.first_M, axis=1, dtype=np.int64)
        measured_NM = total_NM / np.where(n_UM, n_UM, np.nan)[self.pattern_N]
        return np.nan_to_num(standardize(measured_NM * self.spread_M - self.predicted_NM))
