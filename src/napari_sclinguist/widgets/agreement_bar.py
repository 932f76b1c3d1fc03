"""How two features agree, in four figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_sclinguist.widgets.data_frame_table import as_text

if TYPE_CHECKING:
    from napari_sclinguist.control.agreement import Agreement


class AgreementBar(QWidget):
    """Four figures in a row, each over its name."""

    def __init__(self) -> None:
        super().__init__()
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setVerticalSpacing(0)
        self.values: dict[str, QLabel] = {}
        self._names: dict[str, QLabel] = {}
        texts = (
            ("r", "Pearson r", "Pearson correlation over the section"),
            ("rho", "Spearman ρ", "Rank correlation over the section"),
            (
                "rmse",
                "RMSE",
                "Root mean square difference, both as z-scores within this section: 0 is the same "
                "pattern, 1.41 unrelated",
            ),
            ("n", "spots", "Spots or cells in which both are known"),
        )
        for i, (key, name, tip) in enumerate(texts):
            value, title = QLabel(), QLabel(name)
            value.setStyleSheet("font-size: 15pt;")
            for row, label in enumerate((value, title)):
                label.setToolTip(tip)
                layout.addWidget(label, row, i)
            layout.setColumnStretch(i, 1)
            self.values[key], self._names[key] = value, title

    def show_agreement(self, found: Agreement | None, noun: str) -> None:
        """Show figures; dashes for None."""
        for key in ("r", "rho", "rmse"):
            value = math.nan if found is None else getattr(found, key)
            self.values[key].setText(as_text(value))
        self.values["n"].setText(as_text(None if found is None else found.n))
        self._names["n"].setText(noun or "spots")
