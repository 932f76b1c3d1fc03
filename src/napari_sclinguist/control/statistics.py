"""Figures that features are sorted by: mean, variance and Moran's I over the tissue.

Shapes: n spots, bins or cells; F features.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.jobs import Report
from sclinguist_core.evaluation.metrics import column_mean

if TYPE_CHECKING:
    from napari_sclinguist.control.catalogue import Catalogue
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace

MOST_VARIABLE_GENES = 2_000
"""Genes whose Moran's I is worked out: the others are too sparse to show a pattern."""

_VALUES_AT_ONCE = 1 << 26
_GENES_AT_ONCE = 512
_UNCHANGING = frozenset({Kind.GENE, Kind.MEASURED})


class Measure(StrEnum):
    """A figure of a feature over its section."""

    MEAN = "mean"
    VARIANCE = "variance"
    PATTERN = "Moran's I"


Found = dict[Measure, dict[str, float]]
"""Figures by measure and key."""
Work = Generator[Report, None, Found]


def work_out(catalogue: Catalogue, kind: Kind, measure: Measure) -> Work:
    """Work out a measure of all features of a kind, with those that come for free.

    A generator, to be run beside the window. Values that are unknown (NaN) are left out; a figure
    that cannot be told is NaN. Of genes, only the `MOST_VARIABLE_GENES` get a Moran's I.
    """
    if measure is Measure.PATTERN:
        return (yield from _patterns(catalogue, kind))
    return (yield from _moments(catalogue, kind))


def _moments(catalogue: Catalogue, kind: Kind) -> Work:
    names = [entry.name for entry in catalogue.of_kind(kind)]
    means, variances = [np.empty(0)], [np.empty(0)]
    known = catalogue.has_molecules if kind is Kind.GENE else None
    for start in range(0, len(names), _GENES_AT_ONCE):
        yield Report(phase="sorting", done=start, total=len(names))
        block = names[start : start + _GENES_AT_ONCE]
        if known is not None:
            # Zeros are not stored: sums of what is there, over the rows that have values.
            values = catalogue.log_counts(block).astype(np.float64)
            n_known = max(int(known.sum()), 1)
            mean = np.asarray(values.sum(axis=0)).ravel() / n_known
            square = np.asarray(values.power(2).sum(axis=0)).ravel() / n_known
            variance = np.maximum(square - mean**2, 0.0)
        else:
            dense = _dense(catalogue, kind, block).astype(np.float64)
            mean = column_mean(dense)
            variance = column_mean((dense - mean) ** 2)
        means.append(mean)
        variances.append(variance)
    keys = [f"{kind}:{name}" for name in names]
    return {
        Measure.MEAN: _by_key(keys, np.concatenate(means)),
        Measure.VARIANCE: _by_key(keys, np.concatenate(variances)),
    }


def _patterns(catalogue: Catalogue, kind: Kind) -> Work:
    from sclinguist_core.evaluation.spatial import morans_i_over, neighbour_graph

    section = catalogue.section
    found: Found = {}
    names = [entry.name for entry in catalogue.of_kind(kind)]
    if kind is Kind.GENE and len(names) > MOST_VARIABLE_GENES:
        found = yield from _moments(catalogue, kind)
        variance = np.array([found[Measure.VARIANCE][f"{kind}:{name}"] for name in names])
        most = np.argsort(-np.nan_to_num(variance), kind="stable")[:MOST_VARIABLE_GENES]
        names = [names[place] for place in most]
    at_once = max(_VALUES_AT_ONCE // max(section.n_obs, 1), 1)
    patterns = [np.empty(0)]
    yield Report(phase="sorting", done=0, total=len(names))
    graph = neighbour_graph(section.positions, lattice=section.assay == "visium")
    for start in range(0, len(names), at_once):
        yield Report(phase="sorting", done=start, total=len(names))
        values = _dense(catalogue, kind, names[start : start + at_once])
        patterns.append(morans_i_over(graph, values))
    keys = [f"{kind}:{name}" for name in names]
    return {**found, Measure.PATTERN: _by_key(keys, np.concatenate(patterns))}


def _dense(catalogue: Catalogue, kind: Kind, names: list[str]) -> np.ndarray:
    """Values of features of one kind, (n, F); NaN where unknown."""
    if kind is Kind.GENE:
        values = catalogue.log_counts(names).toarray()
        values[~catalogue.has_molecules] = np.nan
        return values
    table = catalogue.table(kind)
    if table is not None:
        return table[names].to_numpy()
    return np.column_stack([catalogue.values(f"{kind}:{name}") for name in names])


def _by_key(keys: list[str], figures: np.ndarray) -> dict[str, float]:
    return dict(zip(keys, figures.tolist(), strict=True))


class Statistics:
    """Figures of the features of one section, worked out beside the window when asked for.

    Parameters
    ----------
    workspace
        Does the work, and reports what goes wrong.
    opened
        The section.
    """

    changed = Signal()
    """Figures that were asked for are there."""

    def __init__(self, workspace: Workspace, opened: OpenSection) -> None:
        self._workspace = workspace
        self._catalogue = opened.catalogue
        self._opened = weakref.ref(opened)  # they are kept by their section
        self._figures: dict[tuple[Measure, Kind], dict[str, float]] = {}
        self._asked: set[tuple[Measure, Kind]] = set()
        self._contents = 0
        opened.contents_changed.connect(self._forget)

    def figures(self, measure: Measure, kinds: Iterable[Kind]) -> Mapping[str, float] | None:
        """Figures by key; None while some are being worked out (`changed` tells when to ask)."""
        wanted = [(measure, kind) for kind in kinds]
        for one in wanted:
            if one not in self._figures and one not in self._asked:
                self._ask(*one)
        if not all(one in self._figures for one in wanted):
            return None
        return {key: value for one in wanted for key, value in self._figures[one].items()}

    def _ask(self, measure: Measure, kind: Kind) -> None:
        self._asked.add((measure, kind))
        contents = self._contents

        def steps() -> Generator[Report, None, Found | Exception]:
            try:
                return (yield from work_out(self._catalogue, kind, measure))
            except Exception as error:  # told in the window's thread; the list stays unsorted
                return error

        def accept(found: Found | Exception) -> None:
            if contents != self._contents and kind not in _UNCHANGING:
                return  # of predictions that have been replaced meanwhile
            self._asked.discard((measure, kind))
            if isinstance(found, Exception):
                self._workspace.report(found, f"Sorting by {measure}")
                found = {measure: {}}
            for each, figures in found.items():
                self._figures[each, kind] = figures
            self.changed.emit()

        self._workspace.in_background(
            "Sorting the features", steps, accept, slow=True, of=self._opened()
        )

    def _forget(self) -> None:
        self._contents += 1
        self._figures = {one: v for one, v in self._figures.items() if one[1] in _UNCHANGING}
        self._asked = {one for one in self._asked if one[1] in _UNCHANGING}
