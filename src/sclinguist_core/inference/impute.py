"""Imputation: what the cell's other genes, the section and its neighbours say a gene should be.

A gene that was not measured is estimated from the model's components of expression alone. A gene
that was measured is estimated without the entry that is asked for: `impute_survey` says how. A
network of the sCT architecture was trained to guess hidden genes, and is asked to. All come in the
unit of the model's input, ``log1p`` CP10k, and as one of five levels
(`sclinguist_core.data.levels`). How far to trust it is measured on the section itself: a part of
its entries is hidden, imputed, and compared.

Shapes: n cells or spots, V genes of the model, K imputed genes, m entries.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sclinguist_core.data.features import gene_mask
from sclinguist_core.data.readers.memory import around_same_arrays, as_section
from sclinguist_core.data.section import Section
from sclinguist_core.data.seen import seen_in_training, seen_warning
from sclinguist_core.errors import InputError
from sclinguist_core.inference.bag import N_NEIGHBOURS, check_context
from sclinguist_core.inference.gene_names import find_genes
from sclinguist_core.inference.imputation import Imputation, attach
from sclinguist_core.inference.impute_components import impute_by_components
from sclinguist_core.inference.impute_methods import StateImputer
from sclinguist_core.inference.impute_network import impute_by_network
from sclinguist_core.inference.prepare import Prepared, prepare
from sclinguist_core.inference.progress import Progress, finish_in_notebook
from sclinguist_core.inference.sct import SctImputer
from sclinguist_core.model.architectures import SCT
from sclinguist_core.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)

UNIT = "log1p CP10k"
MIN_ROWS = 50
"""Fewer cells or spots are too few to learn weights from."""
MAX_VALUES = 200_000_000
"""Most values that are imputed at once (0.8 GB)."""


def impute_iter(
    section: Section,
    *,
    genes: Sequence[str] | None = None,
    all_genes: bool = False,
    context: str = "none",
    n_neighbours: int = N_NEIGHBOURS,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    seed: int = 0,
) -> Generator[Progress, None, Imputation]:
    """Impute genes of a section; yields progress, returns values, levels and how good they are.

    Parameters
    ----------
    section
        With RNA of at least `MIN_ROWS` cells or spots.
    genes
        Names in any spelling, measured or not. By default those of the model that the section did
        not measure.
    all_genes
        All genes of the model instead, those that were measured among them.
    context
        ``"none"``: each cell by itself. ``"spatial"``, ``"nearest"``: the same gene in the
        neighbours counts too (for genes that the section measured). The sCT architecture always
        reads bags of cells: patches of the tissue with ``"spatial"``, else random ones.
    n_neighbours
        Neighbours of a cell.
    model
        ``"bundled"``, a checkpoint folder, or a loaded checkpoint: a translator with components
        of expression, or one of the sCT architecture.
    device
        See `predict.predict_iter`; it matters for the sCT architecture alone.
    seed
        Draws the entries that are hidden to learn from and to test.

    Yields
    ------
    Progress
        A caller that stops iterating cancels within one block of rows.

    Raises
    ------
    InputError
        If the section has too few rows, a gene is not known to the model, none is left to impute,
        there are too many values, or the context needs what the section lacks.
    """
    started = time.perf_counter()
    check_context(context, n_neighbours, name=section.name, is_spatial=section.is_spatial)
    yield Progress(0, section.n_obs, "loading model")
    prepared = prepare(section, model=model, device=device, for_protein=False)
    checkpoint = prepared.checkpoint
    chosen = choose_genes(prepared, genes, all_genes=all_genes)
    rna = prepared.aligned(np.arange(section.n_obs))
    filled = np.flatnonzero(np.diff(rna.counts.indptr))
    if len(filled) < MIN_ROWS:
        raise InputError(
            f"{section.name}: {len(filled)} cells or spots with reads, expected at least "
            f"{MIN_ROWS}: imputation learns its weights from the section itself."
        )
    rna = rna.take(filled)
    positions = section.positions[filled] if context == "spatial" else None
    if checkpoint.info.architecture == SCT:
        refuse_nearest(context)
        found = yield from impute_by_network(
            SctImputer(checkpoint, positions=positions, device=device, seed=seed), rna, chosen
        )
    else:
        imputer = StateImputer(
            checkpoint,
            context=context,
            positions=positions,
            n_neighbours=n_neighbours,
            seed=seed,
        )
        found = yield from impute_by_components(imputer, rna, chosen)
    measured = rna.measured[np.unique(rna.pattern)][:, chosen].any(axis=0)
    value = np.full((section.n_obs, len(chosen)), np.nan, np.float32)
    level = np.full(value.shape, -1, np.int8)
    value[filled], level[filled] = found.value, found.level
    symbols = [checkpoint.symbols[gene] for gene in chosen]
    warnings = prepared.warnings
    if n_empty := section.n_obs - len(filled):
        warnings.append(
            f"{n_empty} of {section.n_obs} rows express none of the model's genes; they get no "
            "value (NaN)."
        )
    if context != "none" and not measured.any() and checkpoint.info.architecture != SCT:
        warnings.append(
            "None of the genes was measured here, so neighbours have nothing to say of them: the "
            "context changes nothing."
        )
    if seen := seen_in_training(section, checkpoint.info.training_datasets):
        warnings.append(seen_warning([seen]))
    info = {
        **prepared.provenance,
        "unit": UNIT,
        "training_datasets": list(checkpoint.info.training_datasets),
        "context": context,
        "n_neighbours": n_neighbours if context != "none" else 0,
        "genes_measured": int(measured.sum()),
        "genes_not_measured": int((~measured).sum()),
        **found.figures.overall,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 3),
    }
    return Imputation(
        names=symbols,
        value=value,
        level=level,
        columns=_table_columns(section, prepared, chosen),
        tested=found.figures.of(chosen, measured, symbols),
        info=info,
        warnings=tuple(warnings),
    )


def choose_genes(
    prepared: Prepared, genes: Sequence[str] | None, *, all_genes: bool = False
) -> np.ndarray:
    """Positions of the genes to impute in the model, int64, shape (K,), each once.

    Raises
    ------
    InputError
        If a name is not known or not in the model, nothing is left, or there are too many.
    """
    symbols = prepared.checkpoint.symbols
    if genes is not None:
        chosen = find_genes(prepared, genes, measured_only=False)
    elif all_genes:
        chosen = np.arange(len(symbols))
    else:
        chosen = np.setdiff1d(np.arange(len(symbols)), prepared.aligner.move.indices)
        if not len(chosen):
            raise InputError(
                f"{prepared.section.name}: measured all {len(symbols):,} genes of the model, "
                "nothing is missing; name genes (--genes CD19,MS4A1), or ask for estimates of all "
                "measured ones, too (--all)."
            )
    n_values = prepared.section.n_obs * len(chosen)
    if n_values > MAX_VALUES:
        most = max(1, MAX_VALUES // prepared.section.n_obs)
        raise InputError(
            f"{len(chosen):,} genes for {prepared.section.n_obs:,} rows are {n_values:,} values, "
            f"expected at most {MAX_VALUES:,}; name up to {most:,} genes (--genes)."
        )
    return chosen


def refuse_nearest(context: str) -> None:
    """Refuse a context that the sCT architecture, which reads bags of its own, has no use for.

    Raises
    ------
    InputError
        For ``"nearest"``.
    """
    if context == "nearest":
        raise InputError(
            "context 'nearest': a model of the sCT architecture reads bags of cells as they lie on "
            "the tissue, or at random, expected 'spatial' or 'none'."
        )


def _table_columns(section: Section, prepared: Prepared, genes: np.ndarray) -> list[np.ndarray]:
    """Columns of the section's table that hold each of the genes."""
    table = section.table
    if section.counts_location == "raw":
        raw = table.raw.var
        place = table.var_names.get_indexer(raw.index[gene_mask(raw)])
    else:
        place = np.flatnonzero(gene_mask(table.var))
    move = prepared.aligner.move.tocsc()
    columns = [place[move.indices[move.indptr[g] : move.indptr[g + 1]]] for g in genes]
    return [found[found >= 0] for found in columns]


