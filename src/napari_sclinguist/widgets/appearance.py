"""How all shown features are drawn: colour map, opacity, size of the spots, tissue, fading."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QSlider, QWidget
from superqt.utils import QSignalThrottler

from napari_sclinguist.control.legend import Legend
from napari_sclinguist.widgets.colour_map_box import ColourMapBox

_MILLISECONDS = 30


class FieldSlider(QSlider):
    """A slider of a field of the view, in hundredths, passed on at most every 30 ms."""

    moved_to = Signal(float)

    def __init__(self, name: str, low: float, high: float, tip: str) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setRange(round(100 * low), round(100 * high))
        self.setPageStep(10)
        self.setToolTip(tip)
        self.setAccessibleName(name)
        self._throttle = QSignalThrottler(parent=self)
        self._throttle.setTimeout(_MILLISECONDS)
        self._throttle.triggered.connect(lambda: self.moved_to.emit(self.value() / 100))
        self.valueChanged.connect(self._throttle.throttle)

    def show_value(self, value: float) -> None:
        """Stand at a value without passing it on."""
        if not self.isSliderDown():
            self.blockSignals(True)
            self.setValue(round(100 * value))
            self.blockSignals(False)


class Appearance(QWidget):
    """Renders the fields of `View` that hold for all shown features.

    Parameters
    ----------
    legend
        Takes what is changed.
    """

    def __init__(self, legend: Legend) -> None:
        super().__init__()
        self._legend = legend
        self.colormap = ColourMapBox()
        self.colormap_label = QLabel("Colours")
        self.opacity = FieldSlider("Opacity", 0, 1, "Opacity of the coloured spots")
        self.size_slider = FieldSlider(
            "Spot size", 0.2, 3, "Size of the spots; 100 % is their true diameter"
        )
        self.tissue = FieldSlider(
            "Tissue", 0, 1, "Opacity of the tissue image: less of it lets the colours stand out"
        )
        self.fade = QCheckBox("Fade what the model does not know")
        self.fade.setToolTip(
            "Spots become transparent whose RNA is unlike anything that the model has learnt "
            "from,\nor where the error of the shown protein is several times its usual size.\n"
            "Works for predicted proteins."
        )
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setHorizontalSpacing(8)
        layout.setVerticalSpacing(4)
        layout.addWidget(self.colormap_label, 0, 0)
        layout.addWidget(self.colormap, 0, 1, 1, 2)
        self._diverging = False
        self._texts: dict[FieldSlider, QLabel] = {}
        sliders = {"Opacity": self.opacity, "Spot size": self.size_slider, "Tissue": self.tissue}
        for row, (name, slider) in enumerate(sliders.items(), start=1):
            text = QLabel()
            text.setMinimumWidth(text.fontMetrics().horizontalAdvance("000 %") + 8)
            text.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self._texts[slider] = text
            layout.addWidget(QLabel(name), row, 0)
            layout.addWidget(slider, row, 1)
            layout.addWidget(text, row, 2)
            slider.valueChanged.connect(lambda value, text=text: text.setText(f"{value} %"))
        layout.addWidget(self.fade, 4, 0, 1, 3)
        layout.setColumnStretch(1, 1)
        self.colormap.chosen.connect(self._on_colormap)
        self.opacity.moved_to.connect(lambda value: legend.restyle(opacity=value))
        self.size_slider.moved_to.connect(lambda value: legend.restyle(size=value))
        self.tissue.moved_to.connect(lambda value: legend.restyle(tissue=value))
        self.fade.clicked.connect(lambda wanted: legend.restyle(fade=wanted))

    def show_view(self) -> None:
        """Render the present view."""
        view, entries = self._legend.view, self._legend.entries
        if view is None or not entries:
            return
        alone = len(entries) == 1
        self._diverging = entries[0].diverging
        self.colormap.setVisible(alone)
        self.colormap_label.setVisible(alone)
        name = view.diverging_colormap if self._diverging else view.colormap
        self.colormap.show_colormap(name, diverging=self._diverging)
        values = {self.opacity: view.opacity, self.size_slider: view.size, self.tissue: view.tissue}
        for slider, value in values.items():
            slider.show_value(value)
            self._texts[slider].setText(f"{slider.value()} %")
        self.tissue.setEnabled(self._legend.has_tissue)
        self.fade.setEnabled(self._legend.can_fade)
        self.fade.setChecked(view.fade)

    def _on_colormap(self, name: str) -> None:
        field = "diverging_colormap" if self._diverging else "colormap"
        self._legend.restyle(**{field: name})
