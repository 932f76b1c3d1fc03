"""Train the sCT architecture on bags of cells with hidden genes, as a recipe says.

A recipe with ``architecture: sct`` comes here from ``pretrain-rna``. Trainer, run folder, resuming
and several devices are those of the translator. As published, 15 % of a cell's measured genes are
hidden, expressed or not, and their levels are learned by cross-entropy; nothing is augmented. Ours
is that hidden genes take no part in the bounds of the visible ones' levels (they cannot when real
data are imputed), and that a gene that a data set did not measure is a token of its own, not zero.

Shapes: n cells of a data set, B bags, C cells of a bag, V genes, G positions of a cell, N tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from sclinguist_core.data.align import AlignedRna, align_genes
from sclinguist_core.data.gene_statistics import gene_statistics
from sclinguist_core.data.levels import level_mcc
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import Checkpoint, save_checkpoint
from sclinguist_core.model.sct import SctModel, level_probabilities
from sclinguist_core.model.sct_checkpoint import sct_checkpoint
from sclinguist_core.model.sct_config import SctConfig
from sclinguist_core.model.sct_tokens import sct_tokens
from sclinguist_core.train.chunks import ByConfig, Chunk, drawn_set, dropout_seed, generator
from sclinguist_core.train.corpus import gene_universe
from sclinguist_core.train.fit import FitConfig, Step
from sclinguist_core.train.heldout import N_CHUNKS
from sclinguist_core.train.objectives import Objective, level_error_sum
from sclinguist_core.train.provenance import created_with
from sclinguist_core.train.published_cells import variable_genes
from sclinguist_core.train.trainer import TrainingResult, run_objective

if TYPE_CHECKING:
    from sclinguist_core.model.translator import Translator
    from sclinguist_core.train.callbacks import Best
    from sclinguist_core.train.recipe import Recipe
    from sclinguist_core.train.run_folder import RunFolder
    from sclinguist_core.train.training_sections import TrainingSections

logger = logging.getLogger(__name__)

NOT_ASKED = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class SctCells:
    """Cells of one data set, from which bags are drawn.

    Attributes
    ----------
    name
        Name of the data set.
    rna
        Counts over the model's genes.
    tree
        Places of the cells on a section; None for dissociated cells.
    """

    name: str
    rna: AlignedRna
    tree: KDTree | None

    @classmethod
    def of(cls, section: Section, genes: Sequence[str]) -> SctCells:
        """Align a section that has RNA."""
        rna = align_genes(section.rna(), genes, source=section.name)
        tree = KDTree(section.positions) if section.is_spatial else None
        return cls(name=section.name, rna=rna, tree=tree)

    def bag(self, n_cells: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the cells of a bag, int64, shape (C,), in random order.

        On a section they are a random cell and its neighbours, otherwise random cells of the set.
        A set that has too few gives some of them twice.
        """
        n = self.rna.n_obs
        pool = np.arange(n)
        if self.tree is not None:
            _, pool = self.tree.query(
                self.tree.data[rng.integers(n)], k=range(1, min(n, n_cells) + 1)
            )
        return rng.choice(pool, n_cells, replace=len(pool) < n_cells)


