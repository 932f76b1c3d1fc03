"""Sections of real size in the window: 500,000 Visium HD bins and 1,000,000 Xenium cells.

Usage, with a display (``tools/with-display.sh`` brings a virtual one)::

    tools/with-display.sh python training/benchmarks/gui_large.py [--write docs/results]

The sections are simulated (``large_sections.py``) in a temporary folder that is deleted
afterwards; ``--data FOLDER`` keeps them there, or finds them. Each is opened in a window of its
own process, its proteins are predicted with the bundled model by the window's own button, and it
is used: proteins switched, the picture moved, values under the cursor read, a name searched, a
region drawn, two features compared, the result saved. Besides seconds and memory the longest times
are told in which the window did nothing else, with and without painting: without a graphics card
painting is slow.

``--sections bins`` measures a part alone; the other figures in ``--write`` stay.
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
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from window_session import OVERLAY, Row, Session, row

from gui import machine

N_BINS, N_CELLS = 500_000, 1_000_000
ROWS_OF_RATE = 10_000
PICTURES = {"bins": "window_500k_bins.webp", "cells": "window_1m_cells.webp"}


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
    start, work = time.perf_counter(), time.process_time()
    section = open_section(path)
    seconds, work = time.perf_counter() - start, time.process_time() - work
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform != "darwin":  # kilobytes elsewhere
        before, peak = before * 1024, peak * 1024
    counts = section.rna().counts
    return [
        row("rows", section.n_obs),
        row("genes", counts.shape[1]),
        row("expressed genes of a row, median", float(np.median(np.diff(counts.indptr)))),
        row("reading, without a window", seconds, "s"),
        row("reading, without a window: time of the processor alone", work, "s"),
        row("reading, without a window: memory added at the peak", (peak - before) / 2**30, "GiB"),
    ]


def measure_rate(path: Path) -> list[Row]:
    """Predict all proteins of some rows, and work out from these what all rows would take."""
    from sclinguist_core.data.readers import open_section
    from sclinguist_core.inference.predict import predict_iter
    from sclinguist_core.inference.progress import finish

    section = open_section(path)
    places = np.linspace(0, section.n_obs - 1, ROWS_OF_RATE).astype(int)
    some = replace(section, table=section.table[places].copy())
    finish(predict_iter(replace(some, table=some.table[:100].copy())))  # loads the model
    work = time.process_time()
    prediction = finish(predict_iter(some))
    work = time.process_time() - work
    whole = section.n_obs * work / ROWS_OF_RATE
    title = f"prediction of {len(prediction.names)} proteins, time of the processor alone"
    return [
        row(f"{title}: of {ROWS_OF_RATE:,} rows", work, "s"),
        row(f"{title}: extrapolated to all rows", whole, "s"),
    ]


# --- in the window ------------------------------------------------------------------------------


def measure_window(kind: str, given: argparse.Namespace) -> list[Row]:
    """Use a section in a window."""
    from window_watch import WatchedApplication, WindowWatch

    application = WatchedApplication(sys.argv)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(WindowWatch(), paths_of(given.data)[kind], Path(folder))
        session.open()
        if given.made_up:
            session.make_up(given.made_up)
        else:
            session.predict(given.proteins)
        session.switch()
        session.move()
        session.hover()
        session.search()
        if given.pictures is not None:
            session.picture(given.pictures / PICTURES[kind])
        session.draw_region()
        session.compare()
        session.save()
        session.close()
    session.workspace.close()
    del application
    return session.rows


# --- running and reporting ----------------------------------------------------------------------


def run(part: str, *options: str) -> list[Row]:
    """Run a part in a fresh process."""
    answer = subprocess.run(
        [sys.executable, __file__, "--part", part, *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout.strip().splitlines()[-1])


def measure(kind: str, data: Path, given: argparse.Namespace) -> pd.DataFrame:
    """Measure a section, without a window and in one."""
    options = ["--data", str(data)]
    options += ["--made-up", str(given.made_up), "--proteins", str(given.proteins)]
    if given.pictures:
        options += ["--pictures", str(given.pictures)]
    rows = run(f"read-{kind}", *options)
    if kind in PICTURES:
        rows += run(f"rate-{kind}", *options) + run(kind, *options)
    return as_table(kind, rows)


def as_table(kind: str, rows: list[Row]) -> pd.DataFrame:
    """Figures of a section, with the largest memory of all steps."""
    memory = [one["figure"] for one in rows if one["what"].endswith(": peak memory")]
    rows += [row("peak memory of the window, of all steps", max(memory), "GiB")] if memory else []
    table = pd.DataFrame(rows).assign(section=kind)
    return table[["section", "what", "figure", "unit"]]


TITLES = {
    "bins": f"{N_BINS:,} bins (Visium HD)",
    "cells": f"{N_CELLS:,} cells (Xenium)",
    "outlines": f"{N_CELLS:,} cells (Space Ranger 4, with outlines)",
}


SUMMARY = {
    "opening, until it is shown": "s",
    "opening, until it is shown: time of the processor alone": "s",
    "proteins that are predicted": "",
    "prediction": "s",
    "prediction: time of the processor alone": "s",
    OVERLAY: "s",
    f"{OVERLAY}: time of the processor alone": "s",
    "switching the protein: median": "ms",
    "switching the protein: time of the processor alone, median": "ms",
    "switching the protein: 95 % below": "ms",
    "switching the protein, and painting: median": "ms",
    "switching the protein, and painting: 95 % below": "ms",
    "switching the protein, and painting: time of the processor alone, median": "ms",
    "peak memory of the window, of all steps": "GiB",
}


def as_page(table: pd.DataFrame, command: str) -> str:
    """Lay the figures out as a Markdown page, a column for each section."""
    titles = table["what"].where(table["unit"] == "", table["what"] + ", " + table["unit"])
    order = list(dict.fromkeys(titles))
    wide = table.assign(what=titles).pivot(index="what", columns="section", values="figure")
    wide = wide.reindex(index=order, columns=[kind for kind in TITLES if kind in set(wide)])
    shortly = [f"{what}, {unit}" if unit else what for what, unit in SUMMARY.items()]
    kinds = (" of the window", ", painting left out", ", time of the processor alone")
    worst = {
        f"longest stop over all steps{kind}, ms": wide[
            wide.index.str.endswith(f"longest stop{kind}, ms")
        ].max()
        for kind in kinds
    }
    stops = pd.DataFrame(worst).T
    extrapolated = wide[wide.index.str.contains("extrapolated")]
    short = pd.concat([wide.reindex(shortly), stops, extrapolated])
    short = short.dropna(how="all")
    made_up = wide.reindex(["proteins that are made up"]).notna().any()
    notes = [
        f"In the column of {TITLES[kind]} the proteins are made up: no prediction ran in the "
        "window, and its time is extrapolated."
        for kind in wide.columns[made_up]
    ]
    return "\n".join(
        [
            "# Large sections in the window",
            "",
            f"Written by `{command}`. {machine()}.",
            "",
            "The sections are simulated by `training/benchmarks/large_sections.py`: nobody "
            "measured them. Where other programs run on the same cores, *time of the processor "
            "alone* (all threads, painting in software included) tells what a step costs; times as "
            "they pass are longer. A *stop* is a time in which the window did "
            "nothing else; its processor time is that of the window's own thread, without "
            "painting.",
            "",
            *(line for note in notes for line in (note, "")),
            *_rows_of_page(short),
            "",
            "## All figures",
            "",
            *_rows_of_page(wide),
            "",
        ]
    )


def _rows_of_page(figures: pd.DataFrame) -> list[str]:
    def shown(figure: float) -> str:
        if np.isnan(figure):
            return ""
        return f"{figure:,.0f}" if figure >= 1000 or not figure % 1 else f"{figure:.3g}"

    return [
        f"| | {' | '.join(TITLES[kind] for kind in figures)} |",
        "|---|" + "---:|" * figures.shape[1],
        *(
            f"| {what} | {' | '.join(map(shown, values))} |"
            for what, values in zip(figures.index, figures.to_numpy(), strict=True)
        ),
    ]


def main() -> None:
    """Measure one part, or all and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", help="read-KIND, rate-KIND, or KIND: bins, cells or outlines")
    parser.add_argument("--sections", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--data", type=Path, help="folder to keep the simulated sections in")
    parser.add_argument("--write", type=Path, help="folder of gui_large.csv and gui_large.md")
    parser.add_argument("--pictures", type=Path, help="folder of the screenshots")
    parser.add_argument(
        "--proteins", type=int, default=0, help="how many of the best; 0: what the panel offers"
    )
    parser.add_argument(
        "--made-up", type=int, default=0, help="made-up proteins instead of a prediction"
    )
    given = parser.parse_args()
    if given.part:
        doing, _, kind = given.part.rpartition("-")
        if doing:
            measure_part = {"read": measure_reading, "rate": measure_rate}[doing]
            rows = measure_part(paths_of(given.data)[kind])
        else:
            rows = measure_window(kind, given)
        print(json.dumps(rows), flush=True)
        os._exit(0)  # not the tidying up of the window, which is no part of this
    with tempfile.TemporaryDirectory() as folder:
        report(given.data or Path(folder), given)


def report(data: Path, given: argparse.Namespace) -> None:
    """Measure everything, print it, and write it where asked to."""
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"import gui_large; gui_large.make_data(gui_large.Path({str(data)!r}))",
        ],
        cwd=Path(__file__).parent,
        check=True,
    )
    table = pd.concat([measure(kind, data, given) for kind in given.sections])
    print(table.to_string(index=False))
    if not given.write:
        return
    path = given.write / "gui_large.csv"
    if path.exists():
        known = pd.read_csv(path, keep_default_na=False)
        table = pd.concat([known[~known["section"].isin(given.sections)], table])
    table = table.sort_values(
        "section", key=lambda kinds: kinds.map(list(TITLES).index), kind="stable"
    )
    table.to_csv(path, index=False, lineterminator="\n")
    command = "tools/with-display.sh python training/benchmarks/gui_large.py --write docs/results"
    command += f" --proteins {given.proteins}" if given.proteins else ""
    path.with_suffix(".md").write_text(as_page(table, command), "utf-8")


if __name__ == "__main__":
    main()
