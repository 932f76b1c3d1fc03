"""How fluid the window is, next to napari-spatialdata on the same data in the same run.

Usage, with a display (``tools/with-display.sh`` brings a virtual one)::

    tools/with-display.sh python training/benchmarks/gui.py [--write docs/results/gui.md]

The comparison needs ``pip install napari-spatialdata==0.7.2``; without it its rows are left out.
Every measurement runs in a fresh process. Times are medians in milliseconds unless they say
otherwise; *set* is work on the processor, which no graphics card takes away, *set + paint* also
draws the canvas. Goals stand beside the figures; nothing here is a test.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SIZES = {"spots": 5_000, "bins": 500_000, "cells": 1_000_000}
N_PROTEINS = 20
PLUGIN = "napari-sclinguist"
PEER = "napari-spatialdata"


# --- data -----------------------------------------------------------------------------------


def made_up_section(kind: str) -> Any:
    """Make a section of random places and smooth predicted proteins."""
    import anndata as ad
    from scipy import sparse

    from sclinguist_core.data.section import Section

    n = SIZES[kind]
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n)))
    row, column = np.divmod(np.arange(n), side)
    positions = np.column_stack([column, row]) * 30.0
    assay = {"spots": "visium", "bins": "visium_hd", "cells": "xenium"}[kind]
    if kind == "cells":
        positions = positions + rng.uniform(-6, 6, positions.shape)
    names = [f"protein{i}" for i in range(N_PROTEINS)]
    phase = rng.uniform(0, 6, N_PROTEINS)
    values = np.sin(positions[:, :1] / 2000 + phase) + np.cos(positions[:, 1:] / 3000 + phase)
    values = (values + rng.normal(scale=0.2, size=values.shape)).astype(np.float32)
    table = ad.AnnData(
        sparse.csr_matrix((n, 1), dtype=np.float32),
        obs=pd.DataFrame(
            {} if kind == "cells" else {"array_row": row, "array_col": column},
            index=np.arange(n).astype(str),
        ),
        var=pd.DataFrame({"feature_types": ["Gene Expression"]}, index=["A"]),
    )
    table.obsm["spatial"] = positions
    table.obsm["protein_predicted"] = pd.DataFrame(values, index=table.obs_names, columns=names)
    table.uns["sclinguist"] = {"unit": "made up"}
    return Section(name=kind, table=table, spot_diameter=22.0, microns_per_pixel=0.5, assay=assay)


# --- a window, and its event loop -----------------------------------------------------------


def new_viewer() -> Any:
    """Open a window of 1400 x 900 that has been drawn once."""
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1400, 900)
    settle()
    return viewer


def settle(seconds: float = 0.5) -> None:
    """Let the window do what is waiting."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.002)


def timed_switches(switch: Callable[[int], None], n: int) -> dict[str, float]:
    """Median time of a switch, without and with the drawing of it, in ms."""
    from qtpy.QtWidgets import QApplication

    alone, painted = [], []
    for i in range(n + 1):
        start = time.perf_counter()
        switch(i)
        middle = time.perf_counter()
        QApplication.processEvents()
        if i:  # the first one makes what the others find made
            alone.append(middle - start)
            painted.append(time.perf_counter() - start)
    return {
        "set": 1000 * float(np.median(alone)),
        "painted": 1000 * float(np.median(painted)),
    }


# --- measurements, each in a process of its own -----------------------------------------------


def measure_start() -> dict[str, float]:
    """Seconds from the start of Python's work to a drawn window."""
    start = time.perf_counter()
    import napari
    from qtpy.QtWidgets import QApplication

    napari.Viewer(show=True)
    QApplication.processEvents()
    return {"seconds": time.perf_counter() - start}


def measure_open() -> dict[str, float]:
    """Seconds from File > Open Sample to a drawn overlay and an open dock, first and again."""
    from qtpy.QtWidgets import QApplication

    viewer = new_viewer()
    seconds = []
    drawn: list[float] = []
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    canvas.events.draw.connect(lambda event: drawn.append(time.perf_counter()))
    for _ in range(3):
        viewer.layers.clear()
        settle()
        start = time.perf_counter()
        viewer.open_sample(PLUGIN, "tonsil_simulated")
        added = time.perf_counter()
        while not any(at > added for at in drawn) or not viewer.window.dock_widgets:
            QApplication.processEvents()
        seconds.append(max(drawn) - start)
    return {"first": seconds[0], "again": float(np.median(seconds[1:]))}


