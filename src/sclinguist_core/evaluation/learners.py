"""Baselines that learn from paired cells: kNN, ridge, kernel ridge, a small network, trees.

They see the same RNA as a model may see (:mod:`sclinguist_core.evaluation.features`) and predict
each protein's CLR, z-scored within its data set. So their unit is the model's: standard deviations.

From which training sets a baseline learns, and on which genes, is chosen for it on the training
sets alone: :mod:`sclinguist_core.evaluation.selection`.

Shapes: n cells, V genes, P proteins, D data sets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.features import (
    MIN_SHARED_GENES,
    FeatureSpace,
    PairedCells,
    TrainingSets,
    measured_genes,
)
from sclinguist_core.evaluation.metrics import FloatArray
from sclinguist_core.evaluation.nonlinear import BoostedTrees, fit_mlp
from sclinguist_core.evaluation.selection import (
    KERNEL_RIDGE,
    KNN,
    RIDGE,
    Candidate,
    candidates,
    choose,
)
from sclinguist_core.evaluation.solvers import (
    KERNEL_PENALTY,
    RIDGE_PENALTY,
    Axes,
    Gram,
    Groups,
    KernelFeatures,
    Neighbours,
    availability,
    component_space,
    fit_ridge,
    gram_of,
)

MLP = "MLP"
TREES = "gradient boosting"
MEAN_OF_FOUR = "mean of four"
MAX_BLOCKS = 8
MIN_BLOCK = 100
"""Most patterns of measured genes with a fit of their own, and fewest cells of one."""
FOUR = (KNN, RIDGE, KERNEL_RIDGE, MLP)
LEARNERS = (*FOUR, MEAN_OF_FOUR)
"""What :func:`learn_and_predict` returns unless asked for more."""

DESCRIPTIONS = {
    KNN: "mean of the 60 nearest training cells by angle on 64 principal components",
    RIDGE: "linear regression with an L2 penalty on up to 4,000 genes",
    KERNEL_RIDGE: "the same in a Gaussian kernel on 64 principal components",
    MLP: "two hidden layers of 256, dropout, 8 epochs",
    TREES: "50 boosted trees a protein on 64 principal components",
    MEAN_OF_FOUR: "the mean of kNN, ridge, kernel ridge and MLP",
}
"""What each trained baseline is, in words for a table."""

# The network and the trees would take too long to choose for; they learn where kernel ridge does.
_CHOSEN_LIKE = {
    KNN: KNN,
    RIDGE: RIDGE,
    KERNEL_RIDGE: KERNEL_RIDGE,
    MLP: KERNEL_RIDGE,
    TREES: KERNEL_RIDGE,
}


class Predictions(NamedTuple):
    """Predictions by name of the method, each (n, P).

    Attributes
    ----------
    clr
        What is scored.
    log1p
        For the column of log1p figures: from methods that were fitted to that scale.
    """

    clr: dict[str, FloatArray]
    log1p: dict[str, FloatArray]


@dataclass
class _Prepared:
    """What several learners share: features, sums and components for one candidate."""

    space: FeatureSpace
    targets: list[np.ndarray]  # CLR, or CLR and log1p side by side
    sets: tuple[int, ...]
    n_proteins: int

    @functools.cached_property
    def gram(self) -> list[Gram]:
        return [
            gram_of(part.chunks(), y)
            for part, y in zip(self.space.parts, self.targets, strict=True)
        ]

    @functools.cached_property
    def groups(self) -> Groups:
        return availability(self.targets, self.sets)

    @functools.cached_property
    def components(self) -> tuple[Axes, list[np.ndarray]]:
        return component_space(self.space.parts, self.gram, self.sets)


@dataclass(frozen=True)
class FittedLearners:
    """Learners that were fitted for a query's genes; see :func:`fit_learners`.

    Attributes
    ----------
    choices
        From what each learner learnt.
    """

    choices: dict[str, Candidate]
    _predictors: dict[str, tuple[FeatureSpace, Callable[..., FloatArray]]]
    _axes: dict[Candidate, Axes]
    _n_proteins: int

    def components(self, query: AlignedRna) -> FloatArray:
        """Principal components of cells, as kNN (or the first method) sees them: (n, 64)."""
        choice = self.choices.get(KNN, next(iter(self.choices.values())))
        name = next(name for name, chosen in self.choices.items() if chosen == choice)
        chunks = self._predictors[name][0].of(query).chunks()
        return self._axes[choice].components(chunks).astype(np.float64)

    def predict(self, query: AlignedRna) -> Predictions:
        """Predict cells, aligned by :meth:`TrainingSets.align`: (n, P) each, in SD."""
        standardised = {}
        out = {}
        for name, (space, predictor) in self._predictors.items():
            if id(space) not in standardised:
                standardised[id(space)] = space.of(query)
            out[name] = predictor(standardised[id(space)])
        if all(name in out for name in FOUR):
            out[MEAN_OF_FOUR] = np.mean([out[name] for name in FOUR], axis=0)
        p = self._n_proteins
        return Predictions(
            clr={name: values[:, :p] for name, values in out.items()},
            log1p={name: values[:, p:] for name, values in out.items() if values.shape[1] > p},
        )


def fit_learners(
    training: TrainingSets,
    measured: np.ndarray,
    proteins: Sequence[str],
    *,
    methods: Sequence[str] = FOUR,
    choices: Mapping[str, Candidate] | None = None,
    log1p: bool = False,
    seed: int = 0,
) -> FittedLearners:
    """Fit learners for a query that measured certain genes.

    Parameters
    ----------
    training
        Paired data sets.
    measured
        Which of the training sets' genes the query measured, bool (V,).
    proteins
        Canonical names of the P proteins wanted.
    methods
        Which learners.
    choices
        From what each learns, as :func:`sclinguist_core.evaluation.selection.choose` returns it;
        all sets by default.
    log1p
        Whether to fit all but the trees to ``log1p`` counts too.
    seed
        Of landmarks, network and trees.

    Raises
    ------
    InputError
        If no training set measured any of the proteins, or too few genes are shared.
    """
    targets = training.targets(proteins)
    if not any(np.isfinite(y).any() for y in targets):
        raise InputError(
            f"train: none of {', '.join(training.names)} measured any of the {len(proteins)} "
            "proteins to predict, expected at least one in common; give another --train file"
        )
    n_proteins = len(proteins)
    if log1p:
        logged = training.targets(proteins, "log1p")
        targets = [np.concatenate(pair, axis=1) for pair in zip(targets, logged, strict=True)]
    everything = candidates(training, measured)[0]
    choices = {name: (choices or {}).get(_CHOSEN_LIKE[name], everything) for name in methods}
    prepared: dict[Candidate, _Prepared] = {}
    spaces: dict[Candidate, FeatureSpace] = {}
    predictors: dict[str, tuple[FeatureSpace, Callable[..., FloatArray]]] = {}
    for name in methods:
        choice = choices[name]
        if choice not in prepared:
            space = _space(training, measured, choice)
            prepared[choice] = _Prepared(space, targets, choice.sets, n_proteins)
        # Training cells and Gram matrices (gigabytes) are not kept, only how to see a query.
        slim = replace(prepared[choice].space, parts=[])
        predictors[name] = (spaces.setdefault(choice, slim), _fit(name, prepared[choice], seed))
    axes = {choice: data.components[0] for choice, data in prepared.items()}
    return FittedLearners(choices, predictors, axes, n_proteins)


def _space(training: TrainingSets, measured: np.ndarray, choice: Candidate) -> FeatureSpace:
    """Features of a choice; of more genes or sets where a small panel leaves it too few."""
    if choice.shared:
        space = training.space(measured, sets=choice.sets, shared=True)
        if len(space.columns) >= MIN_SHARED_GENES:
            return space
    try:
        return training.space(measured, sets=choice.sets)
    except InputError:
        return training.space(measured)


def _fit(name: str, data: _Prepared, seed: int) -> Callable[..., FloatArray]:
    n_proteins = data.targets[0].shape[1]
    if name == RIDGE:
        linear = fit_ridge(data.gram, RIDGE_PENALTY, data.groups, n_proteins)
        return lambda query: linear(query.chunks())
    if name == MLP:
        used = sorted({d for sets, _ in data.groups for d in sets})
        parts = [data.space.parts[d] for d in used]
        # Two networks: what CLR is learnt must not depend on whether log1p is wanted too.
        networks = [
            fit_mlp(
                parts, [data.targets[d][:, start : start + data.n_proteins] for d in used], seed
            )
            for start in range(0, n_proteins, data.n_proteins)
        ]
        unknown = np.ones(n_proteins, bool)
        for _, columns in data.groups:
            unknown[columns] = False
        return lambda query: np.where(
            unknown, np.nan, np.concatenate([network(query) for network in networks], axis=1)
        )
    axes, pcs = data.components
    if name == KNN:
        neighbours = Neighbours(pcs, data.targets, data.groups)
        return lambda query: neighbours(axes.components(query.chunks()))
    if name == TREES:
        p = data.n_proteins
        groups = [(sets, columns[columns < p]) for sets, columns in data.groups]
        trees = BoostedTrees(pcs, [y[:, :p] for y in data.targets], groups, seed)
        return lambda query: trees(axes.components(query.chunks()))
    kernel = KernelFeatures.fit(
        np.concatenate([pcs[d] for d in data.sets]), np.random.default_rng(seed)
    )
    gram = [gram_of(kernel(x), y) for x, y in zip(pcs, data.targets, strict=True)]
    ridge = fit_ridge(gram, KERNEL_PENALTY, data.groups, n_proteins)
    return lambda query: ridge(kernel(axes.components(query.chunks())))


def predict_in_blocks(
    fit: Callable[[np.ndarray], FittedLearners], aligned: AlignedRna
) -> Predictions:
    """Predict cells with learners that were fitted for what they measured.

    Parameters
    ----------
    fit
        Gives the learners for certain genes, bool (V,).
    aligned
        The query.
    """
    out = Predictions({}, {})
    for measured, rows in gene_blocks(aligned):
        for whole, part in zip(out, fit(measured).predict(aligned.take(rows)), strict=True):
            for name, values in part.items():
                empty = np.full((aligned.n_obs, values.shape[1]), np.nan)
                whole.setdefault(name, empty)[rows] = values
    return out


def gene_blocks(aligned: AlignedRna) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cells that measured (about) the same genes: which genes, bool (V,), and rows, int64.

    A linear learner that was fitted on all genes gives timid answers for cells of which half were
    measured, so each pattern of measured genes gets a fit of its own. A pattern with few cells
    goes to the one with which it shares most genes; where every pattern has few genes, all cells
    are taken together.
    """
    counts = np.bincount(aligned.pattern, minlength=len(aligned.measured))
    usual = np.argsort(-counts, kind="stable")[:MAX_BLOCKS]
    enough = aligned.measured[usual].sum(axis=1) >= MIN_SHARED_GENES
    usual = usual[enough & (counts[usual] >= min(MIN_BLOCK, counts.max()))]
    if len(usual) == 0:
        return [(measured_genes(aligned), np.arange(aligned.n_obs))]
    overlap = aligned.measured.astype(np.float32) @ aligned.measured[usual].T.astype(np.float32)
    home = np.argmax(overlap, axis=1)
    home[usual] = np.arange(len(usual))
    block = home[aligned.pattern]
    return [
        (aligned.measured[pattern], np.flatnonzero(block == b)) for b, pattern in enumerate(usual)
    ]


def learn_and_predict(
    train: Sequence[PairedCells],
    query: RnaCounts,
    proteins: Sequence[str],
    *,
    methods: Sequence[str] = FOUR,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Choose training sets, fit the trained baselines, and predict a query.

    Parameters
    ----------
    train
        Paired data sets. They may differ in genes and proteins.
    query
        Raw RNA counts to predict from, n cells.
    proteins
        Canonical names of the P proteins wanted.
    methods
        Which learners; the four by default.
    seed
        Of what is random in them.

    Returns
    -------
    dict
        For each of `methods` (and their mean, if the four are among them) an (n, P) float64 array
        in standard deviations; NaN columns for proteins that no training set measured.

    Raises
    ------
    InputError
        If the training sets and the query share fewer than 200 genes, or none measured one of the
        proteins.
    """
    training = TrainingSets.prepare(train)
    asked = training.align(query)
    measured = measured_genes(asked)
    choices = choose(training, measured, seed=seed)

    def fit(genes: np.ndarray) -> FittedLearners:
        return fit_learners(training, genes, proteins, methods=methods, choices=choices, seed=seed)

    return predict_in_blocks(fit, asked).clr
