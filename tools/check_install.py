"""Install the wheel as napari's plugin manager does, into a fresh environment, and open the dock.

Usage: ``tools/with-display.sh python tools/check_install.py [--keep FOLDER]``. Takes some minutes:
a whole environment is made. ``PIP_CONSTRAINT`` points pip to ``constraints.txt`` throughout.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCK = "Protein from RNA (napari-sclinguist)"

# The plugin manager's own queue of installations, without its dialog.
INSTALL = """
import sys
from qtpy.QtCore import QCoreApplication
from napari_plugin_manager.base_qt_package_installer import InstallerTools
from napari_plugin_manager.qt_package_installer import NapariInstallerQueue
application = QCoreApplication([])
queue = NapariInstallerQueue()
codes = []
queue.processFinished.connect(lambda result: codes.append(result["exit_code"]))
queue.install(InstallerTools.PYPI, [sys.argv[1]])
finished = queue.waitForFinished(1_800_000)
application.processEvents()
print("installer:", "finished" if finished else "timed out", codes)
raise SystemExit(not finished or codes != [0])
"""

# `napari -w napari-sclinguist`, with a look at the window where napari would wait in it.
OPEN = """
import os
import sys
import napari
picture, expected = sys.argv[1:]
def look():
    window = napari.current_viewer().window
    found = list(window.dock_widgets)
    window.screenshot(picture)
    print("docks:", found, flush=True)
    os._exit(found != [expected])
def run(**options):
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication
    QTimer.singleShot(5000, look)
    QApplication.instance().exec()
napari.run = run
sys.argv = ["napari", "-w", "napari-sclinguist"]
from napari.__main__ import main
main()
"""


def call(*command: str | Path) -> None:
    """Run a command with the constraints in force; its failure ends this script."""
    print("$", " ".join(str(part).split("\n")[0] for part in command), flush=True)
    environment = os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    subprocess.run([str(part) for part in command], check=True, env=environment)


def check(folder: Path) -> None:
    """Build, install and open in a folder."""
    call(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    call(ROOT / "tools" / "make-venv.sh", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    call(python, "-m", "pip", "install", "--quiet", "napari[pyqt6]", "napari-plugin-manager")
    call(python, "-c", INSTALL, wheel)
    picture = folder / "dock.png"
    call(python, "-c", OPEN, picture, DOCK)
    print(f"The dock opened: {picture}")


def main() -> None:
    """Check in a temporary folder, or in one that stays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder to work in, left as it is at the end")
    keep = parser.parse_args().keep
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        check(keep.resolve())
        return
    with tempfile.TemporaryDirectory() as temporary:
        check(Path(temporary))


if __name__ == "__main__":
    main()