@dataclass(frozen=True)
class SctChunks(ByConfig):
    """Bags of cells with hidden genes; a chunk is ``batch_size // n_cells`` bags of one set.

    Attributes
    ----------
    datasets
        Where cells come from.
    gene_share
        Reference expression of the genes, shape (V,).
    model
        Sizes of the network.
    config
        Batch size in cells, balance of data sets, seed.
    hidden_share
        Share of a cell's measured genes that are hidden.
    """

    datasets: Sequence[SctCells]
    gene_share: np.ndarray
    model: SctConfig
    config: FitConfig
    hidden_share: float

    def chunk(self, step: int, number: int) -> Chunk:
        """Draw one chunk."""
        sizes = [cells.rna.n_obs for cells in self.datasets]
        cells = self.datasets[drawn_set(sizes, self.config, step, number)]
        rng = generator(self.config.seed, step, number)
        n_cells = self.model.n_cells
        bags = [cells.bag(n_cells, rng) for _ in range(self.config.batch_size // n_cells)]
        rna = cells.rna.take(np.concatenate(bags))
        hidden = rng.random(rna.counts.shape, np.float32) < self.hidden_share
        hidden &= rna.measured[rna.pattern]
        level = np.full((rna.n_obs, self.model.n_genes), NOT_ASKED, np.int8)
        whole = sct_tokens(rna, self.model, self.gene_share)
        level[:, : hidden.shape[1]][hidden] = whole[:, : hidden.shape[1]][hidden]
        tokens = sct_tokens(rna, self.model, self.gene_share, hidden)
        shape = (len(bags), n_cells, self.model.n_genes)
        return Chunk(
            tensors={
                "tokens": torch.from_numpy(tokens.reshape(shape)),
                "level": torch.from_numpy(level.reshape(shape)),
            },
            counts=(float(hidden.sum()),),
            n_rows=rna.n_obs,
            seed=dropout_seed(self.config.seed, step, number),
        )


class SctObjective(Objective):
    """Cross-entropy of the levels of hidden genes."""

    terms = ("level",)
    uses_all = True

    def __init__(self, model: SctModel) -> None:
        # The base class asks of a network no more than that it is a module.
        super().__init__(cast("Translator", model), (1.0,))

    @property
    def network(self) -> SctModel:
        """The network."""
        return cast(SctModel, self.model)

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Sum of the cross-entropy over the chunks' hidden genes, float32, shape (1,)."""
        total = torch.zeros(1, device=self.network.head.weight.device)
        for chunk in chunks:
            logits_BCGN = self.network(chunk.tensors["tokens"]).float()
            level_BCG = chunk.tensors["level"].long()
            total = total + level_error_sum(logits_BCGN.flatten(1, 2), level_BCG.flatten(1))
        return total


class HeldOutLevels:
    """Matthews correlation of hidden levels, zeros among them, on bags that never change.

    Parameters
    ----------
    sources
        Bags of each held-out set, by its name.
    """

    def __init__(self, sources: dict[str, SctChunks]) -> None:
        self.chunks = {
            name: [source.chunk(0, number) for number in range(source.n_chunks)]
            for name, source in sources.items()
        }

    def __call__(self, objective: Objective) -> dict[str, float]:
        """Score each set with the weights that are in the network now."""
        assert isinstance(objective, SctObjective)
        network = objective.network
        return {name: matthews(*guesses(network, c)) for name, c in self.chunks.items()}


@torch.no_grad()
def guesses(network: SctModel, chunks: Sequence[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    """Levels of hidden genes, and the most probable ones, int64, each of shape (m,)."""
    device = network.head.weight.device
    level, guess = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for chunk in chunks:
        tensors = chunk.to(device).tensors
        asked = tensors["level"] >= 0
        said = level_probabilities(network(tensors["tokens"])[asked]).argmax(dim=-1)
        level.append(tensors["level"][asked].long().cpu().numpy())
        guess.append(said.cpu().numpy())
    return np.concatenate(level), np.concatenate(guess)


def matthews(level: np.ndarray, guess: np.ndarray) -> float:
    """Matthews correlation of levels; 0 where one side never varies: nothing is learnt then."""
    return float(np.nan_to_num(level_mcc(level, guess)[0]))


def pretrain_sct(
    recipe: Recipe,
    sections: TrainingSections,
    *,
    run: RunFolder | None = None,
    resume: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> Checkpoint:
    """Learn to predict hidden genes; see `sclinguist_core.train.stages.pretrain_rna`.

    The genes of the training sets take the first positions, sorted by name; where they are more
    than positions, the most variable ones.

    Raises
    ------
    InputError
        If the data cannot be used, or a chunk is no whole number of bags.
    """
    config = recipe.model
    assert isinstance(config, SctConfig)
    if recipe.fit.batch_size % config.n_cells:
        raise InputError(
            f"fit.batch_size: {recipe.fit.batch_size} cells, expected a multiple of the "
            f"{config.n_cells} cells of a bag (model.n_cells)."
        )
    learned = [*sections.paired, *sections.rna]
    genes = gene_universe(learned)
    if len(genes) > config.n_genes:
        rnas = [section.rna() for section in learned]
        chosen = variable_genes(rnas, config.n_genes, genes["symbol"].tolist())
        genes = genes[genes["symbol"].isin(chosen)].reset_index(drop=True)
    symbols = genes["symbol"].tolist()
    datasets = [SctCells.of(section, symbols) for section in learned]
    statistics = gene_statistics(genes, [cells.rna for cells in datasets])
    torch.manual_seed(recipe.fit.seed)
    model = SctModel(config)
    logger.info(
        "%d genes, bags of %d cells, %d parameters",
        len(genes), config.n_cells, sum(p.numel() for p in model.parameters()),
    )  # fmt: skip

    def chunks(of: Sequence[SctCells], fit: FitConfig) -> SctChunks:
        return SctChunks(of, statistics.share, config, fit, recipe.masking.gene_rate)

    fixed = replace(recipe.fit, sets_per_step=N_CHUNKS)
    held_out = {s.name: chunks([SctCells.of(s, symbols)], fixed) for s in sections.validate}

    def checkpoint(weights: dict[str, Tensor], note: str) -> Checkpoint:
        # A network of its own: the one in training may be compiled, or spread over devices.
        network = SctModel(config).eval()
        network.load_state_dict(weights, strict=True)
        return sct_checkpoint(
            network,
            name=recipe.name,
            genes=statistics.table,
            card=f"# {recipe.name}\n\nThe sCT architecture: levels of hidden genes from a bag of "
            f"{config.n_cells} cells, {len(genes):,} genes, trained from scratch.\n\n{note}\n",
            training_datasets=sections.names,
            created_with=created_with(),
        )

    def keep_best(best: Best) -> None:
        if run is not None:
            note = f"Best held-out score so far: {best.score:.4f} at step {best.step}."
            save_checkpoint(checkpoint(best.weights, note), run.best_path, half=False)

    result: TrainingResult = run_objective(
        SctObjective(model),
        chunks(datasets, recipe.fit),
        recipe.fit,
        recipe.trainer,
        validation=HeldOutLevels(held_out) if held_out else None,
        run=run,
        resume=resume,
        progress=progress,
        on_best=keep_best,
    )
    n_cells = sum(cells.rna.n_obs for cells in datasets)
    note = f"Trained on {n_cells:,} cells of {', '.join(sections.names)}, {result.kept_step:,} "
    note += "steps."
    if result.score is not None:
        note += (
            f"\n\nMatthews correlation of hidden levels, held-out: {result.score:.4f} "
            f"({', '.join(result.scores)})."
        )
    return checkpoint(result.weights, note)
