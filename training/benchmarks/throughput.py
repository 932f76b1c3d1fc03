"""Spots a second: in the model, in the whole command, and beside the published architecture.

    python training/benchmarks/throughput.py [--spots 4000] [--genes 18000] [--device cuda]
        [--write docs/results/throughput.md]

The section is simulated: at least 1,800 of the bundled model's genes are expressed in every spot,
and all of them are read. The command runs in processes of its own, started anew each time. The
published architecture runs at full size on random weights (its speed does not depend on them),
written out plainly and as this package runs it, in turns, before the bundled model is measured.

What bounds the model is told by its parts: bringing cells to the device alone, the network alone on
cells that are there already, and the share of a plain product of large matrices on the same device
(float32 on processors, bfloat16 on cards) that the network's operations make up.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from hyena_speed import cells_like, cpu_name, plain_forward
from scipy import sparse
from torch.utils.flop_counter import FlopCounterMode

from sclinguist_core.data.align import AlignedRna, gene_aligner
from sclinguist_core.data.batches import bucketed_rows
from sclinguist_core.inference.runner import make_runner
from sclinguist_core.model.checkpoint import Checkpoint, load_checkpoint
from sclinguist_core.model.device import CPU_BATCH, CPU_TOKENS, CUDA_BATCH, CUDA_TOKENS
from sclinguist_core.model.feed import Cells
from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.vocabulary.genes import gene_table

FEWEST = 1_800
"""Expressed genes of the model in every spot."""

_COMMAND = """
import atexit, sys, time

def used():
    # Unlike what wait() tells, without the memory of the process that started this one.
    with open("/proc/self/status") as file:
        peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
    print(time.process_time(), peak, file=sys.stderr)

