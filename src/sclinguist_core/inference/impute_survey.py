"""What a section tells about entries that are hidden, or that are asked for as if they were.

An *entry* is one gene in one cell. What is said of it rests on three things: the model's components
of expression, which turn the cell's other genes into an expectation
(`sclinguist_core.model.state`); the section itself, which has its own mean of the gene and its own
use of the components; and, where there is a context, the same gene in the cell's neighbours.

Nothing that is said of a hidden entry has seen it; it counts as not measured. For a visible one the
expectation is that of a cell without it: leaving one observation out of a least-squares fit has a
closed form, so all entries of a section are imputed without a fit for each. The cell's depth and
range, though, are those of all its visible entries, the one that is asked for among them; it tells
where the entry is the greatest of its cell.

Shapes: n cells or spots, B of them in a block, V genes of the model, K chosen genes, R components
of the state, J patterns of measured genes, F features.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.levels import extremes
from sclinguist_core.data.preprocess import TARGET_SUM, log1p_cp10k, size_factors
from sclinguist_core.errors import InputError
from sclinguist_core.inference.bag import N_NEIGHBOURS, bag_weights
from sclinguist_core.inference.progress import CHUNK_ROWS, Progress
from sclinguist_core.model.checkpoint import Checkpoint

OWN_WEIGHT = 200.0
"""Cells that the model's loadings are worth beside the section's own, in the section's fit of
them. 30 to 300 were tried on pbmc5k and teaseq_pbmc: 100 and 300 do not differ by more than .01."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Components:
    """The model's components of expression, as arrays.

    Attributes
    ----------
    gene_share
        Reference expression of the genes, shape (V,), sums to 1.
    mean, std
        Of a gene's ``log1p`` CP10k in the training reference, shape (V,).
    loadings
        Weight of each component in each gene's standardised expression, shape (V, R).
    center, scale
        Mean and spread of the training cells' states, shape (R,).
    clip
        Standardised expression is cut at this distance from 0.
    ridge
        Added to the diagonal when a state is solved for.
    """

    gene_share: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    loadings: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    clip: float
    ridge: float

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Components:
        """Take them from a checkpoint.

        Raises
        ------
        InputError
            If the model has none.
        """
        from sclinguist_core.model.state import RIDGE

        state = getattr(checkpoint.model, "state", None)
        if state is None:
            raise InputError(
                f"model {checkpoint.info.name!r}: has no components of expression "
                "(model.n_components), which genes are imputed from; use the bundled model."
            )
        network = checkpoint.translator
        return cls(
            gene_share=checkpoint.gene_share,
            mean=network.gene_mean.cpu().numpy(),
            std=network.gene_std.cpu().numpy(),
            loadings=state.loadings.cpu().numpy(),
            center=state.center.cpu().numpy(),
            scale=state.scale.cpu().numpy(),
            clip=network.config.clip,
            ridge=RIDGE,
        )

    def standardise(self, x: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Standardise ``log1p`` CP10k of genes; they are the last axis, or match `x` one by one."""
        return np.clip((x - self.mean[genes]) / self.std[genes], -self.clip, self.clip)

    def system(self, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matrix (R, R) and offset (R,) of the equations of a state.

        Parameters
        ----------
        gram
            Products of the loadings over the genes that were measured, shape (R, R).
        """
        share = np.clip(np.trace(gram) / max(float((self.loadings**2).sum()), 1e-12), 0.0, 1.0)
        drawn = (1.0 - share) / self.scale**2
        return gram + np.diag(self.ridge + drawn), drawn * self.center

    def states(
        self,
        expression: sparse.csr_matrix,
        measured: np.ndarray,
        pattern: np.ndarray,
        hidden: sparse.csr_matrix,
    ) -> np.ndarray:
        """State of each cell from its visible genes, float32, shape (B, R).

        The same as `Translator.linear_read` gives for a panel with the hidden genes taken out.

        Parameters
        ----------
        expression
            ``log1p`` CP10k of visible genes, CSR, shape (B, V).
        measured, pattern
            See `AlignedRna`.
        hidden
            True where an entry is hidden, CSR, shape (B, V).
        """
        every = np.arange(len(self.mean))
        zero = self.standardise(np.zeros(len(every), np.float32), every)
        z = expression.copy()
        z.data = self.standardise(z.data, z.indices) - zero[z.indices]
        told = z @ self.loadings
        state = np.empty_like(told)
        n_hidden = np.diff(hidden.indptr)
        for j in np.unique(pattern):
            used = self.loadings[measured[j]]
            gram = used.T @ used
            rows = np.flatnonzero(pattern == j)
            told[rows] += zero[measured[j]] @ used
            whole = rows[n_hidden[rows] == 0]
            matrix, offset = self.system(gram)
            state[whole] = np.linalg.solve(matrix, (told[whole] + offset).T).T
            for row in rows[n_hidden[rows] > 0]:
                genes = hidden.indices[hidden.indptr[row] : hidden.indptr[row + 1]]
                lost = self.loadings[genes]
                matrix, offset = self.system(gram - lost.T @ lost)
                state[row] = np.linalg.solve(matrix, told[row] - zero[genes] @ lost + offset)
        return state


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Survey:
    """What the visible entries of a section tell, and what follows for any entry.

    Attributes
    ----------
    components
        The model's.
    rna
        Visible counts.
    hidden
        True where an entry is hidden, CSR, shape (n, V).
    size
        Library size from visible counts, shape (n,).
    low, high
        Least and greatest visible value of each cell, shape (n,).
    state
        State less the section's mean state, in units of the training cells' spread, shape (n, R).
    mean_state
        The section's mean state, shape (R,).
    n_visible
        Cells in which a gene is visible, shape (V,).
    mean
        Their mean ``log1p`` CP10k, shape (V,).
    loadings
        Weight of `state` in a gene's ``log1p`` CP10k less `mean`, fitted to the section and drawn
        to the model's, shape (V, R).
    spectrum, axes
        Eigenvalues (R,) and eigenvectors (R, R) of the products of `state`.
    inverse
        Inverse of the equations of a state, for each pattern, shape (J, R, R).
    bags
        Weights of each cell's neighbours, CSR (n, n); None without a context.
    n_neighbours
        Neighbours of a cell.
    """

    components: Components
    rna: AlignedRna
    hidden: sparse.csr_matrix
    size: np.ndarray
    low: np.ndarray
    high: np.ndarray
    state: np.ndarray
    mean_state: np.ndarray
    n_visible: np.ndarray
    mean: np.ndarray
    loadings: np.ndarray
    spectrum: np.ndarray
    axes: np.ndarray
    inverse: np.ndarray
    bags: sparse.csr_matrix | None
    n_neighbours: int

    def expression(self, rows: np.ndarray, genes: np.ndarray) -> sparse.csr_matrix:
        """Compute ``log1p`` CP10k of visible entries, CSR float32, shape (B, K)."""
        return visible_expression(self.rna, self.size, rows, genes)

    def visible(self, rows: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Tell which entries are measured and not hidden, bool, shape (B, K)."""
        measured = self.rna.measured[:, genes][self.rna.pattern[rows]]
        return measured & ~self.hidden[rows][:, genes].toarray()

    def measured_features(self, rows: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Describe entries of genes that the section measured, float32, shape (B, K, F).

        Features are the section's mean of the gene, how far the model's components, the section's
        own use of them and (with a context) the neighbours depart from it, and those of the cell.
        """
        parts = self.components
        seen = self.visible(rows, genes)
        x = self.expression(rows, genes).toarray()
        said, error = self._expected(rows, genes, x, seen)
        mean, n_visible = self.mean[genes], self.n_visible[genes]
        # Of a visible entry the cell itself is left out of the section's mean ...
        others = (n_visible * mean - x) / np.maximum(n_visible - 1, 1)
        mean_BK = np.where(seen, others, mean)
        center = parts.loadings[genes] @ self.mean_state
        by_model = parts.std[genes] * (said - center)
        # ... and of the section's fit, once through its state and once through the fit itself.
        unit = self.loadings[genes] / parts.scale
        through = self._quadratic(genes, unit)[self.rna.pattern[rows]]
        by_section = self.state[rows] @ self.loadings[genes].T - through * error
        share = n_visible / max(len(self.state), 1)
        turned = (self.state[rows] @ self.axes) ** 2
        pull = turned @ (1.0 / (share[:, None] * self.spectrum + OWN_WEIGHT)).T
        without = (by_section - pull * (x - mean)) / np.maximum(1.0 - pull, 0.1)
        by_section = np.where(seen, without, by_section)
        features = [mean_BK, by_model, by_section]
        if self.bags is not None:
            features.append(self._neighbours(rows, genes) - mean)
        return self._with_cells(rows, features)

    def missing_features(self, rows: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Describe entries as if the section had never measured their genes, shape (B, K, F).

        Features are what the model's components expect of the gene, its mean in the training
        reference, and those of the cell.
        """
        parts = self.components
        x = self.expression(rows, genes).toarray()
        said, _ = self._expected(rows, genes, x, self.visible(rows, genes))
        mean = np.broadcast_to(parts.mean[genes], said.shape)
        return self._with_cells(rows, [mean + parts.std[genes] * said, mean])

    def _with_cells(self, rows: np.ndarray, features: list[np.ndarray]) -> np.ndarray:
        return with_cells(features, self.size[rows], self.low[rows], self.high[rows])

    def _quadratic(self, genes: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Left loading times inverse times the model's loading, by pattern, shape (J, K)."""
        right = self.components.loadings[genes]
        return np.stack([((left @ inverse) * right).sum(axis=1) for inverse in self.inverse])

    def _expected(
        self, rows: np.ndarray, genes: np.ndarray, x: np.ndarray, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Standardised expression that the cell's other genes lead to expect, shape (B, K).

        Leaving gene g out of a ridge regression changes its own fitted value from f to
        ``f - h (z - f) / (1 - h)``, h being its leverage; also returned is ``(z - f) / (1 - h)``,
        0 where an entry is not visible.
        """
        parts = self.components
        state = self.state[rows] * parts.scale + self.mean_state
        fitted = state @ parts.loadings[genes].T
        leverage = self._quadratic(genes, parts.loadings[genes])[self.rna.pattern[rows]]
        z = parts.standardise(x, genes)
        error = np.where(seen, (z - fitted) / np.maximum(1.0 - leverage, 0.01), 0.0)
        return fitted - leverage * error, error

    def _neighbours(self, rows: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Mean over visible neighbours, and the section's mean as one more of them, (B, K)."""
        assert self.bags is not None
        return bag_mean(
            self.bags[rows], self.rna, self.hidden, self.size, genes, self.mean, self.n_neighbours
        )


def with_cells(
    features: list[np.ndarray], size: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Stack features (B, K) with those of cells (B,): depth, least and greatest value.

    Returns
    -------
    float32, shape (B, K, F).
    """
    of_cells = [np.log(size), low, high]
    shape = features[0].shape
    stacked = features + [np.broadcast_to(values[:, None], shape) for values in of_cells]
    return np.stack(stacked, axis=-1, dtype=np.float32, casting="same_kind")


def visible_expression(
    rna: AlignedRna, size: np.ndarray, rows: np.ndarray, genes: np.ndarray
) -> sparse.csr_matrix:
    """``log1p`` CP10k of some entries, with given library sizes, CSR float32, shape (B, K)."""
    x = rna.counts[rows][:, genes]
    per_value = np.repeat(TARGET_SUM / size[rows], np.diff(x.indptr))
    x.data = np.log1p(x.data * per_value).astype(np.float32)
    return x


def bag_mean(
    bags: sparse.csr_matrix,
    rna: AlignedRna,
    hidden: sparse.csr_matrix,
    size: np.ndarray,
    genes: np.ndarray,
    mean: np.ndarray,
    n_neighbours: int,
) -> np.ndarray:
    """Mean of visible entries over bags of cells, shape (B, K).

    Entries that are hidden, or were not measured, are left out; a gene's `mean` counts as one
    more neighbour, so that few visible ones are not taken too seriously.

    Parameters
    ----------
    bags
        Weights, rows sum to 1, CSR, shape (B, n).
    rna, hidden, size
        Visible counts (n, V), what is hidden (n, V), library sizes (n,).
    genes
        Chosen ones, shape (K,).
    mean
        Mean of every gene, shape (V,).
    n_neighbours
        Cells in a bag.
    """
    others = np.unique(bags.indices)
    bags = bags[:, others]
    total = (bags @ visible_expression(rna, size, others, genes)).toarray()
    panels = np.arange(len(rna.measured)) == rna.pattern[others][:, None]
    weight = (bags @ panels.astype(np.float32)) @ rna.measured[:, genes].astype(np.float32)
    weight -= (bags @ hidden[others][:, genes].astype(np.float32)).toarray()
    return (total + mean[genes] / n_neighbours) / (weight + 1.0 / n_neighbours)


def survey(
    components: Components,
    rna: AlignedRna,
    hidden: sparse.csr_matrix,
    *,
    context: str = "none",
    positions: np.ndarray | None = None,
    n_neighbours: int = N_NEIGHBOURS,
    phase: str = "reading cells",
) -> Generator[Progress, None, Survey]:
    """Read the visible entries of a section; yields progress, returns what they tell.

    Parameters
    ----------
    components
        The model's.
    rna
        Visible counts; every cell has some.
    hidden
        True where an entry is hidden, CSR, shape (n, V).
    context
        ``"none"``, ``"spatial"`` or ``"nearest"`` (in the state); see `bag.bag_weights`.
    positions
        On the tissue, shape (n, 2).
    n_neighbours
        Neighbours of a cell.
    phase
        What the progress is called.
    """
    n, n_genes = rna.counts.shape
    n_components = components.loadings.shape[1]
    states = np.empty((n, n_components), np.float32)
    size, low, high = np.empty(n), np.empty(n), np.empty(n)
    total = np.zeros(n_genes)
    products = np.zeros((n_genes, n_components))
    for start in range(0, n, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, n))
        part = rna.take(np.arange(rows.start, rows.stop))
        share = part.shares(components.gene_share) - hidden[rows] @ components.gene_share
        x = log1p_cp10k(part.counts, share)
        size[rows] = size_factors(part.counts, share)
        low[rows], high[rows] = extremes(x)
        states[rows] = components.states(x, rna.measured, part.pattern, hidden[rows])
        total += np.asarray(x.sum(axis=0)).ravel()
        products += x.T @ states[rows].astype(np.float64)
        yield Progress(rows.stop, n, phase)
    mean_state = states.mean(axis=0)
    state = (states - mean_state) / components.scale
    n_of_pattern = np.bincount(rna.pattern, minlength=len(rna.measured))
    n_visible = n_of_pattern @ rna.measured - np.asarray(hidden.sum(axis=0)).ravel()
    mean = total / np.maximum(n_visible, 1)
    panels = np.arange(len(rna.measured)) == rna.pattern[:, None]
    state_sum = rna.measured.T.astype(np.float64) @ (panels.T @ state) - hidden.T @ state
    products = (products - np.outer(total, mean_state)) / components.scale
    products -= mean[:, None] * state_sum
    spectrum, axes = np.linalg.eigh(state.T.astype(np.float64) @ state)
    spectrum = np.maximum(spectrum, 0.0)
    # Ridge regression on the state, drawn to the model's loadings. Which cells miss a gene is
    # taken as random: their share shrinks the products, all genes keep the same axes.
    model = components.std[:, None] * components.loadings * components.scale
    share = n_visible / max(n, 1)
    fitted = (products + OWN_WEIGHT * model) @ axes
    fitted = (fitted / (share[:, None] * spectrum + OWN_WEIGHT)) @ axes.T
    grams = [components.loadings[m].T @ components.loadings[m] for m in rna.measured]
    bags = None
    if context != "none":
        bags = bag_weights(positions, state, context, n_neighbours=n_neighbours)
    return Survey(
        components=components,
        rna=rna,
        hidden=hidden,
        size=size,
        low=low,
        high=high,
        state=state,
        mean_state=mean_state,
        n_visible=n_visible,
        mean=mean,
        loadings=fitted.astype(np.float32),
        spectrum=spectrum,
        axes=axes,
        inverse=np.stack([np.linalg.inv(components.system(gram)[0]) for gram in grams]),
        bags=bags,
        n_neighbours=n_neighbours,
    )
