"""Peak memory and time of ``sclinguist predict`` on a large sparse table.

    python training/benchmarks/memory.py [--cells 100000] [--genes 20000] [--keep FILE.h5ad]

The table is simulated: random expressed genes, at least 1,500 a cell. It is written to disk first;
the command then runs in a process of its own, whose peak memory the operating system reports. A
dense float32 array of that size would take 8 GB by itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

import sclinguist_core
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.vocabulary.genes import gene_table

MIN_NONZERO = 1_500


def simulate(n_cells: int, n_genes: int, seed: int = 0) -> ad.AnnData:
    """Cells that express random genes, in order of the gene, each with a small count."""
    rng = np.random.default_rng(seed)
    widest = int(2 * n_genes / (MIN_NONZERO * 1.07)) - 1
    parts, lengths = [], []
    for start in range(0, n_cells, 5_000):
        rows = min(5_000, n_cells - start)
        gaps = rng.integers(1, widest + 1, (rows, 2 * n_genes // widest + 200), dtype=np.int32)
        genes = np.cumsum(gaps, axis=1, dtype=np.int32) - 1
        inside = genes < n_genes
        parts.append(genes[inside])
        lengths.append(inside.sum(axis=1))
    indices = np.concatenate(parts)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32)
    data = rng.geometric(0.6, len(indices)).astype(np.float32)
    known = set(load_checkpoint().symbols)
    symbols = sorted(gene_table().index, key=lambda symbol: (symbol not in known, symbol))
    return ad.AnnData(
        sparse.csr_matrix((data, indices, indptr), shape=(n_cells, n_genes)),
        obs=pd.DataFrame(index=[f"cell-{i}" for i in range(n_cells)]),
        var=pd.DataFrame(index=symbols[:n_genes]),
    )


def main() -> None:
    """Simulate, predict in a child process, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="keep the simulated table here, or reuse it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.keep or Path(folder) / "cells.h5ad"
        if not path.exists():
            table = simulate(arguments.cells, arguments.genes)
            fewest = int(np.diff(table.X.indptr).min())
            print(f"simulated: {table.shape}, {table.X.nnz:,} non-zeros, fewest a cell {fewest}")
            assert fewest >= MIN_NONZERO
            table.write_h5ad(path)
            del table
        command = [
            sys.executable, "-c", "from sclinguist_core.cli import main; main()",
            "predict", str(path), "-o", str(Path(folder) / "predicted.h5ad"), "--device", "cpu",
        ]  # fmt: skip
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"machine: {platform.platform()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, torch {torch.__version__}, napari-sclinguist "
        f"{sclinguist_core.__version__}"
    )
    print(f"whole command: {seconds:.1f} s, {arguments.cells / seconds:,.0f} cells/s")
    print(f"peak memory: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
