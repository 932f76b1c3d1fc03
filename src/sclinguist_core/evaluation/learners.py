"""Baselines that learn from paired cells: kNN, ridge, kernel ridge, a small network.

They see the same RNA as a model may see - ``log1p`` CP10k over the genes that all data sets
share, at most the 4,000 most variable ones, standardised by the training mean and standard
deviation, clipped at ±5, a gene not measured in a cell being 0 after that - and predict the CLR
of each protein, z-scored within its data set. So their unit is the model's: standard deviations.

Proteins are grouped by *availability*: the data sets that measured them. Each group is solved on
the cells of those data sets only; nothing is imputed. Sums over cells (Gram matrices) are kept per
data set, so a group costs one linear solve and no further pass over the data.

Memory: RNA stays sparse; 2,048 rows at a time are dense. Time: 11,000 training cells and 3,000
query spots take under a minute on two cores.

Shapes: n cells, G genes (≤ 4,000), F features, P proteins, D data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.preprocess import log1p_cp10k, protein_clr
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.metrics import FloatArray, standardise
from sclinguist_core.evaluation.solvers import (
    RIDGE_PENALTY,
    Groups,
    Rna,
    gram_of,
    kernel_ridge,
    knn,
    mlp,
    principal_axes,
    ridge,
)
from sclinguist_core.vocabulary.genes import resolve_genes

KNN = "kNN"
RIDGE = "ridge"
KERNEL_RIDGE = "kernel ridge"
MLP = "MLP"
MEAN_OF_FOUR = "mean of four"
LEARNERS = (KNN, RIDGE, KERNEL_RIDGE, MLP, MEAN_OF_FOUR)

DESCRIPTIONS = {
    KNN: "mean of the 30 nearest training cells on 64 principal components",
    RIDGE: "linear regression with an L2 penalty on all shared genes",
    KERNEL_RIDGE: "the same in a Gaussian kernel on 64 principal components",
    MLP: "two hidden layers of 256, dropout, 8 epochs",
    MEAN_OF_FOUR: "the mean of the four predictions above",
}
"""What each trained baseline is, in words for a table."""

MIN_SHARED_GENES = 200
MAX_GENES = 4_000


@dataclass(frozen=True)
class PairedCells:
    """Cells with RNA and measured protein, to learn from.

    Attributes
    ----------
    name
        Name of the data set.
    rna
        Raw counts, (n, G).
    protein
        Raw antibody counts, (n, P) DataFrame; NaN = not measured.
    panel
        What each antibody is: :func:`sclinguist_core.vocabulary.proteins.resolve_panel`.
    """

    name: str
    rna: RnaCounts
    protein: pd.DataFrame
    panel: pd.DataFrame

    def targets(self) -> pd.DataFrame:
        """CLR z-scored over this data set, columns canonical; several antibodies are averaged."""
        isotype = self.panel["isotype"].to_numpy(bool)
        z = standardise(protein_clr(self.protein, isotype).to_numpy())
        table = pd.DataFrame(z, columns=self.panel["canonical"].to_numpy(str))
        table = table.loc[:, ~isotype & (table.columns != "")]
        return table.T.groupby(level=0).mean().T


def learn_and_predict(
    train: Sequence[PairedCells],
    query: RnaCounts,
    proteins: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Fit the four trained baselines and predict a query.

    Parameters
    ----------
    train
        Paired data sets. They may differ in genes and proteins.
    query
        Raw RNA counts to predict from, n cells.
    proteins
        Canonical names of the P proteins wanted.
    seed
        Seed of the landmarks and of the network.

    Returns
    -------
    dict
        For each of :data:`LEARNERS` an (n, P) float64 array in standard deviations; NaN columns
        for proteins that no training set measured.

    Raises
    ------
    InputError
        If the data sets share fewer than 200 genes, or none measured one of the proteins.
    """
    targets = [_targets(data, proteins) for data in train]
    groups = _availability(targets, proteins)
    if not groups:
        raise InputError(
            f"train: none of {', '.join(data.name for data in train)} measured any of the "
            f"{len(proteins)} proteins to predict, expected at least one in common; give another "
            "--train file"
        )
    genes = _shared_genes([*(data.rna for data in train), query])
    inputs = _Inputs.fit([align_genes(data.rna, genes, strict=False) for data in train])
    asked = inputs.of(align_genes(query, genes, strict=False))
    gram = [gram_of(part.chunks(), y) for part, y in zip(inputs.parts, targets, strict=True)]
    loadings, centre = principal_axes(gram)

    def to_components(part: Rna) -> np.ndarray:
        return np.concatenate([(z - centre) @ loadings for z in part.chunks()])

    pcs = [to_components(part) for part in inputs.parts]
    query_pcs = to_components(asked)
    rng = np.random.default_rng(seed)
    out = {
        KNN: knn(pcs, targets, query_pcs, groups),
        RIDGE: ridge(gram, RIDGE_PENALTY, asked.chunks, asked.n, groups, len(proteins)),
        KERNEL_RIDGE: kernel_ridge(pcs, targets, query_pcs, groups, rng),
        MLP: mlp(inputs.parts, targets, asked, seed),
    }
    known = np.zeros(len(proteins), bool)
    for _, columns in groups:
        known[columns] = True
    out[MLP][:, ~known] = np.nan
    out[MEAN_OF_FOUR] = np.mean([out[KNN], out[RIDGE], out[KERNEL_RIDGE], out[MLP]], axis=0)
    return out


