"""What an imputation gives, and where it is written.

Shapes: n cells or spots, K imputed genes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

KEY = "sclinguist_imputed"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Imputation:
    """Imputed genes of n cells or spots.

    Attributes
    ----------
    names
        Symbols of the imputed genes, length K.
    value
        Expected ``log1p`` CP10k, float32, shape (n, K); NaN in rows without reads.
    level
        Level among the genes of the cell, 0 to 4, int8, shape (n, K); -1 in rows without reads.
    columns
        Columns of the section's table that hold each gene; none for a gene that it lacks.
    tested
        A row a gene: ``pearson`` and ``mcc`` of hidden entries of the gene across cells,
        ``n_hidden`` and ``n_expressed`` of them, and ``test``, which is ``"measured here"``, ``"too
        rare"`` or ``"untested"`` (the section did not measure the gene).
    info
        Provenance and the figures over all genes, as written to ``uns``.
    warnings
        One sentence for everything that the user should know.
    """

    names: list[str]
    value: np.ndarray
    level: np.ndarray
    columns: list[np.ndarray]
    tested: pd.DataFrame
    info: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())


def attach(table: AnnData, imputation: Imputation, *, levels: bool = False) -> None:
    """Write an imputation into a table, in place; ``X`` and everything else stay as they were.

    Genes that are columns of the table go to ``layers["sclinguist_imputed"]``, which holds these
    columns alone (sparse; ``var["sclinguist_imputed"]`` tells which), all others to
    ``obsm["sclinguist_imputed"]``, a DataFrame with a column a gene. With `levels` the same for
    ``"sclinguist_imputed_level"``, as whole numbers. ``uns["sclinguist_imputed"]`` says what was
    done, and in ``tested`` how well it did on each gene. What an earlier imputation wrote goes.
    """
    for key in (KEY, f"{KEY}_level"):
        for part in (table.layers, table.obsm):
            part.pop(key, None)
    inside = np.array([len(columns) > 0 for columns in imputation.columns])
    is_imputed = np.zeros(table.n_vars, bool)
    parts = {KEY: imputation.value}
    if levels:
        parts[f"{KEY}_level"] = imputation.level
    for key, values in parts.items():
        if inside.any():
            target = np.concatenate([imputation.columns[i] for i in np.flatnonzero(inside)])
            source = np.repeat(np.arange(len(inside)), [len(c) for c in imputation.columns])
            is_imputed[target] = True
            table.layers[key] = _columns_only(values, source, target, table.n_vars)
        if not inside.all():
            outside = np.flatnonzero(~inside)
            table.obsm[key] = pd.DataFrame(
                values[:, outside],
                index=table.obs_names,
                columns=[imputation.names[i] for i in outside],
            )
    table.var[KEY] = is_imputed
    table.uns[KEY] = {
        **imputation.info,
        "warnings": list(imputation.warnings),
        "tested": imputation.tested,
    }


def _columns_only(
    values: np.ndarray, source: np.ndarray, target: np.ndarray, n_columns: int
) -> sparse.csc_matrix:
    """Put columns of a dense matrix into a sparse one that has nothing else."""
    order = np.argsort(target, kind="stable")
    n = len(values)
    filled = np.zeros(n_columns, np.int64)
    filled[target] = n
    indptr = np.concatenate([[0], np.cumsum(filled)])
    data = values[:, source[order]].T.ravel()
    indices = np.tile(np.arange(n, dtype=np.int32), len(target))
    return sparse.csc_matrix((data, indices, indptr), shape=(n, n_columns))
