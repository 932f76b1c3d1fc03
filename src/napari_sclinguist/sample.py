"""Sample sections for napari's File > Open Sample menu."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sclinguist.layers import LayerData


def simulated_tonsil() -> list[LayerData]:
    """Open the simulated tonsil-like section that is installed with the package.

    Its counts and its histology come from a script: it shows how things look and work, not how
    good predictions are.
    """
    from napari_sclinguist.docking import asked_by_hand, open_dock_soon, viewer_with_window
    from napari_sclinguist.layers import section_layers
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.resources import sample_section_path

    def read() -> list[LayerData]:
        return section_layers(open_section(sample_section_path(), name="tonsil (simulated)"))

    if viewer_with_window() is not None and asked_by_hand():
        open_dock_soon(reading=read, quick=True)
        return _no_layers()
    open_dock_soon()
    return read()


def human_tonsil() -> list[LayerData]:
    """Open a real tonsil section of 10x Genomics; downloads it first where it is not here yet.

    napari waits for this function with the window frozen. So the download goes on beside the
    window, with a dialog that tells how far it is, and the section opens when it has come.

    Raises
    ------
    InputError
        Without a window, if the section was not downloaded or has changed since.
    """
    from napari_sclinguist.docking import asked_by_hand, viewer_with_window
    from napari_sclinguist.reader import read_sections
    from sclinguist_core.data.datasets import HUMAN_TONSIL, find_dataset
    from sclinguist_core.data.download import downloaded
    from sclinguist_core.errors import InputError

    dataset = find_dataset(HUMAN_TONSIL)
    viewer = viewer_with_window()
    if viewer is None or not asked_by_hand():
        try:
            folder = downloaded(dataset)
        except InputError:
            if viewer is None:
                raise
            folder = None  # the dialog says what is wrong
        if folder is not None:
            return read_sections(folder)
        if viewer is None:
            raise InputError(
                f"'{dataset.title}' was not downloaded yet: run `sclinguist download "
                f"{dataset.name}`, then open it again."
            )
    from napari_sclinguist.widgets.download_dialog import download_into

    # What is there already is checked beside the window, too: that reads all of it.
    download_into(viewer, dataset)
    return _no_layers()


def _no_layers() -> list[LayerData]:
    """Layer data that adds no layer.

    napari takes an empty list, and its own sign for "no layers", for an error of a sample. An image
    is split into a layer for each of its channels: of this one there are none.
    """
    import numpy as np

    return [(np.empty((1, 1, 0)), {"channel_axis": 2}, "image")]
