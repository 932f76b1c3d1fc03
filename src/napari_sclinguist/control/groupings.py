"""Ways to divide the rows of a section into groups: regions, columns of ``obs``, imported ones.

Shapes: n spots, bins or cells.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from napari_sclinguist.control.regions import drawn_regions, label_rows
from napari_sclinguist.layers import METADATA_KEY
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from sclinguist_core.data.regions import Region

KEPT_COLUMN = "sclinguist_kept"
"""Column of ``obs`` that a whole grouping is kept in, apart from groups that were saved singly."""
DRAWN = "drawn"
SELECTED = "selected"
MOST_GROUPS = 60
"""Columns with more different values are no groups, but names of rows or the like."""

_IMPORTED = "imported"
_COLUMN = "column"
_FIRST_ROWS = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouping:
    """A way to divide the rows.

    Attributes
    ----------
    key
        Its identity within the section.
    title
        What people read.
    names
        Its groups; empty where they are known only once rows were labelled.
    """

    key: str
    title: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labels:
    """Rows with the group of each.

    Attributes
    ----------
    of_rows
        Length n, NaN where a row is in no group.
    n_overlapping
        Rows in several regions, which count for the last of them.
    """

    of_rows: pd.Categorical
    n_overlapping: int = 0

    def within(self, name: str) -> np.ndarray:
        """(n,) bool: rows of a group."""
        return np.asarray(self.of_rows == name)


def groupings(opened: OpenSection) -> list[Grouping]:
    """All ways to divide the rows of a section, the drawn regions first."""
    drawn = tuple(region.name for region in drawn_regions(opened))
    found = [Grouping(key=DRAWN, title="Drawn regions", names=drawn)]
    if opened.selected is not None:
        names = ("selected", "not selected")
        found.append(Grouping(key=SELECTED, title=f"Selected {opened.noun}", names=names))
    for title, labels in imported(opened).items():
        names = tuple(map(str, labels.categories))
        found.append(Grouping(key=f"{_IMPORTED}:{title}", title=f"{title} (imported)", names=names))
    for name, names in columns_with_groups(opened).items():
        found.append(Grouping(key=f"{_COLUMN}:{name}", title=f"{name} (column)", names=names))
    return found


def columns_with_groups(opened: OpenSection) -> dict[str, tuple[str, ...]]:
    """Find the columns of ``obs`` that divide the rows; by name of the column, its groups.

    To look through text of half a million rows takes some tenths of a second, so that it is done
    once for each column, by whichever thread comes first.
    """
    known = _known.setdefault(opened, {})
    found = {}
    for name, column in opened.section.table.obs.items():
        values = column.array if isinstance(column.dtype, _EXTENSION) else column.to_numpy()
        before, names = known.get(name, (None, ()))
        if before is not values and not _one_array(before, values):
            names = _groups_of(column)
            known[name] = (values, names)
        if names:
            found[str(name)] = names
    return found


def imported(opened: OpenSection) -> dict[str, pd.Categorical]:
    """Return groups that were imported for a section, by title; they stay as long as its layer."""
    return opened.spots.metadata[METADATA_KEY].setdefault("groups", {})


def add_imported(opened: OpenSection, title: str, labels: pd.Categorical) -> str:
    """Add groups of rows, length n, to a section; returns the key of the grouping."""
    imported(opened)[title] = labels
    return f"{_IMPORTED}:{title}"


def labels_of(opened: OpenSection, key: str) -> Callable[[], Labels]:
    """Prepare to label the rows; called in the window's thread, what it returns in any thread.

    Raises
    ------
    InputError
        If the section has no such grouping, or nothing is drawn or selected.
    """
    if key == DRAWN:
        regions, positions = drawn_regions(opened), opened.section.positions
        if not regions:
            raise InputError(
                f"No region is drawn in '{opened.name}': draw one in Compare, or choose other "
                "groups."
            )
        return lambda: _labels_of_regions(regions, positions)
    if key == SELECTED:
        if opened.selected is None:
            raise InputError(
                f"No {opened.noun} of '{opened.name}' are selected: select some, or choose other "
                "groups."
            )
        rows = opened.selected
        return lambda: Labels(of_rows=_selected_or_not(rows))
    kind, _, name = key.partition(":")
    if kind == _IMPORTED and name in imported(opened):
        labels = imported(opened)[name]
        return lambda: Labels(of_rows=labels)
    obs = opened.section.table.obs
    if kind == _COLUMN and name in obs:
        column = obs[name].copy()
        return lambda: Labels(of_rows=_categories(column))
    raise InputError(f"'{opened.name}' has no groups '{name or key}' any more: choose others.")


def rows_of(opened: OpenSection, key: str, name: str) -> Callable[[], np.ndarray]:
    """Prepare to find the rows of one group, bool (n,), in any thread; see `labels_of`."""
    label = labels_of(opened, key)

    def rows() -> np.ndarray:
        found = label().within(name)
        if not found.any():
            raise InputError(
                f"Group '{name}' of '{opened.name}' holds no {opened.noun}: choose another one."
            )
        return found

    return rows


def keep(opened: OpenSection, labels: pd.Categorical) -> None:
    """Keep groups as the column `KEPT_COLUMN` of ``obs``, in place of those kept before.

    The section then counts as not saved.
    """
    # Names and codes apart: a file holds categories of text alone.
    opened.section.table.obs[KEPT_COLUMN] = labels.rename_categories(str)
    opened.set_dirty(True)
    opened.contents_changed.emit()


def _labels_of_regions(regions: Sequence[Region], positions: np.ndarray) -> Labels:
    of_rows, n_overlapping = label_rows(regions, positions)
    return Labels(of_rows=of_rows, n_overlapping=n_overlapping)


def _selected_or_not(rows: np.ndarray) -> pd.Categorical:
    return pd.Categorical.from_codes(np.where(rows, 0, 1), ["selected", "not selected"])


_EXTENSION = pd.api.extensions.ExtensionDtype
_known: WeakKeyDictionary[OpenSection, dict[Hashable, tuple[object, tuple[str, ...]]]]
_known = WeakKeyDictionary()
"""Values of the columns that were looked through, and their groups."""


def _one_array(before: object, after: object) -> bool:
    """Whether two arrays lie in one place, so that nothing else was put into the column."""
    if not (isinstance(before, np.ndarray) and isinstance(after, np.ndarray)):
        return False
    same_kind = before.shape == after.shape and before.dtype == after.dtype
    return same_kind and np.may_share_memory(before, after)


def _groups_of(column: pd.Series) -> tuple[str, ...]:
    """Names of the groups of a column; empty where it does not divide the rows into groups."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories
    elif pd.api.types.is_bool_dtype(dtype):
        categories = pd.Index([False, True])
    elif pd.api.types.is_object_dtype(dtype) or isinstance(dtype, pd.StringDtype):
        if column.iloc[:_FIRST_ROWS].nunique() > MOST_GROUPS:
            return ()  # without looking through all of it
        categories = _categories(column).categories
    else:
        return ()
    return tuple(map(str, categories)) if 0 < len(categories) <= MOST_GROUPS else ()


def _categories(column: pd.Series) -> pd.Categorical:
    labels = pd.Categorical(column)
    return labels.rename_categories(str)
