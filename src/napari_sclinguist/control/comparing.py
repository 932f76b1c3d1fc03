"""What the Compare tab is about: a pair of features, how they agree, and all proteins."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_sclinguist.carriers import MAX_POINTS
from napari_sclinguist.control.agreement import Agreement, Pair, agreement, default_pair
from napari_sclinguist.control.entries import Kind
from napari_sclinguist.control.groups import GROUP_COLUMN, save_group
from napari_sclinguist.control.hexagons import MOST_POINTS, Hexagons, count_hexagons
from napari_sclinguist.control.jobs import Report, single_step
from napari_sclinguist.control.legend import TRUST_WORDS
from napari_sclinguist.control.messages import Message
from napari_sclinguist.control.protein_comparison import ProteinComparison, compare_proteins
from sclinguist_core.data.regions import Region, inside

if TYPE_CHECKING:
    from napari_sclinguist.control.catalogue import Catalogue
    from napari_sclinguist.control.entries import Entry
    from napari_sclinguist.control.open_section import OpenSection
    from napari_sclinguist.control.view import View
    from napari_sclinguist.control.workspace import Workspace


class Comparing:
    """Follows the active section and what is shown of it.

    The pair follows the shown feature until another is chosen; a chosen pair is shown on the
    tissue. While it is not `running` nothing is followed: a tab that nobody sees costs nothing.

    Parameters
    ----------
    workspace
        Whose active section is compared.

    Attributes
    ----------
    opened
        The section; None without one.
    pair
        What is compared; None where there is nothing.
    agreement
        Figures of the pair; None while they are worked out, or where a side is missing.
    hexagons
        Its values, counted, for the plot of many rows; None as well where there are few.
    proteins
        All proteins; None until `compare_proteins` was called and has finished.
    """

    pair_changed = Signal()
    """The pair, its values, or its figures."""
    view_changed = Signal()
    """Colours, limits or opacity, with the same pair."""
    proteins_changed = Signal()

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.opened: OpenSection | None = None
        self.pair: Pair | None = None
        self.agreement: Agreement | None = None
        self.hexagons: Hexagons | None = None
        self.proteins: ProteinComparison | None = None
        self._running = True
        self._missed = False  # contents changed while nothing was followed
        self._stale = True  # the table of all proteins
        self._request: object = None
        self._table_request: object = None
        workspace.active_changed.connect(self._on_active)
        self._on_active(workspace.active)

    # --- following --------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether changes are followed."""
        return self._running

    def set_running(self, running: bool) -> None:
        """Follow changes or not; what happened meanwhile is caught up with."""
        if running and not self._running:
            self._running = True
            if self.opened is not self.workspace.active:
                self._on_active(self.workspace.active)
            elif self._missed:
                self._on_contents()
            elif self.opened is not None:
                self._on_view(self.opened.view)
        self._running = running

    def _on_active(self, opened: OpenSection | None) -> None:
        if not self._running:
            return
        if self.opened is not None:
            self.opened.view_changed.disconnect(self._on_view)
            self.opened.contents_changed.disconnect(self._on_contents)
        self.opened = opened
        if opened is not None:
            opened.view_changed.connect(self._on_view)
            opened.contents_changed.connect(self._on_contents)
        self.pair = self.proteins = None
        self._on_contents()

    def _on_contents(self) -> None:
        self._missed = not self._running
        if self._missed:
            return
        self._stale = True
        if not self._proteins_are_there():
            self.proteins = None
            self.proteins_changed.emit()
        self._set_pair(self._pair_to_show())

    def _proteins_are_there(self) -> bool:
        """Whether the table may stay until a new one is worked out."""
        if self.opened is None or self.proteins is None:
            return False
        keys = (key for pair in self.proteins.pairs for key in (pair.a, pair.b) if key)
        return all(key in self.opened.catalogue for key in keys)

    def _on_view(self, view: View) -> None:
        if not self._running:
            return
        pair = self._pair_to_show()
        if pair != self.pair:
            self._set_pair(pair)
        else:
            self.view_changed.emit()

    def _pair_to_show(self) -> Pair | None:
        """Keep the pair, as long as it is there and what is shown belongs to it."""
        if self.opened is None:
            return None
        catalogue, keys = self.opened.catalogue, self.opened.view.keys
        there = self.pair is not None and all(k in catalogue for k in (self.pair.a, self.pair.b))
        if there and (len(keys) != 1 or keys[0] in self.pair):
            return self.pair
        shown = [key for key in keys if key in catalogue] or catalogue.default_keys()
        return default_pair(catalogue, shown[0]) if shown else None

    # --- choosing ---------------------------------------------------------------------------

    def choose(self, a: str | None = None, b: str | None = None) -> None:
        """Choose a side, or both, by key; the first is shown on the tissue.

        A new first feature brings its own partner along, unless the second was chosen apart.
        """
        if self.opened is None:
            return
        former, catalogue = self.pair, self.opened.catalogue
        if a is not None and b is None:
            pair = default_pair(catalogue, a)
            pair = pair if pair.a == a else pair.swapped()
            if former is not None and former.complete and not self._goes_together(former):
                pair = Pair(a=a, b=former.b)
        else:
            pair = Pair(a=a or (former.a if former else ""), b=b or "")
        self._set_pair(pair)
        keys = self.opened.view.keys
        if keys != (pair.a,) and (a is not None or len(keys) != 1 or keys[0] not in pair):
            self.opened.show(pair.a)

    def swap(self) -> None:
        """Exchange the two sides."""
        if self.pair is not None:
            self._set_pair(self.pair.swapped())

    def choose_protein(self, row: int) -> None:
        """Compare the protein of a row of `proteins`."""
        if self.proteins is not None:
            pair = self.proteins.pairs[row]
            if pair.complete:
                self.choose(pair.a, pair.b)
            else:
                self.choose(pair.a)

    def _goes_together(self, pair: Pair) -> bool:
        found = default_pair(self.opened.catalogue, pair.a)
        return {found.a, found.b} == {pair.a, pair.b}

    # --- working out ------------------------------------------------------------------------

    def entries(self) -> tuple[Entry | None, Entry | None]:
        """Find the two features of the pair."""
        if self.opened is None or self.pair is None:
            return None, None
        catalogue = self.opened.catalogue
        return tuple(
            catalogue.entry(key) if key in catalogue else None for key in (self.pair.a, self.pair.b)
        )

    def _set_pair(self, pair: Pair | None) -> None:
        self.pair = pair
        self.agreement = self.hexagons = None
        request = self._request = object()
        if pair is None or not pair.complete:
            self.pair_changed.emit()
            return
        x, y = (self.opened.catalogue.values(key) for key in (pair.a, pair.b))

        def compare() -> tuple[Agreement, Hexagons | None]:
            return agreement(x, y), count_hexagons(x, y) if len(x) > MOST_POINTS else None

        def accept(found: tuple[Agreement, Hexagons | None]) -> None:
            if self._request is request:
                self.agreement, self.hexagons = found
                self.pair_changed.emit()

        if len(x) <= MAX_POINTS:
            accept(compare())
            return
        self.pair_changed.emit()
        self.workspace.in_background(
            "Comparing two features", single_step(compare), accept, of=self.opened
        )

    def compare_proteins(self) -> None:
        """Work out the table of all proteins beside the window, unless it is up to date."""
        opened = self.opened
        if opened is None or not self._stale:
            return
        self._stale = False
        request = self._table_request = object()

        def accept(found: ProteinComparison | None) -> None:
            if found is not None and self._table_request is request and self.opened is opened:
                self.proteins = found
                self.proteins_changed.emit()

        self.workspace.in_background(
            "Comparing all proteins",
            lambda: _comparison_steps(opened.catalogue),
            accept,
            of=opened,
        )

    def export(self, path: Path) -> None:
        """Write the table of all proteins as CSV, and say so.

        Raises
        ------
        OSError
            If the file cannot be written; a former one is then as it was.
        """
        if self.proteins is not None:
            self.proteins.write(path)
            text = f"The table of {len(self.proteins.table)} proteins is in '{path}'."
            self.workspace.message.emit(Message(text=text))

    def save_group(self, name: str) -> None:
        """Give the selected rows a name, and say so; see `napari_sclinguist.control.groups`.

        Raises
        ------
        InputError
            If nothing is selected, or the name is empty.
        """
        if self.opened is None:
            return
        save_group(self.opened, name)
        text = (
            f"{int(self.opened.selected.sum()):,} {self.opened.noun} are now '{name.strip()}' in "
            f"the column '{GROUP_COLUMN}'; save the section to keep them."
        )
        self.workspace.message.emit(Message(text=text))

    # --- saying -----------------------------------------------------------------------------

    @property
    def hint(self) -> str:
        """What stands in the way of comparing, in one sentence; "" if nothing does."""
        if self.opened is None:
            return "Open a section to compare its proteins."
        catalogue = self.opened.catalogue
        predicted = bool(catalogue.of_kind(Kind.PREDICTED))
        measured = bool(catalogue.of_kind(Kind.MEASURED))
        if not predicted and not measured:
            return "Predict proteins first: no protein was measured in this section."
        if not predicted:
            return "Predict proteins first: until then, measured ones are compared with mRNA."
        if not measured:
            return "No protein was measured here, so predictions are compared with mRNA."
        return ""

    def trust_line(self) -> str:
        """How far to trust the predicted side of the pair; "" where nothing is predicted."""
        predicted = next(
            (e for e in self.entries() if e is not None and e.kind is Kind.PREDICTED), None
        )
        if predicted is None or not predicted.trust:
            return ""
        words = f"{predicted.name}: {TRUST_WORDS.get(predicted.trust, predicted.trust)}"
        if np.isfinite(predicted.expected_r):
            words += f"; expected r {predicted.expected_r:.2f}"
        return words + "."


def rows_within(outline: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rows whose point lies within an outline.

    Parameters
    ----------
    outline
        (m, 2) corners, in the units of the points.
    x, y
        (n,) places of the points; a row with a NaN is never within.

    Returns
    -------
    (n,) bool
    """
    if len(outline) < 3:
        return np.zeros(len(x), bool)
    return inside(Region("outline", (outline,)), np.column_stack([x, y]))


def _comparison_steps(
    catalogue: Catalogue,
) -> Generator[Report, None, ProteinComparison | None]:
    try:
        return (yield from compare_proteins(catalogue))
    except KeyError:  # features went meanwhile; it is asked for again
        return None
