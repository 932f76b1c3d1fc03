"""What the rows of ``var`` are: genes, antibodies, or controls that nobody should model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

#: Column of ``var`` in which readers keep the names as they stood in the file, because
#: ``var_names`` are made unique ("CD3E" and "CD3E-1") and gene resolution needs the originals.
ORIGINAL_NAME = "gene_name"

_GENE_TYPES = frozenset({"gene expression", "gene", "genes", "rna", "gex", ""})
_ANTIBODY_TYPES = frozenset(
    {"antibody capture", "protein expression", "protein", "proteins", "antibody", "adt"}
)
_ANTIBODY_NAME = re.compile(r"totalseq[-_ ]?[abcd]?\b|^adt[_:\-]", re.IGNORECASE | re.MULTILINE)
_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}(\.\d+)?$")
_SYMBOL_COLUMNS = (
    ORIGINAL_NAME,
    "gene_symbols",
    "gene_symbol",
    "feature_name",
    "gene_names",
    "gene_short_name",
    "symbol",
    "SYMBOL",
)
_ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id", "ENSEMBL", "id")


def feature_types(var: pd.DataFrame) -> np.ndarray:
    """Class of every feature: ``"gene"``, ``"antibody"`` or ``"other"``.

    Parameters
    ----------
    var
        ``AnnData.var``. Read from ``feature_types`` (10x, scanpy); ``feature_type`` and
        ``modality`` count only when they speak of antibodies, since other portals keep gene
        biotypes under the same name. Without any of them all features are genes, except
        names that say themselves that they are antibodies (``CD3_TotalSeqB``, ``ADT_CD4``).

    Returns
    -------
    numpy.ndarray
        (n_vars,) array of str.
    """
    kinds = np.full(len(var), "gene", dtype=object)
    column = _type_column(var)
    if column is None:
        names = original_names(var)
        # One look at all names first: nearly no table needs the look at each.
        if _ANTIBODY_NAME.search("\n".join(names)):
            kinds[[bool(_ANTIBODY_NAME.search(name)) for name in names]] = "antibody"
        return kinds
    lowered = column.astype(object).where(column.notna(), "").astype(str).str.strip().str.lower()
    kinds[~lowered.isin(_GENE_TYPES).to_numpy()] = "other"
    kinds[lowered.isin(_ANTIBODY_TYPES).to_numpy()] = "antibody"
    return kinds


def gene_mask(var: pd.DataFrame) -> np.ndarray:
    """(n_vars,) bool: the features that are genes."""
    return feature_types(var) == "gene"


def antibody_mask(var: pd.DataFrame) -> np.ndarray:
    """(n_vars,) bool: the features that are antibodies."""
    return feature_types(var) == "antibody"


def original_names(var: pd.DataFrame) -> np.ndarray:
    """Names of the features as the study gave them, before they were made unique.

    Where ``var_names`` are Ensembl ids the first column of symbols is taken instead.

    Returns
    -------
    numpy.ndarray
        (n_vars,) array of str.
    """
    index = _index_names(var)
    columns: tuple[str, ...] = (ORIGINAL_NAME,)
    if _share_of_ensembl(index) > 0.5:
        columns = _SYMBOL_COLUMNS
    for column in columns:
        if column in var.columns:
            names = _strings(var[column])
            # Gaps in the column (no symbol for this id) fall back to the index.
            return np.where(names == "", index, names)
    return index


def gene_ids(var: pd.DataFrame) -> np.ndarray | None:
    """Ensembl ids of the features, or None where the table holds none.

    Returns
    -------
    numpy.ndarray or None
        (n_vars,) array of str; "" where a feature has no id.
    """
    for column in _ID_COLUMNS:
        if column in var.columns:
            ids = _strings(var[column])
            if _share_of_ensembl(ids) > 0.1:
                return ids
    index = _index_names(var)
    return index if _share_of_ensembl(index) > 0.5 else None


def _type_column(var: pd.DataFrame) -> pd.Series | None:
    if "feature_types" in var.columns:
        return var["feature_types"]
    for column in ("feature_type", "modality"):
        if column in var.columns:
            values = {value.strip().lower() for value in _strings(pd.unique(var[column]))}
            if values & (_ANTIBODY_TYPES | {"gene expression"}):
                return var[column]
    return None


def _index_names(var: pd.DataFrame) -> np.ndarray:
    # Objects: an array of text would take for each name what the longest one takes.
    return np.array([str(name) for name in var.index], dtype=object)


def _strings(values: Any) -> np.ndarray:
    series = pd.Series(values).astype(object)
    return series.where(series.notna(), "").astype(str).to_numpy(dtype=object)


def _share_of_ensembl(names: np.ndarray) -> float:
    sample = names[:: max(1, len(names) // 2000)]
    if len(sample) == 0:
        return 0.0
    return sum(bool(_ENSEMBL.match(name)) for name in sample) / len(sample)
