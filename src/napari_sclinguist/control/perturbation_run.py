"""What the model answers when genes are perturbed: changes, and a ranked table of the proteins.

Shapes: n spots, bins or cells; P proteins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_sclinguist.control import names
from napari_sclinguist.control.entries import TRUST_ORDER
from napari_sclinguist.control.export import writing_to
from sclinguist_core.files import replacing

if TYPE_CHECKING:
    from sclinguist_core.inference.perturbation import Perturbation


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Run:
    """An answer.

    Attributes
    ----------
    title
        Such as ``"CD3E knocked out in all spots"``.
    changes
        (n, P) float32, columns by protein.
    table
        A row a protein, the largest change first: what `Perturbation.ranked` gives, with the
        columns ``protein``, ``trust`` and ``coded`` (whether a perturbed gene codes for it).
    genes, scale, where
        What was asked, with the symbols of the genes that the model knows.
    n_rows, n_affected
        Rows asked for, and those of them that express a gene.
    has_background
        Whether the table has a ``z``.
    unit
        Of the changes.
    warnings
        Sentences.
    """

    title: str
    changes: pd.DataFrame
    table: pd.DataFrame
    genes: tuple[str, ...]
    scale: float
    where: str
    n_rows: int
    n_affected: int
    has_background: bool
    unit: str
    warnings: tuple[str, ...] = ()

    @property
    def proteins(self) -> list[str]:
        """Names, the largest change first."""
        return self.table["protein"].tolist()


def make_run(
    found: Perturbation, rows: pd.Index, where: str, trust: dict[str, str] | None = None
) -> Run:
    """Turn what the model says into a ranked table with what is known of the proteins.

    Parameters
    ----------
    found
        Changes of n rows.
    rows
        Names of the rows, length n.
    where
        Such as ``"in all spots"``.
    trust
        Trust label of each predicted protein, where known.
    """
    table = found.ranked().reset_index()
    genes = tuple(found.info["genes"])
    coding, trust = names.coding_genes(), trust or {}
    labels = [trust.get(name, "") for name in table["protein"]]
    table["trust"] = pd.Categorical(labels, categories=list(TRUST_ORDER))
    table["coded"] = [not set(coding.get(name, ())).isdisjoint(genes) for name in table["protein"]]
    scale = float(found.info["scale"])
    return Run(
        title=f"{' + '.join(genes)} {_what(scale)} {where}",
        changes=pd.DataFrame(found.change, index=rows, columns=found.names, copy=False),
        table=table,
        genes=genes,
        scale=scale,
        where=where,
        n_rows=int(found.info["n_rows"]),
        n_affected=int(found.info["n_affected"]),
        has_background=found.background is not None,
        unit=str(found.info["unit"]),
        warnings=found.warnings,
    )


def export_run(run: Run, path: Path) -> None:
    """Write the ranked table of a run as CSV, whole or not at all.

    Raises
    ------
    InputError
        If the folder does not exist or cannot be written to.
    """
    table = run.table.assign(genes="; ".join(run.genes), scale=run.scale, where=run.where)
    with writing_to(path), replacing(path) as temporary:
        table.assign(unit=run.unit).to_csv(temporary, index=False, float_format="%.6g")


def _what(scale: float) -> str:
    return "knocked out" if scale == 0 else f"× {np.format_float_positional(scale, trim='-')}"
