"""napari's way in: drop a section on the window, or open it from the File menu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.layers import LayerData

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

    Raises
    ------
    InputError
        If a section cannot be opened or has no positions.
    """
    from napari_sclinguist.layers import section_layers
    from sclinguist_core.data.readers import open_sections

    sections = open_sections(_as_paths(path))
    return [layer for section in sections for layer in section_layers(section)]


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
