"""The methods of a benchmark behind one interface: fit for a task, predict a query.

A method predicts the canonical proteins of a task for a *query*: the test cells, perhaps with
poorer RNA (:mod:`sclinguist_core.evaluation.degrade`). It returns nothing for a query that it
cannot predict, such as an embedding of RNA that was changed afterwards.

Shapes: n cells, P proteins.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from sclinguist_core.data.section import RnaCounts
from sclinguist_core.evaluation.count_reading import (
    MAX_CELLS,
    CountReading,
    Reading,
    cell_size,
    fit_count_reading,
)
from sclinguist_core.evaluation.features import TrainingSets, measured_genes
from sclinguist_core.evaluation.learners import (
    FOUR,
    MAX_BLOCKS,
    FittedLearners,
    Predictions,
    fit_learners,
    predict_in_blocks,
)
from sclinguist_core.evaluation.metrics import FloatArray
from sclinguist_core.evaluation.selection import Candidate, choose
from sclinguist_core.evaluation.tasks import MeasuredCells, Task

if TYPE_CHECKING:
    from sclinguist_core.model.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

MODEL = "model"


class Method(Protocol):
    """One method, or several that share their work, fitted for a task."""

    def predict(self, query: MeasuredCells) -> Predictions:
        """Predict cells: (n, P) by name of the method."""

    @property
    def notes(self) -> list[str]:
        """What a reader of the table must know, one sentence each."""


class ModelMethod:
    """A checkpoint of this package.

    Parameters
    ----------
    checkpoint
        The model.
    proteins
        The P proteins. Those that it has not learnt are asked for by their genes
        (:mod:`sclinguist_core.model.gene_queries`); NaN where it does not know a gene of theirs.
    device
        Where it runs.
    log1p_from
        Training sets from which ``log1p`` counts are learnt on top of the CLR
        (:mod:`sclinguist_core.evaluation.count_reading`), for the log1p figures; none to leave it.
        Of a model that predicts ``log1p`` counts itself the mean of both is taken.
    name
        Row of the table.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        proteins: Sequence[str],
        *,
        device: str = "auto",
        log1p_from: Sequence[MeasuredCells] = (),
        name: str = MODEL,
    ) -> None:
        self.checkpoint = with_proteins(checkpoint, proteins)
        names = dict.fromkeys([*self.checkpoint.protein_names, *proteins])
        self._askable = [name for name in names if can_answer(self.checkpoint, name)]
        self.proteins = list(proteins)
        self.device = device
        self.name = name
        self.notes: list[str] = []
        self._names = list(names)
        self._own = np.array([self._names.index(name) for name in self.proteins], np.int64)
        complete = len(self._askable) == len(self._names)
        self._counts = self._read_counts(log1p_from) if log1p_from and complete else None

    def predict(self, query: MeasuredCells) -> Predictions:
        """Predict cells."""
        if self._counts is None:
            return Predictions({self.name: self._predicted(query, self.proteins)[0]}, {})
        reading, own_log1p = self._reading(query)
        counts = self._counts(reading)
        if own_log1p is not None:
            counts = (counts + own_log1p[:, self._own]) / 2  # both in standard deviations
        return Predictions({self.name: reading.clr[:, self._own]}, {self.name: counts})

    def _predicted(
        self, query: MeasuredCells, proteins: Sequence[str], *, log1p: bool = False
    ) -> tuple[FloatArray, FloatArray | None]:
        """CLR, and ``log1p`` counts where asked for, float64 (n, proteins)."""
        from sclinguist_core.inference.predict import predict_iter
        from sclinguist_core.inference.progress import finish

        steps = predict_iter(
            query.to_section(),
            model=self.checkpoint,
            proteins=[name for name in proteins if name in self._askable],
            device=self.device,
            log1p=log1p,
        )
        found = finish(steps)
        # -1, for what it has no answer to, is the column of NaN that is put last.
        order = pd.Index(found.names).get_indexer(list(proteins))
        wider = [
            None if x is None else np.insert(x.astype(np.float64), x.shape[1], np.nan, axis=1)
            for x in (found.mean, found.log1p)
        ]
        clr, counts = (None if x is None else x[:, order] for x in wider)
        assert clr is not None
        return clr, counts

    def _reading(self, query: MeasuredCells) -> tuple[Reading, FloatArray | None]:
        # The published architecture has no such option.
        knows_log1p = bool(getattr(self.checkpoint.info.model, "log_output", False))
        # Asked for by its gene a protein has no log1p counts.
        knows_log1p &= len(self._names) == len(self.checkpoint.protein_names)
        clr, log1p = self._predicted(query, self._names, log1p=knows_log1p)
        size = cell_size(query.paired.rna, self.checkpoint.symbols, self.checkpoint.gene_share)
        return Reading(clr=clr, size=size), log1p

    def _read_counts(self, train: Sequence[MeasuredCells]) -> CountReading:
        rng = np.random.default_rng(0)
        readings, targets = [], []
        for data in train:
            targets_of = data.paired.targets("log1p").reindex(columns=self.proteins)
            rows = np.sort(rng.permutation(data.n_obs)[:MAX_CELLS])
            readings.append(self._reading(data.take(rows))[0])
            targets.append(targets_of.to_numpy(np.float64)[rows])
        return fit_count_reading(readings, targets, self._own)


