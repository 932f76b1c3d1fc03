"""Asks before a window closes over what was not saved, also when the dock was closed before."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject

from napari_sclinguist.layers import METADATA_KEY

if TYPE_CHECKING:
    import napari
    from qtpy.QtWidgets import QWidget


class WindowGuard(QObject):
    """Lives as long as the window that it guards.

    Parameters
    ----------
    window
        Main window.
    viewer
        Its viewer.
    """

    def __init__(self, window: QWidget, viewer: napari.Viewer) -> None:
        super().__init__(window)
        self._viewer = weakref.ref(viewer)
        window.installEventFilter(self)

    @classmethod
    def set_up(cls, window: QWidget, viewer: napari.Viewer) -> None:
        """Guard a window, once."""
        if not any(isinstance(child, cls) for child in window.children()):
            cls(window, viewer)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep the window open until it is settled what becomes of unsaved sections."""
        viewer = self._viewer()
        if event.type() == QEvent.Type.Close and viewer is not None and has_unsaved(viewer):
            from napari_sclinguist.docking import open_dock
            from napari_sclinguist.widgets.unsaved import may_close

            if not may_close(open_dock(viewer)):
                event.ignore()
                return True
        return super().eventFilter(watched, event)


def has_unsaved(viewer: napari.Viewer) -> bool:
    """Whether a section in the window holds something that no file does."""
    return any(layer.metadata.get(METADATA_KEY, {}).get("dirty") for layer in viewer.layers)
