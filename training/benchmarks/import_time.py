"""Measure how long ``import sclinguist_core`` takes in a fresh interpreter.

Usage: ``python training/benchmarks/import_time.py [MODULE ...]``

Prints the smallest of several runs in milliseconds, less the start of the interpreter, and exits
with status 1 if ``import sclinguist_core`` takes half a second or more.
"""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 5
LIMIT_SECONDS = 0.5


def smallest_time(statement: str) -> float:
    """Seconds that a fresh interpreter takes for a statement; the fastest of several runs."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    """Measure each module and print a line for it."""
    empty = smallest_time("pass")
    seconds = {}
    for module in dict.fromkeys(["sclinguist_core", *sys.argv[1:]]):
        seconds[module] = smallest_time(f"import {module}") - empty
        print(f"import {module}: {1000 * seconds[module]:.0f} ms")
    return int(seconds["sclinguist_core"] >= LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
