"""Give readers, and what takes names, odd inputs made by chance; count what they do.

    OMP_NUM_THREADS=1 python training/benchmarks/fuzz.py -o docs/results/fuzz.csv
        [--executions 100000] [--seed 0] [--jobs 1] [--only TEXT] [--replay "TARGET:NUMBER"]

An execution ends well if it gives a valid object (its sizes, names and values are looked at), or an
`InputError` of one sentence. Everything else is a failure: another exception, a warning of a
library that a user would see, a crash, 30 s without an end, or more than 4 GiB of addresses.

Valid inputs of a few kilobytes are changed (`fuzzing.mutations`) or names made up
(`fuzzing.names`); each execution is decided by the seed, its target and its number alone, so that a
failure can be done again with ``--replay``. Executions run in forked processes, each with a folder
of its own: a library that crashes is counted, and the next process goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import pandas as pd
from fuzzing.target import Target
from fuzzing.targets import TARGETS

from faults.small import Small

SECONDS = 30.0
MEMORY = 4 * 2**30
LONGEST = 2_200
"""Characters of a sentence."""
_SILENT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python does not show to users."""


@dataclass
class Tally:
    """How the executions of a target ended."""

    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    longest: float = 0.0
    megabytes: float = 0.0
    failures: list[str] = field(default_factory=list)


def execute(target: Target, name: str, number: int, seed: int) -> str:
    """Run a target once; ``"returned"``, ``"refused"``, or what went wrong."""
    from sclinguist_core.errors import InputError

    given = target.draw(random.Random(f"{seed}:{name}:{number}"))
    end = "returned"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            target.run(given)
        except InputError as error:
            end = "refused" if _is_sentence(str(error)) else f"no sentence: {str(error)[:300]!r}"
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "sclinguist" in frame.filename] or frames
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            end = f"{type(error).__name__} at {place}: {str(error)[:200]}"
    seen = [str(w.message) for w in told if not issubclass(w.category, _SILENT)]
    return f"warned: {seen[0][:200]}" if seen and end in ("returned", "refused") else end


def _is_sentence(text: str) -> bool:
    return 10 < len(text) <= LONGEST and "\n" not in text and "\x1b" not in text


def _work(
    name: str, numbers: range, seed: int, small: Small, told: IO[bytes], folder: Path
) -> None:
    """Run executions one after another in a forked process, and tell how each ended."""
    from sclinguist_core.data.readers import hdf5

    hdf5.SECONDS = SECONDS / 6  # the readers' own limit is not to be mistaken for none
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # C libraries complain there
    target = TARGETS[name][0](folder, small)
    told.write(b"begun\n")
    told.flush()
    for number in numbers:
        told.write(json.dumps(execute(target, name, number, seed)).encode() + b"\n")
        told.flush()


