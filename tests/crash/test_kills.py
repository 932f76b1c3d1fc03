"""The benchmark of kills finds what it looks for: writers that are wrong in one way each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "training" / "benchmarks"

KILL = """
import json, os, random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import kills
from killing.case import Case
from sclinguist_core.files import replacing

class Written(Case):
    operation = name = "save"
    def prepare(self):
        self.target(self.older).write_text("older")
    def target(self, trial):
        return trial / "text"
    def content(self, path):
        return path.read_text()

class Right(Written):
    def run(self, trial):
        with replacing(self.target(trial)) as new:
            new.write_text("newer")

class InPlace(Written):
    def run(self, trial):
        with self.target(trial).open("w") as file:
            file.write("ne")
            file.flush()
            os.chmod(file.name, 0o600)
            file.write("wer")

class OldFirst(Written):
    def run(self, trial):
        self.target(trial).unlink(missing_ok=True)
        with replacing(self.target(trial)) as new:
            new.write_text("newer")

class Unresumable(Right):
    def run(self, trial):
        (trial / "busy").touch(exist_ok=False)
        super().run(trial)
        (trial / "busy").unlink()

class NewNames(Written):
    def run(self, trial):
        new = trial / str(os.getpid())
        new.write_text("newer")
        new.rename(self.target(trial))

found = {}
for kind in (Right, InPlace, OldFirst, Unresumable, NewNames):
    folder = Path(sys.argv[2]) / kind.__name__
    case, counts = kind(folder / "case"), kills.Counter()
    case.measure(once=True)
    rng = random.Random(0)
    for _ in range(8):
        counts += kills.kill_once(case, rng, folder, quick=True)
    found[kind.__name__] = {n: counts[n] for n in ("kills", "lost", "corrupted", "left_over")}
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
def test_what_is_lost_corrupted_and_left_over_is_counted(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILL, str(BENCHMARKS), str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {name: list(counts.values()) for name, counts in json.loads(done.stdout).items()}
    assert found["Right"] == [8, 0, 0, 0]
    for name, *faulty in (
        ("InPlace", False, True, False),
        ("OldFirst", True, False, False),
        ("Unresumable", True, False, True),
        ("NewNames", False, False, True),
    ):
        assert [n > 0 for n in found[name]] == [True, *faulty], (name, found[name])
