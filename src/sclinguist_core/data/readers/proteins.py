"""Measured proteins: wherever a study put its antibody counts, they go to ``obsm["protein"]``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.features import antibody_mask, original_names

if TYPE_CHECKING:
    from anndata import AnnData

#: Keys of ``obsm`` under which other tools keep antibody counts, lower case, best first.
_KEYS = (
    "protein_expression",
    "protein_counts",
    "proteins",
    "protein_raw",
    "adt_counts",
    "adt_raw",
    "adt",
    "x_adt",
    "prot",
    "antibody_capture",
    "antibody",
)
_PANEL_COLUMNS = ("canonical", "clone", "genes", "isotype", "kind", "status", "note")


def attach_measured_proteins(table: AnnData) -> list[str]:
    """Put raw antibody counts into ``obsm["protein"]`` and their identities into ``uns``.

    Looked for in this order: ``obsm["protein"]``; features of ``X`` that are antibodies (they
    stay in ``X``); other usual keys of ``obsm``. ``uns["protein_panel"]`` says which protein
    each antibody binds; a panel that the file already has is kept, so that corrections by hand
    survive.

    Parameters
    ----------
    table
        Changed in place.

    Returns
    -------
    list of str
        Warnings.
    """
    notes: list[str] = []
    frame = _find(table, notes)
    if frame is None or frame.shape[1] == 0:
        return notes
    names = [str(name) for name in frame.columns]
    columns = _storable(names)
    if columns != names:
        changed = sum(a != b for a, b in zip(columns, names, strict=True))
        notes.append(
            f"{changed} antibody name(s) hold a slash or repeat and were changed, such as "
            f"{next(f'{a} to {b}' for a, b in zip(names, columns, strict=True) if a != b)}."
        )
    frame.columns = pd.Index(columns, dtype=object)
    table.obsm["protein"] = frame
    panel = table.uns.get("protein_panel")
    if not _fits(panel, columns):
        from sclinguist_core.vocabulary.proteins import resolve_panel

        panel = resolve_panel(names)
        panel.index = pd.Index(columns, dtype=object, name=panel.index.name)
        table.uns["protein_panel"] = panel
    notes += _check_values(frame)
    return notes


def _find(table: AnnData, notes: list[str]) -> pd.DataFrame | None:
    if "protein" in table.obsm:
        return _as_frame(table, "protein", notes)
    mask = antibody_mask(table.var)
    if mask.any() and table.X is not None and table.X.dtype.kind in "biuf":
        values = table.X[:, mask]
        dense = values.toarray() if sparse.issparse(values) else np.asarray(values)
        return pd.DataFrame(
            dense.astype(np.float32), index=table.obs_names, columns=_antibody_names(table, mask)
        )
    lowered = {str(key).lower(): str(key) for key in table.obsm}
    for key in _KEYS:
        if key in lowered:
            return _as_frame(table, lowered[key], notes)
    return None


def _antibody_names(table: AnnData, mask: np.ndarray) -> list[str]:
    """Names of the study; ids where two antibodies share a name (two clones of one target)."""
    names = [str(name) for name in original_names(table.var)[mask]]
    stems = {name: re.sub(r"-\d+$", "", name) for name in names}
    # "PTPRC" and "PTPRC-1" are one name that was made unique before the file was written.
    shared = [stems[name] if stems[name] in names else name for name in names]
    if "gene_ids" not in table.var.columns:
        return names
    ids = [str(value) for value in table.var["gene_ids"].to_numpy()[mask]]
    counts = pd.Series(shared).value_counts()
    if len(set(ids)) < len(ids):
        return names
    return [ids[i] if counts[shared[i]] > 1 and ids[i] else names[i] for i in range(len(names))]


def _as_frame(table: AnnData, key: str, notes: list[str]) -> pd.DataFrame | None:
    values: Any = table.obsm[key]
    if isinstance(values, pd.DataFrame):
        numeric = values.loc[:, [getattr(dtype, "kind", "O") in "iuf" for dtype in values.dtypes]]
        if numeric.shape[1] < values.shape[1]:
            notes.append(
                f"obsm['{key}'] has {values.shape[1] - numeric.shape[1]} column(s) that are no "
                "numbers; they were left out."
            )
        if any(isinstance(dtype, pd.api.extensions.ExtensionDtype) for dtype in numeric.dtypes):
            # Integers with gaps have a type of their own; here a gap is NaN, as in an array.
            numeric = numeric.astype(np.float64)
        return numeric.copy()
    dense = values.toarray() if sparse.issparse(values) else np.asarray(values)
    if dense.ndim != 2 or dense.dtype.kind not in "biuf":
        notes.append(
            f"obsm['{key}'] has the shape {dense.shape} and type {dense.dtype}, expected a column "
            "of numbers for each protein; it was ignored."
        )
        return None
    names = _names_from_uns(table, key, dense.shape[1])
    if names is None:
        notes.append(
            f"obsm['{key}'] has {dense.shape[1]} columns without names, so its proteins are "
            "unknown; store it as a DataFrame to use them."
        )
        return None
    return pd.DataFrame(dense, index=table.obs_names, columns=names)


def _names_from_uns(table: AnnData, key: str, n: int) -> list[str] | None:
    """Column names that scvi-tools and others keep apart from the matrix."""
    for candidate in (f"{key}_names", f"{key}_columns", "protein_names", "adt_names", key):
        names = table.uns.get(candidate)
        if isinstance(names, list | np.ndarray | pd.Index | pd.Series) and np.shape(names) == (n,):
            return [str(name) for name in names]
    return None


def _storable(names: list[str]) -> list[str]:
    """Names that can be columns in HDF5 and zarr: no slash, none twice, none empty."""
    seen: dict[str, int] = {}
    storable = []
    for name in names:
        clean = name.replace("/", "-").strip() or "unnamed"
        count = seen.get(clean, 0)
        seen[clean] = count + 1
        storable.append(clean if count == 0 else f"{clean}-{count}")
    return storable


def _fits(panel: Any, columns: list[str]) -> bool:
    return (
        isinstance(panel, pd.DataFrame)
        and list(panel.index) == columns
        and all(column in panel.columns for column in _PANEL_COLUMNS)
    )


def _check_values(frame: pd.DataFrame) -> list[str]:
    values = frame.to_numpy(dtype=np.float64)
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() < 0:
        return [
            f"Measured proteins hold negative values (minimum {finite.min():.3g}): they are "
            "normalised already, while comparisons expect raw counts."
        ]
    if finite.size and not np.allclose(finite, np.rint(finite), atol=1e-3):
        return [
            f"Measured proteins hold fractional values (maximum {finite.max():.3g}): they are "
            "normalised already, while comparisons expect raw counts."
        ]
    return []
