"""Train the published scLinguist architecture on paired cells, as a recipe says.

A recipe with ``architecture: hyena`` comes here. Trainer, run folder, resuming and several devices
are those of the translator; normalisation and loss are the published ones (`published_cells`).
Nothing is augmented: the published training does not.

Shapes: n cells, G gene positions, P proteins of the training sets, B cells of a chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from sclinguist_core.data.align import align_genes
from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.data.preprocess import log1p_cp10k, protein_clr, standardize
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import Checkpoint, save_checkpoint
from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_checkpoint import hyena_checkpoint
from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.train.chunks import ByConfig, Chunk, drawn_set, dropout_seed, generator
from sclinguist_core.train.corpus import gene_statistics, gene_universe, protein_universe
from sclinguist_core.train.fit import FitConfig, Step
from sclinguist_core.train.hyena_start import read_start
from sclinguist_core.train.objectives import Objective
from sclinguist_core.train.provenance import created_with
from sclinguist_core.train.published_cells import (
    published_error,
    published_targets,
    variable_genes,
)
from sclinguist_core.train.trainer import TrainingResult, run_objective

if TYPE_CHECKING:
    from sclinguist_core.model.translator import Translator
    from sclinguist_core.train.callbacks import Best
    from sclinguist_core.train.recipe import Recipe
    from sclinguist_core.train.run_folder import RunFolder
    from sclinguist_core.train.training_sections import TrainingSections

logger = logging.getLogger(__name__)

MAX_HELD_OUT = 256
"""Cells of a held-out set that are scored: a cell costs 85 GFLOP at full size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCells:
    """Cells of one study over the genes and proteins of a model.

    Attributes
    ----------
    name
        Name of the data set.
    expression
        ``log1p`` CP10k over the model's genes, CSR float32, shape (n, genes); 0 where not measured.
    target
        Min-max abundance, float32, shape (n, P); NaN = not measured.
    clr
        CLR standardised over the study, the same shape: what a held-out set is scored against.
        Several antibodies of one protein are averaged, as in `target`.
    """

    name: str
    expression: sparse.csr_matrix
    target: np.ndarray
    clr: np.ndarray

    @classmethod
    def of(cls, section: Section, genes: Sequence[str], proteins: Sequence[str]) -> PublishedCells:
        """Align a section that has both RNA and antibodies."""
        if not (section.has_rna and section.has_protein):
            missing = "no measured protein" if section.has_rna else "no RNA"
            raise InputError(
                f"{section.name}: expected RNA and measured proteins of the same cells, found "
                f"{missing}"
            )
        counts: pd.DataFrame = section.table.obsm["protein"]
        panel: pd.DataFrame = section.table.uns["protein_panel"]
        isotype, canonical = panel["isotype"].to_numpy(bool), panel["canonical"].to_numpy(str)
        clr = standardize(protein_clr(counts.to_numpy(), isotype))
        used = ~isotype & (canonical != "")
        named = pd.DataFrame(clr[:, used], columns=canonical[used]).T.groupby(level=0).mean().T
        aligned = align_genes(section.rna(), genes, source=section.name)
        return cls(
            name=section.name,
            expression=log1p_cp10k(aligned.counts),
            target=published_targets(counts, panel, proteins),
            clr=named.reindex(columns=list(proteins)).to_numpy(np.float32),
        )

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.target)

    def take(self, rows: np.ndarray) -> PublishedCells:
        """Return the chosen cells."""
        return PublishedCells(
            name=self.name,
            expression=self.expression[rows],
            target=self.target[rows],
            clr=self.clr[rows],
        )

    def dense(self, rows: np.ndarray, n_positions: int) -> Tensor:
        """Expression of some cells, float32, shape (B, G); empty after the last gene."""
        x = np.zeros((len(rows), n_positions), np.float32)
        x[:, : self.expression.shape[1]] = self.expression[rows].toarray()
        return torch.from_numpy(x)


