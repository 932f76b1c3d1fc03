"""Where a table keeps its raw counts: found by looking at the values, never assumed.

Analysed files carry counts in ``X``, in a layer, or in ``raw``; whichever holds non-negative
whole numbers is used. A model fed with log-normalised values that it takes for counts returns
plausible nonsense, so a table without counts is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
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
_EXACT = 2**24
"""Up to here float32, in which models read counts, tells whole numbers apart."""
_LARGEST = 2**31


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
class Verdict:
    """What one matrix holds.

    Attributes
    ----------
    counts
        Whether these are counts.
    found
        What is there, for messages.
    binary
        Whether no value is above 1.
    rounding
        What the user should know of rounding; "" where there is nothing to round.
    """

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
    layers = [str(name) for name in adata.layers]
    where, notes = choose_counts(
        count_places(layers, has_x=adata.X is not None, has_raw=adata.raw is not None),
        layers,
        lambda place: _judge_place(adata, place),
        layer,
        label,
    )
    return CountsLocation(where, counts_at(adata, where), notes)


def choose_counts(
    places: list[str],
    layers: Iterable[str],
    judge: Callable[[str], Verdict],
    layer: str | None,
    label: str,
) -> tuple[str, tuple[str, ...]]:
    """Choose the place of the counts; the rule of `find_counts`, however matrices are looked at.

    Parameters
    ----------
    places
        Places where counts may be, as `count_places` says.
    layers
        All layers of the table.
    judge
        Looks at the matrix of a place.
    layer
        Layer to use instead of searching.
    label
        Name of the table in messages.

    Returns
    -------
    The place, and what the user should know about the choice.

    Raises
    ------
    InputError
        As `find_counts`.
    """
    if layer is not None:
        return _given_layer(places, sorted(layers), judge, layer, label)
    verdicts: dict[str, Verdict] = {}
    for where in places:
        verdicts[where] = judge(where)
        if where == "X" and verdicts["X"].binary:
            continue  # 0/1 may be counts or a binarised matrix: prefer a layer if there is one
        if verdicts[where].counts:
            return where, _notes(where, verdicts, label)
    if "X" in verdicts and verdicts["X"].counts:
        return "X", _notes("X", verdicts, label)
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
    return as_counts(_as_csr(_matrix_at(adata, where)))


def as_counts(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Round the values of a matrix that was judged to hold counts; CSR float32.

    The matrix is not changed; the result shares its arrays where it can. An entry that is there
    several times has the sum of its values, as everywhere in scipy.
    """
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
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


def _notes(where: str, verdicts: dict[str, Verdict], label: str) -> tuple[str, ...]:
    notes = []
    if where != "X" and "X" in verdicts:
        notes.append(
            f"Raw counts of {label} were taken from {where}: X holds {verdicts['X'].found}."
        )
    if verdicts[where].rounding:
        notes.append(f"Counts in {where} of {label} {verdicts[where].rounding}.")
    return tuple(notes)


def _given_layer(
    places: list[str],
    layers: list[str],
    judge: Callable[[str], Verdict],
    layer: str,
    label: str,
) -> tuple[str, tuple[str, ...]]:
    where = layer if layer in {"X", "raw"} or layer.startswith("layers/") else f"layers/{layer}"
    if where == "raw" and "raw" in layers:
        where = "layers/raw"
    if where not in places and where.removeprefix("layers/") not in layers:
        existing = ", ".join(layers) if layers else "none"
        raw = " and raw" if "raw" in places else ""
        raise InputError(
            f"No layer '{layer}' in {label}: its layers are: {existing} (besides X{raw}); "
            "choose one of these."
        )
    verdict = judge(where)
    if not verdict.counts:
        raise InputError(
            f"Layer '{layer}' of {label} holds {verdict.found}, expected raw counts "
            "(non-negative whole numbers): choose another layer."
        )
    return where, _notes(where, {where: verdict}, label)


def count_places(layers: Iterable[str], *, has_x: bool, has_raw: bool) -> list[str]:
    """Places where counts may be, the likely ones first.

    Parameters
    ----------
    layers
        Names of the table's layers.
    has_x, has_raw
        Whether it has ``X`` and ``raw``.
    """
    names = [name for name in layers if name not in _NOT_COUNTS]
    known = [name for name in COUNT_LAYERS if name in names]
    others = [name for name in names if name not in known]
    places = ["X"] if has_x else []
    places += [f"layers/{name}" for name in known]
    if has_raw:
        places.append("raw")
    return places + [f"layers/{name}" for name in others]


def _matrix_at(adata: AnnData, where: str) -> Any:
    if where == "X":
        return adata.X
    if where == "raw":
        return adata.raw.X
    return adata.layers[where.removeprefix("layers/")]


def _judge_place(adata: AnnData, where: str) -> Verdict:
    var = adata.raw.var if where == "raw" else adata.var
    genes = gene_mask(var)
    matrix = _matrix_at(adata, where)
    take_all = not genes.any() or genes.all()
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
        return _judge((matrix if take_all else matrix[:, genes]).ravel())
    if take_all:
        return _judge(matrix.data)
    matrix = _as_csr(matrix)
    return _judge(matrix.data[genes[matrix.indices]])


def _judge(values: np.ndarray) -> Verdict:
    """Say what the stored values of a matrix are (by a sample if there are very many)."""
    survey = ValueSurvey(values.size)
    survey.add(values)
    return survey.verdict()


class ValueSurvey:
    """What the stored values of a matrix are, looked at block by block.

    Parameters
    ----------
    n_values
        Number of values that will be added, or more; from it follows how many of them are looked
        at for fractions (20 million, spread evenly).
    """

    def __init__(self, n_values: int) -> None:
        self.high = -np.inf
        """Largest value so far."""
        self._low = np.inf
        self._n_bad = 0
        self._n_values = 0
        self._kind = ""
        self._stride = max(1, -(-n_values // _MAX_CHECKED))
        # Of the values that were looked at for fractions: how many, how many of them whole, and the
        # largest distance from a whole number.
        self._n_sampled = self._n_whole = 0
        self._farthest = 0.0

    def add(self, values: np.ndarray) -> None:
        """Look at the next values, 1-dimensional, all of one type."""
        if values.size == 0:
            return
        self._kind = values.dtype.kind if values.dtype.kind in "biuf" else str(values.dtype)
        first = -self._n_values % self._stride
        self._n_values += values.size
        if self._kind not in {"i", "u", "f"}:
            return
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            self._n_bad += int(np.count_nonzero(~np.isfinite(values)))
            return
        self._low, self.high = min(self._low, low), max(self.high, high)
        if self._kind == "f":
            sample = values[first :: self._stride]
            # Zeros of a dense matrix are whole whatever the others are.
            sample = sample[sample != 0]
            distance = np.abs(sample - np.rint(sample))
            self._n_sampled += sample.size
            self._n_whole += int(np.count_nonzero(distance <= _TOLERANCE))
            self._farthest = max(self._farthest, float(distance.max(initial=0.0)))

    def verdict(self) -> Verdict:
        """Say what the values are."""
        if self._n_values == 0:
            return Verdict(counts=True, found="only zeros")
        if self._kind == "b":
            return Verdict(counts=False, found="true/false values")
        if self._kind not in {"i", "u", "f"}:
            return Verdict(counts=False, found=f"values of type {self._kind}")
        if self._n_bad:
            return Verdict(counts=False, found=f"{self._n_bad:,} values that are NaN or infinite")
        if self._low < 0:
            return Verdict(
                counts=False, found=f"negative values (minimum {self._low:.3g}, scaled data?)"
            )
        if self.high > _LARGEST:
            return Verdict(
                counts=False, found=f"values up to {self.high:.3g}, more than anybody counts"
            )
        binary = bool(self.high <= 1)
        rounding = ""
        if self.high > _EXACT:
            rounding = f"reach {self.high:,.0f} and were rounded to 24 binary digits"
        if self._kind != "f":
            return Verdict(counts=True, found="whole numbers", binary=binary, rounding=rounding)
        whole = self._n_whole / self._n_sampled if self._n_sampled else 1.0
        verdict = _judge_fractions(whole, self._farthest, float(self.high), binary)
        return replace(verdict, rounding=rounding) if rounding and verdict.counts else verdict


def _judge_fractions(whole: float, largest: float, high: float, binary: bool) -> Verdict:
    """Judge by the share of whole numbers, and the largest distance from one."""
    if whole == 1.0:
        rounding = "are whole numbers up to float noise and were rounded" if largest > 0 else ""
        return Verdict(counts=True, found="whole numbers", binary=binary, rounding=rounding)
    if whole >= _MOSTLY_WHOLE and high > 1:
        return Verdict(
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
    return Verdict(counts=False, found=f"fractional values (maximum {high:.3g}: {kind})")


def _as_csr(matrix: Any) -> sparse.csr_matrix:
    if sparse.issparse(matrix) and matrix.format == "csr":
        return matrix
    return sparse.csr_matrix(matrix)
