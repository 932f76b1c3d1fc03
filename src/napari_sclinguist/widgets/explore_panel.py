"""The Explore tab: find a feature, see it on the tissue, choose its colours."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget
from superqt.utils import QSignalDebouncer

from napari_sclinguist.control.exploring import Exploring
from napari_sclinguist.control.favourites import Favourites
from napari_sclinguist.control.listing import Order
from napari_sclinguist.widgets.feature_list import FeatureList
from napari_sclinguist.widgets.kind_chips import KindChips
from napari_sclinguist.widgets.legend import LegendView
from napari_sclinguist.widgets.search_box import SearchBox

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent

    from napari_sclinguist.control.workspace import Workspace

ORDERS = {
    Order.MATCH: ("Best match", "Best match first; without a search, by name"),
    Order.TRUST: ("Trust", "Proteins first that the model predicts best in this section"),
    Order.PATTERN: (
        "Spatial pattern",
        "Moran's I: 1 where neighbouring spots are alike, 0 where values are scattered.\n"
        "Of genes, the 2,000 most variable are ranked.",
    ),
    Order.VARIANCE: ("Variance", "Features first that differ most between spots"),
    Order.MEAN: ("Mean", "Features first that are highest on average"),
}
NO_SECTION = "Open a section to colour it by its proteins and genes."
_LINK = "#4c8fd6"
"""Readable on both themes, which Qt's own colour of links is not."""
_PAUSE = 200
"""Milliseconds without a key after which names like the one not found are looked for."""


class _Upper(QWidget):
    """What lies above the legend.

    Its height does not depend on its width: else the dock's scroll area would make the panel as
    high as it likes to be, instead of letting the list and the legend share what there is.
    """

    def hasHeightForWidth(self) -> bool:
        """Hide that chips and sentences wrap; the list takes less then."""
        return False


