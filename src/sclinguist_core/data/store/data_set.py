"""Writing one data set of a store from its source, a window of shuffled cells at a time.

Shapes: n cells, G genes, A antibodies.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.features import gene_ids, original_names
from sclinguist_core.data.store.index import (
    N_CELLS,
    RECORD,
    Options,
    Record,
    SourceMark,
    location,
)
from sclinguist_core.data.store.order import Window, windows
from sclinguist_core.data.store.source import Source
from sclinguist_core.data.store.write import (
    CsrWriter,
    FrameWriter,
    RowsWriter,
    open_new,
    smallest_type,
    write_element,
)
from sclinguist_core.errors import InputError
from sclinguist_core.files import holder, replace_folder, sync, sync_names
from sclinguist_core.vocabulary.genes import resolve_genes

if TYPE_CHECKING:
    import zarr

_SAMPLED_CELLS = 200
_PROTEIN_ROWS = 16_384
_SPARSE_SLICE = 16
"""Rows of a slice are read one by one where they are fewer than one in so many of their range."""


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build is.

    Attributes
    ----------
    done, total
        Cells of the source in hand.
    phase
        What is done with it.
    """

    done: int
    total: int
    phase: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set to be written.

    Attributes
    ----------
    name
        Its name.
    rows
        Rows of the source, sorted.
    parts
        Names of all data sets that are made of the source.
    store
        Folder of the store.
    options, mark
        How it is built, and what from.
    """

    name: str
    rows: np.ndarray
    parts: tuple[str, ...]
    store: Path
    options: Options
    mark: SourceMark


def write_data_set(source: Source, job: DataSet) -> Generator[BuildProgress, None, Record]:
    """Write a data set; it takes its name when it is complete.

    Raises
    ------
    InputError
        If the source is damaged, or changes while it is read.
    """
    final = location(job.store, job.name)
    final.parent.mkdir(exist_ok=True)
    n_obs, genes = len(job.rows), _sorted_genes(source.var)
    n_proteins = 0 if source.panel is None else len(source.panel)
    with holder(final) as folder:
        new = folder / final.name
        root = open_new(new)
        per_row, dtype = _values_per_row(source, job.rows), smallest_type(source.highest)
        counts = CsrWriter(root, "X", (n_obs, len(genes)), per_row, dtype)
        proteins, scratch = None, folder / "proteins.scratch"
        if n_proteins:
            _copy_proteins(source, job.rows, scratch)
            obsm = root.require_group("obsm")
            proteins = RowsWriter(obsm, "protein", (n_obs, n_proteins), np.dtype(np.float32))
        n_cells = np.zeros(len(genes), np.int64)
        order: list[np.ndarray] = []
        done = 0
        for window in windows(
            job.rows, job.options.seed, values_per_row=per_row, chunk_rows=source.chunk_rows
        ):
            cells = _gather(source, window, genes, dtype)
            n_cells += np.bincount(cells.indices, minlength=len(genes))
            counts.add(cells)
            if proteins is not None:
                proteins.add(_copied_proteins(scratch, n_proteins, window.rows))
            order.append(window.rows)
            done += len(window.order)
            yield BuildProgress(done, n_obs, f"writing {job.name}")
        n_values = counts.finish()
        if proteins is not None:
            proteins.finish()
        _write_frames(root, source, np.concatenate(order), genes, n_cells)
        if not job.mark.is_untouched():
            raise InputError(
                f"'{job.mark.path}' changed while it was read: call it again when nobody writes it."
            )
        record = Record(
            name=job.name,
            n_obs=n_obs,
            n_genes=len(genes),
            n_proteins=n_proteins,
            n_values=n_values,
            counts=source.where,
            source=job.mark,
            options=job.options,
            parts=job.parts,
        )
        root.attrs[RECORD] = record.to_plain()
        sync(new)
        replace_folder(new, final)
    sync_names(final.parent)
    return record


def _sorted_genes(var: pd.DataFrame) -> np.ndarray:
    """Order of the genes in a store: by canonical symbol, unknown ones last.

    A model's genes are sorted so too; bringing rows onto them then need not sort every row.
    """
    ids = gene_ids(var)
    resolved = resolve_genes(list(original_names(var)), ids=None if ids is None else list(ids))
    symbols = resolved.symbols.astype(str)
    return np.lexsort((symbols, symbols == ""))


def _values_per_row(source: Source, rows: np.ndarray) -> float:
    """Count the values above zero of a cell, on average over evenly spread cells."""
    firsts = np.unique(np.linspace(0, len(rows) - 1, _SAMPLED_CELLS).astype(np.int64))
    lengths = [np.count_nonzero(source.rows(row, row + 1).data) for row in rows[firsts].tolist()]
    return max(1.0, float(np.mean(lengths)))


def _gather(
    source: Source, window: Window, genes: np.ndarray, dtype: np.dtype[Any]
) -> sparse.csr_matrix:
    """Read the counts of a window, in its order, genes sorted, no stored zero."""
    position = np.empty(len(genes), np.int32)
    position[genes] = np.arange(len(genes), dtype=np.int32)
    blocks = []
    for rows in window.slices:
        for block in _read(source, rows):
            values = block.data.astype(dtype)
            if (values != block.data).any():
                # A number that is too large for the type would start again from zero, unseen.
                raise InputError(
                    f"'{source.path}': {source.where} holds counts beyond {np.iinfo(dtype).max:,}, "
                    f"expected none above {source.highest:g}, the highest found at first: call it "
                    "again when nobody writes the file."
                )
            parts = (values, position[block.indices], block.indptr)
            blocks.append(sparse.csr_matrix(parts, shape=block.shape))
    cells = sparse.csr_matrix(sparse.vstack(blocks, format="csr", dtype=dtype)[window.order])
    n_values = cells.nnz
    cells.sum_duplicates()
    if cells.nnz < n_values:
        raise InputError(
            f"{source.path}: {source.where} is damaged: a cell has two counts of one gene; write "
            "the file anew."
        )
    cells.eliminate_zeros()
    return cells


def _read(source: Source, rows: np.ndarray) -> Iterator[sparse.csr_matrix]:
    """Read the counts of some rows, in few reads."""
    first, stop = int(rows[0]), int(rows[-1]) + 1
    if stop - first <= _SPARSE_SLICE * len(rows):
        block = source.rows(first, stop)
        yield block if len(rows) == stop - first else block[rows - first]
        return
    for row in rows.tolist():
        yield source.rows(row, row + 1)


def _copy_proteins(source: Source, rows: np.ndarray, scratch: Path) -> None:
    """Copy antibody counts, float32, shape (n, A), to a file from which any rows can be had.

    Tables keep them by antibody, where a few rows cost as much as all. They are written as any
    file is: a full disk is then an error, while behind a memory map it kills the process.
    """
    assert source.panel is not None
    n_obs, row_bytes = len(source.obs_names), 4 * len(source.panel)
    with open(scratch, "wb") as file:
        file.truncate(n_obs * row_bytes)
        for start in range(0, n_obs, _PROTEIN_ROWS):
            stop = min(start + _PROTEIN_ROWS, n_obs)
            if np.searchsorted(rows, start) == np.searchsorted(rows, stop):
                continue  # none of these is wanted
            file.seek(start * row_bytes)
            file.write(np.ascontiguousarray(source.proteins(start, stop), np.float32).tobytes())


def _copied_proteins(scratch: Path, n_proteins: int, rows: np.ndarray) -> np.ndarray:
    """Read what `_copy_proteins` wrote of some rows, shape (rows, A); the file is closed again."""
    values = np.memmap(scratch, np.float32, "r").reshape(-1, n_proteins)
    return np.asarray(values[rows])


def _write_frames(
    root: zarr.Group,
    source: Source,
    rows: np.ndarray,
    genes: np.ndarray,
    n_cells: np.ndarray,
) -> None:
    """Write everything but the matrices, with the rows of the source in their new order."""
    obs = FrameWriter(root, "obs", source.obs_names.to_numpy(dtype=object)[rows])
    for name in source.obs_columns:
        # One column in memory at a time.
        obs.add(name, source.obs_column(name)[rows])
    obs.finish()
    write_element(root, "var", source.var.iloc[genes].assign(**{N_CELLS: n_cells}))
    if source.positions is not None:
        write_element(root.require_group("obsm"), "spatial", source.positions[rows])
    if source.panel is not None:
        write_element(root.require_group("uns"), "protein_panel", source.panel)
        # Names of the columns of obsm["protein"]: a plain array, which is read by rows.
        write_element(
            root.require_group("uns"), "protein_names", source.panel.index.to_numpy(dtype=object)
        )
    if source.is_simulated:
        write_element(root.require_group("uns"), "simulated", True)