def measure_switch(kind: str) -> dict[str, float]:
    """Switching the shown protein in our dock's section."""
    import psutil
    from napari.layers import Layer

    from napari_sclinguist.docking import open_dock
    from napari_sclinguist.layers import section_layers

    section = made_up_section(kind)
    viewer = new_viewer()
    dock = open_dock(viewer)
    start = time.perf_counter()
    for data in section_layers(section):
        viewer.add_layer(Layer.create(*data))
    opening = time.perf_counter() - start
    settle(3)  # the search is prepared meanwhile
    opened = dock.workspace.active
    # Values are read anew each time, as for a protein that was not shown before.
    found = timed_switches(lambda i: opened.show(f"predicted:protein{i % N_PROTEINS}"), 10)
    before = list(viewer.layers)
    assert before == list(viewer.layers)
    dock.workspace.close()
    return found | {
        "opening": opening,
        "memory": psutil.Process().memory_info().rss / 2**30,
        "layer": type(opened.spots).__name__,
    }


def measure_peer(kind: str) -> dict[str, float]:
    """Switch in napari-spatialdata: an entry of its list of genes is chosen."""
    import anndata as ad
    from napari_spatialdata import Interactive, QtAdataViewWidget
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel

    section = made_up_section(kind)
    values = section.table.obsm["protein_predicted"]
    table = ad.AnnData(values.to_numpy(), obs=section.table.obs.copy())
    table.var_names = list(values.columns)
    table.obs["region"] = pd.Categorical([kind] * section.n_obs)
    table.obs["spot"] = np.arange(section.n_obs)
    table.obsm["spatial"] = section.positions
    shapes = ShapesModel.parse(section.positions, geometry=0, radius=section.drawn_diameter / 2)
    table = TableModel.parse(table, region=kind, region_key="region", instance_key="spot")
    sdata = SpatialData(shapes={kind: shapes}, tables={"table": table})
    start = time.perf_counter()
    interactive = Interactive(sdata, headless=True)
    interactive.add_element(element=kind, element_coordinate_system="global")
    viewer = interactive._viewer
    viewer.window.resize(1400, 900)
    viewer.window.show()
    while kind not in viewer.layers:  # it loads elements in a thread
        settle(0.1)
    widget = QtAdataViewWidget(viewer)
    viewer.window.add_dock_widget(widget)
    viewer.layers.selection.active = viewer.layers[kind]
    settle(1)
    opening = time.perf_counter() - start
    names = list(values.columns)
    choose = widget.var_widget._onAction
    n = 10 if section.n_obs <= 20_000 else 2
    found = timed_switches(lambda i: choose([names[i % N_PROTEINS]]), n)
    return found | {"opening": opening, "layer": type(viewer.layers[kind]).__name__}


def measure_stall() -> dict[str, Any]:
    """Longest stop of the event loop during a prediction, with and without painting."""
    from qtpy.QtCore import QEvent, QTimer
    from qtpy.QtWidgets import QApplication

    painting = [0.0]
    paints = (QEvent.Type.UpdateRequest, QEvent.Type.Paint, QEvent.Type.Expose)

    class Application(QApplication):
        """Adds up the time of painting: of the canvas, and of the window with the canvas in it."""

        depth = 0

        def notify(self, receiver: Any, event: Any) -> bool:
            outermost, start = self.depth == 0, time.perf_counter()
            kind = event.type()
            self.depth += 1
            try:
                return super().notify(receiver, event)
            finally:
                self.depth -= 1
                if outermost and kind in paints:
                    painting[0] += time.perf_counter() - start

    application = Application(sys.argv)
    from napari_sclinguist.control.jobs import State
    from napari_sclinguist.docking import open_dock

    viewer = new_viewer()
    viewer.open_sample(PLUGIN, "tonsil_simulated")
    dock = open_dock(viewer)
    settle(5)
    panel = dock.panel("Predict")
    stops: list[tuple[float, float]] = []  # whole, and without painting
    last = [time.perf_counter(), painting[0]]
    begin = last[0]

    def tick() -> None:
        now = time.perf_counter()
        whole = now - last[0]
        stops.append((whole, whole - (painting[0] - last[1])))
        last[:] = [now, painting[0]]

    timer = QTimer()
    timer.setInterval(1)
    timer.timeout.connect(tick)
    timer.start()
    panel.button.click()
    while dock.workspace.jobs.state is not State.IDLE or len(stops) < 2:
        application.processEvents()
        time.sleep(0.0005)
    tick()  # the result was taken in just now
    timer.stop()
    seconds = time.perf_counter() - begin
    worst = [sorted((stop[i] for stop in stops), reverse=True)[:5] for i in (0, 1)]
    dock.workspace.close()
    return {
        "seconds": seconds,
        "whole": [round(1000 * stop, 1) for stop in worst[0]],
        "unpainted": [round(1000 * stop, 1) for stop in worst[1]],
    }


# --- running and reporting ------------------------------------------------------------------


