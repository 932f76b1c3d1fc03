"""Sections of real size in the window: 500,000 Visium HD bins and 1,000,000 Xenium cells.

Usage, with a display (``tools/with-display.sh`` brings a virtual one)::

    tools/with-display.sh python training/benchmarks/gui_large.py [--write docs/results]

The sections are simulated (``large_sections.py``) in a temporary folder that is deleted
afterwards; ``--data FOLDER`` keeps them there, or finds them. Each is opened in a window of its
own process, its proteins are predicted with the bundled model by the window's own button, and it
is used: proteins switched, the picture moved, values under the cursor read, a region drawn, two
features compared, the result saved. Besides seconds and memory the longest times are told in
which the window did nothing else, with and without painting: without a graphics card painting is
slow.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from window_watch import Step, WindowWatch

N_BINS, N_CELLS = 500_000, 1_000_000
N_SWITCHES, N_VIEWS, N_HOVERS = 20, 20, 60
WINDOW = (1400, 900)
PICTURES = {"bins": "window_500k_bins.webp", "cells": "window_1m_cells.webp"}
Row = dict[str, Any]


# --- data ---------------------------------------------------------------------------------------


def paths_of(data: Path) -> dict[str, Path]:
    """Where the sections lie, or will."""
    return {
        "bins": data / "visium_hd" / "outs",
        "cells": data / "xenium",
        "outlines": data / "segmented" / "outs" / "segmented_outputs",
    }


def make_data(data: Path) -> None:
    """Simulate what is not there yet."""
    import large_sections as large

    scene = None
    for kind, path in paths_of(data).items():
        if path.exists():
            continue
        scene = scene or large.make_scene()
        if kind == "bins":
            large.write_visium_hd(path.parent, scene, N_BINS)
        elif kind == "cells":
            large.write_xenium(path, scene, N_CELLS)
        else:
            large.write_segmented(path.parents[1], scene, N_CELLS)


# --- without a window ---------------------------------------------------------------------------


def measure_reading(path: Path) -> list[Row]:
    """Open a section without a window."""
    from sclinguist_core.data.readers import open_section

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    section = open_section(path)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform != "darwin":  # kilobytes elsewhere
        before, peak = before * 1024, peak * 1024
    counts = section.rna().counts
    return [
        row("rows", section.n_obs),
        row("genes", counts.shape[1]),
        row("expressed genes of a row, median", float(np.median(np.diff(counts.indptr)))),
        row("reading, without a window", seconds, "s"),
        row("reading, without a window: memory added at the peak", (peak - before) / 2**30, "GiB"),
    ]


# --- in the window ------------------------------------------------------------------------------


def row(what: str, figure: float, unit: str = "") -> Row:
    """One figure."""
    return {"what": what, "figure": float(f"{figure:.4g}") if figure % 1 else figure, "unit": unit}


def rows_of(what: str, step: Step) -> list[Row]:
    """Figures of a step."""
    whole, unpainted, work = step.longest
    return [
        row(what, step.seconds, "s"),
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

    def predict(self) -> None:
        """Press the button; all proteins that the panel offers by itself."""
        panel = self.dock.panel("Predict")
        self.watch.until(lambda: panel.predicting.facts is not None)
        estimate = panel.predicting.estimate()
        with self.watch.step() as step:
            panel.button.click()
            self.watch.until(self.idle)
        if not self.opened.dirty:
            raise RuntimeError(f"nothing was predicted: {panel.outcome.text()}")
        outcome = panel.predicting.outcome
        self.rows += [row("proteins that are predicted", outcome.n_proteins)]
        if estimate is not None:
            self.rows += [row("prediction, as the panel estimates it", estimate[0], "s")]
        self.rows += rows_of("prediction", step)
        rate = self.opened.section.n_obs / step.seconds
        self.rows += [row("prediction: rows a second", rate)]
        with self.watch.step() as step:
            self.watch.settle(1)
            self.watch.until(self.idle)

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
        self.rows += rows_of("taking predictions in", step)

    def switch(self) -> None:
        """Show proteins one after another, then genes."""
        from napari_sclinguist.control.entries import Kind

        catalogue = self.opened.catalogue
        for kind, name in ((Kind.PREDICTED, "protein"), (Kind.GENE, "gene")):
            entries = catalogue.of_kind(kind)
            some = entries[:: max(1, len(entries) // N_SWITCHES)][:N_SWITCHES]
            alone, painted = [], []
            with self.watch.step() as step:
                for entry in some:
                    start = time.perf_counter()
                    self.opened.show(entry.key)
                    alone.append(time.perf_counter() - start)
                    self.watch.settle(0)
                    painted.append(time.perf_counter() - start)
            self.rows += _quantiles(f"switching the {name}", alone)
            self.rows += _quantiles(f"switching the {name}, and painting", painted)
            self.rows += rows_of(f"switching {len(some)} {name}s", step)[1:4]
        self.opened.show(*catalogue.default_keys()[:1])

    def move(self) -> None:
        """Zoom in to single cells while the picture moves, and out again."""
        camera = self.viewer.scene.camera
        self.viewer.reset_view()
        self.watch.settle(0.5)
        whole, centre = camera.zoom, camera.center
        painted = []
        with self.watch.step() as step:
            for i in range(N_VIEWS):
                start = time.perf_counter()
                camera.zoom = whole * 40 ** (i / (N_VIEWS - 1))
                camera.center = (centre[0], centre[1] * (1 - i / 60), centre[2] * (1 + i / 80))
                self.watch.settle(0)
                painted.append(time.perf_counter() - start)
        self.rows += _quantiles("zooming or moving, and painting", painted)
        self.rows += rows_of("zooming and moving", step)[1:4]
        self.viewer.reset_view()

    def hover(self) -> None:
        """Move the mouse over the canvas."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        canvas = self.viewer.window._qt_viewer.canvas.native
        heard: list[str] = []
        self.workspace.under_cursor.connect(heard.append)
        seconds = []
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
                start, before = time.perf_counter(), len(heard)
                QApplication.sendEvent(canvas, event)
                self.watch.settle(0)
                if len(heard) > before:
                    seconds.append(time.perf_counter() - start)
        self.workspace.under_cursor.disconnect(heard.append)
        if not any(heard):
            raise RuntimeError("no value was told under the cursor")
        self.rows += _quantiles("value under the cursor", seconds)
        self.rows += rows_of("moving the mouse", step)[1:4]

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
        """Take a picture: the window with the whole section, and single cells of it beside."""
        from PIL import Image

        self.dock.open_tab("Explore")
        shots = []
        for zoom in (1.0, 30.0):
            self.viewer.reset_view()
            self.watch.settle(0.5)
            self.viewer.scene.camera.zoom *= zoom
            self.watch.settle(1)
            shot = self.viewer.window.screenshot(canvas_only=zoom > 1, flash=False)
            shots.append(Image.fromarray(shot[..., :3]))
        window, close = shots
        close = close.resize((close.width * window.height // close.height, window.height))
        both = Image.new("RGB", (window.width + 12 + close.width, window.height), "white")
        both.paste(window, (0, 0))
        both.paste(close, (window.width + 12, 0))
        both.thumbnail((1800, 1800))
        both.save(path, quality=75, method=6)

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
        self.rows += rows_of("closing the section", step)[:4]
        import psutil

        memory = psutil.Process().memory_info().rss / 2**30
        self.rows += [row("memory after the section was closed", memory, "GiB")]


def _quantiles(what: str, seconds: list[float]) -> list[Row]:
    return [
        row(f"{what}: median", 1000 * float(np.median(seconds)), "ms"),
        row(f"{what}: 95 % below", 1000 * float(np.quantile(seconds, 0.95)), "ms"),
    ]


def measure_window(path: Path, pictures: Path | None, kind: str, made_up: int) -> list[Row]:
    """Use a section in a window."""
    from window_watch import WatchedApplication, WindowWatch

    application = WatchedApplication(sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(WindowWatch(), path, Path(folder))
        session.open()
        if made_up:
            session.make_up(made_up)
        else:
            session.predict()
        session.switch()
        session.move()
        session.hover()
        if pictures is not None:
            session.picture(pictures / PICTURES[kind])
        session.draw_region()
        session.compare()
        session.save()
        session.close()
    session.workspace.close()
    del application
    return session.rows


# --- running and reporting ----------------------------------------------------------------------


def run(part: str, *arguments: str) -> list[Row]:
    """Run a part in a fresh process."""
    answer = subprocess.run(
        [sys.executable, __file__, "--part", part, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure one part, or all and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", help="read-bins, read-cells, read-outlines, bins or cells")
    parser.add_argument("--data", type=Path, help="folder to keep the simulated sections in")
    parser.add_argument("--write", type=Path, help="folder of gui_large.csv")
    parser.add_argument("--pictures", type=Path, help="folder of the screenshots")
    parser.add_argument(
        "--made-up", type=int, default=0, help="made-up proteins instead of a prediction"
    )
    given = parser.parse_args()
    if given.part:
        reading = given.part.removeprefix("read-")
        path = paths_of(given.data)[reading]
        if reading != given.part:
            rows = measure_reading(path)
        else:
            rows = measure_window(path, given.pictures, given.part, given.made_up)
        print(json.dumps(rows), flush=True)
        os._exit(0)  # not the tidying up of the window, which is no part of this
    with tempfile.TemporaryDirectory() as folder:
        report(given.data or Path(folder), given)


def report(data: Path, given: argparse.Namespace) -> None:
    """Measure everything, print it, and write it where asked to."""
    from gui import machine

    subprocess.run(
        [
            sys.executable,
            "-c",
            f"import gui_large; gui_large.make_data(gui_large.Path({str(data)!r}))",
        ],
        cwd=Path(__file__).parent,
        check=True,
    )
    options = ["--data", str(data), "--made-up", str(given.made_up)]
    if given.pictures:
        options += ["--pictures", str(given.pictures)]
    tables = []
    for kind in ("bins", "cells", "outlines"):
        rows = run(f"read-{kind}", *options)
        if kind != "outlines":
            rows += run(kind, *options)
        tables.append(pd.DataFrame(rows).assign(section=kind))
    table = pd.concat(tables)[["section", "what", "figure", "unit"]]
    print(machine())
    print(table.to_string(index=False))
    if given.write:
        table.to_csv(given.write / "gui_large.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
