"""Normalisation, in one place.

RNA: counts per 10,000 (CP10k) and ``log1p``, over the genes that were *measured*. A panel that
measures a part of the transcriptome sees a part of the molecules; its size factors are divided by
the share of a reference transcriptome that the panel carries, so that a small panel is not
inflated (Sections of 500 and of 18,000 genes then show the same value for the same gene).

Protein: raw antibody counts are compositional and depth-laden. The scales offered here are the
ones that the field uses; ``protein_clr`` is the one that this package predicts and evaluates
(centred log-ratio: a deeper cell does not score higher on every protein).

A checkpoint names the RNA normalisation that it was trained with; prediction looks it up by that
name in `RNA_NORMALIZATIONS` and offers no other.

Shapes: n cells or spots, G genes, P proteins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

Abundance = TypeVar("Abundance", np.ndarray, pd.DataFrame)

TARGET_SUM = 10_000.0
"""Molecules per cell after scaling (CP10k)."""

_EPS = 1e-8


def size_factors(counts: sparse.csr_matrix, share: np.ndarray | float = 1.0) -> np.ndarray:
    """Library size that a whole-transcriptome measurement would have had.

    Parameters
    ----------
    counts
        Raw RNA counts of the measured genes, CSR, shape (n, G).
    share
        Fraction of reference expression that the measured genes carry, in (0, 1]: one number,
        or one a cell, shape (n,), when cells differ in what was measured.

    Returns
    -------
    Estimated molecules per cell, float64, shape (n,). Empty cells get 1 so that they divide.
    """
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    size = total / np.maximum(share, _EPS)
    size[size <= 0] = 1.0
    return size


def cp10k_scale(counts: sparse.csr_matrix, share: np.ndarray | float = 1.0) -> np.ndarray:
    """Give what turns counts into counts per 10,000, float32, shape (n,)."""
    return (TARGET_SUM / size_factors(counts, share)).astype(np.float32)


def log1p_cp10k(counts: sparse.csr_matrix, share: np.ndarray | float = 1.0) -> sparse.csr_matrix:
    """``log1p`` of counts per 10,000 over measured genes.

    Parameters
    ----------
    counts
        Raw RNA counts, CSR, shape (n, G). Not changed.
    share
        See `size_factors`.

    Returns
    -------
    CSR float32 of the same shape and sparsity: zeros stay zeros.
    """
    return _log1p_scaled(counts, cp10k_scale(counts, share))


def _log1p_scaled(counts: sparse.csr_matrix, scale: np.ndarray) -> sparse.csr_matrix:
    scaled = counts.astype(np.float32, copy=True)
    scaled.data *= np.repeat(scale, np.diff(scaled.indptr))
    np.log1p(scaled.data, out=scaled.data)
    return scaled


def _split(counts: Abundance, isotype: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(counts, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"counts: expected 2 dimensions (cells, proteins), found {values.ndim}")
    if np.nanmin(values, initial=0.0) < 0:
        raise ValueError(
            "counts: found negative values, expected raw antibody counts; give the raw counts"
        )
    mask = np.zeros(values.shape[1], bool) if isotype is None else np.asarray(isotype, bool)
    if mask.shape != (values.shape[1],):
        raise ValueError(f"isotype: expected shape ({values.shape[1]},), found {mask.shape}")
    return values, mask


def _like(template: Abundance, values: np.ndarray) -> Abundance:
    values = values.astype(np.float32)
    if isinstance(template, pd.DataFrame):
        return pd.DataFrame(values, index=template.index, columns=template.columns)
    return values


def _row_mean(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Mean over the finite entries of the chosen columns, shape (n, 1); NaN where there is none."""
    part = values[:, columns]
    finite = np.isfinite(part)
    n_finite = finite.sum(axis=1, keepdims=True)
    total = np.where(finite, part, 0.0).sum(axis=1, keepdims=True)
    return np.divide(total, n_finite, out=np.full_like(total, np.nan), where=n_finite > 0)


def isotype_mask(table: AnnData) -> np.ndarray | None:
    """Tell which measured proteins of a table are isotype controls.

    Parameters
    ----------
    table
        With counts of P antibodies, a DataFrame, in ``obsm["protein"]``.

    Returns
    -------
    bool, shape (P,), in the order of the columns; antibodies that ``uns["protein_panel"]`` does
    not list are none. None where the table has no panel that says so.
    """
    panel = table.uns.get("protein_panel")
    if not isinstance(panel, pd.DataFrame) or "isotype" not in panel:
        return None
    column = panel["isotype"].reindex(table.obsm["protein"].columns, fill_value=False)
    return column.to_numpy(dtype=bool)