@dataclass(frozen=True)
class HyenaChunks(ByConfig):
    """Chunks of paired cells, drawn without augmentation.

    Attributes
    ----------
    datasets
        Paired sets.
    n_positions
        G.
    config
        Batch size, balance of data sets, seed.
    """

    datasets: Sequence[PublishedCells]
    n_positions: int
    config: FitConfig

    def chunk(self, step: int, number: int) -> Chunk:
        """Draw one chunk."""
        sizes = [cells.n_obs for cells in self.datasets]
        cells = self.datasets[drawn_set(sizes, self.config, step, number)]
        n_rows = min(self.config.batch_size, cells.n_obs)
        rng = generator(self.config.seed, step, number)
        rows = np.sort(rng.choice(cells.n_obs, n_rows, replace=False))
        target = cells.target[rows]
        return Chunk(
            tensors={
                "x": cells.dense(rows, self.n_positions),
                "target": torch.from_numpy(target),
            },
            counts=(float(np.isfinite(target).any(axis=1).sum()),),
            n_rows=n_rows,
            seed=dropout_seed(self.config.seed, step, number),
        )


class HyenaObjective(Objective):
    """Mean squared error of a cell's measured proteins, summed over cells.

    Parameters
    ----------
    model
        The network.
    proteins
        Positions of the proteins of the training sets, int64, shape (P,). Nothing looks ahead, so
        positions after the last of them are not computed.
    """

    terms = ("error",)

    def __init__(self, model: HyenaTranslator, proteins: np.ndarray) -> None:
        # The base class asks of a network no more than that it is a module.
        super().__init__(cast("Translator", model), (1.0,))
        self.proteins = torch.from_numpy(proteins)

    @property
    def network(self) -> HyenaTranslator:
        """The network."""
        return cast(HyenaTranslator, self.model)

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Sum of the error over the chunks' cells, float32, shape (1,)."""
        device = self.network.decoder.out.weight.device
        tables = self.network.tables(self.proteins.to(device))
        total = torch.zeros(1, device=device)
        for chunk in chunks:
            torch.manual_seed(chunk.seed)
            predicted_BP = self.network(chunk.tensors["x"], tables).float()
            mean = published_error(predicted_BP, chunk.tensors["target"])
            total = total + mean * chunk.counts[0]
        return total


class HeldOutMinMax:
    """Mean per-protein Pearson correlation with the CLR measurement, for each held-out set."""

    def __init__(self, datasets: Sequence[PublishedCells], batch_size: int) -> None:
        self.datasets = datasets
        self.batch_size = batch_size

    def __call__(self, objective: Objective) -> dict[str, float]:
        """Score each set with the weights that are in the network now."""
        assert isinstance(objective, HyenaObjective)
        scores = {}
        for cells in self.datasets:
            rows = np.unique(np.linspace(0, cells.n_obs - 1, MAX_HELD_OUT).astype(np.int64))
            chosen = cells.take(rows)
            r = column_correlation(predict_cells(objective, chosen, self.batch_size), chosen.clr)
            scores[cells.name] = float(np.nanmean(r)) if np.isfinite(r).any() else 0.0
        return scores


def predict_cells(objective: HyenaObjective, cells: PublishedCells, batch_size: int) -> np.ndarray:
    """Predict the proteins of an objective with the weights of now, float32, shape (n, P)."""
    model = objective.network
    device = model.decoder.out.weight.device
    predicted = []
    with torch.no_grad():
        tables = model.tables(objective.proteins.to(device))
        for start in range(0, cells.n_obs, batch_size):
            rows = np.arange(start, min(start + batch_size, cells.n_obs))
            x = cells.dense(rows, model.config.n_genes)
            predicted.append(model(x.to(device), tables).float().cpu().numpy())
    return np.concatenate(predicted)


