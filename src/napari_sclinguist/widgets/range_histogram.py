"""A histogram on which the ends of the colours, and the threshold, are dragged."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import (
    QColor,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
    QPolygonF,
)
from qtpy.QtWidgets import QSizePolicy, QWidget
from superqt.utils import QSignalThrottler

from napari_sclinguist.control.distribution import Distribution
from napari_sclinguist.control.legend import LegendItem

_SIDE = 8
"""Room left and right for half a grip."""
_TOP = 10
_STRIP = 9
_GRIP = 9
_NEAR = 9
"""Pixels from a handle within which it is caught."""
_MILLISECONDS = 30
"""A drag is passed on at most this often: every one recolours the tissue."""


class Handle(StrEnum):
    """What can be dragged."""

    LOW = "low"
    HIGH = "high"
    THRESHOLD = "threshold"


class RangeHistogram(QWidget):
    """Bars of the values in the colours that they have on the tissue, above the colour bar.

    For the height of the bars see `Distribution.heights`.
    """

    limits_dragged = Signal(float, float)
    threshold_dragged = Signal(float)
    reset_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        self.setToolTip(
            "How often each value occurs; rare ones are drawn higher than they are.\n"
            "Drag the two grips to choose where the colours begin and end; "
            "double-click to go back."
        )
        self._distribution: Distribution | None = None
        self._table = np.zeros((256, 4), np.uint8)
        self.values: dict[Handle, float] = {}
        self._dragged: Handle | None = None
        self._moved: Handle | None = None
        self._pressed = self._offset = 0.0
        self._symmetric = False
        self._throttle = QSignalThrottler(parent=self)
        self._throttle.setTimeout(_MILLISECONDS)
        self._throttle.triggered.connect(self._pass_on)

    @property
    def dragging(self) -> bool:
        """Whether a handle is held."""
        return self._dragged is not None

    def show_item(self, item: LegendItem) -> None:
        """Show a feature; while a handle is held it stays where the mouse is."""
        self._table = item.table
        self._symmetric = item.entry.diverging
        if not self.dragging:
            self._distribution = item.distribution
            self.values = {Handle.LOW: item.limits[0], Handle.HIGH: item.limits[1]}
            if item.threshold is not None:
                self.values[Handle.THRESHOLD] = item.threshold
        self.update()

    def sizeHint(self) -> QSize:
        """Low enough for three of them in a dock."""
        return QSize(200, _TOP + 38 + _STRIP + _GRIP + 3)

    def position_of(self, value: float) -> float:
        """Horizontal pixel of a value."""
        low, high = self._reach
        return _SIDE + (value - low) / (high - low) * self._width

    def value_at(self, x: float) -> float:
        """Value of a horizontal pixel, within the histogram."""
        low, high = self._reach
        return low + min(max((x - _SIDE) / self._width, 0.0), 1.0) * (high - low)

    # --- dragging ---------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Catch a handle."""
        if event.button() != Qt.MouseButton.LeftButton:
            return
        self._dragged = self._handle_at(event.position())
        if self._dragged is not None:
            self._pressed = event.position().x()
            # The handle keeps its distance from the mouse: it does not jump when caught.
            self._offset = self.position_of(self.values[self._dragged]) - self._pressed

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag it."""
        if self._dragged is None:
            caught = self._handle_at(event.position()) is not None
            self.setCursor(Qt.CursorShape.SplitHCursor if caught else Qt.CursorShape.ArrowCursor)
            return
        x = event.position().x()
        if self._moved is None and abs(x - self._pressed) < 1:
            return
        self._moved = self._dragged
        self._move(self._dragged, self.value_at(x + self._offset))
        self.update()
        self._throttle.throttle()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let go."""
        self._dragged = None
        self._throttle.cancel()
        self._pass_on()
        self._moved = None

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Go back to the percentiles."""
        self._dragged = self._moved = None
        self._throttle.cancel()
        self.reset_asked.emit()

    def changeEvent(self, event: QEvent) -> None:
        """Follow napari's theme."""
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self.update()
        super().changeEvent(event)

    def _move(self, handle: Handle, value: float) -> None:
        least = (self._reach[1] - self._reach[0]) / 200  # the ends never meet
        if self._symmetric and handle is not Handle.THRESHOLD:
            reach = max(value if handle is Handle.HIGH else -value, least)
            self.values |= {Handle.LOW: -reach, Handle.HIGH: reach}
            return
        if handle is Handle.LOW:
            value = min(value, self.values[Handle.HIGH] - least)
        elif handle is Handle.HIGH:
            value = max(value, self.values[Handle.LOW] + least)
        self.values[handle] = value

    def _pass_on(self) -> None:
        if self._moved is Handle.THRESHOLD:
            self.threshold_dragged.emit(self.values[Handle.THRESHOLD])
        elif self._moved is not None:
            self.limits_dragged.emit(self.values[Handle.LOW], self.values[Handle.HIGH])

    def _handle_at(self, place: QPointF) -> Handle | None:
        near = {
            handle: abs(self.position_of(value) - place.x())
            for handle, value in self.values.items()
        }
        near = {handle: distance for handle, distance in near.items() if distance <= _NEAR}
        if not near:
            return None
        # Where handles meet, the threshold is taken at the top and the ends at the bottom.
        at_top = place.y() < self.height() / 2
        if Handle.THRESHOLD in near and (at_top or len(near) == 1):
            return Handle.THRESHOLD
        near.pop(Handle.THRESHOLD, None)
        return min(near, key=near.__getitem__)

    # --- painting ---------------------------------------------------------------------------

    @property
    def _reach(self) -> tuple[float, float]:
        return (0.0, 1.0) if self._distribution is None else self._distribution.reach

    @property
    def _width(self) -> float:
        return max(self.width() - 2 * _SIDE, 1)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint bars, colour bar and handles."""
        if self._distribution is None:
            return
        painter = QPainter(self)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        floor = self.height() - _GRIP - _STRIP - 3
        self._paint_bars(painter, floor, text)
        self._paint_strip(painter, floor + 2, text)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for handle in (Handle.LOW, Handle.HIGH):
            self._paint_limit(painter, self.position_of(self.values[handle]), text)
        if Handle.THRESHOLD in self.values:
            self._paint_threshold(painter, self.position_of(self.values[Handle.THRESHOLD]), text)
        painter.end()

    def colours_of(self, values: np.ndarray) -> np.ndarray:
        """Colours (n, 4) uint8 that values have on the tissue; transparent below the threshold."""
        low, high = self.values[Handle.LOW], self.values[Handle.HIGH]
        strength = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
        colours = self._table[np.rint(strength * 255).astype(np.uint8)].copy()
        if Handle.THRESHOLD in self.values:
            colours[values < self.values[Handle.THRESHOLD]] = 0
        return colours

    def _paint_bars(self, painter: QPainter, floor: float, text: QColor) -> None:
        shown = self._distribution
        if shown is None:
            return
        heights = shown.heights * (floor - _TOP)
        colours = self.colours_of((shown.edges[:-1] + shown.edges[1:]) / 2)
        places = [self.position_of(edge) for edge in shown.edges]
        rim = QColor(text)
        rim.setAlpha(90)
        for i, height in enumerate(heights):
            if height > 0:
                bar = QRectF(places[i], floor - height, places[i + 1] - places[i], height)
                painter.fillRect(bar, QColor(*map(int, colours[i])))
                # Dark ends of a colour map would vanish on a dark theme, light ones on a light.
                painter.fillRect(QRectF(bar.left(), bar.top(), bar.width(), 1), rim)

    def _paint_strip(self, painter: QPainter, top: float, text: QColor) -> None:
        width = max(int(self._width), 2)
        values = np.linspace(*self._reach, width)
        row = np.ascontiguousarray(self.colours_of(values))[None]
        image = QImage(row.tobytes(), width, 1, 4 * width, QImage.Format.Format_RGBA8888)
        place = QRectF(_SIDE, top, self._width, _STRIP)
        painter.drawImage(place, image)
        rim = QColor(text)
        rim.setAlpha(90)
        painter.setPen(QPen(rim, 1))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(place)

    def _paint_limit(self, painter: QPainter, x: float, text: QColor) -> None:
        bottom = self.height() - 1.0
        tip = bottom - _GRIP - _STRIP / 2
        painter.setPen(QPen(text, 1))
        painter.drawLine(QPointF(x, _TOP), QPointF(x, tip))
        grip = [(x, tip), (x + 5, tip + 6), (x + 5, bottom), (x - 5, bottom), (x - 5, tip + 6)]
        painter.setPen(QPen(self.palette().color(QPalette.ColorRole.Window), 1))
        painter.setBrush(text)
        painter.drawPolygon(QPolygonF([QPointF(*corner) for corner in grip]))

    def _paint_threshold(self, painter: QPainter, x: float, text: QColor) -> None:
        painter.setPen(QPen(text, 1.4, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(x, _TOP), QPointF(x, self.height() - _GRIP))
        grip = [(x - 5, 1.0), (x + 5, 1.0), (x, _TOP)]
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(text)
        painter.drawPolygon(QPolygonF([QPointF(*corner) for corner in grip]))
