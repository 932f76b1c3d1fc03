"""Perturbing genes of the active section: the question, the run, and the last few answers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psygnal import Signal

from napari_sclinguist.control.catalogue import PREDICTED_KEY
from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.groupings import groupings, rows_of
from napari_sclinguist.control.jobs import State
from napari_sclinguist.control.messages import Message
from napari_sclinguist.control.perturbation_run import Run, make_run
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.view import View
    from napari_sclinguist.control.workspace import Workspace
    from sclinguist_core.data.section import Section

TITLE = "Perturbing"
BACKGROUND = 20
"""Random genes that a perturbed one is compared with."""
MOST_RUNS = 5
_MOST_VALUES = 200_000_000
"""Changes that are kept of all runs of a section; 0.8 GB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Which rows are perturbed.

    Attributes
    ----------
    title
        What people read.
    heading
        What it stands under in a list: the title of its grouping; "" for all rows.
    grouping, group
        See `napari_sclinguist.control.groupings`; "" for all rows.
    """

    title: str
    heading: str = ""
    grouping: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked.

    Attributes
    ----------
    genes
        Names as they were typed; perturbed together.
    scale
        Factor of their expression; 0 knocks out.
    place
        Where.
    background
        Whether to compare with random genes.
    """

    genes: tuple[str, ...] = ()
    scale: float = 0.0
    place: Place | None = None
    background: bool = False


@dataclass(slots=True)
class _Answers:
    """What is kept of a section: its last runs, and what it showed before."""

    runs: list[Run]
    present: Run | None = None
    former_view: View | None = None
    predicted: object = None


