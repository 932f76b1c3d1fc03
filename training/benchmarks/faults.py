"""Give every damaged or hostile input of ``tests/faults`` to the command line; count, time, weigh.

    OMP_NUM_THREADS=1 python training/benchmarks/faults.py -o docs/results/faults.csv

Each case runs in a process of its own, which may take 4 GiB of addresses (RLIMIT_AS), and is given
up after minutes. Seconds are those of a processor, which other work on the machine does not change.
A case is handled if it ends as the corpus says: with one sentence that names the file and a remedy,
a status of 1 and nothing written; or, where the product rightly goes on, with a complete result.
The process is forked from one that has all libraries loaded, so that seconds and megabytes are
those of the command alone; its input is made in another.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from faults.corpus import CORPUS
from faults.fault import Fault, execute, prepare, problems
from faults.small import Small

MEMORY = 4 * 2**30
SECONDS = 200.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a forked process did: its answer (None if it died), processor time, peak memory."""

    answer: Any
    seconds: float
    megabytes: float
    ended: str = ""


def in_a_fork(work: Callable[[], Any], *, limited: bool) -> Measured:
    """Run something in a forked process and return its JSON answer."""
    read, write = os.pipe()
    started = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        _answer(work, write, limited)
    os.close(write)
    answer = _read(read, started + SECONDS)
    os.close(read)
    if answer is None:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    waited = time.perf_counter() - started
    ended = ""
    if answer is None:
        ended = f"no end after {waited:.0f} s" if waited >= SECONDS else f"status {status}"
    return Measured(
        answer=None if answer is None else json.loads(answer),
        seconds=usage.ru_utime + usage.ru_stime,
        megabytes=usage.ru_maxrss / 1024,
        ended=ended,
    )


def _answer(work: Callable[[], Any], write: int, limited: bool) -> None:
    """Do the work of a forked process, and leave it without the parent's clean-up."""
    status = 1
    try:
        if limited:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(work()).encode())
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(status)


def _read(read: int, deadline: float) -> bytes | None:
    """All that is written to a pipe until it is closed; None if nothing was, or too late."""
    parts = []
    while True:
        left = deadline - time.perf_counter()
        if left <= 0 or not select.select([read], [], [], left)[0]:
            return None
        part = os.read(read, 2**16)
        if not part:
            return b"".join(parts) or None
        parts.append(part)


def try_fault(fault: Fault, small: Small, idle: float) -> dict[str, Any]:
    """Make a case's input, run its command, and say how it went."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = in_a_fork(lambda: os.fsencode(prepare(fault, folder, small)).hex(), limited=False)
        if made.answer is None:
            raise SystemExit(f"{fault.label}: its input could not be made")
        given = Path(os.fsdecode(bytes.fromhex(made.answer)))

        def work() -> list[str]:
            return problems(fault, execute(fault, given, folder, small))

        done = in_a_fork(work, limited=True)
    found = [done.ended] if done.answer is None else done.answer
    return {
        "kind": fault.kind,
        "case": fault.name,
        "command": fault.command,
        "handled": not found,
        "seconds": round(done.seconds, 2),
        "megabytes": round(max(done.megabytes - idle, 0)),
        "problem": "; ".join(found),
    }


def warm(small: Small) -> None:
    """Write the valid inputs, and load what the commands load."""
    import torch

    torch.set_num_threads(1)
    for name in ("model", "h5ad", "zarr", "zarr2", "tenx", "mtx", "visium", "orders"):
        getattr(small, name)
    # Elsewhere: it would leave threads of dask behind, on which forked processes wait for ever.
    in_a_fork(lambda: str(small.spatialdata), limited=False)
    for fault in CORPUS:
        if fault.kind == "odd names and places" and fault.command == "predict":
            with tempfile.TemporaryDirectory() as name:
                given = prepare(fault, Path(name), small)
                execute(fault, given, Path(name), small)
            break


def main() -> None:
    """Run the corpus, or a part of it, and print a table of kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="CSV file of kinds")
    parser.add_argument("--cases", type=Path, help="CSV file of all cases")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    arguments = parser.parse_args()
    chosen = [fault for fault in CORPUS if arguments.only in fault.label]
    with tempfile.TemporaryDirectory() as name:
        small = Small(Path(name))
        warm(small)
        idle = in_a_fork(lambda: 1, limited=True).megabytes
        rows = []
        for fault in chosen:
            rows.append(try_fault(fault, small, idle))
            if not rows[-1]["handled"]:
                print(f"NOT HANDLED {fault.label}: {rows[-1]['problem']}", file=sys.stderr)
    cases = pd.DataFrame(rows)
    kinds = cases.groupby("kind", sort=False).agg(
        cases=("handled", "size"),
        handled=("handled", "sum"),
        longest_s=("seconds", "max"),
        largest_mb=("megabytes", "max"),
    )
    total = pd.DataFrame(
        {
            "cases": [len(cases)],
            "handled": [int(cases["handled"].sum())],
            "longest_s": [cases["seconds"].max()],
            "largest_mb": [cases["megabytes"].max()],
        },
        index=["all"],
    )
    kinds = pd.concat([kinds, total]).rename_axis("kind")
    print(kinds.to_string())
    if arguments.cases is not None:
        cases.to_csv(arguments.cases, index=False)
    if arguments.output is not None:
        kinds.to_csv(arguments.output)
    sys.exit(0 if cases["handled"].all() else 1)


if __name__ == "__main__":
    main()
