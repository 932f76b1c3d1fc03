"""What an evaluation is given: predictions, measurements, and cells to train baselines on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclinguist_core.data.readers.memory import as_section
from sclinguist_core.data.section import RnaCounts, Section
from sclinguist_core.errors import InputError
from sclinguist_core.evaluation.features import PairedCells

if TYPE_CHECKING:
    from anndata import AnnData

_MIN_MATCHED_SHARE = 0.5


def label(section: Section) -> str:
    """Name a section in a message: by its path where it has one."""
    return section.name if section.source is None else str(section.source)


def observations(section: Section) -> str:
    """Name what a row is, in the plural: spots, bins or cells."""
    return {"visium": "spots", "visium_hd": "bins"}.get(section.assay, "cells")


def predicted_protein(section: Section) -> pd.DataFrame:
    """Predictions of a section, (n, proteins) under canonical names.

    Raises
    ------
    InputError
        If the file holds none.
    """
    predicted = section.table.obsm.get("protein_predicted")
    if predicted is None or predicted.shape[1] == 0:
        raise InputError(
            f"{label(section)} holds no predictions (obsm['protein_predicted']); make them first "
            "with: sclinguist predict INPUT -o PRED"
        )
    if not isinstance(predicted, pd.DataFrame):
        raise InputError(
            f"{label(section)}: obsm['protein_predicted'] has no protein names, expected a "
            "DataFrame; write it again with: sclinguist predict INPUT -o PRED"
        )
    return predicted


def measured_protein(section: Section, *, wanted_by: Section) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Raw antibody counts (n, antibodies) of a section and what each antibody is.

    Raises
    ------
    InputError
        If no protein was measured, or if the values cannot be counts.
    """
    if not section.has_protein:
        extra = (
            "; give the file that has them with --truth FILE"
            if section is wanted_by
            else "; give another --truth file"
        )
        raise InputError(
            f"{label(section)} has no measured protein (obsm['protein'] or Antibody Capture "
            f"features) to compare the predictions with{extra}"
        )
    counts = section.table.obsm["protein"]
    low = np.nanmin(counts.to_numpy(np.float64), initial=0.0)
    if low < 0:
        raise InputError(
            f"{label(section)}: obsm['protein'] holds negative values (minimum {low:.3g}), "
            "expected raw antibody counts; put the counts from before normalisation there"
        )
    panel = section.table.uns.get("protein_panel")
    if not isinstance(panel, pd.DataFrame) or list(panel.index) != list(counts.columns):
        from sclinguist_core.vocabulary.proteins import resolve_panel

        panel = resolve_panel(counts.columns)
    return counts, panel


def match_cells(section: Section, truth: Section) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a prediction and of a separate measurement that are the same cells.

    Returns
    -------
    rows, truth_rows
        int64, equally long, in the order of the prediction.

    Raises
    ------
    InputError
        If barcodes repeat, or if under half of the smaller file's barcodes are in the other.
    """
    ours, theirs = section.table.obs_names.astype(str), truth.table.obs_names.astype(str)
    for name, barcodes in ((label(section), ours), (label(truth), theirs)):
        if not barcodes.is_unique:
            twice = barcodes[barcodes.duplicated()][0]
            raise InputError(
                f"{name}: barcode {twice} occurs more than once, expected unique barcodes to match "
                "the files by; make them unique in both files"
            )
    position = theirs.get_indexer(ours)
    rows = np.flatnonzero(position >= 0)
    smaller = min(len(ours), len(theirs))
    if len(rows) < _MIN_MATCHED_SHARE * smaller or len(rows) == 0:
        raise InputError(
            f"Only {len(rows):,} of {smaller:,} barcodes of {label(section)} are in "
            f"{label(truth)} (such as {ours[0]} and {theirs[0]}), expected at least half; give "
            "the measurement of the same cells, with the same barcodes"
        )
    return rows, position[rows]


def paired_cells(data: AnnData | Section | str | Path) -> PairedCells:
    """Open a training file: cells with RNA and raw antibody counts.

    Raises
    ------
    InputError
        If it lacks one of the two.
    """
    section = as_section(data)
    if not section.has_protein:
        raise InputError(
            f"{label(section)} has no measured protein, expected RNA and antibody counts of the "
            "same cells to train baselines on; leave it out of --train"
        )
    counts, panel = measured_protein(section, wanted_by=section)
    return PairedCells(section.name, section.rna(), counts, panel)


def provenance(section: Section) -> dict[str, Any]:
    """``uns["sclinguist"]`` of a prediction as a plain dictionary; empty where there is none."""
    found = section.table.uns.get("sclinguist")
    return dict(found) if isinstance(found, Mapping) else {}


def is_simulated(section: Section) -> bool:
    """Whether the data say of themselves that nobody measured them (``uns["simulated"]``).

    Readers set it for folders that carry a notice, see
    :func:`sclinguist_core.data.readers.notice.says_simulated`.
    """
    return bool(section.table.uns.get("simulated", False))


def take_cells(rna: RnaCounts, rows: np.ndarray) -> RnaCounts:
    """Raw RNA counts of the chosen cells (int64 rows); the same object when all are chosen."""
    if len(rows) == rna.counts.shape[0] and np.array_equal(rows, np.arange(len(rows))):
        return rna
    return RnaCounts(
        counts=rna.counts[rows],
        names=rna.names,
        ids=rna.ids,
        measured=None if rna.measured is None else rna.measured[rows],
    )
