"""The plugin's one widget: sections at the top, tabs for what to do, messages at the bottom."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QScrollArea, QTabWidget, QVBoxLayout, QWidget

from napari_sclinguist.control.jobs import single_step
from napari_sclinguist.control.workspace import Workspace
from napari_sclinguist.widgets.message_bar import MessageBar
from napari_sclinguist.widgets.section_bar import SectionBar
from napari_sclinguist.widgets.window_guard import WindowGuard
from napari_sclinguist.widgets.worker import launch

if TYPE_CHECKING:
    from types import ModuleType

    import napari
    from qtpy.QtGui import QCloseEvent


class Tab(NamedTuple):
    """A tab; its panel is imported and built when it is first opened."""

    title: str
    module: str
    panel: str
    tip: str


TABS = (
    Tab("Predict", "predict_panel", "PredictPanel", "Predict proteins from the RNA"),
    Tab("Explore", "explore_panel", "ExplorePanel", "Colour the tissue by a protein or gene"),
    Tab("Compare", "compare_panel", "ComparePanel", "Two features side by side, and regions"),
    Tab("Perturb", "perturb_panel", "PerturbPanel", "Knock a gene out and see what changes"),
    Tab("Save", "save_panel", "SavePanel", "Save predictions; export figures and tables"),
)
_WIDTH = 400
_AHEAD_MS = 500


def _module_of(tab: Tab) -> ModuleType:
    return importlib.import_module(f"napari_sclinguist.widgets.{tab.module}")


def import_ahead() -> None:
    """Import what the other tabs need, in a thread; the first plot else stops the window 2 s."""
    for tab in TABS:
        _module_of(tab)
    from napari.layers import Shapes

    Shapes()  # the first one compiles how shapes are filled


class ProteinDock(QWidget):
    """What opens under "Plugins > Protein from RNA".

    Parameters
    ----------
    napari_viewer
        The viewer; napari passes it by this name.

    Attributes
    ----------
    workspace
        The state that all panels render.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.workspace = Workspace(napari_viewer, launch)
        self.messages = MessageBar(self.workspace)
        self.workspace.adopt_all()
        self.section_bar = SectionBar(self.workspace)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self._panels: dict[str, QWidget] = {}
        for tab in TABS:
            place = QScrollArea()
            place.setWidgetResizable(True)
            place.setFrameShape(QScrollArea.Shape.NoFrame)
            place.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
            index = self.tabs.addTab(place, tab.title)
            self.tabs.setTabToolTip(index, tab.tip)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(self.section_bar)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.messages)
        self.setMinimumWidth(_WIDTH)
        self.panel("Predict").predicting.finished.connect(self._on_predicted)
        # Built ahead, so that the result of a prediction appears without a wait.
        self._ahead = QTimer(self)
        self._ahead.setSingleShot(True)
        self._ahead.setInterval(_AHEAD_MS)
        self._ahead.timeout.connect(self._prepare_tabs)
        self.workspace.active_changed.connect(self._build_ahead)
        self._build_ahead(self.workspace.active)
        self.tabs.currentChanged.connect(lambda index: self.panel(TABS[index].title))
        # A window that is closed deletes its docks without closing them first.
        self.destroyed.connect(self.workspace.close)

    def panel(self, title: str) -> QWidget:
        """Return the panel of a tab, built when it is first asked for."""
        if title not in self._panels:
            index = next(i for i, tab in enumerate(TABS) if tab.title == title)
            tab = TABS[index]
            panel = getattr(_module_of(tab), tab.panel)(self.workspace)
            self._panels[title] = panel
            self.tabs.widget(index).setWidget(panel)
        return self._panels[title]

    def open_tab(self, title: str) -> QWidget:
        """Bring a tab to the front; returns its panel."""
        panel = self.panel(title)
        self.tabs.setCurrentIndex(next(i for i, tab in enumerate(TABS) if tab.title == title))
        return panel

    def _build_ahead(self, opened: object) -> None:
        if opened is not None and "Explore" not in self._panels:
            self._ahead.start()

    def _prepare_tabs(self) -> None:
        self.panel("Explore")
        self.workspace.in_background(
            "Preparing the tabs", single_step(import_ahead), lambda _: None
        )

    def _on_predicted(self, opened: object) -> None:
        """Let the result appear by itself."""
        self.open_tab("Explore")

    def showEvent(self, event: QEvent) -> None:
        """Guard the window that the dock is in: what is not saved is asked about."""
        window = self.window()
        if window is not self:
            WindowGuard.set_up(window, self.viewer)
        super().showEvent(event)

    def event(self, event: QEvent) -> bool:
        """Let go of the viewer when napari takes the dock out of its window."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.workspace.close()
        return super().event(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Cancel running work and let go of the viewer."""
        self.workspace.close()
        super().closeEvent(event)
