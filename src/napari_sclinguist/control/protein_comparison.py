"""All proteins of a section at once: how far to trust each, and how it agrees.

Shapes: n spots, bins or cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_sclinguist.control import names
from napari_sclinguist.control.agreement import Pair
from napari_sclinguist.control.entries import TRUST_ORDER, Kind
from napari_sclinguist.control.jobs import Report
from sclinguist_core.data.preprocess import isotype_mask
from sclinguist_core.evaluation.metrics import column_mean, pearson, rmse_z, spearman

if TYPE_CHECKING:
    from napari_sclinguist.control.catalogue import Catalogue
    from napari_sclinguist.control.entries import Entry

_VALUES_AT_ONCE = 4_000_000
"""Values of a side that are compared at once: bounds the memory, and the time until a step."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ProteinComparison:
    """All proteins of a section, one a row.

    Attributes
    ----------
    table
        Columns ``protein``, ``trust`` (ordered categories), ``expected_r``, ``r``, ``spearman``,
        ``rmse_z`` (of the prediction against `reference`), ``gene`` and ``r_mrna`` (of the coding
        gene against the measurement; of several genes the best), ``mean``, ``variance`` (of the
        prediction) and ``antibody``. NaN where there is nothing to compare.
    pairs
        What is compared in each row.
    reference
        What predictions are compared with: `Kind.MEASURED`, or `Kind.GENE` where nothing was
        measured.
    """

    table: pd.DataFrame
    pairs: tuple[Pair, ...]
    reference: Kind

    def write(self, path: Path) -> None:
        """Write the table as CSV; a file that is there is replaced once all is written."""
        from sclinguist_core.files import replacing

        table = self.table.assign(compared_with=str(self.reference))
        with replacing(path) as temporary:
            table.to_csv(temporary, index=False, encoding="utf-8")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    name: str
    predicted: Entry | None
    measured: Entry | None
    genes: tuple[Entry, ...]


def compare_proteins(catalogue: Catalogue) -> Generator[Report, None, ProteinComparison]:
    """Compare every protein of a section with its measurement and its mRNA.

    Predicted proteins come first, each with its antibody (a row for each of several), then
    antibodies without a prediction: no training set measures these, so they are untested. Isotype
    controls are left out.
    """
    rows = _rows(catalogue)
    reference = Kind.MEASURED if any(row.measured for row in rows) else Kind.GENE
    versus: list[tuple[int, Entry, Entry]] = []  # row, prediction, what it is compared with
    mrna: list[tuple[int, Entry, Entry]] = []  # row, gene, measurement
    for i, row in enumerate(rows):
        against = [row.measured] if reference is Kind.MEASURED else row.genes
        versus += [(i, row.predicted, other) for other in against if row.predicted and other]
        mrna += [(i, gene, row.measured) for gene in row.genes if row.measured]
    steps = len(versus) + len(mrna)

    figures = yield from _correlate(catalogue, versus, done=0, total=steps, full=True)
    figures |= {"i": np.array([i for i, _, _ in versus], np.int64)}
    best = _best_of_each(figures["i"], figures["r"])
    table = pd.DataFrame(index=range(len(rows)))
    table["protein"] = [row.name for row in rows]
    has_predictions = any(row.predicted for row in rows)
    labels = [
        row.predicted.trust if row.predicted else "untested" if has_predictions else ""
        for row in rows
    ]
    table["trust"] = pd.Categorical(labels, categories=TRUST_ORDER, ordered=True)
    table["expected_r"] = [row.predicted.expected_r if row.predicted else np.nan for row in rows]
    for column in ("r", "spearman", "rmse_z"):
        table[column] = np.nan
        table.loc[figures["i"][best], column] = figures[column][best]

    of_mrna = yield from _correlate(catalogue, mrna, done=len(versus), total=steps, full=False)
    index = np.array([i for i, _, _ in mrna], np.int64)
    best_gene = _best_of_each(index, of_mrna["r"])
    genes: dict[int, Entry] = {int(index[k]): mrna[k][1] for k in best_gene}
    if reference is Kind.GENE:
        genes |= {versus[k][0]: versus[k][2] for k in best}
    table["gene"] = [genes[i].name if i in genes else "" for i in range(len(rows))]
    table["r_mrna"] = np.nan
    table.loc[index[best_gene], "r_mrna"] = of_mrna["r"][best_gene]

    table["mean"], table["variance"] = yield from _moments(catalogue, [r.predicted for r in rows])
    table["antibody"] = [row.measured.name if row.measured else "" for row in rows]
    pairs = tuple(_pair_of(row, genes.get(i)) for i, row in enumerate(rows))
    return ProteinComparison(table=table, pairs=pairs, reference=reference)


