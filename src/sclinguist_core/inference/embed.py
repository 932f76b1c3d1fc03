"""Cell embeddings: where cells lie for the model, one vector a cell or spot.

`embed_iter` yields `Progress` and returns an `Embedding`; `attach` writes it into a table; `embed`
does both for notebooks, and joins several data sets.

Shapes: n cells or spots, E dimensions, P proteins of the model, G width of its trunk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sclinguist_core.data.readers.memory import around_same_arrays, as_section
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.inference.bag import N_NEIGHBOURS, bag_weights, check_context
from sclinguist_core.inference.prepare import Prepared, prepare
from sclinguist_core.inference.progress import CHUNK_ROWS, Progress, finish
from sclinguist_core.inference.runner import Outputs, TranslatorRunner
from sclinguist_core.inference.smoothing import CONTEXT_SHARE, shift_to_context
from sclinguist_core.model.architectures import SCT
from sclinguist_core.model.checkpoint import Checkpoint
from sclinguist_core.model.device import device_label
from sclinguist_core.model.feed import Tokens

if TYPE_CHECKING:
    from anndata import AnnData

    from sclinguist_core.model.translator import Panels

logger = logging.getLogger(__name__)

KEY = "X_sclinguist"
KINDS = {
    "protein": "predicted abundance of every protein of the model, not calibrated",
    "latent": "the model's trunk, which its protein queries read",
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Embedding:
    """Places of n cells or spots.

    Attributes
    ----------
    values
        float32, shape (n, E); NaN for rows that express none of the model's genes.
    info
        Provenance, as written to ``uns["sclinguist_embed"]``; ``names`` are the proteins that the
        dimensions are.
    warnings
        One sentence for everything that the user should know.
    """

    values: np.ndarray
    info: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())


class _LatentRunner(TranslatorRunner):
    """Returns the trunk, shape (B, G), in the place of the proteins."""

    def _forward(self, batch: Tokens, shared: Panels) -> Outputs:
        reading = self.model.encode(
            batch.genes, batch.values, shared.of(batch.pattern), self.tables
        )
        trunk = reading.trunk.float().cpu().numpy()
        return Outputs(trunk, np.full_like(trunk, np.nan), None)


def embed_iter(
    section: Section,
    *,
    kind: str = "protein",
    context: str = "none",
    n_neighbours: int = N_NEIGHBOURS,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
) -> Generator[Progress, None, Embedding]:
    """Embed the rows of a section; yields progress, returns the embedding.

    Distances between cells are Euclidean. Two data sets are embedded alike if the same model and
    kind are used; there is nothing to fit.

    Parameters
    ----------
    section
        With RNA.
    kind
        ``"protein"``: what the model predicts of every protein. In label transfer between data
        sets it is well ahead of what the model has inside. ``"latent"``: the trunk; also what a
        model gives that was trained on RNA alone, the sCT architecture among them (the mean of
        the tokens that stand for a cell).
    context
        ``"spatial"`` or ``"nearest"``: mix each row half and half with the mean of its neighbours
        on the tissue, or in the embedding (`bag.bag_weights`); ``"none"``.
    n_neighbours
        Rows in the context of a row.
    model, device, batch_size
        See `predict.predict_iter`.

    Yields
    ------
    Progress
        After every batch; a caller that stops iterating cancels within one batch.

    Raises
    ------
    InputError
        Besides what `predict.predict_iter` raises: if kind or context are unknown, or the context
        is spatial and the section has no positions.
    """
    started = time.perf_counter()
    check_options(kind, context, n_neighbours, batch_size)
    check_context(context, n_neighbours, name=section.name, is_spatial=section.is_spatial)
    total = section.n_obs
    yield Progress(0, total, "loading model")
    prepared = prepare(section, model=model, device=device, for_protein=False)
    kind = available_kind(prepared.checkpoint, kind)
    positions = section.positions if context == "spatial" else None
    if prepared.checkpoint.info.architecture == SCT:
        values = yield from _in_bags(prepared, positions)
    else:
        values = yield from _one_by_one(prepared, kind, batch_size)
    n_empty = int(np.isnan(values).any(axis=1).sum())
    if context != "none":
        yield Progress(total, total, "searching neighbours")
        values = with_context(values, positions, context, n_neighbours=n_neighbours)
    warnings = prepared.warnings
    if n_empty:
        warnings.append(
            f"{n_empty} of {total} rows express none of the model's genes; they get no place (NaN)."
        )
    info = {
        **prepared.provenance,
        "training_datasets": list(prepared.checkpoint.info.training_datasets),
        "kind": kind,
        "dimensions": int(values.shape[1]),
        "names": prepared.checkpoint.protein_names if kind == "protein" else [],
        "context": context,
        "context_neighbours": n_neighbours if context != "none" else 0,
        "genes_found": prepared.aligner.n_found,
        "genes_expected": len(prepared.checkpoint.genes),
        "device": device_label(prepared.device),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return Embedding(values=values, info=info, warnings=tuple(warnings))


def check_options(kind: str, context: str, n_neighbours: int, batch_size: int | None) -> None:
    """Refuse options that make no sense, before work is spent.

    Raises
    ------
    InputError
        Naming the option, what was found and what was expected.
    """
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}: expected one of {', '.join(KINDS)}.")
    check_context(context, n_neighbours)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size {batch_size}: expected at least 1.")


def available_kind(checkpoint: Checkpoint, kind: str) -> str:
    """Kind that a model has: a model that was trained on RNA alone knows no protein."""
    return "latent" if checkpoint.info.stage == "pretrain-rna" else kind


def _one_by_one(
    prepared: Prepared, kind: str, batch_size: int | None
) -> Generator[Progress, None, np.ndarray]:
    """Embed each row by itself, float32, shape (n, E)."""
    if kind == "protein":
        runner = prepared.runner(batch_size)
    else:
        none = np.zeros(0, np.int64)
        runner = _LatentRunner(prepared.checkpoint, prepared.device, none, batch_size)
    total = prepared.section.n_obs
    values: np.ndarray | None = None
    done = 0
    for start in range(0, total, CHUNK_ROWS):
        aligned = prepared.aligned(slice(start, min(start + CHUNK_ROWS, total)))
        for inside, outputs in runner.run(aligned):
            if values is None:
                values = np.full((total, outputs.mean.shape[1]), np.nan, np.float32)
            values[start + inside] = outputs.mean
            done += len(inside)
            yield Progress(done, total, "embedding")
        if values is not None:
            values[start + np.flatnonzero(np.diff(aligned.counts.indptr) == 0)] = np.nan
    if values is None:
        raise InputError(f"{prepared.section.name}: has no rows, expected cells or spots.")
    return values


def _in_bags(
    prepared: Prepared, positions: np.ndarray | None
) -> Generator[Progress, None, np.ndarray]:
    """Embed rows in bags, as the sCT architecture reads them, float32, shape (n, E)."""
    from sclinguist_core.inference.sct import sct_embed

    aligned = prepared.aligned(np.arange(prepared.section.n_obs))
    filled = np.flatnonzero(np.diff(aligned.counts.indptr))
    if not len(filled):
        raise InputError(f"{prepared.section.name}: has no reads, expected cells or spots.")
    found = yield from sct_embed(
        prepared.checkpoint,
        aligned.take(filled),
        positions=None if positions is None else positions[filled],
        device=str(prepared.device),
    )
    values = np.full((aligned.n_obs, found.shape[1]), np.nan, np.float32)
    values[filled] = found
    return values


def with_context(
    values: np.ndarray,
    positions: np.ndarray | None,
    context: str,
    *,
    n_neighbours: int = N_NEIGHBOURS,
    share: float = CONTEXT_SHARE,
) -> np.ndarray:
    """Mix each row with the mean of its context.

    Parameters
    ----------
    values
        Shape (n, E); rows that are NaN stay so, and are no other row's context.
    positions, context, n_neighbours
        See `bag.bag_weights`.
    share
        Of the context, 0 to 1.

    Returns
    -------
    float32, shape (n, E).
    """
    if positions is not None:
        # A row without a value has no place either, so that bags have as many rows as asked for.
        lost = ~np.isfinite(values).all(axis=1)
        positions = np.where(lost[:, None], np.nan, positions)
    bags = bag_weights(positions, values, context, n_neighbours=n_neighbours)
    return (values + shift_to_context(values, bags, share)).astype(np.float32)


def attach(table: AnnData, embedding: Embedding) -> None:
    """Write an embedding into a table, in place: ``obsm["X_sclinguist"]`` and its provenance."""
    table.obsm[KEY] = embedding.values
    table.uns["sclinguist_embed"] = {**embedding.info, "warnings": list(embedding.warnings)}


def embed(
    source: AnnData | Section | str | Path | Sequence[AnnData | Section | str | Path],
    *,
    kind: str = "protein",
    context: str = "none",
    n_neighbours: int = N_NEIGHBOURS,
    correct: str = "none",
    batch_key: str | None = None,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    layer: str | None = None,
) -> AnnData:
    """Embed cells and return the table with their places; for notebooks.

    Parameters
    ----------
    source
        AnnData with raw counts in X, a layer or raw; a `Section`; a path that `open_section`
        reads; or a list of them, which are joined (`embed_join.join`). What is given is not
        changed.
    kind, context, n_neighbours, model, device, batch_size
        See `embed_iter`.
    correct
        Between data sets, or the batches of `batch_key`: ``"none"``, ``"center"`` or ``"harmony"``
        (`embed_correct.corrected`).
    batch_key
        Column of obs that tells batches apart; for several inputs their names by default.
    layer
        Layer that holds the raw counts; found by itself when None.

    Returns
    -------
    AnnData with ``obsm["X_sclinguist"]`` and ``uns["sclinguist_embed"]``. What was before
    correction is in ``obsm["X_sclinguist_uncorrected"]``.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> adata = scl.embed("pbmc.h5ad")  # doctest: +SKIP
    >>> sc.pp.neighbors(adata, use_rep="X_sclinguist")  # doctest: +SKIP
    """
    from sclinguist_core.inference.embed_correct import (
        batches_of,
        check_correction,
        correct_table,
    )
    from sclinguist_core.inference.embed_join import join, with_names

    check_correction(correct)
    several = isinstance(source, list | tuple)
    given = list(source) if isinstance(source, list | tuple) else [source]
    sections = with_names([as_section(one, layer=layer) for one in given])
    if correct != "none" and not several:
        batches_of(sections[0].table, batch_key)  # refused before work is spent
    embedded = []
    for section in sections:
        result = finish(
            embed_iter(
                section,
                kind=kind,
                context=context,
                n_neighbours=n_neighbours,
                model=model,
                device=device,
                batch_size=batch_size,
            )
        )
        for sentence in result.warnings:
            logger.warning("%s: %s", section.name, sentence)
        embedded.append(result)
    if several:
        table, notes = join(sections, embedded)
        for sentence in notes:
            logger.warning(sentence)
    else:
        table = around_same_arrays(sections[0].table)
        attach(table, embedded[0])
    correct_table(table, correct, batch_key)
    return table
