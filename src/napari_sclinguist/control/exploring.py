"""State of the Explore tab: what is searched for, what is found, and where in it one stands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from psygnal import Signal

from napari_sclinguist.control.entries import Entry, Kind
from napari_sclinguist.control.jobs import single_step
from napari_sclinguist.control.listing import Listing, Order, Query, list_features
from napari_sclinguist.control.messages import Message
from napari_sclinguist.control.statistics import Measure, Statistics
from napari_sclinguist.control.view import MAX_CHANNELS

if TYPE_CHECKING:
    from napari_sclinguist.control.favourites import Favourites
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace

MEASURE_OF = {
    Order.PATTERN: Measure.PATTERN,
    Order.VARIANCE: Measure.VARIANCE,
    Order.MEAN: Measure.MEAN,
}


class Exploring:
    """State of the Explore tab; it follows the active section.

    Parameters
    ----------
    workspace
        Its active section is listed.
    favourites
        Starred features.

    Attributes
    ----------
    query
        What is asked for; it stays when another section becomes active.
    listing
        What is found.
    row
        Where in the list one stands; None before the first step after a search.
    """

    listed = Signal()
    """`listing` was replaced."""
    moved = Signal()
    """`row` changed, or other features are shown."""
    found_nearest = Signal(list)
    """Names that come close to one that was not found."""

    def __init__(self, workspace: Workspace, favourites: Favourites) -> None:
        self.workspace = workspace
        self.favourites = favourites
        self.query = Query()
        self.listing = Listing()
        self.row: int | None = None
        self._opened: OpenSection | None = None
        self._first_shown: tuple[str, ...] = ()
        self._statistics: WeakKeyDictionary[OpenSection, Statistics] = WeakKeyDictionary()
        workspace.active_changed.connect(self._follow)
        favourites.changed.connect(self._on_starred)
        favourites.message.connect(self._tell)
        favourites.load()
        self._follow(workspace.active)

    @property
    def opened(self) -> OpenSection | None:
        """The section that is listed."""
        return self._opened

    @property
    def shown(self) -> tuple[str, ...]:
        """Keys of the features that the section is coloured by."""
        return () if self._opened is None else self._opened.view.keys

    def ask(self, query: Query) -> None:
        """Search, narrow or sort anew, and stand before the first row."""
        self.query = query
        self._list()
        self._stand_first()

    def toggle_kind(self, kind: Kind) -> None:
        """Show a kind alone or beside others; without any choice all kinds are shown."""
        self.ask(replace(self.query, kinds=self.query.kinds ^ {kind}))

    def entry(self, row: int | None = None) -> Entry | None:
        """Get the feature of a row; by default where one stands, else the first; None if empty."""
        row = (self.row or 0) if row is None else row
        return self.listing.entries[row] if 0 <= row < len(self.listing.entries) else None

    def show(self, row: int | None = None) -> None:
        """Colour by the feature of a row alone; by default where one stands, else the first."""
        entry = self.entry(row)
        if entry is not None:
            self.row = (self.row or 0) if row is None else row
            self.show_keys(entry.key)

    def step(self, by: int) -> None:
        """Go on by some rows and colour by what is there; the ends of the list stop it."""
        last = len(self.listing.entries) - 1
        if last >= 0:
            start = self.row if self.row is not None else (-1 if by > 0 else last + 1)
            self.show(min(max(start + by, 0), last))

    def add(self, row: int | None = None) -> None:
        """Add the feature of a row in a colour of its own."""
        entry = self.entry(row)
        if entry is None or entry.key in self.shown:
            return
        if len(self.shown) == MAX_CHANNELS:
            text = (
                f"{MAX_CHANNELS} features are shown already, and more colours cannot be told "
                f"apart: remove one, then add {entry.label}."
            )
            self._tell(Message(text=text))
            return
        self.show_keys(*self.shown, entry.key)

    def remove(self, key: str) -> None:
        """Stop showing one of several features."""
        rest = [one for one in self.shown if one != key]
        if rest:
            self.show_keys(*rest)

    def swap(self, key: str, other: str) -> None:
        """Show another feature in the place of one that is shown."""
        keys = [other if one == key else one for one in self.shown]
        self.show_keys(*dict.fromkeys(keys))

    def show_keys(self, *keys: str) -> None:
        """Colour by features; what goes wrong becomes a message."""
        if self._opened is None:
            return
        try:
            self._opened.show(*keys)
        except Exception as error:  # a damaged column must not take the window down
            self.workspace.report(error, "Colouring the section")
            self._stand(self._row_shown())

    def toggle_star(self, row: int | None = None) -> None:
        """Mark the feature of a row as a favourite, or take the mark away."""
        entry = self.entry(row)
        if entry is not None:
            self.favourites.toggle(entry.key)

    def look_for_nearest(self) -> None:
        """Look for names like the one that was not found, beside the window."""
        opened, text = self._opened, self.query.text
        if opened is None or self.listing.entries or not text:
            return

        def accept(names: list[str]) -> None:
            if self._opened is opened and self.query.text == text:
                self.found_nearest.emit(names)

        nearest = single_step(lambda: opened.catalogue.nearest(text))
        self.workspace.in_background("Looking for similar names", nearest, accept)

    def close(self) -> None:
        """Stop following the workspace."""
        self.workspace.active_changed.disconnect(self._follow)
        self.favourites.changed.disconnect(self._on_starred)
        self.favourites.message.disconnect(self._tell)
        for statistics in self._statistics.values():
            statistics.changed.disconnect(self._on_figures)
        self._leave()

    # --- following --------------------------------------------------------------------------

    def _follow(self, opened: OpenSection | None) -> None:
        self._leave()
        self._opened = opened
        self._first_shown = self.shown[:1]
        if opened is not None:
            if opened not in self._statistics:
                self._statistics[opened] = Statistics(self.workspace, opened)
                self._statistics[opened].changed.connect(self._on_figures)
            opened.contents_changed.connect(self._on_contents)
            opened.view_changed.connect(self._on_view)
        self._on_contents()

    def _leave(self) -> None:
        if self._opened is not None:
            self._opened.contents_changed.disconnect(self._on_contents)
            self._opened.view_changed.disconnect(self._on_view)
            self._opened = None

    def _on_contents(self) -> None:
        self._list()
        self._stand(self._row_shown())

    def _on_figures(self) -> None:
        if self.query.order in MEASURE_OF:
            self._list()
            self._stand_first()

    def _on_starred(self) -> None:
        row = self.row
        self._list()
        self._stand(self._row_shown() if self.query.starred else row)

    def _on_view(self, view: object) -> None:
        if self.shown[:1] != self._first_shown:  # not merely restyled, or another one added
            self._first_shown = self.shown[:1]
            entry = None if self.row is None else self.entry(self.row)
            if entry is None or entry.key not in self.shown[:1]:
                self.row = self._row_shown()
        self.moved.emit()

    def _tell(self, message: Message) -> None:
        self.workspace.message.emit(message)

    def _row_shown(self) -> int | None:
        return self.listing.row_of(self.shown[0]) if self.shown else None

    def _stand_first(self) -> None:
        # What fits best comes first: stepping begins there, not at what was shown before.
        first = self.listing.entries[:1]
        self._stand(0 if first and first[0].key in self.shown[:1] else None)

    def _stand(self, row: int | None) -> None:
        self.row = row
        self.moved.emit()

    def _list(self) -> None:
        if self._opened is None:
            self.listing = Listing()
        else:
            self.listing = self._list_section(self._opened)
        self.listed.emit()

    def _list_section(self, opened: OpenSection) -> Listing:
        measure = MEASURE_OF.get(self.query.order)
        figures = None
        if measure is not None:
            kinds = [kind for kind in opened.catalogue.kinds if self.query.shows(kind)]
            figures = self._statistics[opened].figures(measure, kinds)
        listing = list_features(opened.catalogue, self.query, self.favourites.keys, figures)
        return replace(listing, working=measure is not None and figures is None)
