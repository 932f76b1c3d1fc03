"""Visium HD: square bins of 2, 8 or 16 µm, each bin size in a folder like ``outs``.

From Space Ranger 4 on, runs with an H&E image hold segmented cells beside the bins; they are
taken when they are asked for, since bins cover the whole tissue and every run has them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sclinguist_core.data.readers.layout import (
    CELLS,
    bin_folders,
    bin_size_of,
    segmented_folder,
)
from sclinguist_core.data.readers.spaceranger import open_spaceranger
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError

#: Bin sizes in µm in the order in which they are chosen: 8 µm is 10x's own default, about the
#: size of a cell; 2 µm bins hold too few counts for a prediction.
_PREFERRED = (8, 16)


def open_visium_hd(
    folder: Path,
    *,
    counts: Path | None = None,
    bin_size: int | str | None = None,
    layer: str | None = None,
    name: str | None = None,
) -> Section:
    """Open one bin size, or the segmented cells, of a Visium HD run.

    Parameters
    ----------
    folder
        ``outs``, ``binned_outputs``, or the folder of one bin size (``square_008um``).
    counts
        Matrix to use; by default the filtered one.
    bin_size
        Side of the bins in µm, or ``"cells"``.
    layer, name
        As in :func:`~sclinguist_core.data.readers.spaceranger.open_spaceranger`.

    Raises
    ------
    InputError
        If the bin size is not there, or as for Space Ranger folders.
    """
    bins = bin_folders(folder)
    own = bin_size_of(folder)
    if not bins and own is not None:
        bins = {own: folder}
    available = ", ".join(str(size) for size in bins)
    segmented = _segmented_beside(folder)
    if bin_size == CELLS:
        if segmented is None:
            raise InputError(
                f"'{folder}' has no segmented cells (segmented_outputs, which Space Ranger 4 "
                f"writes), found: bins of {available} µm; choose one of these as bin_size."
            )
        from sclinguist_core.data.readers.segmented import open_segmented

        return open_segmented(segmented, layer=layer, name=name)
    if bin_size is not None and bin_size not in bins:
        raise InputError(
            f"'{folder}' has no bins of {bin_size} µm (square_{int(bin_size):03d}um), found: "
            f"{available} µm; choose one of these as bin_size."
        )
    chosen = int(bin_size or next((s for s in _PREFERRED if s in bins), next(iter(bins))))
    section = open_spaceranger(
        bins[chosen], counts=counts, layer=layer, name=name, assay="visium_hd"
    )
    notes: list[str] = []
    if bin_size is None and own is None:
        if segmented is not None:
            notes.append(
                f"Bins of {chosen} µm were opened; this run has segmented cells, too: open the "
                f"folder {segmented.name}, or ask for bin_size='{CELLS}'."
            )
        if chosen not in _PREFERRED:
            notes.append(
                f"Only bins of {available} µm are there; {chosen} µm bins hold few counts each, "
                "and 8 or 16 µm are better predicted."
            )
    return replace(section, warnings=(*notes, *section.warnings)) if notes else section


def _segmented_beside(folder: Path) -> Path | None:
    """Segmented cells of the run that a folder belongs to."""
    if bin_size_of(folder) is not None:
        folder = folder.parent
    if folder.name == "binned_outputs":
        folder = folder.parent
    return segmented_folder(folder)
