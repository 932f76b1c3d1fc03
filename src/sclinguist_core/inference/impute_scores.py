"""How well hidden entries were imputed: correlation of values, and of levels.

Shapes: m hidden entries, N levels, V genes of a model, K imputed ones, n cells or spots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclinguist_core.data.levels import level_mcc

MIN_EXPRESSED = 10
"""A gene with fewer expressed hidden entries is too rare for a figure of its own."""


def entry_pearson(
    value: np.ndarray, said: np.ndarray, group: np.ndarray | None = None, n_groups: int = 1
) -> np.ndarray:
    """Pearson correlation of values, for each group.

    Parameters
    ----------
    value, said
        Measured and imputed values, shape (m,).
    group, n_groups
        See `level_mcc`.

    Returns
    -------
    float64, shape (n_groups,); NaN where either side is constant.
    """
    group = np.zeros(len(value), np.int64) if group is None else group
    n = np.maximum(np.bincount(group, minlength=n_groups), 1)

    def centred(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return x - (np.bincount(group, weights=x, minlength=n_groups) / n)[group]

    def total(x: np.ndarray) -> np.ndarray:
        return np.bincount(group, weights=x, minlength=n_groups)

    x, y = centred(value), centred(said)
    norm = np.sqrt(total(x * x) * total(y * y))
    return np.divide(total(x * y), norm, out=np.full(n_groups, np.nan), where=norm > 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Figures:
    """How well hidden entries of a section were imputed.

    Attributes
    ----------
    overall
        ``mcc`` and ``pearson`` over all hidden entries, ``median_pearson`` of the genes across
        cells; others with a prefix that says what they are of.
    by_gene
        A row for each of the V genes: ``pearson``, ``mcc``, ``n_hidden``, ``n_expressed``.
    """

    overall: dict[str, float]
    by_gene: pd.DataFrame

    @classmethod
    def of_entries(
        cls,
        value: np.ndarray,
        level: np.ndarray,
        said_value: np.ndarray,
        said_level: np.ndarray,
        gene: np.ndarray,
        n_genes: int,
        *,
        prefix: str = "",
    ) -> Figures:
        """Compare imputed values and levels with measured ones, each of shape (m,)."""
        table = pd.DataFrame(
            {
                "pearson": entry_pearson(value, said_value, gene, n_genes),
                "mcc": level_mcc(level, said_level, gene, n_genes),
                "n_hidden": np.bincount(gene, minlength=n_genes),
                "n_expressed": np.bincount(gene, weights=level > 0, minlength=n_genes).astype(int),
            }
        )
        common = table["n_expressed"] >= MIN_EXPRESSED
        overall = {
            f"{prefix}mcc": round(float(level_mcc(level, said_level)[0]), 4),
            f"{prefix}pearson": round(float(entry_pearson(value, said_value)[0]), 4),
            f"{prefix}median_pearson": round(float(table["pearson"][common].median()), 4),
        }
        return cls(overall=overall, by_gene=table)

    def of(self, genes: np.ndarray, measured: np.ndarray, symbols: list[str]) -> pd.DataFrame:
        """Figures of chosen genes; see `imputation.Imputation.tested`.

        Parameters
        ----------
        genes
            Positions in the model, shape (K,).
        measured
            Which of them the section measured, bool, shape (K,).
        symbols
            Their names.
        """
        table = self.by_gene.iloc[genes].set_axis(pd.Index(symbols, name="gene"))
        rare = (table["n_expressed"] < MIN_EXPRESSED).to_numpy()
        table["test"] = np.select([~measured, rare], ["untested", "too rare"], "measured here")
        table.loc[rare | ~measured, ["pearson", "mcc"]] = np.nan
        return table


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Found:
    """Imputed values of rows that have reads, and how good they are.

    Attributes
    ----------
    value
        ``log1p`` CP10k, float32, shape (n, K).
    level
        0 to 4, int8, shape (n, K).
    figures
        Of entries that were hidden.
    """

    value: np.ndarray
    level: np.ndarray
    figures: Figures
