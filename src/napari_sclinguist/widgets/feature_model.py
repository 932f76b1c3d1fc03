"""The found features as a Qt model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QModelIndex, QStringListModel, Qt

from napari_sclinguist.control.exploring import Exploring
from napari_sclinguist.control.listing import also_called
from napari_sclinguist.widgets.badges import KIND_TIPS
from sclinguist_core.evaluation.colouring import CHANNEL_COLOURS

if TYPE_CHECKING:
    from napari_sclinguist.control.entries import Entry


class FeatureModel(QStringListModel):
    """Rows of `Exploring.listing`; what a row looks like is asked for when it is painted.

    A list of strings by inheritance, because a view asks for the number of rows once a row, and
    18,000 answers from Python would take longer than the search.
    """

    ENTRY = Qt.ItemDataRole.UserRole
    """Entry"""
    SHOWN = Qt.ItemDataRole.UserRole + 1
    """Colour in which it is shown beside others, "shown" if alone, "" if not."""
    STARRED = Qt.ItemDataRole.UserRole + 2
    FIGURE = Qt.ItemDataRole.UserRole + 3
    """What the list is sorted by, as text; "" where it is unknown."""
    ALSO_CALLED = Qt.ItemDataRole.UserRole + 4

    def __init__(self, exploring: Exploring) -> None:
        super().__init__()
        self._exploring = exploring

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Tell what is asked for about a row."""
        entry = self._exploring.entry(index.row()) if index.isValid() else None
        if entry is None:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return entry.title or entry.name
        if role == self.ENTRY:
            return entry
        if role == self.SHOWN:
            return self._shown(entry)
        if role == self.STARRED:
            return entry.key in self._exploring.favourites
        if role == self.FIGURE:
            figure = (self._exploring.listing.figures or {}).get(entry.key, float("nan"))
            return "" if figure != figure else f"{figure:.3g}"
        if role == self.ALSO_CALLED:
            return self._also_called(entry)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tip(entry)
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return ", ".join(filter(None, (entry.label, entry.trust)))
        return None

    def refresh(self) -> None:
        """Take over the list that was replaced."""
        entries = self._exploring.listing.entries
        self.setStringList([entry.title or entry.name for entry in entries])

    def _shown(self, entry: Entry) -> str:
        shown = self._exploring.shown
        if entry.key not in shown:
            return ""
        return CHANNEL_COLOURS[shown.index(entry.key)] if len(shown) > 1 else "shown"

    def _also_called(self, entry: Entry) -> str:
        opened = self._exploring.opened
        if opened is None:
            return ""
        return also_called(opened.catalogue, entry, self._exploring.query.text)

    def _tip(self, entry: Entry) -> str:
        opened = self._exploring.opened
        lines = [entry.label, KIND_TIPS[entry.kind]]
        others = () if opened is None else opened.catalogue.other_names(entry)
        if entry.title and entry.title != entry.name:
            lines.append(f"In the file: {entry.name}")
        if others:
            lines.append(f"Also called {', '.join(others[:6])}")
        if entry.unit:
            lines.append(f"Unit: {entry.unit}")
        if entry.trust:
            lines.append(f"Trust in this section: {entry.trust}")
        if entry.expected_r == entry.expected_r:
            lines.append(f"Expected correlation with a measurement: r = {entry.expected_r:.2f}")
        return "\n".join(lines)
