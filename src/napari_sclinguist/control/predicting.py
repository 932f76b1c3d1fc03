"""Predicting the proteins of the active section: what it will take, the run, its outcome."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_sclinguist.control.jobs import State, single_step
from napari_sclinguist.control.messages import Action, Message
from napari_sclinguist.control.model_choice import BUNDLED
from napari_sclinguist.control.protein_choice import Offer, ProteinChoice, Which, best_proteins
from napari_sclinguist.control.remembered import Remembered
from sclinguist_core.accelerator import find_accelerator
from sclinguist_core.errors import InputError, NotEnoughMemoryError

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace
    from sclinguist_core.accelerator import Accelerator
    from sclinguist_core.inference.prediction import Prediction

TITLE = "Predicting proteins"

_GUESSED_RATE = 700_000.0
"""Work a second and processor core, until a first run has told; see `work`."""
_WORK_OF_ROW, _WORK_OF_PROTEIN = 440.0, 2.6
"""What the bundled model does for a row, and for a protein of a row, in expressed genes."""
START_SECONDS = 4.0
"""Of a run, before its first batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known before a run.

    Attributes
    ----------
    n_rows, noun
        Rows of the section, and what they are called.
    genes_found, genes_expected
        Of the model.
    n_measured
        Measured proteins, isotype controls included.
    n_expressed
        Expressed genes over all rows, which the time depends on.
    offer
        Proteins that there are to choose from.
    problem
        Why this section cannot be predicted, as a sentence; "" where it can.
    """

    n_rows: int
    noun: str
    genes_found: int
    genes_expected: int
    n_measured: int
    n_expressed: int
    offer: Offer
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run gave.

    Attributes
    ----------
    section
        Name of the section.
    n_proteins, seconds, device
        Of the run.
    trust
        Number of proteins by trust label.
    warnings
        Sentences.
    """

    section: str
    n_proteins: int
    seconds: float
    device: str
    trust: dict[str, int]
    warnings: tuple[str, ...]


