"""A table of cells that stays on disk, with what a model needs of it: a `Section` without matrices.

Positions, names and libraries are understood by the same code as those of a table in memory, and
counts are found by the same rule, judged by a sample of rows first and again whenever a block is
read. Memory grows by some 16 bytes a row (where rows begin and, while it is opened, a digest of
their names), by 32 more where rows have positions.

Shapes: n cells or spots, G genes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sclinguist_core.data.backed import BackedTable
from sclinguist_core.data.backed_matrix import BackedMatrix
from sclinguist_core.data.compression import slow_compression
from sclinguist_core.data.counts import (
    ValueSurvey,
    Verdict,
    as_counts,
    choose_counts,
    count_places,
)
from sclinguist_core.data.features import gene_ids, gene_mask, original_names
from sclinguist_core.data.readers.assemble import Parts, check_barcodes, check_place
from sclinguist_core.data.readers.notice import says_simulated
from sclinguist_core.data.section import Assay, RnaCounts
from sclinguist_core.errors import InputError
from sclinguist_core.reading import reading

_SAMPLE_BLOCKS = 16
_SAMPLE_VALUES = 2**18
"""Values of each block of the sample by which places of counts are judged."""
_SAMPLE_ROWS = 16
"""Rows by which an input is known again."""
_NAMES_AT_ONCE = 2**16


class BackedCounts:
    """Raw counts of the genes, read from the disk a few rows at a time.

    It stands where a CSR matrix would, for those who take nothing but rows from it.

    Parameters
    ----------
    matrix
        On disk, n rows.
    genes
        Which of its columns to keep, bool; None for all.
    """

    def __init__(self, matrix: BackedMatrix, genes: np.ndarray | None) -> None:
        self.matrix = matrix
        self._genes = genes
        n_genes = matrix.shape[1] if genes is None else int(genes.sum())
        self.shape = (matrix.shape[0], n_genes)
        self.n_rounded = 0
        """Blocks so far that held fractions, as estimated counts have."""

    def __getitem__(self, rows: slice | np.ndarray) -> sparse.csr_matrix:
        """Read the counts of a range of rows, or of chosen ones; CSR float32, shape (rows, G).

        Raises
        ------
        InputError
            If they cannot be read or are no counts.
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            return self._block(start, stop)
        return sparse.vstack([self._block(row, row + 1) for row in rows.tolist()], format="csr")

    def _block(self, start: int, stop: int) -> sparse.csr_matrix:
        block = _columns(self.matrix.rows(start, stop), self._genes)
        survey = ValueSurvey(block.nnz)
        survey.add(block.data)
        verdict = survey.verdict()
        if not verdict.counts:
            first, last = _bad_rows(block)
            raise InputError(
                f"{self.matrix.label} holds {verdict.found} in rows {start + first:,} to "
                f"{start + last:,} (of {self.shape[0]:,}, counted from 0), expected raw counts "
                "(non-negative whole numbers) as elsewhere in it: mend or remove these rows."
            )
        self.n_rounded += bool(verdict.rounding)
        return as_counts(block)


