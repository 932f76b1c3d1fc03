"""From what a section tells about an entry to its value and its level.

A part of the section's own visible entries is hidden, described as any hidden entry is, and the
weights are fitted to what they are: a ridge regression for the value (``log1p`` CP10k), a
multinomial regression for the level (`sclinguist_core.data.levels`), both on the features, their
squares and products. The weights are shared by all genes - some 150 figures learned from tens of
thousands of entries - so no gene's own entries can be learned by heart.

Shapes: n cells or spots, V genes, m entries, F features, Q features with squares and products,
N levels.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.levels import N_LEVELS, expression_levels
from sclinguist_core.errors import InputError
from sclinguist_core.inference.progress import Progress

MAX_FIT_ENTRIES = 60_000
"""Hidden entries that weights are fitted to."""
BLOCK_ROWS = 128
"""Rows that are described at a time, with all genes."""
_PREDICTED_AT_ONCE = 200_000
_INVERSE_PENALTY = 10.0
_VALUE_RIDGE = 1.0
_MATCHING_STEPS, _MATCHING_RATE = 120, 0.3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Estimates:
    """What is said of m entries.

    Attributes
    ----------
    value
        Expected ``log1p`` CP10k, float32, shape (m,).
    probability
        Of each level, float32, shape (m, N).
    level
        The level called, int8, shape (m,). Levels are called as often as they are measured, which
        the most probable level is not: most entries of a rare level look more like a zero.
    """

    value: np.ndarray
    probability: np.ndarray
    level: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibrator:
    """Weights that turn features into values and levels.

    Attributes
    ----------
    center, spread
        Of the Q features, shape (Q,).
    value_weight, level_weight
        Shapes (Q,) and (Q, N).
    value_bias, level_bias
        A number, and shape (N,); -inf for a level that no entry had.
    call_bias
        Added to the log probabilities before a level is called, shape (N,).
    """

    center: np.ndarray
    spread: np.ndarray
    value_weight: np.ndarray
    value_bias: float
    level_weight: np.ndarray
    level_bias: np.ndarray
    call_bias: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, value: np.ndarray, level: np.ndarray) -> Calibrator:
        """Fit weights to entries that are known.

        Parameters
        ----------
        features
            Shape (m, F).
        value, level
            ``log1p`` CP10k and level, shapes (m,).

        Raises
        ------
        InputError
            If all entries have the same level.
        """
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(level)) < 2:
            raise InputError(
                f"{len(level)} hidden entries: all have the same level of expression, expected "
                "expressed and unexpressed ones to learn from; the input has too few cells or "
                "genes."
            )
        x = _with_products(features)
        center, spread = x.mean(axis=0), x.std(axis=0)
        spread = np.where(spread > 1e-6, spread, 1.0)
        x = (x - center) / spread
        square = x.T @ x + _VALUE_RIDGE * np.eye(x.shape[1])
        value_weight = np.linalg.solve(square, x.T @ (value - value.mean()))
        model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1_000, tol=1e-3).fit(x, level)
        weight, bias = np.zeros((x.shape[1], N_LEVELS)), np.full(N_LEVELS, -np.inf)
        if len(model.classes_) == 2:  # scikit-learn then gives the log odds of the second alone
            weight[:, model.classes_[1]] = model.coef_[0]
            bias[model.classes_] = 0.0, model.intercept_[0]
        else:
            weight[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
        fitted = cls(
            center=center,
            spread=spread,
            value_weight=value_weight,
            value_bias=float(value.mean()),
            level_weight=weight,
            level_bias=bias,
            call_bias=np.zeros(N_LEVELS),
        )
        log_p = _log_softmax(x @ weight + bias)
        fitted.call_bias[:] = matching_bias(log_p, np.bincount(level, minlength=N_LEVELS))
        return fitted

    def predict(self, features: np.ndarray) -> Estimates:
        """Estimate entries from their features, shape (m, F)."""
        value = np.empty(len(features), np.float32)
        probability = np.empty((len(features), N_LEVELS), np.float32)
        level = np.empty(len(features), np.int8)
        for start in range(0, len(features), _PREDICTED_AT_ONCE):
            part = slice(start, start + _PREDICTED_AT_ONCE)
            x = (_with_products(features[part]) - self.center) / self.spread
            # Expression is not negative, and neither is its expectation.
            value[part] = np.maximum(x @ self.value_weight + self.value_bias, 0.0)
            log_p = _log_softmax(x @ self.level_weight + self.level_bias)
            probability[part] = np.exp(log_p)
            level[part] = (log_p + self.call_bias).argmax(axis=1)
        return Estimates(value=value, probability=probability, level=level)


def matching_bias(log_p: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Find what to add to log probabilities so that levels are called as often as they occur.

    Parameters
    ----------
    log_p
        Shape (m, N).
    counts
        How often each level occurs among the m entries, shape (N,).

    Returns
    -------
    float64, shape (N,), 0 for the first level; -inf for levels that do not occur.
    """
    wanted = np.log(counts / counts.sum() + 1e-5)
    occurs = counts > 0
    bias = np.where(occurs, 0.0, -np.inf)
    for _ in range(_MATCHING_STEPS):
        called = np.bincount((log_p + bias).argmax(axis=1), minlength=len(counts))
        step = wanted - np.log(called / len(log_p) + 1e-5)
        bias = np.where(occurs, bias + _MATCHING_RATE * step, -np.inf)
        bias -= bias[occurs][0]
    return bias


