"""Colours and small signs of features: badges of kinds, dots of trust, stars."""

from __future__ import annotations

from math import cos, pi, sin

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFont, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QWidget

from napari_sclinguist.control.entries import Kind

KIND_COLOURS = {
    Kind.PREDICTED: "#7a5bd0",
    Kind.MEASURED: "#1b8168",
    Kind.GENE: "#b3601a",
    Kind.UNCERTAINTY: "#6a7480",
    Kind.CHANGE: "#bb3f78",
    Kind.COLUMN: "#44709f",
}
"""White letters are readable on all of them, and they are on both themes."""
KIND_TIPS = {
    Kind.PREDICTED: "Protein predicted from the RNA",
    Kind.MEASURED: "Protein measured with an antibody in this section",
    Kind.GENE: "RNA of a gene, as measured",
    Kind.UNCERTAINTY: "How uncertain the prediction of a protein is",
    Kind.CHANGE: "Predicted change of a protein after a knockout",
    Kind.COLUMN: "Number that the file holds for every spot or cell",
}
TRUST_COLOURS = {
    "well": "#2aa876",
    "fairly": "#d9a514",
    "poorly": "#d4553f",
    "untested": "#8a919b",
    "not verifiable here": "#8a919b",
}
STAR_COLOUR = "#e0a81c"


def paint_badge(painter: QPainter, place: QRectF, kind: Kind, font: QFont) -> None:
    """Paint the badge of a kind: its name in white on its colour."""
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(KIND_COLOURS[kind]))
    painter.drawRoundedRect(place, 4, 4)
    painter.setPen(QColor("white"))
    painter.setFont(font)
    painter.drawText(place, Qt.AlignmentFlag.AlignCenter, str(kind))
    painter.restore()


def paint_dot(painter: QPainter, centre: QPointF, label: str) -> None:
    """Paint the dot of a trust label: hollow where nothing can be told."""
    colour = QColor(TRUST_COLOURS.get(label, "#8a919b"))
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(colour, 1.4))
    known = label in {"well", "fairly", "poorly"}
    painter.setBrush(colour if known else Qt.BrushStyle.NoBrush)
    painter.drawEllipse(centre, 3.4, 3.4)
    painter.restore()


def paint_star(painter: QPainter, centre: QPointF, size: float, colour: QColor, full: bool) -> None:
    """Paint a five-pointed star, filled or as an outline."""
    corners = [
        QPointF(
            centre.x() + (size if i % 2 == 0 else 0.45 * size) * sin(i * pi / 5),
            centre.y() - (size if i % 2 == 0 else 0.45 * size) * cos(i * pi / 5),
        )
        for i in range(10)
    ]
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(colour, 1))
    painter.setBrush(colour if full else Qt.BrushStyle.NoBrush)
    painter.drawPolygon(QPolygonF(corners))
    painter.restore()


class KindBadge(QWidget):
    """The badge of a kind as a widget of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._kind = Kind.PREDICTED
        self.setFixedSize(self.sizeHint())

    def set_kind(self, kind: Kind) -> None:
        """Show a kind."""
        self._kind = kind
        self.setToolTip(KIND_TIPS[kind])
        self.setFixedSize(self.sizeHint())
        self.update()

    def sizeHint(self) -> QSize:
        """As wide as its word."""
        metrics = self.fontMetrics()
        return QSize(metrics.horizontalAdvance(str(self._kind)) + 12, metrics.height() + 2)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the badge."""
        painter = QPainter(self)
        paint_badge(
            painter, QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), self._kind, self.font()
        )
        painter.end()


class TrustDot(QWidget):
    """The dot of a trust label as a widget of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._label = ""
        self.setFixedSize(12, 12)

    def set_label(self, label: str) -> None:
        """Show a trust label."""
        self._label = label
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the dot."""
        painter = QPainter(self)
        paint_dot(painter, QPointF(6, 6), self._label)
        painter.end()
