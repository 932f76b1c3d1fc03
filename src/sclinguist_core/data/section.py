"""A section: what a user opens. A table, positions, images, and the scale between them.

Nothing above this floor asks which file format a section came from. Dissociated cells are a
section without positions and images.

All positions are (x, y) in pixels of the full-resolution image, the coordinate system of Space
Ranger; an image of lower resolution carries its ``scale`` in image pixels per full-resolution
pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.counts import counts_at
from sclinguist_core.data.features import gene_ids, gene_mask, original_names
from sclinguist_core.data.lattice import SPOT_MICRONS
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

Assay = Literal["visium", "visium_hd", "cells", "xenium"]

#: Longest side, in pixels, of the image that :attr:`Section.image` picks by itself.
MAX_IMAGE_SIDE = 8192


class SectionImage:
    """A picture of the section, in colour.

    Parameters
    ----------
    pixels
        (H, W, 3) uint8, or a function without arguments that loads them on first use.
    scale
        Image pixels per full-resolution pixel (1 for the full-resolution image itself).
    name
        Name of the image, such as ``"hires"``.
    shape
        (H, W); needed only with a function, so that the size is known without loading.
    """

    def __init__(
        self,
        pixels: np.ndarray | Callable[[], np.ndarray],
        scale: float,
        name: str,
        *,
        shape: tuple[int, int] | None = None,
    ) -> None:
        self.scale = float(scale)
        self.name = name
        self._pixels = pixels
        if shape is None:
            loaded = self.pixels
            shape = (loaded.shape[0], loaded.shape[1])
        self.shape = shape

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8, loaded when first asked for."""
        if callable(self._pixels):
            self._pixels = self._pixels()
        if self._pixels.ndim != 3 or self._pixels.shape[2] != 3 or self._pixels.dtype != np.uint8:
            raise ValueError(
                f"pixels of image '{self.name}' have shape {self._pixels.shape} and type "
                f"{self._pixels.dtype}, expected (height, width, 3) and uint8"
            )
        return self._pixels

    def __repr__(self) -> str:
        height, width = self.shape
        return f"SectionImage({self.name!r}, {width} x {height} px, scale={self.scale:.4g})"


