"""What to compare in a benchmark, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.degrade import Degradation
from sclinguist_core.evaluation.few_shot import SIZES
from sclinguist_core.evaluation.learners import FOUR, TREES
from sclinguist_core.evaluation.scores import N_RESAMPLES
from sclinguist_core.evaluation.tasks import SPLITS

FULL = Degradation()
MIN_CELLS_GIVEN = 20
"""Fewest cells that can be given to every method: fine-tuning asks for as many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkConfig:
    """What to compare, and how.

    Attributes
    ----------
    split
        ``"dataset"``, ``"donor"``, ``"random"``, ``"few-shot"`` or ``"protein"``; see
        :mod:`sclinguist_core.evaluation.tasks`.
    donor_key
        Column of ``obs`` for the donor split.
    learners
        Trained baselines.
    select_training_sets
        Whether each baseline chooses its training sets.
    log1p
        Whether all but the trees are fitted to ``log1p`` counts too, for the log1p figures.
    embeddings
        Keys of ``obsm`` on which kNN and ridge are run.
    totalvi
        Whether to run totalVI (where it is installed).
    totalvi_epochs
        Passes over the cells; None leaves it to scvi-tools.
    published
        Whether to train the published scLinguist architecture.
    n_genes, depth
        Poorer inputs to try beside the full one: so many random genes, such a share of depth.
    repeats
        Draws of a gene panel and of thinned counts.
    sizes, draws
        Numbers of cells given away in the few-shot split, and draws of each.
    protein_folds
        Parts into which proteins are split for the protein split.
    n_resamples
        Of the bootstrap.
    seed
        Of everything that is random.
    device
        Where networks run.
    """

    split: str = "dataset"
    donor_key: str | None = None
    learners: tuple[str, ...] = (*FOUR, TREES)
    select_training_sets: bool = True
    log1p: bool = False
    embeddings: tuple[str, ...] = ()
    totalvi: bool = True
    totalvi_epochs: int | None = None
    published: bool = False
    n_genes: int | None = None
    depth: float = 1.0
    repeats: int = 3
    sizes: tuple[int, ...] = SIZES
    draws: int = 5
    protein_folds: int = 5
    n_resamples: int = N_RESAMPLES
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise InputError(f"split {self.split!r}: expected one of {', '.join(SPLITS)}")
        for name in ("repeats", "draws", "protein_folds", "n_resamples"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not self.sizes or min(self.sizes) < MIN_CELLS_GIVEN:
            raise InputError(
                f"cells: found {min(self.sizes, default='none')}, expected at least "
                f"{MIN_CELLS_GIVEN} to be given away"
            )
        Degradation(n_genes=self.n_genes, depth=self.depth)  # refuses what makes no sense

    def degradations(self) -> Iterator[Degradation]:
        """Give out the inputs to predict from, the full one first."""
        yield FULL
        seeds = range(self.seed, self.seed + self.repeats)
        # Depth first: the genes stay, so what was fitted for the full input serves again.
        if self.depth < 1:
            yield from (Degradation(depth=self.depth, seed=seed) for seed in seeds)
        if self.n_genes is not None:
            yield from (Degradation(n_genes=self.n_genes, seed=seed) for seed in seeds)
