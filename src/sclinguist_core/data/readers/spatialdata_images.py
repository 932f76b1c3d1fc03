"""Images of a SpatialData store: which lie under the spots, and at which scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sclinguist_core.data.readers.images import to_rgb8
from sclinguist_core.data.section import SectionImage
from sclinguist_core.reading import check_fits, reading

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

#: Longest side of the image that is put into ``uns["spatial"]`` for scanpy and squidpy.
_MAX_PLOT_SIDE = 3000


def read_images(
    sdata: SpatialData, system: str, table: AnnData, notes: list[str]
) -> tuple[dict[str, SectionImage], float]:
    """Images under the positions, and the scale by which positions were changed to fit them."""
    from spatialdata.transformations import get_transformation

    matrices = {}
    for key, element in sdata.images.items():
        transform = get_transformation(element, get_all=True).get(system)
        if transform is not None:
            matrices[key] = affine_of(transform)
    to_frame = np.eye(3)
    if matrices and all(_scale_of(matrix) is None for matrix in matrices.values()):
        key = next(iter(matrices))
        to_frame = np.linalg.inv(matrices[key])
        xy = table.obsm["spatial"]
        table.obsm["spatial"] = xy @ to_frame[:2, :2].T + to_frame[:2, 2]
        notes.append(f"Positions are in pixels of image '{key}', which is rotated or shifted.")
    images: dict[str, SectionImage] = {}
    for key, matrix in matrices.items():
        scale = _scale_of(to_frame @ matrix)
        if scale is None:
            notes.append(f"Image '{key}' is rotated or shifted against the others; left out.")
        else:
            place = Path(sdata.path or "") / "images" / key
            images |= _levels(place, sdata.images[key], 1 / scale, table.obsm["spatial"])
    return images, float(np.sqrt(abs(np.linalg.det(to_frame[:2, :2]))))


def scanpy_entry(
    images: dict[str, SectionImage], diameter: float | None, pixel_size: float | None
) -> dict[str, Any]:
    """Entry of ``uns["spatial"]`` in scanpy's layout, with one image of moderate size."""
    scalefactors: dict[str, float] = {}
    if diameter is not None:
        scalefactors["spot_diameter_fullres"] = diameter
    if pixel_size is not None:
        scalefactors["microns_per_pixel"] = pixel_size
    fitting = [image for image in images.values() if max(image.shape) <= _MAX_PLOT_SIDE]
    if not fitting:
        return {"images": {}, "scalefactors": scalefactors}
    best = max(fitting, key=lambda image: image.scale)
    scalefactors["tissue_hires_scalef"] = best.scale
    return {"images": {"hires": best.pixels}, "scalefactors": scalefactors}


def affine_of(transform: Any) -> np.ndarray:
    """(3, 3) matrix from x, y of an element to x, y of a coordinate system."""
    return np.asarray(transform.to_affine_matrix(input_axes=("x", "y"), output_axes=("x", "y")))


def _scale_of(matrix: np.ndarray) -> float | None:
    """Scale of a matrix that does nothing else, or None."""
    scale = float(np.sqrt(abs(matrix[0, 0] * matrix[1, 1])))
    if scale == 0 or not np.allclose(matrix[:2, :2], np.eye(2) * scale, rtol=0, atol=0.01 * scale):
        return None
    return scale if np.allclose(matrix[:2, 2], 0, atol=scale) else None


def _levels(place: Path, element: Any, scale: float, xy: np.ndarray) -> dict[str, SectionImage]:
    """Every resolution of an image as one that is loaded when needed; none if it lies elsewhere."""
    if hasattr(element, "children"):  # a pyramid is a tree, one node a resolution
        arrays = [next(iter(level.data_vars.values())) for level in element.children.values()]
    else:
        arrays = [element]
    full = arrays[0].sizes["x"]
    inside = (xy * scale >= 0).all(axis=1)
    inside &= (xy[:, 0] * scale <= full) & (xy[:, 1] * scale <= arrays[0].sizes["y"])
    if np.mean(inside) < 0.5:
        return {}
    images = {}
    for i, array in enumerate(arrays):
        name = place.name if i == 0 else f"{place.name}_scale{i}"
        images[name] = SectionImage(
            _Loader(array, place),
            scale * array.sizes["x"] / full,
            name,
            shape=(array.sizes["y"], array.sizes["x"]),
        )
    return images


@dataclass(frozen=True)
class _Loader:
    """Reads an image of channels, rows, columns as 8-bit colour."""

    array: Any
    path: Path

    def __call__(self) -> np.ndarray:
        # The values, their float32 and the result, of three channels.
        n_pixels = self.array.sizes["x"] * self.array.sizes["y"]
        check_fits(3 * n_pixels * (self.array.dtype.itemsize + 5), self.path)
        with reading(self.path, "an image", remedy="copy the store again, or write it anew"):
            pixels = self.array.transpose("c", "y", "x")[:3].data
            pixels = pixels.compute() if hasattr(pixels, "compute") else pixels
        return to_rgb8(np.moveaxis(np.asarray(pixels), 0, 2))
