"""Predictions of several methods for the same cells, scored side by side.

The headline is the mean over proteins of the Pearson correlation with the CLR measurement, with a
bootstrap interval over cells, and the model's lead over each other method from the same resamples
and the same proteins.

Shapes: n cells, A antibodies, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclinguist_core.evaluation import metrics
from sclinguist_core.evaluation.metrics import FloatArray

N_RESAMPLES = 1_000
LEVEL = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What was measured.

    Attributes
    ----------
    antibodies
        Length A, the study's names.
    proteins
        Their canonical names.
    clr, raw
        CLR and raw counts, float64 (n, A); NaN = not measured.
    """

    antibodies: Sequence[str]
    proteins: Sequence[str]
    clr: FloatArray
    raw: FloatArray


def score(
    predictions: Mapping[str, FloatArray],
    truth: Truth,
    *,
    reference: str | None = None,
    log1p: Mapping[str, FloatArray] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every method.

    Parameters
    ----------
    predictions
        (n, A) by method.
    truth
        The measurement.
    reference
        Method whose lead over the others is stated; None, or one that is absent, states none.
    log1p
        Predictions of methods that were fitted to ``log1p`` counts, for that column alone; the
        others are scored there with what they predict.
    n_resamples, seed
        Of the bootstrap over cells.

    Returns
    -------
    summary
        One row a method: ``method``, ``n_proteins``, ``pearson_clr`` with ``_low`` and ``_high``
        (95 %), ``lead`` of the reference on the proteins that both have, with ``_low`` and
        ``_high``, ``n_lead`` (number of these on which the reference is better), ``pearson_log1p``,
        ``spearman``.
    per_protein
        One row a method and antibody: ``method``, ``antibody``, ``protein``, ``pearson_clr``,
        ``pearson_log1p``.
    """
    logged = np.log1p(truth.raw)
    r = {name: metrics.pearson(x, truth.clr) for name, x in predictions.items()}
    resampled = metrics.bootstrap_mean_pearson(
        predictions, truth.clr, n_resamples=n_resamples, seed=seed
    )
    rows, proteins = [], []
    for name, x in predictions.items():
        r_log = metrics.pearson((log1p or {}).get(name, x), logged)
        rows.append(
            {
                "method": name,
                "n_proteins": int(np.isfinite(r[name]).sum()),
                "pearson_clr": metrics.nan_mean(r[name]),
                **_bounds("pearson_clr", resampled[name]),
                **_lead(predictions, r, resampled, truth.clr, name, reference, n_resamples, seed),
                "pearson_log1p": metrics.nan_mean(r_log),
                "spearman": metrics.nan_mean(metrics.spearman(x, truth.clr)),
            }
        )
        proteins.append(
            pd.DataFrame(
                {
                    "method": name,
                    "antibody": list(truth.antibodies),
                    "protein": list(truth.proteins),
                    "pearson_clr": r[name],
                    "pearson_log1p": r_log,
                }
            )
        )
    return pd.DataFrame(rows), pd.concat(proteins, ignore_index=True)


def _bounds(name: str, values: FloatArray) -> dict[str, float]:
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, LEVEL) if len(known) else (np.nan, np.nan)
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


def _lead(
    predictions: Mapping[str, FloatArray],
    r: Mapping[str, FloatArray],
    resampled: Mapping[str, FloatArray],
    clr: FloatArray,
    name: str,
    reference: str | None,
    n_resamples: int,
    seed: int,
) -> dict[str, float]:
    """Lead of the reference over a method, on the proteins and cells that both have."""
    if reference is None or reference not in predictions or name == reference:
        return {"lead": np.nan, **_bounds("lead", np.array([])), "n_lead": np.nan}
    ours, theirs = predictions[reference], predictions[name]
    same = np.isfinite(r[reference]) == np.isfinite(r[name])
    cells_differ = np.isfinite(ours) != np.isfinite(theirs)
    if same.all() and not cells_differ.any():
        r_ours, r_theirs = r[reference], r[name]
        draws = resampled[reference] - resampled[name]
    else:
        both = np.isfinite(ours) & np.isfinite(theirs) & np.isfinite(r[name])
        pair = {key: np.where(both, x, np.nan) for key, x in ((0, ours), (1, theirs))}
        named = {"ours": pair[0], "theirs": pair[1]}
        r_ours, r_theirs = (metrics.pearson(x, clr) for x in named.values())
        again = metrics.bootstrap_mean_pearson(named, clr, n_resamples=n_resamples, seed=seed)
        draws = again["ours"] - again["theirs"]
    known = np.isfinite(r_ours) & np.isfinite(r_theirs)
    lead = metrics.nan_mean((r_ours - r_theirs)[known])
    n_better = float((r_ours > r_theirs)[known].sum()) if known.any() else np.nan
    return {"lead": lead, **_bounds("lead", draws), "n_lead": n_better}
