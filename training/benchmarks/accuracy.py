"""The bundled checkpoint on tissue that it never saw, beside simple learners in the same run.

    python training/benchmarks/accuracy.py DATA

Test sets: 1,000 cells of a MALT lymphoma, and spots pooled from them on the lattice of a real
tonsil (a composite, not a measurement). The baselines may learn from all paired data sets that the
checkpoint was trained on; each chooses among them by leaving one *training* set out. Writes
``docs/results/tissue_test.csv`` and puts the tables between the markers of the README.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import pandas as pd
import torch

import sclinguist_core
from sclinguist_core.evaluation.benchmark import benchmark
from sclinguist_core.evaluation.benchmark_config import BenchmarkConfig
from sclinguist_core.files import replacing
from sclinguist_core.model.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
START, END = "<!-- figures:start -->", "<!-- figures:end -->"
TEST = ("citeseq/malt_1000.h5ad", "spatial/tonsil_composite/outs")
TITLES = {"malt_1000": "MALT lymphoma, cells", "tonsil_composite": "tonsil composite, spots"}


def markdown(table: pd.DataFrame) -> str:
    """Table in Markdown; undefined values are dashes."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    for row in table.itertuples(index=False):
        cells = [
            ("–" if pd.isna(v) else f"{v:.2f}") if isinstance(v, float) else str(v) for v in row
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def held_out_table() -> pd.DataFrame:
    """Figures that ``training/train_bundled.py`` wrote, in the README's columns."""
    table = pd.read_csv(RESULTS / "heldout_summary.csv")
    return pd.DataFrame(
        {
            "unseen data set": table["dataset"],
            "cells": table["cells"].map("{:,}".format),
            "proteins": table["proteins"],
            "model": table["model"],
            "total count": table["total count"],
            "with mRNA": table["proteins with mRNA"],
            "model on those": table["model on those"],
            "cognate mRNA": table["cognate mRNA"],
            "RMSE (mean = 1)": table["RMSE"],
            "90 % interval covers": table["coverage"],
        }
    )


def main() -> None:
    """Run the benchmark, write the table, fill the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    started = time.perf_counter()
    checkpoint = load_checkpoint()
    there = {path.stem: path for path in (data / "citeseq").glob("*.h5ad")}
    train = [there[name] for name in checkpoint.info.training_datasets if name in there]
    result = benchmark(
        train,
        [data / name for name in TEST],
        model=checkpoint,
        config=BenchmarkConfig(totalvi=False),
    )
    for sentence in (*result.headline(), *result.warnings):
        print("Note:", sentence)
    ran_on = (
        f"model {checkpoint.info.name} ({checkpoint.digest}), napari-sclinguist "
        f"{sclinguist_core.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} CPU cores, {time.strftime('%Y-%m-%d')}"
    )
    table = result.table().rename(columns=TITLES).drop(columns="mean").reset_index()
    table = table.rename(columns={"method": "predictor"})
    print(table.round(3).to_string(index=False))
    print(f"{ran_on}; {time.perf_counter() - started:.0f} s")
    RESULTS.mkdir(parents=True, exist_ok=True)
    result.summary.to_csv(RESULTS / "tissue_test.csv", index=False, float_format="%.4f")
    text = f"""{START}
Data sets of blood and marrow that the checkpoint in question did not see (folds;
`training/train_bundled.py`), mean per-protein Pearson against CLR over cells:

{markdown(held_out_table())}

Tissue that no checkpoint saw, beside learners in the same run (`training/benchmarks/accuracy.py`).
The learners had the model's {len(train)} paired training sets to choose from. The composite is
made of the MALT cells, pooled into spots on the lattice of a real tonsil; nobody measured it:

{markdown(table)}

Where a simple learner has the higher figure, it is the better choice today.
Ran on: {ran_on}.
{END}"""
    readme = ROOT / "README.md"
    before, rest = readme.read_text("utf-8").split(START)
    with replacing(readme) as temporary:
        temporary.write_text(before + text + rest.split(END)[1], "utf-8")


if __name__ == "__main__":
    main()
