"""All proteins of a section, one a row: how far to trust each, and how it agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sclinguist.control import names
from napari_sclinguist.control.entries import Kind
from napari_sclinguist.widgets.data_frame_table import Column, TableView
from napari_sclinguist.widgets.save_dialog import choose_file

if TYPE_CHECKING:
    import pandas as pd

    from napari_sclinguist.control.agreement import Pair
    from napari_sclinguist.control.protein_comparison import ProteinComparison

_HEIGHT = 300
_SHORT = {"not verifiable here": "unverifiable"}
_TRUST_TIP = (
    "How far to trust the prediction in this section: well, fairly or poorly predicted in data "
    "that the model had not seen; untested, where no such data measured the protein; "
    "unverifiable, where this section lacks the cells that carry it"
)


def _columns(reference: Kind) -> tuple[Column, ...]:
    other = "measured protein" if reference is Kind.MEASURED else "mRNA of its gene"
    columns = [
        Column(name="protein", title="Protein"),
        Column(name="trust", title="Trust", tip=_TRUST_TIP, width=80),
        Column(
            name="expected_r",
            title="exp. r",
            tip="Correlation with the measured protein to be expected, from unseen data sets",
            width=42,
        ),
        Column(name="r", title="r", tip=f"Pearson correlation of prediction and {other}", width=36),
        Column(
            name="spearman",
            title="ρ",
            tip=f"Spearman (rank) correlation of prediction and {other}",
            width=36,
        ),
        Column(
            name="rmse_z",
            title="RMSE",
            tip=f"Root mean square difference of prediction and {other}, both as z-scores within "
            "this section: 0 is the same pattern, 1.41 unrelated",
            width=44,
        ),
    ]
    if reference is Kind.MEASURED:
        columns.append(
            Column(
                name="r_mrna",
                title="mRNA",
                tip="Pearson correlation of the gene's mRNA and the measured protein; of several "
                "genes the best",
                width=44,
            )
        )
    return (
        *columns,
        Column(name="mean", title="mean", tip="Mean of the prediction", width=44, optional=True),
        Column(
            name="variance", title="var.", tip="Variance of the prediction", width=40, optional=True
        ),
    )


class ProteinTable(QWidget):
    """The table, a line to narrow it down, and a button to export it."""

    chosen = Signal(int)
    """Row of `ProteinComparison`"""
    export = Signal(object)
    """Path of the CSV to write; `proposed` is what the dialog starts with"""

    def __init__(self) -> None:
        super().__init__()
        self.comparison: ProteinComparison | None = None
        self._kept: list[int] = []
        self.title = QLabel("<b>All proteins</b>")
        self.title.setToolTip("Widen the dock to see the mean and the variance as well")
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Narrow down")
        self.filter.setClearButtonEnabled(True)
        self.filter.setToolTip("Show proteins under this name alone: PD-1, CD279 and PDCD1 are one")
        self.button = QPushButton("Export table…")
        self.button.setToolTip("Write all proteins and figures to a CSV file")
        self.proposed = Path("compared.csv")
        self.table = TableView(_columns(Kind.MEASURED))
        self.table.setFixedHeight(_HEIGHT)
        self.table.sort_by("r", descending=True)
        top = QHBoxLayout()
        top.addWidget(self.title)
        top.addWidget(self.filter, 1)
        top.addWidget(self.button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.table)
        self.filter.textChanged.connect(self._fill)
        self.button.clicked.connect(self._ask_where)
        self.table.chosen.connect(lambda row: self.chosen.emit(self._kept[row]))

    def show_comparison(self, comparison: ProteinComparison | None) -> None:
        """Show the proteins of a section; None shows none."""
        self.comparison = comparison
        self.button.setEnabled(comparison is not None)
        self._fill()

    def mark(self, pair: Pair | None) -> None:
        """Select the row of a pair, if there is one."""
        pairs = [] if self.comparison is None else self.comparison.pairs
        rows = [i for i, row in enumerate(self._kept) if pairs[row] in (pair, _swapped(pair))]
        self.table.mark(rows[0] if rows else None)

    def _fill(self) -> None:
        frame, reference = self._frame(), Kind.MEASURED
        if self.comparison is not None:
            reference = self.comparison.reference
        self.table.set_frame(frame, _columns(reference))

    def _frame(self) -> pd.DataFrame:
        if self.comparison is None:
            self._kept = []
            return self.table.frame_model.frame.iloc[:0]
        table = self.comparison.table
        wanted = names.fold(self.filter.text())
        meets = _matcher(wanted)
        self._kept = [i for i, protein in enumerate(table["protein"]) if meets(protein)]
        shown = table.iloc[self._kept].reset_index(drop=True)
        shown["trust"] = shown["trust"].cat.rename_categories(_SHORT)
        return shown

    def _ask_where(self) -> None:
        path = choose_file(self, "Export table", self.proposed, "CSV (*.csv)")
        if path is not None:
            self.export.emit(path)


def _matcher(wanted: str) -> Callable[[str], bool]:
    """Test whether a row answers to a folded text under any name of its protein."""
    known = names.protein_names()
    if not wanted:
        return lambda title: True

    def meets(title: str) -> bool:
        protein = title.partition(" (")[0]  # one of several antibodies stands in brackets
        return any(wanted in names.fold(name) for name in (title, *known.get(protein, ())))

    return meets


def _swapped(pair: Pair | None) -> Pair | None:
    return None if pair is None else pair.swapped()