class BackedMeasured:
    """Which genes each row measured, read from the disk; see `RnaCounts.measured`."""

    def __init__(self, matrix: BackedMatrix, genes: np.ndarray | None) -> None:
        self._matrix = matrix
        self._genes = genes

    def __getitem__(self, rows: slice | np.ndarray) -> sparse.csr_matrix:
        """Read the mask of a range of rows, or of chosen ones; CSR, shape (rows, G)."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self._matrix.shape[0])
            return _columns(self._matrix.rows(start, stop), self._genes)
        parts = [_columns(self._matrix.rows(row, row + 1), self._genes) for row in rows.tolist()]
        return sparse.vstack(parts, format="csr")


class BackedSection:
    """A section or a set of cells whose matrices stay on disk; closed by ``with`` or `close`.

    Parameters
    ----------
    path
        ``.h5ad`` file or AnnData ``.zarr`` folder.
    layer
        Layer that holds the raw counts; by default they are searched for.

    Attributes
    ----------
    name, assay, is_spatial, counts_location, warnings
        As of `Section`. That rows are empty is known, and told, only when all were read.
    n_obs
        Number of cells or spots.
    slow
        Why the counts unpack slowly, and the remedy, in one sentence; else None.
    table
        The file.

    Raises
    ------
    InputError
        If the file is damaged, holds several sections or no counts, names cells twice, or stores
        its counts by column.
    """

    def __init__(self, path: Path, *, layer: str | None = None) -> None:
        self.path = path
        self.table = BackedTable(path)
        try:
            self._open(layer)
        except BaseException:
            self.close()
            raise

    def _open(self, layer: str | None) -> None:
        table = self.table
        self.n_obs, n_vars = table.n_obs, len(table.var())
        if self.n_obs == 0 or n_vars == 0:
            raise InputError(
                f"'{self.path}' is empty: {self.n_obs} barcodes x {n_vars} features, expected at "
                "least one of each; give a matrix with counts."
            )
        _check_names(table)
        parts = _parts(table, layer)
        self.name = parts.name
        self.assay: Assay = parts.assay
        self.is_spatial = "spatial" in parts.table.obsm
        notes = [*parts.warnings, *check_place(parts)]
        layers = table.names("layers")
        has_raw = "X" in table.names("raw")
        where, found = choose_counts(
            count_places(layers, has_x="X" in table.group, has_raw=has_raw),
            layers,
            self._judge,
            layer,
            f"'{self.path}'",
        )
        self.counts_location = where
        self.warnings = (*notes, *found)
        self.slow = slow_compression(self.path, where)
        self.is_simulated = says_simulated(self.path)

    def _judge(self, where: str) -> Verdict:
        """Say what a place holds, by blocks of rows from its first to its last."""
        matrix = self.table.matrix(where)
        genes = _genes(self.table.var(where))
        n_rows = max(1, int(_SAMPLE_VALUES * matrix.shape[0] / max(matrix.n_values, 1)))
        last = max(matrix.shape[0] - n_rows, 0)
        starts = np.unique(np.linspace(0, last, _SAMPLE_BLOCKS).astype(np.int64)).tolist()
        survey = ValueSurvey(2 * _SAMPLE_BLOCKS * _SAMPLE_VALUES)
        for start in starts:
            stop = min(start + n_rows, matrix.shape[0])
            survey.add(_columns(matrix.rows(start, stop), genes).data)
        return survey.verdict()

    def __enter__(self) -> BackedSection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.table.close()

    def rna(self) -> RnaCounts:
        """Raw counts of the genes, of which rows can be taken; see `Section.rna`.

        Raises
        ------
        InputError
            If the table holds no genes.
        """
        var = self.table.var(self.counts_location)
        kept = gene_mask(var)
        if not kept.any():
            raise InputError(
                f"Section '{self.name}' has no RNA: its {len(var)} features are all antibodies "
                "or controls, expected genes to predict from."
            )
        genes = None if kept.all() else kept
        ids = gene_ids(var)
        measured = None
        # A layer has the columns of the table, which are not those of ``raw``.
        if self.counts_location != "raw" and "measured" in self.table.names("layers"):
            measured = BackedMeasured(self.table.matrix("layers/measured"), genes)
        return RnaCounts(
            counts=BackedCounts(self.table.matrix(self.counts_location), genes),
            names=original_names(var)[kept],
            ids=None if ids is None else ids[kept],
            measured=measured,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Tell this very input from another: name, size, time, shape, and a digest of samples."""
        matrix = self.table.matrix(self.counts_location)
        digest = hashlib.blake2b(digest_size=16)
        if matrix.indptr is not None:
            digest.update(matrix.indptr[:: max(1, len(matrix.indptr) // 4096)].tobytes())
        rows = np.linspace(0, self.n_obs - 1, _SAMPLE_ROWS).astype(np.int64)
        for row in np.unique(rows).tolist():
            sample = matrix.rows(row, row + 1)
            digest.update(sample.indices.tobytes())
            digest.update(sample.data.tobytes())
        files = [self.path]
        if self.path.is_dir():
            where = "raw/X" if self.counts_location == "raw" else self.counts_location
            files = [
                path
                for place in (".", where, f"{where}/data", f"{where}/indices")
                for name in ("zarr.json", ".zgroup", ".zattrs", ".zarray")
                if (path := self.path / place / name).is_file()
            ]
        stats = [path.stat() for path in files]
        return {
            "name": self.path.name,
            "size": sum(stat.st_size for stat in stats),
            "modified_ns": max(stat.st_mtime_ns for stat in stats),
            "shape": [self.n_obs, matrix.shape[1]],
            "counts": self.counts_location,
            "sample": digest.hexdigest(),
        }


def _genes(var: pd.DataFrame) -> np.ndarray | None:
    """Columns to judge, bool; None where all are genes, or none is."""
    genes = gene_mask(var)
    return None if genes.all() or not genes.any() else genes


def _columns(rows: sparse.csr_matrix, genes: np.ndarray | None) -> sparse.csr_matrix:
    return rows if genes is None else rows[:, genes]


def _bad_rows(block: sparse.csr_matrix) -> tuple[int, int]:
    """First and last row of a block with a value that is no count."""
    values = block.data
    with np.errstate(invalid="ignore"):
        bad = ~(values >= 0) | ~np.isfinite(values) | (np.rint(values) != values)
    entries = np.flatnonzero(bad)
    if not len(entries):
        return 0, block.shape[0] - 1
    rows = np.searchsorted(block.indptr, entries[[0, -1]], side="right") - 1
    return int(rows[0]), int(rows[1])


def _check_names(table: BackedTable) -> None:
    """Refuse cells that are named twice, without having all names in memory."""
    with reading(table.path, "AnnData"):
        parts = [pd.util.hash_array(names) for names in _names(table)]
    if len(np.unique(np.concatenate(parts))) < table.n_obs:
        # Rarely, two names have one digest: the names themselves decide.
        check_barcodes(table.obs_names(), table.path)


def _names(table: BackedTable) -> Iterator[np.ndarray]:
    frame = table.group["obs"]
    key = frame.attrs["_index"]
    array = frame[key]
    if not hasattr(array, "shape"):  # text with gaps, or categories: a group of arrays
        yield table.obs_names().to_numpy(dtype=object)
        return
    for start in range(0, table.n_obs, _NAMES_AT_ONCE):
        yield np.asarray(array[start : start + _NAMES_AT_ONCE]).astype(object)


def _libraries(table: BackedTable) -> dict[str, dict[str, Any]]:
    """Read ``uns["spatial"]``; of images, which may be large, no more than the size."""
    libraries = {}
    for name in table.names("uns/spatial"):
        key = f"uns/spatial/{name}"
        with reading(table.path, "AnnData"):
            node = table.group[key]
            is_mapping = node.attrs.get("encoding-type", "dict") == "dict"
        if is_mapping and not hasattr(node, "shape"):
            parts = [part for part in table.names(key) if part != "images"]
            libraries[name] = {part: table.element(f"{key}/{part}") for part in parts}
            libraries[name]["images"] = _unread_images(table, f"{key}/images")
    return libraries


def _unread_images(table: BackedTable, key: str) -> dict[str, Any]:
    with reading(table.path, "AnnData"):
        if key not in table.group:
            return {}
        nodes = {name: table.group[f"{key}/{name}"] for name in table.names(key)}
        return {name: node for name, node in nodes.items() if getattr(node, "shape", ())}


def _parts(table: BackedTable, layer: str | None) -> Parts:
    """Understand name, libraries and positions as of a table in memory."""
    from sclinguist_core.data.readers.h5ad import POSITION_KEYS, check_one_library, parts_of

    obsm, columns = table.names("obsm"), set(table.names("obs"))
    positions = [key for key in POSITION_KEYS if key in obsm]
    uns = {"spatial": _libraries(table)} if "spatial" in table.names("uns") else {}
    lattice = [key for key in ("array_row", "array_col") if key in columns and positions]
    stand_in: Any = SimpleNamespace(
        n_obs=table.n_obs,
        obs=pd.DataFrame(
            {key: table.element(f"obs/{key}") for key in lattice}, index=range(table.n_obs)
        ),
        obsm={key: table.element(f"obsm/{key}") for key in positions[:1]},
        uns=uns,
    )
    if len(uns.get("spatial", ())) > 1:
        whole: Any = SimpleNamespace(obs=table.frame("obs"), uns=uns)
        check_one_library(whole, table.path)
    return parts_of(stand_in, table.path, layer=layer)
