"""A line to type a protein, gene or column into, completed from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qtpy.QtCore import QModelIndex, QStringListModel, Qt, Signal
from qtpy.QtWidgets import QCompleter, QLineEdit

from napari_sclinguist.control.entries import Kind
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from qtpy.QtGui import QFocusEvent

    from napari_sclinguist.control.entries import Entry
    from napari_sclinguist.control.workspace import Workspace

_MOST_OFFERS = 60


class FeaturePicker(QLineEdit):
    """Chooses one feature of the active section.

    Parameters
    ----------
    workspace
        Its active section is searched.
    kinds
        Kinds to offer; all by default.
    """

    picked = Signal(str)
    """Key of the feature that was chosen by hand."""

    def __init__(self, workspace: Workspace, kinds: Iterable[Kind] | None = None) -> None:
        super().__init__()
        self.workspace = workspace
        self.kinds = tuple(Kind if kinds is None else kinds)
        self.key = ""
        self.offers: list[Entry] = []
        self._label = ""
        self._names = QStringListModel(self)
        completer = QCompleter(self._names, self)
        # The catalogue knows all names of a feature; Qt would look at the written one alone.
        completer.setCompletionMode(QCompleter.CompletionMode.UnfilteredPopupCompletion)
        completer.setMaxVisibleItems(12)
        completer.popup().setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setCompleter(completer)
        self.setPlaceholderText("Type a protein or gene")
        self.textEdited.connect(self._search)
        self.returnPressed.connect(self._take_first)
        completer.activated[QModelIndex].connect(lambda index: self._take(index.row()))

    def set_entry(self, entry: Entry | None) -> None:
        """Show a feature, or nothing; tells nobody."""
        self.key = "" if entry is None else entry.key
        self._label = "" if entry is None else entry.label
        self.setText(self._label)
        self.setCursorPosition(0)

    def focusInEvent(self, event: QFocusEvent) -> None:
        """Select the text, so that typing replaces it."""
        super().focusInEvent(event)
        if event.reason() != Qt.FocusReason.PopupFocusReason:
            self.selectAll()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        """Show the chosen feature again, if nothing else was chosen."""
        super().focusOutEvent(event)
        if event.reason() != Qt.FocusReason.PopupFocusReason:
            self.setText(self._label)
            self.setCursorPosition(0)

    def _search(self, text: str) -> None:
        opened = self.workspace.active
        hits = [] if opened is None else opened.catalogue.search(text, self.kinds)
        self.offers = hits[:_MOST_OFFERS]
        self._names.setStringList([entry.label for entry in self.offers])
        self.completer().popup().setStyleSheet(self.window().styleSheet())

    def _take(self, row: int) -> None:
        entry = self.offers[row]
        self.set_entry(entry)
        self.picked.emit(entry.key)

    def _take_first(self) -> None:
        """Take the best match of what was typed."""
        if self.text() == self._label or self.workspace.active is None:
            return
        self._search(self.text())
        if self.offers:
            self._take(0)
            return
        try:
            self.workspace.active.catalogue.find(self.text())
        except InputError as error:  # names the nearest ones
            self.workspace.report(error, "Looking a feature up")
