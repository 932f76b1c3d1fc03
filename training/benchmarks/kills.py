"""Kill commands at random moments, and look at what is left of their results.

    python training/benchmarks/kills.py [--kills 260] [--seed 0] [--operations predict,train]
        [--folder /dev/shm] [--quick]

Predict, save, train, download and store building run as a user runs them (`killing`), in a child
process that gets SIGKILL, with its whole group: some time after its start, some time after it first
touched the disk, or right before its n-th touch. Then three things have to hold:

1. under the name of the result there is nothing, or the older one as it was, or the new one,
   complete; each is opened, read and compared;
2. the same command succeeds, goes on from what is there where it can, and ends with what an
   undisturbed run ends with;
3. nothing else is left beside it.

Prints a table, writes it as CSV, and ends with status 1 if anything was lost, corrupted or left.
With ``--quick`` there is one case an operation, killed right before touches of the disk alone: the
seed then decides which, on any machine.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch: children are forked

from killing.case import Case, checksum
from killing.child import Child, Moment, Stuck, ask, kill_at, observe
from killing.download import DownloadCase
from killing.predict import PredictCase, StreamCase
from killing.save import CheckpointCase, ExportCase, SaveTableCase
from killing.store import StoreCase
from killing.train import TrainCase

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
OPERATIONS = ("predict", "save", "train", "download", "store")
COLUMNS = (
    "operation", "case", "kills", "before_writing", "while_writing", "after_writing", "resumed",
    "lost", "corrupted", "left_over",
)  # fmt: skip
_TRIES = 20
"""Drawn moments that may come after the end of a run, which is no kill."""
_TOLD_EVERY = 25
_SOME_PROTEINS = "CD3,CD4,CD19,CD56"


def all_cases(folder: Path, *, quick: bool) -> list[Case]:
    """List the ways of all operations."""
    chosen: list[Case] = [
        StreamCase(folder / "predict-4", ".h5ad"),
        CheckpointCase(folder / "save-3"),
        TrainCase(folder / "train"),
        DownloadCase(folder / "download"),
        StoreCase(folder / "store-2", replaces=True),
    ]
    if quick:
        return chosen
    return [
        *chosen,
        PredictCase(folder / "predict-1", ".h5ad"),
        PredictCase(folder / "predict-2", ".h5ad", _SOME_PROTEINS),
        PredictCase(folder / "predict-3", ".zarr", _SOME_PROTEINS),
        StreamCase(folder / "predict-5", ".zarr"),
        SaveTableCase(folder / "save-1", ".h5ad"),
        SaveTableCase(folder / "save-2", ".zarr"),
        *(ExportCase(folder / f"save{s}", s) for s in (".csv", ".xlsx", ".png", ".svg")),
        StoreCase(folder / "store-1", replaces=False),
    ]


def kill(
    case: Case, rng: random.Random, trial: Path, *, quick: bool
) -> tuple[Moment, Child, str | None]:
    """Run a case until it is killed; also gives the checksum of what was there before.

    Raises
    ------
    RuntimeError
        If it failed by itself, or ended before each of many kills.
    """
    for _ in range(_TRIES):
        case.arrange(trial)
        before = checksum(case.target(trial)) if case.target(trial).exists() else None
        moment = Moment.draw(case.course, rng, touches_only=quick)
        child = kill_at(moment, lambda: case.run(trial), trial, case.log)
        if child.was_killed:
            return moment, child, before
        if child.exit_code:
            raise RuntimeError(f"{case.name}: failed by itself:\n{case.log.read_text()}")
    raise RuntimeError(f"{case.name}: ended before each of {_TRIES} kills")


def kill_once(case: Case, rng: random.Random, folder: Path, *, quick: bool) -> Counter[str]:
    """Kill a case once, let it run again, and count what was found under the names in `COLUMNS`."""
    trial = folder / "trial"
    moment, child, before = kill(case, rng, trial, quick=quick)
    counts = Counter({"kills": 1})
    found = ask(lambda: case.look(trial, before), folder)
    when = "before" if child.touches == 0 else "after" if found["state"] == "new" else "while"
    counts[f"{when}_writing"] += 1
    trouble = []
    if found["state"] == "broken":
        counts["corrupted"] += 1
        trouble.append(f"what is there is neither old nor new ({found.get('why', 'its content')})")
    elif found["state"] == "absent" and before is not None:
        counts["lost"] += 1
        trouble.append("the older result is gone")
    try:
        observe(lambda: case.again(trial), trial, case.log)
        if ask(lambda: case.content(case.target(trial)), folder) != case.wanted:
            raise AssertionError("it ended with another result")
        if case.resumed(found):
            counts["resumed"] += 1
    except (RuntimeError, AssertionError, Stuck) as error:
        counts["lost"] += 1
        trouble.append(f"the run after the kill: {error}")
    left = sorted(set(case.names(trial)) - set(case.names(case.reference)))
    if left:
        counts["left_over"] += 1
        trouble.append(f"left over: {', '.join(left)}")
    for text in trouble:
        print(f"{case.operation}, {case.name}, killed at {moment}: {text}", file=sys.stderr)
    return counts


def table_of(counts: dict[Case, Counter[str]]) -> list[list[str]]:
    """One row a case, and one an operation (case "all"); header first."""
    rows: list[list[str]] = [list(COLUMNS)]
    for operation in OPERATIONS:
        own = {case: n for case, n in counts.items() if case.operation == operation}
        if len(own) > 1:
            rows += [_row(operation, case.name, n) for case, n in own.items()]
        if own:
            rows.append(_row(operation, "all", sum(own.values(), Counter())))
    rows.append(_row("all", "all", sum(counts.values(), Counter())))
    return rows


def _row(operation: str, case: str, counts: Counter[str]) -> list[str]:
    return [operation, case, *(str(counts[name]) for name in COLUMNS[2:])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=260, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument("--folder", type=Path, help="where to work; /dev/shm is quick on Linux")
    parser.add_argument("--quick", action="store_true", help="one case an operation")
    parser.add_argument("--output", type=Path, default=RESULTS / "kills.csv")
    given = parser.parse_args(arguments)
    wanted = given.operations.split(",")
    unknown = sorted(set(wanted) - set(OPERATIONS))
    if unknown:
        parser.error(f"unknown operations {', '.join(unknown)}; known: {', '.join(OPERATIONS)}")
    _import_everything()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sclinguist-kills-", dir=given.folder) as name:
        folder = Path(name).resolve()
        every = all_cases(folder, quick=given.quick)
        every = [case for case in every if case.operation in wanted]
        counts: dict[Case, Counter[str]] = {case: Counter() for case in every}
        # One a case, so that an operation by itself is killed at the moments it is in a full run.
        moments = {
            case: random.Random(f"{given.seed} {case.operation} {case.name}") for case in every
        }
        try:
            for case in every:
                case.measure(once=given.quick)
            for number, case in enumerate(_shares(every, given.kills)):
                if number and number % _TOLD_EVERY == 0:
                    print(f"{number} of {given.kills} kills", file=sys.stderr, flush=True)
                counts[case] += kill_once(case, moments[case], folder, quick=given.quick)
        finally:
            for case in every:
                case.close()
    rows = table_of(counts)
    _print(rows)
    print(f"{sum(n['kills'] for n in counts.values())} kills, {time.monotonic() - started:.0f} s")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    with given.output.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    bad = sum(n[name] for n in counts.values() for name in ("lost", "corrupted", "left_over"))
    return int(bad > 0)


def _shares(every: list[Case], kills: int) -> list[Case]:
    """Case of each kill: as many for each operation, and for each case of an operation."""
    groups: dict[str, list[Case]] = {}
    for case in every:
        groups.setdefault(case.operation, []).append(case)
    order = []
    for number in range(kills):
        group = list(groups.values())[number % len(groups)]
        order.append(group[number // len(groups) % len(group)])
    return order


def _import_everything() -> None:
    """Import what commands import, so that a forked child starts where a fresh one would be."""
    import anndata  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import pytorch_lightning  # noqa: F401
    import torch
    import zarr  # noqa: F401

    import napari_sclinguist.control.export  # noqa: F401
    import sclinguist_core.cli
    import sclinguist_core.data.readers.spaceranger
    import sclinguist_core.data.store.build
    import sclinguist_core.evaluation.overlay
    import sclinguist_core.inference.stream
    import sclinguist_core.train.cli
    import sclinguist_core.train.launch  # noqa: F401

    torch.set_num_threads(1)


def _print(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        texts = [t.ljust(w) if i < 2 else t.rjust(w) for i, (t, w) in enumerate(cells)]
        print("  ".join(texts).replace("_", " "))


if __name__ == "__main__":
    raise SystemExit(main())