def protein_clr(counts: Abundance, isotype: np.ndarray | None = None) -> Abundance:
    """Centred log-ratio of antibody counts, centred per cell over the measured panel.

    ``log1p(c_p) - mean_q log1p(c_q)``, q over the cell's measured (finite), non-isotype antibodies.
    A cell with twice the total count does not score higher: total count correlates with no
    protein on this scale. (Stoeckius et al. 2017 introduced CLR for antibody counts; here the
    centring is per cell, not per protein.)

    Parameters
    ----------
    counts
        Raw antibody counts, shape (n, P); NaN = not measured.
    isotype
        True for isotype controls, shape (P,). They get a value but do not enter the centre.

    Returns
    -------
    float32, shape (n, P), same type as `counts`; NaN stays NaN.
    """
    values, mask = _split(counts, isotype)
    logged = np.log1p(values)
    return _like(counts, logged - _row_mean(logged, ~mask))


def standardize(values: Abundance) -> Abundance:
    """Subtract each column's mean and divide by its standard deviation (NaN-aware).

    Constant columns become 0. Shape and type are kept.
    """
    array = np.array(values, dtype=np.float64)
    finite = np.isfinite(array)
    n_finite = np.maximum(finite.sum(axis=0), 1)
    mean = np.where(finite, array, 0.0).sum(axis=0) / n_finite
    centred = array - mean
    sd = np.sqrt(np.where(finite, centred**2, 0.0).sum(axis=0) / n_finite)
    return _like(values, centred / np.where(sd > _EPS, sd, 1.0))


def protein_log1p_z(counts: Abundance, isotype: np.ndarray | None = None) -> Abundance:
    """``log1p`` counts, standardised per protein over the given cells.

    `isotype` is accepted so that all protein normalisations share one signature; it is not used.
    """
    values, _ = _split(counts, isotype)
    return standardize(_like(counts, np.log1p(values)))


def protein_minmax(counts: Abundance, isotype: np.ndarray | None = None) -> Abundance:
    """Per-cell min-max scaling to [1e-8, 1], as the published scLinguist checkpoints use.

    It depends on the panel: the same protein scores differently beside other antibodies. Offered
    for those checkpoints, not recommended otherwise.
    """
    values, mask = _split(counts, isotype)
    part = np.where(mask, np.nan, values)
    low = np.nanmin(part, axis=1, keepdims=True, initial=np.inf)
    high = np.nanmax(part, axis=1, keepdims=True, initial=-np.inf)
    span = np.where(high > low, high - low, 1.0)
    return _like(counts, np.clip((values - low) / span, 0.0, 1.0) * (1.0 - _EPS) + _EPS)


def protein_isotype_corrected(counts: Abundance, isotype: np.ndarray | None = None) -> Abundance:
    """``log1p`` counts minus the cell's mean ``log1p`` isotype control.

    Isotype controls bind nothing specific: their count is the cell's background (stickiness and
    depth). Subtracting it in log space is the simplest isotype-aware scale; cells without a
    control, or panels without one, raise ``ValueError``.
    """
    values, mask = _split(counts, isotype)
    if not mask.any():
        raise ValueError(
            "isotype: the panel has no isotype control; use protein_clr, which needs none"
        )
    logged = np.log1p(values)
    return _like(counts, logged - _row_mean(logged, mask))


RNA_NORMALIZATIONS: dict[str, Callable[[sparse.csr_matrix, np.ndarray], np.ndarray]] = {
    "log1p_cp10k_measured": cp10k_scale,
    # Over the genes that are there, as if no other existed.
    "log1p_cp10k": lambda counts, share: cp10k_scale(counts),
}
"""RNA normalisations that a checkpoint can name: what counts are multiplied by before ``log1p``,
from counts and `AlignedRna.shares`, float32, shape (n,)."""


def normalized(counts: sparse.csr_matrix, share: np.ndarray, name: str) -> sparse.csr_matrix:
    """Normalise counts as a checkpoint asks for.

    Parameters
    ----------
    counts
        Raw counts, CSR, shape (n, G). Not changed.
    share
        Share of reference expression that each cell's measured genes carry, shape (n,).
    name
        In `RNA_NORMALIZATIONS`.

    Returns
    -------
    CSR float32 of the same shape and sparsity.
    """
    return _log1p_scaled(counts, RNA_NORMALIZATIONS[name](counts, share))
