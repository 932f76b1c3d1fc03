"""Readers: one function opens whatever a user has.

``open_section`` looks at the path, picks the reader of the format, and returns a
:class:`~sclinguist_core.data.section.Section`. Each format has a module of its own, imported
when it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from sclinguist_core.data.readers.layout import CELLS, parse_bin_size
from sclinguist_core.data.readers.locate import Located, find_sections, locate, locate_folder
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError

__all__ = ["open_section", "open_sections"]


def open_section(
    path: str | PathLike[str],
    *,
    layer: str | None = None,
    bin_size: int | str | None = None,
    name: str | None = None,
) -> Section:
    """Open one section or one set of cells.

    Parameters
    ----------
    path
        Space Ranger ``outs`` folder, the folder around it, or any file in it; Visium HD or
        Xenium output; 10x ``.h5`` or ``matrix.mtx`` folder; ``.h5ad``; SpatialData or AnnData
        ``.zarr``.
    layer
        Layer that holds the raw counts, where they are not to be searched for.
    bin_size
        Side of the bins in µm, for Visium HD, or ``"cells"`` for the segmented cells of Space
        Ranger 4; by default 8, else 16, else what is there.
    name
        Name of the section; by default that of the folder or file.

    Returns
    -------
    Section

    Raises
    ------
    InputError
        If nothing can be opened there, in one sentence.
    """
    with _told(path):
        located = locate(_path(path))
        return _open(located, layer=layer, bin_size=bin_size, name=name)


def open_sections(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    layer: str | None = None,
    bin_size: int | str | None = None,
) -> list[Section]:
    """Open several sections under names that differ.

    Parameters
    ----------
    paths
        Paths as for :func:`open_section`; a folder that holds several sections, and a file with
        several libraries, stand for all of them.
    layer, bin_size
        As for :func:`open_section`, for all sections.

    Returns
    -------
    list of Section

    Raises
    ------
    InputError
        If one of them cannot be opened, or none is given.
    """
    given: Sequence[str | PathLike[str]]
    given = [paths] if isinstance(paths, str | PathLike) else list(paths)
    sections: list[Section] = []
    for path in given:
        with _told(path):
            for located in _expand(_path(path)):
                sections += _open_all(located, layer=layer, bin_size=bin_size)
    if not sections:
        raise InputError("No section to open: an empty list was given, expected paths.")
    return _with_unique_names(sections)


@contextmanager
def _told(path: str | PathLike[str]) -> Iterator[None]:
    """Say what the system refuses, in a sentence: rights, names that are too long, lost disks."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"'{error.filename or path}' cannot be opened ({error.strerror or error}): check the "
            "rights to it and the disk that it is on, or copy it elsewhere."
        ) from error


def _path(given: str | PathLike[str]) -> Path:
    # Unlike that of pathlib this leaves "~nobody" as it is, instead of raising.
    return Path(os.path.expanduser(given))


def _expand(path: Path) -> list[Located]:
    if path.is_dir() and locate_folder(path) is None:
        inside = find_sections(path)
        if len(inside) > 1:
            return inside
    return [locate(path)]


def _open_all(located: Located, *, layer: str | None, bin_size: int | str | None) -> list[Section]:
    if located.kind == "h5ad":
        from sclinguist_core.data.readers.h5ad import open_libraries

        return open_libraries(located.path, layer=layer)
    if located.kind == "spatialdata":
        from sclinguist_core.data.readers.spatialdata_store import open_regions

        return open_regions(located.path, layer=layer, bin_size=bin_size)
    return [_open(located, layer=layer, bin_size=bin_size, name=None)]


def _open(
    located: Located, *, layer: str | None, bin_size: int | str | None, name: str | None
) -> Section:
    path, kind = located.path, located.kind
    bin_size = parse_bin_size(bin_size)
    has_choice = kind in {"visium_hd", "spatialdata"} or (kind, bin_size) == ("segmented", CELLS)
    if bin_size is not None and not has_choice:
        raise InputError(
            f"bin_size={bin_size} was given for '{path}', which has no bins: expected Visium HD; "
            "leave bin_size out."
        )
    if kind == "spaceranger":
        from sclinguist_core.data.readers.spaceranger import open_spaceranger

        return open_spaceranger(path, counts=located.counts, layer=layer, name=name)
    if kind == "visium_hd":
        from sclinguist_core.data.readers.visium_hd import open_visium_hd

        return open_visium_hd(
            path, counts=located.counts, bin_size=bin_size, layer=layer, name=name
        )
    if kind == "segmented":
        from sclinguist_core.data.readers.segmented import open_segmented

        return open_segmented(path, counts=located.counts, layer=layer, name=name)
    if kind == "xenium":
        from sclinguist_core.data.readers.xenium import open_xenium

        return open_xenium(path, layer=layer, name=name)
    if kind in {"tenx_h5", "mtx"}:
        from sclinguist_core.data.readers.cells import open_tenx

        return open_tenx(path, layer=layer, name=name)
    if kind == "spatialdata":
        from sclinguist_core.data.readers.spatialdata_store import open_spatialdata

        return open_spatialdata(path, layer=layer, bin_size=bin_size, name=name)
    from sclinguist_core.data.readers.h5ad import open_anndata

    return open_anndata(path, layer=layer, name=name)


def _with_unique_names(sections: list[Section]) -> list[Section]:
    taken: set[str] = set()
    renamed = []
    for section in sections:
        name, number = section.name, 2
        while name in taken:
            name, number = f"{section.name}_{number}", number + 1
        taken.add(name)
        renamed.append(section if name == section.name else section.renamed(name))
    return renamed