def _targets(data: PairedCells, proteins: Sequence[str]) -> np.ndarray:
    return data.targets().reindex(columns=list(proteins)).to_numpy(np.float32)


def _availability(targets: Sequence[np.ndarray], proteins: Sequence[str]) -> Groups:
    """Group protein columns by the data sets that have them; those of no data set are left out."""
    has = np.array([np.isfinite(y).any(axis=0) for y in targets]).reshape(-1, len(proteins))
    groups: dict[tuple[bool, ...], list[int]] = {}
    for p in range(len(proteins)):
        if has[:, p].any():
            groups.setdefault(tuple(has[:, p].tolist()), []).append(p)
    return [([d for d, yes in enumerate(k) if yes], np.array(v)) for k, v in groups.items()]


def _shared_genes(rnas: Sequence[RnaCounts]) -> list[str]:
    shared: set[str] | None = None
    for rna in rnas:
        found = resolve_genes(list(rna.names), ids=None if rna.ids is None else list(rna.ids))
        symbols = set(found.symbols) - {""}
        shared = symbols if shared is None else shared & symbols
    genes = sorted(shared or ())
    if len(genes) < MIN_SHARED_GENES:
        raise InputError(
            f"train: the training files and the prediction share {len(genes)} genes, expected at "
            f"least {MIN_SHARED_GENES}; leave out the file with the smallest gene panel"
        )
    return genes


@dataclass(frozen=True)
class _Inputs:
    """The RNA side of the training data: genes chosen, mean and standard deviation."""

    parts: list[Rna]
    columns: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def fit(cls, train: Sequence[AlignedRna]) -> _Inputs:
        """Choose genes and standardise, both by the pooled training cells that measured them."""
        expressions = [log1p_cp10k(rna.counts) for rna in train]
        total = squares = count = np.zeros(train[0].counts.shape[1])
        for rna, x in zip(train, expressions, strict=True):
            total = total + np.asarray(x.sum(axis=0), np.float64).ravel()
            squares = squares + np.asarray(x.multiply(x).sum(axis=0), np.float64).ravel()
            cells = np.bincount(rna.pattern, minlength=len(rna.measured))
            count = count + cells @ rna.measured
        mean = total / np.maximum(count, 1)
        variance = np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0)
        columns = np.sort(np.argsort(-variance, kind="stable")[:MAX_GENES])
        columns = columns[variance[columns] > 0]
        mean = mean[columns].astype(np.float32)
        sd = np.sqrt(variance[columns]).astype(np.float32)
        empty = cls(parts=[], columns=columns, mean=mean, sd=sd)
        parts = [empty._part(r, x) for r, x in zip(train, expressions, strict=True)]
        return cls(parts=parts, columns=columns, mean=mean, sd=sd)

    def of(self, rna: AlignedRna) -> Rna:
        """Standardise another data set in the same way."""
        return self._part(rna, log1p_cp10k(rna.counts))

    def _part(self, rna: AlignedRna, expression: sparse.csr_matrix) -> Rna:
        # Size factors came from all shared genes; only now is the table narrowed.
        return Rna(
            expression=sparse.csr_matrix(expression[:, self.columns]),
            measured=rna.measured[:, self.columns],
            pattern=rna.pattern,
            mean=self.mean,
            sd=self.sd,
        )
