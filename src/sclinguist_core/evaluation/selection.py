"""From which training sets a baseline learns: chosen for it on the training sets alone.

More data is not always better for a simple learner: a set with another gene panel, or of sorted
cells, may harm it. So that no baseline is a straw man, each gets the best of a few candidates.

The rule. Candidates are fixed in advance (:func:`candidates`). The training sets that resemble the
query (at least 10 proteins, at least 2,000 genes of the query's; with fewer than two such sets, all
of at least 10 proteins) play the query in turn, with only those of their genes that the real query
measured too; each candidate is fitted on the other training sets, at most 1,000 cells of each, and
scored by the mean over proteins of the Pearson correlation with the set's CLR. The candidate with
the best mean over these inner queries wins, for each of kNN, ridge and kernel ridge. The test data
have no part in it but for the names of their genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sclinguist_core.data.align import AlignedRna
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation import metrics
from sclinguist_core.evaluation.features import TrainingSets, measured_genes
from sclinguist_core.evaluation.solvers import (
    KERNEL_PENALTY,
    RIDGE_PENALTY,
    KernelFeatures,
    Neighbours,
    availability,
    component_space,
    fit_ridge,
    gram_of,
)

KNN = "kNN"
RIDGE = "ridge"
KERNEL_RIDGE = "kernel ridge"

MANY_SHARED = 2_000
WHOLE_TRANSCRIPTOME = 9_000
SAME_PANEL = 0.8
WIDE_PANEL = 10
INNER_CELLS = 1_000
INNER_GENES = 1_000
INNER_LANDMARKS = 600
MIN_SHARED_FEATURES = 500


@dataclass(frozen=True)
class Candidate:
    """A choice of training sets and genes.

    Attributes
    ----------
    name
        In words.
    sets
        Indices of the training sets.
    shared
        Only the genes that all of them measured.
    """

    name: str
    sets: tuple[int, ...]
    shared: bool = False


def candidates(training: TrainingSets, measured: np.ndarray) -> list[Candidate]:
    """Candidates for a query that measured these genes, bool (V,); the first is all sets.

    All sets; those that measured at least 10 proteins (the CLR of a smaller panel is another
    scale); those that share at least 2,000 genes with the query; both; those that measure a whole
    transcriptome; those with the query's own gene panel (at least 80 % of the genes of either are
    in both); and each once more with only the genes that all of its sets measured, if these are
    500 or more.
    """
    panels = np.array([measured_genes(rna) for rna in training.aligned])
    shared = (panels & measured).sum(axis=1)
    either = (panels | measured).sum(axis=1)
    wide = np.array([data.n_proteins >= WIDE_PANEL for data in training.cells])
    rules = {
        "all sets": np.ones(len(panels), bool),
        "sets of 10 proteins": wide,
        "sets sharing 2,000 genes": shared >= MANY_SHARED,
        "sets of 10 proteins sharing 2,000 genes": wide & (shared >= MANY_SHARED),
        "whole transcriptomes": panels.sum(axis=1) >= WHOLE_TRANSCRIPTOME,
        "sets of the same panel": shared >= SAME_PANEL * either,
    }
    found: list[Candidate] = []
    taken: set[tuple[tuple[int, ...], bool]] = set()
    for name, mask in rules.items():
        sets = tuple(np.flatnonzero(mask).tolist())
        n_genes = (panels[list(sets)].any(axis=0) & measured).sum() if sets else 0
        if n_genes < MIN_SHARED_FEATURES and name != "all sets":
            continue
        in_all = (panels[list(sets)].all(axis=0) & measured).sum()
        for only_shared in (False, True):
            if only_shared and (in_all < MIN_SHARED_FEATURES or len(sets) == 1):
                continue
            if (sets, only_shared) not in taken:
                taken.add((sets, only_shared))
                suffix = ", shared genes" if only_shared else ""
                found.append(Candidate(name + suffix, sets, only_shared))
    return found


def choose(training: TrainingSets, measured: np.ndarray, *, seed: int = 0) -> dict[str, Candidate]:
    """Choose a candidate for kNN, ridge and kernel ridge; see the module for the rule.

    Parameters
    ----------
    training
        Paired data sets.
    measured
        Genes that the query measured, bool (V,).
    seed
        Of the drawn cells and landmarks.
    """
    scores = inner_scores(training, measured, seed=seed)
    options = {option.name: option for option in candidates(training, measured)}
    return {
        method: options[max(options, key=lambda name: scores[method].get(name, -np.inf))]
        for method in (KNN, RIDGE, KERNEL_RIDGE)
    }


def inner_scores(
    training: TrainingSets, measured: np.ndarray, *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Mean inner score of each method and candidate, by name; empty with one training set."""
    collected: dict[str, dict[str, list[float]]] = {KNN: {}, RIDGE: {}, KERNEL_RIDGE: {}}
    names = [option.name for option in candidates(training, measured)]
    if len(training.names) > 1 and len(names) > 1:
        small = training.sampled(INNER_CELLS, seed)
        for held_out in _inner_queries(training, measured):
            for candidate, scores in _score_inner(small, held_out, measured, seed).items():
                for method, score in scores.items():
                    collected[method].setdefault(candidate, []).append(score)
    n_inner = max((len(v) for v in collected[RIDGE].values()), default=0)
    return {
        method: {
            name: float(np.mean(values[name]))
            for name in names
            if len(values.get(name, ())) == n_inner > 0
        }
        for method, values in collected.items()
    }