atexit.register(used)
from sclinguist_core.cli import main
main()
"""


def simulate(checkpoint: Checkpoint, n_spots: int, n_genes: int, seed: int = 0) -> ad.AnnData:
    """Spots that express genes as often as the model's reference does, and some others."""
    rng = np.random.default_rng(seed)
    known = checkpoint.symbols
    others = [symbol for symbol in gene_table().index if symbol not in set(known)]
    names = np.array([*known, *others[: n_genes - len(known)]])
    weight = np.full(len(names), np.quantile(checkpoint.gene_share, 0.2))
    weight[: len(known)] = checkpoint.gene_share
    log_weight = 0.6 * np.log(np.maximum(weight, 1e-9)).astype(np.float32)
    rows = []
    for _ in range(n_spots):
        # The largest of weights with Gumbel noise are a draw without replacement.
        noise = rng.gumbel(size=len(known)).astype(np.float32)
        n_known = int(rng.integers(FEWEST, FEWEST + 601))
        of_model = np.argpartition(-(log_weight[: len(known)] + noise), n_known)[:n_known]
        n_others = len(names) - len(known)
        rest = len(known) + rng.choice(n_others, min(n_others, n_known // 10), replace=False)
        rows.append(np.sort(np.concatenate([of_model, rest])))
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    indices = np.concatenate(rows)
    counts = rng.geometric(0.6, len(indices)).astype(np.float32)
    return ad.AnnData(
        sparse.csr_matrix((counts, indices, indptr), shape=(n_spots, len(names))),
        obs=pd.DataFrame(index=[f"spot-{i}" for i in range(n_spots)]),
        var=pd.DataFrame(index=names),
    )


def in_the_model(
    checkpoint: Checkpoint, rna: AlignedRna, device: str, repeats: int
) -> tuple[float, float]:
    """Rows a second through the network from CSR counts, and through the familiarity score."""
    runner = make_runner(checkpoint, torch.device(device), np.arange(len(checkpoint.proteins)))
    runner.run_all(rna.take(np.arange(min(256, rna.n_obs))))
    network, score = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        runner.run_all(rna)
        network.append(time.perf_counter() - start)
        start = time.perf_counter()
        assert checkpoint.familiarity is not None
        checkpoint.familiarity.score(rna.counts, rna.measured, rna.pattern)
        score.append(time.perf_counter() - start)
    return rna.n_obs / float(np.median(network)), rna.n_obs / float(np.median(score))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Rows a second of the parts of a prediction, and what a device could do.

    Attributes
    ----------
    feed, network, training
        Bringing cells to the device; the network on cells that are there; a step of training.
    flops
        Floating-point operations of products of matrices for a row, forwards.
    peak
        Such operations a second in a product of two large matrices.
    """

    feed: float
    network: float
    training: float
    flops: float
    peak: float

    def lines(self) -> list[str]:
        """Rows of the table."""
        network, training = (
            rate * self.flops * times / self.peak
            for rate, times in ((self.network, 1), (self.training, 3))
        )
        peak = f"{self.peak / 1e12:.2f} TFLOP/s"
        slower = "the network" if self.network < self.feed else "bringing cells to it"
        return [
            f"| bringing cells to the device alone | {self.feed:,.0f} | | {slower} is the bound |",
            f"| the network alone, one batch at a time | {self.network:,.0f} | | "
            f"{self.flops / 1e6:.0f} MFLOP a spot: {network:.1%} of {peak} |",
            f"| training: forwards, backwards, AdamW | {self.training:,.0f} | | {training:.1%} |",
        ]


def parts(checkpoint: Checkpoint, rna: AlignedRna, device: torch.device, repeats: int) -> Parts:
    """Time the parts on one batch of the usual size."""
    on_cuda = device.type == "cuda"
    half = torch.autocast(device.type, torch.bfloat16, enabled=on_cuda)
    scale = rna.scale(checkpoint.gene_share, checkpoint.info.model.rna_normalization)
    cells = Cells(values=rna.counts, pattern=rna.pattern, scale=scale)
    n_rows, n_tokens = (CUDA_BATCH, CUDA_TOKENS) if on_cuda else (CPU_BATCH, CPU_TOKENS)
    rows = next(bucketed_rows(cells.lengths, n_rows, n_tokens))
    tokens = cells.tokens(rows, device)
    model = copy.deepcopy(checkpoint.translator).to(device).requires_grad_(False)

    def rate(call: Callable[[], object], n: int) -> float:
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            call()
            if on_cuda:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        return n / min(times[1:])

    with torch.inference_mode(), half:
        tables = model.tables()
        panels = model.panels(torch.from_numpy(rna.measured).to(device), tables)

        def forward() -> torch.Tensor:
            return model(tokens.genes, tokens.values, panels.of(tokens.pattern), tables).mean

        feed = rate(lambda: cells.tokens(rows, device), len(rows))
        network = rate(forward, len(rows))
        with FlopCounterMode(display=False) as counter:
            forward()
        side = 8_192 if on_cuda else 2_048
        square = torch.randn(side, side, device=device)
        peak = rate(lambda: square @ square, 2 * side**3)
    model.train().requires_grad_()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-6)

    def step() -> None:
        optimiser.zero_grad()
        with half:
            own = model.tables()
            cell_panels = model.panels(torch.from_numpy(rna.measured).to(device), own)
            out = model(
                tokens.genes.clone(), tokens.values.clone(), cell_panels.of(tokens.pattern), own
            )
            loss = out.heads.square().mean()
        loss.backward()
        optimiser.step()

    training = rate(step, len(rows))
    flops = counter.get_total_flops() / len(rows)
    return Parts(feed=feed, network=network, training=training, flops=flops, peak=peak)


def less_precise(checkpoint: Checkpoint, rna: AlignedRna, repeats: int) -> list[str]:
    """Say what numbers of fewer bits change in the predictions, and what 8 bits gain here."""
    proteins = np.arange(len(checkpoint.proteins))
    runner, eight = (make_runner(checkpoint, torch.device("cpu"), proteins) for _ in range(2))
    eight.model = in_eight_bits(checkpoint.translator)
    some = rna.take(np.arange(min(512, rna.n_obs)))
    times: dict[str, list[float]] = {"whole": [], "eight": []}
    for _ in range(repeats + 1):
        for name, each in (("whole", runner), ("eight", eight)):
            start = time.perf_counter()
            each.run_all(some)
            times[name].append(time.perf_counter() - start)
    fast, slow = (some.n_obs / float(np.median(times[name][1:])) for name in ("eight", "whole"))
    whole, _ = runner.run_all(some)
    low, _ = eight.run_all(some)
    runner.half = True
    half, _ = runner.run_all(some)
    return [
        f"Products of matrices in bfloat16, as on a card, {_change(half, whole)}.",
        "",
        f"Linear layers in 8 bits (dynamic quantisation, on the processor) {_change(low, whole)}; "
        f"{fast:,.0f} spots/s against {slow:,.0f} in float32, in turns.",
    ]


def in_eight_bits(model: torch.nn.Module) -> torch.nn.Module:
    """Quantise the linear layers, but those whose weights become rows of the genes' table."""
    from torch.ao.quantization import quantize_dynamic

    layers = {
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and not name.startswith(("reader.value", "reader.gene"))
    }
    with warnings.catch_warnings(action="ignore"):
        return quantize_dynamic(copy.deepcopy(model), layers, dtype=torch.qint8)


def _change(found: np.ndarray, whole: np.ndarray) -> str:
    difference = np.abs(found - whole)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(found.T, whole.T, strict=True)]
    return (
        f"change predictions by {difference.mean():.4f} standard deviations of a protein on "
        f"average and by {difference.max():.3f} at most; the lowest correlation of a protein with "
        f"that in float32 is {min(r):.5f} (the median {np.median(r):.5f})"
    )


def whole_command(table: ad.AnnData, device: str, repeats: int) -> list[tuple[float, float, float]]:
    """Wall seconds, processor seconds and peak GiB of ``sclinguist predict``, each run anew."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "spots.h5ad"), Path(folder, "predicted.h5ad")
        table.write_h5ad(source)
        for _ in range(repeats):
            output.unlink(missing_ok=True)
            command = [sys.executable, "-c", _COMMAND, "predict", str(source), "-o", str(output)]
            start = time.perf_counter()
            child = subprocess.run([*command, "--device", device], capture_output=True, text=True)
            wall = time.perf_counter() - start
            if child.returncode:
                sys.exit(f"sclinguist predict failed:\n{child.stderr}")
            seconds, kib = map(float, child.stderr.splitlines()[-1].split())
            runs.append((wall, seconds, kib / 2**20))
    return runs


def published(device: torch.device, repeats: int) -> dict[str, float]:
    """Cells a second of the published architecture at full size, plain and as shipped."""
    torch.manual_seed(0)
    model = HyenaTranslator(HyenaConfig()).to(device).eval()
    cells = cells_like(1, model.config.n_genes, device)
    times: dict[str, list[float]] = {"plain": [], "as shipped": []}
    with torch.inference_mode():
        tables = model.tables()
        for _ in range(repeats + 1):
            for name, call in (
                ("plain", lambda: plain_forward(model, cells)),
                ("as shipped", lambda: model(cells, tables)),
            ):
                start = time.perf_counter()
                call().sum().item()
                times[name].append(time.perf_counter() - start)
    return {name: 1.0 / min(each[1:]) for name, each in times.items()}


def report(args: argparse.Namespace) -> str:
    """Measure, and put it into a table."""
    checkpoint = load_checkpoint()
    device = torch.device(args.device)
    table = simulate(checkpoint, args.spots, args.genes)
    aligner = gene_aligner(table.var_names.to_numpy(), None, checkpoint.symbols)
    rna = aligner.apply(table.X)
    expressed = np.diff(rna.counts.indptr)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    lines = [
        f"- {time.strftime('%Y-%m-%d')}, {machine}, {torch.get_num_threads()} threads of "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} when it began",
        f"- Python {platform.python_version()}, torch {torch.__version__}",
        f"- `{' '.join(['python', 'training/benchmarks/throughput.py', *sys.argv[1:]])}`",
        f"- {table.n_obs:,} spots x {table.n_vars:,} genes; {expressed.min():,} to "
        f"{expressed.max():,} of the model's genes expressed (median "
        f"{int(np.median(expressed)):,}), none dropped; {len(checkpoint.proteins)} proteins",
        "",
        "| what | spots a second | seconds | |",
        "|---|---|---|---|",
    ]
    old = {} if args.skip_published else published(device, args.repeats)
    network, score = in_the_model(checkpoint, rna, args.device, args.repeats)
    lines += [
        f"| in the model | {network:,.0f} | {args.spots / network:.2f} | counts to protein |",
        f"| out-of-distribution score | {score:,.0f} | {args.spots / score:.2f} | |",
    ]
    lines += parts(checkpoint, rna, device, args.repeats).lines()
    for wall, cpu, gib in whole_command(table, args.device, args.repeats):
        lines.append(
            f"| `sclinguist predict`, whole command | {args.spots / wall:,.0f} | {wall:.1f} | "
            f"{cpu:.1f} s of processor, {gib:.2f} GiB |"
        )
    for name, rate in old.items():
        lines.append(
            f"| published architecture, {name} | {rate:.2f} | {args.spots / rate:,.0f} | the "
            f"bundled model is {network / rate:,.0f} times as fast |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", *less_precise(checkpoint, rna, args.repeats)]
    return "\n".join([*lines, "", f"Most memory of the benchmark itself: {peak:.1f} GiB.", ""])


def main() -> None:
    """Print the table, and write it where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spots", type=int, default=4_000)
    parser.add_argument("--genes", type=int, default=18_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-published", action="store_true")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    text = report(args)
    print(text)
    if args.write is not None:
        args.write.write_text(f"# Throughput\n\n{text}", "utf-8")


if __name__ == "__main__":
    main()
