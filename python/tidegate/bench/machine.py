"""What this machine can do at most: its name, FMA peak and read bandwidths, measured."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tidegate import _core

# Bytes of float32 read again and again: L1, L2, L3 and memory of usual CPUs.
_WORKING_SETS = tuple(2**power for power in range(14, 28))


def describe() -> dict[str, Any]:
    """CPU, its caches as the system reports them, operating system and Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
        model = next(
            (value.strip() for key, _, value in lines if key.strip() == "model name"), model
        )
    caches = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (index / "type").read_text().strip()
        level = (index / "level").read_text().strip()
        if kind != "Instruction":
            caches[f"L{level}"] = (index / "size").read_text().strip()
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "caches": caches,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def fma_peak(threads: int) -> float:
    """float32 operations per second of independent multiply-adds in registers, all threads."""
    iterations = 2_000_000
    return _rate(threads, [partial(_core.probe_multiply_add, iterations)] * threads)


def read_bandwidth(threads: int) -> dict[int, float]:
    """Bytes per second when every thread reads its own working set of so many bytes repeatedly."""
    rates = {}
    for size in _WORKING_SETS:
        arrays = [np.ones(size // 4, np.float32) for _ in range(threads)]
        repeats = max(1, 2**28 // size)
        calls = [partial(_core.probe_read, array, repeats) for array in arrays]
        rates[size] = _rate(threads, calls)
    return rates


def _rate(threads: int, calls: Sequence[Callable[[], float]], samples: int = 9) -> float:
    """Sum over the threads of what each call says it did, per second: the best of some samples.

    A limit is what the machine can do undisturbed.
    """
    with ThreadPoolExecutor(threads) as pool:

        def sample() -> float:
            start = time.perf_counter()
            done = sum(pool.map(lambda call: call(), calls))
            return done / (time.perf_counter() - start)

        sample()  # starts the threads
        return max(sample() for _ in range(samples))


class Limits:
    """The least time a problem can take on this machine, by arithmetic and by bandwidth."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.peak = fma_peak(threads)
        self.bandwidth = read_bandwidth(threads)

    def least_seconds(self, flops: float, recurrent_bytes: int, passes: int) -> float:
        """The larger of: all multiply-adds at peak; every pass over the recurrent weights read.

        Each thread holds its share of the weights, so the cache level is that of the share.
        """
        share = recurrent_bytes / self.threads
        level = min((size for size in self.bandwidth if size >= share), default=_WORKING_SETS[-1])
        return max(flops / self.peak, passes * recurrent_bytes / self.bandwidth[level])
