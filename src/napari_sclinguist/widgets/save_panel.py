"""Save predictions, export figures and tables, copy the picture as a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sclinguist.control.jobs import State
from napari_sclinguist.control.saving import Saving
from napari_sclinguist.widgets.figure_group import FigureGroup
from napari_sclinguist.widgets.job_progress import JobProgress
from napari_sclinguist.widgets.save_group import SaveGroup
from napari_sclinguist.widgets.table_group import TableGroup

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace


class SavePanel(QWidget):
    """Three groups about the active section, and the progress of what they start.

    Parameters
    ----------
    workspace
        Whose active section is saved and exported.

    Attributes
    ----------
    saving
        The controller; it knows where sections were saved.
    save, figure, table
        The groups.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.saving = Saving(workspace)
        self.save = SaveGroup(workspace, self.saving)
        self.figure = FigureGroup(workspace, self.saving)
        self.table = TableGroup(workspace)
        self.progress = JobProgress(workspace)
        self._opened: OpenSection | None = None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 10, 4, 4)
        layout.setSpacing(12)
        for widget in (self.save, self.progress, self.figure, self.table):
            layout.addWidget(widget)
        layout.addStretch(1)
        workspace.active_changed.connect(self._follow)
        workspace.jobs.state_changed.connect(self._on_state)
        self._follow(workspace.active)

    def render_state(self, *_: object) -> None:
        """Show what the controllers hold."""
        idle = self.workspace.jobs.state is State.IDLE
        for group in (self.save, self.figure, self.table):
            group.setEnabled(self._opened is not None)
            group.render_section(self._opened, idle)

    def _follow(self, opened: OpenSection | None) -> None:
        for signal in _signals(self._opened):
            signal.disconnect(self.render_state)
        self._opened = opened
        for signal in _signals(opened):
            signal.connect(self.render_state)
        self.render_state()

    def _on_state(self, state: State) -> None:
        if self._opened is not None:
            self.progress.noun = self._opened.noun
        self.render_state()


def _signals(opened: OpenSection | None) -> list:
    if opened is None:
        return []
    return [
        opened.view_changed,
        opened.contents_changed,
        opened.dirty_changed,
        opened.selection_changed,
    ]
