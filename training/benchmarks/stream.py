"""How fast cells are read for training: from a store, from a backed .h5ad, from memory.

    python training/benchmarks/stream.py [--cells 50000] [--genes 20000] [--write OUT.md]

The cells are simulated: 1,500 random expressed genes each, genes of a whole transcriptome. They are
written to disk a few thousand at a time, once as anndata does by default (not compressed) and once
compressed by gzip, as most published files are. Every way of reading runs in a process of its own,
whose peak memory the operating system reports; what the imports take is measured too and taken
away. All of them end with the same: raw counts of 256 cells over a model's genes, CSR, float32
(in order: of thousands of consecutive cells over the file's genes). Files that were just written
lie in the system's cache: the disk is not what is measured. Beside the rate stands the processor
time of 1,000 cells, which other work on the machine does not change.

Where annbatch is installed (it needs Python 3.12), it is measured beside: it makes its own shuffled
collection of the same file and reads it with its defaults, with the codecs of zarrs where these are
installed, and so does its loader from our store.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

import sclinguist_core
from sclinguist_core.data.align import gene_aligner
from sclinguist_core.data.backed import BackedTable
from sclinguist_core.data.store.build import build_store
from sclinguist_core.data.store.reader import StoredCells
from sclinguist_core.train.fit import FitConfig
from sclinguist_core.train.stream import StreamedRna, StreamPlan
from sclinguist_core.vocabulary.genes import gene_table

EXPRESSED = 1_500
BATCH = 256
LIBRARIES = ("anndata", "zarr", "h5py", "annbatch", "zarrs")
_BLOCK = 2_000


def gene_names(n_genes: int) -> list[str]:
    """Symbols of so many genes, spread over the vocabulary, not sorted."""
    known = gene_table().index
    chosen = known[np.linspace(0, len(known) - 1, min(n_genes, len(known))).astype(int)]
    names = [*chosen, *(f"unknown{i}" for i in range(n_genes - len(chosen)))]
    return list(np.random.default_rng(1).permutation(names))


def simulate(path: Path, n_cells: int, n_genes: int, compression: str | None) -> None:
    """Write an .h5ad a block of cells at a time."""
    rng = np.random.default_rng(0)
    popularity = rng.gamma(0.3, 1.0, n_genes)
    anndata.AnnData(
        sparse.csr_matrix((0, n_genes), dtype=np.float32),
        var=pd.DataFrame(index=gene_names(n_genes)),
    ).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        group = file.create_group("X")
        group.attrs.update(
            {
                "encoding-type": "csr_matrix",
                "encoding-version": "0.1.0",
                "shape": (n_cells, n_genes),
            }
        )
        size = n_cells * EXPRESSED
        # Chunks as h5py chooses them, as for anndata; level 4 is its default, too.
        options = {"compression": compression, "chunks": True} if compression else {}
        data = group.create_dataset("data", (size,), np.float32, **options)
        indices = group.create_dataset("indices", (size,), np.int32, **options)
        for start in range(0, n_cells, _BLOCK):
            n_rows = min(_BLOCK, n_cells - start)
            # The EXPRESSED largest of random draws, weighted by how popular a gene is.
            draw = rng.random((n_rows, n_genes), np.float32) ** (1 / (popularity + 0.05))
            genes = np.sort(np.argpartition(-draw, EXPRESSED, axis=1)[:, :EXPRESSED], axis=1)
            part = slice(start * EXPRESSED, (start + n_rows) * EXPRESSED)
            indices[part] = genes.ravel()
            data[part] = rng.geometric(0.5, n_rows * EXPRESSED)
        group.create_dataset("indptr", data=np.arange(n_cells + 1, dtype=np.int64) * EXPRESSED)
        names = pd.DataFrame(index=[f"cell-{i}" for i in range(n_cells)])
        del file["obs"]
        anndata.io.write_elem(file, "obs", names)


def of_store(folder: Path, n_genes: int) -> Iterator[sparse.csr_matrix]:
    """Block-shuffled batches from a store."""
    (path,) = folder.glob("store/*.zarr")
    cells = StoredCells(path)
    stream = StreamedRna(cells, sorted(gene_names(n_genes)))
    order = stream.order(StreamPlan.of(FitConfig(batch_size=BATCH, sets_per_step=1), 1), (0, 0))
    number = 0
    while True:
        window, rows = stream.batch(order, 0, number)
        yield window.counts[rows]
        number += 1


def annbatch_collection(folder: Path) -> dict[str, float]:
    """Build what annbatch reads, as its documentation says."""
    import annbatch

    with h5py.File(folder / "plain.h5ad") as file:
        n_cells = len(file["X/indptr"]) - 1
    start, processor = time.perf_counter(), time.process_time()
    collection = annbatch.DatasetCollection(folder / "annbatch.zarr")
    with warnings.catch_warnings(action="ignore"):
        collection.add_adatas([folder / "plain.h5ad"], rng=np.random.default_rng(0))
    return rates(n_cells, start, processor)


def of_annbatch(folder: Path, n_genes: int, *, own: bool) -> Iterator[sparse.csr_matrix]:
    """Shuffled batches by annbatch's loader, of its own collection or of our store."""
    import annbatch
    import zarr

    warnings.simplefilter("ignore")
    if find_spec("zarrs"):
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    loader = annbatch.Loader(batch_size=BATCH, shuffle=True, rng=np.random.default_rng(0))
    if own:
        loader.use_collection(annbatch.DatasetCollection(folder / "annbatch.zarr", mode="r"))
        names = loader.var.index.to_numpy()
    else:
        (path,) = folder.glob("store/*.zarr")
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        loader.add_dataset(anndata.io.sparse_dataset(group["X"]))
        names = StoredCells(path).names
    aligner = gene_aligner(names, None, sorted(gene_names(n_genes)))
    while True:
        for batch in loader:
            yield aligner.apply(sparse.csr_matrix(batch["X"], dtype=np.float32)).counts


