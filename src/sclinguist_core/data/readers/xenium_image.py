"""The morphology image of a Xenium run: stained nuclei, as an OME-TIFF pyramid.

Up to XOA 1 it is ``morphology_focus.ome.tif``, in XOA 2 and 3 ``morphology_focus/morphology_focus_
0000.ome.tif`` and from XOA 4 on ``morphology_focus/ch0000_dapi.ome.tif``; the other files of the
folder hold other stains. The full image has billions of pixels, so a level of the pyramid is read
that a window can show. (Layout: "Understanding Xenium Outputs" of 10x Genomics, and the reader of
spatialdata-io.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sclinguist_core.data.section import MAX_IMAGE_SIDE, SectionImage
from sclinguist_core.errors import InputError
from sclinguist_core.reading import plain_file, read_json, reading

_FILES = (
    "morphology_focus/ch0000_dapi.ome.tif",
    "morphology_focus/morphology_focus_0000.ome.tif",
    "morphology_focus.ome.tif",
    "morphology_mip.ome.tif",
)
_PIXEL_MICRONS = 0.2125
"""Of every Xenium instrument so far; `experiment.xenium` states it."""
_REMEDY = "fetch it again, or remove it to open the section without it"
_DARKEST, _BRIGHTEST = 0.5, 99.7
"""Percentiles that become black and white."""


def morphology_image(folder: Path, warnings: list[str]) -> SectionImage | None:
    """Find the image of a Xenium run; its pixels are read when they are first asked for.

    Parameters
    ----------
    folder
        Output folder.
    warnings
        A sentence is added where there is an image that cannot be shown.

    Returns
    -------
    SectionImage or None
        Scaled to µm, which are the "full-resolution pixels" of Xenium sections.

    Raises
    ------
    InputError
        If there is an image that is damaged.
    """
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    shapes = _level_shapes(path)
    fitting = [i for i, shape in enumerate(shapes) if max(shape) <= MAX_IMAGE_SIDE]
    if not fitting:
        height, width = shapes[-1]
        warnings.append(
            f"The image '{path.name}' has {width:,} x {height:,} pixels and no smaller level: "
            "cells are shown without it."
        )
        return None
    level = max(fitting, key=lambda i: shapes[i][1])
    scale = shapes[level][1] / shapes[0][1] / _pixel_microns(folder)
    return SectionImage(lambda: _read_level(path, level), scale, "morphology", shape=shapes[level])


def _level_shapes(path: Path) -> list[tuple[int, int]]:
    """(H, W) of every level of the pyramid, the full image first."""
    import tifffile

    with reading(path, "an image", remedy=_REMEDY), tifffile.TiffFile(plain_file(path)) as tiff:
        page = tiff.pages.first
        levels = [page, *(page.pages or ())]
        return [(int(level.shape[-2]), int(level.shape[-1])) for level in levels]


def _read_level(path: Path, level: int) -> np.ndarray:
    """(H, W, 3) uint8, grey."""
    import tifffile

    with reading(path, "an image", remedy=_REMEDY), tifffile.TiffFile(plain_file(path)) as tiff:
        page = tiff.pages.first
        values: Any = [page, *(page.pages or ())][level].asarray()
        grey = values.reshape(values.shape[-2:])
    sample = grey[:: max(1, grey.shape[0] // 1000), :: max(1, grey.shape[1] // 1000)]
    low, high = np.percentile(sample, (_DARKEST, _BRIGHTEST))
    scaled = (grey - np.float32(low)) * np.float32(255 / max(high - low, 1))
    grey = np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)
    pixels = np.empty((*grey.shape, 3), np.uint8)
    pixels[:] = grey[:, :, np.newaxis]
    return pixels


def _pixel_microns(folder: Path) -> float:
    try:
        stated = read_json(folder / "experiment.xenium")["pixel_size"]
    except (InputError, LookupError, TypeError):
        return _PIXEL_MICRONS
    usable = isinstance(stated, int | float) and 0 < stated < 100
    return float(stated) if usable else _PIXEL_MICRONS
