"""Whatever a notebook has at hand, as a section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sclinguist_core.data.section import Section

if TYPE_CHECKING:
    from anndata import AnnData


def as_section(source: AnnData | Section | str | Path, *, layer: str | None = None) -> Section:
    """Make a section of an AnnData, a path or a section.

    Parameters
    ----------
    source
        An AnnData is not changed: the section's table is a new one around the same arrays, so
        that columns can be added to it.
    layer
        Layer that holds the raw counts; found by itself when None.
    """
    from sclinguist_core.data.readers import open_section

    if isinstance(source, Section):
        return source
    if isinstance(source, str | Path):
        return open_section(source, layer=layer)
    from sclinguist_core.data.readers.h5ad import make_names_unique, section_of

    table = around_same_arrays(source)
    make_names_unique(table)
    return section_of(table, Path("AnnData"), layer=layer, name="AnnData")


def around_same_arrays(table: AnnData) -> AnnData:
    """Make a new table around the arrays of another, so that columns and keys can be added to it.

    Nothing is copied but ``obs`` and ``var``; the other table is not changed.
    """
    return type(table)(
        X=table.X,
        obs=table.obs.copy(),
        var=table.var.copy(),
        uns=dict(table.uns),
        obsm=dict(table.obsm),
        varm=dict(table.varm),
        varp=dict(table.varp),
        layers=dict(table.layers),
        obsp=dict(table.obsp),
        raw=None if table.raw is None else {
            "X": table.raw.X, "var": table.raw.var, "varm": dict(table.raw.varm)
        },
    )  # fmt: skip
