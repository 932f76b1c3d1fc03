"""Time, memory and resumption of ``sclinguist predict`` on tables that are larger than memory.

    python training/benchmarks/out_of_core.py --folder /scratch [--cells 10000,100000,1000000]
        [--format zarr|h5ad] [--kills 2] [--device auto] [--output docs/results/out_of_core.csv]

Simulated cells (20,000 genes, at least 1,500 expressed) are written to the disk, and each table is
predicted by the command in a process of its own, whose time and peak memory the operating system
reports. What a run needs whatever the number of cells (imports, model, judging the section by a
sample of 400 cells) is timed on a table of just that sample: what each further cell costs is told
by the difference. Then the largest table is predicted once more by a process that is killed
(SIGKILL) at random moments and started again, and the result compared, value by value, with that of
the unbroken run.

Rows of other sizes that the output holds already stay as they are.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

import sclinguist_core
from sclinguist_core.data.backed import BackedTable
from sclinguist_core.data.write import write_table, zarr_as_we_write
from sclinguist_core.inference.trust import SAMPLE_ROWS
from sclinguist_core.model.checkpoint import load_checkpoint
from sclinguist_core.vocabulary.genes import gene_table

N_GENES = 20_000
MIN_NONZERO = 1_500
N_TEMPLATES = 2_048
N_TYPES = 12
START_UP_CELLS = SAMPLE_ROWS
_DROPPED = 5 / 256
"""Share of a template's genes that a cell made from it does not express."""
_SHAPE = 3.0
"""Of the gamma distribution by which a gene's rate varies between cells of a type."""
_SHARD, _CHUNK = 2**23, 2**18


@lru_cache(1)
def templates(seed: int) -> tuple[sparse.csr_matrix, list[str]]:
    """Cells of some types with negative-binomial counts, a few genes above the least number.

    Genes of the bundled checkpoint are expressed as in its training data, others hardly.
    """
    rng = np.random.default_rng(seed)
    checkpoint = load_checkpoint()
    known = list(checkpoint.symbols)
    others = [symbol for symbol in gene_table().index if symbol not in set(known)]
    share = np.full(N_GENES, 1e-7)
    share[: len(known)] = np.maximum(checkpoint.gene_share, 1e-7)
    types = share * rng.gamma(2.0, 0.5, (N_TYPES, N_GENES))
    types /= types.sum(axis=1, keepdims=True)
    fewest, most = MIN_NONZERO / (1 - _DROPPED) + 40, MIN_NONZERO * 1.15
    depth = np.array([_depth(kind, (fewest + most) / 2) for kind in types])
    parts: list[sparse.csr_matrix] = []
    while sum(part.shape[0] for part in parts) < N_TEMPLATES:
        kind = rng.integers(0, N_TYPES, 128)
        noise = rng.standard_gamma(_SHAPE, (128, N_GENES), np.float32) / _SHAPE
        rate = types[kind] * depth[kind, None] * noise
        counts = sparse.csr_matrix(rng.poisson(rate).astype(np.int16))
        n_genes = np.diff(counts.indptr)
        parts.append(counts[(n_genes >= fewest) & (n_genes <= most)])
    return sparse.vstack(parts, format="csr")[:N_TEMPLATES], [*known, *others][:N_GENES]


def _depth(share: np.ndarray, n_genes: float) -> float:
    """Find by bisection how many reads a cell has in which so many genes have some."""
    low, high = 1e2, 1e6
    for _ in range(40):
        middle = (low * high) ** 0.5
        expressed = np.sum(1 - (1 + middle * share / _SHAPE) ** -_SHAPE)
        low, high = (middle, high) if expressed < n_genes else (low, middle)
    return low


def cells(n_cells: int, seed: int = 0) -> Iterator[sparse.csr_matrix]:
    """Yield cells in blocks: templates in random order, each time with other genes dropped.

    Counts of one are now and then two. int16 counts, int32 indices.
    """
    template, _ = templates(seed)
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, 2**23, np.uint8)
    for start in range(0, n_cells, N_TEMPLATES):
        order = rng.permutation(N_TEMPLATES)[: n_cells - start]
        block = template[order]
        chance = np.resize(np.roll(noise, int(rng.integers(len(noise)))), block.nnz)
        data = block.data + (chance > 240)
        kept = chance >= _DROPPED * 256
        ends = np.concatenate([[0], np.cumsum(kept)])[block.indptr]
        parts = (data[kept].astype(np.int16), block.indices[kept].astype(np.int32), ends)
        yield sparse.csr_matrix(parts, shape=block.shape)


