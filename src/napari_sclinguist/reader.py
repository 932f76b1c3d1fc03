"""napari's way in: drop a section on the window, or open it from the File menu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.carriers import LayerData

_LARGE = 60_000_000
"""Bytes of counts that take some seconds to read."""
_BULKY = frozenset({".h5", ".h5ad", ".gz", ".mtx", ".parquet", ""})  # zarr chunks have no suffix
_MANY_FILES = 20_000

PathOrPaths = str | Path | Sequence[str | Path]


def napari_get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """Say whether this plugin opens a path; only names of files are looked at.

    Parameters
    ----------
    path
        A Space Ranger, Visium HD or Xenium folder, a 10x ``.h5``, an ``.h5ad``, a SpatialData or
        AnnData ``.zarr``, a folder of several of these; or a list of them.

    Returns
    -------
    Callable or None
        `read_sections`, or None if something among the paths holds no section.
    """
    return read_sections if all(_holds_sections(one) for one in _as_paths(path)) else None


def read_sections(path: PathOrPaths) -> list[LayerData]:
    """Open one or several sections as layers: the tissue, and the spots or cells upon it.

    In a window the dock opens with them, and what cannot be opened is told there in a sentence;
    napari then gets its sign for "no layers". So it does where the layers are not waited for: they
    are read beside the window, which stays usable, and added when they are there. A script waits
    for them, unless the data are large.

    Raises
    ------
    InputError
        Without a window, if a section cannot be opened or has no positions.
    """
    from napari_sclinguist.docking import asked_by_hand, open_dock_soon, viewer_with_window

    in_window = viewer_with_window() is not None
    if in_window:
        is_large = _is_large(_as_paths(path))
        if is_large or asked_by_hand():
            open_dock_soon(reading=lambda: _layers(path), quick=not is_large)
            return [(None,)]
    try:
        layers = _layers(path)
    except Exception as error:  # a broken file must not take the window down
        if not in_window:
            raise
        open_dock_soon(error, "Opening the section")
        return [(None,)]
    open_dock_soon()
    return layers


def _is_large(paths: Sequence[Path]) -> bool:
    """Whether reading takes so long that the window should not wait for it."""
    size = 0
    for path in paths:
        inside = [path] if path.is_file() else path.rglob("*")
        for i, file in enumerate(inside):
            size += file.stat().st_size if file.suffix in _BULKY and file.is_file() else 0
            if size > _LARGE or i > _MANY_FILES:
                return True
    return False


def _layers(path: PathOrPaths) -> list[LayerData]:
    from napari_sclinguist.layers import section_layers
    from sclinguist_core.data.readers import open_sections

    return [
        layer for section in open_sections(_as_paths(path)) for layer in section_layers(section)
    ]


def _holds_sections(path: Path) -> bool:
    from sclinguist_core.data.readers.locate import find_sections, locate

    try:
        locate(path)
    except InputError:  # none here; perhaps several further down
        return path.is_dir() and path.suffix != ".zarr" and bool(find_sections(path))
    return True


def _as_paths(path: PathOrPaths) -> list[Path]:
    if isinstance(path, str | Path):
        return [Path(path)]
    return [Path(one) for one in path]
