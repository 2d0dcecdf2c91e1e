"""Time several ways of doing one thing, in turn, in one run; print ratios of medians.

Machines drift and share their cores: seconds from two runs are not compared, so every round times
every way once, and what is quoted is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).parents[2] / ".venv-peers"))  # `make bench-peers`

import torch  # noqa: E402 - it reads the variables above


def counts(*default: int) -> list[int]:
    """Return the sizes on the command line, or the usual ones."""
    return [int(text) for text in sys.argv[1:]] or list(default)


def compare(
    title: str, ours: str, ways: Mapping[str, Callable[[], object]], rounds: int = 5
) -> dict[str, float]:
    """Print a Markdown table: median ms, spread, and how many times ours each way takes."""
    for way in ways.values():
        way()  # warm up: allocate, choose kernels
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    print(f"\n### {title}\n\n| way | median ms | min .. max ms | times ours |\n|---|---|---|---|")
    ratios = {}
    for name, taken in seconds.items():
        pairs = zip(taken, seconds[ours], strict=True)
        ratios[name] = statistics.median(a / b for a, b in pairs)
        low, mid, high = (1e3 * f(taken) for f in (min, statistics.median, max))
        print(f"| {name} | {mid:.1f} | {low:.1f} .. {high:.1f} | {ratios[name]:.2f} |")
    return ratios


def machine() -> str:
    """Return one line: processor features that matter, threads, versions."""
    flags = ""
    try:
        with open("/proc/cpuinfo") as file:
            text = file.read()
        flags = ", ".join(f for f in ("avx512f", "avx512_vnni", "amx_int8") if f in text)
    except OSError:
        pass
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "numpy", "zarr", "numcodecs"))
    threads = torch.get_num_threads()
    return f"{platform.machine()} ({flags}), torch threads: {threads}, {packages}"
