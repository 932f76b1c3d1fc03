"""The legend: a card for each shown feature, and how all of them are drawn."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from napari_sclinguist.control.exploring import Exploring
from napari_sclinguist.control.legend import Legend
from napari_sclinguist.control.view import MAX_CHANNELS
from napari_sclinguist.widgets.appearance import Appearance
from napari_sclinguist.widgets.feature_card import FeatureCard, rule

_LEAST_HEIGHT = 130


class LegendView(QScrollArea):
    """Renders `Legend`; as high as its content where there is room, else it scrolls.

    Parameters
    ----------
    exploring
        Whose section it is about.
    """

    def __init__(self, exploring: Exploring) -> None:
        super().__init__()
        self.legend = Legend(exploring)
        self.cards = [FeatureCard(self.legend) for _ in range(MAX_CHANNELS)]
        self._rules = [rule() for _ in self.cards]
        self.appearance = Appearance(self.legend)
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(7)
        for card, line in zip(self.cards, self._rules, strict=True):
            layout.addWidget(card)
            layout.addWidget(line)
        layout.addWidget(self.appearance)
        layout.addStretch(1)
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        exploring.moved.connect(self.show_view)
        self.show_view()

    def show_view(self) -> None:
        """Render what is shown; later, when the tab it stands in is opened."""
        place = self.parentWidget()
        if place is not None and not place.isVisible():
            return
        items = self.legend.items()
        for place, card in enumerate(self.cards):
            used = place < len(items)
            card.setVisible(used)
            self._rules[place].setVisible(used)
            if used:
                card.show_item(items[place], alone=len(items) == 1)
        self.appearance.show_view()
        self.setVisible(bool(items))
        self.updateGeometry()

    def sizeHint(self) -> QSize:
        """All of the content."""
        content = self.widget()
        height = content.sizeHint().height()
        if content.hasHeightForWidth():
            height = content.heightForWidth(self.width())
        return QSize(content.sizeHint().width(), height + 2)

    def minimumSizeHint(self) -> QSize:
        """Ask for a card's worth: the rest is scrolled."""
        return QSize(200, _LEAST_HEIGHT)
