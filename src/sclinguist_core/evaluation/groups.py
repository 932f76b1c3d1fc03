"""Compare features between groups of rows: clusters, regions, cell types.

Shapes: n rows, F features.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.metrics import FloatArray, column_mean
from sclinguist_core.evaluation.spatial import columns_by_known_rows

MINIMUM_ROWS = 3
"""Fewer rows than this cannot be compared."""

BLOCK_VALUES = 1 << 22
"""Values that are ranked at a time, so that memory does not grow with the features."""


def group_means(values: pd.DataFrame, groups: pd.Categorical | pd.Series) -> pd.DataFrame:
    """Average every feature over each group.

    Parameters
    ----------
    values
        Shape (n, F); NaN where missing, which is left out.
    groups
        Label of each row, length n; rows without one are left out.

    Returns
    -------
    DataFrame, index ``group`` (groups without rows are left out), first column ``n``: rows of the
    group with any value; then the mean of each feature, NaN where it has no value at all.
    """
    labels = _labels(values, groups)
    array = values.to_numpy()
    known = np.isfinite(array).any(axis=1)
    chosen = [labels.codes == code for code in range(len(labels.categories))]
    means = [column_mean(array[rows].astype(np.float64)) for rows in chosen]
    table = pd.DataFrame(
        np.reshape(means, (len(chosen), array.shape[1])),
        index=pd.Index(labels.categories, name="group"),
        columns=values.columns,
    )
    table.insert(0, "n", [int(known[rows].sum()) for rows in chosen], allow_duplicates=True)
    return table


def differential(
    values: pd.DataFrame,
    groups: pd.Categorical | pd.Series,
    group: str,
    reference: str | None = None,
) -> pd.DataFrame:
    """Test which features differ between a group and another one, or all other rows.

    Wilcoxon's rank-sum test (Mann & Whitney 1947), two-sided, by its normal approximation with
    corrections for ties and continuity; p-values are adjusted for the number of features
    (Benjamini & Hochberg 1995). It takes rows for independent. Neighbouring spots are not, nor
    are cells of one donor: p-values are too small, and a difference or an area under the curve
    says more.

    Parameters
    ----------
    values
        Shape (n, F); NaN where missing, which is left out feature by feature.
    groups
        Label of each row, length n; rows without one are left out.
    group
        The group that is asked about.
    reference
        Another group, or None: all other rows that have a label.

    Returns
    -------
    DataFrame, index ``feature``, the surest first, then the largest difference:

    ``mean``, ``mean_reference``, ``difference``
        Means of both sides and what the first exceeds the second by.
    ``auc``
        Share of pairs of rows, one from each side, in which the group's is the higher (ties count
        half): 0.5 means no difference.
    ``p_value``, ``p_adjusted``
        NaN for features that fewer than three rows of a side have.

    Raises
    ------
    InputError
        If there is no such group, both sides are one, or a side has fewer than three rows.
    """
    labels = _labels(values, groups)
    array = values.to_numpy()
    known = np.isfinite(array).any(axis=1)
    ours = _rows_of(labels, group)
    theirs = (labels.codes >= 0) & ~ours if reference is None else _rows_of(labels, reference)
    if group == reference:
        raise InputError(f"group {group!r}: is the reference too, expected two different groups.")
    others = "all other groups" if reference is None else f"group {reference!r}"
    for name, rows in ((f"group {group!r}", ours), (others, theirs)):
        n_rows = int((rows & known).sum())
        if n_rows < MINIMUM_ROWS:
            raise InputError(
                f"{name}: found {n_rows} rows with values, expected at least "
                f"{MINIMUM_ROWS}; choose larger groups."
            )
    figures = _rank_sum(array, ours, theirs)
    names = ["mean", "mean_reference", "auc", "p_value"]
    table = pd.DataFrame(figures.T, index=pd.Index(values.columns, name="feature"), columns=names)
    table["p_adjusted"] = _adjusted(figures[3])
    table.insert(2, "difference", table["mean"] - table["mean_reference"])
    order = np.lexsort((-table["difference"].abs(), table["p_adjusted"]))
    return table.iloc[order]


def _labels(values: pd.DataFrame, groups: pd.Categorical | pd.Series) -> pd.Categorical:
    labels = pd.Categorical(groups).remove_unused_categories()
    if len(labels) != len(values):
        raise InputError(
            f"groups: found {len(labels)} labels for {len(values)} rows, expected one for each."
        )
    return labels


def _rows_of(labels: pd.Categorical, group: str) -> np.ndarray:
    if group not in labels.categories:
        names = ", ".join(map(repr, labels.categories[:10])) or "none"
        raise InputError(f"group {group!r}: there is no such group, expected one of {names}.")
    return np.asarray(labels == group)


def _rank_sum(array: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> FloatArray:
    """Means of both sides, area under the curve and p-value of each column, shape (4, F)."""
    from scipy.stats import mannwhitneyu

    figures = np.full((4, array.shape[1]), np.nan)
    for known, columns in columns_by_known_rows(array):
        sides = [np.flatnonzero(rows & known) for rows in (ours, theirs)]
        n_columns = max(1, BLOCK_VALUES // len(array))
        for start in range(0, len(columns), n_columns):
            block = columns[start : start + n_columns]
            x, y = (array[np.ix_(rows, block)].astype(np.float64) for rows in sides)
            figures[0, block], figures[1, block] = column_mean(x), column_mean(y)
            if min(len(x), len(y)) >= MINIMUM_ROWS:
                test = mannwhitneyu(x, y, method="asymptotic")
                figures[2, block] = test.statistic / (len(x) * len(y))
                figures[3, block] = test.pvalue
    return figures


def _adjusted(p_value: FloatArray) -> FloatArray:
    from scipy.stats import false_discovery_control

    adjusted = np.full(len(p_value), np.nan)
    tested = np.isfinite(p_value)
    if tested.any():
        adjusted[tested] = false_discovery_control(p_value[tested])
    return adjusted
