"""How time and memory are measured: on any device, in turns, medians."""

import ctypes
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock of one call, the device's work included."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def medians(works: Mapping[Any, Callable[[], Any]], device: torch.device, rounds: int) -> dict[Any, float]:
    """Median seconds of each, warmed up once; taken in turns, so that all have the same load of the machine."""
    for work in works.values():
        work()
    times: dict[Any, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    return {name: statistics.median(taken) for name, taken in times.items()}


def gemm_peak(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of one large square matrix product, the best of three."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(3))


def peak_memory(device: torch.device) -> float:
    """GB held at most since the process, or the last `reset_peak`, began: of the process or of the card."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def reset_peak(device: torch.device) -> float:
    """Resets the peak; returns what is held now, in GB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError, AttributeError):  # glibc alone: returns freed memory, so that its reuse counts
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak falls to what is resident
    return peak_memory(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
