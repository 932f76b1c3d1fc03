"""Fit slopes, intervals and trust from data sets that were held out.

What a figure rests on always comes from other sets than the one that it is fitted to or judged by:
the evidence for a protein in one set is its correlation in the others. So the rule learns how far
evidence carries over to a set that nobody has seen, which is what it is asked in use.

Shapes: P proteins, F features; rows are cells or spots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.evaluation.held_out import HeldOut
from sclinguist_core.model.calibration import (
    CONTEXTS,
    FAIRLY_R,
    OBSERVED,
    WELL_R,
    Calibration,
    ContextCalibration,
    fisher,
    interval_features,
    relative_spread,
)

WELL_PRECISION = 0.885
"""Share of the proteins labelled "well" that shall be well predicted in a set not seen, by the
figures that the threshold is chosen on. Those flatter it: 85 % is what is wanted elsewhere."""
MIN_LABELLED = 15
_SLOPES = (0.1, 3.0)
_UPPER = (0.987, 0.967)
"""Upper quantile of proteins that are predicted badly (r = 0.3) and well (0.75). Nearly all values
that are missed above belong to the highest tenth, so few may be missed there; a good prediction
misses fewer of them."""
_LOWER = (0.09, 0.075)
_R_RANGE = (0.3, 0.75)
_PROTEIN_RIDGE = 0.6
_SET_RIDGE = 0.2
_RULE_RIDGE = 0.5
_ROWS_PER_PROTEIN = 300
_FEATURES = ("agreement", "implied", "reliability", "relative_spread")


def evidence(records: Sequence[HeldOut]) -> pd.DataFrame:
    """One row a set and protein.

    Columns ``dataset``, ``protein``, ``r`` (correlation of prediction and measurement),
    ``covariance``, ``variance`` (of the prediction), ``implied``, ``reliability``, and
    ``relative_spread``: log of the spread of the predictions over that in the other sets.
    Several antibodies against one protein are averaged.
    """
    usual = {
        record.dataset: _reference([r for r in records if r.dataset != record.dataset])["spread"]
        for record in records
    }
    parts = []
    for record in records:
        y = record.target.astype(np.float64)
        both = np.isfinite(y) & np.isfinite(record.mean)
        count = np.maximum(both.sum(axis=0), 1)
        x = np.where(both, record.mean, 0.0).astype(np.float64)
        x = np.where(both, x - x.sum(axis=0) / count, 0.0)
        part = pd.DataFrame(
            {
                "protein": record.proteins,
                "r": column_correlation(record.mean, record.target),
                "covariance": (x * np.where(both, y, 0.0)).sum(axis=0) / count,
                "variance": (x * x).sum(axis=0) / count,
                "implied": record.implied[record.column],
                "reliability": record.reliability[record.column],
                "relative_spread": relative_spread(
                    record.spread, usual[record.dataset].reindex(record.names).to_numpy()
                )[record.column],
            }
        ).dropna()
        part = part.groupby("protein", as_index=False).mean()
        parts.append(part.assign(dataset=record.dataset))
    return pd.concat(parts, ignore_index=True)


def protein_effects(table: pd.DataFrame) -> pd.Series:
    """Fisher z that each protein has in an average set, by protein.

    Sets differ in how hard they are, and each measures other proteins: z is modelled as the sum of
    a protein's and a set's effect, both shrunk (ridge), so that a protein that only hard sets
    measure is not taken for a bad one.
    """
    protein, names = pd.factorize(table["protein"])
    dataset, sets = pd.factorize(table["dataset"])
    rows = np.arange(len(table))
    x = np.zeros((len(table), 1 + len(names) + len(sets)))
    x[:, 0] = 1.0
    x[rows, 1 + protein] = 1.0
    x[rows, 1 + len(names) + dataset] = 1.0
    ridge = np.r_[1e-9, np.full(len(names), _PROTEIN_RIDGE), np.full(len(sets), _SET_RIDGE)]
    effect = np.linalg.solve(x.T @ x + np.diag(ridge), x.T @ fisher(table["r"]))
    return pd.Series(effect[0] + effect[1 : 1 + len(names)], index=names)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Slopes:
    """Slope of unseen measurements on predictions, and what it is where nothing was measured.

    Attributes
    ----------
    own
        Sums of ``covariance`` and ``variance`` over sets, by protein.
    prior
        Coefficients of the slope: constant, agreement, implied.
    weight
        Variance that the prior counts for: that of one set.
    """

    own: pd.DataFrame
    prior: np.ndarray
    weight: float

    def of(
        self, agreement: pd.Series, implied: pd.Series, names: Sequence[str] | np.ndarray
    ) -> np.ndarray:
        """Slope of each protein, shape (P,): its own, drawn to what its evidence suggests."""
        features = np.column_stack(
            [np.ones(len(names)), agreement.reindex(names), implied.reindex(names)]
        )
        expected = np.nan_to_num(features) @ self.prior
        own = self.own.reindex(names).fillna(0.0)
        numerator = own["covariance"].to_numpy() + self.weight * expected
        return np.clip(numerator / (own["variance"].to_numpy() + self.weight), *_SLOPES)


def fit_slopes(table: pd.DataFrame, agreement: pd.Series) -> Slopes:
    """Fit `Slopes`; predictions on new data are too bold, the less networks agree the more."""
    known = table["protein"].map(agreement).fillna(agreement.mean())
    x = np.column_stack([np.ones(len(table)), known, table["implied"]])
    w = table["variance"].to_numpy()
    ridge = np.diag([1e-9, 1.0, 1.0])
    prior = np.linalg.solve(x.T @ (w[:, None] * x) + ridge, x.T @ table["covariance"].to_numpy())
    own = table.groupby("protein")[["covariance", "variance"]].sum()
    return Slopes(own=own, prior=prior, weight=float(w.mean()))


def _features(table: pd.DataFrame, agreement: pd.Series, effects: pd.Series) -> np.ndarray:
    """Features of the expected correlation with the evidence last, shape (rows, 6)."""
    return np.column_stack(
        [
            np.ones(len(table)),
            table["protein"].map(agreement).fillna(0.0),
            table["implied"],
            table["reliability"],
            table["relative_spread"],
            table["protein"].map(effects),
        ]
    )


def _ridge(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted ridge regression on standardised features; the first column is constant."""
    center, scale = x[:, 1:].mean(axis=0), np.maximum(x[:, 1:].std(axis=0), 1e-6)
    z = np.column_stack([np.ones(len(x)), (x[:, 1:] - center) / scale])
    ridge = np.diag([1e-9, *np.full(x.shape[1] - 1, _RULE_RIDGE)])
    b = np.linalg.solve(z.T @ (weight[:, None] * z) + ridge, z.T @ (weight * y))
    slope = b[1:] / scale
    return np.r_[b[0] - slope @ center, slope]


