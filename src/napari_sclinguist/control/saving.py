"""Saving a section with its predictions and its view, so that both return when it is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from psygnal import Signal

from napari_sclinguist.control.catalogue import PREDICTED_KEY
from napari_sclinguist.control.jobs import Report, State
from napari_sclinguist.layers import VIEW_KEY
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.view import View
    from napari_sclinguist.control.workspace import Workspace
    from sclinguist_core.data.section import Section

TITLE = "Saving"
SUFFIXES = (".h5ad", ".zarr")

_NOT_IN_FILE_NAMES = re.compile(r"[^\w.\-]+")
_PARTS_OF_A_RUN = {"outs", "binned_outputs", "segmented_outputs"}


class Saving:
    """Writes sections of a workspace beside the window, and remembers where to.

    Parameters
    ----------
    workspace
        Whose jobs do the work.
    """

    saved = Signal(object)
    """OpenSection, after its file was written."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._paths: WeakKeyDictionary[OpenSection, Path] = WeakKeyDictionary()
        self._may_replace: WeakSet[OpenSection] = WeakSet()
        self._folder: Path | None = None
        self._when_done: Callable[[], None] | None = None
        workspace.jobs.state_changed.connect(self._on_state)

    def path_of(self, opened: OpenSection) -> Path | None:
        """Find the file that holds the predictions of a section; None while there is none.

        That is the file it was saved to, or the table with predictions that it was opened from.
        """
        if opened.dirty:
            return None
        source = opened.section.source
        opened_from = source if source is not None and source.suffix.lower() in SUFFIXES else None
        saved = self._paths.get(opened)
        return saved or (opened_from if has_predictions(opened.section) else None)

    def propose(self, opened: OpenSection) -> Path:
        """Propose a name that no file has yet, in the folder that was used last."""
        folder = self._folder or default_folder(opened.section)
        return free_name(folder, f"{file_stem(opened.name)}_proteins", SUFFIXES[0])

    def must_ask(self, opened: OpenSection, path: str | os.PathLike[str]) -> bool:
        """Whether a path is what the section was opened from, which is replaced only if allowed."""
        return opened not in self._may_replace and is_original(opened.section, path)

    def allow_replacing(self, opened: OpenSection) -> None:
        """Take the answer that the original may be replaced; it is not asked for again."""
        self._may_replace.add(opened)

    def save(
        self,
        wanted: Sequence[tuple[OpenSection, str | os.PathLike[str]]],
        when_done: Callable[[], None] = lambda: None,
    ) -> bool:
        """Start to write sections, one after another; whether that could be started.

        What stands in the way becomes a message of the workspace.

        Parameters
        ----------
        wanted
            Sections and where to.
        when_done
            Called when all of them are written, not after a failure or where it was cancelled.
        """
        try:
            steps = [save_steps(opened.section, opened.view, path) for opened, path in wanted]
            for one in steps:
                next(one)  # checks the path, and takes the table as it is now
            changes = [opened.changes for opened, _ in wanted]

            def write() -> Generator[Report, None, list[Path]]:
                written = []
                for one in steps:
                    written.append((yield from one))
                return written

            def take(paths: list[Path]) -> None:
                for (opened, _), path, saved in zip(wanted, paths, changes, strict=True):
                    self._on_saved(opened, path, saved)
                if self.workspace.jobs.state is State.RUNNING:  # nobody asked to stop
                    self._when_done = when_done

            self.workspace.jobs.start(TITLE, write, take, keeps_result_when_late=True)
        except InputError as error:
            self.workspace.report(error, TITLE)
            return False
        return True

    def _on_saved(self, opened: OpenSection, path: Path, changes: int) -> None:
        self._paths[opened] = path
        self._folder = path.parent
        if opened.changes == changes:  # what was added meanwhile is not in the file
            opened.set_dirty(False)
        self.saved.emit(opened)

    def _on_state(self, state: State) -> None:
        # Once the thread is done, so that the window may close.
        if state is State.IDLE and self._when_done is not None:
            when_done, self._when_done = self._when_done, None
            when_done()


def save_steps(
    section: Section, view: View, path: str | os.PathLike[str]
) -> Generator[Report, None, Path]:
    """Write the table of a section with a view in it; the section itself is not changed.

    The path is checked and the table taken as it is before the first step; writing comes after.

    Raises
    ------
    InputError
        See `sclinguist_core.data.write.write_table`.
    """
    from sclinguist_core.data.write import section_table, write_table_iter

    table = section_table(section)
    table.uns[VIEW_KEY] = storable_view(view)
    steps = write_table_iter(table, path)
    while True:
        try:
            phase = next(steps)
        except StopIteration as end:
            return end.value
        yield Report(phase=phase, done=0, total=section.n_obs)


def storable_view(view: View) -> dict[str, Any]:
    """Turn a view into what ``uns`` can hold: files have no slash in names."""
    saved = view.to_dict()
    for part in ("limits", "thresholds"):
        saved[part] = {key: value for key, value in saved[part].items() if "/" not in key}
    return saved


def has_predictions(section: Section) -> bool:
    """Whether proteins were predicted for a section."""
    return PREDICTED_KEY in section.table.obsm


def is_original(section: Section, path: str | os.PathLike[str]) -> bool:
    """Whether a path is what the section was opened from, links followed."""
    source, path = section.source, Path(path).expanduser()
    return source is not None and source.exists() and path.exists() and path.samefile(source)


def default_folder(section: Section) -> Path:
    """Folder beside what was opened; the home folder where that is ours or cannot be written."""
    from sclinguist_core.resources import cache_dir, sample_section_path

    source = section.source
    if source is None or not source.exists():
        return Path.home()
    folder = source.resolve().parent
    while folder.name in _PARTS_OF_A_RUN:
        folder = folder.parent
    try:
        own = [cache_dir().resolve(), sample_section_path().resolve().parent]
    except InputError:  # the sample is not installed
        own = [cache_dir().resolve()]
    is_own = any(folder == one or one in folder.parents for one in own)
    return Path.home() if is_own or not os.access(folder, os.W_OK) else folder


def file_stem(name: str) -> str:
    """Name of a section as it can be that of a file."""
    return _NOT_IN_FILE_NAMES.sub("_", name).strip("._") or "section"


def free_name(folder: Path, stem: str, suffix: str) -> Path:
    """First of ``stem``, ``stem_2``, ``stem_3`` that nothing in a folder is called."""
    path, number = folder / f"{stem}{suffix}", 2
    while path.exists():
        path, number = folder / f"{stem}_{number}{suffix}", number + 1
    return path
