"""How long a bag of 50 cells takes in the sCT architecture at its published size.

    python training/benchmarks/sct_speed.py [--device cuda] [--threads 1] [--repeats 1]

A bag is 998,400 positions; weights are random, which changes no time. On a processor it runs in
float32, on a GPU also in bfloat16, and there a training step is timed too (`recompute` on).
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import torch

from sclinguist_core.model.sct import SctModel
from sclinguist_core.model.sct_config import N_TOKENS, SctConfig


def seconds(call: Callable[[], object], repeats: int, device: torch.device) -> tuple[float, float]:
    """Shortest wall time of several runs, and the time of the calling thread in that run."""
    best = (float("inf"), 0.0)
    for _ in range(repeats):
        wall, thread = time.perf_counter(), time.thread_time()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - wall, time.thread_time() - thread))
    return best


def processor() -> str:
    """Name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    """Print times, and what they were measured on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    config = SctConfig()
    model = SctModel(config).eval().to(device)
    n_weights = sum(p.numel() for p in model.parameters())
    where = torch.cuda.get_device_name(device) if on_gpu else processor()
    print(f"{date.today()}, {where}, {options.threads} threads, torch {torch.__version__}")
    print(f"{n_weights:,} weights, {config.n_cells} cells x {config.n_genes:,} genes")
    shape = (1, config.n_cells, config.n_genes)
    tokens = torch.randint(0, N_TOKENS, shape, dtype=torch.int8, device=device)

    def answer() -> torch.Tensor:
        with torch.inference_mode():
            return model(tokens)

    def answer_in_half() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return answer()

    calls = {"float32": answer} | ({"bfloat16": answer_in_half} if on_gpu else {})
    for name, call in calls.items():
        if on_gpu:
            call()  # warm up
            torch.cuda.reset_peak_memory_stats(device)
        wall, thread = seconds(call, options.repeats, device)
        print(f"{name}: {wall:.2f} s a bag ({thread:.2f} s of the calling thread)")
        if on_gpu:
            print(f"  {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB at most")
    if not on_gpu:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{peak:.1f} GiB at most, the process with everything in it")
        return
    model = SctModel(replace(config, recompute=True)).to(device)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            model(tokens).float().square().mean().backward()

    step()
    torch.cuda.reset_peak_memory_stats(device)
    wall, _ = seconds(step, options.repeats, device)
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    print(f"training, bfloat16, recompute: {wall:.2f} s a bag, {peak:.1f} GiB at most")


if __name__ == "__main__":
    main()
