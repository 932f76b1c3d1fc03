"""What an explanation gives: attributions of cells, and what genes mean for a protein overall.

Shapes: m explained cells or spots, P proteins, V genes of the model, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.errors import InputError
from sclinguist_core.inference.explain_agreement import TOP, rankings_agree, ranks

RESAMPLES = 100
LEAST_ROWS = 10
"""With fewer rows a covariance says nothing."""
_TOP_ROWS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explanation:
    """Which genes a model's predictions rest on.

    Attributes
    ----------
    names
        Canonical protein names, length P.
    symbols
        The model's genes, length V.
    rows
        Rows of the section that were explained, ascending, int64, shape (m,).
    n_obs
        Rows of the section.
    values
        For each protein the attribution of every expressed gene of every explained row, CSR
        float32, shape (m, V). Gradients: in the unit of the predictions, and a row adds up to
        its prediction less that of a row that expresses nothing. Attention: without a unit.
    predicted
        Prediction of the rows but for a constant of each protein, float32, shape (m, P).
    start
        The same for the rows with all genes at zero; NaN with attention.
    expressing
        Share of the explained rows that express each gene, float64, shape (V,).
    info
        Provenance: input, model and its digest, unit, method, steps, seed, numbers of rows.
    warnings
        One sentence for everything that the user should know.
    """

    names: list[str]
    symbols: list[str]
    rows: np.ndarray
    n_obs: int
    values: tuple[sparse.csr_matrix, ...]
    predicted: np.ndarray
    start: np.ndarray
    expressing: np.ndarray
    info: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())

    @property
    def is_complete(self) -> bool:
        """Whether attributions add up to the predictions (gradients), or are scores."""
        return self.info["method"] == "gradients"

    def shares(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Share of each gene in the differences that the model sees between rows, shape (P, V).

        The covariance over rows of a gene's attribution with the prediction, divided by the
        prediction's variance. As attributions add up to predictions, shares add up to 1 (but for
        what the start of the way and the steps leave out). A gene that has the same part in every
        row has a share of 0, however large the part. Below 0 are genes that work against the
        others. Attention has no unit: its covariances are divided by the sum of their absolute
        values.

        Parameters
        ----------
        weights
            How often each row counts, shape (m,); once by default.
        """
        if weights is None:
            weights = np.ones(len(self.rows))
        return np.stack([self._shares(i, weights[:, None])[:, 0] for i in range(len(self.names))])

    def _shares(self, protein: int, weights: np.ndarray) -> np.ndarray:
        """Shares of one protein under R weightings of the rows (m, R), shape (V, R)."""
        said = self.predicted[:, protein].astype(np.float64)[:, None]
        mean = (weights * said).sum(axis=0) / weights.sum(axis=0)
        centred = weights * (said - mean)
        covariance = self.values[protein].T @ centred
        if self.is_complete:
            scale = (centred * (said - mean)).sum(axis=0)
        else:
            scale = np.abs(covariance).sum(axis=0)
        return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)

    def ranked(self, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
        """Rank the genes of every protein by their share.

        Parameters
        ----------
        resamples
            Bootstrap samples of the rows that `share_sd` and `in_top` rest on; 0 leaves them out.
        seed
            Draws the samples.

        Returns
        -------
        DataFrame, index ``protein`` and ``gene``, only genes that a row expresses, largest share
        first:

        ``rank``
            1 for the largest share of the protein.
        ``share``
            See `shares`.
        ``direction``
            ``"raises"`` or ``"lowers"``: what expressing the gene does to the prediction on
            average; "" with attention, which does not know.
        ``effect``
            Mean attribution in the rows that express the gene.
        ``effect_in_top``
            Mean attribution in the tenth of the rows with the highest prediction, those that do
            not express the gene counting 0.
        ``expressing``
            Share of the rows that express the gene.
        ``share_sd``
            Standard deviation of the share over the samples.
        ``in_top``
            Share of the samples in which the gene is among the first 20.
        """
        known = np.flatnonzero(self.expressing > 0)
        parts = {}
        for i, name in enumerate(self.names):
            values = self.values[i]
            share = self._shares(i, np.ones((len(self.rows), 1)))[known, 0]
            total = np.asarray(values.sum(axis=0, dtype=np.float64)).ravel()[known]
            effect = total / (self.expressing[known] * len(self.rows))
            highest = np.argsort(-self.predicted[:, i], kind="stable")
            highest = highest[: max(1, round(_TOP_ROWS * len(self.rows)))]
            direction = np.where(effect > 0, "raises", np.where(effect < 0, "lowers", ""))
            columns: dict[str, Any] = {
                "share": share,
                "direction": direction if self.is_complete else "",
                "effect": effect,
                "effect_in_top": np.asarray(values[highest].mean(axis=0)).ravel()[known],
                "expressing": self.expressing[known],
            }
            if resamples:
                drawn = self._resampled(i, resamples, seed)[known]
                columns["share_sd"] = drawn.std(axis=1, ddof=1 if resamples > 1 else 0)
                columns["in_top"] = (ranks(drawn) < TOP).mean(axis=1)
            genes = pd.Index([self.symbols[gene] for gene in known], name="gene")
            table = pd.DataFrame(columns, index=genes)
            table = table.iloc[np.argsort(-share, kind="stable")]
            table.insert(0, "rank", np.arange(1, len(table) + 1))
            parts[name] = table
        return pd.concat(parts, names=["protein", "gene"])

    def stability(self, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
        """How far the ranking hangs on which rows were explained.

        Returns
        -------
        DataFrame, index ``protein``: ``jaccard``, the mean overlap (shared over all) of the first
        20 genes of a bootstrap sample with those of all rows, and ``rank_correlation``, the mean
        Spearman correlation of the shares.
        """
        figures = []
        for i in range(len(self.names)):
            whole = self._shares(i, np.ones((len(self.rows), 1)))[:, 0]
            drawn = self._resampled(i, resamples, seed).T
            figures.append(np.mean([rankings_agree(whole, one) for one in drawn], axis=0))
        index = pd.Index(self.names, name="protein")
        return pd.DataFrame(figures, index=index, columns=["rank_correlation", "jaccard"])

    def _resampled(self, protein: int, resamples: int, seed: int) -> np.ndarray:
        """Shares of one protein in bootstrap samples of the rows, shape (V, R)."""
        n_rows = len(self.rows)
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=resamples)
        return self._shares(protein, counts.T.astype(np.float64))

    def grouped(self, groups: pd.Categorical | pd.Series | Sequence[str]) -> pd.DataFrame:
        """Tell what genes contribute in each group of rows, beside what they do in all.

        Parameters
        ----------
        groups
            Label of each row of the *section*, shape (n_obs,); rows without one are left out.

        Returns
        -------
        DataFrame, index ``group``, ``protein`` and ``gene``, the largest absolute difference
        first: ``mean`` attribution in the group's explained rows, ``difference`` from the mean of
        all labelled ones, ``expressing`` (share of the group's rows), ``n_rows``. Only genes that
        a labelled row expresses.

        Raises
        ------
        InputError
            If the labels do not fit, or no explained row has one.
        """
        labels = pd.Categorical(groups)
        if len(labels) != self.n_obs:
            raise InputError(
                f"groups: found {len(labels)} labels, expected one for each of {self.n_obs} rows."
            )
        labels = labels[self.rows].remove_unused_categories()
        if not len(labels.categories):
            raise InputError("groups: none of the explained rows has a label; choose other groups.")
        inside = np.eye(len(labels.categories))[:, labels.codes[labels.codes >= 0]]
        labelled = np.flatnonzero(labels.codes >= 0)
        size = inside.sum(axis=1)
        member = sparse.csr_matrix(inside / size[:, None])
        found = _rows_expressing(self.values[0][labelled], member)
        known = np.flatnonzero(found.sum(axis=0) > 0)
        genes = pd.Index([self.symbols[gene] for gene in known], name="gene")
        means = [(member @ matrix[labelled])[:, known].toarray() for matrix in self.values]
        parts = {}
        for j, group in enumerate(labels.categories):
            for protein, mean in zip(self.names, means, strict=True):
                table = pd.DataFrame(
                    {
                        "mean": mean[j],
                        "difference": mean[j] - size @ mean / size.sum(),
                        "expressing": found[j, known],
                        "n_rows": int(size[j]),
                    },
                    index=genes,
                )
                order = np.argsort(-table["difference"].abs().to_numpy(), kind="stable")
                parts[str(group), protein] = table.iloc[order]
        return pd.concat(parts, names=["group", "protein", "gene"])

    def take(self, chosen: np.ndarray) -> Explanation:
        """Keep some of the explained rows, given by their places among them."""
        values = tuple(matrix[chosen] for matrix in self.values)
        return Explanation(
            names=self.names,
            symbols=self.symbols,
            rows=self.rows[chosen],
            n_obs=self.n_obs,
            values=values,
            predicted=self.predicted[chosen],
            start=self.start[chosen],
            expressing=expressing(values[0]),
            info=self.info,
            warnings=self.warnings,
        )

    def per_row(self, protein: str, genes: Sequence[str]) -> pd.DataFrame:
        """Attributions of some genes in every row of the section, float32, shape (n_obs, genes).

        0 where a gene is not expressed, NaN in rows that were not explained.
        """
        columns = [self.symbols.index(gene) for gene in genes]
        table = np.full((self.n_obs, len(columns)), np.nan, np.float32)
        table[self.rows] = self.values[self.names.index(protein)][:, columns].toarray()
        return pd.DataFrame(table, columns=list(genes))


def expressing(values: sparse.csr_matrix) -> np.ndarray:
    """Share of the rows that express each gene (store an entry), shape (V,)."""
    found = np.bincount(values.indices, minlength=values.shape[1])
    return found / max(values.shape[0], 1)


def _rows_expressing(values: sparse.csr_matrix, member: sparse.csr_matrix) -> np.ndarray:
    ones = sparse.csr_matrix((np.ones(values.nnz), values.indices, values.indptr), values.shape)
    return (member @ ones).toarray()
