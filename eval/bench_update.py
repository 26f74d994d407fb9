"""Replayed frames per second of one whole update, and what share of the machine's matrix-multiply peak it reaches."""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from agent import presets
from agent.config import Config
from agent.learner import Learner


def bench_update(preset: str = "cpu", repeats: int = 10, batch: int = 8, frames: int = 64) -> dict[str, Any]:
    """Times updates on random 64x64x3 windows with 6 actions, in turns with the GEMM peak of the same precision.

    FLOPs are what torch's counter finds in matrix products, convolutions and attention, forward and backward.
    """
    config = presets.apply(preset, "image", Config())
    config.replay.batch, config.replay.frames = batch, frames
    learner = Learner(config, (64, 64, 3), 6)
    random = np.random.default_rng(0)
    arrays = _window(random, batch, frames)
    for _ in range(2):
        learner.update(arrays)
    with FlopCounterMode(display=False) as counter:
        learner.update(arrays)
    dtype = torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32
    seconds, peaks = [], []
    for _ in range(repeats):  # in turns, so that both meet the same load of the machine
        seconds.append(_seconds(lambda: learner.update(arrays), learner.device))
        peaks.append(gemm_peak(learner.device, dtype))
    took, peak, flops = statistics.median(seconds), statistics.median(peaks), counter.get_total_flops()
    return {
        "preset": preset,
        "window": f"{batch} x {frames}",
        "parameters": sum(p.numel() for m in (learner.model, learner.agent) for p in m.parameters() if p.requires_grad),
        "precision": config.train.precision,
        "threads": torch.get_num_threads(),
        "seconds_per_update": took,
        "frames_per_s": batch * frames / took,
        "peak_memory_gb": _peak_memory(learner.device),
        "gflop_per_update": flops / 1e9,
        "gemm_peak_gflop_per_s": peak / 1e9,
        "share_of_gemm_peak": flops / took / peak,
    }


def gemm_peak(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of one large square matrix product, the best of three."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(_seconds(lambda: a @ b, device) for _ in range(3))


def _window(random: np.random.Generator, batch: int, frames: int) -> dict[str, np.ndarray]:
    return {
        "observation": random.integers(0, 255, (batch, frames, 64, 64, 3), dtype=np.uint8),
        "action": np.eye(6, dtype=np.float32)[random.integers(0, 6, (batch, frames))],
        "reward": np.zeros((batch, frames), np.float32),
        "is_first": np.zeros((batch, frames), bool),
        "terminated": np.zeros((batch, frames), bool),
    }


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> float:
    """Of the process, or of the card, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def print_table(result: dict[str, Any]) -> None:
    """What `bench_update` returned, a line each."""
    for name, value in result.items():
        print(f"{name:24s} {value:.4g}" if isinstance(value, float) else f"{name:24s} {value}")
