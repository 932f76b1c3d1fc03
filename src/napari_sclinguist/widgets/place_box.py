"""Where a gene is perturbed: a choice that lists what there is when it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox

if TYPE_CHECKING:
    from napari_sclinguist.control.perturbing import Perturbing, Place


class PlaceBox(QComboBox):
    """Chooses where a gene is perturbed: all rows, what is selected, a region, a group.

    Parameters
    ----------
    perturbing
        Tells what there is.
    """

    def __init__(self, perturbing: Perturbing) -> None:
        super().__init__()
        self._perturbing = perturbing
        self.setToolTip("All of the section, or a region or group of it")
        self.setMaxVisibleItems(20)
        # Long names of regions are cut off rather than widening the dock.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)

    @property
    def place(self) -> Place | None:
        """The chosen place; None stands for all rows."""
        return self.currentData()

    def showPopup(self) -> None:
        """List what there is now."""
        self.list_places()
        super().showPopup()

    def list_places(self) -> None:
        """List the places; the chosen one stays chosen as long as it is there."""
        chosen, places = self.place, self._perturbing.places()
        self.clear()
        heading = ""
        for place in places:
            if place.heading != heading:
                heading = place.heading
                self.addItem(heading)
                self.model().item(self.count() - 1).setEnabled(False)
            self.addItem(place.title, place)
        again = [
            i
            for i in range(self.count())
            if chosen is not None
            and (found := self.itemData(i)) is not None
            and (found.grouping, found.group) == (chosen.grouping, chosen.group)
        ]
        self.setCurrentIndex(again[0] if again else 0)
