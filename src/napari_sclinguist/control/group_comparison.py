"""Features by groups of rows: the mean of each group, and what tells one group from others.

Shapes: n spots, bins or cells; F features of a kind.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from psygnal import Signal

from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.export import writing_to
from napari_sclinguist.control.jobs import Report
from napari_sclinguist.control.statistics import MOST_VARIABLE_GENES, Measure, work_out
from sclinguist_core.errors import InputError
from sclinguist_core.files import replacing

if TYPE_CHECKING:
    from napari_sclinguist.control.catalogue import Catalogue
    from napari_sclinguist.control.region_groups import RegionGroups

ALL_OTHERS = "all other groups"
"""What people read where a group is compared with the rows of all others."""
KINDS = {
    Kind.PREDICTED: "Predicted proteins",
    Kind.MEASURED: "Measured proteins",
    Kind.GENE: f"mRNA ({MOST_VARIABLE_GENES:,} most variable genes)",
}
"""Kinds that are compared, and what people read."""

_VALUES_AT_ONCE = 1 << 24


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupQuestion:
    """What is asked.

    Attributes
    ----------
    kind
        Of the features; one of `KINDS`.
    group
        The group that is compared with `reference`; "" for the mean of every group.
    reference
        Another group; None for the rows of all others.
    """

    kind: Kind
    group: str = ""
    reference: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupAnswer:
    """What came of it.

    Attributes
    ----------
    question
        What was asked.
    groups
        Title of the grouping.
    sizes
        Rows in each group.
    table
        A row a feature, what differs most at the top: ``feature``, ``key``, and the columns of
        `sclinguist_core.evaluation.groups.differential`, or a `mean_column` for each group.
    """

    question: GroupQuestion
    groups: str
    sizes: dict[str, int]
    table: pd.DataFrame

    def write(self, path: Path) -> None:
        """Write the table as CSV, whole or not at all.

        Raises
        ------
        InputError
            If the folder does not exist or cannot be written to.
        """
        table = self.table.drop(columns="key").assign(kind=str(self.question.kind))
        if self.question.group:
            reference = self.question.reference
            table = table.assign(
                group=self.question.group,
                reference=ALL_OTHERS if reference is None else reference,
            )
        with writing_to(path), replacing(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")


def mean_column(group: str) -> str:
    """Name of the column that holds the means of a group."""
    return f"mean in {group}"


class GroupComparing:
    """Compares the chosen groups of the active section when asked to.

    Parameters
    ----------
    groups
        The groups.

    Attributes
    ----------
    answer
        Of the last question; None until there is one, or once it is outdated.
    working
        Whether one is being worked out.
    """

    changed = Signal()

    def __init__(self, groups: RegionGroups) -> None:
        self.groups = groups
        self.answer: GroupAnswer | None = None
        self.working = False
        self._request: object = None
        groups.outdated.connect(self._forget)

    def ask(self, question: GroupQuestion) -> None:
        """Work out an answer beside the window; `changed` tells when it is there."""
        opened, labels = self.groups.opened, self.groups.labels
        if opened is None or labels is None:
            return
        workspace, catalogue = self.groups.workspace, opened.catalogue
        of_rows, title = labels.of_rows, self.groups.title
        self._forget()
        request = self._request = object()
        self.working = True
        self.changed.emit()

        def steps() -> Generator[Report, None, GroupAnswer | Exception]:
            try:
                return (yield from compare_groups(catalogue, of_rows, question, title))
            except Exception as error:  # told in the window's thread, which then waits no longer
                return error

        def take(found: GroupAnswer | Exception) -> None:
            if self._request is not request:
                return  # outdated meanwhile
            self.working = False
            if isinstance(found, Exception):
                workspace.report(found, "Comparing groups")
            else:
                self.answer = found
            self.changed.emit()

        workspace.in_background("Comparing groups", steps, take, slow=True, of=opened)

    def show(self, row: int) -> None:
        """Show the feature of a row of the answer on the tissue."""
        if self.answer is not None:
            self.groups.opened.show(self.answer.table["key"].iat[row])

    def export(self, path: Path) -> None:
        """Write the table of the answer as CSV; what goes wrong becomes a message."""
        try:
            self.answer.write(path)
        except InputError as error:
            self.groups.workspace.report(error, "Exporting the table")

    def _forget(self) -> None:
        self._request, self.answer, self.working = None, None, False
        self.changed.emit()


def compare_groups(
    catalogue: Catalogue, labels: pd.Categorical, question: GroupQuestion, groups: str
) -> Generator[Report, None, GroupAnswer]:
    """Work out an answer; a generator, to be run beside the window.

    Parameters
    ----------
    catalogue
        Of the section.
    labels
        Group of each row, length n; NaN for rows that are left out.
    question
        What is asked.
    groups
        Title of the grouping.

    Raises
    ------
    InputError
        If the section has no such features, there are no groups to compare, or one is too small.
    """
    labels = labels.remove_unused_categories()
    if len(labels.categories) == 0:
        raise InputError(
            f"{groups}: no row of '{catalogue.section.name}' lies in any group; draw larger "
            "regions, or choose other groups."
        )
    names = yield from _names(catalogue, question.kind)
    work = _differences if question.group else _means
    table = yield from work(catalogue, names, labels, question)
    entries = [catalogue.entry(f"{question.kind}:{name}") for name in table.index]
    table.insert(0, "feature", [entry.title or entry.name for entry in entries])
    table.insert(1, "key", [entry.key for entry in entries])
    counts = labels.value_counts()
    return GroupAnswer(
        question=question,
        groups=groups,
        sizes={str(name): int(counts[name]) for name in labels.categories},
        table=table.reset_index(drop=True),
    )


def _names(catalogue: Catalogue, kind: Kind) -> Generator[Report, None, list[str]]:
    """Names of the features; of genes the most variable ones."""
    names = [entry.name for entry in catalogue.of_kind(kind)]
    if not names:
        raise InputError(
            f"'{catalogue.section.name}' has no {KINDS[kind].split(' (')[0].lower()}: choose other "
            "values."
        )
    if kind is not Kind.GENE or len(names) <= MOST_VARIABLE_GENES:
        return names
    figures = yield from work_out(catalogue, kind, Measure.VARIANCE)
    variance = np.array([figures[Measure.VARIANCE][f"{kind}:{name}"] for name in names])
    most = np.argsort(-np.nan_to_num(variance), kind="stable")[:MOST_VARIABLE_GENES]
    return [names[place] for place in most]


def _blocks(catalogue: Catalogue, kind: Kind, names: list[str]) -> Iterator[pd.DataFrame]:
    """Values of the features, some columns at a time so that memory does not grow."""
    at_once = max(_VALUES_AT_ONCE // max(catalogue.section.n_obs, 1), 1)
    for start in range(0, len(names), at_once):
        block = names[start : start + at_once]
        if kind is Kind.GENE:
            values = catalogue.log_counts(block).toarray()
            values[~catalogue.has_molecules] = np.nan
            yield pd.DataFrame(values, columns=block)
        else:
            yield catalogue.table(kind)[block].reset_index(drop=True)


def _means(
    catalogue: Catalogue, names: list[str], labels: pd.Categorical, question: GroupQuestion
) -> Generator[Report, None, pd.DataFrame]:
    from sclinguist_core.evaluation.groups import group_means

    tables = []
    for block in _blocks(catalogue, question.kind, names):
        yield Report(phase="averaging", done=sum(map(len, tables)), total=len(names))
        # By its place: a feature may be called "n" too.
        tables.append(group_means(block, labels).iloc[:, 1:].T)
    table = pd.concat(tables)
    table.columns = [mean_column(str(name)) for name in table.columns]
    spread = (table.max(axis=1) - table.min(axis=1)).fillna(-1.0).to_numpy()
    return table.iloc[np.argsort(-spread, kind="stable")]


def _differences(
    catalogue: Catalogue, names: list[str], labels: pd.Categorical, question: GroupQuestion
) -> Generator[Report, None, pd.DataFrame]:
    from scipy.stats import false_discovery_control

    from sclinguist_core.evaluation.groups import differential

    tables = []
    for block in _blocks(catalogue, question.kind, names):
        yield Report(phase="testing", done=sum(map(len, tables)), total=len(names))
        tables.append(differential(block, labels, question.group, question.reference))
    table = pd.concat(tables)
    tested = np.isfinite(table["p_value"].to_numpy())
    if tested.any():  # over all blocks together
        adjusted = false_discovery_control(table["p_value"][tested])
        table.loc[tested, "p_adjusted"] = adjusted
    order = np.lexsort((-table["difference"].abs(), table["p_adjusted"]))
    return table.iloc[order]
