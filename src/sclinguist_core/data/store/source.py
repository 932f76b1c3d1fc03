"""What a data set of a store is made from: any table, as cells that are read in blocks of rows.

``.h5ad`` and AnnData ``.zarr`` are read a few rows at a time, so that they may be larger than
memory. Everything else that `open_section` opens is read whole.

Shapes: n cells, G genes, A antibodies.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.backed import BackedTable
from sclinguist_core.data.features import antibody_mask, gene_mask
from sclinguist_core.data.readers import open_section
from sclinguist_core.data.readers.assemble import check_barcodes
from sclinguist_core.data.readers.h5ad import make_names_unique
from sclinguist_core.data.readers.locate import locate
from sclinguist_core.data.readers.notice import says_simulated
from sclinguist_core.data.readers.proteins import attach_measured_proteins
from sclinguist_core.errors import InputError
from sclinguist_core.files import n_bytes

if TYPE_CHECKING:
    from anndata import AnnData

    from sclinguist_core.data.section import Section

_WHOLE_BYTES = 2**29
"""Files up to this size are read whole where their rows cannot be read a few at a time."""
_PROBED_ROWS = 32
"""Rows by which a file is asked for its antibodies."""


class Source(Protocol):
    """Cells to be stored.

    Attributes
    ----------
    path
        Where they come from.
    where
        Place of the raw counts.
    highest
        Largest count.
    notes
        What the user should know, one sentence each.
    var
        Features at the place of the counts, genes alone, in the order of the file.
    panel
        What the antibodies are, one row each, in the order of `proteins`; None without any.
    chunk_rows
        Rows that are best read together.
    """

    path: Path
    where: str
    highest: float
    notes: list[str]
    var: pd.DataFrame
    panel: pd.DataFrame | None
    chunk_rows: int

    @property
    def obs_names(self) -> pd.Index:
        """Names of the cells, length n."""
        ...

    @property
    def obs_columns(self) -> list[str]:
        """Names of the columns of ``obs``."""
        ...

    def obs_column(self, name: str) -> Any:
        """One column of ``obs``, of any type that anndata writes, length n."""
        ...

    @property
    def positions(self) -> np.ndarray | None:
        """``obsm["spatial"]``, shape (n, 2 or more)."""
        ...

    @property
    def is_simulated(self) -> bool:
        """Whether the data come from a simulation."""
        ...

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Raw counts of some rows, whole numbers of any type, CSR, shape (stop - start, G)."""
        ...

    def proteins(self, start: int, stop: int) -> np.ndarray:
        """Antibody counts of some rows, float32, shape (stop - start, A); NaN = not measured."""
        ...


@contextmanager
def open_source(path: Path) -> Iterator[BackedSource | WholeSource]:
    """Open a table for `Source.look`.

    Raises
    ------
    InputError
        If it cannot be opened.
    """
    located = locate(path)
    if located.kind in {"h5ad", "anndata_zarr"}:
        with BackedTable(located.path) as table:
            if table.has_rows or n_bytes(located.path) > _WHOLE_BYTES:
                yield BackedSource(table)
                return
    yield WholeSource(path)


class WholeSource:
    """A table in memory; see `Source`."""

    chunk_rows = 1

    def __init__(self, path: Path) -> None:
        self.path = path

    def look(
        self, layer: str | None, protein_key: str | None
    ) -> Generator[tuple[int, int], None, None]:
        """Open the table; yields how many of how many cells were looked at.

        Raises
        ------
        InputError
            If it cannot be used.
        """
        yield 0, 1
        if protein_key is not None:
            raise InputError(
                f"'{self.path}': the option --protein-key is for .h5ad and .zarr with counts by "
                "row (CSR); leave it out."
            )
        self._section: Section = open_section(self.path, layer=layer)
        rna = self._section.rna()
        self._counts = rna.counts
        self.where = self._section.counts_location
        self.highest = float(rna.counts.data.max(initial=0.0))
        self.notes = list(self._section.warnings)
        var = self._section.counts_var
        self.var = var[gene_mask(var)]
        table = self._section.table
        self.panel = table.uns["protein_panel"] if self._section.has_protein else None
        yield table.n_obs, table.n_obs

    @property
    def obs_names(self) -> pd.Index:
        """See `Source`."""
        return self._section.table.obs_names

    @property
    def obs_columns(self) -> list[str]:
        """See `Source`."""
        return list(map(str, self._section.table.obs.columns))

    def obs_column(self, name: str) -> Any:
        """See `Source`."""
        column = self._section.table.obs[name]
        return column.array if pd.api.types.is_extension_array_dtype(column) else column.to_numpy()

    @property
    def positions(self) -> np.ndarray | None:
        """See `Source`."""
        return self._section.positions if self._section.is_spatial else None

    @property
    def is_simulated(self) -> bool:
        """See `Source`."""
        return bool(self._section.table.uns.get("simulated", False))

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """See `Source`."""
        return self._counts[start:stop]

    def proteins(self, start: int, stop: int) -> np.ndarray:
        """See `Source`."""
        return self._section.table.obsm["protein"].iloc[start:stop].to_numpy(np.float32)


