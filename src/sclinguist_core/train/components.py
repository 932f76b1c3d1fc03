"""What a translator knows before the first step: components of expression, solved in closed form.

Components are principal axes of standardised expression, refined by alternating least squares so
that a gene which few data sets measured is described by those alone, and never by zeros. On the
state that they define, a ridge regression for each protein uses the data sets that measured it.

Shapes: n cells, V genes, G genes of the panel, R components, P proteins, A antibodies.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.model.state import RIDGE
from sclinguist_core.model.translator import Translator
from sclinguist_core.train.corpus import PairedDataset
from sclinguist_core.train.stream import StreamedRna

logger = logging.getLogger(__name__)

N_PANEL = 2_500
"""Genes that the principal axes are computed on; loadings of all others are regressed on them."""
MAX_CELLS = 1_500
"""Cells of one data set (with the same measured genes) that components are computed from."""
REFINEMENTS = 2
LOADING_RIDGE = 0.1
"""Ridge of a gene's loadings, in mean variances of the state."""
PROTEIN_RIDGE = 0.3
"""Ridge of a protein's regression, in mean variances of the state."""
SCALE_FLOOR = 0.1
"""Least spread that a component is divided by, in mean spreads."""
COGNATE_GAIN, IMPUTED_GAIN = 0.1, 0.15
"""Weights of a protein's own mRNA, measured and imputed, where many data sets measured the
protein. They are larger by 2/n where n did: with less evidence, own mRNA is the better guess."""
_CHUNK = 1_024


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells that measured the same genes, standardised.

    `z` holds standardised expression less that of an unexpressed gene, CSR (n, V): a gene that is
    not expressed needs no entry.
    """

    z: sparse.csr_matrix
    measured: np.ndarray

    @property
    def weight(self) -> float:
        """Weight of one of these cells: a set counts as the square root of its size."""
        return float(self.z.shape[0] ** -0.5)


def fit_components(
    model: Translator,
    rna: Sequence[AlignedRna | StreamedRna],
    gene_share: np.ndarray,
    paired: Sequence[PairedDataset] = (),
) -> None:
    """Fill a translator's state, its regression and its own-mRNA weights, in place.

    Without effect on a translator that has no state (``n_components`` 0).

    Parameters
    ----------
    model
        The network, on the CPU.
    rna
        RNA to learn components from, aligned to the model's genes.
    gene_share
        Reference expression of the genes, shape (V,).
    paired
        Paired sets to learn the regression from.
    """
    if model.state is None:
        return
    scaling = _Scaling(model, gene_share)
    cells = [part for each in rna for part in scaling.split(each, MAX_CELLS)]
    loadings = _loadings(cells, scaling.zero, _panel(model, cells), model.config.n_components)
    states = np.concatenate([_states(c, scaling.zero, loadings) for c in cells])
    spread = states.std(axis=0)
    state = model.state
    _fill(state.loadings, loadings)
    _fill(state.center, states.mean(axis=0))
    _fill(state.scale, spread + SCALE_FLOOR * max(float(spread.mean()), 1e-6))
    if paired:
        _fit_proteins(model, paired, scaling, loadings)


class _Scaling:
    """Standardises expression as the translator does."""

    def __init__(self, model: Translator, gene_share: np.ndarray) -> None:
        self.share = gene_share
        self.normalization = model.config.rna_normalization
        self.clip = model.config.clip
        self.mean = model.gene_mean.numpy()
        self.std = model.gene_std.numpy()
        self.zero = np.clip(-self.mean / self.std, -self.clip, self.clip)

    def split(
        self, rna: AlignedRna | StreamedRna, max_cells: int | None = None
    ) -> Iterator[_Cells]:
        """Give out the cells of each measurement pattern, at most `max_cells` of each."""
        rng = np.random.default_rng(0)
        for pattern in np.unique(rna.pattern):
            rows = np.flatnonzero(rna.pattern == pattern)
            if max_cells is not None and len(rows) > max_cells:
                rows = np.sort(rng.choice(rows, max_cells, replace=False))
            yield self.cells(rna, rows)

    def cells(self, rna: AlignedRna | StreamedRna, rows: np.ndarray) -> _Cells:
        """Standardise cells of one measurement pattern."""
        x = rna.take(rows).expression(self.share, self.normalization)
        genes = x.indices
        z = np.clip((x.data - self.mean[genes]) / self.std[genes], -self.clip, self.clip)
        x.data = (z - self.zero[genes]).astype(np.float32)
        return _Cells(x, rna.measured[rna.pattern[rows[0]]])


def _panel(model: Translator, cells: Sequence[_Cells]) -> np.ndarray:
    """Genes that vary and are measured in many sets, and those that code for proteins."""
    n_measured = np.sum([c.measured for c in cells], axis=0)
    score = model.gene_std.numpy() * np.sqrt(n_measured)
    top = np.argsort(-score, kind="stable")[:N_PANEL]
    return np.union1d(top[score[top] > 0], model.coding_genes.numpy())


def _loadings(
    cells: Sequence[_Cells], zero: np.ndarray, panel: np.ndarray, n_components: int
) -> np.ndarray:
    """Compute the loadings of all genes, shape (V, R)."""
    from scipy.sparse.linalg import eigsh

    parts = [_Cells(sparse.csr_matrix(c.z[:, panel]), c.measured[panel]) for c in cells]
    covariance = np.zeros((len(panel), len(panel)), np.float32)
    for c in parts:
        for z in _dense(c, zero[panel]):
            covariance += c.weight * (z.T @ z)
    n_components = min(n_components, len(panel) - 2)
    start = np.random.default_rng(0).standard_normal(len(panel)).astype(np.float32)
    axes = eigsh(covariance, n_components, v0=start)[1][:, ::-1].astype(np.float32)
    for _ in range(REFINEMENTS):
        states = [_states(c, zero[panel], axes) for c in parts]
        axes = np.linalg.qr(_regress(parts, states, zero[panel]))[0]
    return _regress(cells, [_states(c, zero[panel], axes) for c in parts], zero)


def _dense(cells: _Cells, zero: np.ndarray) -> Iterator[np.ndarray]:
    """Standardised expression in chunks of rows, 0 where not measured."""
    offset = zero * cells.measured
    for start in range(0, cells.z.shape[0], _CHUNK):
        yield cells.z[start : start + _CHUNK].toarray() + offset


def _states(cells: _Cells, zero: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    """Least-squares position of each cell over its measured genes, shape (n, R)."""
    used = loadings[cells.measured]
    gram = used.T @ used + RIDGE * np.eye(used.shape[1], dtype=np.float32)
    read = cells.z @ loadings + (zero * cells.measured) @ loadings
    return np.linalg.solve(gram, read.T).T.astype(np.float32)


def _regress(cells: Sequence[_Cells], states: Sequence[np.ndarray], zero: np.ndarray) -> np.ndarray:
    """Fit the loadings of each gene to the cells that measured it, shape (V, R)."""
    n_components = states[0].shape[1]
    squares = [c.weight * (s.T @ s) for c, s in zip(cells, states, strict=True)]
    products = [
        c.weight * ((c.z.T @ s).T + np.outer(s.sum(axis=0), zero * c.measured))
        for c, s in zip(cells, states, strict=True)
    ]
    ridge = LOADING_RIDGE * np.mean([np.trace(square) / n_components for square in squares])
    loadings = np.zeros((len(zero), n_components), np.float32)
    # Genes that the same sets measured share one solve.
    patterns, member = np.unique(
        np.array([c.measured for c in cells]).T, axis=0, return_inverse=True
    )
    for number, pattern in enumerate(patterns):
        sets = np.flatnonzero(pattern)
        if len(sets) == 0:
            continue
        genes = np.flatnonzero(member.ravel() == number)
        square = sum(squares[i] for i in sets) + ridge * np.eye(n_components)
        product = sum(products[i][:, genes] for i in sets)
        loadings[genes] = np.linalg.solve(square, product).T
    return loadings


def _fit_proteins(
    model: Translator, paired: Sequence[PairedDataset], scaling: _Scaling, loadings: np.ndarray
) -> None:
    """Ridge regression of each protein on the state, over the sets that measured it."""
    assert model.state is not None
    n_proteins = model.n_proteins
    states = []
    for data in paired:
        state = np.empty((data.n_obs, loadings.shape[1]), np.float32)
        for pattern in np.unique(data.rna.pattern):
            rows = np.flatnonzero(data.rna.pattern == pattern)
            state[rows] = _states(scaling.cells(data.rna, rows), scaling.zero, loadings)
        states.append(state)
    has = np.zeros((n_proteins, len(paired)), bool)
    for d, data in enumerate(paired):
        has[data.protein, d] = True
    heads = {"CLR": model.state_heads}
    if model.config.log_output:
        heads["log1p"] = model.log_heads
    for scale, head in heads.items():
        targets = [data.targets(data.antibodies, log1p=scale == "log1p") for data in paired]
        weight, bias = _regression(states, targets, paired, has)
        _fill(head.weight, weight * model.state.scale.numpy())
        _fill(head.bias, bias + weight @ model.state.center.numpy())
    evidence = 1.0 + 2.0 / np.maximum(has.sum(axis=1), 1)
    _fill(model.cognate_gain, COGNATE_GAIN * evidence)
    _fill(model.imputed_gain, IMPUTED_GAIN * evidence)
    logger.info("%d components, regression of %d proteins", loadings.shape[1], has.any(1).sum())


def _regression(
    states: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    paired: Sequence[PairedDataset],
    has: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (P, R) and offset (P,) of each protein, over the sets that measured it.

    Parameters
    ----------
    states, targets
        State (n, R) and standardised abundance (n, A) of each set's cells.
    paired
        The sets.
    has
        Which protein each set measured, bool, shape (P, sets).
    """
    weight = np.zeros((len(has), states[0].shape[1]))
    bias = np.zeros(len(has))
    abundance = [
        _of_proteins(target, data.protein, len(has))
        for target, data in zip(targets, paired, strict=True)
    ]
    # Proteins that the same cells measured share one solve.
    cells: dict[bytes, list[int]] = {}
    for protein in np.flatnonzero(has.any(axis=1)).tolist():
        measured = [np.isfinite(values[:, protein]) for values in abundance]
        cells.setdefault(np.packbits(np.concatenate(measured)).tobytes(), []).append(protein)
    for proteins in cells.values():
        known = [np.flatnonzero(np.isfinite(values[:, proteins[0]])) for values in abundance]
        used = [d for d, rows in enumerate(known) if len(rows)]
        w = [len(known[d]) ** -0.5 for d in used]
        n = sum(a * len(known[d]) for a, d in zip(w, used, strict=True))
        mean = sum(a * states[d][known[d]].sum(axis=0) for a, d in zip(w, used, strict=True)) / n
        square = np.zeros((len(mean), len(mean)))
        product = np.zeros((len(mean), len(proteins)))
        for a, d in zip(w, used, strict=True):
            centred = states[d][known[d]] - mean
            square += a * (centred.T @ centred)
            product += a * (centred.T @ abundance[d][known[d]][:, proteins])
        ridge = PROTEIN_RIDGE * np.trace(square) / len(square)
        solution = np.linalg.solve(square + ridge * np.eye(len(square)), product)
        weight[proteins] = solution.T
        bias[proteins] = -mean @ solution
    return weight, bias


def _of_proteins(target: np.ndarray, protein: np.ndarray, n_proteins: int) -> np.ndarray:
    """Mean over the measured antibodies of each protein, shape (n, P); NaN = not measured."""
    known = np.isfinite(target)
    member = (protein[:, None] == np.arange(n_proteins)).astype(np.float32)
    count = known @ member
    total = np.where(known, target, 0.0) @ member
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


@torch.no_grad()
def _fill(tensor: torch.Tensor, values: np.ndarray) -> None:
    tensor.copy_(torch.from_numpy(np.asarray(values, np.float32)))
