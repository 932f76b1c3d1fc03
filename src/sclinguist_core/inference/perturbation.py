"""What a perturbation of genes gives: the change of every protein, and a ranking of the proteins.

Shapes: n cells or spots, P proteins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.inference.background import distances, p_values, verdicts

NOTICEABLE = 1e-3
"""Smaller changes are rounding: batches of other sizes add up in another order."""

MIN_GROUP_ROWS = 5
"""A mean over fewer rows of a group is not put beside random genes."""


class RandomSet(NamedTuple):
    """What the same perturbation of random genes changes.

    Attributes
    ----------
    rows
        Sample of the rows that express them, ascending int64, shape (m,).
    change
        As of `Perturbation`, float32, shape (m, P).
    """

    rows: np.ndarray
    change: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Perturbation:
    """How predicted proteins change when genes are perturbed.

    Attributes
    ----------
    names
        Canonical protein names, length P.
    change
        Perturbed minus unperturbed prediction, in the unit of the predictions, float32, shape
        (n, P). Exactly 0 in rows that express none of the genes; NaN in rows without reads and in
        rows that were not asked for.
    affected
        Rows that were asked for and whose expression the perturbation changes, bool, shape (n,).
    spread
        Standard deviation of the unperturbed predictions over the affected rows, float64, shape
        (P,); NaN with fewer than two of them.
    info
        Provenance: genes, scale, model and its digest, unit, number of rows and affected rows,
        random genes of the background.
    background
        Mean change over the rows that express them, for sets of random genes of like expression,
        float64, shape (N, P); None unless asked for.
    random_sets
        The changes behind these means.
    warnings
        One sentence for everything that the user should know.
    """

    names: list[str]
    change: np.ndarray
    affected: np.ndarray
    spread: np.ndarray
    info: dict[str, Any]
    background: np.ndarray | None = None
    random_sets: tuple[RandomSet, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def ranked(
        self, rows: np.ndarray | None = None, groups: pd.Categorical | pd.Series | None = None
    ) -> pd.DataFrame:
        """Rank the proteins by how far they change on average.

        The effect size is the mean change over the standard deviation of the *unperturbed*
        predictions (`spread`; Glass's delta): a fall by 0.5 is half of what the rows differ by
        anyway. The standard deviation of the change itself would not do: a network is
        deterministic, so a change that is the same tiny figure everywhere would seem immense.

        Parameters
        ----------
        rows
            Rows to average over (mask, or indices); the affected ones when None. Those that do
            not express the gene count with their change of 0.
        groups
            Label of each row, shape (n,): ranks the proteins of every group by itself. Rows
            without a label are left out.

        Returns
        -------
        DataFrame, index ``protein`` (with `groups` the levels ``group`` and ``protein``), largest
        absolute mean change first:

        ``mean_change``
            In the unit of the predictions; NaN where no row is left.
        ``effect_size``
            See above.
        ``share_lowered``
            Share of the rows in which the protein falls noticeably.
        ``n_rows``
            Rows that the figures rest on.
        ``background_sd``, ``z``, ``p_value``, ``verdict``
            Only where there is a background and the rows are the affected ones, which is what the
            background is about: standard deviation of the mean change by random sets; how many
            of these the mean change is away from theirs; probability that random genes move any
            protein as far (`background.p_values`, corrected for all P proteins); and what that
            says (`background.verdicts`). In a group, random sets count by their rows in it;
            means over fewer than five rows are left out on either side. Groups are tested each
            by itself, not corrected for their number.
        """
        n_obs = len(self.change)
        chosen = self.affected
        if rows is not None:
            chosen = np.zeros(n_obs, bool)
            chosen[row_numbers(rows, n_obs)] = True
        if groups is None:
            return self._ranked(chosen, self.background if rows is None else None)
        labels = pd.Categorical(groups).remove_unused_categories()
        if len(labels) != n_obs or not len(labels.categories):
            raise InputError(
                f"groups: found {len(labels)} rows with {len(labels.categories)} different labels, "
                f"expected a label for each of {n_obs} rows."
            )
        parts = {}
        for code, name in enumerate(labels.categories):
            members = labels.codes == code
            background = self._background_in(members) if rows is None else None
            parts[name] = self._ranked(chosen & members, background)
        return pd.concat(parts, names=["group", "protein"])

    def _background_in(self, members: np.ndarray) -> np.ndarray | None:
        """Mean change by random sets over rows of a group, (N, P); None without random sets."""
        if not self.random_sets:
            return None
        inside = [change[members[rows]].astype(np.float64) for rows, change in self.random_sets]
        enough = (self.affected & members).sum() >= MIN_GROUP_ROWS
        means = [x.mean(axis=0) for x in inside if enough and len(x) >= MIN_GROUP_ROWS]
        return np.reshape(means, (len(means), len(self.names)))

    def _ranked(self, chosen: np.ndarray, background: np.ndarray | None) -> pd.DataFrame:
        change = self.change[chosen].astype(np.float64)
        change = change[np.isfinite(change).all(axis=1)]
        nothing = np.full(len(self.names), np.nan)
        mean = change.mean(axis=0) if len(change) else nothing
        columns: dict[str, Any] = {
            "mean_change": mean,
            "effect_size": _ratio(mean, self.spread),
            "share_lowered": (change < -NOTICEABLE).mean(axis=0) if len(change) else nothing,
            "n_rows": len(change),
        }
        if background is not None:
            several = len(background) > 1
            columns["background_sd"] = background.std(axis=0, ddof=1) if several else nothing
            columns["z"] = away = distances(mean, background)
            columns["p_value"] = p_value = p_values(mean, background)
            columns["verdict"] = verdicts(p_value, away, len(background))
        table = pd.DataFrame(columns, index=pd.Index(self.names, name="protein"))
        order = np.argsort(-np.abs(mean), kind="stable")
        return table.iloc[order]


def row_numbers(rows: np.ndarray | None, n_obs: int) -> np.ndarray:
    """Turn a mask or indices into ascending row numbers, int64; all of `n_obs` when None.

    Raises
    ------
    InputError
        If there is none, or it is neither a mask of all rows nor a list of existing ones.
    """
    if rows is None:
        return np.arange(n_obs)
    given = np.asarray(rows)
    if given.dtype == bool and given.shape == (n_obs,):
        numbers = np.flatnonzero(given)
    elif given.dtype.kind in "iu" and given.ndim == 1:
        numbers = np.unique(given).astype(np.int64)
    else:
        numbers = np.array([-1]) if given.size else np.array([], np.int64)
    if not len(numbers):
        raise InputError("rows: found none, expected at least one; choose some, or leave it out.")
    if numbers[0] < 0 or numbers[-1] >= n_obs:
        raise InputError(
            f"rows: found {given.dtype} of shape {given.shape}, expected a mask of all {n_obs} "
            f"rows, or row numbers from 0 to {n_obs - 1}."
        )
    return numbers


def _ratio(value: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the scale is 0 or not known."""
    return np.divide(value, scale, out=np.full(len(value), np.nan), where=scale > 0)
