"""A few hundred cells that stand for all of them.

Shapes: n cells or spots.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import pandas as pd

from sclinguist_core.errors import InputError
from sclinguist_core.inference.prepare import Prepared
from sclinguist_core.inference.progress import CHUNK_ROWS, Progress
from sclinguist_core.inference.runner import Runner

POOL = 10
"""The sample is spread over the predictions of this many times as many cells at most."""


def spread_sample(
    prepared: Prepared,
    runner: Runner,
    n_cells: int | None,
    groups: pd.Series | pd.Categorical | None,
    seed: int,
) -> Generator[Progress, None, np.ndarray]:
    """Draw rows that are spread evenly over groups, or over the predicted protein.

    Parameters
    ----------
    prepared, runner
        Section and model; the runner predicts one protein.
    n_cells
        How many; None for all rows.
    groups
        Label of each row, shape (n,); rows without one are left out. Each group has its share.
    seed
        Of the draw.

    Yields
    ------
    Progress
        While the protein is predicted, for at most `POOL` times as many rows.

    Returns
    -------
    Row numbers, ascending int64; rows without reads are left out.

    Raises
    ------
    InputError
        If the labels do not fit, or no row is left.
    """
    n_obs = prepared.section.n_obs
    rows = np.random.default_rng(seed).permutation(n_obs)
    rows = rows[np.diff(prepared.rna.counts.indptr)[rows] > 0]
    key = np.zeros(n_obs)
    if groups is not None:
        labels = pd.Categorical(groups)
        if len(labels) != n_obs:
            raise InputError(
                f"groups: found {len(labels)} labels, expected one for each of {n_obs} rows."
            )
        rows = rows[labels.codes[rows] >= 0]
        key = labels.codes
    if not len(rows):
        raise InputError("sample: found no row with reads and a label, expected at least one.")
    if n_cells is None or len(rows) <= n_cells:
        return np.sort(rows)
    if groups is None:
        rows = rows[: POOL * n_cells]
        key = np.full(n_obs, np.nan)
        done = 0
        for start in range(0, len(rows), CHUNK_ROWS):
            part = rows[start : start + CHUNK_ROWS]
            for inside, outputs in runner.run(prepared.aligned(part)):
                key[part[inside]] = outputs.mean[:, 0]
                done += len(inside)
                yield Progress(done, len(rows), "choosing a sample")
    rows = rows[np.argsort(key[rows], kind="stable")]
    even = (np.arange(n_cells) + 0.5) * len(rows) / n_cells
    return np.sort(rows[even.astype(np.int64)])