def run(part: str, *, config: Path | None = None) -> dict[str, Any] | None:
    """Run a measurement in a fresh process; None when it fails, after its words were shown."""
    environment = dict(os.environ)
    if config is not None:
        environment["NAPARI_CONFIG"] = str(config)
    answer = subprocess.run(
        [sys.executable, __file__, "--part", part],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if answer.returncode:
        print(f"{part}: failed\n{answer.stderr[-3000:]}", file=sys.stderr)
        return None
    return json.loads(answer.stdout.strip().splitlines()[-1])


def start_up(rounds: int, folder: Path) -> tuple[float, float]:
    """Median seconds to start without and with the plugin, alternating."""
    without, with_plugin = folder / "without.yaml", folder / "with.yaml"
    without.write_text(f"plugins:\n  disabled_plugins:\n  - {PLUGIN}\n")
    with_plugin.write_text("plugins: {}\n")
    times: dict[Path, list[float]] = {without: [], with_plugin: []}
    for i in range(rounds + 1):
        for config in times:
            found = run("start", config=config)
            if i and found:  # the first round fills the disk cache
                times[config].append(found["seconds"])
    return float(np.median(times[without])), float(np.median(times[with_plugin]))


def machine() -> str:
    """Say what this ran on."""
    renderer = subprocess.run(
        [sys.executable, __file__, "--part", "renderer"],
        capture_output=True,
        text=True,
        check=False,
    )
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("napari", "PyQt6", "numpy", "torch")
    )
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    drawn = renderer.stdout.strip().splitlines()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores of {cpu}, Python "
        f"{platform.python_version()}, {versions}, drawn by {drawn[-1] if drawn else 'unknown'}"
    )


def renderer() -> str:
    """Name of the OpenGL renderer."""
    from sclinguist_core.doctor import _opengl

    return _opengl().found


def report(rounds: int) -> str:
    """Measure everything; a Markdown page."""
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        bare, ours = start_up(rounds, Path(folder))
    rows.append(("napari start-up without the plugin", f"{bare:.2f} s", ""))
    rows.append(("start-up with the plugin: adds", f"{ours - bare:+.2f} s", "0.2 s at most"))
    opening = run("open") or {}
    rows.append(("open sample to overlay drawn, first", f"{opening['first']:.2f} s", ""))
    rows.append(("open sample to overlay drawn, warm", f"{opening['again']:.2f} s", "3 s at most"))
    goals = {"spots": "10 ms", "bins": "20 ms", "cells": "50 ms"}
    peer = importlib.util.find_spec("napari_spatialdata") is not None
    for kind, n in SIZES.items():
        found = run(f"switch-{kind}")
        if found:
            rows.append(
                (
                    f"switch, {n:,} {kind} ({found['layer']}): set / set + paint",
                    f"{found['set']:.1f} / {found['painted']:.0f} ms",
                    f"set {goals[kind]} at most",
                )
            )
            rows.append((f"opening {n:,} {kind}", f"{found['opening']:.1f} s", ""))
            rows.append((f"memory with {n:,} {kind}", f"{found['memory']:.1f} GiB", ""))
        theirs = run(f"peer-{kind}") if peer else None
        if theirs:
            name = f"{PEER} {metadata.version(PEER)}"
            rows.append(
                (
                    f"the same switch, {name} ({theirs['layer']})",
                    f"{theirs['set']:.1f} / {theirs['painted']:.0f} ms",
                    "",
                )
            )
            rows.append((f"opening in {name}", f"{theirs['opening']:.1f} s", ""))
    stall = run("stall")
    if stall:
        for which, key, goal in (
            ("painting left out", "unpainted", "50 ms at most"),
            ("with painting", "whole", ""),
        ):
            worst = ", ".join(f"{stop:.0f}" for stop in stall[key])
            what = f"longest stops of the window during prediction, {which}"
            rows.append((what, f"{worst} ms", goal))
        rows.append(("prediction of the sample from the dock", f"{stall['seconds']:.1f} s", ""))
    lines = [
        "# Fluidity of the window",
        "",
        f"Written by `training/benchmarks/gui.py`. {machine()}.",
        "",
        "| what | figure | goal |",
        "|---|---|---|",
        *(f"| {what} | {figure} | {goal} |" for what, figure, goal in rows),
        "",
        "*set* is work on the processor alone; *paint* is the drawing of the canvas. Bins and "
        f"cells are circles in {PEER}.",
        "",
    ]
    if not peer:
        lines += [f"{PEER} was not installed; its rows are missing.", ""]
    return "\n".join(lines)


PARTS: dict[str, Callable[[], Any]] = {
    "start": measure_start,
    "open": measure_open,
    "stall": measure_stall,
    "renderer": renderer,
    **{f"switch-{kind}": lambda kind=kind: measure_switch(kind) for kind in SIZES},
    **{f"peer-{kind}": lambda kind=kind: measure_peer(kind) for kind in SIZES},
}


def main() -> None:
    """Measure one part, or all and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, help="one measurement, as JSON")
    parser.add_argument("--rounds", type=int, default=5, help="starts of napari, each way")
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    if arguments.part:
        found = PARTS[arguments.part]()
        print(found if isinstance(found, str) else json.dumps(found), flush=True)
        os._exit(0)  # not the tidying up of the window, which is no part of this
    text = report(arguments.rounds)
    print(text)
    if arguments.write:
        arguments.write.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
