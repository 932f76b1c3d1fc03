"""Chips that narrow the list to kinds of features, or to favourites."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import QSize, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QPushButton, QWidget
from superqt.utils import QFlowLayout

from napari_sclinguist.control.entries import Kind
from napari_sclinguist.widgets.badges import KIND_COLOURS, KIND_TIPS, STAR_COLOUR

_STYLE = """
QPushButton {{ border: 1px solid {colour}; border-radius: 9px; padding: 1px 7px;
    background: transparent; }}
QPushButton:hover {{ background: {colour}50; }}
QPushButton:checked {{ background: {colour}; color: white; }}
"""


class KindChips(QWidget):
    """One chip for each kind that a section has, with its count, and one for favourites."""

    kind_toggled = Signal(object)
    """Kind"""
    starred_toggled = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        layout = QFlowLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setHorizontalSpacing(4)
        layout.setVerticalSpacing(4)
        self.chips: dict[Kind, QPushButton] = {}
        for kind in Kind:
            chip = _chip(KIND_COLOURS[kind], f"{KIND_TIPS[kind]}; press to show this kind alone")
            chip.clicked.connect(lambda checked, kind=kind: self.kind_toggled.emit(kind))
            self.chips[kind] = chip
            layout.addWidget(chip)
        self.star = _chip(STAR_COLOUR, "Show favourites alone; Ctrl+D or * sets a star")
        self.star.clicked.connect(self.starred_toggled.emit)
        layout.addWidget(self.star)

    def show_counts(
        self, counts: Mapping[Kind, int], starred: int, chosen: frozenset[Kind], only_starred: bool
    ) -> None:
        """Show how many features of each kind meet the search, and which kinds are chosen."""
        for kind, chip in self.chips.items():
            chip.setVisible(kind in counts)
            chip.setText(f"{kind} {counts.get(kind, 0):,}")
            chip.setChecked(kind in chosen)
        self.star.setText(f"★ {starred:,}")
        self.star.setChecked(only_starred)
        self.updateGeometry()

    def sizeHint(self) -> QSize:
        """As high as the rows of chips at the present width."""
        return QSize(self.layout().sizeHint().width(), self.layout().heightForWidth(self.width()))

    def minimumSizeHint(self) -> QSize:
        """All rows are needed: see `sizeHint`."""
        return QSize(self.layout().minimumSize().width(), self.sizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Ask for other rows at another width."""
        if event.size().width() != event.oldSize().width():
            self.updateGeometry()
        super().resizeEvent(event)


def _chip(colour: str, tip: str) -> QPushButton:
    chip = QPushButton()
    chip.setCheckable(True)
    chip.setToolTip(tip)
    chip.setStyleSheet(_STYLE.format(colour=colour))
    return chip
