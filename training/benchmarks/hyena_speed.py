"""How long a cell takes in the published architecture: written out plainly, and as shipped.

    python training/benchmarks/hyena_speed.py [--device cuda] [--cells 1 4] [--threads 1]
        [--compile] [--write docs/results/published_speed.md]

The plain version is the same graph on the same weights in float32, one operation after the other:
filters made anew in every call, transforms of twice the length, a vector per position before the
first projection. The largest difference of each answer from it, relative to the largest value,
stands beside the times.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sclinguist_core.model.hyena import HyenaTables, HyenaTranslator
from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.model.hyena_layers import HyenaBlock, HyenaStack

READING = """\
How to read it: seconds are the shortest of several runs, on one thread of a processor the thread's
own time. On a processor the two products of the bridge, 73 of the 85 GFLOP of a cell, set the pace;
they are exact and the same in both versions, so that only the rest can be saved, and half precision
helps only where the processor has instructions for it. A subset of proteins costs the first product
in any case; the second one and the decoder run up to the last position asked for."""


def plain_block(block: HyenaBlock, x: Tensor) -> Tensor:
    """One Hyena block, operation by operation; shape (B, L, D)."""
    operator, length = block.operator, x.shape[1]
    streams = operator.short(operator.in_projection(block.norm(x)).transpose(1, 2))[..., :length]
    gate, key, value = streams.chunk(3, dim=1)
    product = value * key
    size = 2 * length
    spectrum = torch.fft.rfft(operator.long(length), n=size)
    convolved = torch.fft.irfft(torch.fft.rfft(product, n=size) * spectrum, n=size)[..., :length]
    convolved = convolved + product * operator.long.direct[:, None]
    x = x + operator.out_projection((convolved * gate).transpose(1, 2))
    return x + block.down(F.gelu(block.up(block.local_norm(x)), approximate="tanh"))


def plain_stack(stack: HyenaStack, x: Tensor) -> Tensor:
    """All blocks and the last norm."""
    for block in stack.blocks:
        x = plain_block(block, x)
    return stack.norm(x)


def plain_forward(model: HyenaTranslator, x: Tensor) -> Tensor:
    """Compute the whole graph; shape (B, G) to (B, P)."""
    h = plain_stack(model.encoder.stack, model.encoder.embed(x[..., None])).transpose(1, 2)
    for layer in model.bridge.layers[:-1]:
        h = layer(h.contiguous()).relu()
    h = model.bridge.layers[-1](h).transpose(1, 2).contiguous()
    return model.decoder.out(plain_stack(model.decoder.stack, h)).squeeze(-1)


def seconds(
    calls: dict[str, Callable[[], Tensor]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Shortest of several runs of each call, taking turns, after one run to warm up.

    On one thread of a processor it is the thread's own time, so that other work on the machine
    disturbs less.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = clock()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(clock() - start)
    return {name: min(each[1:]) for name, each in times.items()}


def cells_like(n_cells: int, n_genes: int, device: torch.device) -> Tensor:
    """Cells with a tenth of the genes expressed, at the values of log1p CP10k."""
    x = torch.rand(n_cells, n_genes, device=device)
    return torch.where(x < 0.1, 20 * x + 0.5, 0.0)


def memory(device: torch.device) -> str:
    """Most memory so far: of the card, or of this process."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on the card"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"


def where_it_ran(device: torch.device) -> list[str]:
    """Say what the figures hold for."""
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        load = os.getloadavg()[0]
        machine = (
            f"{cpu_name()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, load "
            f"average {load:.1f} when it began (other jobs ran)"
        )
    command = " ".join(["python", "training/benchmarks/hyena_speed.py", *sys.argv[1:]])
    return [
        f"- {time.strftime('%Y-%m-%d')}, {machine}",
        f"- Python {platform.python_version()}, torch {torch.__version__}",
        f"- `{command}`",
    ]