def _set_weight(table: pd.DataFrame) -> np.ndarray:
    """One over the root of a set's proteins: a wide panel counts for more, but not by its size."""
    return 1.0 / np.sqrt(table.groupby("dataset")["r"].transform("size").to_numpy(np.float64))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rule:
    """Coefficients of the expected correlation, with and without evidence (Fisher z)."""

    tested: np.ndarray
    untested: np.ndarray

    def expected_r(self, features: np.ndarray) -> np.ndarray:
        """Apply the rule to rows of `_features`; NaN evidence means untested."""
        known = np.isfinite(features[:, -1])
        z = np.where(known, np.nan_to_num(features) @ self.tested, features[:, :-1] @ self.untested)
        return np.clip(np.tanh(z), 0.0, 0.99)


def fit_rule(table: pd.DataFrame, agreement: pd.Series) -> tuple[Rule, pd.DataFrame]:
    """Learn how far evidence carries over to another set.

    Returns the rule, and the table with ``expected_r`` and ``observed`` (mean correlation; NaN for
    untested proteins) of each row from the other sets.
    """
    features = np.empty((len(table), 2 + len(_FEATURES)))
    observed = np.empty(len(table))
    for name in table["dataset"].unique():
        rows = (table["dataset"] == name).to_numpy()
        others = protein_effects(table[~rows])
        features[rows] = _features(table[rows], agreement, others)
        means = table[~rows].groupby("protein")["r"].mean()
        observed[rows] = table[rows]["protein"].map(means)
    z, weight = fisher(table["r"]), _set_weight(table)
    known = np.isfinite(features[:, -1])
    rule = Rule(
        tested=_ridge(features[known], z[known], weight[known]),
        untested=_ridge(features[:, :-1], z, weight),
    )
    return rule, table.assign(expected_r=rule.expected_r(features), observed=observed)


