"""Tables whose values, types, sizes or names are not those of counts."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
from scipy import sparse

from faults.fault import Ending, Fault, Make, quiet
from faults.makers import cases, in_hdf5, in_zarr_array, replaced
from faults.small import Small, write_h5ad

_LONG = 10**7
_in_tenx = partial(in_hdf5, source="tenx")


def _table(change: Callable[[ad.AnnData], ad.AnnData | None]) -> Make:
    """Write changed cells as ``.h5ad``."""

    def make(folder: Path, small: Small) -> Path:
        with quiet():
            cells = small.cells()
            changed = change(cells)
            return write_h5ad(cells if changed is None else changed, folder / "cells.h5ad")

    return make


def _counts(change: Callable[[np.ndarray], Any]) -> Make:
    """Change the dense counts, and write them sparse unless they are of another type."""

    def with_counts(cells: ad.AnnData) -> None:
        changed = change(cells.X.toarray())
        usual = isinstance(changed, np.ndarray) and changed.dtype.kind in "biuf"
        cells.X = sparse.csr_matrix(changed) if usual else changed

    return _table(with_counts)


def _first(value: Any, dtype: type = np.float64) -> Callable[[np.ndarray], np.ndarray]:
    def change(counts: np.ndarray) -> np.ndarray:
        counts = counts.astype(dtype)
        counts[0, 0] = value
        return counts

    return change


def _log_normalised(counts: np.ndarray) -> np.ndarray:
    share = counts / counts.sum(axis=1, keepdims=True)
    return np.asarray(np.log1p(1e4 * share), dtype=np.float32)


def _dense_log_normalised(cells: ad.AnnData) -> None:
    counts = cells.X.toarray()
    counts[:, 5:][np.random.default_rng(0).random(counts[:, 5:].shape) < 0.9] = 0
    cells.X = _log_normalised(counts)


def _fault(kind: str, name: str, make: Make, says: str, ends: Ending = "refused") -> list[Fault]:
    faults = [Fault(kind=kind, name=name, make=make, says=says, ends=ends)]
    if ends == "refused":
        faults.append(Fault(kind=kind, name=name, make=make, says=says, command="stream"))
    return faults


_NOT_COUNTS = {
    "negative counts": (_counts(_first(-3)), "negative values"),
    "fractional counts": (_counts(lambda x: x + 0.25 * (x > 0)), "fractional values"),
    "a NaN": (_counts(_first(np.nan)), "1 values that are NaN"),
    "an infinity": (_counts(_first(np.inf)), "NaN or infinite"),
    "a negative infinity": (_counts(_first(-np.inf)), "NaN or infinite"),
    "counts of 10^12": (_counts(_first(10**12, np.int64)), "more than anybody counts"),
    "log-normalised": (_counts(_log_normalised), "log-normalised.*--layer"),
    "log-normalised, dense": (_table(_dense_log_normalised), "log-normalised.*--layer"),
    "scaled": (_counts(lambda x: (x - x.mean(0)) / (x.std(0) + 1)), "negative values"),
}
_TYPES = {
    "X of text": (_counts(lambda x: x.astype(int).astype(str).astype(object)), "type"),
    "X of complex numbers": (_counts(lambda x: x.astype(np.complex64)), "complex"),
    "X of true and false": (_counts(lambda x: x > 0), "true/false"),
    "data of text": (in_hdf5(replaced("X/data", lambda x: x.astype("S"))), "."),
    "indices of text": (in_hdf5(replaced("X/indices", lambda x: x.astype("S"))), "."),
    "indices of fractions": (in_hdf5(replaced("X/indices", lambda x: x + 0.5)), "."),
    "indptr of true and false": (in_hdf5(replaced("X/indptr", lambda x: x > 0)), "."),
    "data of pairs": (
        in_hdf5(replaced("X/data", lambda x: np.zeros(len(x), [("a", "f4"), ("b", "i4")]))),
        ".",
    ),
    "indices beyond the matrix": (
        in_hdf5(replaced("X/indices", lambda x: x + 240)),
        "fit|name",
    ),
    "negative indices": (in_hdf5(replaced("X/indices", lambda x: x - 240)), "fit|name"),
    "indptr that falls": (in_hdf5(replaced("X/indptr", lambda x: x[::-1])), "fit|damaged"),
    "indptr too short": (in_hdf5(replaced("X/indptr", lambda x: x[:-2])), "."),
}
_TENX = {
    "data of text": (replaced("matrix/data", lambda x: x.astype("S")), "expected numbers"),
    "data of complex numbers": (replaced("matrix/data", lambda x: x * 1j), "expected numbers"),
    "data of true and false": (replaced("matrix/data", lambda x: x > 0), "expected numbers"),
    "indices of text": (replaced("matrix/indices", lambda x: x.astype("S")), "expected numbers"),
    "indices of NaN": (replaced("matrix/indices", lambda x: x * np.nan), "does not fit"),
    "indices beyond the matrix": (replaced("matrix/indices", lambda x: x + 240), "does not fit"),
    "the least of all indices": (
        replaced("matrix/indices", lambda x: np.full(len(x), -(2**63))),
        "does not fit",
    ),
    "indptr of references": (
        replaced("matrix/indptr", lambda x: np.zeros(len(x), [("a", "i4")])),
        "expected numbers",
    ),
    "a shape of 10^18": (
        replaced("matrix/shape", lambda x: np.array([10**18, 10**18])),
        "but lists",
    ),
    "fewer names than features": (replaced("matrix/features/name", lambda x: x[:-1]), "unequal"),
    "names that are numbers": (
        replaced("matrix/features/name", lambda x: np.arange(len(x))),
        "names",
    ),
    "barcodes in two dimensions": (replaced("matrix/barcodes", lambda x: x[None]), "names"),
    "negative counts": (replaced("matrix/data", lambda x: -x), "negative"),
    "fractional counts": (replaced("matrix/data", lambda x: x + 0.25), "fractional"),
}


def _mtx(value: str) -> Make:
    """Replace the value of the last entry of a ``matrix.mtx``."""

    def make(folder: Path, small: Small) -> Path:
        root = small.copy("mtx", folder)
        lines = gzip.decompress((root / "matrix.mtx.gz").read_bytes()).decode().splitlines()
        *place, _ = lines[-1].split()
        lines[-1] = " ".join([*place, value])
        (root / "matrix.mtx.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
        return root

    return make


_MTX = {
    f"mtx {name}": (_mtx(value), says)
    for name, (value, says) in {
        "negative count": ("-3", "negative values"),
        "NaN": ("nan", "NaN or infinite"),
        "infinity": ("inf", "NaN or infinite"),
        "count of 10^300": ("1e300", "NaN or infinite"),
        "count of 10^12": ("1e12", "more than anybody counts"),
        "text": ("many", "could not convert|as a Matrix Market file"),
    }.items()
}
_ZARR = {
    "zarr data of text": (in_zarr_array("X/data", lambda x: x.astype("U8")), "."),
    "zarr data of complex numbers": (
        in_zarr_array("X/data", lambda x: x.astype(np.complex64)),
        "complex",
    ),
    "zarr data of true and false": (in_zarr_array("X/data", lambda x: x > 0), "true/false"),
    "zarr indices of fractions": (in_zarr_array("X/indices", lambda x: x + 0.5), "."),
    "zarr indices beyond the matrix": (in_zarr_array("X/indices", lambda x: x + 240), "fit|name"),
    "zarr negative indices": (in_zarr_array("X/indices", lambda x: x - 240), "fit|name"),
    "zarr indptr that falls": (in_zarr_array("X/indptr", lambda x: x[::-1].copy()), "fit|damaged"),
    "zarr indptr too short": (in_zarr_array("X/indptr", lambda x: x[:-2]), "."),
    "zarr data in two dimensions": (in_zarr_array("X/data", lambda x: x[None]), "."),
    "zarr names that are numbers": (
        in_zarr_array("obs/_index", lambda x: np.arange(len(x)) % 2),
        "more than once|does not match",
    ),
}
_ZARR_VALUES = {
    "zarr negative counts": (in_zarr_array("X/data", lambda x: -x), "negative values"),
    "zarr fractional counts": (in_zarr_array("X/data", lambda x: x + 0.25), "fractional values"),
    "zarr NaN": (in_zarr_array("X/data", lambda x: x * np.nan), "NaN or infinite"),
    "zarr infinities": (in_zarr_array("X/data", lambda x: x * np.inf), "NaN or infinite"),
}


def _without_overlap(cells: ad.AnnData) -> None:
    cells.var_names = [f"unheard-of-{i}" for i in range(cells.n_vars)]


def _antibodies_alone(cells: ad.AnnData) -> None:
    cells.var["feature_types"] = "Antibody Capture"


def _twice(cells: ad.AnnData) -> None:
    cells.obs_names = [cells.obs_names[1], *cells.obs_names[1:]]


def _long_twice(cells: ad.AnnData) -> None:
    cells.obs_names = ["A" * _LONG, "A" * _LONG, *cells.obs_names[2:]]


def _renamed(name: str, *, barcode: bool = False) -> Callable[[ad.AnnData], None]:
    def change(cells: ad.AnnData) -> None:
        names = list(cells.obs_names if barcode else cells.var_names)
        names[-1] = name
        if barcode:
            cells.obs_names = names
            del cells.obsm["protein"]
        else:
            cells.var_names = names

    return change


def _gene_twice(cells: ad.AnnData) -> None:
    cells.var_names = [*cells.var_names[:-1], cells.var_names[0]]


def _one_cell(cells: ad.AnnData) -> ad.AnnData:
    return cells[:1].copy()


def _odd_extras(cells: ad.AnnData) -> None:
    cells.obsm["spatial"] = np.full((cells.n_obs, 2), "here", dtype=object)
    cells.obs["array_row"] = cells.obs["array_col"] = "a"
    cells.uns["spatial"] = {"lib": {"images": "none", "scalefactors": [1], "metadata": 3}}
    cells.obsm["protein_expression"] = np.zeros((cells.n_obs, 2, 2))
    cells.uns["protein_panel"] = {"a": 1}
    cells.uns["spatialdata_attrs"] = "no"


def _bad_scale(cells: ad.AnnData) -> None:
    cells.obsm["spatial"] = np.random.default_rng(0).random((cells.n_obs, 2))
    cells.uns["spatial"] = {"lib": {"scalefactors": {"spot_diameter_fullres": "wide"}}}


def _far_away(value: float) -> Callable[[ad.AnnData], None]:
    def change(cells: ad.AnnData) -> None:
        cells.obsm["spatial"] = np.full((cells.n_obs, 2), value)

    return change


def _long_tenx(folder: Path, small: Small) -> Path:
    path = small.copy("tenx", folder)
    with h5py.File(path, "a") as file:
        names = [*file["matrix/features/name"][:-1], b"G" * _LONG]
        del file["matrix/features/name"]
        file.create_dataset("matrix/features/name", data=names, dtype=h5py.string_dtype())
    return path


FAULTS = [
    *(
        fault
        for name, (make, says) in _NOT_COUNTS.items()
        for fault in _fault("values that are no counts", name, make, says)
    ),
    *(
        fault
        for name, (make, says) in _TYPES.items()
        for fault in _fault("wrong types", name, make, says)
    ),
    *(
        Fault(kind="wrong types", name=f"10x {name}", make=_in_tenx(change), says=says)
        for name, (change, says) in _TENX.items()
    ),
    *cases("wrong types", _ZARR),
    *cases("wrong types", _ZARR, command="stream"),
    *cases("values that are no counts", _MTX),
    *cases("values that are no counts", _ZARR_VALUES),
    *cases("values that are no counts", _ZARR_VALUES, command="stream"),
    *_fault(
        "values that are no counts",
        "counts beyond 2^24",
        _counts(_first(2**24 + 1, np.int64)),
        "rounded to 24 binary digits",
        "goes on",
    ),
    *_fault("empty tables", "no cells", _table(lambda c: c[:0].copy()), "is empty|no rows|0"),
    *_fault("empty tables", "no genes", _table(lambda c: c[:, :0].copy()), "is empty|0"),
    *_fault("empty tables", "neither", _table(lambda c: c[:0, :0].copy()), "is empty|0"),
    *_fault(
        "empty tables",
        "all zero",
        _counts(lambda x: x * 0),
        "have no counts; they are kept",
        "goes on",
    ),
    *_fault("empty tables", "one cell", _table(_one_cell), "for 1 cells", "goes on"),
    *_fault("repeated names", "barcodes", _table(_twice), "more than once, such as"),
    *_fault("repeated names", "genes", _table(_gene_twice), "for 12 cells", "goes on"),
    *_fault(
        "repeated names",
        "10x genes",
        _in_tenx(replaced("matrix/features/name", lambda x: np.array([x[1], *x[1:]]))),
        "for 12 cells",
        "goes on",
    ),
    *_fault(
        "repeated names",
        "10x barcodes",
        _in_tenx(replaced("matrix/barcodes", lambda x: np.array([x[1], *x[1:]]))),
        "more than once",
    )[:1],
    *_fault(
        "no genes of the model", "unheard-of names", _table(_without_overlap), "0 of 240 gene names"
    ),
    *_fault("no genes of the model", "antibodies alone", _table(_antibodies_alone), "no RNA"),
    *_fault(
        "long names", "a gene of 10^7 letters", _table(_renamed("G" * _LONG)), "12 cells", "goes on"
    ),
    *_fault(
        "long names",
        "a barcode of 10^7 letters",
        _table(_renamed("B" * _LONG, barcode=True)),
        "12 cells",
        "goes on",
    ),
    *_fault("long names", "a 10x gene of 10^7 letters", _long_tenx, "12 cells", "goes on"),
    *_fault("long names", "two barcodes of 10^7 letters", _table(_long_twice), "more than once"),
    *_fault(
        "odd names",
        "line breaks, colours, directions",
        _table(_renamed("G\n\r\x1b[31m\u202e\u200b😀")),
        "for 12 cells",
        "goes on",
    ),
    *_fault("odd names", "no letters", _table(_renamed("")), "for 12 cells", "goes on"),
    *_fault("odd extras", "everything of another type", _table(_odd_extras), "ignored", "goes on"),
    *_fault(
        "odd extras", "a diameter of text", _table(_bad_scale), "spot_diameter_fullres = 'wide'"
    ),
    *_fault("odd extras", "positions of NaN", _table(_far_away(np.nan)), "12 of 12 positions"),
    *_fault("odd extras", "positions of 10^300", _table(_far_away(1e300)), "12 of 12 positions"),
]
