"""10x feature-barcode matrices: HDF5 (Cell Ranger 2 and 3 layouts) and Matrix Market folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from sclinguist_core.data.features import ORIGINAL_NAME
from sclinguist_core.data.readers.assemble import check_barcodes, check_shape, unique_names
from sclinguist_core.data.readers.hdf5 import check_hdf5
from sclinguist_core.data.readers.layout import MATRIX, find_one
from sclinguist_core.data.readers.mtx import read_mtx
from sclinguist_core.errors import InputError
from sclinguist_core.reading import opened, reading

_BARCODES = ("barcodes.tsv", "barcodes.tsv.gz")
_FEATURES = ("features.tsv", "features.tsv.gz", "genes.tsv", "genes.tsv.gz")
_BLOCK = 1 << 20
"""Values that are read at a time."""
_SHORT = 1000
"""Bytes of a name. An array of text takes for each of its names what the longest one takes."""


@dataclass(frozen=True)
class FeatureMatrix:
    """A 10x matrix, turned so that a row is a barcode.

    Attributes
    ----------
    counts
        (n_barcodes, n_features) CSR float32.
    barcodes, names, ids
        Arrays of str, as in the file.
    feature_types
        Array of str, or None in layouts that know genes alone.
    metadata
        What the file says of itself (chemistry, software version).
    """

    counts: sparse.csr_matrix
    barcodes: np.ndarray
    names: np.ndarray
    ids: np.ndarray
    feature_types: np.ndarray | None = None
    genomes: np.ndarray | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def to_anndata(self, source: Path) -> AnnData:
        """Make a table with unique ``var_names``; those of the file stay in ``gene_name``.

        Parameters
        ----------
        source
            File, named in the message.

        Raises
        ------
        InputError
            If there are no rows or columns, or a barcode repeats.
        """
        check_shape(self.counts.shape, source)
        barcodes = pd.Index(self.barcodes, dtype=object)
        check_barcodes(barcodes, source)
        names = pd.Index(self.names, dtype=object)
        unique = names if names.is_unique else unique_names(names)
        var = pd.DataFrame(index=pd.Index(unique, dtype=object))
        var["gene_ids"] = self.ids
        # A plain column where it says more than the index, and none where it repeats it.
        if not names.is_unique:
            var[ORIGINAL_NAME] = self.names
        if self.feature_types is not None:
            var["feature_types"] = self.feature_types
        if self.genomes is not None:
            var["genome"] = self.genomes
        return AnnData(X=self.counts, obs=pd.DataFrame(index=barcodes), var=var)


def read_10x_h5(path: Path) -> FeatureMatrix:
    """Read a 10x HDF5 matrix.

    Parameters
    ----------
    path
        ``*_feature_bc_matrix.h5`` (Cell Ranger 3 and later, Space Ranger), or the older layout
        with one group a genome.

    Raises
    ------
    InputError
        If the file is damaged, or holds something else.
    """
    import h5py

    names = check_hdf5(path)
    # What stands in a damaged file is the least thing that our own lines below rely on.
    with reading(path, "a 10x matrix"), h5py.File(path, "r") as file:
        if "matrix" in names:
            return _read_v3(file, path)
        genomes = [name for name in names if "gene_names" in _keys(file[name])]
        if len(genomes) == 1:
            return _read_v2(file[genomes[0]], path, genomes[0])
        if genomes:
            raise InputError(
                f"'{path}' holds {len(genomes)} genomes ({', '.join(genomes)}), expected one: "
                "give the matrix of one species."
            )
        raise InputError(
            f"'{path}' is no 10x matrix: expected a group 'matrix', found "
            f"{', '.join(names) or 'nothing'}; give a *_feature_bc_matrix.h5, or rename an AnnData "
            "file to .h5ad."
        )


def read_10x_mtx(folder: Path, prefix: str = "") -> FeatureMatrix:
    """Read a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` or ``genes.tsv``.

    Parameters
    ----------
    folder
        Folder that holds the three files, gzip-compressed or not.
    prefix
        Beginning that the three file names share, as in files from GEO.

    Raises
    ------
    InputError
        If a file is missing or damaged, or if their sizes do not go together.
    """
    matrix_path = _required(folder, MATRIX, prefix)
    barcodes_path = _required(folder, _BARCODES, prefix)
    features_path = _required(folder, _FEATURES, prefix)
    barcodes = read_table(barcodes_path)[0].to_numpy(dtype=object)
    features = read_table(features_path)
    counts = read_mtx(matrix_path)
    expected = (len(features), len(barcodes))
    if counts.shape[::-1] != expected:
        raise InputError(
            f"'{matrix_path}' is {counts.shape[1]} x {counts.shape[0]}, expected {expected[0]} "
            f"features ({features_path.name}) x {expected[1]} barcodes ({barcodes_path.name}): the "
            "three files must come from one run, a row a feature."
        )
    ids = features[0].to_numpy(dtype=object)
    names = features[1].to_numpy(dtype=object) if features.shape[1] > 1 else ids
    kinds = features[2].to_numpy(dtype=object) if features.shape[1] > 2 else None
    return FeatureMatrix(counts, barcodes, names, ids, kinds)


def read_table(path: Path) -> pd.DataFrame:
    """Read a tab-separated file without header as str; columns are numbered from 0."""
    with opened(path) as file, reading(path, "a tab-separated file"):
        try:
            return pd.read_csv(file, sep="\t", header=None, dtype=str, keep_default_na=False)
        except pd.errors.EmptyDataError as error:
            raise InputError(
                f"'{path}' is empty, expected one line a feature or barcode: fetch it again."
            ) from error


def _required(folder: Path, names: tuple[str, ...], prefix: str) -> Path:
    path = find_one(folder, names, prefix=prefix)
    if path is None:
        raise InputError(
            f"'{folder}' has no {names[0]} (nor .gz), expected matrix.mtx, barcodes.tsv and "
            "features.tsv together: fetch the missing file."
        )
    return path


def _read_v3(file: Any, path: Path) -> FeatureMatrix:
    group = file["matrix"]
    features = group["features"]
    if "filtered_probes" in features or "probe_region" in features:
        raise InputError(
            f"'{path}' counts probes, not genes (a probe matrix): give "
            "filtered_feature_bc_matrix.h5 of the same run."
        )
    texts = {
        key: _text(features[key])
        for key in ("name", "id", "feature_type", "genome")
        if key in features or key in ("name", "id")
    }
    barcodes = _text(group["barcodes"])
    _check_lengths(texts, path)
    counts = _counts(group, path, (len(barcodes), len(texts["name"])))
    return FeatureMatrix(
        counts,
        barcodes,
        texts["name"],
        texts["id"],
        texts.get("feature_type"),
        texts.get("genome"),
        {
            key: _attribute(file.attrs[key])
            for key in ("chemistry_description", "software_version")
            if key in file.attrs
        },
    )


def _read_v2(group: Any, path: Path, genome: str) -> FeatureMatrix:
    texts = {"gene_names": _text(group["gene_names"]), "genes": _text(group["genes"])}
    _check_lengths(texts, path)
    barcodes, names = _text(group["barcodes"]), texts["gene_names"]
    counts = _counts(group, path, (len(barcodes), len(names)))
    genomes = np.full(len(names), genome, dtype=object)
    return FeatureMatrix(counts, barcodes, names, texts["genes"], genomes=genomes)


def _check_lengths(texts: dict[str, np.ndarray], path: Path) -> None:
    if len({len(values) for values in texts.values()}) > 1:
        found = ", ".join(f"{len(values)} of {key}" for key, values in texts.items())
        raise InputError(
            f"'{path}' lists features in unequal numbers ({found}): the file is inconsistent; "
            "write it anew."
        )


def _counts(group: Any, path: Path, shape: tuple[int, int]) -> sparse.csr_matrix:
    """CSC of features x barcodes in the file is CSR of barcodes x features: no transposition."""
    stated = tuple(int(n) for n in group["shape"][:])[::-1]
    if stated != shape:
        raise InputError(
            f"'{path}' says {' x '.join(map(str, stated))} barcodes x features but lists "
            f"{shape[0]} and {shape[1]}: the file is inconsistent; write it anew."
        )
    parts = {name: group[name] for name in ("data", "indices", "indptr")}
    if not {values.dtype.kind for values in parts.values()} <= set("iuf"):
        found = ", ".join(f"{name} of type {values.dtype}" for name, values in parts.items())
        raise InputError(
            f"'{path}' holds {found}, expected numbers: write it anew, or fetch it again."
        )
    indptr = _whole(parts["indptr"][:])
    data = np.empty(parts["data"].shape, np.float32)
    for part, values in _in_blocks(parts["data"]):
        data[part] = values
    fits = True
    indices = np.empty(parts["indices"].shape, np.int32 if shape[1] < 2**31 else np.int64)
    for part, values in _in_blocks(parts["indices"]):
        whole = _whole(values)
        fits = fits and int(whole.min()) >= 0 and int(whole.max()) < shape[1]
        indices[part] = whole
    bad = (
        not fits
        or len(indptr) != shape[0] + 1
        or len(indices) != len(data)
        or int(indptr[0]) != 0
        or int(indptr[-1]) != len(data)
        or bool((indptr[1:] < indptr[:-1]).any())
    )
    if bad:
        raise InputError(
            f"'{path}' has a matrix whose index does not fit its {shape[0]} barcodes x {shape[1]} "
            "features: the file is inconsistent; write it anew."
        )
    counts = sparse.csr_matrix((data, indices, indptr), shape=shape)
    # Sorts them as well; a feature that a barcode names twice has both counts.
    counts.sum_duplicates()
    return counts


def _in_blocks(dataset: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """Read an array part by part.

    HDF5 keeps Python's lock while it reads: between the parts a window has its turn. Nor is there
    ever a copy of the whole in the type of the file, which is twice as large.
    """
    chunk = (dataset.chunks or (1,))[0]
    step = max(_BLOCK // chunk, 1) * chunk
    for start in range(0, len(dataset), step):
        part = slice(start, start + step)
        yield part, dataset[part]


def _whole(values: np.ndarray) -> np.ndarray:
    """Index arrays as signed integers (some writers store them as floats or unsigned)."""
    if len(values) == 0:
        return values.astype(np.int32)
    low, high = values.min(), values.max()
    # NaN is neither; what cannot be an index must not become one by being converted.
    if not (low >= 0 and high < 2**53) or (values.dtype.kind == "f" and (values % 1).any()):
        return np.full(values.shape, -1)
    return values.astype(np.int32 if high < np.iinfo(np.int32).max else np.int64, copy=False)


def _text(dataset: Any) -> np.ndarray:
    """Names, one a feature or barcode, as objects."""
    values = dataset[:]
    if values.ndim != 1 or values.dtype.kind not in "SO":
        raise ValueError(f"{dataset.name} is no list of names")
    if values.dtype.kind == "S" and values.dtype.itemsize <= _SHORT:
        try:
            return values.astype(str).astype(object)  # ASCII only, ten times faster
        except UnicodeDecodeError:
            return np.char.decode(values, "utf-8").astype(object)
    return np.array(
        [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values],
        dtype=object,
    )


def _attribute(value: Any) -> str:
    while isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _keys(item: Any) -> list[str]:
    return list(item) if hasattr(item, "keys") else []