class _Sink:
    """A 1-dimensional array on disk that grows by whole shards."""

    def __init__(self, group: Any, name: str, dtype: str) -> None:
        self.waiting: list[np.ndarray] = []
        self.n_waiting = self.n_written = 0
        if not hasattr(group, "create_array"):  # HDF5
            self.array = group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(_CHUNK,))
        else:
            from zarr.codecs import BloscCodec

            self.array = group.create_array(
                name,
                shape=(0,),
                dtype=dtype,
                chunks=(_CHUNK,),
                shards=(_SHARD,),
                compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
            )

    def add(self, values: np.ndarray) -> None:
        self.waiting.append(values)
        self.n_waiting += len(values)
        if self.n_waiting >= _SHARD:
            self.flush(self.n_waiting // _SHARD * _SHARD)

    def flush(self, n_values: int | None = None) -> None:
        n_values = self.n_waiting if n_values is None else n_values
        joined = np.concatenate(self.waiting) if self.waiting else np.zeros(0)
        if n_values:
            self.array.resize((self.n_written + n_values,))
            self.array[self.n_written : self.n_written + n_values] = joined[:n_values]
        self.n_written += n_values
        self.waiting = [joined[n_values:]]
        self.n_waiting -= n_values


def generate(path: Path, n_cells: int, seed: int = 0) -> dict[str, float]:
    """Write a table of simulated cells; tells how long that took and what it takes of the disk."""
    import anndata as ad

    started = time.perf_counter()
    names = templates(seed)[1]
    shell = ad.AnnData(
        obs=pd.DataFrame(index=[f"cell-{i:07d}" for i in range(n_cells)]),
        var=pd.DataFrame(index=names),
    )
    write_table(shell, path)
    if path.suffix == ".zarr":
        import zarr

        root: Any = zarr.open_group(path, mode="a", use_consolidated=False)
    else:
        import h5py

        root = h5py.File(path, "a")
    matrix = root.create_group("X")
    matrix.attrs["encoding-type"], matrix.attrs["encoding-version"] = "csr_matrix", "0.1.0"
    matrix.attrs["shape"] = [n_cells, N_GENES]
    data, indices = _Sink(matrix, "data", "int16"), _Sink(matrix, "indices", "int32")
    lengths = []
    for block in cells(n_cells, seed):
        data.add(block.data)
        indices.add(block.indices)
        lengths.append(np.diff(block.indptr))
    data.flush()
    indices.flush()
    n_genes = np.concatenate(lengths)
    indptr = np.concatenate([[0], np.cumsum(n_genes, dtype=np.int64)])
    if path.suffix == ".zarr":
        matrix.create_array("indptr", data=indptr)
        with zarr_as_we_write():
            zarr.consolidate_metadata(str(path))
    else:
        matrix.create_dataset("indptr", data=indptr)
        root.close()
    return {
        "fewest genes": float(n_genes.min()),
        "mean genes": float(n_genes.mean()),
        "GB": size(path) / 1e9,
        "seconds": time.perf_counter() - started,
    }


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What the operating system says of a process that has ended."""

    wall: float
    cpu: float
    peak_gb: float


def command(source: Path, output: Path, device: str) -> list[str]:
    """Return the command that is measured."""
    program = [sys.executable, "-c", "from sclinguist_core.cli import main; main()", "predict"]
    return [*program, str(source), "-o", str(output), "--stream", "--device", device]


def run(arguments: list[str], *, kill_when: Callable[[], bool] | None = None) -> Run:
    """Run a command; killed as soon as `kill_when`, if given, says so."""
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=errors)
        while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            if kill_when is not None and kill_when():
                child.send_signal(signal.SIGKILL)
            # Not ru_maxrss, which begins with the memory of the process that started the command.
            peak = max(peak, _peak_kib(child.pid))
            time.sleep(0.02)
        wall = time.perf_counter() - started
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if kill_when is not None and child.returncode != -signal.SIGKILL:
            raise SystemExit(f"{shlex.join(arguments)}: ended before it was killed")
        if child.returncode > 0:
            errors.seek(0)
            raise SystemExit(f"{shlex.join(arguments)}: {errors.read().decode()[-2000:]}")
    return Run(wall=wall, cpu=usage.ru_utime + usage.ru_stime, peak_gb=peak * 1024 / 1e9)


def _peak_kib(process: int) -> int:
    """Largest resident memory of a process so far."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def measure(source: Path, output: Path, device: str) -> Run:
    """Predict a table, nothing of which was done before."""
    remove(output)
    remove(partial(output))
    return run(command(source, output, device))


def partial(output: Path) -> Path:
    """Folder in which a prediction grows."""
    return output.with_name(f"{output.name}.partial")


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def killed(source: Path, output: Path, device: str, n_kills: int, seed: int) -> list[float]:
    """Predict a table, killed on the way; returns at which shares of the blocks."""
    remove(output)
    remove(partial(output))
    n_blocks = _n_blocks(source)
    moments = np.sort(np.random.default_rng(seed).uniform(0.15, 0.85, n_kills)) * n_blocks
    shares = []
    for moment in moments:
        run(command(source, output, device), kill_when=lambda m=moment: n_done(output) >= m)
        if n_done(output) < max(moment, n_blocks * shares[-1] if shares else 0):
            raise SystemExit(f"{output}: blocks were lost by the kill, or done anew")
        shares.append(n_done(output) / n_blocks)
        print(f"killed with {n_done(output)} of {n_blocks} blocks done", flush=True)
    run(command(source, output, device))
    return shares


def n_done(output: Path) -> int:
    """Blocks that are on the disk."""
    return len(list(partial(output).glob("block-*.f32")))


def _n_blocks(source: Path) -> int:
    from sclinguist_core.data.backed_section import BackedSection
    from sclinguist_core.inference.stream import plan_blocks

    with BackedSection(source) as section:
        return len(plan_blocks(section, len(load_checkpoint().proteins))) - 1


def differences(one: Path, other: Path) -> tuple[int, float]:
    """Values that two outputs share, and how far they are apart at most, read column by column."""
    n_values, largest = 0, 0.0
    with BackedTable(one) as left, BackedTable(other) as right:
        keys = [key for key in left.names("obsm") if key.startswith("protein_predicted")]
        places = [f"obsm/{key}/{name}" for key in keys for name in left.names(f"obsm/{key}")]
        places = [place for place in places if not place.endswith("/_index")]
        for place in [*places, "obs/sclinguist_ood"]:
            a, b = left.group[place][:], right.group[place][:]
            if not np.array_equal(np.isnan(a), np.isnan(b)):
                return n_values, float("inf")
            n_values += len(a)
            largest = max(largest, float(np.nanmax(np.abs(a - b))))
    return n_values, largest


def per_cell(records: list[dict[str, Any]], former: Path) -> pd.DataFrame:
    """Put measurements beside those of other sizes, and work out what a cell costs.

    Adds ``ms_per_cell``, of all of the run, and what each cell beyond the judged sample costs, in
    milliseconds of time and of the processor.
    """
    table = pd.DataFrame(records).set_index("cells")
    if former.exists():
        old = pd.read_csv(former, index_col="cells")
        table = pd.concat([table, old.loc[old.index.difference(table.index)]])
    table = table.sort_index().drop(columns=["ms_per_cell"], errors="ignore")
    start_up, cells = table.loc[START_UP_CELLS], table.index.to_numpy()
    further = np.where(cells > START_UP_CELLS, cells - START_UP_CELLS, np.nan)
    table["ms_per_cell"] = 1e3 * table["wall_s"] / cells
    for kind in ("wall", "cpu"):
        spent = 1e3 * (table[f"{kind}_s"] - start_up[f"{kind}_s"])
        table[f"{kind}_ms_per_further_cell"] = spent / further
    return table.reset_index()


def main() -> None:
    """Generate, measure, kill and compare; print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where tables may lie")
    parser.add_argument("--cells", default="10000,100000,1000000")
    parser.add_argument("--format", choices=("zarr", "h5ad"), default="zarr")
    parser.add_argument("--kills", type=int, default=2, help="of the largest; 0 for none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/results/out_of_core.csv"))
    parser.add_argument("--keep", action="store_true", help="keep the generated tables")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    sizes = sorted(int(text) for text in options.cells.split(","))
    records = []
    for n_cells in (START_UP_CELLS, *sizes):
        source = options.folder / f"cells_{n_cells}.{options.format}"
        made = {} if source.exists() else generate(source, n_cells, options.seed)
        print(f"{source.name}: {made or 'was there'}", flush=True)
        output = options.folder / f"predicted_{n_cells}.{options.format}"
        found = measure(source, output, options.device)
        records.append(
            {
                "cells": n_cells,
                "input_gb": size(source) / 1e9,
                "wall_s": found.wall,
                "cpu_s": found.cpu,
                "peak_gb": found.peak_gb,
            }
        )
        print(records[-1], flush=True)
        if n_cells != sizes[-1]:
            remove(output)
            if not options.keep:
                remove(source)
    if options.kills:
        again = options.folder / f"resumed_{sizes[-1]}.{options.format}"
        shares = killed(source, again, options.device, options.kills, options.seed)
        n_values, largest = differences(output, again)
        if largest > 0:
            print(f"DIFFERENT: the resumed table by up to {largest}", flush=True)
        records[-1] |= {
            "killed_at": ";".join(f"{share:.2f}" for share in shares),
            "compared_values": n_values,
            "largest_difference": largest,
        }
        remove(again)
    remove(output)
    if not options.keep:
        remove(source)
    table = per_cell(records, options.output)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(f"sclinguist {sclinguist_core.__version__}, device {options.device}")
    print(table.to_string(index=False))
    table.to_csv(options.output, index=False, float_format="%.6g", lineterminator="\n")
    if records[-1].get("largest_difference", 0) > 0:
        sys.exit(1)


if __name__ == "__main__":
    main()
