"""All sections that are open in a window, and the one that the dock is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_sclinguist.control.adoption import (
    add_layers,
    adopted_layers,
    foreign_object,
    make_layers,
)
from napari_sclinguist.control.groupings import columns_with_groups
from napari_sclinguist.control.jobs import JobQueue, JobRunner, Launch, Steps, single_step
from napari_sclinguist.control.messages import Action, Message, from_exception
from napari_sclinguist.control.model_choice import ModelChoice
from napari_sclinguist.control.open_section import OpenSection
from napari_sclinguist.control.overlap import show_alone
from napari_sclinguist.layers import METADATA_KEY
from sclinguist_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_sclinguist.carriers import LayerData


class Workspace:
    """Follows the layers of a viewer: sections come and go with them.

    Parameters
    ----------
    viewer
        Its layers are adopted as they come; `adopt_all` adopts those that are there.
    launch
        How to run a generator beside the window.

    Attributes
    ----------
    model_choice
        What the Predict tab chose; everything that runs a model uses it.
    jobs
        Heavy work that the user started: one job at a time.
    background, statistics
        Work that the window does by itself, such as preparing the search; see `in_background`.
    """

    active_changed = Signal(object)
    """OpenSection or None"""
    sections_changed = Signal()
    message = Signal(object)
    """Message"""
    under_cursor = Signal(str)
    """Values of the row under the cursor, "" where there is none."""

    def __init__(self, viewer: ViewerModel, launch: Launch) -> None:
        self.viewer = viewer
        self.sections: list[OpenSection] = []
        self.active: OpenSection | None = None
        self.model_choice = ModelChoice()
        self.jobs = JobRunner(launch)
        self.background, self.statistics = JobQueue(launch), JobQueue(launch)
        self.jobs.message.connect(self._hand_on)
        self.background.message.connect(self._hand_on)
        self.statistics.message.connect(self._hand_on)
        self._known_objects: list[Any] = []
        # After napari's own list of layers, so that layers may be added or removed in answer.
        viewer.layers.events.inserted.connect(self._on_inserted, position="last")
        viewer.layers.events.removed.connect(self._on_removed, position="last")
        viewer.layers.selection.events.active.connect(self._on_layer_chosen)
        viewer.mouse_move_callbacks.append(self._on_mouse_move)
        self._closed = False

    @property
    def dirty(self) -> list[OpenSection]:
        """Sections with predictions that no file holds."""
        return [one for one in self.sections if one.dirty]

    def adopt_all(self) -> None:
        """Take the sections that are in the viewer already; after the messages are listened to."""
        for layer in list(self.viewer.layers):
            self._consider(layer)

    def activate(self, opened: OpenSection | None) -> None:
        """Make a section the one that the dock is about."""
        if opened is not self.active:
            self.active = opened
            self._show_legend()
            self.active_changed.emit(opened)
            self.show_active()

    def show_active(self) -> None:
        """Show the active section, not those in the same place; nothing beside panels."""
        if self.active is not None:
            show_alone(self.viewer, self.active, self.sections)

    def report(self, error: BaseException, doing: str) -> None:
        """Show an exception as a message."""
        self.message.emit(from_exception(error, doing))

    def open_beside(self, reading: Callable[[], list[LayerData]], *, quick: bool = False) -> None:
        """Read layers in a thread while the window stays usable, then add them.

        What is `quick` needs no bar that tells how far it is, and is opened while a job runs, too.
        """
        doing = "Opening the section"
        steps = single_step(lambda: make_layers(reading()))

        def take(layers: list[Layer]) -> None:
            add_layers(self.viewer, layers)

        if quick:
            self.in_background(doing, steps, take)
            return
        try:
            self.jobs.start(doing, steps, take)
        except InputError as error:
            self.report(error, doing)

    def in_background(
        self,
        title: str,
        steps: Steps,
        on_result: Callable[[Any], None],
        *,
        slow: bool = False,
        of: OpenSection | None = None,
    ) -> None:
        """Do work beside the window that nobody asked for by a button, one after another.

        What is `slow` on large sections, such as statistics of all features, has a queue of its
        own, so that nothing quick waits for it. Work `of` a section ends when that is closed.
        """
        (self.statistics if slow else self.background).add(title, steps, on_result, owner=of)

    def close(self) -> None:
        """Let go of the viewer; running work is cancelled. Nothing happens the second time."""
        if self._closed:
            return
        self._closed = True
        self.viewer.mouse_move_callbacks.remove(self._on_mouse_move)
        for runner in (self.jobs, self.background, self.statistics):
            runner.close()
        layers = self.viewer.layers
        layers.events.inserted.disconnect(self._on_inserted)
        layers.events.removed.disconnect(self._on_removed)
        layers.selection.events.active.disconnect(self._on_layer_chosen)

    def section_of(self, layer: Layer) -> OpenSection | None:
        """Find the open section that a layer belongs to; None for others' layers."""
        section = layer.metadata.get(METADATA_KEY, {}).get("section")
        return next((one for one in self.sections if one.section is section), None)

    def _hand_on(self, message: Message) -> None:
        self.message.emit(message)

    def _on_inserted(self, event: Any) -> None:
        self._consider(event.value)

    def _consider(self, layer: Layer) -> None:
        """Take a section's layer, or offer to take what another plugin opened."""
        if layer.metadata.get(METADATA_KEY, {}).get("role") == "spots":
            self._adopt(layer)
            return
        sdata = foreign_object(layer)
        if sdata is None or any(sdata is known for known in self._known_objects):
            return
        self._known_objects.append(sdata)
        action = Action(label="Use it here", run=lambda: self.adopt_object(sdata))
        text = "This window shows a SpatialData object: proteins can be predicted for it, too."
        self.message.emit(Message(text=text, action=action))

    def adopt_object(self, sdata: Any) -> None:
        """Open the sections of a SpatialData object that another plugin shows."""
        self.in_background(
            "Reading the SpatialData object",
            single_step(lambda: make_layers(adopted_layers(sdata))),
            lambda layers: add_layers(self.viewer, layers),
        )

    def _adopt(self, layer: Layer) -> None:
        try:
            opened = OpenSection(self.viewer, layer)
        except Exception as error:  # a broken section must not take the window down
            self.report(error, "Showing the section")
            return
        self.sections.append(opened)
        opened.view_changed.connect(self._show_legend)
        opened.put_back.connect(lambda: self._say_that_rows_stay(opened))
        self._show_scale_bar()
        self.sections_changed.emit()
        self.activate(opened)

        def prepare() -> None:
            opened.catalogue.prepare()
            columns_with_groups(opened)

        self.in_background("Preparing the search", single_step(prepare), lambda _: None, of=opened)

    def _on_removed(self, event: Any) -> None:
        opened = next((one for one in self.sections if one.spots is event.value), None)
        if opened is None:
            for one in self.sections:
                one.forget(event.value)
            return
        self.sections.remove(opened)
        for queue in (self.background, self.statistics):
            queue.drop(opened)
        opened.let_go()
        if opened.dirty:
            self.message.emit(
                Message(
                    text=f"{opened.name} was closed, and what was added to it was not saved.",
                    level="warning",
                    action=Action(
                        label="Bring it back", run=lambda: self.viewer.layers.append(opened.spots)
                    ),
                )
            )
        self.sections_changed.emit()
        if opened is self.active:
            self.activate(self.sections[-1] if self.sections else None)
        self._show_scale_bar()

    def _say_that_rows_stay(self, opened: OpenSection) -> None:
        text = f"The {opened.noun} belong to the section and stay where they are."
        self.message.emit(Message(text=text))

    def _on_mouse_move(self, viewer: Any, event: Any) -> None:
        opened = self.active
        row = None if opened is None else opened.row_at(event.position)
        self.under_cursor.emit("" if row is None else opened.describe_row(row))

    def _on_layer_chosen(self, event: Any = None) -> None:
        layer = self.viewer.layers.selection.active
        opened = None if layer is None else self.section_of(layer)
        if opened is not None:
            self.activate(opened)

    def _show_legend(self, view: object = None) -> None:
        """Name the shown features over the picture: napari's colour bar has no title."""
        title = self.viewer.canvas.overlays.text
        shown = None if self.active is None else self.active.picture
        title.text = "" if shown is None else shown.title
        title.position = "top_left"  # in the corner of the bar it would push the bar down
        title.visible = shown is not None
        for one in self.sections:
            bar = getattr(one.spots, "face_colorbar", None) or getattr(one.spots, "colorbar", None)
            if bar is not None and one.picture is not None:
                bar.visible = one is self.active and one.picture.colormap is not None

    def _show_scale_bar(self) -> None:
        """Only where the size of a pixel is known: a guessed scale bar is worse than none."""
        known = [one.section.microns_per_pixel is not None for one in self.sections]
        self.viewer.canvas.overlays.scale_bar.visible = bool(known) and all(known)
