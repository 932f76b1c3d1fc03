"""What the network says of a chunk of rows, before any of it is calibrated.

Shapes: n cells or spots, P proteins, V genes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.inference.runner import Runner
from sclinguist_core.model.familiarity import Familiarity


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Raw:
    """What the network says of n rows.

    Attributes
    ----------
    mean, std
        Mean and standard deviation, float32, shape (n, P); NaN for rows without reads.
    log1p
        ``log1p`` counts, float32, shape (n, P); None unless asked for.
    ood
        Out-of-distribution score, float32, shape (n,); None when the model has no reference.
    """

    mean: np.ndarray
    std: np.ndarray
    log1p: np.ndarray | None = None
    ood: np.ndarray | None = None

    @classmethod
    def of_size(cls, n_rows: int, n_proteins: int, *, log1p: bool, ood: bool) -> Raw:
        """Make room for n rows."""
        mean = np.zeros((n_rows, n_proteins), np.float32)
        return cls(
            mean=mean,
            std=np.zeros_like(mean),
            log1p=np.zeros_like(mean) if log1p else None,
            ood=np.full(n_rows, np.nan, np.float32) if ood else None,
        )

    def part(self, rows: slice) -> Raw:
        """Return a view of some rows, to be filled."""
        return Raw(
            mean=self.mean[rows],
            std=self.std[rows],
            log1p=None if self.log1p is None else self.log1p[rows],
            ood=None if self.ood is None else self.ood[rows],
        )


def run_chunk(
    runner: Runner, familiarity: Familiarity | None, aligned: AlignedRna, out: Raw
) -> Iterator[int]:
    """Fill `out` with what the network says of a chunk; yields the rows of each batch's number.

    Parameters
    ----------
    runner
        The model on its device.
    familiarity
        Reference of the out-of-distribution score, if there is room for one in `out`.
    aligned
        The chunk, n rows.
    out
        Room for n rows.
    """
    for rows, outputs in runner.run(aligned):
        out.mean[rows] = outputs.mean
        out.std[rows] = outputs.std
        if out.log1p is not None:
            out.log1p[rows] = outputs.log1p
        yield len(rows)
    if familiarity is not None and out.ood is not None:
        out.ood[:] = familiarity.score(
            aligned.counts, aligned.measured, aligned.pattern, runner.device
        )
    empty = without_reads(aligned)
    out.mean[empty] = out.std[empty] = np.nan
    if out.log1p is not None:
        out.log1p[empty] = np.nan


def without_reads(aligned: AlignedRna) -> np.ndarray:
    """Which rows express none of the model's genes, bool, shape (n,)."""
    return np.diff(aligned.counts.indptr) == 0


def empty_warning(n_empty: int, total: int) -> list[str]:
    """Sentence on rows that get no value, if there are any."""
    if not n_empty:
        return []
    return [
        f"{n_empty} of {total} rows express none of the model's genes; they get no value (NaN)."
    ]
