"""Reading a data set of a store: any rows, in blocks, without the rest.

Shapes: n cells, G genes, A antibodies.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.features import gene_ids, original_names
from sclinguist_core.data.readers.zarr_check import check_zarr
from sclinguist_core.data.store.index import N_CELLS, read_record
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    import zarr

    from sclinguist_core.data.section import Section


class StoredCells:
    """A data set of a store, as `sclinguist_core.data.store.build` wrote it.

    Opening it reads its record alone. It can be sent to another process, which opens the files
    anew.

    Parameters
    ----------
    path
        Its ``.zarr`` folder.
    name
        Name; by default that of the record.

    Attributes
    ----------
    record
        What it says about itself.

    Raises
    ------
    InputError
        If it is none, or damaged.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = Path(path)
        record = read_record(self.path)
        if record is None:
            raise InputError(
                f"'{path}' is no data set of a store, expected what `sclinguist store build` "
                "writes: give the store's folder, or build one."
            )
        check_zarr(self.path, not_whole=("X", "obsm"))
        self.record = record
        self.name = name or record.name

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open files."""
        return {key: vars(self)[key] for key in ("path", "record", "name")}

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self.record.n_obs

    @property
    def has_protein(self) -> bool:
        """Whether proteins were measured."""
        return self.record.n_proteins > 0

    @cached_property
    def _root(self) -> zarr.Group:
        import zarr

        return zarr.open_group(self.path, mode="r", use_consolidated=False)

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        keys = ["X/data", "X/indices"] + (["obsm/protein"] if self.has_protein else [])
        return {key: self._root[key] for key in keys}

    @cached_property
    def _indptr(self) -> np.ndarray:
        indptr: np.ndarray = self._element("X/indptr")
        if (
            getattr(indptr, "shape", ()) != (self.n_obs + 1,)
            or indptr.dtype.kind not in "iu"
            or int(indptr[0]) != 0
            or int(indptr[-1]) != self.record.n_values
            or (indptr[1:] < indptr[:-1]).any()
        ):
            raise self._damaged("its rows do not fit its counts")
        return indptr

    @cached_property
    def var(self) -> pd.DataFrame:
        """Genes, G rows, sorted by canonical symbol."""
        return self._frame("var", self.record.n_genes)

    @property
    def names(self) -> np.ndarray:
        """Gene names as in the source, shape (G,)."""
        return original_names(self.var)

    @property
    def ids(self) -> np.ndarray | None:
        """Ensembl ids, shape (G,), or None."""
        return gene_ids(self.var)

    @property
    def n_cells(self) -> np.ndarray:
        """Cells that express each gene, int64, shape (G,)."""
        n_cells: np.ndarray = self.var[N_CELLS].to_numpy(np.int64)
        return n_cells

    @cached_property
    def panel(self) -> pd.DataFrame:
        """What the antibodies are, A rows."""
        return self._frame("uns/protein_panel", self.record.n_proteins)

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Read counts of consecutive cells, CSR, float32, shape (stop - start, G)."""
        first, last = int(self._indptr[start]), int(self._indptr[stop])
        data = self._read("X/data", first, last).astype(np.float32)
        indices = self._read("X/indices", first, last)
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.record.n_genes:
            raise self._damaged("it names genes that are not there")
        indptr = (self._indptr[start : stop + 1] - first).astype(np.int32)
        shape = (stop - start, self.record.n_genes)
        matrix = sparse.csr_matrix((data, indices, indptr), shape=shape, copy=False)
        matrix.has_canonical_format = True  # the builder sorted them and merged duplicates
        return matrix

    def proteins(self, start: int, stop: int) -> np.ndarray:
        """Read antibody counts of consecutive cells, float32, shape (stop - start, A)."""
        proteins = self._read("obsm/protein", start, stop)
        if proteins.shape != (stop - start, self.record.n_proteins):
            raise self._damaged("it has other antibodies than it says")
        return proteins

    def section(self, start: int = 0, stop: int | None = None, *, with_rna: bool = True) -> Section:
        """Read consecutive cells as a section.

        Parameters
        ----------
        start, stop
            Which; by default all.
        with_rna
            Whether to read their counts; without, ``X`` is empty.
        """
        from anndata import AnnData

        from sclinguist_core.data.section import Section

        stop = self.n_obs if stop is None else stop
        shape = (stop - start, self.record.n_genes)
        counts = self.rows(start, stop) if with_rna else sparse.csr_matrix(shape, dtype=np.float32)
        names = pd.RangeIndex(start, stop).astype(str)
        table = AnnData(counts, obs=pd.DataFrame(index=names), var=self.var)
        if self.has_protein:
            table.obsm["protein"] = pd.DataFrame(
                self.proteins(start, stop), index=names, columns=list(self.panel.index)
            )
            table.uns["protein_panel"] = self.panel
        return Section(name=self.name, table=table, source=self.path)

    def _read(self, key: str, start: int, stop: int) -> np.ndarray:
        try:
            values: np.ndarray = self._arrays[key][start:stop]
        except Exception as error:  # zarr, codecs and the system share no base class
            raise self._damaged(str(error)) from error
        return values

    def _element(self, key: str) -> Any:
        from anndata.io import read_elem

        try:
            return read_elem(self._root[key])
        except Exception as error:
            raise self._damaged(str(error)) from error

    def _frame(self, key: str, n_rows: int) -> pd.DataFrame:
        frame = self._element(key)
        if not isinstance(frame, pd.DataFrame) or len(frame) != n_rows:
            raise self._damaged(f"{key} is no table of {n_rows:,} rows")
        if not frame.index.is_unique:
            raise self._damaged(f"{key} names something twice")
        return frame

    def _damaged(self, reason: str) -> InputError:
        line = (reason.strip().splitlines() or ["no reason is given"])[0]
        return InputError(
            f"'{self.path}' cannot be read ({line}): the store is damaged or not complete; delete "
            "this data set and build it anew with `sclinguist store build`."
        )
