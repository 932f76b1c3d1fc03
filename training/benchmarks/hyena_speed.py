"""How long a cell takes in the published architecture: written out plainly, and as shipped.

    python training/benchmarks/hyena_speed.py [--device cuda] [--cells 1 4] [--threads 1]

The plain version is the same graph on the same weights in float32, one operation after the other:
filters made anew in every call, transforms of twice the length, a vector per position before the
first projection. The largest difference of the two answers is printed beside the times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sclinguist_core.model.hyena import HyenaTranslator
from sclinguist_core.model.hyena_config import HyenaConfig
from sclinguist_core.model.hyena_layers import HyenaBlock, HyenaStack


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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--proteins", type=int, default=100, help="size of the subset")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = HyenaTranslator(HyenaConfig()).eval().to(device)
    for name in ("encoder", "bridge", "decoder"):
        n_weights = sum(p.numel() for p in getattr(model, name).parameters())
        print(f"{name}: {n_weights:,} weights")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(f"{where}, {options.threads} threads, torch {torch.__version__}")
    with torch.inference_mode():
        tables = model.tables()
        first = torch.arange(options.proteins, device=device)
        subset = model.tables(first)
        once = seconds({"tables": lambda: model.tables().encoder[0].values}, 1, device)
        print(f"tables: {once['tables']:.3f} s, once")
        for n_cells in options.cells:
            # A tenth of the genes expressed, at the values of log1p CP10k.
            x = torch.rand(n_cells, model.config.n_genes, device=device)
            x = torch.where(x < 0.1, 20 * x + 0.5, 0.0)
            expected = plain_forward(model, x)
            error = float((model(x, tables) - expected).abs().max() / expected.abs().max())
            calls: dict[str, Callable[[], Tensor]] = {
                "plain": lambda x=x: plain_forward(model, x),
                "shipped": lambda x=x: model(x, tables),
                f"shipped, first {options.proteins}": lambda x=x: model(x, subset),
                "  encoder, plain": lambda x=x: plain_stack(
                    model.encoder.stack, model.encoder.embed(x[..., None])
                ),
                "  encoder, shipped": lambda x=x: model.encoder(x, tables.encoder),
            }
            if device.type == "cuda":
                half = torch.autocast("cuda", torch.bfloat16)
                calls["shipped, bf16"] = half(lambda x=x: model(x, tables))
            print(f"{n_cells} cells, largest relative difference {error:.1e}")
            for name, time_s in seconds(calls, options.repeats, device).items():
                print(f"  {name:22s} {time_s:8.4f} s")


if __name__ == "__main__":
    main()
