"""The legend of one feature: what it is, its colours, its values, and what counts as positive."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from napari_sclinguist.control.distribution import decimals
from napari_sclinguist.control.entries import Entry, Kind
from napari_sclinguist.control.legend import SAME_PROTEIN, TRUST_TIPS, Legend, LegendItem
from napari_sclinguist.widgets.badges import KindBadge, TrustDot
from napari_sclinguist.widgets.plain import as_tip, plain
from napari_sclinguist.widgets.range_histogram import RangeHistogram

_LARGEST = 1e12
_SMALL = "font-size: 11px;"
_OTHER_STYLE = "QPushButton { padding: 2px 6px; font-size: 11px; }"


class FeatureCard(QFrame):
    """Renders a `LegendItem`.

    Parameters
    ----------
    legend
        Takes what is changed.
    """

    def __init__(self, legend: Legend) -> None:
        super().__init__()
        self._legend = legend
        self.item: LegendItem | None = None
        self.swatch = QLabel()
        self.swatch.setFixedSize(12, 12)
        self.name = plain(QLabel())
        self.name.setStyleSheet("font-weight: bold;")
        self.name.setMinimumWidth(20)
        self.badge = KindBadge()
        self.remove = QToolButton()
        self.remove.setText("×")
        self.remove.setToolTip("Stop showing it")
        self.dot = TrustDot()
        self.trust = plain(QLabel())
        self.trust.setWordWrap(True)
        self.others = {kind: QPushButton(str(kind)) for kind in SAME_PROTEIN}
        self.histogram = RangeHistogram()
        self.low, self.high = (
            _number("Value at the lower end of the colours"),
            _number("Value at the upper end of the colours"),
        )
        self.unit = plain(QElidingLabel())
        self.unit.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.unit.setStyleSheet(_SMALL)
        self.reset = QToolButton()
        self.reset.setText("↺")
        self.reset.setToolTip("Back to the 1st and 99th percentile of the values")
        self.has_threshold = QCheckBox("Positive from")
        self.has_threshold.setToolTip(
            "Colour only the spots that have at least this value; the rest counts as negative"
        )
        self.threshold = _number("Least value that counts as positive")
        self.positive = QLabel()
        self._lay_out()
        self.remove.clicked.connect(self._on_remove)
        for kind, button in self.others.items():
            button.clicked.connect(lambda checked, kind=kind: self._on_other(kind))
        self.histogram.limits_dragged.connect(self._on_limits)
        self.histogram.threshold_dragged.connect(self._on_threshold)
        self.histogram.reset_asked.connect(self._on_reset)
        self.reset.clicked.connect(self._on_reset)
        self.low.valueChanged.connect(self._on_numbers)
        self.high.valueChanged.connect(self._on_numbers)
        self.has_threshold.clicked.connect(self._on_has_threshold)
        self.threshold.valueChanged.connect(self._on_threshold)

    def show_item(self, item: LegendItem, *, alone: bool) -> None:
        """Show a feature; one of several has a colour and can be taken away."""
        self.item = item
        entry = item.entry
        title = entry.title or entry.name
        self.name.setText(title)
        self.name.setToolTip(as_tip(entry.label))
        self.badge.set_kind(entry.kind)
        self.swatch.setVisible(not alone)
        swatch = f"background: {item.colour or 'none'}; border-radius: 6px;"
        if swatch != self.swatch.styleSheet():  # setting one is slow, and legends follow drags
            self.swatch.setStyleSheet(swatch)
        self.remove.setVisible(not alone)
        self.trust.setText(item.trust.capitalize())
        self.trust.setVisible(bool(item.trust))
        tips = (TRUST_TIPS.get(entry.trust, ""), "r: expected correlation with a measurement")
        self.trust.setToolTip("\n".join(filter(None, tips)))
        self.dot.setVisible(bool(item.trust))
        self.dot.set_label(entry.trust)
        self._offer(item.others)
        self.histogram.show_item(item)
        places = decimals(item.distribution.reach)
        for box, value in ((self.low, item.limits[0]), (self.high, item.limits[1])):
            _set_number(box, value, places)
        self.unit.setText(entry.unit)
        self.unit.setToolTip(as_tip(entry.unit))
        self.reset.setEnabled(item.chosen)
        self.has_threshold.setChecked(item.threshold is not None)
        self.threshold.setVisible(item.threshold is not None)
        self.positive.setText(item.positive)
        self.positive.setVisible(item.threshold is not None)
        if item.threshold is not None:
            _set_number(self.threshold, item.threshold, places)

    # --- layout -----------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self.heading = QHBoxLayout()
        for widget in (self.swatch, self.name, self.badge):
            self.heading.addWidget(widget)
        self.heading.addStretch(1)
        for button in self.others.values():
            button.setStyleSheet(_OTHER_STYLE)
            self.heading.addWidget(button)
        self.heading.addWidget(self.remove)
        trust = QHBoxLayout()
        trust.setSpacing(5)
        trust.addWidget(self.dot)
        trust.addWidget(self.trust, 1)
        ends = QHBoxLayout()
        for widget in (self.low, self.unit, self.high, self.reset):
            ends.addWidget(widget, 1 if widget is self.unit else 0)
        positive = QHBoxLayout()
        for widget in (self.has_threshold, self.threshold, self.positive):
            positive.addWidget(widget)
        positive.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addLayout(self.heading)
        layout.addLayout(trust)
        layout.addWidget(self.histogram)
        layout.addLayout(ends)
        layout.addLayout(positive)

    def _offer(self, others: tuple[Entry, ...]) -> None:
        """Offer buttons that switch to the same protein as another kind."""
        keys = {entry.kind: entry for entry in others}
        for kind, button in self.others.items():
            entry = keys.get(kind)
            button.setVisible(entry is not None)
            if entry is not None:
                button.setToolTip(as_tip(f"Show {entry.label} instead"))

    # --- what is changed --------------------------------------------------------------------

    def _on_limits(self, low: float, high: float) -> None:
        if self.item is not None:
            self._legend.set_limits(self.item.entry.key, (low, high))

    def _on_numbers(self) -> None:
        if self.low.value() < self.high.value():
            self._on_limits(self.low.value(), self.high.value())

    def _on_reset(self) -> None:
        if self.item is not None:
            self._legend.set_limits(self.item.entry.key, None)

    def _on_has_threshold(self, wanted: bool) -> None:
        if self.item is None:
            return
        if wanted:
            self._legend.propose_threshold(self.item.entry.key)
        else:
            self._legend.set_threshold(self.item.entry.key, None)

    def _on_threshold(self, value: float) -> None:
        if self.item is not None and self.item.threshold is not None:
            self._legend.set_threshold(self.item.entry.key, value)

    def _on_remove(self) -> None:
        if self.item is not None:
            self._legend.exploring.remove(self.item.entry.key)

    def _on_other(self, kind: Kind) -> None:
        if self.item is not None:
            for entry in self.item.others:
                if entry.kind is kind:
                    self._legend.exploring.swap(self.item.entry.key, entry.key)


def _number(tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(-_LARGEST, _LARGEST)
    box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
    box.setKeyboardTracking(False)
    box.setToolTip(tip)
    box.setAccessibleName(tip)
    box.setStyleSheet("QDoubleSpinBox { min-width: 44px; padding: 1px 4px; }")
    box.setMaximumWidth(72)
    return box


def _set_number(box: QDoubleSpinBox, value: float, places: int) -> None:
    if box.hasFocus() and abs(box.value() - value) < 0.5 * 10.0 ** -box.decimals():
        return
    box.blockSignals(True)
    box.setDecimals(places)
    box.setSingleStep(10.0**-places)
    box.setValue(value)
    box.blockSignals(False)


def rule() -> QWidget:
    """Make a thin line between two cards."""
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setFixedHeight(1)
    line.setStyleSheet("background: rgba(128, 128, 128, 90);")
    return line