@dataclass(frozen=True)
class RnaCounts:
    """Raw RNA counts of a section, genes only.

    Attributes
    ----------
    counts
        (n_obs, n_genes) CSR float32 of whole numbers.
    names
        (n_genes,) gene names as in the file; may repeat.
    ids
        (n_genes,) Ensembl ids ("" where unknown), or None.
    measured
        (n_obs, n_genes) bool, sparse or dense: False where a cell's study did not measure the
        gene, so that its zero means nothing. None where every gene was measured in every cell.
    """

    counts: sparse.csr_matrix
    names: np.ndarray
    ids: np.ndarray | None = None
    measured: np.ndarray | sparse.csr_matrix | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Section:
    """A tissue section, or a set of dissociated cells.

    Attributes
    ----------
    name
        Short name, from the folder or file.
    table
        AnnData of spots, bins or cells. ``X`` is as in the file, antibodies included;
        ``var["feature_types"]`` tells them apart. ``obsm["spatial"]`` (n_obs, 2) float64 x, y
        in full-resolution pixels; ``obsm["protein"]`` DataFrame of raw antibody counts under
        the study's own names; ``uns["protein_panel"]`` what each antibody is;
        ``uns["spatial"]`` images and scale factors in scanpy's layout.
    images
        Images by name.
    spot_diameter
        Diameter of a spot (side of a bin) in full-resolution pixels as the file states it, or
        None. Space Ranger states that of a 65 µm spot for Visium, although spots are 55 µm.
    microns_per_pixel
        Size of a full-resolution pixel in µm; None where the file does not tell it.
    assay
        ``"visium"``, ``"visium_hd"``, ``"xenium"`` or ``"cells"``.
    source
        Path that was opened, or None.
    counts_location
        Where the table keeps raw counts: ``"X"``, ``"layers/<name>"`` or ``"raw"``.
    warnings
        One sentence for everything that the user should know.
    """

    name: str
    table: AnnData
    images: dict[str, SectionImage] = field(default_factory=dict)
    spot_diameter: float | None = None
    microns_per_pixel: float | None = None
    assay: Assay = "cells"
    source: Path | None = None
    counts_location: str = "X"
    warnings: tuple[str, ...] = ()

    @property
    def n_obs(self) -> int:
        """Number of spots, bins or cells."""
        return int(self.table.n_obs)

    @property
    def is_spatial(self) -> bool:
        """Whether spots or cells have positions."""
        return "spatial" in self.table.obsm

    @property
    def counts_var(self) -> pd.DataFrame:
        """Features that the raw counts are of: ``var`` of the table, or of its ``raw``."""
        raw = self.counts_location == "raw" and self.table.raw is not None
        return self.table.raw.var if raw else self.table.var

    @property
    def measured(self) -> np.ndarray | sparse.csr_matrix | None:
        """(n_obs, features of the counts) bool, ``layers["measured"]``; see `RnaCounts`."""
        # A layer has the columns of the table, which are not those of ``raw``.
        return None if self.counts_location == "raw" else self.table.layers.get("measured")

    @property
    def has_rna(self) -> bool:
        """Whether the table holds genes, not antibodies alone."""
        return bool(gene_mask(self.counts_var).any())

    @property
    def has_protein(self) -> bool:
        """Whether proteins were measured."""
        protein = self.table.obsm.get("protein")
        # A matrix without names of antibodies says nothing about proteins.
        return isinstance(protein, pd.DataFrame) and protein.shape[1] > 0

    @property
    def positions(self) -> np.ndarray:
        """(n_obs, 2) float64: x, y in full-resolution pixels.

        Raises
        ------
        InputError
            If the section has no positions (dissociated cells).
        """
        if not self.is_spatial:
            raise InputError(
                f"Section '{self.name}' has no positions: it holds dissociated cells, expected "
                "obsm['spatial'] or a spatial format."
            )
        return np.asarray(self.table.obsm["spatial"], dtype=np.float64)[:, :2]

    @property
    def drawn_diameter(self) -> float:
        """Diameter at which to draw a spot, bin or cell, in full-resolution pixels.

        Visium spots are 55 µm wide (what their files state differs); otherwise it is what the
        file states, or 0.9 of the median distance to the nearest neighbour.
        """
        if self.assay == "visium" and self.microns_per_pixel is not None:
            return SPOT_MICRONS / self.microns_per_pixel
        if self.spot_diameter:
            return float(self.spot_diameter)
        if self.n_obs < 2:
            return 10.0
        from scipy.spatial import KDTree

        positions = self.positions
        sample = positions[:: max(1, self.n_obs // 2000)]
        distances, _ = KDTree(positions).query(sample, k=2)
        return 0.9 * float(np.median(distances[:, 1])) or 1.0

    @property
    def library_id(self) -> str | None:
        """Key of this section in ``table.uns["spatial"]``, as scanpy and squidpy want it."""
        libraries = self.table.uns.get("spatial")
        if not isinstance(libraries, dict) or not libraries:
            return None
        return self.name if self.name in libraries else next(iter(libraries))

    @property
    def image(self) -> SectionImage | None:
        """The most detailed image that is small enough to show at once, or None."""
        if not self.images:
            return None
        fitting = [im for im in self.images.values() if max(im.shape) <= MAX_IMAGE_SIDE]
        if fitting:
            return max(fitting, key=lambda im: im.scale)
        return min(self.images.values(), key=lambda im: im.scale)

    def rna(self) -> RnaCounts:
        """Raw counts of the gene features only (no antibodies, no control probes).

        Returns
        -------
        RnaCounts

        Raises
        ------
        InputError
            If the section holds no genes.
        """
        var = self.counts_var
        genes = gene_mask(var)
        if not genes.any():
            raise InputError(
                f"Section '{self.name}' has no RNA: its {len(var)} features are all antibodies "
                "or controls, expected genes to predict from."
            )
        counts = counts_at(self.table, self.counts_location)
        ids = gene_ids(var)
        measured = self.measured
        if not genes.all():
            counts = counts[:, genes]
            ids = None if ids is None else ids[genes]
            measured = None if measured is None else measured[:, genes]
        return RnaCounts(counts, original_names(var)[genes], ids, measured)

    def renamed(self, name: str) -> Section:
        """Give the same section another name, also as key of ``uns["spatial"]``."""
        libraries = self.table.uns.get("spatial")
        if isinstance(libraries, dict) and self.name in libraries and name != self.name:
            libraries[name] = libraries.pop(self.name)
        return replace(self, name=name)

    def to_spatialdata(self) -> SpatialData:
        """Convert to a SpatialData object: images, spots as circles, and the table.

        See :func:`sclinguist_core.data.spatialdata_export.to_spatialdata`.
        """
        from sclinguist_core.data.spatialdata_export import to_spatialdata

        return to_spatialdata(self)

    def __repr__(self) -> str:
        parts = [f"{self.n_obs} x {self.table.n_vars}", self.assay]
        if self.has_protein:
            parts.append(f"{self.table.obsm['protein'].shape[1]} measured proteins")
        if self.images:
            parts.append("images: " + ", ".join(self.images))
        return f"Section({self.name!r}, {', '.join(parts)})"
