"""A window with one large section, used step by step and watched meanwhile; see `gui_large`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from window_watch import Step, WindowWatch

N_SWITCHES, N_VIEWS, N_HOVERS = 20, 20, 60
WINDOW = (1600, 1000)
TYPED = "CD19"
OVERLAY = "overlay painted, from the last prediction on"
Row = dict[str, Any]


def row(what: str, figure: float, unit: str = "") -> Row:
    """One figure."""
    return {"what": what, "figure": float(f"{figure:.4g}") if figure % 1 else figure, "unit": unit}


def rows_of(what: str, step: Step) -> list[Row]:
    """Figures of a step."""
    whole, unpainted, work = step.longest
    return [
        row(what, step.seconds, "s"),
        row(f"{what}: time of the processor alone", step.work, "s"),
        row(f"{what}: longest stop of the window", whole, "ms"),
        row(f"{what}: longest stop, painting left out", unpainted, "ms"),
        row(f"{what}: longest stop, time of the processor alone", work, "ms"),
        row(f"{what}: peak memory", step.memory / 2**30, "GiB"),
    ]


class Session:
    """A window with one section, used step by step.

    Attributes
    ----------
    rows
        What was measured so far.
    """

    def __init__(self, watch: WindowWatch, path: Path, folder: Path) -> None:
        import napari

        from napari_sclinguist.docking import open_dock

        self.watch, self.path, self.folder = watch, path, folder
        self.rows: list[Row] = []
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(*WINDOW)
        self.dock = open_dock(self.viewer)
        self.workspace = self.dock.workspace
        self.workspace.message.connect(lambda message: print(message.text, file=sys.stderr))
        watch.settle(2)

    @property
    def opened(self) -> Any:
        """The section."""
        return self.workspace.active

    def idle(self) -> bool:
        """Whether nothing runs beside the window."""
        from napari_sclinguist.control.jobs import State

        runners = (self.workspace.jobs, self.workspace.background, self.workspace.statistics)
        return all(runner.state is State.IDLE for runner in runners)

    def open(self) -> None:
        """Open the section, as dropping its folder on the window does."""
        with self.watch.step() as step:
            self.viewer.open(str(self.path), plugin="napari-sclinguist")
            self.watch.until(lambda: self.opened is not None or self.idle())
        if self.opened is None:
            raise RuntimeError(f"'{self.path}' was not opened")
        self.rows += rows_of("opening, until it is shown", step)
        with self.watch.step() as step:
            self.watch.settle(1)
            self.watch.until(self.idle)
        self.rows += rows_of("preparing the search, afterwards", step)

    def predict(self, n_proteins: int) -> None:
        """Press the button; with as many of the best proteins as given, 0: what the panel offers.

        The time of the overlay is that from the last row's prediction to the painted picture.
        """
        from window_watch import WatchedApplication

        from napari_sclinguist.control.protein_choice import Which

        panel, opened = self.dock.panel("Predict"), self.opened
        self.dock.open_tab("Predict")
        predicting = panel.predicting
        self.watch.until(lambda: predicting.facts is not None)
        if n_proteins:
            best = predicting.facts.offer.best[:n_proteins]
            predicting.choose_proteins(Which.NAMED, ", ".join(best))
        self.watch.settle(0.5)
        estimate, _ = predicting.estimate()
        accept, begun = opened.accept, []

        def timed(prediction: Any) -> None:
            begun.append(time.perf_counter())
            accept(prediction)
            begun.append(WatchedApplication.painting)

        told = [time.perf_counter()]

        def tell(report: Any) -> None:
            if time.perf_counter() > told[-1] + 30:
                told.append(time.perf_counter())
                print(f"{report.phase}: {report.done:,} of {report.total:,}", file=sys.stderr)

        opened.accept = timed
        self.workspace.jobs.reported.connect(tell)
        with self.watch.step() as step:
            panel.button.click()
            self.watch.until(lambda: len(begun) == 2 or (self.idle() and not begun))
            if not begun:
                raise RuntimeError(f"nothing was predicted: {panel.outcome.text()}")
            self.watch.until(lambda: WatchedApplication.painting > begun[1])
            overlay = self.watch.since(begun[0])
            self.watch.until(self.idle)
        self.workspace.jobs.reported.disconnect(tell)
        del opened.accept
        self.rows += [
            row("proteins that are predicted", predicting.outcome.n_proteins),
            row("prediction, as the panel estimates it", estimate, "s"),
            *rows_of("prediction", step),
            row("prediction: rows a second", opened.section.n_obs / step.seconds),
            row(OVERLAY, overlay, "s"),
        ]
        with self.watch.step() as step:
            self.watch.settle(1)
            self.watch.until(self.idle)
        self.rows += rows_of("statistics of the proteins, afterwards", step)

    def make_up(self, n_proteins: int) -> None:
        """Attach made-up proteins in the place of a prediction."""
        from sclinguist_core.inference.prediction import Prediction

        section = self.opened.section
        x, y = section.positions.T / np.ptp(section.positions, axis=0).max()
        phase = np.random.default_rng(0).uniform(0, 6, n_proteins)
        mean = np.sin(9 * x[:, None] + phase) + np.cos(7 * y[:, None] - phase)
        mean = mean.astype(np.float32)
        std = np.full_like(mean, 0.3)
        prediction = Prediction(
            names=[f"protein {i}" for i in range(n_proteins)],
            mean=mean,
            std=std,
            low=mean - std,
            high=mean + std,
            info={"unit": "made up", "seconds": 0.0, "device": "none"},
        )
        with self.watch.step() as step:
            self.opened.accept(prediction)
        self.rows += [row("proteins that are made up", n_proteins)]
        self.rows += rows_of(OVERLAY, step)

    def switch(self) -> None:
        """Show proteins one after another, then genes."""
        from napari_sclinguist.control.entries import Kind

        catalogue = self.opened.catalogue
        for kind, name in ((Kind.PREDICTED, "protein"), (Kind.GENE, "gene")):
            entries = catalogue.of_kind(kind)
            some = entries[:: max(1, len(entries) // N_SWITCHES)][:N_SWITCHES]
            alone, painted = Stopwatch(self.watch), Stopwatch(self.watch)
            with self.watch.step() as step:
                for entry in some:
                    with painted:
                        with alone:
                            self.opened.show(entry.key)
                        self.watch.settle(0)
            self.rows += _quantiles(f"switching the {name}", alone)
            self.rows += _quantiles(f"switching the {name}, and painting", painted)
            self.rows += rows_of(f"switching {len(some)} {name}s", step)[2:]
        self.opened.show(*catalogue.default_keys()[:1])

    def move(self) -> None:
        """Zoom in to single cells while the picture moves, and out again."""
        camera = self.viewer.scene.camera
        self.viewer.reset_view()
        self.watch.settle(0.5)
        whole, centre = camera.zoom, camera.center
        painted = Stopwatch(self.watch)
        with self.watch.step() as step:
            for i in range(N_VIEWS):
                with painted:
                    camera.zoom = whole * 40 ** (i / (N_VIEWS - 1))
                    camera.center = (centre[0], centre[1] * (1 - i / 60), centre[2] * (1 + i / 80))
                    self.watch.settle(0)
        self.rows += _quantiles("zooming or moving, and painting", painted)
        self.rows += rows_of("zooming and moving", step)[2:]
        self.viewer.reset_view()

    def hover(self) -> None:
        """Move the mouse over the canvas."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        canvas = self.viewer.window._qt_viewer.canvas.native
        heard: list[str] = []
        self.workspace.under_cursor.connect(heard.append)
        told = Stopwatch(self.watch)
        width, height = canvas.width(), canvas.height()
        with self.watch.step() as step:
            for i in range(N_HOVERS):
                place = QPointF(width / 4 + i * width / 2 / N_HOVERS, height / 2 + i)
                button, kind = Qt.MouseButton.NoButton, QEvent.Type.MouseMove
                none = Qt.KeyboardModifier.NoModifier
                event = QMouseEvent(
                    kind, place, QPointF(canvas.mapToGlobal(place)), button, button, none
                )
                self.watch.settle(0.05)  # napari passes a part of quick moves on
                with told:
                    QApplication.sendEvent(canvas, event)
                    self.watch.settle(0)
        self.workspace.under_cursor.disconnect(heard.append)
        if not any(heard):
            raise RuntimeError("no value was told under the cursor")
        self.rows += _quantiles("value under the cursor", told)
        self.rows += rows_of("moving the mouse", step)[2:]

    def search(self) -> None:
        """Type a name, letter by letter, and take it away again."""
        self.dock.open_tab("Explore")
        self.watch.settle(0.2)
        box = self.dock.panel("Explore").search
        listed = Stopwatch(self.watch)
        with self.watch.step() as step:
            for text in [TYPED[: i + 1] for i in range(len(TYPED))] + [TYPED[:1], ""]:
                with listed:
                    box.setText(text)
                    self.watch.settle(0)
            self.watch.settle(0.5)
        self.rows += _quantiles("typing a letter of a name, and the list painted", listed)
        self.rows += rows_of("typing a name", step)[2:]

    def draw_region(self) -> None:
        """Draw around a part of the tissue, and select it."""
        from sclinguist_core.data.regions import Region

        self.dock.open_tab("Compare")
        self.watch.settle(1)
        self.watch.until(self.idle)
        groups = self.dock.panel("Compare").regions.groups
        positions = self.opened.section.positions
        centre, reach = np.median(positions, axis=0), np.ptp(positions, axis=0) / 5
        angle = np.linspace(0, 2 * np.pi, 60)[:-1]
        outline = centre + reach * np.column_stack([np.cos(angle), np.sin(angle)])
        with self.watch.step() as step:
            groups.drawing.add([Region("follicle", (outline,))])
            self.watch.until(self.idle)
        self.rows += rows_of("drawing a region, and counting it", step)
        with self.watch.step() as step:
            groups.select("follicle")
            self.watch.settle(0.1)
            self.watch.until(self.idle)
        self.rows += rows_of("selecting what is in it", step)
        self.rows += [row("rows selected", int(self.opened.selected.sum()))]

    def compare(self) -> None:
        """Plot two features, and show them beside each other."""
        from napari_sclinguist.control.entries import Kind

        panel = self.dock.panel("Compare")
        keys = [entry.key for entry in self.opened.catalogue.of_kind(Kind.PREDICTED)[3:5]]
        with self.watch.step() as step:
            panel.comparing.choose(*keys)
            self.watch.settle(0.1)
            self.watch.until(self.idle)
        self.rows += rows_of("plotting two features against each other", step)
        with self.watch.step() as step:
            panel.panels.button(2).click()
            self.watch.settle(0.1)
            self.watch.until(self.idle)
        self.rows += rows_of("two features and their difference beside each other", step)
        with self.watch.step() as step:
            panel.panels.button(0).click()
            self.watch.settle(0.1)
        self.rows += rows_of("going back to one picture", step)
        self.opened.select(None)
        self.watch.settle(0.2)

    def save(self) -> None:
        """Write the table."""
        saving = self.dock.panel("Save").saving
        path = self.folder / "saved.h5ad"
        with self.watch.step() as step:
            if not saving.save([(self.opened, path)]):
                raise RuntimeError("nothing is saved")
            self.watch.until(self.idle)
        self.rows += rows_of("saving as .h5ad", step)
        self.rows += [row("size of the file", path.stat().st_size / 2**30, "GiB")]
        path.unlink()

    def picture(self, path: Path) -> None:
        """Take a picture of the window with the whole section in it."""
        from PIL import Image

        self.dock.open_tab("Explore")
        self.viewer.reset_view()
        self.watch.settle(2)
        shot = self.viewer.window.screenshot(canvas_only=False, flash=False)
        Image.fromarray(shot[..., :3]).save(path, quality=70, method=6)

    def close(self) -> None:
        """Take the section out of the window."""
        import gc

        self.opened.set_dirty(False)
        with self.watch.step() as step:
            self.viewer.layers.clear()
            self.watch.settle(0.5)
            self.watch.until(self.idle)
        gc.collect()
        self.watch.settle(0.5)
        self.rows += rows_of("closing the section", step)
        import psutil

        memory = psutil.Process().memory_info().rss / 2**30
        self.rows += [row("memory after the section was closed", memory, "GiB")]


class Stopwatch:
    """Times of something that is done again and again; as a context, adds one.

    Attributes
    ----------
    seconds, work
        As they passed, and of the processor in all threads.
    """

    def __init__(self, watch: WindowWatch) -> None:
        self._watch = watch
        self.seconds: list[float] = []
        self.work: list[float] = []

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds.append(self._watch.since(self._start[0]))
        self.work.append(time.process_time() - self._start[1])


def _quantiles(what: str, times: Stopwatch) -> list[Row]:
    seconds = times.seconds
    return [
        row(f"{what}: median", 1000 * float(np.median(seconds)), "ms"),
        row(f"{what}: 95 % below", 1000 * float(np.quantile(seconds, 0.95)), "ms"),
        row(f"{what}: longest", 1000 * max(seconds), "ms"),
        row(f"{what}: time of the processor alone, median", 1000 * np.median(times.work), "ms"),
    ]