def of_backed(path: Path, n_genes: int) -> Iterator[sparse.csr_matrix]:
    """Batches of random cells of a backed .h5ad, as a data loader over AnnData reads them."""
    table = anndata.read_h5ad(path, backed="r")
    aligner = gene_aligner(table.var_names.to_numpy(), None, sorted(gene_names(n_genes)))
    rng = np.random.default_rng(0)
    while True:
        for rows in np.array_split(rng.permutation(table.n_obs), table.n_obs // BATCH):
            yield aligner.apply(sparse.csr_matrix(table.X[np.sort(rows)])).counts


def of_memory(path: Path, n_genes: int) -> Iterator[sparse.csr_matrix]:
    """Batches of random cells of a table in memory, aligned once."""
    table = anndata.read_h5ad(path)
    aligner = gene_aligner(table.var_names.to_numpy(), None, sorted(gene_names(n_genes)))
    counts = aligner.apply(sparse.csr_matrix(table.X)).counts
    del table
    rng = np.random.default_rng(0)
    while True:
        for rows in np.array_split(rng.permutation(counts.shape[0]), counts.shape[0] // BATCH):
            yield counts[rows]


def in_order(path: Path, n_genes: int) -> Iterator[sparse.csr_matrix]:
    """Blocks of consecutive cells, as prediction reads them."""
    with BackedTable(path) as table:
        matrix = table.matrix("X")
        while True:
            for start, stop in matrix.blocks():
                yield matrix.rows(start, stop)


def measure(batches: Callable[[], Iterator[sparse.csr_matrix]], seconds: float) -> dict[str, float]:
    """Cells a second after the first batch, and how long that one took."""
    start = time.perf_counter()
    reading = iter(batches())
    next(reading)
    first = time.perf_counter() - start
    start, processor, n_cells = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        n_cells += next(reading).shape[0]
    return rates(n_cells, start, processor) | {"first": first}


def rates(n_cells: int, start: float, processor: float) -> dict[str, float]:
    """Cells a second, and processor seconds of 1,000 cells, since two readings of clocks."""
    return {
        "rate": n_cells / (time.perf_counter() - start),
        "processor": 1_000 * (time.process_time() - processor) / n_cells,
    }


def build(folder: Path, name: str) -> dict[str, float]:
    """Build a store."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    start, processor, n_cells = time.perf_counter(), time.process_time(), 0
    for progress in build_store([folder / name], folder / "store"):
        n_cells = max(n_cells, progress.total)
    return rates(n_cells, start, processor)


TASKS = {
    "nothing (imports alone)": lambda folder, n, s: {},
    "build from gzip .h5ad": lambda folder, n, s: build(folder, "gzip.h5ad"),
    "build from plain .h5ad": lambda folder, n, s: build(folder, "plain.h5ad"),
    "in order, gzip .h5ad": lambda f, n, s: measure(lambda: in_order(f / "gzip.h5ad", n), s),
    "in order, plain .h5ad": lambda f, n, s: measure(lambda: in_order(f / "plain.h5ad", n), s),
    "in order, store": lambda f, n, s: measure(
        lambda: in_order(next(f.glob("store/*.zarr")), n), s
    ),
    "shuffled, store": lambda f, n, s: measure(lambda: of_store(f, n), s),
    "shuffled, gzip .h5ad (backed)": lambda f, n, s: measure(
        lambda: of_backed(f / "gzip.h5ad", n), s
    ),
    "shuffled, plain .h5ad (backed)": lambda f, n, s: measure(
        lambda: of_backed(f / "plain.h5ad", n), s
    ),
    "shuffled, in memory": lambda f, n, s: measure(lambda: of_memory(f / "plain.h5ad", n), s),
}
if find_spec("annbatch"):
    TASKS |= {
        "build annbatch's collection from plain .h5ad": lambda f, n, s: annbatch_collection(f),
        "shuffled, annbatch from its collection": lambda f, n, s: measure(
            lambda: of_annbatch(f, n, own=True), s
        ),
        "shuffled, annbatch from our store": lambda f, n, s: measure(
            lambda: of_annbatch(f, n, own=False), s
        ),
    }


def in_process(task: str, folder: Path, n_genes: int, seconds: float) -> dict[str, float]:
    """Run one task in a process of its own; adds its peak memory in MB."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
    command += ["--genes", str(n_genes), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{task}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def size(path: Path) -> float:
    """Size of a file or folder in MB."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    """Measure, print and, where asked for, write a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each is read")
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary one")
    parser.add_argument("--write", type=Path, help="Markdown to write")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--simulate", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.simulate is not None:
        compression = "gzip" if arguments.simulate.stem == "gzip" else None
        simulate(arguments.simulate, arguments.cells, arguments.genes, compression)
        return
    if arguments.task is not None:
        found = TASKS[arguments.task](arguments.folder, arguments.genes, arguments.seconds)
        # ru_maxrss is in KiB on Linux and in bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
        print(json.dumps({**found, "peak": peak}))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        page = report(Path(temporary), arguments.cells, arguments.genes, arguments.seconds)
    print(page)
    if arguments.write is not None:
        arguments.write.write_text(page + "\n", "utf-8")


def report(folder: Path, n_cells: int, n_genes: int, seconds: float) -> str:
    """Simulate, measure everything, and lay it out as Markdown."""
    sizes = {}
    for name in ("gzip.h5ad", "plain.h5ad"):
        print(f"writing {name}", file=sys.stderr)
        # In a process of its own: a child's peak memory begins with its parent's.
        command = [sys.executable, __file__, "--simulate", str(folder / name)]
        command += ["--cells", str(n_cells), "--genes", str(n_genes)]
        subprocess.run(command, check=True)
        sizes[name] = size(folder / name)
    rows, base = [], 0.0
    for task in TASKS:
        print(task, file=sys.stderr)
        found = in_process(task, folder, n_genes, seconds)
        if not base:
            base = found["peak"]
            continue
        first = f"{found['first']:.2f}" if "first" in found else ""
        rows.append(
            f"| {task} | {found['rate']:,.0f} | {found['processor']:.3f} | {first} | "
            f"{found['peak'] - base:,.0f} |"
        )
    sizes["store"] = size(folder / "store")
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES if find_spec(name))
    on_disk = ", ".join(f"{name} {megabytes:,.0f} MB" for name, megabytes in sizes.items())
    return "\n".join(
        [
            f"{n_cells:,} simulated cells x {n_genes:,} genes, {EXPRESSED:,} of them expressed; "
            f"batches of {BATCH}. On disk: {on_disk}.",
            "",
            "| reading | cells/s | processor s per 1,000 cells | first batch, s | peak memory above"
            " imports, MB |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Ran on: napari-sclinguist {sclinguist_core.__version__}, {libraries}, Python "
            f"{platform.python_version()}, {platform.machine()}, {os.cpu_count()} processor "
            f"cores, {time.strftime('%Y-%m-%d')}.",
        ]
    )


if __name__ == "__main__":
    main()