def impute(
    source: AnnData | Section | str | Path,
    *,
    genes: Sequence[str] | None = None,
    all_genes: bool = False,
    context: str = "none",
    n_neighbours: int = N_NEIGHBOURS,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    seed: int = 0,
    layer: str | None = None,
    levels: bool = False,
) -> AnnData:
    """Impute genes and return the table with them; for notebooks.

    Parameters
    ----------
    source
        AnnData with raw counts in X, a layer or raw; a `Section`; or a path that `open_section`
        reads. What is given is not changed.
    genes, all_genes, context, n_neighbours, model, device, seed
        See `impute_iter`.
    layer
        Layer that holds the raw counts; found by itself when None.
    levels
        Write the levels, too.

    Returns
    -------
    AnnData with what `attach` writes. Data that imputation does not change are shared with the
    input, not copied.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> adata = scl.impute("pbmc.h5ad", genes=["CD19", "FOXP3"])  # doctest: +SKIP
    >>> adata.uns["sclinguist_imputed"]["tested"]  # doctest: +SKIP
    """
    section = as_section(source, layer=layer)
    steps = impute_iter(
        section,
        genes=genes,
        all_genes=all_genes,
        context=context,
        n_neighbours=n_neighbours,
        model=model,
        device=device,
        seed=seed,
    )
    imputation = finish_in_notebook(steps, logger)
    table = around_same_arrays(section.table)
    attach(table, imputation, levels=levels)
    return table