class BackedSource:
    """An AnnData file that stays on disk; see `Source`."""

    def __init__(self, table: BackedTable) -> None:
        self._table = table
        self.path = table.path

    def look(
        self, layer: str | None, protein_key: str | None
    ) -> Generator[tuple[int, int], None, None]:
        """Find counts and antibodies; yields how many of how many cells were looked at.

        Raises
        ------
        InputError
            If it cannot be used.
        """
        self._obs_names = self._table.obs_names()
        check_barcodes(self._obs_names, self.path)
        found = yield from self._table.find_counts_iter(layer)
        self.where, self.highest = found.where, found.highest
        self.notes = list(found.notes)
        self._matrix = self._table.matrix(self.where)
        self.chunk_rows = self._matrix.chunk_rows
        self._check_measured()
        var = self._unique_names(self._table.var(self.where))
        self._genes = gene_mask(var)
        self.var = var[self._genes]
        if self._matrix.shape != (len(self._obs_names), len(var)):
            raise InputError(
                f"'{self.path}' is damaged: {self.where} has the shape {self._matrix.shape}, "
                f"expected {len(self._obs_names):,} cells x {len(var):,} features; write it anew."
            )
        if not self._genes.any():
            raise InputError(
                f"'{self.path}' has no RNA: its {len(var)} features are all antibodies or "
                "controls, expected genes."
            )
        self._find_proteins(protein_key)

    @staticmethod
    def _unique_names(var: pd.DataFrame) -> pd.DataFrame:
        from anndata import AnnData

        with warnings.catch_warnings():
            # Repeated names are what this is for.
            warnings.filterwarnings("ignore", message=".*names are not unique")
            table = AnnData(var=var)
        make_names_unique(table)
        return table.var

    def _check_measured(self) -> None:
        if "measured" in self._table.names("layers"):
            raise InputError(
                f"'{self.path}' has a layer 'measured', by which cells differ in the genes that "
                "were measured, while a data set of a store has one list of genes: write one file "
                "for each list, with these genes alone."
            )

    # --- antibodies: the rule of `attach_measured_proteins`, applied to a few rows at a time ---

    def _find_proteins(self, protein_key: str | None) -> None:
        self.panel: pd.DataFrame | None = None
        self._uns = self._small_uns()
        self._var_of_x = self._unique_names(self._table.var("X"))
        keys = self._table.names("obsm")
        if protein_key is not None:
            if protein_key not in keys:
                raise InputError(
                    f"'{self.path}': --protein-key {protein_key!r} is not in obsm, which holds "
                    f"{', '.join(keys) or 'nothing'}."
                )
            self._uns.pop("protein_panel", None)
            keys = [protein_key]
        elif "protein" in keys:
            keys = ["protein"]
        elif antibody_mask(self._var_of_x).any():
            keys = []
        self._keys = {key: "protein" if protein_key is not None else key for key in keys}
        self._from_x = not keys
        probe = self._part(0, min(_PROBED_ROWS, len(self._obs_names)))
        self.notes += attach_measured_proteins(probe)
        if "protein" not in probe.obsm or not probe.obsm["protein"].shape[1]:
            return
        columns = list(probe.obsm["protein"].columns)
        self.panel = probe.uns["protein_panel"]
        self._uns["protein_panel"] = self.panel
        for key in keys:
            # Of several keys of obsm, only the one that holds the antibodies is read from now on.
            self._keys = {key: "protein" if protein_key is not None else key}
            probe = self._part(0, 1)
            attach_measured_proteins(probe)
            if "protein" in probe.obsm and list(probe.obsm["protein"].columns) == columns:
                return

    def _small_uns(self) -> dict[str, Any]:
        """Read lists of names and the panel: what says which antibodies columns are."""
        uns = {}
        for key in self._table.names("uns"):
            node = self._table.group["uns"][key]
            if key == "protein_panel" or len(getattr(node, "shape", ())) == 1:
                uns[key] = self._table.element(f"uns/{key}")
        return uns

    def _part(self, start: int, stop: int) -> AnnData:
        """Make a table of some rows, as far as antibodies are concerned."""
        from anndata import AnnData

        names = [str(row) for row in range(start, stop)]
        x = self._table.matrix("X").rows(start, stop) if self._from_x else None
        part = AnnData(
            X=x, obs=pd.DataFrame(index=names), var=self._var_of_x.copy(), uns=dict(self._uns)
        )
        for key, name in self._keys.items():
            values = self._table.obsm_rows(key, start, stop)
            if isinstance(values, pd.DataFrame):
                values.index = part.obs_names
            part.obsm[name] = values
        return part

    def proteins(self, start: int, stop: int) -> np.ndarray:
        """See `Source`."""
        part = self._part(start, stop)
        attach_measured_proteins(part)
        return part.obsm["protein"].to_numpy(np.float32)

    # --- everything else ---

    @property
    def obs_names(self) -> pd.Index:
        """See `Source`."""
        return self._obs_names

    @property
    def obs_columns(self) -> list[str]:
        """See `Source`."""
        return [str(name) for name in self._table.group["obs"].attrs["column-order"]]

    def obs_column(self, name: str) -> Any:
        """See `Source`."""
        return self._table.element(f"obs/{name}")

    @property
    def positions(self) -> np.ndarray | None:
        """See `Source`."""
        if "spatial" not in self._table.names("obsm"):
            return None
        positions = np.asarray(self._table.element("obsm/spatial"))
        is_usable = positions.ndim == 2 and positions.dtype.kind in "iuf"
        return positions if is_usable else None

    @property
    def is_simulated(self) -> bool:
        """See `Source`."""
        said = "simulated" in self._table.names("uns")
        return says_simulated(self.path) or (said and bool(self._table.element("uns/simulated")))

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """See `Source`."""
        rows = self._matrix.rows(start, stop)
        if rows.dtype.kind == "f":
            rows.data = np.rint(rows.data)
        return rows if self._genes.all() else rows[:, self._genes]
