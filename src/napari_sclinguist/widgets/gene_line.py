"""A line to type one gene or several into, completed from the genes of the section."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from qtpy.QtCore import QModelIndex, QStringListModel, Qt, Signal
from qtpy.QtWidgets import QCompleter, QLineEdit

from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.names import coding_genes, split_list

if TYPE_CHECKING:
    from napari_sclinguist.control.entries import Entry
    from napari_sclinguist.control.workspace import Workspace

_MOST_OFFERS = 60


class GeneLine(QLineEdit):
    """Takes genes apart by commas; the last one is completed.

    Parameters
    ----------
    workspace
        The genes of its active section are offered, under any name of theirs and of the proteins
        that they code for.
    """

    confirmed = Signal()
    """Enter was pressed, and not to take an offer."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.offers: list[Entry] = []
        self._completer = _LastOfList(self)
        self._completer.popup().setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setCompleter(self._completer)
        self._completer.activated[str].connect(self.setText)
        self.setPlaceholderText("Type a gene, or a protein for its genes")
        self.setClearButtonEnabled(True)
        self.setAccessibleName("Genes")
        self.setToolTip(
            "Gene to change; of several, apart by commas, all are changed together.\n"
            "A protein's name offers the genes that code for it."
        )
        self.textEdited.connect(self._search)
        self.returnPressed.connect(self._on_return)

    @property
    def genes(self) -> tuple[str, ...]:
        """Names that were typed, each once."""
        return tuple(split_list(self.text()))

    def _on_return(self) -> None:
        popup = self._completer.popup()
        if not (popup.isVisible() and popup.currentIndex().isValid()):
            self.confirmed.emit()

    def _search(self, text: str) -> None:
        before, comma, last = text.rpartition(",")
        opened = self.workspace.active
        wanted = last.strip()
        hits = []
        if opened is not None and wanted:
            hits = opened.catalogue.search(wanted, (Kind.GENE,))
        self.offers = hits[:_MOST_OFFERS]
        self._completer.before = f"{before.rstrip()}, " if comma else ""
        self._completer.names.setStringList([_described(entry) for entry in self.offers])
        self._completer.popup().setStyleSheet(self.window().styleSheet())


class _LastOfList(QCompleter):
    """Completes the last name of a list and leaves those before it as they are."""

    def __init__(self, parent: GeneLine) -> None:
        self.names = QStringListModel()
        super().__init__(self.names, parent)
        self.before = ""
        # The catalogue knows all names of a gene; Qt would look at the written one alone.
        self.setCompletionMode(QCompleter.CompletionMode.UnfilteredPopupCompletion)
        self.setMaxVisibleItems(12)

    def pathFromIndex(self, index: QModelIndex) -> str:
        """Text of the line once an offer is taken."""
        return self.before + self.parent().offers[index.row()].name


def _described(entry: Entry) -> str:
    proteins = [name for name in _proteins().get(entry.name, ()) if name != entry.name]
    return f"{entry.name}  ({', '.join(proteins)})" if proteins else entry.name


@cache
def _proteins() -> dict[str, list[str]]:
    """Proteins that each gene codes for, by itself or with others."""
    found: dict[str, list[str]] = {}
    for protein, genes in coding_genes().items():
        for gene in genes:
            found.setdefault(gene, []).append(protein)
    return found