def well_from(table: pd.DataFrame) -> float:
    """Lowest expected correlation from which a tested protein is well predicted often enough."""
    tested = table[table["observed"] >= OBSERVED].sort_values("expected_r", ascending=False)
    right = (tested["r"] >= WELL_R).to_numpy()
    n = np.arange(1, len(right) + 1)
    enough = (np.cumsum(right) / n >= WELL_PRECISION) & (n >= MIN_LABELLED)
    if not enough.any():
        return 0.99
    return float(tested["expected_r"].iloc[np.flatnonzero(enough)[-1]])


def _levels(expected_r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper quantile that the interval aims at."""
    return (
        np.interp(expected_r, _R_RANGE, _LOWER),
        np.interp(expected_r, _R_RANGE, _UPPER),
    )


def fit_quantile(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, level: np.ndarray, *, smooth: float = 0.05
) -> np.ndarray:
    """Linear quantile regression by a smoothed pinball loss.

    Parameters
    ----------
    x, y, weight
        Features (n, F), target (n,), weight (n,).
    level
        Quantile wanted of each row, shape (n,).
    smooth
        Width of the smoothing, in units of `y`.
    """
    from scipy.optimize import minimize

    weight = weight / weight.sum()
    scale = np.maximum(np.abs(x).max(axis=0), 1e-9)
    z = x / scale

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        error = y - z @ b
        scaled = np.clip(-error / smooth, -500, 500)
        value = weight @ (level * error + np.logaddexp(0.0, scaled) * smooth)
        gradient = -(z.T @ (weight * (level - 1.0 / (1.0 + np.exp(-scaled)))))
        return float(value + 1e-5 * b @ b), gradient + 2e-5 * b

    start = np.zeros(x.shape[1])
    result = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 400})
    return result.x / scale


def fit_context(
    records: Sequence[HeldOut], agreement: pd.Series, names: Sequence[str], *, seed: int = 0
) -> tuple[ContextCalibration, pd.DataFrame]:
    """Fit the calibration of one context.

    Parameters
    ----------
    records
        Of one context, at least three sets.
    agreement
        From `sclinguist_core.evaluation.held_out.agreement`.
    names
        Proteins of the model, length P.
    seed
        Of the rows that are drawn from large sets.

    Returns
    -------
    The calibration, and the table of `evidence` with the expected correlation of each row from the
    other sets.
    """
    if len({record.dataset for record in records}) < 3:
        raise ValueError("records: expected at least three data sets to calibrate on")
    rule, table = fit_rule(evidence(records), agreement)
    reference = _reference(records)
    # The average spot is not the average cell; cells keep the zero of the training reference.
    offset = reference["center"] * float(records[0].context == "spots")
    lower, upper, ratio = _fit_intervals(records, table, agreement, reference, offset, seed)
    everywhere = fit_slopes(table, agreement)
    part = reference.reindex(names)
    calibration = ContextCalibration(
        slope=everywhere.of(agreement, reference["implied"], names),
        offset=offset.reindex(names).fillna(0.0).to_numpy(),
        center=part["center"].fillna(0.0).to_numpy(),
        spread=part["spread"].fillna(reference["spread"].median()).to_numpy(),
        observed=table.groupby("protein")["r"].mean().reindex(names).to_numpy(),
        evidence=protein_effects(table).reindex(names).to_numpy(),
        agreement=agreement.reindex(names).fillna(0.0).to_numpy(np.float64),
        implied=part["implied"].fillna(0.0).to_numpy(),
        reliability=part["reliability"].fillna(0.0).to_numpy(),
        tested=rule.tested,
        untested=rule.untested,
        lower=lower,
        upper=upper,
        width_per_std=ratio,
        well=well_from(table),
        fairly=FAIRLY_R,
    )
    return calibration, table


def _reference(records: Sequence[HeldOut]) -> pd.DataFrame:
    """Usual range of each protein's predictions, and what rows usually tell, by protein."""
    frames = [
        pd.DataFrame(
            {
                "center": record.center,
                "spread": np.maximum(record.spread, 0.02),
                "implied": record.implied,
                "reliability": record.reliability,
            },
            index=record.names,
        )
        for record in records
    ]
    return pd.concat(frames).groupby(level=0).mean()


def _fit_intervals(
    records: Sequence[HeldOut],
    table: pd.DataFrame,
    agreement: pd.Series,
    reference: pd.DataFrame,
    offset: pd.Series,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Coefficients of the lower and upper end, and interval width over error."""
    rng = np.random.default_rng(seed)
    expected = table.set_index(["dataset", "protein"])["expected_r"]
    xs, ys, weights, rs = [], [], [], []
    for record in records:
        # Slopes from the other sets: errors as they are on data that gave no slope.
        slopes = fit_slopes(table[table["dataset"] != record.dataset], agreement)
        proteins = record.proteins
        slope = slopes.of(agreement, reference["implied"], proteins)
        for j, protein in enumerate(proteins):
            r = expected.get((record.dataset, protein))
            rows = np.flatnonzero(np.isfinite(record.target[:, j]) & np.isfinite(record.mean[:, j]))
            if r is None or not len(rows):
                continue
            if len(rows) > _ROWS_PER_PROTEIN:
                rows = rng.choice(rows, _ROWS_PER_PROTEIN, replace=False)
            m = record.mean[rows, j].astype(np.float64)
            position = (m - reference.loc[protein, "center"]) / reference.loc[protein, "spread"]
            rs.append(np.full(len(rows), r))
            xs.append(np.column_stack(interval_features(position, rs[-1], record.std[rows, j])))
            ys.append(record.target[rows, j] - slope[j] * (m - offset[protein]))
            weights.append(np.full(len(rows), 1.0 / (len(rows) * len(proteins) ** 0.5)))
    x, y, weight = np.concatenate(xs), np.concatenate(ys), np.concatenate(weights)
    low, high = _levels(np.concatenate(rs))
    lower, upper = fit_quantile(x, y, weight, low), fit_quantile(x, y, weight, high)
    width = np.maximum(x @ upper, 0.0) - np.minimum(x @ lower, 0.0)
    ratio = float(np.sqrt((weight @ width**2) / (weight @ (y * y))))
    return lower, upper, ratio


def fit_calibration(
    records: Sequence[HeldOut], agreement: pd.Series, names: Sequence[str]
) -> tuple[Calibration, pd.DataFrame]:
    """Calibrate for cells and for spots, and tabulate the trust of every protein.

    Returns
    -------
    The calibration, and a table with a row a protein for ``proteins.tsv``: for each context
    ``trust_<context>`` (label in a section like the reference), ``r_<context>`` (mean correlation
    over the held-out sets that measure it; NaN if none), ``sets_<context>`` (their number) and
    ``expected_r_<context>``.
    """
    calibration: Calibration = {}
    columns: dict[str, object] = {}
    for context in CONTEXTS:
        of_context = [record for record in records if record.context == context]
        fitted, table = fit_context(of_context, agreement, names)
        calibration[context] = fitted
        per_protein = table.groupby("protein")["r"].agg(["mean", "size"]).reindex(list(names))
        expected_r = fitted.expected_r()
        columns[f"trust_{context}"] = fitted.labels(expected_r)
        columns[f"r_{context}"] = per_protein["mean"].to_numpy()
        columns[f"sets_{context}"] = per_protein["size"].fillna(0).to_numpy(np.int64)
        columns[f"expected_r_{context}"] = expected_r
    return calibration, pd.DataFrame(columns)
