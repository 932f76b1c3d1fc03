"""Zero-shot cell types: the labels of a reference, brought over by nearest neighbours.

Input and reference are embedded by the same model; nothing is trained. `annotate_iter` yields
`Progress` and returns an `Annotation`; `attach` writes it into a table; `annotate` does both for
notebooks.

Shapes: n cells or spots, C labels.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclinguist_core.data.readers.memory import around_same_arrays, as_section
from sclinguist_core.data.section import Section
from sclinguist_core.data.seen import seen_in_training, seen_warning
from sclinguist_core.errors import InputError
from sclinguist_core.inference.annotate_votes import N_NEIGHBOURS, LabelledCells, Votes
from sclinguist_core.inference.bag import check_context
from sclinguist_core.inference.embed import check_options, embed_iter
from sclinguist_core.inference.embed_correct import CENTER_SHARE, check_column
from sclinguist_core.inference.progress import Progress, finish_in_notebook
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)

KEY = "sclinguist_cell_type"
UNASSIGNED = "unassigned"
NO_LABELS = frozenset({"", "nan", "none", "na", "unknown", "undefined", "unassigned", "unlabelled"})
"""Values of a column of labels that say that there is none, in any case."""
CORRECTIONS = ("none", "center")
MIN_CONFIDENCE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Annotation:
    """Cell types of n cells or spots.

    Attributes
    ----------
    best
        The likeliest label of each, whatever its confidence, object, shape (n,); "unassigned"
        for rows without a place.
    confidence
        Probability of that label, as calibrated on the reference, float32, shape (n,); NaN for
        rows without a place.
    distance
        From the reference; above 1 is novel; see `annotate_votes.Votes`.
    labels
        The labels of the reference, length C.
    info
        Provenance, as written to ``uns["sclinguist_annotate"]``.
    warnings
        One sentence for everything that the user should know.
    """

    best: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    labels: list[str]
    info: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())

    @property
    def assigned(self) -> np.ndarray:
        """Which rows get their label: sure enough and not novel, bool, shape (n,)."""
        sure = np.nan_to_num(self.confidence, nan=-1.0) >= self.info["min_confidence"]
        return sure & (self.distance <= 1.0) if self.info["reject_novel"] else sure

    @property
    def cell_type(self) -> np.ndarray:
        """Label of each row, "unassigned" where rejected, object, shape (n,)."""
        return np.where(self.assigned, self.best, UNASSIGNED)


def annotate_iter(
    section: Section,
    references: Section | Sequence[Section],
    labels: str,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    reject_novel: bool = True,
    correct: str = "none",
    context: str = "none",
    n_neighbours: int = N_NEIGHBOURS,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
) -> Generator[Progress, None, Annotation]:
    """Annotate the rows of a section; yields progress, returns the annotation.

    Parameters
    ----------
    section
        With RNA.
    references
        Labelled cells, with RNA; several are pooled.
    labels
        Column of the references' obs with the labels. Rows without one (missing, or a word of
        `NO_LABELS`) are left out.
    min_confidence
        Rows below it are "unassigned".
    reject_novel
        Whether rows that are too far from the reference are "unassigned" too.
    correct
        ``"center"`` moves the section half-way to the mean of the reference; ``"none"``.
    context
        Of the section's rows; see `embed.embed_iter`. The references are taken as they are.
    n_neighbours
        Labelled cells that vote.
    model, device, batch_size
        See `predict.predict_iter`.
    seed
        Draws the cells that calibrate, of a large reference.

    Yields
    ------
    Progress
        After every batch; a caller that stops iterating cancels within one batch.

    Raises
    ------
    InputError
        Besides what `embed.embed_iter` raises: if a reference has no such column, or there are
        fewer than two labels.
    """
    started = time.perf_counter()
    named = [references] if isinstance(references, Section) else list(references)
    _check(min_confidence, correct, named)
    check_options("protein", context, n_neighbours, batch_size)
    check_context(context, n_neighbours, name=section.name, is_spatial=section.is_spatial)
    known = [labels_of(reference.table, labels, reference.name) for reference in named]
    if len(kinds := {name for part in known for name in part if name is not None}) < 2:
        raise InputError(
            f"labels {labels!r}: found {len(kinds)} cell types in the reference, expected two or "
            "more; choose another column or reference."
        )
    total = section.n_obs + sum(reference.n_obs for reference in named)
    yield Progress(0, total, "loading model")
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    shared: dict[str, Any] = {"model": checkpoint, "device": device, "batch_size": batch_size}
    done = 0
    places: list[np.ndarray] = []
    for reference in named:
        steps = embed_iter(reference, **shared)
        embedded = yield from _moved(steps, done, total, "embedding reference")
        places.append(embedded.values)
        done += reference.n_obs
    steps = embed_iter(section, context=context, **shared)
    embedded = yield from _moved(steps, done, total, "embedding")
    values, warnings = embedded.values, list(embedded.warnings)
    reference_values = np.concatenate(places)
    names = np.concatenate(known)
    usable = pd.notna(names) & np.isfinite(reference_values).all(axis=1)
    reference_values, names = reference_values[usable], names[usable].astype(str)
    if n_left_out := int((~usable).sum()):
        warnings.append(
            f"{n_left_out} of {len(usable)} reference cells have no label or no reads, and are "
            "left out."
        )
    if correct == "center" and np.isfinite(values).any():
        shift = reference_values.mean(axis=0) - np.nanmean(values, axis=0)
        values = values + CENTER_SHARE * shift
    yield Progress(total, total, "calibrating")
    cells = LabelledCells(reference_values, names, n_neighbours=n_neighbours, seed=seed)
    yield Progress(total, total, "voting")
    votes = cells(values)
    trained_on = checkpoint.info.training_datasets
    seen = [name for one in (*named, section) if (name := seen_in_training(one, trained_on))]
    seen = list(dict.fromkeys(seen))
    if seen:
        warnings.append(seen_warning(seen))
    info = {
        **{name: value for name, value in embedded.info.items() if name != "names"},
        "references": [reference.name for reference in named],
        "labels": labels,
        "cell_types": {name: int((names == name).sum()) for name in cells.names},
        "min_confidence": float(min_confidence),
        "reject_novel": bool(reject_novel),
        "correct": correct,
        "neighbours": n_neighbours,
        "temperature": round(cells.temperature, 3),
        "seen_in_training": seen,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 3),
    }
    result = _annotation(votes, cells.names, info)
    rejected = 1.0 - float(result.assigned.mean()) if section.n_obs else 0.0
    if rejected > 0.5:
        warnings.append(
            f"{rejected:.0%} of the rows are unassigned: the reference may lack their cell types, "
            "or come from too different an assay."
        )
    return replace(result, warnings=tuple(warnings))


def _annotation(votes: Votes, names: list[str], info: dict[str, Any]) -> Annotation:
    known = np.isfinite(votes.distance)
    best = np.full(len(known), UNASSIGNED, dtype=object)
    confidence = np.full(len(known), np.nan, np.float32)
    best[known] = np.array(names, dtype=object)[votes.probability[known].argmax(axis=1)]
    confidence[known] = votes.probability[known].max(axis=1)
    return Annotation(
        best=best,
        confidence=confidence,
        distance=votes.distance,
        labels=names,
        info=info,
    )


def _check(min_confidence: float, correct: str, references: Sequence[Section]) -> None:
    if not 0.0 <= min_confidence <= 1.0:
        raise InputError(f"minimum confidence {min_confidence}: expected a number from 0 to 1.")
    if correct not in CORRECTIONS:
        raise InputError(f"correct {correct!r}: expected one of {', '.join(CORRECTIONS)}.")
    if not references:
        raise InputError("references: found an empty list, expected labelled cells.")


def _moved(
    steps: Generator[Progress, None, Any], done: int, total: int, phase: str
) -> Generator[Progress, None, Any]:
    """Run a part of a job, with its progress counted within the whole."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return end.value
        yield Progress(done + progress.done, total, phase)


