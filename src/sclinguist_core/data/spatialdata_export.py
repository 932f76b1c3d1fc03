"""A section as SpatialData, for napari-spatialdata, spatialdata-plot and squidpy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sclinguist_core.data.section import Section, SectionImage

#: Coordinate system in pixels of the full-resolution image, in which everything aligns.
PIXELS = "global"
#: Coordinate system in µm; there only where the size of a pixel is known.
MICRONS = "microns"

_REGION_KEY, _INSTANCE_KEY = "region", "spot_id"
_FORBIDDEN = re.compile(r"[^\w.\-]")
_PYRAMID_FROM = 1024


def to_spatialdata(section: Section) -> SpatialData:
    """Convert a section to SpatialData.

    Parameters
    ----------
    section
        Section, with or without positions.

    Returns
    -------
    SpatialData
        ``images["<name>_<image>"]`` as pyramids, ``shapes["<name>"]`` circles of the diameter
        of a spot, and ``tables["table"]`` that annotates them. In the coordinate system
        ``"global"`` everything is in full-resolution pixels, in ``"microns"`` in µm. Keys that
        SpatialData refuses are changed (``"% mito"`` becomes ``"mito"``). Dissociated
        cells give a table alone.
    """
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    table = _storable_table(section.table)
    if not section.is_spatial:
        return SpatialData(tables={"table": TableModel.parse(table)})

    def transformations(pixels_per_unit: float) -> dict[str, Any]:
        """From an element of which one pixel is so many full-resolution pixels."""
        systems: dict[str, Any] = {PIXELS: Identity()}
        if pixels_per_unit != 1:
            systems[PIXELS] = Scale([pixels_per_unit] * 2, axes=("x", "y"))
        if section.microns_per_pixel is not None:
            factor = pixels_per_unit * section.microns_per_pixel
            systems[MICRONS] = Scale([factor] * 2, axes=("x", "y"))
        return systems

    name = storable_name(section.name)
    ids = np.arange(section.n_obs)
    circles = ShapesModel.parse(
        section.positions,
        geometry=0,
        radius=_radius(section),
        index=pd.Index(ids, name=_INSTANCE_KEY),
        transformations=transformations(1.0),
    )
    table.obs[_REGION_KEY] = pd.Categorical([name] * section.n_obs)
    table.obs[_INSTANCE_KEY] = ids
    table.uns.pop("spatialdata_attrs", None)
    parsed = TableModel.parse(
        table, region=name, region_key=_REGION_KEY, instance_key=_INSTANCE_KEY
    )
    images = {
        storable_name(f"{name}_{key}_image"): _image(image, transformations(1 / image.scale))
        for key, image in section.images.items()
    }
    return SpatialData(images=images, shapes={name: circles}, tables={"table": parsed})


def storable_name(name: str) -> str:
    """Name that SpatialData accepts: letters, digits, ``_``, ``-`` and ``.`` only."""
    clean = _FORBIDDEN.sub("_", name).lstrip("_")
    return clean if clean.strip(".") else f"x{clean}"


def _image(image: SectionImage, transformations: dict[str, Any]) -> Any:
    from spatialdata.models import Image2DModel

    halvings = max(0, int(np.log2(max(image.shape) / _PYRAMID_FROM)) + 1)
    return Image2DModel.parse(
        np.moveaxis(image.pixels, 2, 0),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2] * halvings or None,
        transformations=transformations,
    )


def _radius(section: Section) -> float:
    """Half the diameter of a spot; where it is unknown, half the usual distance to the next."""
    if section.spot_diameter is not None:
        return section.spot_diameter / 2
    if section.n_obs < 2:
        return 0.5
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(section.positions).query(section.positions, k=2)
    return float(np.median(distances[:, 1])) / 2 or 0.5


def _storable_table(table: AnnData) -> AnnData:
    """Copy without pictures (they become images) and with keys that SpatialData accepts."""
    copy = table.copy()
    libraries = copy.uns.get("spatial")
    if isinstance(libraries, dict):
        copy.uns["spatial"] = {
            storable_name(str(key)): {k: v for k, v in content.items() if k != "images"}
            for key, content in libraries.items()
            if isinstance(content, dict)
        }
    for frame in (copy.obs, copy.var):
        frame.rename(columns=_renaming(frame.columns), inplace=True)
    for mapping in (copy.obsm, copy.varm, copy.obsp, copy.varp, copy.layers, copy.uns):
        for old, new in _renaming(list(mapping.keys())).items():
            mapping[new] = mapping.pop(old)
    return copy


def _renaming(keys: Iterable[Any]) -> dict[Any, str]:
    """Rename the keys that SpatialData would refuse, also those that differ in case alone."""
    renaming, taken = {}, set()
    for key in keys:
        new, number = storable_name(str(key)), 2
        if new == "_index" or new.lower() in {_REGION_KEY, _INSTANCE_KEY}:
            new = f"original_{new}"
        while new.lower() in taken:
            new, number = f"{storable_name(str(key))}_{number}", number + 1
        taken.add(new.lower())
        if new != key:
            renaming[key] = new
    return renaming
