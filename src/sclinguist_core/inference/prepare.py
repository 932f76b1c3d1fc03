"""What every run over a section needs: a model, the section's genes as the model's, a device.

Shapes: n cells or spots, G genes of the section, V genes of the model, P chosen proteins.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

import sclinguist_core
from sclinguist_core.data.align import (
    FEW_GENES,
    MIN_RESOLVED_GENES,
    AlignedRna,
    GeneAligner,
    gene_aligner,
)
from sclinguist_core.data.section import RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.inference.query import QueryRunner, split_names
from sclinguist_core.inference.runner import Runner, make_runner
from sclinguist_core.model.calibration import ContextCalibration
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint
from sclinguist_core.model.device import choose_device
from sclinguist_core.model.gene_queries import GeneQueries, gene_queries
from sclinguist_core.vocabulary.proteins import find_product, resolve_protein

if TYPE_CHECKING:
    import torch


class RnaSource(Protocol):
    """What a model needs of a section, whether in memory (`Section`) or on disk."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def n_obs(self) -> int: ...  # noqa: D102
    @property
    def is_spatial(self) -> bool: ...  # noqa: D102
    @property
    def warnings(self) -> tuple[str, ...]: ...  # noqa: D102
    def rna(self) -> RnaCounts: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prepared:
    """A section and a model that fit each other.

    Attributes
    ----------
    section
        With RNA.
    rna
        Its raw counts.
    checkpoint
        The model; it has learned to predict protein from RNA.
    aligner
        How the section's genes map onto the model's.
    proteins
        Positions of the chosen proteins in the model's panel, int64, shape (P,).
    device
        Where to run.
    queries
        Further proteins, asked for by their genes; None where all are the model's own.
    """

    section: RnaSource
    rna: RnaCounts
    checkpoint: Checkpoint
    aligner: GeneAligner
    proteins: np.ndarray
    device: torch.device
    queries: GeneQueries | None = None

    @property
    def context(self) -> str:
        """What the rows are: ``"spots"`` or ``"cells"``."""
        return "spots" if self.section.is_spatial else "cells"

    @property
    def table(self) -> pd.DataFrame:
        """Rows of ``proteins.tsv`` for the chosen proteins."""
        return self.checkpoint.proteins.iloc[self.proteins]

    @property
    def names(self) -> list[str]:
        """Names of the proteins: chosen ones of the model, then those asked for by genes."""
        asked = [] if self.queries is None else self.queries.names
        return [*self.table["name"].tolist(), *asked]

    @property
    def calibration(self) -> ContextCalibration | None:
        """Calibration of the chosen proteins for this context; None where there is none."""
        found = (self.checkpoint.calibration or {}).get(self.context)
        return None if found is None else found.take(self.proteins)

    @property
    def provenance(self) -> dict[str, Any]:
        """What every result tells of how it was made; a new dict."""
        return {
            "input": self.section.name,
            "model": self.checkpoint.info.name,
            "model_digest": self.checkpoint.digest,
            "version": sclinguist_core.__version__,
            "date": time.strftime("%Y-%m-%d"),
        }

    @property
    def warnings(self) -> list[str]:
        """Sentences on what the section's genes mean for any result; a new list."""
        # Of a model that reads fewer genes than that itself, most are enough.
        found, few = self.aligner.n_found, min(FEW_GENES, len(self.checkpoint.genes) * 3 // 4)
        warnings = list(self.section.warnings)
        if self.aligner.resolution.species == "mouse":
            warnings.append(
                "The genes are of mouse; they were mapped to human genes by orthologs, and the "
                "model has seen human cells only: trust its values less."
            )
        if found < few:
            warnings.append(
                f"Only {found} of the model's genes were measured (fewer than {few}): trust its "
                "values less."
            )
        return warnings

    def aligned(self, rows: slice | np.ndarray) -> AlignedRna:
        """Bring the chosen rows onto the model's genes."""
        measured = None if self.rna.measured is None else self.rna.measured[rows]
        return self.aligner.apply(self.rna.counts[rows], measured)

    def runner(self, batch_size: int | None = None, *, log1p: bool = False) -> Runner:
        """Set the model up on the device, for the chosen proteins; see `make_runner`.

        Columns of `queries` follow those of the model's own proteins.
        """
        if self.queries is not None:
            if log1p:
                raise InputError(
                    f"log1p: {', '.join(self.queries.names[:3])} can be predicted on the CLR scale "
                    "alone, expected proteins that the model has learnt; leave out log1p or them."
                )
            return QueryRunner(
                self.checkpoint, self.device, self.proteins, batch_size, self.queries
            )
        return make_runner(self.checkpoint, self.device, self.proteins, batch_size, log1p=log1p)


def prepare(
    section: RnaSource,
    *,
    model: str | Path | Checkpoint = "bundled",
    proteins: str | Sequence[str] | None = None,
    device: str = "auto",
    by_gene: bool = False,
    for_protein: bool = True,
) -> Prepared:
    """Load a model and match a section with it; parameters as of `predict.predict_iter`.

    Parameters
    ----------
    by_gene
        Ask for proteins that the model has not learnt by their genes, instead of refusing them.
    for_protein
        Refuse a model that has not learnt to predict protein; False for what needs none, but a
        model that has learnt to read RNA.

    Raises
    ------
    InputError
        If the section has no RNA or too few of the model's genes, the model cannot predict
        protein from RNA, or a protein or device cannot be had.
    """
    if isinstance(proteins, str):  # one name, not a list of letters
        proteins = [proteins]
    rna = section.rna()
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    refused = "pretrain-" if for_protein else "pretrain-protein"
    if checkpoint.info.stage.startswith(refused):
        raise InputError(
            f"model {checkpoint.info.name!r}: comes from {checkpoint.info.stage} and has not "
            "learned to predict protein from RNA; go on with `sclinguist-train post-pretrain`."
        )
    asked = None
    if by_gene and proteins:
        proteins, asked = split_names(checkpoint, proteins)
    nothing_learnt = asked is not None and len(asked) and not proteins
    chosen = np.zeros(0, np.int64) if nothing_learnt else select_proteins(checkpoint, proteins)
    target = choose_device(device)
    aligner = gene_aligner(rna.names, rna.ids, checkpoint.symbols, source=section.name)
    fewest = min(MIN_RESOLVED_GENES, len(checkpoint.genes) // 2)
    if aligner.n_found < fewest:
        raise InputError(
            f"{section.name}: {aligner.n_found} of the model's {len(checkpoint.genes)} genes were "
            f"measured, expected at least {fewest}; use a model that was trained on these genes."
        )
    return Prepared(
        section=section,
        rna=rna,
        checkpoint=checkpoint,
        aligner=aligner,
        proteins=chosen,
        device=target,
        queries=None if asked is None or not len(asked) else gene_queries(checkpoint, asked),
    )


def select_proteins(checkpoint: Checkpoint, proteins: Sequence[str] | None) -> np.ndarray:
    """Find the chosen proteins (any spelling) in the model's panel; all of them when None.

    Raises
    ------
    InputError
        If a name is unknown, ambiguous, or not in the panel.
    """
    names = checkpoint.protein_names
    if proteins is None:
        return np.arange(len(names))
    position = {name: i for i, name in enumerate(names)}
    chosen: dict[int, None] = {}
    for given in proteins:
        canonical = given
        if given not in position:
            canonical = (find_product(given) or resolve_protein(given)).name
        if canonical not in position:
            raise InputError(
                f"protein {given!r} ({canonical}): the model {checkpoint.info.name!r} does not "
                f"predict it, expected one of its {len(names)} proteins; `sclinguist models "
                f"{checkpoint.path or 'bundled'} --proteins` lists them."
            )
        chosen[position[canonical]] = None
    if not chosen:
        raise InputError("proteins: found an empty list, expected at least one name.")
    return np.array(list(chosen), np.int64)
