"""Visium HD: square bins of 2, 8 or 16 µm, each bin size in a folder like ``outs``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sclinguist_core.data.readers.layout import bin_folders, bin_size_of
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
    bin_size: int | None = None,
    layer: str | None = None,
    name: str | None = None,
) -> Section:
    """Open one bin size of a Visium HD run.

    Parameters
    ----------
    folder
        ``outs``, ``binned_outputs``, or the folder of one bin size (``square_008um``).
    counts
        Matrix to use; by default the filtered one.
    bin_size
        Side of the bins in µm.
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
    if bin_size is not None and bin_size not in bins:
        raise InputError(
            f"'{folder}' has no bins of {bin_size} µm (square_{bin_size:03d}um), found: "
            f"{available} µm; choose one of these as bin_size."
        )
    chosen = bin_size or next((size for size in _PREFERRED if size in bins), next(iter(bins)))
    section = open_spaceranger(
        bins[chosen], counts=counts, layer=layer, name=name, assay="visium_hd"
    )
    if bin_size is None and own is None and chosen not in _PREFERRED:
        note = (
            f"Only bins of {available} µm are there; {chosen} µm bins hold few counts each, and "
            "8 or 16 µm are better predicted."
        )
        section = replace(section, warnings=(note, *section.warnings))
    return section
