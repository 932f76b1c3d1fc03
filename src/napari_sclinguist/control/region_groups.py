"""Groups of rows of the active section: drawn, imported or from a column; counted and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import pandas as pd
from psygnal import Signal

from napari_sclinguist.carriers import MAX_POINTS
from napari_sclinguist.control.catalogue import PREDICTED_KEY
from napari_sclinguist.control.groupings import (
    DRAWN,
    KEPT_COLUMN,
    SELECTED,
    Grouping,
    Labels,
    add_imported,
    groupings,
    keep,
    labels_of,
)
from napari_sclinguist.control.jobs import single_step
from napari_sclinguist.control.messages import Action, Message
from napari_sclinguist.control.region_drawing import RegionDrawing
from sclinguist_core.data.regions import (
    Region,
    categories_for,
    inside,
    read_geojson,
    read_loupe_categories,
    write_geojson,
)
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.workspace import Workspace

MOST_REGIONS = 500
"""More shapes than this are cells, not regions, and too slow to draw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A group in the list.

    Attributes
    ----------
    name
        Its name.
    n_rows
        Rows in it.
    colour
        Of a drawn region, ``"#rrggbb"``; "" for others.
    """

    name: str
    n_rows: int
    colour: str = ""


class RegionGroups:
    """Follows the active section, its regions and the grouping that is chosen.

    Parameters
    ----------
    workspace
        Whose active section is looked at.

    Attributes
    ----------
    opened
        The section; None without one.
    grouping
        Key of the chosen grouping.
    labels
        Group of every row; None before they are known, or where there is no group.
    """

    changed = Signal()
    """Groups, their sizes, or what can be chosen."""
    outdated = Signal()
    """Rows are in other groups, or predictions are others: what was made of them is of the past."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.opened: OpenSection | None = None
        self.grouping = DRAWN
        self.labels: Labels | None = None
        self._drawings: WeakKeyDictionary[OpenSection, RegionDrawing] = WeakKeyDictionary()
        self._request: object = None
        self._predicted: object = None
        workspace.active_changed.connect(self._on_active)
        workspace.sections_changed.connect(self._on_sections)
        self._on_active(workspace.active)

    def close(self) -> None:
        """Let go of the viewer."""
        for drawing in self._drawings.values():
            drawing.close()
        self._drawings.clear()

    # --- what there is ----------------------------------------------------------------------

    @property
    def drawing(self) -> RegionDrawing | None:
        """Drawing of the active section."""
        return None if self.opened is None else self._drawings.get(self.opened)

    def groupings(self) -> list[Grouping]:
        """Ways to divide the rows of the active section."""
        return [] if self.opened is None else groupings(self.opened)

    def groups(self) -> list[Group]:
        """List the groups of the chosen grouping, with their sizes."""
        if self.labels is None:
            return []
        drawing = self.drawing
        colours = drawing.colours if self.is_drawn and drawing is not None else {}
        counts = self.labels.of_rows.value_counts()
        names = self.labels.of_rows.categories
        return [
            Group(name=name, n_rows=int(counts[name]), colour=colours.get(name, ""))
            for name in names
        ]

    @property
    def title(self) -> str:
        """Title of the chosen grouping."""
        return next((one.title for one in self.groupings() if one.key == self.grouping), "")

    @property
    def is_drawn(self) -> bool:
        """Whether the groups are the drawn regions."""
        return self.grouping == DRAWN

    # --- choosing and changing --------------------------------------------------------------

    def choose(self, key: str) -> None:
        """Choose a grouping by its key."""
        if key != self.grouping:
            self.grouping = key
            self._label()

    def draw(self, tool: str) -> None:
        """Take a drawing tool in hand; "" puts it away."""
        self._try("Drawing a region", lambda: self._draw(tool))

    def show_saved(self) -> None:
        """Draw the regions that were saved with the section."""
        self._try("Showing the saved regions", self.drawing.show_saved)

    def rename(self, former: str, name: str) -> None:
        """Give a drawn region another name."""
        self.drawing.rename(former, name)

    def remove(self, name: str) -> None:
        """Take a drawn region away."""
        self.drawing.remove(name)

    def select(self, name: str) -> None:
        """Select the rows of a group."""
        if self.labels is not None:
            self.opened.select(self.labels.within(name))

    def keep(self) -> None:
        """Keep the groups as a column of the table, saved with it; see `groupings.keep`."""
        if self.labels is not None:
            keep(self.opened, self.labels.of_rows)
            text = f"The groups are kept in the column '{KEPT_COLUMN}'; save the section to a file."
            self.workspace.message.emit(Message(text=text))

    # --- files ------------------------------------------------------------------------------

    def import_regions(self, path: Path, *, microns: bool = False) -> None:
        """Draw the regions of a GeoJSON file, in full-resolution pixels or in µm."""
        opened = self.opened
        if opened is None:
            return

        def read() -> tuple[list[Region], bool]:
            scale = 1.0 / opened.section.microns_per_pixel if microns else 1.0
            regions = read_geojson(path, pixels_per_unit=scale)
            if len(regions) > MOST_REGIONS:
                raise InputError(
                    f"'{path}' holds {len(regions):,} regions, expected at most {MOST_REGIONS}; "
                    "export annotations alone, without cells."
                )
            return regions, any(inside(one, opened.section.positions).any() for one in regions)

        def take(found: tuple[list[Region], bool]) -> None:
            regions, any_within = found
            if not any_within:
                self._say_misplaced(opened, path, microns=microns)
                return
            if opened in self._drawings:
                self._try("Importing regions", lambda: self._drawings[opened].add(regions))
                self._choose_of(opened, DRAWN)

        self.workspace.in_background("Importing regions", single_step(read), take)

    def import_categories(
        self, path: Path, choose_column: Callable[[list[str]], str | None]
    ) -> None:
        """Take groups from a category file of Loupe Browser.

        Parameters
        ----------
        path
            CSV.
        choose_column
            Asked which one, where the file has several columns; None gives up.
        """
        opened = self.opened
        if opened is None:
            return

        def take(table: pd.DataFrame) -> None:
            columns = list(table.columns)
            column = columns[0] if len(columns) == 1 else choose_column(columns)
            if column is not None:
                self._try("Importing categories", lambda: self._add(opened, table, column))

        self.workspace.in_background(
            "Importing categories", single_step(lambda: read_loupe_categories(path)), take
        )

    def export_regions(self, path: Path) -> None:
        """Write the drawn regions as GeoJSON, which QuPath opens."""
        self._try("Exporting regions", lambda: write_geojson(self.drawing.regions, path))

    def _add(self, opened: OpenSection, table: pd.DataFrame, column: str) -> None:
        labels = categories_for(opened.section.table.obs_names, table, column)
        self._choose_of(opened, add_imported(opened, column, labels))

    def _say_misplaced(self, opened: OpenSection, path: Path, *, microns: bool) -> None:
        unit = "µm" if microns else "pixels of the full-resolution image"
        text = f"The regions of '{path.name}', read in {unit}, hold no {opened.noun}"
        other = None
        if opened.section.microns_per_pixel is not None:
            label = "Read as pixels" if microns else "Read as µm"
            other = Action(label=label, run=lambda: self.import_regions(path, microns=not microns))
        message = Message(
            text=f"{text}; check that they belong to this section.", level="warning", action=other
        )
        self.workspace.message.emit(message)

    # --- following --------------------------------------------------------------------------

    def _draw(self, tool: str) -> None:
        if tool:
            self.drawing.draw(tool)
            self.choose(DRAWN)
        else:
            self.drawing.stop()

    def _try(self, doing: str, action: Callable[[], object]) -> None:
        try:
            action()
        except InputError as error:
            self.workspace.report(error, doing)

    def _choose_of(self, opened: OpenSection, key: str) -> None:
        if opened is self.opened:
            self.grouping = key
            self._label()

    def _on_active(self, opened: OpenSection | None) -> None:
        if self.opened is not None:
            self.opened.contents_changed.disconnect(self._on_contents)
            self.opened.selection_changed.disconnect(self._on_selection)
        self.opened = opened
        if opened is not None:
            if opened not in self._drawings:
                drawing = self._drawings[opened] = RegionDrawing(opened)
                drawing.changed.connect(self._label)
                drawing.tool_changed.connect(self.changed.emit)
            opened.contents_changed.connect(self._on_contents)
            opened.selection_changed.connect(self._on_selection)
        self.labels = None
        self._on_contents()

    def _on_sections(self) -> None:
        for opened in [one for one in self._drawings if one not in self.workspace.sections]:
            self._drawings.pop(opened).close()

    def _on_contents(self) -> None:
        opened = self.opened
        predicted = None if opened is None else opened.section.table.obsm.get(PREDICTED_KEY)
        if predicted is not self._predicted:
            self._predicted = predicted
            self.outdated.emit()
        self._label()

    def _on_selection(self, rows: object) -> None:
        if self.grouping == SELECTED:
            self._label()
        else:
            self.changed.emit()  # there is one grouping more, or less

    def _label(self) -> None:
        """Find the group of every row; of many rows beside the window."""
        request = self._request = object()
        opened = self.opened
        if self.grouping not in {one.key for one in self.groupings()}:
            self.grouping = DRAWN
        try:
            label = None if opened is None else labels_of(opened, self.grouping)
        except InputError:  # nothing is drawn
            label = None
        if label is None:
            self._take_labels(None)
            return

        if opened.section.n_obs <= MAX_POINTS:  # a matter of milliseconds
            self._take_labels(label())
            return

        def take(labels: Labels) -> None:
            if self._request is request:
                self._take_labels(labels)

        self.workspace.in_background("Counting groups", single_step(label), take, of=opened)

    def _take_labels(self, labels: Labels | None) -> None:
        former, self.labels = self.labels, labels
        if former is None or labels is None or not former.of_rows.equals(labels.of_rows):
            self.outdated.emit()
        self.changed.emit()
