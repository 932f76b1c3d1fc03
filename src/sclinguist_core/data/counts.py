"""Where a table keeps its raw counts: found by looking at the values, never assumed.

Analysed files carry counts in ``X``, in a layer, or in ``raw``; whichever holds non-negative
whole numbers is used. A model fed with log-normalised values that it takes for counts returns
plausible nonsense, so a table without counts is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sclinguist_core.data.features import gene_mask
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

#: Layers under these names are tried first, in this order.
COUNT_LAYERS = ("counts", "raw_counts", "count", "raw", "umi", "umis", "UMI", "rna_counts")
#: Layers that this package or its data use for something else.
_NOT_COUNTS = frozenset({"measured", "sclinguist_imputed"})

_TOLERANCE = 1e-3
#: From this share of whole numbers on, fractions are those of an estimated count (alevin and
#: RSEM split reads between genes); normalised values are hardly ever whole.
_MOSTLY_WHOLE = 0.5
_MAX_CHECKED = 20_000_000


@dataclass(frozen=True)
class CountsLocation:
    """Raw counts and the place where they were found.

    Attributes
    ----------
    where
        ``"X"``, ``"layers/<name>"`` or ``"raw"``.
    matrix
        CSR float32 of shape (n_obs, n_vars); n_vars is that of ``adata.raw`` for ``"raw"``.
        Holds whole numbers (nearly whole ones are rounded).
    warnings
        What the user should know about the choice, one sentence each.
    """

    where: str
    matrix: sparse.csr_matrix
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Verdict:
    """What one matrix holds."""

    counts: bool
    found: str
    binary: bool = False
    rounding: str = field(default="")


def find_counts(
    adata: AnnData, layer: str | None = None, *, source: str | Path | None = None
) -> CountsLocation:
    """Find the raw counts of a table.

    Parameters
    ----------
    adata
        Table to look at. Where ``var["feature_types"]`` tells genes from antibodies, only
        genes are judged.
    layer
        Layer to use instead of searching; ``"X"`` and ``"raw"`` are understood too.
    source
        File that the table came from, named in messages.

    Returns
    -------
    CountsLocation

    Raises
    ------
    InputError
        If ``layer`` does not exist, if it holds no counts, or if nothing does.
    """
    label = f"'{source}'" if source is not None else "the table"
    places = _places(adata)
    if layer is not None:
        return _given_layer(adata, layer, places, label)

    verdicts: dict[str, _Verdict] = {}
    for where in places:
        verdicts[where] = _judge_place(adata, where)
        if where == "X" and verdicts["X"].binary:
            continue  # 0/1 may be counts or a binarised matrix: prefer a layer if there is one
        if verdicts[where].counts:
            return _located(adata, where, verdicts, label)
    if "X" in verdicts and verdicts["X"].counts:
        return _located(adata, "X", verdicts, label)
    found = "; ".join(f"{where} holds {verdict.found}" for where, verdict in verdicts.items())
    raise InputError(
        f"No raw counts in {label}: {found or 'it has no matrix'}; expected non-negative whole "
        "numbers (UMI counts) in X, a layer or raw: open the file from before normalisation, or "
        "name the layer that holds the counts (--layer NAME)."
    )


def counts_at(adata: AnnData, where: str) -> sparse.csr_matrix:
    """Return the counts at a place that :func:`find_counts` named, as CSR float32.

    Parameters
    ----------
    adata
        Table.
    where
        ``"X"``, ``"layers/<name>"`` or ``"raw"``.
    """
    matrix = _as_csr(_matrix_at(adata, where))
    values = matrix.data
    if values.dtype.kind == "f" and not _all_whole(values):
        matrix = matrix.copy()
        matrix.data = np.rint(matrix.data)
        matrix.eliminate_zeros()
    if matrix.dtype == np.float32:
        return matrix
    # Only the values change type: indices, as large again, are shared with the table.
    parts = (matrix.data.astype(np.float32), matrix.indices, matrix.indptr)
    return sparse.csr_matrix(parts, shape=matrix.shape, copy=False)


def _all_whole(values: np.ndarray, block: int = 1 << 22) -> bool:
    """Whether all values are whole numbers, looked at in blocks to save memory."""
    return all(
        np.array_equal(part, np.rint(part))
        for part in (values[start : start + block] for start in range(0, len(values), block))
    )


def _located(
    adata: AnnData, where: str, verdicts: dict[str, _Verdict], label: str
) -> CountsLocation:
    notes = []
    if where != "X" and "X" in verdicts:
        notes.append(
            f"Raw counts of {label} were taken from {where}: X holds {verdicts['X'].found}."
        )
    if verdicts[where].rounding:
        notes.append(f"Counts in {where} of {label} {verdicts[where].rounding}.")
    return CountsLocation(where, counts_at(adata, where), tuple(notes))


def _given_layer(adata: AnnData, layer: str, places: list[str], label: str) -> CountsLocation:
    where = layer if layer in {"X", "raw"} or layer.startswith("layers/") else f"layers/{layer}"
    if where == "raw" and "raw" in adata.layers:
        where = "layers/raw"
    if where not in places and where.removeprefix("layers/") not in adata.layers:
        names = sorted(str(name) for name in adata.layers)
        existing = ", ".join(names) if names else "none"
        raw = " and raw" if "raw" in places else ""
        raise InputError(
            f"No layer '{layer}' in {label}: its layers are: {existing} (besides X{raw}); "
            "choose one of these."
        )
    verdict = _judge_place(adata, where)
    if not verdict.counts:
        raise InputError(
            f"Layer '{layer}' of {label} holds {verdict.found}, expected raw counts "
            "(non-negative whole numbers): choose another layer."
        )
    return _located(adata, where, {where: verdict}, label)


def _places(adata: AnnData) -> list[str]:
    """Places where counts may be, the likely ones first."""
    names = [str(name) for name in adata.layers if name not in _NOT_COUNTS]
    known = [name for name in COUNT_LAYERS if name in names]
    others = [name for name in names if name not in known]
    places = ["X"] if adata.X is not None else []
    places += [f"layers/{name}" for name in known]
    if adata.raw is not None:
        places.append("raw")
    return places + [f"layers/{name}" for name in others]


def _matrix_at(adata: AnnData, where: str) -> Any:
    if where == "X":
        return adata.X
    if where == "raw":
        return adata.raw.X
    return adata.layers[where.removeprefix("layers/")]


def _judge_place(adata: AnnData, where: str) -> _Verdict:
    var = adata.raw.var if where == "raw" else adata.var
    genes = gene_mask(var)
    matrix = _matrix_at(adata, where)
    if not genes.any() or genes.all():
        return _judge(matrix.data if sparse.issparse(matrix) else np.asarray(matrix).ravel())
    matrix = _as_csr(matrix)
    return _judge(matrix.data[genes[matrix.indices]])


def _judge(values: np.ndarray) -> _Verdict:
    """Say what the stored values of a matrix are (by a sample if there are very many)."""
    if values.size == 0:
        return _Verdict(counts=True, found="only zeros")
    if values.dtype.kind == "b":
        return _Verdict(counts=False, found="true/false values")
    if values.dtype.kind not in "iuf":
        return _Verdict(counts=False, found=f"values of type {values.dtype}")
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        n_bad = int(np.count_nonzero(~np.isfinite(values)))
        return _Verdict(counts=False, found=f"{n_bad:,} values that are NaN or infinite")
    if low < 0:
        return _Verdict(counts=False, found=f"negative values (minimum {low:.3g}, scaled data?)")
    binary = bool(high <= 1)
    if values.dtype.kind in "iu":
        return _Verdict(counts=True, found="whole numbers", binary=binary)
    values = values[:: max(1, -(-values.size // _MAX_CHECKED))]
    return _judge_fractions(values, float(high), binary)


def _judge_fractions(values: np.ndarray, high: float, binary: bool) -> _Verdict:
    distance = np.abs(values - np.rint(values))
    whole = float(np.mean(distance <= _TOLERANCE))
    if whole == 1.0:
        largest = float(distance.max())
        rounding = "are whole numbers up to float noise and were rounded" if largest > 0 else ""
        return _Verdict(counts=True, found="whole numbers", binary=binary, rounding=rounding)
    if whole >= _MOSTLY_WHOLE and high > 1:
        return _Verdict(
            counts=True,
            found="mostly whole numbers",
            rounding=(
                f"are fractional in {1 - whole:.1%} of the stored values (estimated counts, as "
                "alevin or RSEM give them) and were rounded"
            ),
        )
    if high < 20:
        kind = "log-normalised"
    else:
        kind = "normalised, or corrected as by SoupX; corrected counts are to be rounded first"
    return _Verdict(counts=False, found=f"fractional values (maximum {high:.3g}: {kind})")


def _as_csr(matrix: Any) -> sparse.csr_matrix:
    if sparse.issparse(matrix) and matrix.format == "csr":
        return matrix
    return sparse.csr_matrix(matrix)