def _with_products(features: np.ndarray) -> np.ndarray:
    """Append squares and products of pairs: shape (m, F) to (m, Q), float64."""
    features = features.astype(np.float64)
    one, other = np.triu_indices(features.shape[1])
    return np.hstack([features, features[:, one] * features[:, other]])


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


class Describer(Protocol):
    """Gives features of entries from the visible part of a section."""

    def __call__(self, rows: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Features of the entries of some rows (B,) and genes (K,), shape (B, K, F)."""
        ...


def hide_entries(
    rna: AlignedRna,
    share: float | np.ndarray,
    rng: np.random.Generator,
    *,
    rows: np.ndarray | None = None,
    hidden: sparse.csr_matrix | None = None,
) -> tuple[AlignedRna, sparse.csr_matrix]:
    """Hide random entries, expressed or not alike.

    Parameters
    ----------
    rna
        Counts of measured genes.
    share
        Share of the measured entries of a row to hide; one number, or one a gene, shape (V,).
    rng
        The only source of randomness.
    rows
        Rows to hide entries of; all by default.
    hidden
        Entries that are hidden already (CSR, shape (n, V)) and are not drawn again.

    Returns
    -------
    What is left visible, and True where an entry was drawn, CSR with sorted indices, shape (n, V).
    """
    n, n_genes = rna.counts.shape
    of_gene = np.broadcast_to(share, n_genes)
    drawn = []
    indptr = np.zeros(n + 1, np.int64)
    for row in np.arange(n) if rows is None else rows:
        free = rna.measured[rna.pattern[row]].copy()
        if hidden is not None:
            free[hidden.indices[hidden.indptr[row] : hidden.indptr[row + 1]]] = False
        candidates = np.flatnonzero(free)
        genes = candidates[rng.random(len(candidates)) < of_gene[candidates]]
        drawn.append(genes)
        indptr[row + 1] = len(genes)
    indices = np.concatenate(drawn) if drawn else np.zeros(0, np.int64)
    indptr = np.cumsum(indptr)
    mask = sparse.csr_matrix((np.ones(len(indices), bool), indices, indptr), shape=(n, n_genes))
    return rna.without(mask), mask


def entries_of(hidden: sparse.csr_matrix, rows: np.ndarray) -> sparse.csr_matrix:
    """Keep the hidden entries of some rows (a mask, shape (n,)); the shape stays (n, V)."""
    lengths = np.where(rows, np.diff(hidden.indptr), 0)
    keep = np.repeat(rows, np.diff(hidden.indptr))
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csr_matrix((hidden.data[keep], hidden.indices[keep], indptr), shape=hidden.shape)


def truth(
    expression: sparse.csr_matrix, hidden: sparse.csr_matrix
) -> tuple[np.ndarray, np.ndarray]:
    """Value (float32) and level (int64) of hidden entries, in the order they are stored, (m,).

    Parameters
    ----------
    expression
        ``log1p`` CP10k of all entries, CSR with sorted indices, shape (n, V).
    hidden
        True where an entry is hidden, CSR with sorted indices, shape (n, V).
    """
    n_genes = expression.shape[1]
    value = np.zeros(hidden.nnz, np.float32)
    level = np.zeros(hidden.nnz, np.int64)
    known, asked = _keys(expression, n_genes), _keys(hidden, n_genes)
    _, at, of = np.intersect1d(asked, known, assume_unique=True, return_indices=True)
    value[at] = expression.data[of]
    level[at] = expression_levels(expression)[of]
    return value, level


def _keys(matrix: sparse.csr_matrix, n_genes: int) -> np.ndarray:
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return row.astype(np.int64) * n_genes + matrix.indices


def describe_entries(
    describe: Describer, entries: sparse.csr_matrix
) -> Iterator[tuple[slice, np.ndarray]]:
    """Describe single entries block by block.

    Parameters
    ----------
    describe
        Gives the features.
    entries
        True where an entry is asked for, CSR with sorted indices, shape (n, V).

    Yields
    ------
    Which of the stored entries, and their features, shape (m, F).
    """
    rows = np.flatnonzero(np.diff(entries.indptr))
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        # Rows in between have no entries, so the entries of a block are stored side by side.
        part = slice(int(entries.indptr[block[0]]), int(entries.indptr[block[-1] + 1]))
        genes, column = np.unique(entries.indices[part], return_inverse=True)
        row = np.repeat(np.arange(len(block)), np.diff(entries.indptr)[block])
        yield part, describe(block, genes)[row, column]


def estimate_entries(
    describe: Describer, calibrator: Calibrator, entries: sparse.csr_matrix, *, phase: str
) -> Generator[Progress, None, Estimates]:
    """Estimate single entries; parameters as of `describe_entries`.

    Returns
    -------
    In the order in which the entries are stored.
    """
    value = np.empty(entries.nnz, np.float32)
    probability = np.empty((entries.nnz, N_LEVELS), np.float32)
    level = np.empty(entries.nnz, np.int8)
    n_rows = int(np.count_nonzero(np.diff(entries.indptr)))
    for block, (part, features) in enumerate(describe_entries(describe, entries), start=1):
        said = calibrator.predict(features)
        value[part], probability[part], level[part] = said.value, said.probability, said.level
        yield Progress(min(block * BLOCK_ROWS, n_rows), n_rows, phase)
    return Estimates(value=value, probability=probability, level=level)


def fit_calibrator(
    describe: Describer,
    entries: sparse.csr_matrix,
    value: np.ndarray,
    level: np.ndarray,
    rng: np.random.Generator,
) -> Calibrator:
    """Fit weights to hidden entries whose values and levels are known.

    Parameters
    ----------
    describe
        Gives the features.
    entries
        True where an entry is hidden, CSR with sorted indices, shape (n, V).
    value, level
        See `truth`.
    rng
        Draws at most `MAX_FIT_ENTRIES` of them.
    """
    chosen = np.zeros(entries.nnz, bool)
    n_fit = min(entries.nnz, MAX_FIT_ENTRIES)
    chosen[rng.choice(entries.nnz, n_fit, replace=False)] = True
    features = [f[chosen[part]] for part, f in describe_entries(describe, entries)]
    if not features:
        raise InputError("no entries to learn from: expected cells with measured genes.")
    return Calibrator.fit(np.concatenate(features), value[chosen], level[chosen])
