"""The dock of the plugin in a napari window."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_sclinguist.carriers import LayerData
    from napari_sclinguist.widgets.dock import ProteinDock

PLUGIN = "napari-sclinguist"
WIDGET = "Protein from RNA"


def open_dock(viewer: napari.Viewer) -> ProteinDock:
    """Open the dock, or find the one that is open."""
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    return widget


def viewer_with_window() -> napari.Viewer | None:
    """Return the present viewer if it has a window; None while layers are read for a script."""
    import napari

    viewer = napari.current_viewer()
    return viewer if getattr(viewer, "window", None) is not None else None


def asked_by_hand() -> bool:
    """Whether somebody at the window asked, by a menu or a drop, and not a line of a script.

    A script that is run before, or between, turns of Qt's event loop waits for what it asks for.
    """
    from qtpy.QtCore import QThread

    return QThread.currentThread().loopLevel() > 0


def open_dock_soon(
    error: Exception | None = None,
    doing: str = "",
    *,
    reading: Callable[[], list[LayerData]] | None = None,
    quick: bool = False,
) -> None:
    """Open the dock of the present window once napari has added the layers that it waits for.

    Parameters
    ----------
    error, doing
        Something to report in the dock, and what was being done when it was raised.
    reading
        Reads layers, beside the window; they are added when they are there.
    quick
        Whether that is a matter of seconds.
    """
    viewer = viewer_with_window()
    if viewer is None:
        return
    import napari
    from qtpy.QtCore import QTimer

    def open_if_there() -> None:
        if napari.current_viewer() is viewer:
            dock = open_dock(viewer)
            if error is not None:
                dock.workspace.report(error, doing)
            if reading is not None:
                dock.workspace.open_beside(reading, quick=quick)

    QTimer.singleShot(0, open_if_there)
