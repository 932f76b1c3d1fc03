"""Pretraining on protein alone: hide proteins of a cell, and predict them from the others.

The visible proteins are centred among themselves: centred over the whole panel they would tell the
sum of the hidden ones. Targets are what stage 2 predicts, the CLR over the whole panel in
standard deviations of the data set.

Shapes: n cells, B cells of a chunk, A antibodies of a data set, P proteins of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.model.translator import Tables, Translator
from sclinguist_core.train.chunks import ByConfig, Chunk, drawn_set, dropout_seed, generator
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.masking import Masking
from sclinguist_core.train.objectives import Objective, robust_error_sum, scale_error_sum

MIN_PROTEINS = 3
"""With fewer there is nothing to predict from: two centred values are each other's negative."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProteinDataset:
    """Antibody counts of one study, without RNA.

    Attributes
    ----------
    name
        Name of the data set.
    abundance
        CLR, centred and scaled by the study's own mean and standard deviation of each antibody;
        float32, shape (n, A); NaN = not measured.
    scale
        That standard deviation, shape (A,).
    protein
        The model's protein of each antibody, int64, shape (A,). Two antibodies may share one.
    """

    name: str
    abundance: np.ndarray
    scale: np.ndarray
    protein: np.ndarray

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.abundance)


def protein_dataset(section: Section, proteins: Sequence[str]) -> ProteinDataset:
    """Standardise the known antibodies of a section; isotype controls are not among them.

    Raises
    ------
    InputError
        If fewer than three proteins are known.
    """
    if not section.has_protein:
        raise InputError(f"{section.name}: expected measured proteins, found none.")
    panel = section.table.uns["protein_panel"]
    position = {name: i for i, name in enumerate(proteins)}
    known = [
        (antibody, position[row.canonical])
        for antibody, row in zip(panel.index, panel.itertuples(), strict=True)
        if row.status == "resolved" and row.canonical in position
    ]
    protein = np.array([index for _, index in known], np.int64)
    if len(np.unique(protein)) < MIN_PROTEINS:
        raise InputError(
            f"{section.name}: {len(np.unique(protein))} known proteins, expected at least "
            f"{MIN_PROTEINS}; see `sclinguist proteins resolve`."
        )
    names = [antibody for antibody, _ in known]
    # As in stage 2 the centre of a cell is that of its whole panel, less the isotype controls.
    others = [name for name in panel.index[~panel["isotype"].to_numpy(bool)] if name not in names]
    frame = section.table.obsm["protein"][names + others]
    clr = protein_clr(np.asarray(frame, np.float32))[:, : len(names)]
    scale = np.maximum(np.nanstd(clr, axis=0), 1e-3)
    return ProteinDataset(
        name=section.name,
        abundance=((clr - np.nanmean(clr, axis=0)) / scale).astype(np.float32),
        scale=scale.astype(np.float32),
        protein=protein,
    )


def mask_proteins(
    abundance: np.ndarray,
    scale: np.ndarray,
    protein: np.ndarray,
    rate: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Hide proteins of each cell.

    Parameters
    ----------
    abundance, scale, protein
        Rows and columns of a `ProteinDataset`.
    rate
        Share of the proteins to hide; at least one is hidden, and at least two are left. Two
        antibodies of one protein are hidden together.
    rng
        The only source of randomness.

    Returns
    -------
    Visible values (NaN where hidden or not measured) and targets (NaN where visible or not
    measured), both float32, shape (B, A).
    """
    proteins, column = np.unique(protein, return_inverse=True)
    draw = rng.random((len(abundance), len(proteins)))
    # Hidden are the smallest draws, so that at least one is and two are not.
    rank = np.argsort(np.argsort(draw, axis=1), axis=1)
    hidden = (draw < rate) & (rank < len(proteins) - 2) | (rank == 0)
    hidden = hidden[:, column]
    target = np.where(hidden, abundance, np.nan)
    visible = np.where(hidden, np.nan, abundance)
    deviation = visible * scale
    seen = np.isfinite(deviation)
    centre = np.where(seen, deviation, 0.0).sum(1, keepdims=True) / np.maximum(
        seen.sum(1, keepdims=True), 1
    )
    return ((deviation - centre) / scale).astype(np.float32), target.astype(np.float32)


@dataclass(frozen=True)
class ProteinChunks(ByConfig):
    """Chunks of cells with hidden proteins.

    Attributes
    ----------
    datasets
        Antibody counts on the model's proteins.
    config, masking
        How.
    """

    datasets: Sequence[ProteinDataset]
    config: FitConfig
    masking: Masking

    def chunk(self, step: int, number: int) -> Chunk:
        """Draw one chunk."""
        data = self.datasets[drawn_set([d.n_obs for d in self.datasets], self.config, step, number)]
        rng = generator(self.config.seed, step, number)
        n_rows = min(self.config.batch_size, data.n_obs)
        abundance = data.abundance[rng.choice(data.n_obs, n_rows, replace=False)]
        visible, target = mask_proteins(
            abundance, data.scale, data.protein, self.masking.protein_rate, rng
        )
        seen = np.isfinite(visible)
        proteins, column = np.unique(data.protein, return_inverse=True)
        arrays = {
            "visible": np.where(seen, data.protein, -1),
            "values": np.where(seen, visible, 0.0).astype(np.float32),
            "proteins": proteins,
            "column": column,
            "target": target,
        }
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        weight = len(data.protein) ** -0.5  # as in stage 2
        tensors["weight"] = torch.tensor(weight)
        count = weight * float(np.isfinite(target).sum())
        return Chunk(
            tensors=tensors,
            counts=(count, count),
            n_rows=n_rows,
            seed=dropout_seed(self.config.seed, step, number),
        )


class ProteinObjective(Objective):
    """Mean and spread of hidden proteins (needs ``protein_input``)."""

    terms = ("error", "scale")

    def __init__(self, model: Translator, scale_weight: float) -> None:
        super().__init__(model, (1.0, scale_weight))

    def sums(self, chunk: Chunk, tables: Tables) -> Tensor:
        """Sum of the two terms; entries weigh by the width of their panel."""
        t = chunk.tensors
        found = self.model.complete_proteins(t["visible"], t["values"], tables, t["proteins"])
        mean, std = (part[:, t["column"]].float() for part in (found.mean, found.std))
        terms = (robust_error_sum(mean, t["target"]), scale_error_sum(mean, std, t["target"]))
        return t["weight"] * torch.stack(terms)
