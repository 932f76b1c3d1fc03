"""One feature against another, a point a spot; what is drawn around is selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.widgets import LassoSelector
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sclinguist.control.comparing import rows_within
from napari_sclinguist.control.hexagons import ACROSS, MOST_POINTS, Hexagons
from napari_sclinguist.control.tissue_selection import SELECTION_COLOUR

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent, QWheelEvent

    from napari_sclinguist.control.entries import Feature

_HEIGHT = 280
_MOST_MARKED = 20_000
"""Selected rows that are marked over hexagons: more would hide them anyway."""


class _Canvas(FigureCanvasQTAgg):
    """A figure that leaves the wheel to the panel that it stands in."""

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()


class ScatterPlot(QWidget):
    """Plot of two features with a lasso.

    Drawing is put off while the plot cannot be seen.
    """

    lassoed = Signal(object)
    """(n,) bool: the rows that were drawn around; none of them after a mere click."""

    def __init__(self) -> None:
        super().__init__()
        self.a: Feature | None = None
        self.b: Feature | None = None
        self.selected: np.ndarray | None = None
        self._hexagons: Hexagons | None = None
        self._stale = True
        self._cloud: Any = None
        self.figure = Figure(layout="constrained")
        self.canvas = _Canvas(self.figure)
        self.canvas.setFixedHeight(_HEIGHT)
        self.canvas.setCursor(Qt.CursorShape.CrossCursor)
        self.axes = self.figure.add_subplot()
        self._marks = self.axes.scatter(
            [], [], s=9, color=SELECTION_COLOUR, linewidths=0, alpha=0.85, zorder=3
        )
        self._lasso = LassoSelector(self.axes, self._on_lasso, button=1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.canvas)
        self._take_colours()

    def show_pair(self, a: Feature, b: Feature, hexagons: Hexagons | None = None) -> None:
        """Plot the second feature (upwards) against the first.

        Parameters
        ----------
        a, b
            The features.
        hexagons
            Counts of their values, where these are more than `MOST_POINTS`; without them the plot
            stays empty.
        """
        same = self.a is not None and self.a.values is a.values and self.b.values is b.values
        same = same and self._hexagons is hexagons
        self.a, self.b, self._hexagons = a, b, hexagons
        if not same:
            self._update()

    def show_selected(self, rows: np.ndarray | None) -> None:
        """Mark rows, bool (n,); None marks nothing."""
        self.selected = rows
        if self.a is not None and not self._stale and self._seen:
            self._mark()
            self.canvas.draw_idle()

    @property
    def is_binned(self) -> bool:
        """Whether rows are counted in hexagons."""
        return self.a is not None and len(self.a.values) > MOST_POINTS

    @property
    def _seen(self) -> bool:
        return self.isVisibleTo(self.window())

    def _update(self) -> None:
        self._stale = True
        if self._seen:
            self._draw()

    def _draw(self) -> None:
        self._stale = False
        if self._cloud is not None:
            self._cloud.remove()
            self._cloud = None
        if self._hexagons is not None:
            counted = self._hexagons
            x, y = np.array(counted.extent[:2]), np.array(counted.extent[2:])
            self._cloud = self.axes.hexbin(
                counted.x,
                counted.y,
                C=counted.counts,
                reduce_C_function=np.sum,
                gridsize=ACROSS,
                extent=counted.extent,
                bins="log",
                cmap=self._ramp(),
            )
        elif not self.is_binned:
            known = np.isfinite(self.a.values) & np.isfinite(self.b.values)
            x, y = self.a.values[known], self.b.values[known]
            colour = self._colour(QPalette.ColorRole.WindowText)
            self._cloud = self.axes.scatter(
                x, y, s=7, color=colour, alpha=0.4, linewidths=0, zorder=1
            )
        else:  # they are being counted
            x = y = np.empty(0)
        self.axes.set_xlim(*_span(x))
        self.axes.set_ylim(*_span(y))
        self.axes.set_xlabel(_axis_title(self.a), parse_math=False)
        self.axes.set_ylabel(_axis_title(self.b), parse_math=False)
        self._mark()
        self.canvas.draw_idle()

    def _mark(self) -> None:
        rows = self.selected
        if rows is None or len(rows) != len(self.a.values) or rows.sum() > _MOST_MARKED:
            places = np.empty((0, 2))
        else:
            places = np.column_stack([self.a.values[rows], self.b.values[rows]])
        self._marks.set_offsets(places[np.isfinite(places).all(axis=1)])

    def _on_lasso(self, outline: list[tuple[float, float]]) -> None:
        if self.a is not None:
            self.lassoed.emit(rows_within(np.asarray(outline), self.a.values, self.b.values))

    # --- colours -----------------------------------------------------------------------------

    def _take_colours(self) -> None:
        """Paint everything in the colours of the window's theme."""
        text = self._colour(QPalette.ColorRole.WindowText)
        ground = self._colour(QPalette.ColorRole.Window)
        self.figure.set_facecolor(ground)
        self.axes.set_facecolor(ground)
        self.axes.tick_params(colors=text, labelsize=8)
        for side, spine in self.axes.spines.items():
            spine.set_visible(side in {"left", "bottom"})
            spine.set_color(text)
        for label in (self.axes.xaxis.label, self.axes.yaxis.label):
            label.set_color(text)
            label.set_fontsize(9)
        self._lasso.set_props(color=SELECTION_COLOUR, linewidth=1.5)

    def _colour(self, role: QPalette.ColorRole) -> str:
        return self.palette().color(role).name()

    def _ramp(self) -> LinearSegmentedColormap:
        low = self._colour(QPalette.ColorRole.Highlight)
        return LinearSegmentedColormap.from_list(
            "counts", [low, self._colour(QPalette.ColorRole.WindowText)]
        )

    def changeEvent(self, event: QEvent) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        changes = (QEvent.Type.PaletteChange, QEvent.Type.StyleChange)
        if event.type() in changes and hasattr(self, "_lasso"):
            self._take_colours()
            if self.a is not None:
                self._update()

    def showEvent(self, event: QShowEvent) -> None:
        """Draw what was put off."""
        super().showEvent(event)
        self._take_colours()
        if self._stale and self.a is not None:
            self._draw()


def _axis_title(feature: Feature) -> str:
    return f"{feature.label}, {feature.unit}" if feature.unit else feature.label


def _span(values: np.ndarray) -> tuple[float, float]:
    """Range of an axis, with a margin; also for no values, and for equal ones."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin
