"""Open a napari window on a section; for the command line and for notebooks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    import napari

    from sclinguist_core.data.section import Section

INSTALL = 'pip install "napari-sclinguist[app]"'


def show_section(
    section_or_path: Section | str | Path,
    feature: str | None = None,
    *,
    viewer: napari.Viewer | None = None,
    block: bool = True,
) -> napari.Viewer:
    """Show a section in a napari window.

    Parameters
    ----------
    section_or_path
        An open section, or the path of one.
    feature
        Protein, gene or ``obs`` column to colour by.
    viewer
        Window to add the section to; a new one is opened if None.
    block
        Wait until the window is closed. Use False where an event loop runs already, as in a
        notebook with ``%gui qt``.

    Returns
    -------
    napari.Viewer

    Raises
    ------
    InputError
        If napari, a Qt binding or a display is missing, or the section cannot be shown.
    """
    if viewer is None:
        _require_window()
    from napari_sclinguist.layers import section_layers

    section = _as_section(section_or_path)
    layers = section_layers(section, feature)

    import napari

    from napari_sclinguist.control.adoption import add_layers, make_layers
    from napari_sclinguist.docking import open_dock

    if viewer is None:
        viewer = napari.Viewer(title=f"{section.name} - napari-sclinguist")
    add_layers(viewer, make_layers(layers))
    open_dock(viewer)
    viewer.reset_view()
    if block:
        napari.run()
    return viewer


def _as_section(section_or_path: Section | str | Path) -> Section:
    if not isinstance(section_or_path, str | Path):
        return section_or_path
    from sclinguist_core.data.readers import open_section

    return open_section(section_or_path)


def _require_window() -> None:
    for module in ("napari", "qtpy"):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"The window needs {module}, which is not installed: {INSTALL}.")
    try:
        importlib.import_module("qtpy.QtWidgets")
    except ImportError as error:
        raise InputError(
            f"The window needs Qt, which cannot be loaded ({error}): {INSTALL}, and see "
            "`sclinguist doctor`."
        ) from error
    from sclinguist_core.doctor import has_display

    # Without a display Qt would end the whole process instead of raising an error.
    if sys.platform.startswith("linux") and not has_display():
        raise InputError(
            "The window needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set: run this "
            "on a desktop or under `xvfb-run -a`."
        )
