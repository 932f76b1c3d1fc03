"""10x matrices without positions: dissociated cells."""

from __future__ import annotations

from pathlib import Path

from sclinguist_core.data.readers.assemble import Parts, assemble
from sclinguist_core.data.readers.layout import flat_mtx_prefix, prefix_of
from sclinguist_core.data.readers.spaceranger import read_counts, section_name
from sclinguist_core.data.section import Section


def open_tenx(path: Path, *, layer: str | None = None, name: str | None = None) -> Section:
    """Open a 10x ``.h5`` file or ``matrix.mtx`` folder as a set of cells.

    Parameters
    ----------
    path
        File or folder.
    layer
        Refused unless it is ``"X"``: these files have no layers.
    name
        Name; by default that of the sample's folder or the prefix of the file.
    """
    table = read_counts(path).to_anndata(path)
    warnings = []
    if "raw_feature_bc_matrix" in path.name:
        warnings.append(
            f"'{path.name}' holds all {table.n_obs:,} barcodes, most of them empty droplets: the "
            "filtered matrix is the one to use."
        )
    return assemble(
        Parts(
            name=name or _name(path),
            table=table,
            source=path,
            assay="cells",
            layer=layer,
            warnings=warnings,
        )
    )


def _name(path: Path) -> str:
    prefix = prefix_of(path)
    generic = "feature_bc_matrix" in path.name or flat_mtx_prefix(path) is not None
    if path.is_dir():
        return section_name(path.parent if generic else path, prefix)
    return section_name(path.parent, prefix) if generic else path.stem