def _rows(catalogue: Catalogue) -> list[_Row]:
    table = catalogue.section.table
    controls: set[str] = set()
    if catalogue.section.has_protein and (isotype := isotype_mask(table)) is not None:
        controls = set(map(str, table.obsm["protein"].columns[isotype]))
    antibodies: dict[str, list[Entry]] = defaultdict(list)
    for entry in catalogue.of_kind(Kind.MEASURED):
        if entry.name not in controls:
            # Antibodies whose target is not known stand for themselves.
            antibodies[entry.protein or entry.name].append(entry)
    predicted = {entry.protein: entry for entry in catalogue.of_kind(Kind.PREDICTED)}
    rows = []
    for protein in [*predicted, *(name for name in antibodies if name not in predicted)]:
        prediction = predicted.get(protein)
        measured: Sequence[Entry | None] = antibodies.get(protein) or [None]
        symbols = (f"{Kind.GENE}:{gene}" for gene in names.coding_genes().get(protein, ()))
        genes = tuple(catalogue.entry(key) for key in symbols if key in catalogue)
        for antibody in measured:
            several = antibody is not None and len(measured) > 1
            rows.append(
                _Row(
                    name=f"{protein} ({antibody.name})" if several else protein,
                    predicted=prediction,
                    measured=antibody,
                    genes=genes,
                )
            )
    return rows


def _pair_of(row: _Row, gene: Entry | None) -> Pair:
    gene = gene or next(iter(row.genes), None)
    first, second = row.predicted or gene, row.measured or gene
    keys = [entry.key for entry in dict.fromkeys((first, second)) if entry is not None]
    return Pair(a=keys[0], b=keys[1] if len(keys) > 1 else "")


def _correlate(
    catalogue: Catalogue,
    pairs: Sequence[tuple[int, Entry, Entry]],
    *,
    done: int,
    total: int,
    full: bool,
) -> Generator[Report, None, dict[str, np.ndarray]]:
    """Figures of pairs, each (len(pairs),): Pearson alone, or all of them."""
    measures: dict[str, Any] = {"r": pearson}
    if full:
        measures |= {"spearman": spearman, "rmse_z": rmse_z}
    out = {name: np.full(len(pairs), np.nan) for name in measures}
    for part in _chunks(len(pairs), catalogue.section.n_obs):
        x = np.column_stack([catalogue.values(a.key) for _, a, _ in pairs[part]])
        y = np.column_stack([catalogue.values(b.key) for _, _, b in pairs[part]])
        for name, measure in measures.items():
            out[name][part] = measure(x, y)
        yield _report(done + part.stop, total)
    return out


def _moments(
    catalogue: Catalogue, entries: Sequence[Entry | None]
) -> Generator[Report, None, tuple[np.ndarray, np.ndarray]]:
    """Mean and (population) variance of features, each (len(entries),); NaN for None."""
    mean, variance = np.full(len(entries), np.nan), np.full(len(entries), np.nan)
    there = np.flatnonzero([entry is not None for entry in entries])
    for part in _chunks(len(there), catalogue.section.n_obs):
        chosen = there[part]
        x = np.column_stack([catalogue.values(entries[i].key) for i in chosen]).astype(np.float64)
        mean[chosen] = column_mean(x)
        variance[chosen] = column_mean((x - mean[chosen]) ** 2)
        yield _report(part.stop, len(there))
    return mean, variance


def _best_of_each(group: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Index of the highest r in each group; one that is undefined only where all are."""
    order = np.lexsort((-np.nan_to_num(r, nan=-np.inf), group))
    return order[np.unique(group[order], return_index=True)[1]]


def _chunks(n_columns: int, n_rows: int) -> Iterator[slice]:
    width = max(1, _VALUES_AT_ONCE // max(n_rows, 1))
    for start in range(0, n_columns, width):
        yield slice(start, min(start + width, n_columns))


def _report(done: int, total: int) -> Report:
    return Report(phase="comparing proteins", done=done, total=total)
