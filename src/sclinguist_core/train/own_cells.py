"""A user's own cells or spots with measured protein, as fine-tuning needs them.

Shapes: n cells with RNA and protein, V genes, P proteins, G trunk, F components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.align import AlignedRna, gene_aligner
from sclinguist_core.data.preprocess import protein_clr
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.vocabulary.proteins import resolve_panel

if TYPE_CHECKING:
    import torch

MIN_CELLS = 20
"""Fewer cells with protein say too little for a correction to be chosen."""
N_COMPONENTS = 32
_VARIABLE_GENES = 2_000
_COMPONENT_CELLS = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnCells:
    """Cells of one or several files with measured protein, joined.

    Attributes
    ----------
    names
        Names of the files.
    rna
        Counts of the cells over the model's genes, one part a file.
    group
        File of each cell, int64, shape (n,).
    proteins
        DataFrame with one row a protein that was measured: ``name``, ``genes``, ``kind``,
        ``antibodies`` (the study's names, joined by ", ").
    target
        Standardised CLR within each file, float64, shape (n, P); NaN = not measured.
    context
        What a row is: ``"cells"`` or ``"spots"``.
    unpaired
        Counts of cells without protein, which only help to find components.
    warnings
        One sentence for everything that the user should know.
    """

    names: tuple[str, ...]
    rna: tuple[AlignedRna, ...]
    group: np.ndarray
    proteins: pd.DataFrame
    target: np.ndarray
    context: str
    unpaired: tuple[AlignedRna, ...]
    warnings: tuple[str, ...]

    @property
    def n_obs(self) -> int:
        """Number of cells with protein."""
        return len(self.group)


def own_cells(
    sections: Sequence[Section],
    checkpoint: Checkpoint,
    *,
    max_cells: int,
    rng: np.random.Generator,
) -> OwnCells:
    """Gather the cells that have RNA and protein.

    Parameters
    ----------
    sections
        With raw RNA counts; at least one with raw antibody counts. A section's cells without
        protein (NaN in every antibody, or no antibodies at all) are kept as unpaired.
    checkpoint
        Whose genes to align to.
    max_cells
        More cells than this are thinned out at random, in proportion to the files.
    rng
        For that.

    Raises
    ------
    InputError
        If no protein was measured, or fewer than 20 cells have it.
    """
    tables = [_targets(section) for section in sections]
    if not any(len(table.columns) for table in tables):
        raise InputError(
            f"{', '.join(section.name for section in sections)}: found no measured protein that is "
            "known, expected raw antibody counts (obsm['protein'] or Antibody Capture features) to "
            "fine-tune on; see `sclinguist proteins resolve`."
        )
    target = pd.concat(tables, ignore_index=True)
    group = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    aligned = [_aligned(section, checkpoint) for section in sections]
    expressed = np.concatenate([np.diff(rna.counts.indptr) > 0 for rna in aligned])
    paired = expressed & target.notna().any(axis=1).to_numpy()
    if paired.sum() < MIN_CELLS:
        raise InputError(
            f"{', '.join(section.name for section in sections)}: {int(paired.sum())} cells have "
            f"RNA and measured protein, expected at least {MIN_CELLS} to fine-tune on; give more "
            "cells."
        )
    warnings = [sentence for section in sections for sentence in section.warnings]
    chosen = np.flatnonzero(paired)
    if len(chosen) > max_cells:
        warnings.append(
            f"{max_cells:,} of {len(chosen):,} cells with protein were drawn at random to "
            "fine-tune on; more make it slower and hardly better."
        )
        chosen = np.sort(rng.choice(chosen, max_cells, replace=False))
    starts = np.cumsum([0, *(len(table) for table in tables)])
    rows = [chosen[group[chosen] == g] - starts[g] for g in range(len(tables))]
    unpaired = expressed & ~paired
    measured = target.iloc[chosen].notna().sum(axis=0) >= MIN_CELLS
    values = target.loc[:, measured].to_numpy(np.float64)[chosen]
    left_out = [str(name) for name in target.columns[~measured]]
    if left_out:
        warnings.append(
            f"Measured in fewer than {MIN_CELLS} cells, left as they were: {', '.join(left_out)}."
        )
    return OwnCells(
        names=tuple(section.name for section in sections),
        rna=tuple(rna.take(r) for rna, r in zip(aligned, rows, strict=True)),
        group=group[chosen],
        proteins=_panel(sections).loc[target.columns[measured]].rename_axis("name").reset_index(),
        target=values,
        context="spots" if any(section.is_spatial for section in sections) else "cells",
        unpaired=tuple(
            rna.take(np.flatnonzero(unpaired[group == g])) for g, rna in enumerate(aligned)
        ),
        warnings=tuple(warnings),
    )


def _aligned(section: Section, checkpoint: Checkpoint) -> AlignedRna:
    rna = section.rna()
    aligner = gene_aligner(rna.names, rna.ids, checkpoint.symbols, source=section.name)
    return aligner.apply(rna.counts, rna.measured)


def _resolved(section: Section) -> pd.DataFrame:
    """Panel of the antibodies whose target is known, isotype controls left out."""
    counts: pd.DataFrame = section.table.obsm["protein"]
    panel = section.table.uns.get("protein_panel")
    if not isinstance(panel, pd.DataFrame) or list(panel.index) != list(counts.columns):
        panel = resolve_panel(counts.columns)
    return panel.rename_axis("antibody")


def _targets(section: Section) -> pd.DataFrame:
    """Standardised CLR by canonical name, (n, proteins); the mean of antibodies that share one."""
    if not section.has_protein:
        return pd.DataFrame(index=section.table.obs_names)
    counts: pd.DataFrame = section.table.obsm["protein"]
    panel = _resolved(section)
    if float(np.nanmin(counts.to_numpy(np.float64), initial=0.0)) < 0:
        raise InputError(
            f"{section.name}: obsm['protein'] holds negative values, expected raw antibody counts; "
            "put the counts from before normalisation there."
        )
    clr = protein_clr(counts, panel["isotype"].to_numpy(bool))
    clr = clr.loc[:, (panel["status"] == "resolved").to_numpy()].astype(np.float64)
    spread = clr.std(ddof=0)
    clr = ((clr - clr.mean()) / spread).loc[:, spread > 1e-3]
    canonical = panel.loc[clr.columns, "canonical"].to_numpy()
    return clr.T.groupby(canonical, sort=False).mean().T


def _panel(sections: Sequence[Section]) -> pd.DataFrame:
    """Describe each measured protein; index ``name``."""
    parts = [_resolved(section).reset_index() for section in sections if section.has_protein]
    panel = pd.concat(parts).query("status == 'resolved'").drop_duplicates("antibody")
    return panel.groupby("canonical", sort=False).agg(
        genes=("genes", "first"), kind=("kind", "first"), antibodies=("antibody", ", ".join)
    ).rename_axis("name")  # fmt: skip


def translate(
    checkpoint: Checkpoint, rna: Sequence[AlignedRna], device: torch.device
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a model over cells.

    Returns
    -------
    Mean (n, P), standard deviation (n, P) and cell trunk (n, G), float32; n over all parts.
    """
    import torch

    from sclinguist_core.model.batched import translations
    from sclinguist_core.model.device import CPU_BATCH, CPU_TOKENS, CUDA_BATCH, CUDA_TOKENS

    model = checkpoint.translator.to(device)
    size, tokens = (CUDA_BATCH, CUDA_TOKENS) if device.type == "cuda" else (CPU_BATCH, CPU_TOKENS)
    n = sum(part.n_obs for part in rna)
    mean = np.empty((n, model.n_proteins), np.float32)
    std = np.empty_like(mean)
    trunk = np.empty((n, model.config.gene_dim), np.float32)
    start = 0
    with torch.inference_mode():
        tables = model.tables()
        for part in rna:
            batches = translations(
                model, part, checkpoint.gene_share, tables, batch_size=size, max_tokens=tokens
            )
            for rows, out in batches:
                mean[start + rows] = out.mean.float().cpu().numpy()
                std[start + rows] = out.std.float().cpu().numpy()
                trunk[start + rows] = out.trunk.float().cpu().numpy()
            start += part.n_obs
    model.cpu()
    return mean, std, trunk


def components(
    checkpoint: Checkpoint, cells: OwnCells, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Principal axes of the expression of the user's cells.

    Over at most 2,000 cells (with or without protein) and the 2,000 genes that vary most. What a
    cell did not measure counts as the mean.

    Returns
    -------
    center
        Mean of each gene, float32, shape (V,); 0 outside the chosen genes.
    basis
        Principal axes, float32, shape (V, F); orthonormal, 0 outside the chosen genes.
    """
    from scipy.sparse.linalg import svds

    parts = [*cells.rna, *(part for part in cells.unpaired if part.n_obs)]
    expression = sparse.vstack([_expression(checkpoint, part) for part in parts], format="csr")
    offset = np.cumsum([0, *(len(part.measured) for part in parts)])
    measured = np.concatenate([part.measured for part in parts])
    pattern = np.concatenate([part.pattern + o for part, o in zip(parts, offset, strict=False)])
    if expression.shape[0] > _COMPONENT_CELLS:
        rows = np.sort(rng.choice(expression.shape[0], _COMPONENT_CELLS, replace=False))
        expression, pattern = expression[rows], pattern[rows]
    n_cells = np.maximum(np.bincount(pattern, minlength=len(measured)) @ measured, 1)
    mean = np.asarray(expression.sum(axis=0)).ravel() / n_cells
    square = np.asarray(expression.multiply(expression).sum(axis=0)).ravel() / n_cells
    genes = np.sort(np.argsort(mean**2 - square, kind="stable")[:_VARIABLE_GENES])
    dense = (expression[:, genes].toarray() - mean[genes]) * measured[:, genes][pattern]
    n_components = min(N_COMPONENTS, min(dense.shape) - 1)
    start = rng.standard_normal(min(dense.shape))
    _, _, axes = svds(dense.astype(np.float64), k=n_components, v0=start)
    center = np.zeros(expression.shape[1], np.float32)
    basis = np.zeros((expression.shape[1], n_components), np.float32)
    center[genes] = mean[genes]
    basis[genes] = axes.T
    return center, basis


def project(
    checkpoint: Checkpoint, rna: Sequence[AlignedRna], center: np.ndarray, basis: np.ndarray
) -> np.ndarray:
    """Components of cells, float64, shape (n, F); as `Adapter.components` computes them."""
    return np.concatenate(
        [
            _expression(checkpoint, part) @ basis - ((part.measured * center) @ basis)[part.pattern]
            for part in rna
        ]
    ).astype(np.float64)


def _expression(checkpoint: Checkpoint, rna: AlignedRna) -> sparse.csr_matrix:
    return rna.expression(checkpoint.gene_share, checkpoint.info.model.rna_normalization)