class Predicting:
    """Choices for a run, and the run.

    Parameters
    ----------
    workspace
        Whose active section is predicted.
    remembered
        Recent models and rates.

    Attributes
    ----------
    choice
        Model, device and batch size: the workspace's.
    proteins
        Which proteins.
    facts
        Of the active section and the model; None before they are known.
    outcome
        Of the last run.
    """

    changed = Signal()
    finished = Signal(object)
    """OpenSection"""

    def __init__(self, workspace: Workspace, remembered: Remembered | None = None) -> None:
        self.workspace = workspace
        self.remembered = remembered or Remembered()
        self.choice = workspace.model_choice
        self.proteins = ProteinChoice()
        self.facts: Facts | None = None
        self.outcome: Outcome | None = None
        self._job_section: OpenSection | None = None
        workspace.active_changed.connect(self._on_active_changed)
        workspace.sections_changed.connect(self._cancel_if_closed)
        workspace.jobs.state_changed.connect(self._on_job)
        workspace.in_background(
            "Looking for a GPU", single_step(find_accelerator), self._on_accelerator
        )
        self._look()

    # --- choices ----------------------------------------------------------------------------

    def models(self) -> list[tuple[str, str]]:
        """Models on offer: value and what people read."""
        recent = [folder for folder in self.remembered.recent_models if folder != self.choice.model]
        chosen = [] if self.choice.model == BUNDLED else [self.choice.model]
        return [
            (BUNDLED, "Bundled model"),
            *((folder, Path(folder).name) for folder in (*chosen, *recent)),
        ]

    def choose_model(self, model: str) -> None:
        """Use another model; one that cannot be read is refused with a message."""
        from sclinguist_core.model.checkpoint import read_summary

        try:
            read_summary(model)
        except InputError as error:
            self.workspace.report(error, "Opening the model")
            self.changed.emit()
            return
        self.choice.model = model
        if model != BUNDLED:
            self.remembered.add_model(model)
        self._look()

    def card(self) -> str:
        """Read the model's card, Markdown."""
        from sclinguist_core.model.checkpoint import read_summary

        return read_summary(self.choice.model).card

    def estimate(self) -> tuple[float, bool] | None:
        """Seconds that a run will take, and whether that rests on a run on this computer."""
        if self.facts is None or self.facts.problem:
            return None
        known = self.remembered.rate(self.choice.chosen_device, self.choice.model)
        rate = known or _GUESSED_RATE * (os.cpu_count() or 1)
        return START_SECONDS + work(self.facts, self.proteins.number) / rate, known is not None

    def choose_proteins(self, which: Which, text: str | None = None) -> None:
        """Choose which proteins are predicted; `text` holds names, apart by commas."""
        self.proteins.choose(which, text)
        self.changed.emit()

    @property
    def note(self) -> str:
        """What stands against the chosen proteins, or led to them; "" where nothing."""
        facts = self.facts
        if facts is None or facts.problem:
            return ""
        return self.proteins.note(f"{facts.n_rows:,} {facts.noun}")

    @property
    def is_ready(self) -> bool:
        """Whether a run could start."""
        return self.facts is not None and not self.facts.problem and self.proteins.is_ready

    # --- the run ----------------------------------------------------------------------------

    def start(self) -> None:
        """Predict the active section; refused with a message while a job is running."""
        opened = self.workspace.active
        if opened is None:
            return
        choice = self.choice
        device, model, batch_size = choice.chosen_device, choice.model, choice.batch_size
        proteins, n_proteins = self.proteins.proteins, self.proteins.number
        facts, started = self.facts, time.monotonic()

        def steps() -> Generator[Any, None, Prediction]:
            from sclinguist_core.model.torch_libraries import import_torch_quietly

            import_torch_quietly()
            from sclinguist_core.inference.predict import predict_iter

            return (
                yield from predict_iter(
                    opened.section,
                    model=model,
                    proteins=proteins,
                    device=device,
                    batch_size=batch_size,
                )
            )

        def take(prediction: Prediction) -> None:
            seconds = time.monotonic() - started
            if facts is not None and seconds > START_SECONDS:
                rate = work(facts, n_proteins) / (seconds - START_SECONDS)
                self.remembered.set_rate(device, model, rate)
            self._accept(opened, prediction)

        try:
            self.workspace.jobs.start(TITLE, steps, take, self._remedy)
        except InputError as error:
            self.workspace.report(error, TITLE)
            return
        self._job_section = opened
        self.changed.emit()

    def cancel(self) -> None:
        """Stop the run after its present batch."""
        self.workspace.jobs.cancel()

    def _accept(self, opened: OpenSection, prediction: Prediction) -> None:
        info = prediction.info
        self.outcome = Outcome(
            section=opened.name,
            n_proteins=len(prediction.names),
            seconds=float(info["seconds"]),
            device=str(info["device"]),
            trust=dict(Counter(info.get("trust", {}).values())),
            warnings=prediction.warnings,
        )
        opened.accept(prediction)
        self.changed.emit()
        self.finished.emit(opened)

    def _remedy(self, error: BaseException) -> Action | None:
        if isinstance(error, NotEnoughMemoryError) and self.choice.chosen_device != "cpu":
            return Action(label="Predict on the CPU", run=self._start_on_cpu)
        return None

    def _start_on_cpu(self) -> None:
        self.choice.device = "cpu"
        self.start()

    # --- facts ------------------------------------------------------------------------------

    def _on_active_changed(self, opened: OpenSection | None) -> None:
        self._look()

    def _on_job(self, state: State) -> None:
        if state is State.IDLE:  # the next job may be another's
            self._job_section = None

    def _cancel_if_closed(self) -> None:
        if self._job_section is not None and self._job_section not in self.workspace.sections:
            self._job_section = None
            self.cancel()

    def _on_accelerator(self, found: Accelerator) -> None:
        self.choice.accelerator = found
        if found.remedy:
            self.workspace.message.emit(Message(text=found.remedy, level="warning"))
        self.changed.emit()

    def _look(self) -> None:
        """Work out the facts beside the window."""
        self.facts = None
        self.proteins.take(None)
        opened, model = self.workspace.active, self.choice.model
        self.changed.emit()
        if opened is None:
            return

        def take(facts: Facts) -> None:
            if opened is self.workspace.active and model == self.choice.model:
                self.facts = facts
                self.proteins.take(facts.offer)
                self.changed.emit()

        self.workspace.in_background(
            "Looking at the genes", single_step(lambda: look(opened, model)), take, of=opened
        )


def look(opened: OpenSection, model: str) -> Facts:
    """Find out what a prediction will have to work with."""
    from sclinguist_core.data.align import gene_aligner
    from sclinguist_core.inference.predict import BYTES_PER_MOVED_VALUE, BYTES_PER_VALUE
    from sclinguist_core.model.checkpoint import read_summary

    summary = read_summary(model)
    section = opened.section
    found = expressed = 0
    problem = ""
    try:
        rna = section.rna()
        expressed = int(rna.counts.nnz)
        symbols = summary.genes["symbol"].tolist()
        found = gene_aligner(rna.names, rna.ids, symbols, source=section.name).n_found
    except InputError as error:
        problem = str(error)
    return Facts(
        n_rows=section.n_obs,
        noun=opened.noun,
        genes_found=found,
        genes_expected=len(summary.genes),
        n_measured=section.table.obsm["protein"].shape[1] if section.has_protein else 0,
        n_expressed=expressed,
        offer=Offer(
            learnt=frozenset(summary.proteins["name"]),
            best=best_proteins(summary.proteins, "spots" if section.is_spatial else "cells"),
            genes=frozenset(summary.genes["symbol"]),
            bytes_each=section.n_obs * BYTES_PER_VALUE,
            bytes_each_by_gene=section.n_obs * BYTES_PER_MOVED_VALUE,
        ),
        problem=problem,
    )


def work(facts: Facts, n_proteins: int) -> float:
    """Work of a run, in expressed genes: each row and each of its proteins count as some of them.

    So the speed at which one section was predicted tells that of another, whose rows express many
    more genes or far fewer.
    """
    each = _WORK_OF_ROW + _WORK_OF_PROTEIN * n_proteins
    return facts.n_expressed + facts.n_rows * each


def duration(seconds: float) -> str:
    """Say a length of time as people do."""
    if not np.isfinite(seconds):
        return "unknown"
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 90 else f"{minutes / 60:.1f} h"
