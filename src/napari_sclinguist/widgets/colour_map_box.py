"""Chooser of colour maps with a painted preview of each."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QSize, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QComboBox

from sclinguist_core.evaluation.colouring import (
    COLORMAPS,
    COLOUR_BLIND_SAFE,
    DIVERGING_COLORMAPS,
    lookup_table,
)

_PREVIEW = QSize(72, 12)


class ColourMapBox(QComboBox):
    """Offers the colour maps that fit the feature that is shown."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._offered: tuple[str, ...] = ()
        self.setIconSize(_PREVIEW)
        # The longest name must not decide how wide the dock has to be.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setToolTip("Colours from the lowest to the highest value")
        self.setAccessibleName("Colour map")
        self.activated.connect(lambda place: self.chosen.emit(self._offered[place]))

    def show_colormap(self, name: str, *, diverging: bool) -> None:
        """Show the present one, among those for values around zero or those for others."""
        offered = DIVERGING_COLORMAPS if diverging else COLORMAPS
        if offered != self._offered:
            self._offered = offered
            self.clear()
            for one in offered:
                safe = " · colour-blind safe" if one in COLOUR_BLIND_SAFE else ""
                self.addItem(preview(one), one.removesuffix("_r") + safe)
        self.setCurrentIndex(offered.index(name) if name in offered else -1)


def preview(colormap: str) -> QIcon:
    """Paint a colour map from left to right."""
    row = np.ascontiguousarray(np.repeat(lookup_table(colormap)[None], 2, axis=0))
    height, width = row.shape[:2]
    image = QImage(row.tobytes(), width, height, 4 * width, QImage.Format.Format_RGBA8888)
    return QIcon(QPixmap.fromImage(image).scaled(_PREVIEW))
