"""Antibody counts without RNA, from CSV or TSV: one row a cell, or one row a protein."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.numbers import SAFE_PRECISION
from sclinguist_core.data.section import Section
from sclinguist_core.errors import InputError
from sclinguist_core.reading import opened, reading
from sclinguist_core.vocabulary.proteins import resolve_panel

if TYPE_CHECKING:
    from sclinguist_core.train.sources import DataEntry


def read_antibody_table(entry: DataEntry) -> Section:
    """Read antibody counts into a section without RNA.

    Columns of numbers are antibodies, under the study's own names, if their names are known to be
    some; what they are (``uns["protein_panel"]``) decides later which become targets, so that an
    isotype control never does. Other columns go to ``obs``: one of depths would be no target, but
    it would move the centre of the CLR.

    Raises
    ------
    InputError
        If the file cannot be read, or holds fewer than two known antibodies.
    """
    from anndata import AnnData

    path = Path(entry.path)
    separator = "\t" if ".tsv" in path.name.lower() else ","
    kind = "a table of antibody counts, one row a cell"
    with opened(path) as file, reading(path, kind, remedy="write it anew as CSV or TSV"):
        table = pd.read_csv(
            file, sep=separator, index_col=0, low_memory=False, float_precision=SAFE_PRECISION
        )
    if entry.transpose:
        table = table.T
    table.index = pd.Index(table.index.astype(str), dtype=object)
    antibodies = table.select_dtypes("number").astype(np.float32)
    panel = resolve_panel([str(name) for name in antibodies.columns])
    n_known = int((panel["status"] == "resolved").sum())
    if n_known < 2:
        known = resolve_panel(list(table.index[:200]))["status"] == "resolved"
        hint = "; set transpose: true" if not entry.transpose and known.sum() >= 2 else ""
        raise InputError(
            f"{path}: {n_known} of {len(panel)} columns are known antibodies, expected at least "
            f"two{hint}; see `sclinguist proteins resolve`."
        )
    is_antibody = (panel["status"] != "unknown").to_numpy()
    panel, antibodies = panel.loc[is_antibody], antibodies.loc[:, is_antibody]
    others = table.drop(columns=antibodies.columns)
    values = antibodies.to_numpy()  # NaN where an antibody was not measured
    if (values < 0).any() or np.isinf(values).any():
        raise InputError(
            f"{path}: holds negative or infinite values, expected raw antibody counts; give the "
            "raw counts."
        )
    if table.index.has_duplicates:
        table.index = antibodies.index = others.index = pd.Index(
            [f"{name}-{i}" for i, name in enumerate(table.index)], dtype=object
        )
    adata = AnnData(sparse.csr_matrix((len(table), 0), dtype=np.float32), obs=others)
    antibodies.columns = panel.index
    adata.obsm["protein"] = antibodies
    adata.uns["protein_panel"] = panel
    return Section(name=entry.name, table=adata, source=path)