def labels_of(table: AnnData, column: str, source: str) -> np.ndarray:
    """Labels of the rows of a table, object, shape (n,); None where a row has none.

    Raises
    ------
    InputError
        If obs has no such column, or it holds numbers with decimals.
    """
    check_column(table, column, source)
    values = table.obs[column]
    if pd.api.types.is_float_dtype(values.dtype) and (values.dropna() % 1 != 0).any():
        raise InputError(
            f"{source}: column {column!r} of obs holds numbers with decimals, expected labels; "
            "choose another column."
        )
    text = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    is_label = ~text.str.lower().isin(NO_LABELS)
    return text.astype(object).where(is_label, None).to_numpy(dtype=object)


def attach(table: AnnData, annotation: Annotation) -> None:
    """Write an annotation into a table, in place; everything else stays as it was.

    ``obs["sclinguist_cell_type"]``, ``..._confidence``, ``..._best`` (whatever the confidence),
    ``..._distance`` (above 1 is novel), and ``uns["sclinguist_annotate"]``.
    """
    names = [*annotation.labels, UNASSIGNED]
    table.obs[KEY] = pd.Categorical(annotation.cell_type, names)
    table.obs[f"{KEY}_confidence"] = annotation.confidence
    table.obs[f"{KEY}_best"] = pd.Categorical(annotation.best, names)
    table.obs[f"{KEY}_distance"] = annotation.distance
    table.uns["sclinguist_annotate"] = {
        **annotation.info,
        # Names of cell types may have slashes, which keys of a file cannot.
        "cell_types": pd.DataFrame(
            {
                "cell_type": list(annotation.info["cell_types"]),
                "reference_cells": list(annotation.info["cell_types"].values()),
            }
        ).set_axis([str(i) for i in range(len(annotation.info["cell_types"]))]),
        "warnings": list(annotation.warnings),
    }