class ExplorePanel(QWidget):
    """Search box, list and legend of the active section.

    Parameters
    ----------
    workspace
        Its active section is explored.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.exploring = Exploring(workspace, Favourites())
        self.search = SearchBox()
        self.chips = KindChips()
        self.order = QComboBox()
        self.order.setAccessibleName("Sort by")
        for place, (order, (title, tip)) in enumerate(ORDERS.items()):
            self.order.addItem(title, order)
            self.order.setItemData(place, tip, Qt.ItemDataRole.ToolTipRole)
        self.count = QLabel()
        self.nothing = QLabel()
        self.nothing.setWordWrap(True)
        self.nothing.setTextFormat(Qt.TextFormat.RichText)
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.list = FeatureList(self.exploring)
        self.legend = LegendView(self.exploring)
        self._pause = QSignalDebouncer(parent=self)
        self._pause.setTimeout(_PAUSE)
        self._lay_out()
        self._connect()
        self._on_listed()

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what was shown while another tab was open."""
        super().showEvent(event)
        self.legend.show_view()

    def focus_search(self) -> None:
        """Put the cursor into the search box, what is in it selected."""
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def _lay_out(self) -> None:
        sorting = QHBoxLayout()
        sorting.addWidget(QLabel("Sort by"))
        sorting.addWidget(self.order)
        sorting.addStretch(1)
        sorting.addWidget(self.count)
        self.finder = _Upper()
        finder = QVBoxLayout(self.finder)
        finder.setContentsMargins(0, 0, 0, 0)
        finder.setSpacing(6)
        finder.addWidget(self.search)
        finder.addWidget(self.chips)
        finder.addLayout(sorting)
        finder.addWidget(self.nothing)
        finder.addWidget(self.list, 1)
        text = QLabel(NO_SECTION)
        text.setWordWrap(True)
        text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.empty = _Upper()
        QVBoxLayout(self.empty).addWidget(text)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.finder, 1)
        layout.addWidget(self.empty, 1)
        layout.addWidget(self.legend)

    def _connect(self) -> None:
        exploring = self.exploring
        self.search.textChanged.connect(lambda text: self._ask(text=text))
        self.search.stepped.connect(exploring.step)
        self.search.confirmed.connect(exploring.show)
        self.search.added.connect(exploring.add)
        self.search.starred.connect(exploring.toggle_star)
        self.chips.kind_toggled.connect(exploring.toggle_kind)
        self.chips.starred_toggled.connect(lambda only: self._ask(starred=only))
        self.order.activated.connect(
            lambda place: self._ask(order=Order(self.order.itemData(place)))
        )
        self.list.typed.connect(self._type)
        self.nothing.linkActivated.connect(self.search.setText)
        self._pause.triggered.connect(exploring.look_for_nearest)
        exploring.listed.connect(self._on_listed)
        exploring.found_nearest.connect(self._on_nearest)
        find = QShortcut(QKeySequence(QKeySequence.StandardKey.Find), self)
        find.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        find.activated.connect(self.focus_search)
        self._bind_keys()
        self.destroyed.connect(exploring.close)

    def _bind_keys(self) -> None:
        """Keys that work while the picture has the focus."""
        viewer, exploring = self.workspace.viewer, self.exploring

        def next_feature(viewer: Any) -> None:
            exploring.step(1)

        def previous_feature(viewer: Any) -> None:
            exploring.step(-1)

        def find_feature(viewer: Any) -> None:
            if self.isVisible():
                self.focus_search()

        keys = {
            ".": next_feature,
            ",": previous_feature,
            "/": find_feature,
            "Control-F": find_feature,
        }
        for key, run in keys.items():
            viewer.bind_key(key, run, overwrite=True)

        def unbind() -> None:
            for key, run in keys.items():
                bound = viewer.bind_key(key, None)
                if bound is not None and bound is not run:  # another dock's
                    viewer.bind_key(key, bound)

        self.destroyed.connect(unbind)

    def _ask(self, **changes: Any) -> None:
        self.exploring.ask(replace(self.exploring.query, **changes))

    def _type(self, text: str) -> None:
        self.focus_search()
        if text:
            self.search.insert(text)

    def _on_listed(self) -> None:
        exploring = self.exploring
        query, listing = exploring.query, exploring.listing
        is_open = exploring.opened is not None
        self.finder.setVisible(is_open)
        self.empty.setVisible(not is_open)
        self.chips.show_counts(listing.counts, listing.starred, query.kinds, query.starred)
        self.order.setToolTip(ORDERS[query.order][1])
        n_found = len(listing.entries)
        self.count.setText("computing…" if listing.working else _count(n_found))
        self.nothing.setText(self._explain())
        self.nothing.setVisible(bool(self.nothing.text()))
        if is_open and not n_found:
            self._pause.throttle()

    def _explain(self) -> str:
        """Why there is nothing, or which names of a pasted list are missing."""
        query, listing = self.exploring.query, self.exploring.listing
        if listing.missing:
            names = escape(", ".join(listing.missing[:8]))
            more = len(listing.missing) - 8
            return f"Not in this section: {names}{f' and {more} more' if more > 0 else ''}."
        if listing.entries or self.exploring.opened is None:
            return ""
        elsewhere = sum(listing.counts.values())
        if query.starred:
            return "No favourites here: a click on the star left of a name sets one."
        if elsewhere:
            return f"Nothing of the chosen kinds; {elsewhere:,} among the others."
        return f"No feature is called ‘{escape(query.text)}’."

    def _on_nearest(self, names: list[str]) -> None:
        if names and not self.exploring.listing.entries and self._explain():
            links = [
                f'<a href="{escape(name)}" style="color: {_LINK};">{escape(name)}</a>'
                for name in names
            ]
            self.nothing.setText(f"{self._explain()} Nearest: {', '.join(links)}.")


def _count(n_features: int) -> str:
    return "1 feature" if n_features == 1 else f"{n_features:,} features"
