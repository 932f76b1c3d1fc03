"""Scores on data sets that are not trained on.

Shapes: n cells, A antibodies, P proteins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sclinguist_core.data.correlation import column_correlation
from sclinguist_core.model.batched import translations
from sclinguist_core.model.translator import Translator
from sclinguist_core.train.chunks import Chunk, ChunkSource
from sclinguist_core.train.corpus import PairedDataset
from sclinguist_core.train.objectives import Objective

MAX_CELLS = 1_000
"""Cells of a held-out set that are scored."""
N_CHUNKS = 4
"""Chunks of each held-out set that a pretraining objective is scored on."""
_TOKENS = 65_536


class HeldOutCorrelation:
    """Mean per-protein Pearson correlation with the CLR measurement.

    Parameters
    ----------
    datasets
        Held-out paired sets, aligned to the model. Antibodies whose protein no training set
        measures must not be among them.
    gene_share
        Reference expression of the genes, shape (V,).
    max_cells
        Cells of a set that are scored, spread evenly over it.
    """

    def __init__(
        self,
        datasets: Sequence[PairedDataset],
        gene_share: np.ndarray,
        *,
        max_cells: int = MAX_CELLS,
    ) -> None:
        self.gene_share = gene_share
        self.datasets = datasets
        self.max_cells = max_cells

    def __call__(self, objective: Objective) -> dict[str, float]:
        """Score each set with the weights that are in the network now."""
        return {dataset.name: self._score(objective.model, dataset) for dataset in self.datasets}

    def _score(self, model: Translator, dataset: PairedDataset) -> float:
        rows = np.unique(np.linspace(0, dataset.n_obs - 1, self.max_cells).astype(np.int64))
        rna = dataset.rna.take(rows)
        device = model.gene_embedding.device
        proteins, column = np.unique(dataset.protein, return_inverse=True)
        predicted = np.empty((len(rows), len(proteins)), np.float32)
        batches = translations(
            model,
            rna,
            self.gene_share,
            model.tables(),
            batch_size=256,
            max_tokens=_TOKENS,
            proteins=torch.from_numpy(proteins).to(device),
        )
        for part, translation in batches:
            predicted[part] = translation.mean.float().cpu().numpy()
        correlation = column_correlation(
            predicted[:, column], dataset.targets(dataset.antibodies[rows])
        )
        return float(np.nanmean(correlation)) if np.isfinite(correlation).any() else 0.0


class HeldOutLoss:
    """Negative error of a pretraining objective on chunks that never change.

    Parameters
    ----------
    sources
        Chunks of each held-out set, by its name.
    """

    def __init__(self, sources: dict[str, ChunkSource]) -> None:
        self.chunks: dict[str, list[Chunk]] = {
            name: [source.chunk(0, number) for number in range(source.n_chunks)]
            for name, source in sources.items()
        }

    def __call__(self, objective: Objective) -> dict[str, float]:
        """Score each set with the weights that are in the network now."""
        device = objective.model.gene_embedding.device
        scores = {}
        for name, chunks in self.chunks.items():
            error = sum(float(objective([chunk.to(device)])[0]) for chunk in chunks)
            scores[name] = -error / max(sum(chunk.counts[0] for chunk in chunks), 1e-12)
        return scores