def cpu_name() -> str:
    """Model of the processor, where the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "processor"


def half_precision_on_a_processor() -> str:
    """Time a product of the bridge's kind, an eighth of its size a side, in both precisions."""
    weight, x = torch.rand(1_389, 2_400), torch.rand(2_400, 256)
    half_weight, half_x = weight.bfloat16(), x.bfloat16()
    calls = {"float32": lambda: weight @ x, "bfloat16": lambda: half_weight @ half_x}
    times = seconds(calls, 3, torch.device("cpu"))
    return (
        f"A product of the bridge's kind, (1389 x 2400) (2400 x 256): {times['float32']:.3f} s in "
        f"float32, {times['bfloat16']:.3f} s in bfloat16."
    )


def main() -> None:
    """Print a table, and write it where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--proteins", type=int, nargs="+", default=[100, 1000, 3000], help="sizes of the subset"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile, too")
    parser.add_argument("--write", type=Path, help="Markdown file for the result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    lines = where_it_ran(device)
    model = HyenaTranslator(HyenaConfig()).eval().to(device)
    parts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    lines.append("- weights: " + ", ".join(f"{name} {n:,}" for name, n in parts.items()))
    with torch.inference_mode():
        tables = model.tables()
        once = seconds({"tables": lambda: model.tables().encoder[0].values}, 1, device)
        lines.append(f"- filters, once a model: {once['tables']:.2f} s")
        for n_cells in options.cells:
            x = cells_like(n_cells, model.config.n_genes, device)
            lines += ["", *table_of(model, x, tables, options, device)]
    lines += ["", f"Most memory: {memory(device)}."]
    if device.type == "cpu":
        lines += ["", half_precision_on_a_processor()]
    lines += ["", READING]
    print("\n".join(lines))
    if options.write is not None:
        options.write.write_text(
            "# Speed of the published architecture\n\n" + "\n".join(lines) + "\n"
        )


def table_of(
    model: HyenaTranslator,
    x: Tensor,
    tables: HyenaTables,
    options: argparse.Namespace,
    device: torch.device,
) -> list[str]:
    """Time every variant on a batch; rows of a Markdown table."""
    calls: dict[str, Callable[[], Tensor]] = {
        "plain float32": lambda: plain_forward(model, x),
        "as shipped, float32": lambda: model(x, tables),
    }
    for n_proteins in options.proteins:
        subset = model.tables(torch.arange(n_proteins, device=device))
        calls[f"as shipped, proteins up to position {n_proteins:,}"] = lambda t=subset: model(x, t)
    calls["encoder, plain"] = lambda: plain_stack(
        model.encoder.stack, model.encoder.embed(x[..., None])
    )
    calls["encoder, as shipped"] = lambda: model.encoder(x, tables.encoder)
    if device.type == "cuda":
        half = torch.autocast("cuda", torch.bfloat16)
        calls["as shipped, bf16"] = half(lambda: model(x, tables))
    if options.compile:
        compiled = torch.compile(model)
        calls["as shipped, float32, compiled"] = lambda: compiled(x, tables)
        if device.type == "cuda":
            calls["as shipped, bf16, compiled"] = half(lambda: compiled(x, tables))
    expected = {name: calls[name]() for name in ("plain float32", "encoder, plain")}
    times = seconds(calls, options.repeats, device)
    cells = "cell" if len(x) == 1 else "cells"
    rows = [
        f"| {len(x)} {cells} | seconds | cells/s | speed-up | largest difference |",
        "|---|---|---|---|---|",
    ]
    for name, time_s in times.items():
        reference = "encoder, plain" if name.startswith("encoder") else "plain float32"
        found, right = calls[name]().float(), expected[reference]
        error = float((found - right[:, : found.shape[1]]).abs().max() / right.abs().max())
        rows.append(
            f"| {name} | {time_s:.3f} | {len(x) / time_s:.2f} | "
            f"{times[reference] / time_s:.2f} | {error:.1e} |"
        )
    return rows


if __name__ == "__main__":
    main()