def can_answer(checkpoint: Checkpoint, protein: str) -> bool:
    """Whether a model predicts a protein, or knows a gene that it can be asked for by."""
    from sclinguist_core.vocabulary.proteins import resolve_protein

    if protein in checkpoint.protein_names:
        return True
    return not set(resolve_protein(protein).genes).isdisjoint(checkpoint.symbols)


def with_proteins(checkpoint: Checkpoint, proteins: Sequence[str]) -> Checkpoint:
    """Return a checkpoint that predicts these proteins too.

    One with a cell state is asked for them by their genes as it is; another gets untrained queries
    of its decoder, made from the coding genes.
    """
    missing = [name for name in proteins if name not in checkpoint.protein_names]
    if not missing or bool(getattr(checkpoint.info.model, "n_components", 0)):
        return checkpoint
    from sclinguist_core.train.panel import add_proteins
    from sclinguist_core.vocabulary.proteins import list_proteins

    known = list_proteins().loc[missing]
    rows = {"name": missing, "genes": known["genes"].tolist(), "kind": known["kind"].tolist()}
    return add_proteins(checkpoint, pd.DataFrame(rows))


class LearnerMethods:
    """The trained baselines.

    Parameters
    ----------
    task
        Its training sets are learnt from.
    proteins
        The P proteins.
    methods
        Which of them.
    select
        Whether each chooses its training sets
        (:func:`sclinguist_core.evaluation.selection.choose`); else all are used.
    rna_only
        Further RNA that helps to estimate the reference transcriptome.
    log1p
        Whether to fit to ``log1p`` counts too, for the log1p figures.
    seed
        Of what is random.
    """

    def __init__(
        self,
        task: Task,
        proteins: Sequence[str],
        *,
        methods: Sequence[str] = FOUR,
        select: bool = True,
        rna_only: Sequence[RnaCounts] = (),
        log1p: bool = False,
        seed: int = 0,
    ) -> None:
        self.training = TrainingSets.prepare([data.paired for data in task.train], rna_only)
        self.proteins = list(proteins)
        self.methods = tuple(methods)
        self.select = select
        self.log1p = log1p
        self.seed = seed
        self.notes: list[str] = []
        self._fitted: dict[bytes, FittedLearners] = {}
        self._chosen: dict[bytes, dict[str, Candidate] | None] = {}

    def predict(self, query: MeasuredCells) -> Predictions:
        """Predict cells; learners are fitted once for each set of measured genes."""
        aligned = self.training.align(query.paired.rna)
        choices = self._choices(measured_genes(aligned))
        return predict_in_blocks(lambda measured: self._fit(measured, choices), aligned)

    def components(self, query: MeasuredCells) -> FloatArray:
        """Principal components of cells in the training space, float64 (n, C)."""
        aligned = self.training.align(query.paired.rna)
        measured = measured_genes(aligned)
        return self._fit(measured, self._choices(measured)).components(aligned)

    def _choices(self, measured: np.ndarray) -> dict[str, Candidate] | None:
        key = measured.tobytes()
        if key not in self._chosen:
            self._chosen[key] = (
                choose(self.training, measured, seed=self.seed) if self.select else None
            )
        return self._chosen[key]

    def _fit(self, measured: np.ndarray, choices: dict[str, Candidate] | None) -> FittedLearners:
        """Learners for cells that measured these genes, bool (V,)."""
        key = measured.tobytes()
        if key not in self._fitted:
            if len(self._fitted) >= MAX_BLOCKS:
                self._fitted.clear()
            self._fitted[key] = fit_learners(
                self.training,
                measured,
                self.proteins,
                methods=self.methods,
                choices=choices,
                log1p=self.log1p,
                seed=self.seed,
            )
            chosen = {name: choice.name for name, choice in self._fitted[key].choices.items()}
            logger.info("learnt from %s", chosen)
        return self._fitted[key]


class PublishedMethod:
    """The published scLinguist architecture, trained from scratch on the task's training sets."""

    def __init__(
        self, task: Task, proteins: Sequence[str], *, device: str = "auto", seed: int = 0
    ) -> None:
        from sclinguist_core.evaluation.published import PUBLISHED, describe, training_for
        from sclinguist_core.model.device import choose_device

        self.train = [data.paired for data in task.train]
        self.proteins = list(proteins)
        self.device = device
        self.seed = seed
        self.training = training_for(choose_device(device).type)
        self.notes = [f"{PUBLISHED}: {describe(self.training)}."]

    def predict(self, query: MeasuredCells) -> Predictions:
        """Train on the genes of the query and predict it."""
        from sclinguist_core.evaluation.published import PUBLISHED, train_and_predict

        predicted = train_and_predict(
            self.train,
            query.paired.rna,
            self.proteins,
            seed=self.seed,
            training=self.training,
            device=self.device,
        )
        return Predictions({PUBLISHED: predicted}, {})
