"""Methods that impute hidden entries, behind one protocol.

Whoever imputes gets the visible counts and the places of the hidden entries, and says value, level
and the probability of each level (`sclinguist_core.data.levels`). What a method has to learn it
learns from visible entries, by hiding some of them itself.

Shapes: n cells or spots, V genes of the model, m entries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.preprocess import log1p_cp10k
from sclinguist_core.inference.bag import N_NEIGHBOURS
from sclinguist_core.inference.impute_calibration import (
    Describer,
    Estimates,
    estimate_entries,
    fit_calibrator,
    hide_entries,
    truth,
)
from sclinguist_core.inference.impute_survey import Components, Survey, survey
from sclinguist_core.inference.progress import Progress
from sclinguist_core.model.checkpoint import Checkpoint

HIDDEN_SHARE = 0.2
"""Share of the measured entries of a row that is hidden to learn from and to test."""
MAX_TEST_ROWS = 1_000
"""Rows in which entries are hidden."""
FIT_SHARE = 1 / 3
"""Share of these rows that weights are fitted on; the others test them."""


class Imputer(Protocol):
    """Whatever imputes hidden entries: `StateImputer`, a baseline, or a network that is masked."""

    @property
    def name(self) -> str:
        """What a table of scores calls it."""
        ...

    def estimate(
        self, visible: AlignedRna, hidden: sparse.csr_matrix
    ) -> Generator[Progress, None, Estimates]:
        """Estimate hidden entries; yields progress.

        Parameters
        ----------
        visible
            Counts over the model's genes without those of hidden entries; every row has some.
        hidden
            True where an entry is hidden: measured, but not known. CSR with sorted indices,
            shape (n, V).

        Returns
        -------
        Value, level and probabilities of the levels, in the order the entries are stored.
        """
        ...


class CalibratedImputer(ABC):
    """Imputes by features of entries, with weights fitted to visible entries that it hides itself.

    Parameters
    ----------
    gene_share
        Reference expression of the genes, shape (V,).
    seed
        Draws the entries that it hides.
    """

    name: ClassVar[str]

    def __init__(self, gene_share: np.ndarray, *, seed: int = 0) -> None:
        self.gene_share = gene_share
        self.seed = seed

    @abstractmethod
    def describe(
        self, rna: AlignedRna, hidden: sparse.csr_matrix
    ) -> Generator[Progress, None, Describer]:
        """Read the visible entries; return what gives features of any entry."""

    def estimate(
        self, visible: AlignedRna, hidden: sparse.csr_matrix
    ) -> Generator[Progress, None, Estimates]:
        """See `Imputer.estimate`."""
        rng = np.random.default_rng(self.seed)
        known = KnownEntries.draw(visible, hidden, self.gene_share, FIT_SHARE, rng)
        describer = yield from self.describe(known.visible, known.hidden)
        calibrator = fit_calibrator(describer, known.drawn, known.value, known.level, rng)
        describer = yield from self.describe(visible, hidden)
        return (yield from estimate_entries(describer, calibrator, hidden, phase="imputing"))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KnownEntries:
    """Visible entries that were hidden on top, so that what is said of them can be compared.

    Attributes
    ----------
    visible
        What is left.
    hidden
        All hidden entries, True where hidden, CSR (n, V).
    drawn
        Those hidden on top.
    value, level
        What these are: see `truth`, shape (m,).
    """

    visible: AlignedRna
    hidden: sparse.csr_matrix
    drawn: sparse.csr_matrix
    value: np.ndarray
    level: np.ndarray

    @classmethod
    def draw(
        cls,
        rna: AlignedRna,
        hidden: sparse.csr_matrix,
        gene_share: np.ndarray,
        share_of_rows: float,
        rng: np.random.Generator,
        *,
        share: float | np.ndarray = HIDDEN_SHARE,
    ) -> KnownEntries:
        """Hide a share of the entries of some rows, `share_of_rows` of `MAX_TEST_ROWS` at most."""
        n_rows = max(1, round(share_of_rows * min(rna.n_obs, MAX_TEST_ROWS)))
        rows = np.sort(rng.choice(rna.n_obs, n_rows, replace=False))
        visible, drawn = hide_entries(rna, share, rng, rows=rows, hidden=hidden)
        # Of these rows alone: a section may have many more.
        part = rna.take(rows)
        measured_share = part.shares(gene_share) - hidden[rows] @ gene_share
        value, level = truth(log1p_cp10k(part.counts, measured_share), drawn[rows])
        both = sparse.csr_matrix(hidden + drawn)
        both.sort_indices()
        return cls(visible=visible, hidden=both, drawn=drawn, value=value, level=level)


class StateImputer(CalibratedImputer):
    """Imputes by the model's components, the section's statistics and, if wanted, neighbours.

    Parameters
    ----------
    checkpoint
        A translator with components of expression.
    context, positions, n_neighbours
        See `impute_survey.survey`.
    never_measured
        Use nothing that the section tells about the gene itself, as for a gene that it lacks.
    seed
        Draws the entries that weights are fitted to.
    """

    name = "model"

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        context: str = "none",
        positions: np.ndarray | None = None,
        n_neighbours: int = N_NEIGHBOURS,
        never_measured: bool = False,
        seed: int = 0,
    ) -> None:
        self.components = Components.of(checkpoint)
        super().__init__(self.components.gene_share, seed=seed)
        self.context = context
        self.positions = positions
        self.n_neighbours = n_neighbours
        self.never_measured = never_measured

    def survey(
        self, rna: AlignedRna, hidden: sparse.csr_matrix, phase: str
    ) -> Generator[Progress, None, Survey]:
        """Read the visible entries of a section."""
        return survey(
            self.components,
            rna,
            hidden,
            context=self.context,
            positions=self.positions,
            n_neighbours=self.n_neighbours,
            phase=phase,
        )

    def describe(
        self, rna: AlignedRna, hidden: sparse.csr_matrix
    ) -> Generator[Progress, None, Describer]:
        """See `CalibratedImputer.describe`."""
        found = yield from self.survey(rna, hidden, "reading cells")
        return found.missing_features if self.never_measured else found.measured_features