class Perturbing:
    """Asks the model about the active section, and shows what it answers.

    Parameters
    ----------
    workspace
        Whose active section is asked about, with the model that the Predict tab chose.

    Attributes
    ----------
    question
        What `start` asks; replaced, never changed.
    """

    changed = Signal()
    """Runs came or went, or another is shown."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.question = Question()
        self._answers: WeakKeyDictionary[Section, _Answers] = WeakKeyDictionary()
        self._job_section: OpenSection | None = None
        workspace.active_changed.connect(self._on_active)
        workspace.sections_changed.connect(self._on_sections)
        workspace.jobs.state_changed.connect(self._on_job)
        self._on_sections()

    # --- the question -----------------------------------------------------------------------

    @property
    def problem(self) -> str:
        """Why nothing can be asked, as a sentence; "" where it can."""
        opened = self.workspace.active
        if opened is None:
            return "Open a section to see how its proteins would answer to the loss of a gene."
        if not opened.section.has_rna:
            return f"{opened.name} has no RNA, so there is no gene to change."
        return ""

    def places(self) -> list[Place]:
        """Where genes can be perturbed: everywhere, in what is selected, in a group."""
        opened = self.workspace.active
        if opened is None:
            return []
        found = [Place(title=f"All {opened.section.n_obs:,} {opened.noun}")]
        for grouping in groupings(opened):
            found += [
                Place(title=name, heading=grouping.title, grouping=grouping.key, group=name)
                for name in grouping.names
            ]
        return found

    # --- the run ----------------------------------------------------------------------------

    def start(self) -> None:
        """Ask; what stands in the way becomes a message, also that another job is running."""
        opened = self.workspace.active
        if opened is None:
            return
        try:
            self._start(opened, self.question)
        except InputError as error:
            self.workspace.report(error, TITLE)
            return
        self._job_section = opened
        self.changed.emit()

    def _start(self, opened: OpenSection, question: Question) -> None:
        if not question.genes:
            raise InputError("No gene is named: type one, such as CD3E, then run.")
        if question.scale == 1.0:
            raise InputError("× 1 leaves the expression as it is: choose another factor.")
        place = question.place or self.places()[0]
        where = f"in {place.title}" if place.grouping else f"in all {opened.noun}"
        find_rows = rows_of(opened, place.grouping, place.group) if place.grouping else None
        choice = self.workspace.model_choice
        model, device, batch_size = choice.model, choice.chosen_device, choice.batch_size
        predicted = _predictions(opened)
        trust = {entry.name: entry.trust for entry in opened.catalogue.of_kind(Kind.PREDICTED)}

        def steps() -> Generator[Any, None, Run]:
            from sclinguist_core.model.torch_libraries import import_torch_quietly

            import_torch_quietly()
            from sclinguist_core.inference.perturb import perturb_iter

            found = yield from perturb_iter(
                opened.section,
                question.genes,
                scale=question.scale,
                rows=None if find_rows is None else find_rows(),
                model=model,
                device=device,
                batch_size=batch_size,
                background=BACKGROUND if question.background else 0,
            )
            return make_run(found, opened.section.table.obs_names, where, trust)

        def take(run: Run) -> None:
            if _predictions(opened) is predicted:
                self._accept(opened, run)

        self.workspace.jobs.start(f"{TITLE} {', '.join(question.genes)}", steps, take)

    def cancel(self) -> None:
        """Stop the run after its present batch."""
        self.workspace.jobs.cancel()

    def _accept(self, opened: OpenSection, run: Run) -> None:
        if not run.n_affected:
            text = " ".join(run.warnings) or "Nothing changes."
            self.workspace.message.emit(Message(text=text, level="warning"))
            return
        answers = self._of(opened)
        answers.runs.insert(0, run)
        del answers.runs[max(1, min(MOST_RUNS, _MOST_VALUES // run.changes.size)) :]
        self._show(opened, run, run.proteins[0])

    # --- the answers ------------------------------------------------------------------------

    @property
    def runs(self) -> list[Run]:
        """Last runs of the active section, the latest first."""
        opened = self.workspace.active
        return [] if opened is None else list(self._of(opened).runs)

    @property
    def run(self) -> Run | None:
        """The run that is looked at."""
        opened = self.workspace.active
        return None if opened is None else self._of(opened).present

    @property
    def shown_protein(self) -> str:
        """Protein whose change is on the tissue; "" where another feature is."""
        opened = self.workspace.active
        keys = () if opened is None else opened.view.keys
        kind, _, name = keys[0].partition(":") if len(keys) == 1 else ("", "", "")
        return name if kind == Kind.CHANGE else ""

    def choose_run(self, run: Run) -> None:
        """Look at another run; if a change is on the tissue, the same protein's stays there."""
        opened = self.workspace.active
        shown = self.shown_protein
        self._show(opened, run, shown if shown in run.changes else run.proteins[0])

    def show_protein(self, protein: str) -> None:
        """Show the change of a protein on the tissue."""
        opened = self.workspace.active
        self._remember_view(opened)
        opened.show(f"{Kind.CHANGE}:{protein}")

    def back(self) -> None:
        """Show again what was shown before the changes."""
        opened = self.workspace.active
        former = self._of(opened).former_view
        keys = () if former is None else [key for key in former.keys if key in opened.catalogue]
        keys = keys or opened.catalogue.default_keys()[:1]
        if keys:
            opened.set_view((former or opened.view).showing(*keys))

    def _show(self, opened: OpenSection, run: Run, protein: str) -> None:
        answers = self._of(opened)
        self._remember_view(opened)
        answers.present = run
        opened.catalogue.set_changes(run.changes)
        opened.contents_changed.emit()
        opened.show(f"{Kind.CHANGE}:{protein}")
        self.changed.emit()

    def _remember_view(self, opened: OpenSection) -> None:
        if not any(key.startswith(f"{Kind.CHANGE}:") for key in opened.view.keys):
            self._of(opened).former_view = opened.view

    # --- following --------------------------------------------------------------------------

    def _of(self, opened: OpenSection) -> _Answers:
        # By section, so that they are still there when a closed one is brought back.
        if opened.section not in self._answers:
            self._answers[opened.section] = _Answers(runs=[], predicted=_predictions(opened))
        return self._answers[opened.section]

    def _drop_outdated(self) -> None:
        """Forget changes when their section has new predictions: they were made beside others."""
        for opened in self.workspace.sections:
            answers, predicted = self._of(opened), _predictions(opened)
            if predicted is answers.predicted:
                continue
            had_runs = bool(answers.runs)
            self._answers[opened.section] = _Answers(runs=[], predicted=predicted)
            if had_runs:
                opened.catalogue.set_changes(None)
                opened.contents_changed.emit()
                opened.refresh_view()
                self.changed.emit()

    def _on_sections(self) -> None:
        for opened in self.workspace.sections:
            self._of(opened)
            opened.contents_changed.connect(self._drop_outdated, unique=True)
        if self._job_section is not None and self._job_section not in self.workspace.sections:
            self._job_section = None
            self.cancel()

    def _on_active(self, opened: OpenSection | None) -> None:
        self.changed.emit()

    def _on_job(self, state: State) -> None:
        if state is State.IDLE:  # the next job may be another's
            self._job_section = None


def _predictions(opened: OpenSection) -> object:
    return opened.section.table.obsm.get(PREDICTED_KEY)
