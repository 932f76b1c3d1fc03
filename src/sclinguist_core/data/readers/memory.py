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

    table = type(source)(
        X=source.X,
        obs=source.obs.copy(),
        var=source.var.copy(),
        uns=dict(source.uns),
        obsm=dict(source.obsm),
        varm=dict(source.varm),
        varp=dict(source.varp),
        layers=dict(source.layers),
        obsp=dict(source.obsp),
        raw=None if source.raw is None else {
            "X": source.raw.X, "var": source.raw.var, "varm": dict(source.raw.varm)
        },
    )  # fmt: skip
    make_names_unique(table)
    return section_of(table, Path("AnnData"), layer=layer, name="AnnData")
