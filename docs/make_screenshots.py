"""Take the pictures of the window that the tutorial shows: one command, a real window.

``make screenshots``, or ``tools/with-display.sh python docs/make_screenshots.py [NAME ...]``. The
simulated sample section is opened, predicted with the bundled checkpoint and walked through;
nothing is retouched. Settings of the user's napari are neither read nor changed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# napari and the plugin read these once, at import.
_SETTINGS = Path(tempfile.mkdtemp(prefix="sclinguist-screenshots-"))
os.environ["NAPARI_CONFIG"] = str(_SETTINGS / "napari.yaml")
os.environ["XDG_CONFIG_HOME"] = str(_SETTINGS)

import napari  # noqa: E402
import numpy as np  # noqa: E402
from napari.settings import get_settings  # noqa: E402
from PIL import Image  # noqa: E402
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget  # noqa: E402

from napari_sclinguist.control.jobs import State  # noqa: E402
from napari_sclinguist.docking import open_dock  # noqa: E402

IMAGES = Path(__file__).resolve().parent / "images"
SIZE = (1400, 900)
QUALITY = 82
"""Of WebP, for a tenth of the size of a PNG: tissue does not compress well without loss."""


class Tour:
    """A window, and the steps through it."""

    def __init__(self, wanted: list[str]) -> None:
        self.wanted = wanted
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(*SIZE)
        self.viewer.open_sample("napari-sclinguist", "tonsil_simulated")
        self.dock = open_dock(self.viewer)
        self.workspace = self.dock.workspace
        self.settle(4)

    @property
    def opened(self):
        """The section."""
        return self.workspace.active

    def settle(self, seconds: float = 1.0) -> None:
        """Let the window do what is waiting."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def wait(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        """Let the window go on until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit("the window did not get where it should")
            QApplication.processEvents()
            time.sleep(0.01)

    def idle(self) -> None:
        """Wait for all work beside the window."""
        self.wait(lambda: self.workspace.jobs.state is State.IDLE)
        self.settle(0.5)
        self.wait(lambda: self.workspace.background.state is State.IDLE)
        self.settle(1.5)

    def take(self, name: str) -> None:
        """Save what is on the screen."""
        if self.wanted and name not in self.wanted:
            return
        QApplication.processEvents()
        pixels = self.viewer.window.screenshot(flash=False)
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
        path = IMAGES / f"window_{name}.webp"
        picture.save(path, quality=QUALITY, method=6)
        sys.stdout.write(f"{path}  {path.stat().st_size / 1024:.0f} KiB\n")

    def scroll_to(self, panel: QWidget, widget: QWidget) -> None:
        """Bring a part of a tab into view."""
        place = panel.parent()
        while not isinstance(place, QScrollArea):
            place = place.parent()
        place.verticalScrollBar().setValue(widget.mapTo(panel, widget.rect().topLeft()).y())
        self.settle(0.5)

    # --- the steps --------------------------------------------------------------------------

    def predict(self) -> None:
        """Open, predict."""
        self.take("opened")
        panel = self.dock.open_tab("Predict")
        self.wait(lambda: panel.button.isEnabled())
        panel.button.click()
        self.wait(lambda: " left" in panel.progress.text.text())
        self.take("predicting")
        self.idle()
        self.take("explore")
        self.dock.open_tab("Predict")
        self.settle(0.5)
        self.take("predicted")

    def explore(self) -> None:
        """Search, colours, threshold."""
        panel = self.dock.open_tab("Explore")
        panel.search.setText("PD-1")
        self.idle()
        self.take("search")
        panel.search.clear()
        view = self.opened.view
        several = view.showing("predicted:CD19", "predicted:CD3", "predicted:CD21")
        self.opened.set_view(replace(several, tissue=0.3, size=1.3))
        self.idle()
        self.take("colours")
        self.opened.set_view(view)

    def compare(self) -> None:
        """Side by side, selection, table, regions."""
        panel = self.dock.open_tab("Compare")
        self.idle()
        panel.panels.buttons()[-1].click()
        self.idle()
        self.take("compare")
        panel.panels.buttons()[0].click()
        self.idle()
        values = self.opened.catalogue.values("predicted:CD19")
        self.opened.select(values > np.nanpercentile(values, 85))
        self.idle()
        self.take("selection")
        self.opened.select(None)
        self.scroll_to(panel, panel.proteins)
        self.take("proteins")

    def regions(self) -> None:
        """Two drawn regions and what differs between them."""
        panel = self.dock.open_tab("Compare")
        box = panel.regions
        box.draw.click()
        self.settle(0.5)
        (layer,) = [one for one in self.viewer.layers if isinstance(one, napari.layers.Shapes)]
        positions = self.opened.section.positions[:, ::-1]
        values = self.opened.catalogue.values("predicted:CD19")
        middle, spread = positions.mean(axis=0), positions.std(axis=0)
        reach = 0.35 * spread
        dense = np.array([values[np.linalg.norm(positions - p, axis=1) < reach[0]].mean()
                          for p in positions])  # fmt: skip
        inside = np.linalg.norm((positions - middle) / spread, axis=1) < 1.5
        best = positions[np.argmax(np.where(inside, dense, -np.inf))]
        least = positions[np.argmin(np.where(inside, dense, np.inf))]
        corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])
        for centre in (best, least):
            layer.add_ellipses(centre + corners * reach)
        layer.mode = "pan_zoom"
        self.idle()
        self.scroll_to(panel, box)
        self.idle()
        self.take("regions")
        self.viewer.layers.remove(layer)

    def perturb(self) -> None:
        """Knock a gene out."""
        panel = self.dock.open_tab("Perturb")
        panel.genes.setText("MS4A1")
        self.settle(0.3)
        panel.button.click()
        self.idle()
        self.take("perturb")
        panel.back.click()
        self.settle(0.5)

    def save(self) -> None:
        """Save and export."""
        self.dock.open_tab("Save")
        self.idle()
        self.take("save")

    def light(self) -> None:
        """Show the light theme, and an error."""
        get_settings().appearance.theme = "light"
        self.dock.open_tab("Explore")
        self.idle()
        self.take("light")
        self.workspace.report(_failure(), "Opening the model")
        self.dock.open_tab("Predict")
        self.settle(0.5)
        self.take("error")
        self.dock.open_tab("Compare")
        self.dock.messages.clear()
        self.idle()
        self.take("light_compare")


def _failure() -> Exception:
    from sclinguist_core.errors import InputError
    from sclinguist_core.model.checkpoint import read_summary

    try:
        read_summary("my-model")
    except InputError as error:
        return error
    raise SystemExit("there is a model of that name here")


def main() -> None:
    """Walk through the window; names on the command line choose pictures."""
    tour = Tour(sys.argv[1:])
    for step in (
        tour.predict,
        tour.explore,
        tour.compare,
        tour.regions,
        tour.perturb,
        tour.save,
        tour.light,
    ):
        step()
    sys.stdout.flush()
    os._exit(0)  # without the question about unsaved predictions


if __name__ == "__main__":
    main()