def _inner_queries(training: TrainingSets, measured: np.ndarray) -> list[int]:
    """Training sets that stand for the query; see the module."""
    wide = [d for d, data in enumerate(training.cells) if data.n_proteins >= WIDE_PANEL]
    like = [
        d for d in wide if (measured_genes(training.aligned[d]) & measured).sum() >= MANY_SHARED
    ]
    return like if len(like) > 1 else (wide or list(range(len(training.names))))


def _score_inner(
    training: TrainingSets, held_out: int, measured: np.ndarray, seed: int
) -> dict[str, dict[str, float]]:
    rest = training.without(held_out)
    query = training.aligned[held_out]
    genes = measured & measured_genes(query)
    truth_table = training.cells[held_out].targets()
    known = set().union(*(set(data.targets().columns) for data in rest.cells))
    proteins = [name for name in truth_table.columns if name in known]
    if not proteins:
        return {}
    truth = truth_table[proteins].to_numpy()
    targets = rest.targets(proteins)
    options = {option.name: option for option in candidates(rest, genes)}
    wanted = [option.name for option in candidates(training, measured)]
    out: dict[str, dict[str, float]] = {}
    done: dict[Candidate | None, dict[str, float]] = {}
    for name in wanted:
        # A rule that fits no set of the inner split falls back on all sets, as it would outside.
        option = options.get(name, options["all sets"])
        if option not in done:
            try:
                done[option] = _score(rest, option, genes, targets, query, truth, seed)
            except InputError:
                return {}  # this set shares too few genes with the others to say anything
        out[name] = done[option]
    return out


def _score(
    training: TrainingSets,
    option: Candidate,
    genes: np.ndarray,
    targets: Sequence[np.ndarray],
    query: AlignedRna,
    truth: np.ndarray,
    seed: int,
) -> dict[str, float]:
    space = training.space(genes, sets=option.sets, shared=option.shared, max_genes=INNER_GENES)
    groups = availability(targets, option.sets)
    asked = list(space.of(query).chunks())
    gram = [gram_of(part.chunks(), y) for part, y in zip(space.parts, targets, strict=True)]
    n_proteins = truth.shape[1]
    axes, pcs = component_space(space.parts, gram, option.sets)
    asked_pcs = axes.components(asked)
    kernel = KernelFeatures.fit(
        np.concatenate([pcs[d] for d in option.sets]),
        np.random.default_rng(seed),
        n_landmarks=INNER_LANDMARKS,
    )
    kernel_gram = [gram_of(kernel(x), y) for x, y in zip(pcs, targets, strict=True)]
    predicted = {
        RIDGE: fit_ridge(gram, RIDGE_PENALTY, groups, n_proteins)(asked),
        KNN: Neighbours(pcs, list(targets), groups)(asked_pcs),
        KERNEL_RIDGE: fit_ridge(kernel_gram, KERNEL_PENALTY, groups, n_proteins)(kernel(asked_pcs)),
    }
    return {
        method: metrics.nan_mean(metrics.pearson(values, truth))
        for method, values in predicted.items()
    }