def _fork(name: str, numbers: range, seed: int, small: Small, folder: Path) -> tuple[int, int]:
    """Start `_work` in another process; its id, and the pipe by which it tells."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            with os.fdopen(write, "wb") as told:
                _work(name, numbers, seed, small, told, folder)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    return pid, read


def _lines(read: int) -> Iterator[bytes | None]:
    """Lines of a pipe as they come; None, and no more, after a wait that is too long."""
    rest = b""
    # What a target is made of may take longer than an execution.
    patience = 6 * SECONDS
    while True:
        if not select.select([read], [], [], patience)[0]:
            yield None
            return
        part = os.read(read, 2**16)
        if not part:
            return
        patience = SECONDS
        *lines, rest = (rest + part).split(b"\n")
        yield from lines


def run_target(name: str, numbers: range, seed: int, small: Small) -> Tally:
    """Run executions of a target, in as many processes as it takes."""
    tally = Tally()
    while numbers:
        with tempfile.TemporaryDirectory() as folder:
            pid, read = _fork(name, numbers, seed, small, Path(folder))
            begun, hung, last = False, False, time.perf_counter()
            for line in _lines(read):
                now = time.perf_counter()
                if line is None:
                    hung = True
                    break
                if not begun:
                    begun, last = True, now
                    continue
                _count(tally, name, numbers[0], json.loads(line), now - last)
                numbers, last = numbers[1:], now
            os.close(read)
            if hung:
                os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
        tally.megabytes = max(tally.megabytes, usage.ru_maxrss / 1024)
        if numbers:
            if not begun:
                raise SystemExit(f"{name}: cannot be begun (status {status})")
            end = f"no end after {SECONDS:.0f} s" if hung else f"crashed with status {status}"
            _count(tally, name, numbers[0], end, time.perf_counter() - last)
            numbers = numbers[1:]
    ends = ", ".join(f"{count:,} {end}" for end, count in sorted(tally.ends.items()))
    print(f"{name}: {ends}, {tally.seconds:.0f} s", file=sys.stderr, flush=True)
    return tally


def _count(tally: Tally, name: str, number: int, end: str, seconds: float) -> None:
    known = end in ("returned", "refused")
    tally.ends[end if known else "failures"] += 1
    tally.seconds += seconds
    tally.longest = max(tally.longest, seconds)
    if not known:
        tally.failures.append(f"{name}:{number}: {end}")


def shares(names: list[str], executions: int) -> dict[str, int]:
    """Split executions among targets, by their weight."""
    total = sum(TARGETS[name][1] for name in names)
    return {name: -(-executions * TARGETS[name][1] // total) for name in names}


def replay(label: str, seed: int, small: Small) -> None:
    """Do one execution again in this process, and show the whole of its traceback."""
    name, _, number = label.rpartition(":")
    with tempfile.TemporaryDirectory() as folder:
        target = TARGETS[name][0](Path(folder), small)
        given = target.draw(random.Random(f"{seed}:{name}:{number}"))
        print(repr(given)[:3_000])
        target.run(given)


def main() -> None:
    """Run all targets, or some, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="CSV file to write")
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--only", default="", help="targets whose name holds this text")
    parser.add_argument("--replay", metavar="TARGET:NUMBER", help="do one execution again")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        small = Small(Path(folder))
        if arguments.replay:
            replay(arguments.replay, arguments.seed, small)
            return
        for kind in ("model", "h5ad", "zarr", "zarr2", "tenx", "mtx", "visium", "orders"):
            getattr(small, kind)
        names = [name for name in TARGETS if arguments.only in name]
        numbers = shares(names, arguments.executions)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            tallies = list(
                pool.map(
                    lambda name: run_target(name, range(numbers[name]), arguments.seed, small),
                    names,
                )
            )
    table = summary(names, tallies)
    print(table.to_string())
    for tally in tallies:
        shown: Counter[str] = Counter()
        for failure in tally.failures:
            kind = failure.split(": ", 1)[1][:60]
            shown[kind] += 1
            if shown[kind] <= 3:
                print(f"FAILED {failure}", file=sys.stderr)
    if arguments.output is not None:
        table.to_csv(arguments.output)
    sys.exit(1 if table.loc["all", "failures"] else 0)


def summary(names: list[str], tallies: list[Tally]) -> pd.DataFrame:
    """Table of targets, and of all together."""
    table = pd.DataFrame(
        {
            "executions": [tally.ends.total() for tally in tallies],
            **{
                end: [tally.ends[end] for tally in tallies]
                for end in ("returned", "refused", "failures")
            },
            "seconds": [tally.seconds for tally in tallies],
            "longest_s": [tally.longest for tally in tallies],
            "process_mb": [tally.megabytes for tally in tallies],
        },
        index=pd.Index(names, name="target"),
    )
    largest = table[["longest_s", "process_mb"]].max()
    table.loc["all"] = table.sum()
    table.loc["all", ["longest_s", "process_mb"]] = largest
    whole = ["executions", "returned", "refused", "failures"]
    table[whole] = table[whole].astype(int)
    table.insert(4, "per_second", (table["executions"] / table["seconds"].clip(lower=1e-3)).round())
    return table.round({"seconds": 0, "longest_s": 2, "process_mb": 0}).astype({"per_second": int})


if __name__ == "__main__":
    main()