def annotate(
    source: AnnData | Section | str | Path,
    reference: AnnData | Section | str | Path | Sequence[AnnData | Section | str | Path],
    labels: str,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    reject_novel: bool = True,
    correct: str = "none",
    context: str = "none",
    n_neighbours: int = N_NEIGHBOURS,
    model: str | Path | Checkpoint = "bundled",
    device: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    layer: str | None = None,
) -> AnnData:
    """Annotate cell types and return the table with them; for notebooks.

    Parameters
    ----------
    source
        AnnData with raw counts in X, a layer or raw; a `Section`; or a path that `open_section`
        reads. What is given is not changed.
    reference
        The same, with labels in a column of obs; or a list of such, which are pooled.
    labels, min_confidence, reject_novel, correct, context, n_neighbours
        See `annotate_iter`.
    model, device, batch_size, seed
        See `annotate_iter`.
    layer
        Layer of the source that holds the raw counts; found by itself when None.

    Returns
    -------
    AnnData with the columns that `attach` writes. Data that do not change are shared with the
    input, not copied.

    Examples
    --------
    >>> import sclinguist_core as scl
    >>> adata = scl.annotate("pbmc.h5ad", "labelled.h5ad", "cell_type")  # doctest: +SKIP
    >>> adata.obs["sclinguist_cell_type"].value_counts()  # doctest: +SKIP
    """
    section = as_section(source, layer=layer)
    given = list(reference) if isinstance(reference, list | tuple) else [reference]
    annotation = finish_in_notebook(
        annotate_iter(
            section,
            [as_section(one) for one in given],
            labels,
            min_confidence=min_confidence,
            reject_novel=reject_novel,
            correct=correct,
            context=context,
            n_neighbours=n_neighbours,
            model=model,
            device=device,
            batch_size=batch_size,
            seed=seed,
        ),
        logger,
    )
    table = around_same_arrays(section.table)
    attach(table, annotation)
    return table
