"""How a row of the feature list is painted: star, name, figure, trust, badge and plus sign."""

from __future__ import annotations

from qtpy.QtCore import QModelIndex, QPointF, QRect, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFont, QFontMetrics, QPainter, QPalette
from qtpy.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from napari_sclinguist.control.entries import Entry, Kind
from napari_sclinguist.widgets.badges import STAR_COLOUR, paint_badge, paint_dot, paint_star
from napari_sclinguist.widgets.feature_model import FeatureModel

_STAR_WIDTH = 22
_PLUS_WIDTH = 20
_GAP = 6
_TRUST_WORDS = {"not verifiable here": "unverifiable"}


class FeatureDelegate(QStyledItemDelegate):
    """Paints an entry, and tells what lies under the mouse."""

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:
        """All rows are equally high."""
        return QSize(100, QFontMetrics(option.font).height() + 9)

    @staticmethod
    def is_star(row: QRect, x: int) -> bool:
        """Whether a horizontal position lies on the star."""
        return x < row.left() + _STAR_WIDTH

    @staticmethod
    def is_plus(row: QRect, x: int) -> bool:
        """Whether a horizontal position lies on the plus sign."""
        return x > row.right() - _PLUS_WIDTH

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Paint a row."""
        entry: Entry | None = index.data(FeatureModel.ENTRY)
        if entry is None:
            return
        painter.save()
        row, text_colour = option.rect, option.palette.color(QPalette.ColorRole.Text)
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        hovered = bool(option.state & QStyle.StateFlag.State_MouseOver)
        if selected or hovered:
            colour = option.palette.color(QPalette.ColorRole.Highlight)
            colour.setAlpha(255 if selected else 110)
            painter.fillRect(row, colour)
        self._paint_shown(painter, row, index.data(FeatureModel.SHOWN), text_colour)
        starred = bool(index.data(FeatureModel.STARRED))
        if starred or hovered:
            colour = QColor(STAR_COLOUR) if starred else _faint(text_colour)
            paint_star(painter, QPointF(row.left() + 13, row.center().y() + 1), 6, colour, starred)
        right = row.right() - _PLUS_WIDTH
        if hovered and not index.data(FeatureModel.SHOWN):
            place = QRect(right, row.top(), _PLUS_WIDTH, row.height())
            painter.setPen(text_colour)
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, "+")
        right = self._paint_badge(painter, row, right, entry.kind, option.font)
        right = self._paint_trust(painter, row, right, entry.trust, text_colour, option.font)
        figure = index.data(FeatureModel.FIGURE)
        if figure:
            right = self._paint_right(painter, row, right, figure, text_colour, option.font)
        self._paint_name(painter, row, right, index, text_colour, option.font)
        painter.restore()

    def _paint_shown(self, painter: QPainter, row: QRect, shown: str, text: QColor) -> None:
        if shown:
            colour = text if shown == "shown" else QColor(shown)
            painter.fillRect(QRect(row.left(), row.top() + 2, 3, row.height() - 4), colour)

    def _paint_badge(
        self, painter: QPainter, row: QRect, right: int, kind: Kind, font: QFont
    ) -> int:
        small = _smaller(font)
        metrics = QFontMetrics(small)
        widest = max(metrics.horizontalAdvance(str(kind)) for kind in Kind) + 10
        width = metrics.horizontalAdvance(str(kind)) + 10
        height = metrics.height() + 2
        top = row.center().y() - height / 2 + 1
        paint_badge(painter, QRectF(right - width, top, width, height), kind, small)
        return right - widest - _GAP

    def _paint_trust(
        self, painter: QPainter, row: QRect, right: int, trust: str, text: QColor, font: QFont
    ) -> int:
        if not trust:
            return right
        small = _smaller(font)
        metrics = QFontMetrics(small)
        width = metrics.horizontalAdvance("unverifiable") + 12
        paint_dot(painter, QPointF(right - width + 5, row.center().y() + 1), trust)
        painter.setFont(small)
        painter.setPen(_softer(text))
        place = QRect(right - width + 13, row.top(), width - 13, row.height())
        words = _TRUST_WORDS.get(trust, trust)
        painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, words)
        return right - width - _GAP

    def _paint_right(
        self, painter: QPainter, row: QRect, right: int, figure: str, text: QColor, font: QFont
    ) -> int:
        small = _smaller(font)
        width = QFontMetrics(small).horizontalAdvance("0.0000")
        painter.setFont(small)
        painter.setPen(_softer(text))
        place = QRect(right - width, row.top(), width, row.height())
        aligned = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight
        painter.drawText(place, aligned, figure)
        return right - width - _GAP

    def _paint_name(
        self,
        painter: QPainter,
        row: QRect,
        right: int,
        index: QModelIndex,
        text: QColor,
        font: QFont,
    ) -> None:
        left = row.left() + _STAR_WIDTH + 2
        metrics = QFontMetrics(font)
        name = metrics.elidedText(index.data(), Qt.TextElideMode.ElideRight, max(right - left, 10))
        painter.setFont(font)
        painter.setPen(text)
        place = QRect(left, row.top(), right - left, row.height())
        painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, name)
        also = index.data(FeatureModel.ALSO_CALLED)
        left += metrics.horizontalAdvance(name) + 7
        if also and right - left > 24:
            small = _smaller(font)
            painter.setFont(small)
            painter.setPen(_softer(text))
            also = QFontMetrics(small).elidedText(also, Qt.TextElideMode.ElideRight, right - left)
            place = QRect(left, row.top(), right - left, row.height())
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, also)


def _smaller(font: QFont) -> QFont:
    small = QFont(font)
    if font.pointSizeF() > 0:
        small.setPointSizeF(font.pointSizeF() * 0.88)
    else:
        small.setPixelSize(max(round(font.pixelSize() * 0.88), 1))
    return small


def _softer(colour: QColor) -> QColor:
    soft = QColor(colour)
    soft.setAlpha(180)
    return soft


def _faint(colour: QColor) -> QColor:
    faint = QColor(colour)
    faint.setAlpha(110)
    return faint