def post_pretrain_hyena(
    recipe: Recipe,
    sections: TrainingSections,
    *,
    run: RunFolder | None = None,
    resume: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> Checkpoint:
    """Learn proteins from paired cells; see `sclinguist_core.train.stages.post_pretrain`.

    From scratch, the most variable genes, as many as the model has positions, and all proteins of
    the training sets take the first positions, sorted by name. Genes and proteins that come with
    earlier stages (``init``) keep their positions.

    Raises
    ------
    InputError
        If there are more proteins than positions, the data cannot be used, or an earlier stage
        does not fit.
    """
    config = recipe.model
    assert isinstance(config, HyenaConfig)
    start = read_start(recipe.init, config)
    measured = protein_universe(sections.paired)
    proteins = measured if start.proteins is None else start.proteins
    if len(proteins) > config.n_proteins:
        raise InputError(
            f"model.n_proteins: the training sets measure {len(proteins)} proteins, found "
            f"{config.n_proteins} positions; raise it to {len(proteins)} or more."
        )
    genes = _own_genes(sections, config) if start.genes is None else start.genes
    positions = np.flatnonzero(proteins["name"].isin(measured["name"]))
    if not len(positions):
        raise InputError(
            f"init: the model knows none of the {len(measured)} measured proteins (such as "
            f"{measured['name'].iloc[0]}), expected at least one; train from scratch."
        )
    symbols, names = genes["symbol"].tolist(), proteins["name"].iloc[positions].tolist()
    datasets = [PublishedCells.of(section, symbols, names) for section in sections.paired]
    held_out = [PublishedCells.of(section, symbols, names) for section in sections.validate]
    torch.manual_seed(recipe.fit.seed)
    model = HyenaTranslator(config)
    start.fill(model)
    logger.info(
        "%d genes, %d proteins, %d parameters",
        len(genes), len(proteins), sum(p.numel() for p in model.parameters()),
    )  # fmt: skip
    trained_on = sections.names_of(*sections.paired)

    def checkpoint(network: HyenaTranslator, note: str) -> Checkpoint:
        origin = "from " + " and ".join(start.names) if start.names else "from scratch"
        return hyena_checkpoint(
            network,
            name=recipe.name,
            genes=genes,
            proteins=proteins,
            card=f"# {recipe.name}\n\nThe published scLinguist architecture, {len(genes):,} genes "
            f"in, {len(proteins):,} proteins out ({len(names):,} of them trained here), trained "
            f"{origin}.\n\n{note}\n",
            training_datasets=trained_on,
            created_with=created_with(),
        )

    def keep_best(best: Best) -> None:
        if run is not None:
            network = HyenaTranslator(config)
            network.load_state_dict(best.weights, strict=True)
            note = f"Best held-out score so far: {best.score:.4f} at step {best.step}."
            save_checkpoint(checkpoint(network, note), run.best_path)

    result: TrainingResult = run_objective(
        HyenaObjective(model, positions),
        HyenaChunks(datasets, config.n_genes, recipe.fit),
        recipe.fit,
        recipe.trainer,
        validation=HeldOutMinMax(held_out, recipe.fit.batch_size) if held_out else None,
        run=run,
        resume=resume,
        progress=progress,
        on_best=keep_best,
    )
    n_cells = sum(cells.n_obs for cells in datasets)
    trained = ", ".join(dict.fromkeys(cells.name.partition("/")[0] for cells in datasets))
    note = f"Trained on {n_cells:,} cells of {trained}, {result.kept_step:,} steps."
    if result.score is not None:
        note += f"\n\nHeld-out score: {result.score:.4f} ({', '.join(result.scores)})."
    return checkpoint(model, note)


def _own_genes(sections: TrainingSections, config: HyenaConfig) -> pd.DataFrame:
    """Choose the genes that vary most in the training sets, with their statistics."""
    table = gene_universe(sections.paired)
    chosen = variable_genes(
        [section.rna() for section in sections.paired], config.n_genes, table["symbol"].tolist()
    )
    genes = table[table["symbol"].isin(chosen)].reset_index(drop=True)
    symbols = genes["symbol"].tolist()
    aligned = [align_genes(s.rna(), symbols, source=s.name) for s in sections.paired]
    return gene_statistics(genes, aligned).table
