"""What cross-validation says about a fine-tuned model: calibration, before and after, card.

Shapes: n cells, P proteins measured by the user.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.model.calibration import FAIRLY_R, WELL_R
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.train.own_cells import OwnCells
from sclinguist_core.train.provenance import versions
from sclinguist_core.train.residual import Cells, Correction, centred

COVERAGE = 0.9
_SLOPES = (0.1, 1.2)
Solved = list[tuple[np.ndarray, np.ndarray, Correction]]
"""Rows, columns and solution of each set of proteins that the same cells measured."""


def calibrate(cells: OwnCells, corrections: Solved, std: np.ndarray) -> pd.DataFrame:
    """``r``, ``rmse``, ``n``, ``slope``, ``interval`` and ``trust`` of the measured proteins.

    All from out-of-fold predictions. The slope of one protein is drawn to that of all with the
    weight of one protein; the interval is the conformal one (Vovk et al. 2005) in units of `std`.
    """
    out: np.ndarray = np.full(cells.target.shape, np.nan)
    y: np.ndarray = np.full(cells.target.shape, np.nan)
    for rows, columns, solution in corrections:
        place = np.ix_(rows, columns)
        out[place] = solution.out_of_fold
        y[place] = centred(cells.target[place], cells.group[rows])
    product, square = np.nansum(out * y, axis=0), np.nansum(out * out, axis=0)
    slope = (product + product.mean()) / np.maximum(square + square.mean(), 1e-12)
    slope = np.clip(slope, *_SLOPES)
    n = np.isfinite(y).sum(axis=0)
    r = np.nan_to_num(column_correlation(out, y))  # 0 where one of them is constant
    error = np.abs(y - slope * out)
    interval = [
        np.quantile(
            (error[:, p] / std[:, p])[np.isfinite(error[:, p])],
            min(np.ceil((n[p] + 1) * COVERAGE) / n[p], 1.0),
            method="higher",
        )
        for p in range(out.shape[1])
    ]
    # What is left of r when it is one standard error less: few cells are no ground for trust.
    sure = r - (1 - r**2) / np.sqrt(n)
    return pd.DataFrame(
        {
            "r": r,
            "rmse": np.sqrt(np.nanmean(error**2, axis=0)),
            "n": n,
            "slope": slope,
            "interval": interval,
            "trust": np.select([sure >= WELL_R, sure >= FAIRLY_R], ["well", "fairly"], "poorly"),
        }
    )


def compare(
    cells: OwnCells,
    seen: Cells,
    slope: np.ndarray,
    new: np.ndarray,
    calibration: pd.DataFrame,
    corrections: Solved,
) -> pd.DataFrame:
    """Before and after, one row a protein."""
    before = slope * seen.zero_shot
    amount = np.zeros(len(slope))
    for _, columns, solution in corrections:
        amount[columns] = solution.amount
    r_before = np.nan_to_num(column_correlation(before, cells.target))
    rmse_before = np.sqrt(np.nanmean((before - cells.target) ** 2, axis=0))
    table = pd.DataFrame(
        {
            "protein": cells.proteins["name"],
            "antibodies": cells.proteins["antibodies"],
            "new": new,
            "n_cells": calibration["n"],
            "r_before": np.where(new, np.nan, r_before),
            "r_after": calibration["r"],
            "rmse_before": np.where(new, np.nan, rmse_before),
            "rmse_after": calibration["rmse"],
            "correction": amount,
            "trust": calibration["trust"],
        }
    )
    return table.sort_values("r_after", ascending=False, kind="stable", ignore_index=True)


def describe(
    tuned: Checkpoint,
    cells: OwnCells,
    column: np.ndarray,
    calibration: pd.DataFrame,
    comparison: pd.DataFrame,
    name: str | None,
) -> Checkpoint:
    """Write slopes, intervals and trust into the table of proteins, and the rest into the card."""
    proteins = tuned.proteins.copy()
    proteins["fine_tuned"] = ""
    if "heldout_r" not in proteins:
        proteins["heldout_r"] = ""
    # The bundled table keeps trust by context as well.
    own = ["trust", f"trust_{cells.context}"], ["heldout_r", f"r_{cells.context}"]
    trust, heldout = ([name for name in names if name in proteins] for names in own)
    proteins[heldout] = proteins[heldout].astype(object)
    for place, row in zip(column, calibration.itertuples(), strict=True):
        proteins.loc[place, trust] = row.trust
        proteins.loc[place, "slope"] = row.slope
        proteins.loc[place, "interval"] = row.interval
        proteins.loc[place, heldout] = round(float(row.r), 6)
        proteins.loc[place, "fine_tuned"] = cells.context
    info = replace(
        tuned.info,
        name=name or f"{tuned.info.name}-tuned",
        stage="finetune",
        training_datasets=(*tuned.info.training_datasets, *cells.names),
        created_with=versions(),
    )
    rows = "\n".join(
        f"| {row.protein} | {row.n_cells} | {'new' if row.new else f'{row.r_before:.2f}'} | "
        f"{row.r_after:.2f} | {row.trust} |"
        for row in comparison.itertuples()
    )
    n_files = len(cells.names)
    card = f"""# {info.name}

{tuned.info.name}, fine-tuned on {cells.n_obs:,} {cells.context} of {", ".join(cells.names)}.

Pearson across these {cells.context} against CLR, before and after; after is cross-validated
({"whole files" if n_files > 1 else f"random {cells.context}"} left out{
        "" if n_files > 1 else ", the easy case"
    }). Proteins that are not listed predict as before.

| protein | {cells.context} | before | after | trust |
|---|---|---|---|---|
{rows}

What follows is the card of the model that was fine-tuned.

{tuned.card}"""
    return replace(tuned, info=info, proteins=proteins, card=card)
